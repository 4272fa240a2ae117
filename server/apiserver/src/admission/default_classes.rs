//! DefaultStorageClass and DefaultIngressClass: what a claim or an Ingress means when it names no class.

use std::cmp::Reverse;

use serde_json::Value;
use trireme_api::meta;

use super::is_on;
use crate::{
    admission_request::{AdmissionRequest, Operation},
    lookup::ObjectReader,
};

/// The names of the classes that carry `annotation: "true"`: the newest first, then by name.
fn default_of(reader: &dyn ObjectReader, group: &str, plural: &str, annotation: &str) -> Vec<String> {
    let mut found: Vec<_> = reader
        .list(group, plural, None)
        .into_iter()
        .filter(|class| meta::annotation(&class.object, annotation) == Some("true"))
        .map(|class| (meta::creation_timestamp(&class.object).to_owned(), meta::name(&class.object).to_owned()))
        .collect();
    found.sort_by(|left, right| (Reverse(&left.0), &left.1).cmp(&(Reverse(&right.0), &right.1)));
    found.into_iter().map(|(_, name)| name).collect()
}

/// Gives a claim the default storage class. `""` means "none" and is left alone.
pub fn storage_class(reader: &dyn ObjectReader, request: &mut AdmissionRequest) {
    if request.operation != Operation::Create || !is_on(request, "", "persistentvolumeclaims", "") {
        return;
    }
    let Some(claim) = request.object.as_mut().filter(|claim| claim["spec"].is_object()) else {
        return;
    };
    let named = claim["spec"].get("storageClassName").is_some_and(|name| !name.is_null())
        || meta::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
    if named {
        return;
    }
    const ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";
    if let Some(name) = default_of(reader, "storage.k8s.io", "storageclasses", ANNOTATION).into_iter().next() {
        claim["spec"]["storageClassName"] = Value::from(name);
    }
}

/// Gives an Ingress the default class.
pub fn ingress_class(reader: &dyn ObjectReader, request: &mut AdmissionRequest) {
    if request.operation != Operation::Create || !is_on(request, "networking.k8s.io", "ingresses", "") {
        return;
    }
    let Some(ingress) = request.object.as_mut().filter(|ingress| ingress["spec"].is_object()) else {
        return;
    };
    let named = ingress["spec"].get("ingressClassName").is_some_and(|name| !name.is_null())
        || meta::annotation(ingress, "kubernetes.io/ingress.class").is_some();
    if named {
        return;
    }
    const ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
    if let Some(name) = default_of(reader, "networking.k8s.io", "ingressclasses", ANNOTATION).into_iter().next() {
        ingress["spec"]["ingressClassName"] = Value::from(name);
    }
}
