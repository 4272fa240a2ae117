//! The pods of this node: those that the API server binds to it, and those of its manifests.
//!
//! A mirror pod is not among them: where one is asked for by name, the static pod that it stands for is the answer, with the status that
//! the API server has of it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use tokio::sync::Notify;
use trireme_client::Informer;

use crate::{
    pod::spec,
    static_pods::{is_mirror, is_mirror_of},
};

/// All pods.
pub(crate) struct PodIndex {
    api: Arc<Informer<Pod>>,
    statics: RwLock<Vec<Arc<Pod>>>,
    /// Told when a static pod or a mirror has changed.
    pub(crate) mirrors_changed: Arc<Notify>,
}

impl PodIndex {
    /// No static pods yet.
    pub(crate) fn new(api: Arc<Informer<Pod>>) -> PodIndex {
        PodIndex { api, statics: RwLock::default(), mirrors_changed: Arc::default() }
    }

    /// The API server's pods, mirrors among them.
    pub(crate) fn api(&self) -> &Informer<Pod> {
        &self.api
    }

    /// Waits for the API server's first answer.
    pub(crate) async fn wait_synced(&self) {
        self.api.wait_synced().await;
    }

    /// Those that run or are to run.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        let mut all = self.api.list();
        all.retain(|pod| !is_mirror(pod));
        all.extend(self.statics());
        all
    }

    /// One by name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let of_manifest = self.statics.read().iter().find(|pod| spec::name(pod) == name && spec::namespace(pod) == namespace).cloned();
        match of_manifest {
            Some(pod) => Some(self.with_status(&pod)),
            None => self.api.get(namespace, name).filter(|pod| !is_mirror(pod)),
        }
    }

    /// Replaces the pods of the manifests.
    pub(crate) fn set_statics(&self, pods: Vec<Arc<Pod>>) {
        *self.statics.write() = pods;
        self.mirrors_changed.notify_one();
    }

    /// The pods of the manifests, with the statuses that the API server has of them.
    pub(crate) fn statics(&self) -> Vec<Arc<Pod>> {
        let pods = self.statics.read().clone();
        pods.iter().map(|pod| self.with_status(pod)).collect()
    }

    /// Whether this is the UID of a static pod.
    pub(crate) fn is_static(&self, uid: &str) -> bool {
        self.statics.read().iter().any(|pod| spec::uid(pod) == uid)
    }

    /// All mirrors, those without a manifest too.
    pub(crate) fn mirrors(&self) -> Vec<Arc<Pod>> {
        let mut mirrors = self.api.list();
        mirrors.retain(|pod| is_mirror(pod));
        mirrors
    }

    /// The living mirror of a static pod.
    pub(crate) fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.api.get(spec::namespace(pod), spec::name(pod)).filter(|mirror| is_mirror_of(mirror, pod) && !spec::is_deleted(mirror))
    }

    /// The UID by which the API server knows a pod; none for a static pod that has no mirror.
    pub(crate) fn uid_at_server(&self, pod: &Pod) -> Option<String> {
        match self.is_static(spec::uid(pod)) {
            false => Some(spec::uid(pod).to_owned()),
            true => self.mirror_of(pod).and_then(|mirror| mirror.metadata.uid.clone()),
        }
    }

    fn with_status(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let Some(mirror) = self.mirror_of(pod) else { return pod.clone() };
        let mut shown = (**pod).clone();
        shown.status.clone_from(&mirror.status);
        shown.metadata.resource_version.clone_from(&mirror.metadata.resource_version);
        Arc::new(shown)
    }
}
