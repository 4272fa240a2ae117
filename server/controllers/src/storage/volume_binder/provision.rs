//! Has a volume made for a claim: by another program, or as a folder on the node of the claim's first pod.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/dynamic-provisioning/> and k3s' local storage provider.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use trireme_client::{Object, ObjectKey, storage};

use super::binder::Binder;
use crate::Error;

const HOST_NAME: &str = "kubernetes.io/hostname";
/// Longer names of folders do no file systems take.
const MAX_FOLDER_NAME: usize = 255;

/// Makes a volume for a claim, or asks for one.
pub(super) async fn provision(binder: &Binder, key: &ObjectKey, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Error> {
    let provisioner = class.provisioner.as_str();
    if provisioner == storage::LOCAL_PROVISIONER {
        return local(binder, key, claim, class).await;
    }
    if provisioner.starts_with("kubernetes.io/") {
        binder.warn(claim, "ProvisioningFailed", format!("no volume plugin matched name: {provisioner}"));
        return Ok(());
    }
    let asked = |annotation: &str| storage::annotation(claim, annotation) == Some(provisioner);
    if !asked(storage::PROVISIONER) || !asked(storage::BETA_PROVISIONER) {
        let annotations = json!({storage::PROVISIONER: provisioner, storage::BETA_PROVISIONER: provisioner});
        binder.write_claim(key, claim, json!({"metadata": {"annotations": annotations}})).await?;
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. \
         If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    binder.tell(claim, "ExternalProvisioning", message);
    Ok(())
}

/// The object is written here, and the folder made by the node's kubelet when the first pod mounts it.
async fn local(binder: &Binder, key: &ObjectKey, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Error> {
    let node = match storage::annotation(claim, storage::SELECTED_NODE) {
        Some(name) => node(binder, name).await?,
        None => None,
    };
    let volume = match refusal(claim, class).map_or_else(|| volume(claim, class, node.as_ref()), Err) {
        Ok(volume) => volume,
        Err(why) => {
            binder.warn(claim, "ProvisioningFailed", format!("failed to provision volume with StorageClass {:?}: {why}", class.name()));
            return give_up(binder, key, claim).await;
        }
    };
    match binder.client.create(None, &volume).await {
        Ok(made) => {
            binder.made(key, &made);
            let message = format!("Successfully provisioned volume {} using {}", made.name(), storage::LOCAL_PROVISIONER);
            binder.tell(claim, "ProvisioningSucceeded", message);
            Ok(())
        }
        // The volume exists but is not in the cache yet. If it belongs to the claim, a later reconcile binds it.
        Err(error) if error.is_already_exists() => Err(Error::StaleCache),
        Err(error) => {
            binder.warn(claim, "ProvisioningFailed", format!("failed to provision volume with StorageClass {:?}: {error}", class.name()));
            Err(error.into())
        }
    }
}

/// The node, which the cache may not have yet.
async fn node(binder: &Binder, name: &str) -> Result<Option<Node>, Error> {
    if let Some(node) = binder.nodes.get("", name) {
        return Ok(Some(Node::clone(&node)));
    }
    match binder.client.get::<Node>(None, name).await {
        Ok(node) => Ok(Some(node)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Without the annotation the scheduler chooses again.
async fn give_up(binder: &Binder, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<(), Error> {
    if storage::annotation(claim, storage::SELECTED_NODE).is_some() {
        binder.write_claim(key, claim, json!({"metadata": {"annotations": {storage::SELECTED_NODE: null}}})).await?;
    }
    Ok(())
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
    let name = format!("pvc-{}", claim.uid());
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
