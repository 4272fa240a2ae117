//! Reclaims a volume that its claim has released.
//!
//! Only volumes that the local provisioner made are deleted here, with their data, which the node's kubelet removes; other volumes are
//! their provisioners' business.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming>.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use trireme_client::{Body, DeleteOptions, Object, ObjectKey, Preconditions, storage};

use super::binder::Binder;
use crate::Error;
use crate::runtime::Next;

/// As much of a kubelet's answer is read.
const MAX_ANSWER: usize = 4096;
/// Removing a large folder takes its time; what is not done then is done by the next try.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Does what the volume's policy says.
pub(super) async fn reclaim(binder: &Binder, key: &ObjectKey, volume: Arc<PersistentVolume>) -> Result<Next, Error> {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain");
    match policy {
        "Retain" => let_go(binder, key, &volume).await,
        "Delete" => match storage::annotation(&*volume, storage::PROVISIONED_BY) {
            Some(storage::LOCAL_PROVISIONER) => delete(binder, key, volume).await,
            Some(_) => Ok(Next::Wait),
            None => {
                let message = "no provisioner made this volume, so none deletes it: delete its data and then the volume";
                fail(binder, key, volume, "VolumeFailedDelete", message).await
            }
        },
        "Recycle" => {
            let message = "Recycle is not supported: delete the data, then remove spec.claimRef to offer the volume again";
            fail(binder, key, volume, "VolumeFailedRecycle", message).await
        }
        _ => fail(binder, key, volume, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy").await,
    }
}

/// A volume that is deleted though its data stays goes without delay.
pub(super) async fn let_go(binder: &Binder, key: &ObjectKey, volume: &PersistentVolume) -> Result<Next, Error> {
    if volume.metadata.deletion_timestamp.is_some() && is_held(volume) {
        binder.drop_finalizer(key, volume, storage::LOCAL_FINALIZER).await?;
    }
    Ok(Next::Wait)
}

/// Whether a volume stays until its data is deleted.
fn is_held(volume: &PersistentVolume) -> bool {
    volume.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == storage::LOCAL_FINALIZER)
}

/// Says so once, and leaves the volume to people.
async fn fail(binder: &Binder, key: &ObjectKey, volume: Arc<PersistentVolume>, reason: &str, message: &str) -> Result<Next, Error> {
    if storage::volume_phase(&volume) != "Failed" {
        let volume = binder.set_volume_phase(key, volume, "Failed", message).await?;
        binder.warn(&*volume, reason, message);
        return Ok(Next::Wait);
    }
    let_go(binder, key, &volume).await
}

/// Deletes first the data and then the volume.
async fn delete(binder: &Binder, key: &ObjectKey, volume: Arc<PersistentVolume>) -> Result<Next, Error> {
    // Data is deleted on what the API says now, and not on what the cache remembers.
    let fresh = match binder.client.get::<PersistentVolume>(None, volume.name()).await {
        Ok(fresh) if fresh.uid() == volume.uid() && fresh.spec == volume.spec => fresh,
        Ok(_) => return Err(Error::StaleCache),
        Err(error) if error.is_not_found() => return Ok(Next::Wait),
        Err(error) => return Err(error.into()),
    };
    if let Err(why) = delete_data(binder, &fresh).await? {
        let message = format!("failed to delete the data: {why}");
        binder.warn(&fresh, "VolumeFailedDelete", message.clone());
        binder.set_volume_phase(key, Arc::new(fresh), "Failed", &message).await?;
        return Err(Error::Invalid(message));
    }
    if fresh.metadata.deletion_timestamp.is_some() {
        return let_go(binder, key, &fresh).await;
    }
    // The event of this deletion enqueues the volume again; then its finalizer is removed.
    let preconditions = Preconditions { uid: fresh.metadata.uid.clone(), resource_version: None };
    let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
    match binder.client.delete::<PersistentVolume>(None, fresh.name(), &options).await {
        Ok(()) => Ok(Next::Wait),
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) => Err(error.into()),
    }
}

/// Asks the node's kubelet to remove the folder. If the node is gone, so is the folder. The inner error is a message for users.
async fn delete_data(binder: &Binder, volume: &PersistentVolume) -> Result<Result<(), String>, Error> {
    let Some(name) = storage::annotation(volume, storage::LOCAL_NODE).filter(|name| is_plain(name)) else {
        return Ok(Err(format!("the volume does not say on which node it is (annotation {})", storage::LOCAL_NODE)));
    };
    let node = match binder.client.get::<Node>(None, name).await {
        Ok(node) => node,
        Err(error) if error.is_not_found() => {
            tracing::info!(volume = volume.name(), node = name, "the volume's node is gone: its data is not deleted");
            return Ok(Ok(()));
        }
        Err(error) => return Err(error.into()),
    };
    let path = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref()).map(|source| source.path.as_str()).unwrap_or_default();
    let folder = match folder(path, &node) {
        Ok(folder) => folder,
        Err(why) => return Ok(Err(why)),
    };
    let path = format!("/api/v1/nodes/{name}/proxy{}/{folder}", storage::LOCAL_VOLUMES_PATH);
    let request = http::Request::builder().method(http::Method::DELETE).uri(path).body(Bytes::new());
    let request = request.map_err(|error| Error::Invalid(error.to_string()))?;
    let asked = tokio::time::timeout(PATIENCE, async {
        let response = binder.client.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("node {name:?} answered {status}: {}", beginning(response.into_body()).await.trim()))
    });
    Ok(asked.await.unwrap_or_else(|_| Err(format!("node {name:?} did not answer within {} s", PATIENCE.as_secs()))))
}

/// The first bytes of an answer, as text.
async fn beginning(mut body: Body) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ANSWER
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            bytes.extend(data.iter().take(MAX_ANSWER - bytes.len()));
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name of a volume's folder, which must be directly in the node's folder for volumes.
fn folder<'a>(path: &'a str, node: &Node) -> Result<&'a str, String> {
    let base = storage::annotation(node, storage::LOCAL_FOLDER).unwrap_or_default().trim_end_matches('/');
    let child = path.strip_prefix(base).and_then(|rest| rest.strip_prefix('/'));
    child.filter(|child| !base.is_empty() && is_plain(child)).ok_or_else(|| {
        format!("{path:?} is not a folder in {base:?}, where node {:?} keeps volumes now: delete the data and then the volume", node.name())
    })
}

/// Whether the text can be a path segment without escaping.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
