//! PersistentVolumes, claims, StorageClasses and the storage.k8s.io kinds around them.

use serde_json::Value;

use super::at::{At, same};
use super::{metadata, requirements, scheduling, volume};
use crate::field::FieldPath;
use crate::names;

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(modes: &At<'_>) {
    let all = modes.strings();
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            mode.named(modes.path.clone()).not_supported(&ACCESS_MODES);
        }
    }
    let others = all.iter().any(|mode| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode));
    if all.contains(&"ReadWriteOncePod") && others {
        modes.forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(resource: &str, at: &At<'_>) {
    let Some(size) = requirements::parse(at) else { return };
    if size.sign() <= 0 {
        at.invalid_as(size.to_string(), "must be greater than zero");
    } else {
        requirements::quantity_value(resource, at);
    }
}

/// A claim's spec, also inside of pods and StatefulSets.
pub(super) fn claim_spec(spec: &At<'_>) {
    let modes = spec.at("accessModes");
    if modes.len() == 0 {
        modes.required("at least 1 access mode is required");
    }
    if spec.at("selector").is_set() {
        metadata::selector(&spec.at("selector"));
    }
    access_modes(&modes);
    let size = spec.at("resources").at("requests").at("storage").named(spec.at("resources").path.key("storage"));
    if size.is_set() {
        positive("storage", &size);
    } else {
        size.required("");
    }
    spec.at("storageClassName").may_obey(names::is_dns1123_subdomain);
    spec.at("volumeMode").may_be_one_of(&["Block", "Filesystem"]);
    let (source, reference) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    for from in [&source, &reference] {
        if from.is_set() {
            data_source(from);
        }
    }
    if reference.at("namespace").is_full() {
        if source.is_set() {
            spec.invalid_as("spec.dataSource", "may not be specified when dataSourceRef.namespace is specified");
        }
    } else if source.is_set() && reference.is_set() {
        let differs = ["apiGroup", "kind", "name"].iter().any(|key| source.at(key).value != reference.at(key).value);
        if differs {
            spec.invalid_as("spec.dataSource", "must match dataSourceRef");
        }
    }
    spec.at("volumeAttributesClassName").may_obey(names::is_dns1123_subdomain);
}

fn data_source(source: &At<'_>) {
    for field in ["name", "kind"] {
        if source.at(field).text().is_empty() {
            source.at(field).required("");
        }
    }
    if source.at("apiGroup").text().is_empty() && source.at("kind").text() != "PersistentVolumeClaim" {
        source.invalid_as(source.at("kind").text(), "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    source.at("apiGroup").may_obey(names::is_dns1123_subdomain);
    source.at("namespace").may_obey(names::is_dns1123_label);
}

pub(super) fn claim(object: &At<'_>) {
    claim_spec(&object.at("spec"));
}

/// A claim is settled once made; only its size and its attributes' class may change while it is bound.
pub(super) fn claim_update(object: &At<'_>, old: &At<'_>) {
    claim_spec(&object.at("spec"));
    let (spec, before) = (object.at("spec"), old.at("spec"));
    let (mut now, mut then) = (spec.value.clone(), before.value.clone());
    let assign = |target: &mut Value, key: &str, from: &Value| {
        if let Some(map) = target.as_object_mut() {
            match from.get(key) {
                Some(value) => map.insert(key.to_owned(), value.clone()),
                None => map.remove(key),
            };
        }
    };
    if !before.at("volumeName").is_full() {
        assign(&mut then, "volumeName", spec.value);
    }
    // A default class may still be given to a claim that asked for none.
    if !before.at("storageClassName").is_set() && spec.at("storageClassName").is_set() {
        assign(&mut now, "storageClassName", before.value);
    }
    fn storage<'s>(spec: &At<'s>) -> At<'s> {
        spec.at("resources").at("requests").at("storage")
    }
    if object.at("status").at("phase").text() == "Bound" {
        if let Some(size) = now.pointer_mut("/resources/requests/storage") {
            *size = storage(&before).value.clone();
        }
        if spec.at("volumeAttributesClassName").is_set() {
            assign(&mut now, "volumeAttributesClassName", before.value);
        }
    }
    if !same(&now, &then) {
        spec.forbidden(format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            super::diff::claim_spec(&then, &now)
        ));
    }
    let size = |at: &At<'_>| requirements::parse(at);
    if let (Some(new), Some(previous)) = (size(&storage(&spec)), size(&storage(&before)))
        && new < previous
    {
        let capacity = size(&old.at("status").at("capacity").at("storage"));
        if capacity.is_none_or(|capacity| new <= capacity) {
            spec.named(FieldPath::new("spec.resources.requests.storage")).forbidden("field can not be less than status.capacity");
        }
    }
    spec.at("volumeMode").named(FieldPath::new("volumeMode")).immutable(&before.at("volumeMode"));
}

