//! Validation of volumes of pods, and of the sources that a PersistentVolume shares with them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::path::{no_backsteps, non_reserved_path};
use super::reference::{field_ref, resource_field_ref};
use super::requirements;
use crate::kinds::core::persistent_volume_claim::claim;
use crate::names;
use crate::validate::{At, metadata};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Volume types in the order in which upstream looks at them; of two, the later one is refused.
const POD_SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Types that a PersistentVolume can have.
const PERSISTENT_SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// What a source must name, for the types that need nothing else checked.
const MUST_NAME: &[(&str, &[&str])] = &[
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("quobyte", &["registry", "volume"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
];

/// `spec.volumes`; returns them by name. `pod_name` is set in a Pod, not in a template.
pub(crate) fn check(volumes: &At<'_>, pod_name: Option<&str>) -> Map<String, Value> {
    let mut known = Map::new();
    let mut seen = BTreeSet::new();
    for volume in volumes.items() {
        let name = volume.at("name");
        let before = known.len();
        one_source(&volume, &POD_SOURCES, pod_name);
        if name.text().is_empty() {
            name.required("");
        } else {
            let messages = names::is_dns1123_label(name.text());
            if messages.is_empty() && !seen.insert(name.text()) {
                name.duplicate();
            }
            messages.into_iter().for_each(|message| name.invalid(message));
        }
        known.insert(name.text().to_owned(), volume.value.clone());
        debug_assert!(known.len() >= before);
    }
    known
}

/// The source of a PersistentVolume.
pub(crate) fn persistent(spec: &At<'_>) {
    one_source(spec, &PERSISTENT_SOURCES, None);
}

fn one_source(volume: &At<'_>, kinds: &[&str], pod_name: Option<&str>) {
    let mut count = 0;
    for kind in kinds {
        let source = volume.at(kind);
        if !source.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type");
            continue;
        }
        check_source(kind, &source);
        if *kind == "ephemeral" {
            ephemeral(volume, &source, pod_name);
        }
    }
    if count == 0 {
        volume.required("must specify a volume type");
    }
}

fn check_source(kind: &str, source: &At<'_>) {
    for (_, fields) in MUST_NAME.iter().filter(|(name, _)| *name == kind) {
        for field in *fields {
            if !source.at(field).is_full() {
                source.at(field).required("");
            }
        }
    }
    match kind {
        "emptyDir" => {
            let limit = source.at("sizeLimit");
            if requirements::parse(&limit).is_some_and(|size| size.sign() < 0) {
                limit.forbidden("SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => host_path(source),
        "secret" => {
            if source.at("secretName").text().is_empty() {
                source.at("secretName").required("");
            }
            mode(&source.at("defaultMode"));
            source.at("items").items().for_each(|item| key_to_path(&item));
        }
        "configMap" => {
            if source.at("name").text().is_empty() {
                source.at("name").required("");
            }
            mode(&source.at("defaultMode"));
            source.at("items").items().for_each(|item| key_to_path(&item));
        }
        "nfs" => {
            for field in ["server", "path"] {
                if source.at(field).text().is_empty() {
                    source.at(field).required("");
                }
            }
            if !source.at("path").text().starts_with('/') {
                source.at("path").invalid("must be an absolute path");
            }
        }
        "downwardAPI" => {
            mode(&source.at("defaultMode"));
            for file in source.at("items").items() {
                downward_file(&file.named(source.path.clone()));
            }
        }
        "projected" => projected(source),
        "csi" => csi(source),
        "image" => {
            source.at("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"]);
        }
        _ => {}
    }
}

fn host_path(source: &At<'_>) {
    let path = source.at("path");
    if path.text().is_empty() {
        path.required("");
        return;
    }
    no_backsteps(&path);
    source.at("type").may_be_one_of(&["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"]);
}

fn csi(source: &At<'_>) {
    let driver = source.at("driver");
    if driver.text().is_empty() {
        driver.required("");
    } else {
        if driver.len() > 63 {
            driver.too_long(63);
        }
        for message in names::is_dns1123_subdomain(&driver.text().to_lowercase()) {
            driver.invalid(message);
        }
    }
    let secret = source.at("nodePublishSecretRef");
    if secret.is_set() && secret.at("name").text().is_empty() {
        secret.at("name").required("");
    }
}

fn ephemeral(volume: &At<'_>, source: &At<'_>, pod_name: Option<&str>) {
    let template = source.at("volumeClaimTemplate");
    if !template.is_set() {
        template.required("");
        return;
    }
    metadata::labels(&template.at("metadata").at("labels"));
    metadata::annotations(&template.at("metadata").at("annotations"));
    claim::spec(&template.at("spec"));
    let name = volume.at("name").text();
    if let Some(pod) = pod_name.filter(|pod| !pod.is_empty() && !name.is_empty()) {
        let claim = format!("{pod}-{name}");
        for message in names::is_dns1123_subdomain(&claim) {
            volume.at("name").invalid(format!("PVC name {claim:?}: {message}"));
        }
    }
}

fn mode(mode: &At<'_>) {
    if mode.int().is_some_and(|bits| !(0..=0o777).contains(&bits)) {
        mode.invalid(MODE);
    }
}

fn key_to_path(item: &At<'_>) {
    for field in ["key", "path"] {
        if item.at(field).text().is_empty() {
            item.at(field).required("");
        }
    }
    non_reserved_path(&item.at("path"));
    mode(&item.at("mode"));
}

fn downward_file(file: &At<'_>) {
    const FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    if file.at("path").text().is_empty() {
        file.at("path").required("");
    }
    non_reserved_path(&file.at("path"));
    let (field, resource) = (file.at("fieldRef"), file.at("resourceFieldRef"));
    if field.is_set() {
        field_ref(&field, &FIELDS);
        if resource.is_set() {
            file.invalid_as("resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if resource.is_set() {
        resource_field_ref(&resource, true);
    } else {
        file.required("one of fieldRef and resourceFieldRef is required");
    }
    mode(&file.at("mode"));
}

fn projected(volume: &At<'_>) {
    mode(&volume.at("defaultMode"));
    let mut paths = BTreeSet::new();
    for source in volume.at("sources").items() {
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let part = source.at(kind);
            if !part.is_set() {
                continue;
            }
            count += 1;
            if part.at("name").text().is_empty() {
                part.at("name").required("");
            }
            for item in part.at("items").items() {
                key_to_path(&item);
                if item.at("path").is_full() && !paths.insert(item.at("path").text()) {
                    volume.invalid_as(part.at("name").text(), "conflicting duplicate paths");
                }
            }
        }
        let downward = source.at("downwardAPI");
        count += usize::from(downward.is_set());
        for item in downward.at("items").items() {
            downward_file(&item.named(downward.path.clone()));
            if item.at("path").is_full() && !paths.insert(item.at("path").text()) {
                volume.invalid_as(item.at("path").text(), "conflicting duplicate paths");
            }
        }
        let token = source.at("serviceAccountToken");
        if token.is_set() {
            count += 1;
            token_projection(volume, &token);
        }
        for kind in ["clusterTrustBundle", "podCertificate"] {
            count += usize::from(source.at(kind).is_set());
        }
        let bundle = source.at("clusterTrustBundle");
        if bundle.is_set() {
            match (bundle.at("name").is_set(), bundle.at("signerName").is_set()) {
                (true, true) => bundle.invalid("only one of name and signerName may be used"),
                (false, false) => bundle.required("either name or signerName must be specified"),
                _ => {}
            }
            if bundle.at("path").text().is_empty() {
                bundle.at("path").required("");
            }
            non_reserved_path(&bundle.at("path"));
        }
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type per source");
        }
    }
}

fn token_projection(volume: &At<'_>, token: &At<'_>) {
    let seconds = token.at("expirationSeconds");
    match seconds.int() {
        Some(value) if value < 600 => seconds.invalid("may not specify a duration less than 10 minutes"),
        Some(value) if value > 1 << 32 => seconds.invalid("may not specify a duration larger than 2^32 seconds"),
        _ => {}
    }
    let path = token.at("path").named(volume.path.child("path"));
    if path.text().is_empty() {
        path.required("");
    } else {
        non_reserved_path(&path);
    }
}
