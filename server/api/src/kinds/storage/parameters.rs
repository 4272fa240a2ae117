//! What the kinds of storage.k8s.io share: parameters of classes, names of CSI drivers, the mark of a default class.

use serde_json::{Value, json};

use crate::meta;
use crate::names;
use crate::resource::Cells;
use crate::validate::At;

pub(crate) fn parameters(parameters: &At<'_>, may_be_empty: bool) {
    const MAX_BYTES: usize = 256 * 1024;
    const MAX_COUNT: usize = 512;
    if parameters.len() > MAX_COUNT {
        parameters.too_long(MAX_COUNT);
        return;
    }
    if parameters.is_empty() && !may_be_empty {
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

/// At most 63 bytes of DNS name, in any case.
pub(crate) fn csi_driver_name(name: &At<'_>) {
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

/// The name of a class, marked if it is the default one.
pub(crate) fn class_name(cells: &Cells<'_>, annotations: &[&str]) -> Value {
    let default = annotations.iter().any(|key| meta::annotation(cells.object, key) == Some("true"));
    json!(format!("{}{}", meta::name(cells.object), if default { " (default)" } else { "" }))
}
