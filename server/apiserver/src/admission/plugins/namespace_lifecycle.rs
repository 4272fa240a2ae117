//! NamespaceLifecycle: nothing is created in a namespace that does not exist or is going away.
//!
//! The namespace's revision joins the object's transaction as a compare, so a create cannot slip in behind the
//! change to Terminating: the namespace controller may rely on an empty namespace staying empty.

use std::sync::Arc;

use futures::future::BoxFuture;
use trireme_api::{gvk::GroupResource, meta, status::Status};

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::keys;
use crate::storage::lookup::ObjectReader;

/// Namespaces that may not be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// The plugin.
pub struct NamespaceLifecycle {
    reader: Arc<dyn ObjectReader>,
}

impl NamespaceLifecycle {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> NamespaceLifecycle {
        NamespaceLifecycle { reader: environment.reader.clone() }
    }
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        match request.operation {
            Operation::Create | Operation::Update => !request.namespace.is_empty() && request.resource.group != "authorization.k8s.io",
            Operation::Delete => request.is_on("", "namespaces", ""),
            Operation::Connect => false,
        }
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(admit(&*self.reader, request, effects))
    }
}

async fn admit(reader: &dyn ObjectReader, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
    if request.resource.group.is_empty() && request.resource.resource == "namespaces" {
        let delete = request.operation == Operation::Delete;
        if delete && IMMORTAL.contains(&request.name.as_str()) {
            return Err(forbid(request, "this namespace may not be deleted"));
        }
        return Ok(());
    }
    let namespace = request.namespace.as_str();
    let Some(found) = find(reader, "", "namespaces", "", namespace).await else {
        return Err(Box::new(Status::not_found(&GroupResource::new("", "namespaces"), namespace)));
    };
    if request.operation != Operation::Create {
        return Ok(());
    }
    let terminating =
        meta::str_at(&found.object, &["status", "phase"]) == "Terminating" || meta::deletion_timestamp(&found.object).is_some();
    if terminating {
        let text = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        let refused = forbid(request, &text).with_cause("NamespaceTerminating", cause, "metadata.namespace");
        return Err(Box::new(refused));
    }
    if !request.dry_run {
        effects.require(&keys::object_key("", "namespaces", "", namespace), found.mod_revision);
    }
    Ok(())
}
