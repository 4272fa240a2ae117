//! NamespaceAutoProvision: a create in a namespace that does not exist makes the namespace.
//!
//! The namespace is created by a request to this server itself, before the object, as upstream's: it passes admission, so policies and
//! webhooks on namespaces apply, and it stays if the object is refused. A dry run makes none. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespaceautoprovision>.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Uri};
use serde_json::json;

use super::namespace_exists::is_inside;
use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::loopback::Loopback;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

/// The plugin.
pub struct NamespaceAutoProvision {
    reader: Arc<dyn ObjectReader>,
    loopback: Loopback,
}

impl NamespaceAutoProvision {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> NamespaceAutoProvision {
        NamespaceAutoProvision { reader: environment.reader.clone(), loopback: environment.loopback.clone() }
    }

    async fn provide(&self, request: &AdmissionRequest) -> Answer<()> {
        let name = request.namespace.as_str();
        if find(&*self.reader, "", "namespaces", "", name).await.is_some() {
            return Ok(());
        }
        match self.loopback.send(creation(name)).await {
            Ok(()) => Ok(()),
            // Another request made it a moment ago.
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            Err(status) if status.reason == "Forbidden" => Err(status),
            Err(status) => Err(forbid(request, &status.message)),
        }
    }
}

impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && !request.dry_run && is_inside(request)
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.provide(request))
    }
}

fn creation(namespace: &str) -> Request<Bytes> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let mut request = Request::new(Bytes::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/api/v1/namespaces");
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use trireme_api::gvk::GroupResource;
    use trireme_api::status::Status;

    use super::*;
    use crate::admission::tests::{on, world_with};

    #[tokio::test]
    async fn a_create_makes_its_namespace() {
        let world = world_with(&["NamespaceAutoProvision"]);
        let mut request = on("", "configmaps", "new", Operation::Create, json!({"metadata": {"name": "c"}}));
        let status = world.admit(&mut request).await.unwrap_err();
        assert!(status.message.starts_with("configmaps \"c\" is forbidden: "), "nothing serves yet: {}", status.message);

        let reader = world.reader.clone();
        world.environment.loopback.connect(move |request| {
            assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/api/v1/namespaces"));
            let namespace: Value = serde_json::from_slice(request.body()).unwrap();
            let outcome = match namespace["metadata"]["name"].as_str().unwrap() {
                "raced" => {
                    reader.put_late("", "namespaces", namespace);
                    Err(Box::new(Status::already_exists(&GroupResource::new("", "namespaces"), "raced")))
                }
                "denied" => Err(Box::new(Status::forbidden(&GroupResource::new("", "namespaces"), "denied", "a policy says no"))),
                _ => {
                    reader.put_late("", "namespaces", namespace);
                    Ok(())
                }
            };
            Box::pin(std::future::ready(outcome))
        });
        assert!(world.admit(&mut request).await.is_ok());
        assert!(world.reader.get("", "namespaces", "", "new").is_some());
        request.namespace = "raced".to_owned();
        assert!(world.admit(&mut request).await.is_ok());
        request.namespace = "denied".to_owned();
        let status = world.admit(&mut request).await.unwrap_err();
        assert_eq!(status.message, "namespaces \"denied\" is forbidden: a policy says no");
        (request.namespace, request.dry_run) = ("other".to_owned(), true);
        assert_eq!(world.admit(&mut request).await.unwrap_err().message, "namespaces \"other\" not found");
    }
}
