//! Defaults of everything that is neither a workload nor networking: most of core, RBAC, storage, scheduling,
//! admission registration, extension, flow control, resource claims.

use base64::Engine as _;
use serde_json::{Value, json};

use super::walk::{Lit::*, Object, Row, each, fill, object as child, set, text, unset};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

const CSI_DRIVER: &[Row] = &[
    Row("spec", "attachRequired", B(true)),
    Row("spec", "podInfoOnMount", B(false)),
    Row("spec", "storageCapacity", B(false)),
    Row("spec", "fsGroupPolicy", S("ReadWriteOnceWithFSType")),
    Row("spec", "volumeLifecycleModes", L("Persistent")),
    Row("spec", "requiresRepublish", B(false)),
    Row("spec", "seLinuxMount", B(false)),
];

const WEBHOOK: &[Row] = &[
    Row("webhooks[]", "failurePolicy", S("Fail")),
    Row("webhooks[]", "matchPolicy", S("Equivalent")),
    Row("webhooks[]", "namespaceSelector", Obj),
    Row("webhooks[]", "objectSelector", Obj),
    Row("webhooks[]", "timeoutSeconds", I(10)),
    Row("webhooks[].rules[]", "scope", S("*")),
    Row("webhooks[].clientConfig.service", "port", I(443)),
];

const POLICY: &[Row] = &[
    Row("spec", "failurePolicy", S("Fail")),
    Row("spec.matchConstraints", "matchPolicy", S("Equivalent")),
    Row("spec.matchConstraints", "namespaceSelector", Obj),
    Row("spec.matchConstraints", "objectSelector", Obj),
    Row("spec.matchConstraints.resourceRules[]", "scope", S("*")),
    Row("spec.matchConstraints.excludeResourceRules[]", "scope", S("*")),
];

const POLICY_BINDING: &[Row] = &[
    Row("spec.matchResources", "matchPolicy", S("Equivalent")),
    Row("spec.matchResources", "namespaceSelector", Obj),
    Row("spec.matchResources", "objectSelector", Obj),
    Row("spec.matchResources.resourceRules[]", "scope", S("*")),
    Row("spec.matchResources.excludeResourceRules[]", "scope", S("*")),
];

const PRIORITY_LEVEL: &[Row] = &[
    Row("spec.exempt", "nominalConcurrencyShares", I(0)),
    Row("spec.exempt", "lendablePercent", I(0)),
    Row("spec.limited", "nominalConcurrencyShares", I(30)),
    Row("spec.limited", "lendablePercent", I(0)),
    Row("spec.limited.limitResponse.queuing", "queues", Z(64)),
    Row("spec.limited.limitResponse.queuing", "handSize", Z(8)),
    Row("spec.limited.limitResponse.queuing", "queueLengthLimit", Z(50)),
];

pub(super) fn apply(group: &str, kind: &str, object: &mut Value) {
    match (group, kind) {
        ("", "Namespace") => namespace(object),
        ("", "Node") => node(object),
        ("", "Secret") => secret(object),
        ("", "PersistentVolume") => persistent_volume(object),
        ("", "PersistentVolumeClaim") => fill(object, &[Row("spec", "volumeMode", S("Filesystem")), Row("status", "phase", S("Pending"))]),
        ("", "LimitRange") => each(object, "spec.limits[]", &mut limit_range_item),
        (RBAC_GROUP, "RoleBinding" | "ClusterRoleBinding") => role_binding(object),
        ("scheduling.k8s.io", "PriorityClass") => {
            fill(object, &[Row("", "preemptionPolicy", S("PreemptLowerPriority"))]);
        }
        ("storage.k8s.io", "StorageClass") => {
            fill(object, &[Row("", "reclaimPolicy", S("Delete")), Row("", "volumeBindingMode", S("Immediate"))])
        }
        ("storage.k8s.io", "CSIDriver") => fill(object, CSI_DRIVER),
        ("admissionregistration.k8s.io", _) => admission(kind, object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition(object),
        ("apiregistration.k8s.io", "APIService") => fill(object, &[Row("spec.service", "port", I(443))]),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => {
            fill(object, &[Row("spec", "matchingPrecedence", Z(1000))]);
        }
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => priority_level(object),
        ("authentication.k8s.io", "TokenRequest") => fill(object, &[Row("spec", "expirationSeconds", I(3600))]),
        ("resource.k8s.io", "ResourceClaim") => device_requests(object, "spec.devices"),
        ("resource.k8s.io", "ResourceClaimTemplate") => device_requests(object, "spec.spec.devices"),
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    fill(object, &[Row("status", "phase", S("Active"))]);
    each(object, "metadata", &mut |meta| {
        let name = text(meta, "name").to_owned();
        if !name.is_empty()
            && let Some(labels) = child(meta, "labels")
        {
            labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
        }
    });
}

fn node(object: &mut Value) {
    each(object, "status", &mut |status| {
        if unset(status, "allocatable")
            && let Some(capacity) = status.get("capacity").filter(|capacity| capacity.is_object()).cloned()
        {
            status.insert("allocatable".to_owned(), capacity);
        }
    });
}

/// `stringData` is a way to write `data`; it never comes back.
fn secret(object: &mut Value) {
    fill(object, &[Row("", "type", S("Opaque"))]);
    let Value::Object(map) = object else { return };
    let Some(plain) = map.remove("stringData") else { return };
    let Value::Object(plain) = plain else { return };
    if plain.is_empty() {
        return;
    }
    let Some(data) = child(map, "data") else { return };
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, json!(encoded));
    }
}

