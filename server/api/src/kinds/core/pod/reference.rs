//! References to fields of the pod and to resources of a container, in environment variables and downward API files.

use crate::names;
use crate::validate::At;

/// Pod fields that an environment variable may show.
pub(crate) const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Pod fields that upstream's selector conversion knows at all.
const KNOWN_FIELDS: [&str; 16] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "spec.hostNetwork",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

/// A reference to a field of the pod.
pub(crate) fn field_ref(reference: &At<'_>, allowed: &[&str]) {
    if reference.at("apiVersion").text().is_empty() {
        reference.at("apiVersion").required("");
        return;
    }
    let path = reference.at("fieldPath");
    if path.text().is_empty() {
        path.required("");
        return;
    }
    let (field, subscript) = match path.text().strip_suffix("']").and_then(|text| text.split_once("['")) {
        Some((field, key)) => (field, Some(key)),
        None => (path.text(), None),
    };
    if reference.at("apiVersion").text() != "v1" {
        path.invalid(format!("error converting fieldPath: unsupported pod version: {}", reference.at("apiVersion").text()));
        return;
    }
    match subscript {
        Some(key) => match field {
            "metadata.annotations" => qualified(reference, &key.to_lowercase()),
            "metadata.labels" => qualified(reference, key),
            _ => path.invalid(format!("error converting fieldPath: field label does not support subscript: {}", path.text())),
        },
        None if !KNOWN_FIELDS.contains(&field) => {
            path.invalid(format!("error converting fieldPath: field label not supported: {field}"));
        }
        None if !allowed.contains(&field) => path.not_supported(allowed),
        None => {}
    }
}

fn qualified(reference: &At<'_>, key: &str) {
    for message in names::is_qualified_name(key) {
        reference.invalid_as(key, message);
    }
}

/// A reference to a container's resource.
pub(crate) fn resource_field_ref(reference: &At<'_>, volume: bool) {
    const RESOURCES: [&str; 6] =
        ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
    let resource = reference.at("resource");
    let huge = resource.text().starts_with("limits.hugepages-") || resource.text().starts_with("requests.hugepages-");
    if volume && reference.at("containerName").text().is_empty() {
        reference.at("containerName").required("");
    } else if resource.text().is_empty() {
        resource.required("");
    } else if !RESOURCES.contains(&resource.text()) && !huge {
        resource.not_supported(&RESOURCES);
    }
    let divisor = reference.at("divisor");
    let written = crate::quantity::canonicalize(divisor.value).unwrap_or_else(|| "0".to_owned());
    if written == "0" {
        return;
    }
    let (allowed, words): (&[&str], &str) = if resource.text().ends_with(".cpu") {
        (&["1m", "1"], "only divisor's values 1m and 1 are supported with the cpu resource")
    } else {
        (
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the ",
        )
    };
    if !allowed.contains(&written.as_str()) {
        let what = match resource.text() {
            text if text.ends_with(".cpu") => "",
            text if text.ends_with(".memory") => "memory resource",
            text if text.ends_with(".ephemeral-storage") => "local ephemeral storage resource",
            _ => "hugepages resource",
        };
        divisor.invalid_as(resource.text(), format!("{words}{what}"));
    }
}
