//! Claims, volumes and classes: the annotations by which they tell of their binding, whether a volume and a claim belong together,
//! and ([`best`]) which volume fits a claim, as the volume controller, the scheduler and the kubelet judge it. No I/O.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding>.

pub mod csi;
mod matching;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use crate::{Object, placement};

pub use matching::{Place, best, mismatch, request};

/// On a claim: its binding was completed once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: its side of the binding was written by the controller and not by a user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: the provisioner that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the provisioner that is to make its volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, as older provisioners read it.
pub const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: the node for which its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a class: claims that name no class get it.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// On a node: the attach/detach controller attaches volumes to it, and not its kubelet.
pub const CONTROLLER_ATTACHES: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// The provisioner of classes whose volumes people make.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The provisioner that makes a folder on the pod's node.
pub const LOCAL_PROVISIONER: &str = "trireme.dev/local-path";
/// On a node: the folder in which it has its local volumes.
pub const LOCAL_FOLDER: &str = "trireme.dev/local-path";
/// On a local volume: the node that has its folder.
pub const LOCAL_NODE: &str = "trireme.dev/local-path-node";
/// The finalizer that keeps a local volume until its folder is deleted.
pub const LOCAL_FINALIZER: &str = "trireme.dev/local-path";
/// Where a kubelet deletes the folders of local volumes, through the API server's proxy to nodes.
pub const LOCAL_VOLUMES_PATH: &str = "/trireme/local-volumes";

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const ONE_POD: &str = "ReadWriteOncePod";

/// An annotation's value.
#[must_use]
pub fn annotation<'a>(object: &'a impl Object, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

/// The name of a claim's class; empty: only volumes without a class will do.
#[must_use]
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let named = || claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(claim, BETA_CLASS).or_else(named).unwrap_or_default()
}

/// Whether a claim says nothing about its class, not even that it wants none.
#[must_use]
pub fn names_no_class(claim: &PersistentVolumeClaim) -> bool {
    annotation(claim, BETA_CLASS).is_none() && claim.spec.as_ref().is_none_or(|spec| spec.storage_class_name.is_none())
}

/// The name of a volume's class, or the empty string.
#[must_use]
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = || volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(volume, BETA_CLASS).or_else(named).unwrap_or_default()
}

/// The volume that a claim names, or the empty string.
#[must_use]
pub fn volume_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether a claim's binding was completed, and still is.
#[must_use]
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_of(claim).is_empty() && annotation(claim, BIND_COMPLETED).is_some()
}

/// A claim's phase.
#[must_use]
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// A volume's phase.
#[must_use]
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether a volume names this claim. One that a user reserved may name it without a uid.
#[must_use]
pub fn is_meant_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name.as_deref() == Some(claim.name())
        && reference.namespace.as_deref() == Some(claim.namespace())
        && (uid.is_empty() || uid == claim.uid())
}

/// Whether a volume can be used on a node.
#[must_use]
pub fn is_usable_on(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()).and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| placement::term_matches(term, node)))
}

/// Whether claims of a class wait for their first pod.
#[must_use]
pub fn binds_late(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether a class is the default.
#[must_use]
pub fn is_default(class: &StorageClass) -> bool {
    annotation(class, DEFAULT_CLASS) == Some("true")
}

/// Whether a class allows volumes on a node.
#[must_use]
pub fn allows_node(class: &StorageClass, node: &Node) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    terms.is_empty()
        || terms.iter().any(|term| {
            let wanted = term.match_label_expressions.as_deref().unwrap_or_default();
            !wanted.is_empty() && wanted.iter().all(|one| label(&one.key).is_some_and(|value| one.values.contains(value)))
        })
}

/// Whether a claim may be used by one pod only.
#[must_use]
pub fn is_for_one_pod(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.as_ref().is_some_and(|spec| spec.access_modes.iter().flatten().any(|mode| mode == ONE_POD))
}

/// The reference by which a volume names its claim.
#[must_use]
pub fn claim_reference(claim: &PersistentVolumeClaim) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name(), "uid": claim.uid(),
        "resourceVersion": claim.metadata.resource_version,
    })
}

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The claim's name.
    pub claim: String,
    /// It is made for the pod, after the template of an ephemeral volume.
    pub ephemeral: bool,
}

/// The claims that a pod uses, in the order of its volumes.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = Used> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(Used { claim: source.claim_name.clone(), ephemeral: false }),
        (None, Some(_)) => Some(Used { claim: ephemeral_name(pod, &volume.name), ephemeral: true }),
        (None, None) => None,
    })
}

/// The name of the claim that is made for an ephemeral volume of a pod.
#[must_use]
pub fn ephemeral_name(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.name())
}

/// Whether a claim was made for a pod. If not, in upstream's words why it cannot be the pod's ephemeral volume.
pub fn made_for(claim: &PersistentVolumeClaim, pod: &Pod) -> Result<(), String> {
    let owner = claim.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    if claim.namespace() == pod.namespace() && owner.is_some_and(|owner| owner.uid == pod.uid()) {
        return Ok(());
    }
    let (namespace, name) = (claim.namespace(), claim.name());
    Err(format!("PVC {namespace}/{name} was not created for pod {}/{} (pod is not owner)", pod.namespace(), pod.name()))
}