pub(super) fn volume(object: &At<'_>) {
    let spec = object.at("spec");
    if spec.at("accessModes").len() == 0 {
        spec.at("accessModes").required("");
    }
    access_modes(&spec.at("accessModes"));
    let capacity = spec.at("capacity");
    if capacity.len() == 0 {
        capacity.required("");
    }
    if !capacity.at("storage").is_set() || capacity.len() > 1 {
        let shown = if capacity.is_set() { capacity.value.clone() } else { Value::Null };
        capacity.errors.push(crate::field::FieldError::not_supported(&capacity.path, shown, &["storage"]));
    }
    for (_, size) in capacity.entries() {
        if requirements::parse(&size).is_some_and(|size| size.sign() <= 0) {
            size.invalid("must be greater than zero");
        }
    }
    spec.at("persistentVolumeReclaimPolicy").may_be_one_of(&["Delete", "Recycle", "Retain"]);
    let affinity = spec.at("nodeAffinity");
    if affinity.is_set() {
        if affinity.at("required").is_set() {
            scheduling::node_selector(&affinity.at("required"));
        } else {
            affinity.at("required").required("must specify required node constraints");
        }
    }
    volume::persistent(&spec);
    if spec.at("local").is_set() && !affinity.is_set() {
        affinity.required("Local volume requires node affinity");
    }
    let root = spec.at("hostPath").at("path").text().trim_end_matches('/').is_empty() && spec.at("hostPath").is_set();
    if root && spec.at("persistentVolumeReclaimPolicy").text() == "Recycle" {
        spec.at("persistentVolumeReclaimPolicy").forbidden("may not be 'recycle' for a hostPath mount of '/'");
    }
    spec.at("storageClassName").may_obey(names::is_dns1123_subdomain);
    spec.at("volumeMode").may_be_one_of(&["Block", "Filesystem"]);
    let class = spec.at("volumeAttributesClassName");
    if class.is_set() {
        if class.text().is_empty() {
            class.required("an empty string is disallowed");
        } else {
            class.obeys(names::is_dns1123_subdomain);
        }
        if !spec.at("csi").is_set() {
            spec.at("csi").required("has to be specified when using volumeAttributesClassName");
        }
    }
}

/// Where the data is does not change.
pub(super) fn volume_update(object: &At<'_>, old: &At<'_>) {
    const NOT_SOURCE: [&str; 9] = [
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeMode",
        "nodeAffinity",
        "volumeAttributesClassName",
    ];
    volume(object);
    let source = |spec: &At<'_>| {
        let mut source = spec.value.clone();
        if let Some(map) = source.as_object_mut() {
            NOT_SOURCE.iter().for_each(|key| {
                map.remove(*key);
            });
        }
        source
    };
    let (spec, before) = (object.at("spec"), old.at("spec"));
    let (mut now, then) = (source(&spec), source(&before));
    let expand = "controllerExpandSecretRef";
    if let Some(csi) = now.get_mut("csi").and_then(Value::as_object_mut)
        && !before.at("csi").at(expand).is_set()
    {
        csi.remove(expand);
    }
    if !same(&now, &then) {
        spec.named(FieldPath::new("spec.persistentvolumesource")).forbidden("spec.persistentvolumesource is immutable after creation");
    }
    spec.at("volumeMode").named(FieldPath::new("volumeMode")).immutable(&before.at("volumeMode"));
    let affinity = before.at("nodeAffinity");
    if affinity.is_set() && !same(affinity.value, spec.at("nodeAffinity").value) {
        spec.at("nodeAffinity")
            .named(FieldPath::new("nodeAffinity"))
            .invalid("field is immutable, except for updating from beta label to GA");
    }
}

pub(super) fn storage_class(object: &At<'_>) {
    let provisioner = object.at("provisioner");
    if provisioner.text().is_empty() {
        provisioner.required("");
    } else {
        for message in names::is_qualified_name(&provisioner.text().to_lowercase()) {
            provisioner.invalid(message);
        }
    }
    parameters(&object.at("parameters"), true);
    object.at("reclaimPolicy").may_be_one_of(&["Delete", "Retain"]);
    object.at("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"]);
    for term in object.at("allowedTopologies").items() {
        for requirement in term.at("matchLabelExpressions").items() {
            if requirement.at("values").len() == 0 {
                requirement.at("values").required("");
            }
            metadata::label_name(&requirement.at("key"));
        }
    }
}

