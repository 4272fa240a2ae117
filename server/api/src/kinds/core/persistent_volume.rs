//! PersistentVolumes.

use serde_json::{Value, json};

use super::persistent_volume_claim::claim::access_modes;
use super::pod;
use super::pod::{requirements, scheduling};
use crate::default::{Lit::*, Set, fill};
use crate::field::FieldPath;
use crate::kinds::text::{self, UNSET, phase, plain, size, storage_class};
use crate::meta;
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::time::{self, Timestamp};
use crate::validate::{At, same};

/// A piece of storage.
pub(crate) struct PersistentVolume;

impl Kind for PersistentVolume {
    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "details of legacy volume types; the difference shown when the source changes"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, now: Timestamp) {
        meta::map_at(object, "status").insert("lastPhaseTransitionTime".to_owned(), json!(time::format(now)));
    }

    /// A new phase has the time of its beginning, unless the client gave another one.
    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, now: Timestamp) {
        const TIME: &str = "lastPhaseTransitionTime";
        let at = |object: &Value, key: &str| object["status"].get(key).filter(|value| !value.is_null()).cloned();
        let (given, before) = (at(object, TIME), at(old, TIME));
        let stays = at(object, "phase") == at(old, "phase");
        let time = match (stays, given) {
            (true, given) => given.or(before),
            (false, given) if given.is_none() || given == before => Some(json!(time::format(now))),
            (false, given) => given,
        };
        if let Some(time) = time {
            meta::map_at(object, "status").insert(TIME.to_owned(), time);
        }
    }

    fn validate(&self, object: &At<'_>) {
        volume(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        volume_update(object, old);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        persistent_volume(object, &mut warnings);
        warnings
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|+VolumeMode")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table_cells(cells));
        row
    }
}

fn default(object: &mut Value) {
    fill(
        object,
        &[
            Set("", "spec", Obj),
            Set("", "status", Obj),
            Set("spec", "persistentVolumeReclaimPolicy", S("Retain")),
            Set("spec", "volumeMode", S("Filesystem")),
            Set("status", "phase", S("Pending")),
        ],
    );
    if let Some(spec) = object.get_mut("spec") {
        pod::default::volume_source(spec);
    }
}

fn volume(object: &At<'_>) {
    let spec = object.at("spec");
    if spec.at("accessModes").is_empty() {
        spec.at("accessModes").required("");
    }
    access_modes(&spec.at("accessModes"));
    let capacity = spec.at("capacity");
    if capacity.is_empty() {
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
    pod::volume::persistent(&spec);
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
fn volume_update(object: &At<'_>, old: &At<'_>) {
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

fn persistent_volume(object: &Value, warnings: &mut Vec<String>) {
    if object["spec"]["persistentVolumeReclaimPolicy"] == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. \
             Instead, the recommended approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    for (kind, words) in pod::warnings::VOLUMES {
        if object["spec"].get(*kind).is_some_and(|source| !source.is_null()) {
            warnings.push(format!("spec.{kind}: {words}"));
        }
    }
}

fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
    let claim = cells.at(&["spec", "claimRef"]);
    let claim = match claim.is_object() {
        true => format!("{}/{}", plain(&claim["namespace"]), plain(&claim["name"])),
        false => String::new(),
    };
    vec![
        json!(size(cells.at(&["spec", "capacity", "storage"]))),
        json!(text::access_modes(cells.at(&["spec", "accessModes"]))),
        json!(cells.text(&["spec", "persistentVolumeReclaimPolicy"])),
        phase(cells),
        json!(claim),
        storage_class(cells),
        cells.text_or(&["spec", "volumeAttributesClassName"], UNSET),
        json!(cells.text(&["status", "reason"])),
        cells.age(),
        cells.text_or(&["spec", "volumeMode"], UNSET),
    ]
}