fn persistent_volume(object: &mut Value) {
    fill(
        object,
        &[
            Row("spec", "persistentVolumeReclaimPolicy", S("Retain")),
            Row("spec", "volumeMode", S("Filesystem")),
            Row("status", "phase", S("Pending")),
        ],
    );
    if let Some(spec) = object.get_mut("spec") {
        super::pod::volume_source(spec);
    }
}

/// For containers: default from max, default request from default, and from min where there is none.
fn limit_range_item(item: &mut Object) {
    if text(item, "type") != "Container" {
        return;
    }
    for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let Some(Value::Object(from)) = item.get(source).cloned() else { continue };
        let Some(into) = child(item, target) else { continue };
        for (name, quantity) in from {
            into.entry(name).or_insert(quantity);
        }
    }
}

fn role_binding(object: &mut Value) {
    fill(object, &[Row("roleRef", "apiGroup", S(RBAC_GROUP))]);
    each(object, "subjects[]", &mut |subject| {
        if matches!(text(subject, "kind"), "User" | "Group") {
            set(subject, "apiGroup", S(RBAC_GROUP));
        }
    });
}

fn admission(kind: &str, object: &mut Value) {
    match kind {
        "MutatingWebhookConfiguration" => {
            fill(object, WEBHOOK);
            fill(object, &[Row("webhooks[]", "reinvocationPolicy", S("Never"))]);
        }
        "ValidatingWebhookConfiguration" => fill(object, WEBHOOK),
        "ValidatingAdmissionPolicy" => fill(object, POLICY),
        "MutatingAdmissionPolicy" => {
            fill(object, POLICY);
            fill(object, &[Row("spec", "reinvocationPolicy", S("Never"))]);
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => fill(object, POLICY_BINDING),
        _ => {}
    }
}

fn custom_resource_definition(object: &mut Value) {
    fill(
        object,
        &[
            Row("spec", "scope", S("Namespaced")),
            Row("spec", "conversion", Obj),
            Row("spec.conversion", "strategy", S("None")),
            Row("spec.conversion.webhook.clientConfig.service", "port", I(443)),
        ],
    );
    each(object, "spec.names", &mut |names| {
        let kind = text(names, "kind").to_owned();
        if unset(names, "singular") {
            names.insert("singular".to_owned(), json!(kind.to_lowercase()));
        }
        if unset(names, "listKind") && !kind.is_empty() {
            names.insert("listKind".to_owned(), json!(format!("{kind}List")));
        }
    });
}

/// The mandatory exempt level has its section even when nobody wrote it.
fn priority_level(object: &mut Value) {
    each(object, "spec", &mut |spec| {
        if text(spec, "type") == "Exempt" {
            set(spec, "exempt", Obj);
        }
    });
    fill(object, PRIORITY_LEVEL);
}

fn device_requests(object: &mut Value, path: &str) {
    for request in ["requests[].exactly", "requests[].firstAvailable[]"] {
        let at = format!("{path}.{request}");
        each(object, &at, &mut |request| {
            set(request, "allocationMode", S("ExactCount"));
            if text(request, "allocationMode") == "ExactCount" {
                set(request, "count", Z(1));
            }
        });
        each(object, &format!("{at}.tolerations[]"), &mut |toleration| set(toleration, "operator", S("Equal")));
    }
}
