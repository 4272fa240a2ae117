//! What expressions are evaluated on: the variables that every policy and every match condition has.

use serde_json::{Value as Json, json};
use trireme_api::cel::{Bindings, Value, values};
use trireme_api::gvk::GroupVersionKind;

use super::authorizer::Question;
use crate::admission::request::AdmissionRequest;
use crate::admission::review_request::describe;
use crate::attributes::Attributes;
use crate::authz::Authorizer;

/// The values of the variables.
#[derive(Clone, Debug)]
pub struct Inputs {
    object: Value,
    old_object: Value,
    request: Value,
    namespace: Value,
    params: Option<Value>,
    authorizer: Option<Question>,
    about: Option<Question>,
}

// === impl Inputs ===

impl Inputs {
    /// Of a request, with its objects in `version` of its resource. `namespace` is the namespace of a namespaced object.
    ///
    /// # Errors
    /// An object cannot be converted.
    pub async fn new(request: &AdmissionRequest, version: &str, namespace: Option<&Json>) -> Result<Inputs, String> {
        let (kind, object) = request.in_version(request.object(), version).await?;
        let (_, old_object) = request.in_version(request.old_object.as_deref(), version).await?;
        Ok(Inputs {
            object: with_kind(object, &kind),
            old_object: with_kind(old_object, &kind),
            request: values::from_json(&describe(request, &kind, version)),
            namespace: namespace.map_or(Value::Null, |namespace| values::from_json(&shown_namespace(namespace))),
            params: None,
            authorizer: None,
            about: None,
        })
    }

    /// Adds `authorizer`, which answers for the user of the request.
    #[must_use]
    pub fn with_authorizer(mut self, authorizer: &Authorizer, request: &AdmissionRequest) -> Inputs {
        let question = Question::new(authorizer.clone(), request.user.clone());
        self.about = Some(question.clone().about(Attributes {
            group: request.resource.group.to_string(),
            version: request.resource.version.to_string(),
            resource: request.resource.resource.to_string(),
            subresource: request.subresource.clone(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            ..Attributes::default()
        }));
        self.authorizer = Some(question);
        self
    }

    /// With `params`; None: null.
    #[must_use]
    pub fn with_params(mut self, params: Option<&Json>) -> Inputs {
        self.params = Some(values::from_option(params));
        self
    }

    /// With another object, in the same version: a mutation has changed it.
    pub fn set_object(&mut self, object: &Json) {
        self.object = values::from_json(object);
    }
}

impl Bindings for Inputs {
    fn get(&self, name: &str) -> Option<Value> {
        match name {
            "object" => Some(self.object.clone()),
            "oldObject" => Some(self.old_object.clone()),
            "request" => Some(self.request.clone()),
            "namespaceObject" => Some(self.namespace.clone()),
            "params" => self.params.clone(),
            "authorizer" => self.authorizer.clone().map(Question::into_value),
            _ => None,
        }
    }

    fn request_resource(&self) -> Option<Value> {
        self.about.clone().map(Question::into_value)
    }
}

/// An object with its kind, which not everything that is decided upon carries.
fn with_kind(mut object: Json, kind: &GroupVersionKind) -> Value {
    if object.is_object() && (object.get("kind").is_none() || object.get("apiVersion").is_none()) {
        object["apiVersion"] = Json::from(kind.api_version());
        object["kind"] = Json::from(kind.kind.to_string());
    }
    values::from_json(&object)
}

/// The parts of a namespace that expressions may see.
fn shown_namespace(namespace: &Json) -> Json {
    const METADATA: [&str; 12] = [
        "name",
        "generateName",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "resourceVersion",
        "finalizers",
    ];
    let metadata: serde_json::Map<String, Json> =
        METADATA.iter().filter_map(|field| Some(((*field).to_owned(), namespace["metadata"].get(*field)?.clone()))).collect();
    json!({"metadata": metadata, "spec": namespace["spec"], "status": namespace["status"]})
}
