//! What namespace deletion found, in upstream's conditions. No I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use serde_json::{Value, json};
use trireme_client::{PartialMeta, ResourceType};

use crate::Error;

#[derive(Default)]
pub(super) struct Report {
    pub(super) discovery_failures: Vec<String>,
    pub(super) content_failures: Vec<String>,
    /// Objects left, by resource.
    pub(super) remaining: BTreeMap<String, usize>,
    /// Objects that hold a finalizer, by finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
    pub(super) error: Option<Error>,
}

impl Report {
    pub(super) fn left(&mut self, resource: &ResourceType, objects: &[PartialMeta]) {
        let name = format!("{}.{}", resource.plural, resource.group);
        self.remaining.insert(name, objects.len());
        for finalizer in objects.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// The conditions that differ from `old`.
    pub(super) fn conditions(&self, old: &[NamespaceCondition], now: Timestamp) -> Vec<Value> {
        let list = |counts: &BTreeMap<String, usize>, word: &str| {
            counts.iter().map(|(name, count)| format!("{name} {word} {count} resource instances")).collect::<Vec<_>>().join(", ")
        };
        let discovery = self
            .discovery_failures
            .first()
            .map(|failure| format!("Discovery failed for some groups, {} failing: {failure}", self.discovery_failures.len()));
        let content = (!self.content_failures.is_empty()).then(|| {
            format!("Failed to delete all resource types, {} remaining: {}", self.content_failures.len(), self.content_failures.join(", "))
        });
        let remaining = (!self.remaining.is_empty()).then(|| format!("Some resources are remaining: {}", list(&self.remaining, "has")));
        let finalizers = (!self.finalizers.is_empty())
            .then(|| format!("Some content in the namespace has finalizers remaining: {}", list(&self.finalizers, "in")));
        let rows = [
            (
                "NamespaceDeletionDiscoveryFailure",
                discovery,
                "DiscoveryFailed",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                "GroupVersionParsingFailed",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            (
                "NamespaceDeletionContentFailure",
                content,
                "ContentDeletionFailed",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            ("NamespaceContentRemaining", remaining, "SomeResourcesRemain", "ContentRemoved", "All content successfully removed"),
            (
                "NamespaceFinalizersRemaining",
                finalizers,
                "SomeFinalizersRemain",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ];
        rows.into_iter()
            .filter_map(|(kind, trouble, bad, good, fine)| {
                let (status, reason, message) = match trouble {
                    Some(message) => ("True", bad, message),
                    None => ("False", good, fine.to_owned()),
                };
                let known = old.iter().find(|condition| condition.type_ == kind);
                let same = known.is_some_and(|known| {
                    known.status == status && known.reason.as_deref() == Some(reason) && known.message.as_deref() == Some(&message)
                });
                let since = known
                    .filter(|known| known.status == status)
                    .and_then(|known| known.last_transition_time.as_ref())
                    .map_or(now, |time| time.0);
                (!same).then(|| {
                    json!({"type": kind, "status": status, "reason": reason, "message": message,
                        "lastTransitionTime": since.to_string()})
                })
            })
            .collect()
    }
}
