//! Deletes a volume that its claim has released, with its data, which the node's kubelet removes.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming>.

use bytes::Bytes;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use trireme_client::{Body, DeleteOptions, Object, ObjectKey, Preconditions, storage};

use super::hands::Hands;
use crate::Error;

/// As much of a kubelet's answer is read.
const MAX_ANSWER: usize = 4096;
/// Removing a large folder takes its time; what is not done then is done by the next try.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Whether this provisioner made a volume.
pub(super) fn is_ours(volume: &PersistentVolume) -> bool {
    storage::annotation(volume, storage::PROVISIONED_BY) == Some(storage::LOCAL_PROVISIONER)
}

pub(super) async fn sync(hands: &Hands, name: &str) -> Result<(), Error> {
    let key = ObjectKey::new("", name);
    hands.settle(&key).await?;
    let Some(volume) = hands.volumes.get("", name).filter(|volume| is_ours(volume)) else { return Ok(()) };
    if owner(&volume).is_none() {
        return hands.let_go(&key, &volume).await;
    }
    // The binder says when the claim is done with it.
    if !is_released(&volume) {
        return Ok(());
    }
    match volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) {
        Some("Delete") => delete(hands, &key, &volume).await,
        // A volume that is deleted though its data stays goes without delay.
        _ => hands.let_go(&key, &volume).await,
    }
}

fn is_released(volume: &PersistentVolume) -> bool {
    matches!(storage::volume_phase(volume), "Released" | "Failed")
}

/// The claim that a volume was given to: its namespace, name and uid.
fn owner(volume: &PersistentVolume) -> Option<(&str, &str, &str)> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let uid = reference.uid.as_deref().filter(|uid| !uid.is_empty())?;
    Some((reference.namespace.as_deref().unwrap_or_default(), reference.name.as_deref().unwrap_or_default(), uid))
}

/// Deletes first the data and then the volume.
async fn delete(hands: &Hands, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), Error> {
    // Data is deleted on what the API says now, and not on what the cache remembers.
    let fresh = match hands.client.get::<PersistentVolume>(None, volume.name()).await {
        Ok(fresh) if fresh.uid() == volume.uid() && fresh.spec == volume.spec && is_released(&fresh) => fresh,
        Ok(_) => return Err(Error::StaleCache),
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if has_claim(hands, &fresh).await? {
        return Err(Error::StaleCache);
    }
    if let Err(why) = delete_data(hands, &fresh).await? {
        let message = format!("failed to delete the data: {why}");
        hands.warn(&fresh, "VolumeFailedDelete", message.clone());
        hands.set_failed(key, &fresh, &message).await?;
        return Err(Error::Invalid(message));
    }
    if fresh.metadata.deletion_timestamp.is_some() {
        return hands.let_go(key, &fresh).await;
    }
    // The event of this deletion enqueues the volume again; then its finalizer is removed.
    let preconditions = Preconditions { uid: fresh.metadata.uid.clone(), resource_version: None };
    let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
    match hands.client.delete::<PersistentVolume>(None, fresh.name(), &options).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the API has the claim that a volume was given to, and that claim names no other volume.
async fn has_claim(hands: &Hands, volume: &PersistentVolume) -> Result<bool, Error> {
    let Some((namespace, name, uid)) = owner(volume) else { return Ok(false) };
    match hands.client.get::<PersistentVolumeClaim>(Some(namespace), name).await {
        Ok(claim) => Ok(claim.uid() == uid && ["", volume.name()].contains(&storage::volume_of(&claim))),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Asks the node's kubelet to remove the folder. If the node is gone, so is the folder. The inner error is a message for users.
async fn delete_data(hands: &Hands, volume: &PersistentVolume) -> Result<Result<(), String>, Error> {
    let Some(name) = storage::annotation(volume, storage::LOCAL_NODE).filter(|name| is_plain(name)) else {
        return Ok(Err(format!("the volume does not say on which node it is (annotation {})", storage::LOCAL_NODE)));
    };
    let node = match hands.client.get::<Node>(None, name).await {
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
        let response = hands.client.request(request).await.map_err(|error| error.to_string())?;
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
