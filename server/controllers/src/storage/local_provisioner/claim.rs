//! Makes the volume that a claim asks for. The object is written here, and the folder made by the node's kubelet when the first pod mounts it.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use trireme_client::{Object, ObjectKey, storage};

use super::hands::{Hands, asks};
use crate::Error;

const HOST_NAME: &str = "kubernetes.io/hostname";
/// Longer names of folders do no file systems take.
const MAX_FOLDER_NAME: usize = 255;

pub(super) async fn sync(hands: &Hands, key: &ObjectKey) -> Result<(), Error> {
    hands.settle(key).await?;
    let Some(claim) = hands.claims.get_key(key).filter(|claim| asks(claim)) else { return Ok(()) };
    // Made, and not bound yet.
    if hands.volumes.get("", &volume_name(&claim)).is_some() {
        return Ok(());
    }
    let Some(class) = class(hands, storage::class_of_claim(&claim)).await? else { return Ok(()) };
    if class.provisioner != storage::LOCAL_PROVISIONER {
        return Ok(());
    }
    let selected = storage::annotation(&*claim, storage::SELECTED_NODE);
    if selected.is_none() && storage::binds_late(&class) {
        return Ok(());
    }
    let node = match selected {
        Some(name) => node(hands, name).await?,
        None => None,
    };
    let failed = |why: String| format!("failed to provision volume with StorageClass {:?}: {why}", class.name());
    let volume = match refusal(&claim, &class).map_or_else(|| volume(&claim, &class, node.as_ref()), Err) {
        Ok(volume) => volume,
        Err(why) => {
            hands.warn(&*claim, "ProvisioningFailed", failed(why));
            return hands.give_up_node(key, &claim).await;
        }
    };
    match hands.client.create(None, &volume).await {
        Ok(made) => {
            hands.made(key, &made);
            let message = format!("Successfully provisioned volume {} using {}", made.name(), storage::LOCAL_PROVISIONER);
            hands.tell(&*claim, "ProvisioningSucceeded", message);
            Ok(())
        }
        // The volume exists but is not in the cache yet.
        Err(error) if error.is_already_exists() => Err(Error::StaleCache),
        Err(error) => {
            hands.warn(&*claim, "ProvisioningFailed", failed(error.to_string()));
            Err(error.into())
        }
    }
}

/// The node, which the cache may not have yet.
async fn node(hands: &Hands, name: &str) -> Result<Option<Node>, Error> {
    if let Some(node) = hands.nodes.get("", name) {
        return Ok(Some(Node::clone(&node)));
    }
    match hands.client.get::<Node>(None, name).await {
        Ok(node) => Ok(Some(node)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The class, which the cache may not have yet.
async fn class(hands: &Hands, name: &str) -> Result<Option<StorageClass>, Error> {
    if let Some(class) = hands.classes.get("", name) {
        return Ok(Some(StorageClass::clone(&class)));
    }
    match hands.client.get::<StorageClass>(None, name).await {
        Ok(class) => Ok(Some(class)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid())
}

/// Why no folder can be what a claim asks for.
fn refusal(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<String> {
    let Some(spec) = &claim.spec else { return Some("the claim asks for nothing".to_owned()) };
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if let Some(mode) = modes.iter().find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod")) {
        return Some(format!("access mode {mode} is not supported: a folder of one node is ReadWriteOnce or ReadWriteOncePod"));
    }
    let why = if spec.volume_mode.as_deref() == Some("Block") {
        "volumeMode Block is not supported: a folder is a file system"
    } else if spec.selector.is_some() {
        "claim.spec.selector is not supported: volumes are made as they are needed"
    } else if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        "claim.spec.dataSource is not supported: a volume begins empty"
    } else if class.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        "parameters of the class are not supported"
    } else if class.mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        "mountOptions of the class are not supported"
    } else if !storage::binds_late(class) {
        "the class needs volumeBindingMode WaitForFirstConsumer: a volume is made on the node of its first pod"
    } else {
        return None;
    };
    Some(why.to_owned())
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: Option<&Node>) -> Result<PersistentVolume, String> {
    let selected = storage::annotation(claim, storage::SELECTED_NODE).unwrap_or_default();
    let node = node.ok_or_else(|| format!("node {selected:?} is gone"))?;
    let folder = storage::annotation(node, storage::LOCAL_FOLDER)
        .filter(|folder| folder.starts_with('/'))
        .ok_or_else(|| format!("node {selected:?} does not say where it keeps volumes (annotation {})", storage::LOCAL_FOLDER))?;
    let host = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOST_NAME)).map_or(node.name(), String::as_str);
    let name = volume_name(claim);
    let mut child = format!("{name}_{}_{}", claim.namespace(), claim.name());
    child.truncate(MAX_FOLDER_NAME);
    let spec = claim.spec.as_ref();
    let value = json!({
        "metadata": {
            "name": name,
            "annotations": {storage::PROVISIONED_BY: storage::LOCAL_PROVISIONER, storage::LOCAL_NODE: node.name()},
            "finalizers": [storage::LOCAL_FINALIZER],
        },
        "spec": {
            "capacity": spec.and_then(|spec| spec.resources.as_ref()).and_then(|resources| resources.requests.clone()),
            "accessModes": spec.and_then(|spec| spec.access_modes.clone()),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.name(),
            "volumeMode": "Filesystem",
            "hostPath": {"path": format!("{}/{child}", folder.trim_end_matches('/')), "type": "DirectoryOrCreate"},
            "claimRef": storage::claim_reference(claim),
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": HOST_NAME, "operator": "In", "values": [host]}]}]}},
        },
    });
    serde_json::from_value(value).map_err(|error| error.to_string())
}
