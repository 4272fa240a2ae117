//! Writes the pods of a StatefulSet, and says so in events of the set.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::json;
use trireme_client::{EventKind, EventRecorder, Informer, Object, ObjectKey, Patch, labels};

use super::identity::{INDEX_LABEL, NAME_LABEL, has_storage, new_pod, ordinal_in, volumes};
use super::storage::Storage;
use super::view::View;
use crate::Error;
use crate::ownership::Children;
use crate::runtime::Context;

/// The pods of all sets and their claims.
pub(super) struct Members {
    recorder: EventRecorder,
    pods: Children<StatefulSet, Pod>,
    pub(super) storage: Storage,
}

impl Members {
    pub(super) fn new(pods: &Arc<Informer<Pod>>, storage: Storage, context: &Context) -> Self {
        Self { recorder: context.recorder.clone(), pods: Children::new(pods, context), storage }
    }

    /// Waits until the cache shows everything that was written for the set with this key.
    pub(super) async fn settle(&self, set: &ObjectKey) -> Result<(), Error> {
        self.pods.settle(set).await?;
        self.storage.settle(set).await
    }

    /// The set's pods; adopts and releases.
    pub(super) async fn claim(&self, view: &View<'_>) -> Result<Vec<Arc<Pod>>, Error> {
        let selects =
            |pod: &Pod| labels::matches(&view.spec.selector, pod.metadata.labels.as_ref()) && ordinal_in(view.name(), pod.name()).is_some();
        self.pods.claim(view.set, selects, |_| true).await
    }

    /// Makes the claims of an ordinal, then its pod.
    pub(super) async fn create(&self, view: &View<'_>, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Result<(), Error> {
        let pod = new_pod(view, template, revision, ordinal);
        if let Err(error) = self.storage.provide(view, ordinal).await {
            if !error.is_expected() {
                self.tell(view, "Create", &pod, Some(&error));
            }
            return Err(error);
        }
        match self.pods.create(view.set, &pod).await {
            Ok(_) => {
                self.tell(view, "Create", &pod, None);
                Ok(())
            }
            // In a namespace that goes away nothing is created, and that is no error.
            Err(error) if error.is_namespace_terminating() => Ok(()),
            // A pod of another owner has the name: no event is recorded, and the reconcile is retried.
            Err(error) if error.is_already_exists() => Err(error.into()),
            Err(error) => {
                let error = Error::from(error);
                self.tell(view, "Create", &pod, Some(&error));
                Err(error)
            }
        }
    }

    /// Makes labels and volumes of a pod those of its ordinal.
    pub(super) async fn repair(&self, view: &View<'_>, pod: &Pod, ordinal: i32) -> Result<(), Error> {
        let mut patch = json!({"metadata": {
            "uid": pod.uid(),
            "labels": {NAME_LABEL: pod.name(), INDEX_LABEL: ordinal.to_string()},
        }});
        if !has_storage(view, pod, ordinal) {
            self.storage.provide(view, ordinal).await?;
            let present = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
            patch["spec"] = json!({"volumes": volumes(view, present, ordinal)});
        }
        let written = self.pods.patch(view.set, pod, &Patch::Merge(patch)).await.map(|_| ()).map_err(Error::from);
        self.tell(view, "Update", pod, written.as_ref().err());
        written
    }

    /// Gives the claims of a pod the owners that the retention policy wants.
    pub(super) async fn own(&self, view: &View<'_>, pod: &Pod, ordinal: i32) -> Result<(), Error> {
        let owned = self.storage.own(view, pod, ordinal).await;
        if let Some(error) = owned.as_ref().err().filter(|error| !error.is_expected()) {
            self.tell(view, "Update", pod, Some(error));
        }
        owned
    }

    pub(super) async fn delete(&self, view: &View<'_>, pod: &Pod) -> Result<(), Error> {
        let deleted = self.pods.delete(view.set, pod).await.map_err(Error::from);
        self.tell(view, "Delete", pod, deleted.as_ref().err());
        deleted
    }

    fn tell(&self, view: &View<'_>, verb: &str, pod: &Pod, error: Option<&Error>) {
        let about = format!("{verb} Pod {} in StatefulSet {}", pod.name(), view.name());
        let (kind, reason, message) = match error {
            None => (EventKind::Normal, format!("Successful{verb}"), format!("{about} successful")),
            Some(error) => (EventKind::Warning, format!("Failed{verb}"), format!("{about} failed error: {error}")),
        };
        self.recorder.record(view.set, kind, &reason, message);
    }
}
