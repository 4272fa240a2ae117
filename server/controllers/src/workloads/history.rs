//! The templates that an owner of pods had: one ControllerRevision each.
//!
//! Owns ControllerRevisions (by owner reference): their names, hashes and numbers. What the numbers mean (which is current,
//! which may go) is the owner's controller's business.
//!
//! Answers to: upstream's `pkg/controller/history`.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use trireme_api::kinds;
use trireme_client::{Client, Informer, Object, ObjectKey, Patch, Typed, labels};

use super::hash::data_hash;
use crate::Error;
use crate::ownership::{Children, controller_of, controller_reference, is_controlled_by};
use crate::runtime::Context;

/// The label of a pod that names its revision, and of a DaemonSet's revision its hash.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// How many names one reconcile tries before it gives up until the next one.
const MOST_COLLISIONS: usize = 32;
/// With a hyphen and a hash of at most ten digits no name is longer than 253 bytes.
const LONGEST_PREFIX: usize = 223;

/// The ControllerRevisions of one kind of owner.
pub(super) struct History<O> {
    client: Client,
    revisions: Children<O, ControllerRevision>,
}

/// A revision that is to be made.
pub(super) struct NewRevision<'a> {
    pub(super) template: &'a PodTemplateSpec,
    pub(super) selector: &'a LabelSelector,
    pub(super) number: i64,
    /// The label that holds its hash.
    pub(super) hash_label: &'static str,
}

impl<O: Typed> History<O> {
    pub(super) fn new(revisions: &Arc<Informer<ControllerRevision>>, context: &Context) -> Self {
        Self { client: context.client.clone(), revisions: Children::new(revisions, context) }
    }

    /// Waits until the cache shows everything that was written for the owner with this key.
    pub(super) async fn settle(&self, owner: &ObjectKey) -> Result<(), Error> {
        self.revisions.settle(owner).await
    }

    /// The owner's revisions, oldest number first. Adopts those that it selects and releases those that it no longer does.
    pub(super) async fn of(&self, owner: &O, selector: &LabelSelector) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let selects = |revision: &ControllerRevision| labels::matches(selector, revision.metadata.labels.as_ref());
        let mut revisions = self.revisions.claim(owner, selects, |_| true).await?;
        sort(&mut revisions);
        Ok(revisions)
    }

    /// Makes the revision of a template, or finds it if only the cache does not know it. `collisions` grows with each name that
    /// is taken by something else.
    pub(super) async fn create(&self, owner: &O, new: &NewRevision<'_>, collisions: &mut i32) -> Result<Arc<ControllerRevision>, Error> {
        let data = snapshot(new.template);
        for _ in 0..MOST_COLLISIONS {
            let revision = revision_of(owner, new, data.clone(), *collisions);
            match self.revisions.create(owner, &revision).await {
                Ok(created) => return Ok(Arc::new(created)),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error.into()),
            }
            let other = match self.client.get::<ControllerRevision>(Some(owner.namespace()), revision.name()).await {
                Ok(other) => other,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            if holds(&other, &data) && is_controlled_by(&other.metadata, owner) {
                self.revisions.found(owner, &other);
                return Ok(Arc::new(other));
            }
            let is_orphan = controller_of(&other.metadata).is_none() && other.metadata.deletion_timestamp.is_none();
            if holds(&other, &data) && is_orphan && labels::matches(new.selector, other.metadata.labels.as_ref()) {
                // It is adopted when the cache shows it: another name would restart the pods that carry this one.
                self.revisions.found(owner, &other);
                return Err(Error::StaleCache);
            }
            *collisions = collisions.saturating_add(1);
        }
        Err(Error::Invalid(format!("the names of {MOST_COLLISIONS} revisions of {} are taken", owner.name())))
    }

    /// Gives a revision another number: an old template is wanted again.
    pub(super) async fn renumber(&self, owner: &O, revision: &ControllerRevision, number: i64) -> Result<Arc<ControllerRevision>, Error> {
        let patch = json!({"metadata": {"uid": revision.uid()}, "revision": number});
        Ok(Arc::new(self.revisions.patch(owner, revision, &Patch::Merge(patch)).await?))
    }

    /// Sets a label of a revision.
    pub(super) async fn label(
        &self,
        owner: &O,
        revision: &ControllerRevision,
        label: &str,
        value: &str,
    ) -> Result<Arc<ControllerRevision>, Error> {
        let patch = json!({"metadata": {"uid": revision.uid(), "labels": {label: value}}});
        Ok(Arc::new(self.revisions.patch(owner, revision, &Patch::Merge(patch)).await?))
    }

    /// Deletes a revision.
    pub(super) async fn delete(&self, owner: &O, revision: &ControllerRevision) -> Result<(), Error> {
        Ok(self.revisions.delete(owner, revision).await?)
    }
}

