//! Counting what a quota bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;
use trireme_api::quota::{self, Amounts, Scopes, Subject};
use trireme_client::{Client, ListOptions, Object, PartialMeta, Typed};

use super::monitors::Monitors;
use super::subjects;
use crate::Error;

/// The use of an object, and when it changes without a write.
pub(super) struct Count {
    used: Amounts,
    changes_at: Option<Timestamp>,
}

/// Amounts of a typed list.
pub(super) fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    list.into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), amount.0.trim().parse().ok()?))).collect()
}

// === impl Count ===

impl Count {
    /// Counts what a quota bounds, in lists that are not older than it.
    pub(super) async fn of(quota: &ResourceQuota, monitors: &Monitors, client: &Client, now: Timestamp) -> Result<Self, Error> {
        let hard = amounts(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
        let encoded = serde_json::to_value(quota).map_err(|error| Error::Invalid(error.to_string()))?;
        let (scopes, lists) = (Scopes::of(&encoded), Lists { quota, client });
        let mut count = Self { used: Amounts::new(), changes_at: None };
        for subject in subjects(quota) {
            let Some(resource) = monitors.resource(&subject) else { continue };
            count.used.extend(quota::nothing_used(hard.keys().map(String::as_str).filter(|name| subject.has(name))));
            match subject {
                Subject::Pods => count.add(&subject, &scopes, lists.all::<Pod>().await?, now),
                Subject::Services => count.add(&subject, &scopes, lists.all::<Service>().await?, now),
                Subject::Claims => count.add(&subject, &scopes, lists.all::<PersistentVolumeClaim>().await?, now),
                // Scopes apply only to some resources: a quota with scopes counts no other objects.
                Subject::Objects { .. } if !scopes.are_empty() => {}
                Subject::Objects { .. } => {
                    let options = ListOptions { limit: Some(1), ..lists.options() };
                    let page = match client.list_any::<PartialMeta>(&resource, Some(quota.namespace()), &options).await {
                        Ok(page) => page,
                        Err(error) if error.is_not_found() => {
                            monitors.forget(&subject);
                            count.used.retain(|name, _| !subject.has(name));
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    };
                    let number = i64::try_from(page.items.len()).unwrap_or(i64::MAX);
                    let number = number.saturating_add(page.metadata.remaining_item_count.unwrap_or(0));
                    quota::add(&mut count.used, &subject.usage_of_number(number));
                }
            }
        }
        count.used.retain(|name, _| hard.contains_key(name));
        Ok(count)
    }

    fn add(&mut self, subject: &Subject, scopes: &Scopes, objects: Vec<Value>, now: Timestamp) {
        for object in objects.iter().filter(|object| scopes.hold(subject, object)) {
            quota::add(&mut self.used, &subject.usage(object, now));
            let expires = subject.expires(object).filter(|at| *at >= now);
            self.changes_at = [self.changes_at, expires].into_iter().flatten().min();
        }
    }

    /// As the status has it.
    pub(super) fn used(&self) -> BTreeMap<String, Quantity> {
        self.used.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect()
    }

    /// How long it holds, if that is known.
    pub(super) fn changes_in(&self, now: Timestamp) -> Option<Duration> {
        let secs = self.changes_at?.as_second().saturating_sub(now.as_second()).max(0);
        // One second more: a pod is charged until the second in which its time ends is over.
        Some(Duration::from_secs(secs.unsigned_abs() + 1))
    }
}

/// Lists of a quota's namespace, not older than the quota.
struct Lists<'a> {
    quota: &'a ResourceQuota,
    client: &'a Client,
}

impl Lists<'_> {
    fn options(&self) -> ListOptions {
        let resource_version = self.quota.metadata.resource_version.clone();
        ListOptions { resource_version, resource_version_match: Some("NotOlderThan"), ..ListOptions::default() }
    }

    async fn all<T: Typed>(&self) -> Result<Vec<Value>, Error> {
        let list = self.client.list::<T>(Some(self.quota.namespace()), &self.options()).await?;
        let encode = |object: &T| serde_json::to_value(object).map_err(|error| Error::Invalid(error.to_string()));
        list.items.iter().map(encode).collect()
    }
}
