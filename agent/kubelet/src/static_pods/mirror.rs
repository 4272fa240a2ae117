//! Mirror pods: what the API server shows of static pods. Each is made again when somebody deletes it, and goes with its manifest.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use tokio::sync::Notify;
use trireme_client::DeleteOptions;

use super::manifest::HASH;
use crate::{core::Core, error::Result, pod::spec};

/// On a mirror: the UID of its static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// A mirror that could not be written is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Whether a pod of the API server stands for a static pod.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether it stands for this one, as its manifest is now.
pub(crate) fn is_mirror_of(mirror: &Pod, pod: &Pod) -> bool {
    annotation(mirror, MIRROR) == Some(spec::uid(pod))
        && spec::name(mirror) == spec::name(pod)
        && spec::namespace(mirror) == spec::namespace(pod)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(super) async fn keep(core: Arc<Core>, changed: Arc<Notify>) {
    core.pods.wait_synced().await;
    let mut said = None;
    loop {
        let done = round(&core).await;
        let trouble = done.as_ref().err().map(ToString::to_string);
        if trouble.is_some() && trouble != said {
            tracing::warn!(error = trouble, "the API server does not show all static pods of this node");
        }
        said = trouble;
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(RETRY), if done.is_err() => {}
        }
    }
}

/// One look at all static pods and mirrors. The first error is returned, after everything was tried.
async fn round(core: &Core) -> Result<()> {
    let mut result = Ok(());
    let statics = core.pods.statics();
    for mirror in core.pods.mirrors() {
        let is_wanted = statics.iter().any(|pod| is_mirror_of(&mirror, pod));
        if !is_wanted || spec::is_deleted(&mirror) {
            result = result.and(remove(core, &mirror).await);
        }
    }
    let node = core.node.read().clone();
    for pod in statics.iter().filter(|pod| core.pods.mirror_of(pod).is_none()) {
        let made = match &node {
            Some(node) => create(core, pod, node).await,
            None => Err(crate::Error::Options("the Node object is not there yet".into())),
        };
        result = result.and(made);
    }
    result
}

async fn remove(core: &Core, mirror: &Pod) -> Result<()> {
    let options = DeleteOptions::uid(spec::uid(mirror).to_owned()).grace_period_secs(0);
    match core.client.delete::<Pod>(Some(spec::namespace(mirror)), spec::name(mirror), &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
        _ => Ok(()),
    }
}

async fn create(core: &Core, pod: &Pod, node: &Node) -> Result<()> {
    match core.client.create(Some(spec::namespace(pod)), &mirror(pod, node)).await {
        // The watch has not brought it yet, or it is somebody else's: nothing more can be done.
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// The mirror of a static pod. Its status comes with the pod's.
fn mirror(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = Pod { status: None, ..pod.clone() };
    mirror.metadata.uid = None;
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror
}