/// The patch that brings an owner back to this template: what a revision stores.
pub(super) fn snapshot(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// Whether a revision stores exactly this.
pub(super) fn holds(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|RawExtension(stored)| stored == data)
}

/// Whether a revision stores what this template was before the API filled in its defaults: a newer release may know more of them,
/// and that alone must not restart a pod.
pub(super) fn means<O: Typed>(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    let Ok(stored) = template_of(revision) else { return false };
    let resource = O::resource_type();
    let mut object = json!({"spec": {"template": stored}});
    kinds::of(&resource.group, &resource.kind).default(&resource.version, &mut object);
    serde_json::from_value::<PodTemplateSpec>(object["spec"]["template"].take()).is_ok_and(|filled| filled == *template)
}

/// The template that a revision stores.
pub(super) fn template_of(revision: &ControllerRevision) -> Result<PodTemplateSpec, Error> {
    let template = revision.data.as_ref().and_then(|RawExtension(data)| data.pointer("/spec/template"));
    let template = template.ok_or_else(|| Error::Invalid(format!("the revision {} has no template", revision.name())))?;
    serde_json::from_value(template.clone()).map_err(|error| Error::Invalid(format!("the revision {}: {error}", revision.name())))
}

/// The label's value, or the empty string.
pub(super) fn label<'a>(meta: &'a ObjectMeta, name: &str) -> &'a str {
    meta.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
}

/// By number; equal ones by age and name.
fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|one, other| {
        let key = |revision: &ControllerRevision| {
            let created = revision.metadata.creation_timestamp.as_ref().map_or(i64::MIN, |time| time.0.as_second());
            (revision.revision, created)
        };
        key(one).cmp(&key(other)).then_with(|| one.name().cmp(other.name()))
    });
}

fn revision_of<O: Typed>(owner: &O, new: &NewRevision<'_>, data: Value, collisions: i32) -> ControllerRevision {
    let hash = data_hash(&data, collisions);
    let mut prefix = owner.name();
    while prefix.len() > LONGEST_PREFIX {
        prefix = prefix.char_indices().next_back().map_or("", |(last, _)| &prefix[..last]);
    }
    let name = format!("{prefix}-{hash}");
    let mut labels = new.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(new.hash_label.to_owned(), hash);
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: new.number,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;

    #[test]
    fn what_is_stored_is_found_again() {
        let template: PodTemplateSpec = serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}}))
        .unwrap();
        let data = snapshot(&template);
        let text = r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"#.to_owned()
            + r#""spec":{"containers":[{"image":"i","name":"c","resources":{}}]}}}}"#;
        assert_eq!(data.to_string(), text, "sorted, as upstream's tools compare it byte for byte");
        let revision = ControllerRevision { data: Some(RawExtension(data.clone())), ..ControllerRevision::default() };
        assert!(holds(&revision, &data));
        assert_eq!(template_of(&revision).unwrap(), template);
        let mut other = template;
        other.spec.as_mut().unwrap().containers[0].image = Some("j".to_owned());
        assert!(!holds(&revision, &snapshot(&other)));
    }

    #[test]
    fn a_default_that_was_not_known_then_is_no_change() {
        let before = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let revision =
            ControllerRevision { data: Some(RawExtension(json!({"spec": {"template": before}}))), ..ControllerRevision::default() };
        let now = |image: &str| {
            let mut set = json!({"spec": {"template": before}});
            set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
            kinds::of("apps", "StatefulSet").default("v1", &mut set);
            serde_json::from_value::<PodTemplateSpec>(set["spec"]["template"].take()).unwrap()
        };
        assert!(!holds(&revision, &snapshot(&now("i"))), "there are new defaults");
        assert!(means::<StatefulSet>(&revision, &now("i")));
        assert!(!means::<StatefulSet>(&revision, &now("j")));
    }
}
