//! Every stored kind says how it looks, what it starts with, what may not change and what its status may hold, or there is
//! a reason why not.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use trireme_api::resources;

/// What a kind may leave to the plain behaviour, by the methods that state it.
const ASPECTS: &[(&str, &[&str])] = &[
    ("columns", &["fn columns("]),
    ("defaults", &["fn default("]),
    ("immutability", &["fn validate_update("]),
    ("status", &["fn has_status(", "fn validate_status("]),
];

const ONLY_AGE: &str = "upstream shows the name and the age";
const NO_DEFAULTS: &str = "upstream has no defaults";
const ALL_MUTABLE: &str = "upstream lets every field change";
const UNCHECKED: &str = "upstream checks the status by the rules of the object, which are not checked again here";

/// Kind, aspect, reason.
const PLAIN: &[(&str, &str, &str)] = &[
    ("APIService", "immutability", ALL_MUTABLE),
    ("APIService", "status", UNCHECKED),
    ("CSINode", "immutability", "changes of a driver that is registered are not refused yet"),
    ("CSIStorageCapacity", "defaults", NO_DEFAULTS),
    ("ClusterRole", "immutability", ALL_MUTABLE),
    ("ConfigMap", "defaults", NO_DEFAULTS),
    ("ControllerRevision", "defaults", NO_DEFAULTS),
    ("DeviceClass", "columns", ONLY_AGE),
    ("DeviceClass", "immutability", ALL_MUTABLE),
    ("Endpoints", "immutability", ALL_MUTABLE),
    ("FlowSchema", "immutability", ALL_MUTABLE),
    ("FlowSchema", "status", UNCHECKED),
    ("Ingress", "status", "addresses of a load balancer are not checked yet"),
    ("Lease", "immutability", ALL_MUTABLE),
    ("LimitRange", "immutability", ALL_MUTABLE),
    ("MutatingAdmissionPolicy", "immutability", ALL_MUTABLE),
    ("MutatingAdmissionPolicyBinding", "immutability", ALL_MUTABLE),
    ("MutatingWebhookConfiguration", "immutability", ALL_MUTABLE),
    ("Namespace", "immutability", "its finalizers are put back before validation"),
    ("NetworkPolicy", "immutability", ALL_MUTABLE),
    ("PersistentVolume", "status", "upstream checks the metadata alone"),
    ("PersistentVolumeClaim", "status", "conditions and allocated resources are not checked yet"),
    ("PodDisruptionBudget", "immutability", ALL_MUTABLE),
    ("PodTemplate", "immutability", ALL_MUTABLE),
    ("PriorityLevelConfiguration", "immutability", ALL_MUTABLE),
    ("PriorityLevelConfiguration", "status", UNCHECKED),
    ("ReplicationController", "immutability", ALL_MUTABLE),
    ("ResourceClaim", "status", "allocations are not checked yet"),
    ("ResourceClaimTemplate", "columns", ONLY_AGE),
    ("ResourceSlice", "defaults", "times of device taints are not set yet"),
    ("Role", "immutability", ALL_MUTABLE),
    ("RuntimeClass", "defaults", NO_DEFAULTS),
    ("ServiceAccount", "columns", ONLY_AGE),
    ("ServiceAccount", "defaults", NO_DEFAULTS),
    ("ServiceAccount", "immutability", ALL_MUTABLE),
    ("ServiceCIDR", "status", "upstream checks the metadata alone"),
    ("ValidatingAdmissionPolicy", "immutability", ALL_MUTABLE),
    ("ValidatingAdmissionPolicyBinding", "immutability", ALL_MUTABLE),
    ("ValidatingWebhookConfiguration", "immutability", ALL_MUTABLE),
    ("VolumeAttachment", "status", UNCHECKED),
    ("VolumeAttributesClass", "defaults", NO_DEFAULTS),
];

/// The source of each kind in the list, by group and kind.
fn kinds() -> BTreeMap<(String, String), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let list = std::fs::read_to_string(source.join("kinds.rs")).unwrap();
    let (mut group, mut found) = (String::new(), BTreeMap::new());
    for line in list.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('"').and_then(|rest| rest.strip_suffix("\":")) {
            group = name.to_owned();
        }
        let Some((kind, path)) = line.strip_prefix('"').and_then(|rest| rest.strip_suffix(',')).and_then(|rest| rest.split_once("\" => "))
        else {
            continue;
        };
        let (file, name) = path.rsplit_once("::").unwrap();
        let text = std::fs::read_to_string(source.join("kinds").join(file.replace("::", "/")).with_extension("rs")).unwrap();
        let start = text.find(&format!("impl Kind for {name} ")).unwrap();
        let end = text[start..].find("\n}\n").map_or(text.len(), |len| start + len);
        found.insert((group.clone(), kind.to_owned()), text[start..end].to_owned());
    }
    found
}

#[test]
fn what_is_left_to_plain_behaviour_has_a_reason() {
    let kinds = kinds();
    let mut plain = BTreeSet::new();
    // A kind served in two groups (Event) is stored and described once.
    let stored = resources::builtin().iter().filter(|resource| resource.is_stored() && resource.storage.group == resource.group);
    for resource in stored {
        let source = kinds.get(&(resource.group.to_string(), resource.kind.to_string())).unwrap();
        let missing = ASPECTS.iter().filter(|(_, methods)| !methods.iter().any(|method| source.contains(method)));
        plain.extend(missing.map(|(aspect, _)| (resource.kind.to_string(), (*aspect).to_owned())));
    }
    let reasons: BTreeSet<(String, String)> = PLAIN.iter().map(|(kind, aspect, _)| ((*kind).to_owned(), (*aspect).to_owned())).collect();
    assert_eq!(plain, reasons, "left: kinds that leave an aspect to the plain behaviour; right: those with a reason");
    assert_eq!(reasons.len(), PLAIN.len(), "no reason twice");
}
