//! What Kubernetes v1.36 has and k8s-pb 0.9 does not: facts of the published sample objects.

use std::collections::BTreeMap;

use super::source::{ProtoField, Shape};

/// Message, field in JSON, number, wire type, how often, message of the field.
type Later = (&'static str, &'static str, u16, &'static str, Shape, &'static str);

const FIELDS: &[Later] = &[
    ("apimachinery.pkg.apis.meta.v1.ListMeta", "shardInfo", 5, "message", Shape::Single, "apimachinery.pkg.apis.meta.v1.ShardInfo"),
    ("apimachinery.pkg.apis.meta.v1.ShardInfo", "selector", 1, "string", Shape::Single, ""),
    ("api.certificates.v1beta1.PodCertificateRequestSpec", "stubPKCS10Request", 12, "bytes", Shape::Single, ""),
    ("api.core.v1.ImageVolumeStatus", "imageRef", 1, "string", Shape::Single, ""),
    ("api.core.v1.NodeAllocatableResourceClaimStatus", "resourceClaimName", 1, "string", Shape::Single, ""),
    ("api.core.v1.NodeAllocatableResourceClaimStatus", "containers", 2, "string", Shape::List, ""),
    ("api.core.v1.NodeAllocatableResourceClaimStatus", "resources", 3, "message", Shape::Map, "apimachinery.pkg.api.resource.Quantity"),
    ("api.core.v1.PodSchedulingGroup", "podGroupName", 1, "string", Shape::Single, ""),
    ("api.core.v1.PodSpec", "schedulingGroup", 43, "message", Shape::Single, "api.core.v1.PodSchedulingGroup"),
    (
        "api.core.v1.PodStatus",
        "nodeAllocatableResourceClaimStatuses",
        21,
        "message",
        Shape::List,
        "api.core.v1.NodeAllocatableResourceClaimStatus",
    ),
    ("api.core.v1.ResourceHealth", "message", 6, "string", Shape::Single, ""),
    ("api.core.v1.VolumeMountStatus", "volumeStatus", 5, "message", Shape::Single, "api.core.v1.VolumeStatus"),
    ("api.core.v1.VolumeStatus", "image", 1, "message", Shape::Single, "api.core.v1.ImageVolumeStatus"),
    ("api.storage.v1.CSIDriverSpec", "preventPodSchedulingIfMissing", 11, "bool", Shape::Single, ""),
];

/// Versions of the resource group, and the message that has a device's own fields in them.
const DEVICES: [(&str, &str, u16); 3] = [("v1", "Device", 13), ("v1beta1", "BasicDevice", 12), ("v1beta2", "Device", 13)];

/// Kinds that moved to a newer version as they were.
const PROMOTED: [(&str, &str); 4] = [
    ("api.admissionregistration.v1.MutatingAdmissionPolicy", "api.admissionregistration.v1beta1.MutatingAdmissionPolicy"),
    ("api.admissionregistration.v1.MutatingAdmissionPolicyBinding", "api.admissionregistration.v1beta1.MutatingAdmissionPolicyBinding"),
    (
        "api.admissionregistration.v1.MutatingAdmissionPolicyBindingList",
        "api.admissionregistration.v1beta1.MutatingAdmissionPolicyBindingList",
    ),
    ("api.admissionregistration.v1.MutatingAdmissionPolicyList", "api.admissionregistration.v1beta1.MutatingAdmissionPolicyList"),
];

/// Adds what is missing to the messages of the source.
pub fn add(messages: &mut BTreeMap<String, Vec<ProtoField>>) {
    for (message, name, number, wire, shape, target) in FIELDS {
        put(messages, message, name, *number, wire, *shape, target);
    }
    for (version, device, number) in DEVICES {
        let attribute = format!("api.resource.{version}.DeviceAttribute");
        for (name, number, wire) in [("ints", 6, "int64"), ("bools", 7, "bool"), ("strings", 8, "string"), ("versions", 9, "string")] {
            put(messages, &attribute, name, number, wire, Shape::List, "");
        }
        let mapping = format!("api.resource.{version}.NodeAllocatableResourceMapping");
        put(messages, &mapping, "capacityKey", 1, "string", Shape::Single, "");
        put(messages, &mapping, "allocationMultiplier", 2, "message", Shape::Single, "apimachinery.pkg.api.resource.Quantity");
        let device = format!("api.resource.{version}.{device}");
        put(messages, &device, "nodeAllocatableResourceMappings", number, "message", Shape::Map, &mapping);
    }
    for (new, old) in PROMOTED {
        if let Some(fields) = messages.get(&full(old)).cloned() {
            messages.entry(full(new)).or_insert(fields);
        }
    }
}

fn full(name: &str) -> String {
    format!("io.k8s.{name}")
}

fn put(messages: &mut BTreeMap<String, Vec<ProtoField>>, message: &str, name: &str, number: u16, wire: &str, shape: Shape, target: &str) {
    let fields = messages.entry(full(message)).or_default();
    if fields.iter().all(|f| f.number != number) {
        let message = (!target.is_empty()).then(|| full(target));
        fields.push(ProtoField { name: name.to_owned(), number, wire: wire.to_owned(), shape, message });
    }
}
