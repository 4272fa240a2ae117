//! Validation of a claim's spec, in a claim by itself and inside of pods and StatefulSets.

use serde_json::Value;

use crate::field::FieldPath;
use crate::kinds::core::pod::requirements;
use crate::names;
use crate::validate::diff::{Shape, diff};
use crate::validate::{At, metadata, same};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(crate) fn access_modes(modes: &At<'_>) {
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
pub(crate) fn spec(spec: &At<'_>) {
    let modes = spec.at("accessModes");
    if modes.is_empty() {
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

/// A claim is settled once made; only its size and its attributes' class may change while it is bound.
pub(crate) fn update(object: &At<'_>, old: &At<'_>) {
    spec(&object.at("spec"));
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
            diff(shape, &then, &now)
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

const CLAIM_SPEC: Shape = &[
    ("AccessModes", "accessModes", "null"),
    ("Selector", "selector", "null"),
    ("Resources", "resources", "{}"),
    ("VolumeName", "volumeName", "\"\""),
    ("StorageClassName", "storageClassName", "null"),
    ("VolumeMode", "volumeMode", "null"),
    ("DataSource", "dataSource", "null"),
    ("DataSourceRef", "dataSourceRef", "null"),
    ("VolumeAttributesClassName", "volumeAttributesClassName", "null"),
];

const VOLUME_RESOURCES: Shape = &[("Limits", "limits", "null"), ("Requests", "requests", "null")];

fn shape(path: &[&str]) -> Option<Shape> {
    match path {
        [] => Some(CLAIM_SPEC),
        ["resources"] => Some(VOLUME_RESOURCES),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claims_difference_reads_as_upstreams() {
        let old = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        let mut new = old.clone();
        new["accessModes"] = json!(["ReadWriteMany"]);
        assert_eq!(
            diff(shape, &old, &new),
            "@@ -1,6 +1,6 @@\n {\n  \"AccessModes\": [\n-  \"ReadWriteOnce\"\n+  \"ReadWriteMany\"\n  ],\n  \"Selector\": null,\n  \"Resources\": {\n"
        );
    }
}
