//! NamespaceExists: nothing is written or deleted in a namespace that does not exist.
//!
//! NamespaceLifecycle refuses creates and updates there already; this one also refuses deletions. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespaceexists>.

use std::sync::Arc;

use futures::future::BoxFuture;
use trireme_api::gvk::GroupResource;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

/// The plugin.
pub struct NamespaceExists {
    reader: Arc<dyn ObjectReader>,
}

impl NamespaceExists {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> NamespaceExists {
        NamespaceExists { reader: environment.reader.clone() }
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        match find(&*self.reader, "", "namespaces", "", &request.namespace).await {
            Some(_) => Ok(()),
            None => Err(Status::not_found(&GroupResource::new("", "namespaces"), &request.namespace).into()),
        }
    }
}

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation != Operation::Connect && is_inside(request)
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request))
    }
}

/// Whether the request is about something in a namespace, and not about the namespace itself.
pub fn is_inside(request: &AdmissionRequest) -> bool {
    let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    !request.namespace.is_empty() && !is_namespace
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::tests::{on, world};

    #[tokio::test]
    async fn the_namespace_must_be_there() {
        let world = world();
        let plugin = NamespaceExists::new(&world.environment);
        let judged = async |plural: &'static str, namespace: &str| {
            let request = on("", plural, namespace, Operation::Delete, json!({}));
            if plugin.handles(&request) { plugin.validate(&request, &mut Effects::default()).await } else { Ok(()) }
        };
        assert!(judged("configmaps", "a").await.is_ok());
        assert_eq!(judged("configmaps", "none").await.unwrap_err().message, "namespaces \"none\" not found");
        assert!(judged("namespaces", "none").await.is_ok() && judged("nodes", "").await.is_ok());
        world.reader.put_late("", "namespaces", json!({"metadata": {"name": "none"}}));
        assert!(judged("configmaps", "none").await.is_ok(), "made on another server just now");
    }
}
