//! DefaultStorageClass and DefaultIngressClass: set the default class on claims and Ingresses that name none.

use std::cmp::Reverse;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

/// Gives claims the default storage class.
pub struct DefaultStorageClass {
    reader: Arc<dyn ObjectReader>,
}

impl DefaultStorageClass {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> DefaultStorageClass {
        DefaultStorageClass { reader: environment.reader.clone() }
    }
}

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on("", "persistentvolumeclaims", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        storage_class(&*self.reader, request);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Gives Ingresses the default class.
pub struct DefaultIngressClass {
    reader: Arc<dyn ObjectReader>,
}

impl DefaultIngressClass {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> DefaultIngressClass {
        DefaultIngressClass { reader: environment.reader.clone() }
    }
}

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on("networking.k8s.io", "ingresses", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        ingress_class(&*self.reader, request);
        Box::pin(std::future::ready(Ok(())))
    }
}

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
fn storage_class(reader: &dyn ObjectReader, request: &mut AdmissionRequest) {
    if request.operation != Operation::Create || !request.is_on("", "persistentvolumeclaims", "") {
        return;
    }
    let Some(claim) = request.object().filter(|claim| claim["spec"].is_object()) else {
        return;
    };
    let named = claim["spec"].get("storageClassName").is_some_and(|name| !name.is_null())
        || meta::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
    if named {
        return;
    }
    const ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";
    if let Some(name) = default_of(reader, "storage.k8s.io", "storageclasses", ANNOTATION).into_iter().next()
        && let Some(claim) = request.object_mut()
    {
        claim["spec"]["storageClassName"] = Value::from(name);
    }
}

/// Gives an Ingress the default class.
fn ingress_class(reader: &dyn ObjectReader, request: &mut AdmissionRequest) {
    if request.operation != Operation::Create || !request.is_on("networking.k8s.io", "ingresses", "") {
        return;
    }
    let Some(ingress) = request.object().filter(|ingress| ingress["spec"].is_object()) else {
        return;
    };
    let named = ingress["spec"].get("ingressClassName").is_some_and(|name| !name.is_null())
        || meta::annotation(ingress, "kubernetes.io/ingress.class").is_some();
    if named {
        return;
    }
    const ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
    if let Some(name) = default_of(reader, "networking.k8s.io", "ingressclasses", ANNOTATION).into_iter().next()
        && let Some(ingress) = request.object_mut()
    {
        ingress["spec"]["ingressClassName"] = Value::from(name);
    }
}