fn parameters(parameters: &At<'_>, may_be_empty: bool) {
    const MAX_BYTES: usize = 256 * 1024;
    const MAX_COUNT: usize = 512;
    if parameters.len() > MAX_COUNT {
        parameters.too_long(MAX_COUNT);
        return;
    }
    if parameters.len() == 0 && !may_be_empty {
        parameters.required("must contain at least one key/value pair");
    }
    let bytes: usize = parameters.entries().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_BYTES {
        parameters.too_long(MAX_BYTES);
    }
    if parameters.entries().any(|(key, _)| key.is_empty()) {
        parameters.invalid_as("", "field can not be empty.");
    }
}

pub(super) fn storage_class_update(object: &At<'_>, old: &At<'_>) {
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if !same(object.at(field).value, old.at(field).value) {
            object.at(field).forbidden(format!("updates to {field} are forbidden."));
        }
    }
    object.at("volumeBindingMode").immutable(&old.at("volumeBindingMode"));
}

pub(super) fn attributes_class(object: &At<'_>) {
    csi_driver_name(&object.at("driverName"));
    parameters(&object.at("parameters"), false);
}

pub(super) fn attributes_class_update(object: &At<'_>, old: &At<'_>) {
    for field in ["driverName", "parameters"] {
        if !same(object.at(field).value, old.at(field).value) {
            object.at(field).forbidden(format!("updates to {field} are forbidden."));
        }
    }
}

/// At most 63 bytes of DNS name, in any case.
pub(super) fn csi_driver_name(name: &At<'_>) {
    if name.text().is_empty() {
        name.required("");
    }
    if name.len() > 63 {
        name.too_long(63);
    }
    for message in names::is_dns1123_subdomain(&name.text().to_lowercase()) {
        name.invalid_as(name.text(), message);
    }
}

pub(super) fn csi_driver(object: &At<'_>) {
    csi_driver_name(&object.at("metadata").at("name"));
    let spec = object.at("spec");
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !spec.at(field).is_set() {
            spec.at(field).required("");
        }
    }
    spec.at("fsGroupPolicy").may_be_one_of(&["File", "None", "ReadWriteOnceWithFSType"]);
    let mut audiences = std::collections::BTreeSet::new();
    for request in spec.at("tokenRequests").items() {
        if !audiences.insert(request.at("audience").text()) {
            request.at("audience").duplicate();
        }
        let seconds = request.at("expirationSeconds");
        match seconds.int() {
            Some(value) if value < 600 => seconds.invalid("may not specify a duration less than 10 minutes"),
            Some(value) if value > 1 << 32 => seconds.invalid("may not specify a duration larger than 2^32 seconds"),
            _ => {}
        }
    }
    for mode in spec.at("volumeLifecycleModes").items() {
        mode.named(spec.at("volumeLifecycleModes").path.clone()).may_be_one_of(&["Ephemeral", "Persistent"]);
    }
}

pub(super) fn csi_driver_update(object: &At<'_>, old: &At<'_>) {
    for field in ["attachRequired", "fsGroupPolicy", "volumeLifecycleModes"] {
        object.at("spec").at(field).immutable(&old.at("spec").at(field));
    }
}

pub(super) fn csi_node(object: &At<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for driver in object.at("spec").at("drivers").items() {
        csi_driver_name(&driver.at("name"));
        let id = driver.at("nodeID");
        if id.text().is_empty() {
            id.required("");
        } else if id.len() > 256 {
            id.invalid("must be 256 characters or less");
        }
        if driver.at("allocatable").at("count").int().is_some_and(|count| count < 0) {
            driver.at("allocatable").at("count").non_negative();
        }
        let mut keys = std::collections::BTreeSet::new();
        for key in driver.at("topologyKeys").items() {
            if !keys.insert(key.text()) {
                key.named(driver.at("topologyKeys").path.clone()).duplicate();
            }
            key.named(driver.at("topologyKeys").path.clone()).must_obey(names::is_qualified_name);
        }
        if !seen.insert(driver.at("name").text()) {
            driver.at("name").duplicate();
        }
    }
}

pub(super) fn attachment(object: &At<'_>) {
    let spec = object.at("spec");
    csi_driver_name(&spec.at("attacher"));
    let source = spec.at("source");
    let (inline, name) = (source.at("inlineVolumeSpec"), source.at("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => source.required("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (true, true) => source.forbidden("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        _ => name.may_obey(names::is_dns1123_subdomain),
    }
    spec.at("nodeName").obeys(names::is_dns1123_subdomain);
}

pub(super) fn attachment_update(object: &At<'_>, old: &At<'_>) {
    object.at("spec").immutable(&old.at("spec"));
}
