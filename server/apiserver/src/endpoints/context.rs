//! The context of one request in an endpoint: the requested resource, the user, and the form of the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, Response};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use serde_json::Value;
use trireme_api::apply;
use trireme_api::gvk::GroupVersionKind;
use trireme_api::protobuf;
use trireme_api::schema::{self, ContentType, Decoded, FieldValidation};
use trireme_api::status::Status;
use trireme_raft::Fence;

use crate::attributes::Attributes;
use crate::audit::Annotations;
use crate::catalog::rows::{Row, View};
use crate::catalog::transform;
use crate::chain::authorization;
use crate::chain::flowcontrol::inflight::Place;
use crate::error::Answer;
use crate::http::body::Payload;
use crate::http::negotiate::{Form, Offer, negotiate};
use crate::http::query::IncludeObject;
use crate::http::request_info::RequestInfo;
use crate::http::respond::{self, Body, method_not_allowed, unsupported_media_type};
use crate::registry::mutation::Mutation;
use crate::server::Server;
use crate::storage::cache::Cached;
use crate::user::UserInfo;

/// A request that has passed all filters.
pub struct Context {
    /// The parts of the server.
    pub server: Arc<Server>,
    /// What is asked for.
    pub info: RequestInfo,
    /// The method.
    pub method: Method,
    /// The headers, without credentials.
    pub headers: HeaderMap,
    /// Which user asks.
    pub user: UserInfo,
    /// Where facts for audit events are collected, if the request is recorded.
    pub annotations: Option<Arc<Annotations>>,
    /// The leadership under which the caller writes.
    pub fence: Option<Fence>,
    /// The form in which the answer is wanted.
    pub form: Form,
    /// The body, if the endpoint reads one.
    pub body: Bytes,
    /// The body, if the endpoint passes it on.
    pub payload: Mutex<Option<Payload>>,
    /// The connection's way to another protocol.
    pub upgrade: Mutex<Option<OnUpgrade>>,
    /// The resource, if one is addressed that is served in the version.
    pub view: Option<View>,
    /// The place among the requests in flight; a stream holds it until it ends.
    pub place: Option<Arc<Place>>,
}

/// The form of the answer; 406 if the client accepts none that the endpoint has.
pub fn form(headers: &HeaderMap, info: &RequestInfo, view: Option<&View>, connects: bool) -> Answer<Form> {
    let resource = view.map(|view| &*view.resource);
    let gvk = resource.and_then(|resource| resource.gvk(&info.version));
    let offer = Offer {
        protobuf: gvk.is_some_and(|gvk| protobuf::knows(&gvk)),
        // Resources without storage have no table columns.
        table: view.is_some_and(|view| view.row.is_some()),
    };
    match negotiate(headers, offer) {
        // Only resource requests can fail here: a connect request is answered by another server, and documents such as discovery are
        // not negotiated here.
        Err(status) if info.resource_request && !connects => Err(status),
        form => Ok(form.unwrap_or_default()),
    }
}

impl Context {
    /// The addressed resource.
    pub fn view(&self) -> Answer<&View> {
        self.view.as_ref().ok_or_else(|| Box::new(Status::resource_not_found()))
    }

    /// The addressed resource and its storage.
    pub fn stored(&self) -> Answer<(&View, &Arc<Row>)> {
        let view = self.view()?;
        match &view.row {
            Some(row) => Ok((view, row)),
            None => Err(method_not_allowed()),
        }
    }

    /// Objects of the addressed resource in the addressed version, where a webhook converts; else as they are cached.
    pub async fn shown(&self, row: &Row, objects: Vec<Arc<Cached>>) -> Answer<Vec<Arc<Cached>>> {
        self.server.conversions.cached(row, &self.info.version, objects).await
    }

    /// Authorizes once more: a consistent read waited, and what was allowed before may not be now (D3).
    pub async fn reauthorize(&self) -> Answer<()> {
        authorization::authorize(&self.server, &self.attributes()).await
    }

    /// Authorizes the same request with another verb.
    pub async fn authorize_verb(&self, verb: &str) -> Answer<()> {
        authorization::authorize(&self.server, &Attributes { verb: verb.to_owned(), ..self.attributes() }).await
    }

    /// The request as the authorizer sees it.
    fn attributes(&self) -> Attributes {
        Attributes::of(&self.user, &self.info)
    }

    /// The start of a mutation.
    pub fn mutation(&self, dry_run: bool, options: Value) -> Answer<Mutation<'_>> {
        self.mutation_of(self.view()?, dry_run, options)
    }

    /// The start of a mutation of another resource than the addressed one (the pod of a binding).
    pub fn mutation_of<'a>(&'a self, view: &'a View, dry_run: bool, options: Value) -> Answer<Mutation<'a>> {
        let row = view.row.as_ref().ok_or_else(method_not_allowed)?;
        Ok(Mutation {
            storage: &self.server.storage,
            conversions: &self.server.conversions,
            admission: &self.server.security.admission,
            view,
            row,
            version: &self.info.version,
            namespace: if view.resource.namespaced { &self.info.namespace } else { "" },
            subresource: &self.info.subresource,
            user: &self.user,
            fence: self.fence,
            dry_run,
            manager: match options["fieldManager"].as_str().filter(|manager| !manager.is_empty()) {
                Some(manager) => manager.to_owned(),
                None => apply::of_user_agent(self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default()),
            },
            is_tracked: false,
            options,
            warnings: Vec::new(),
            annotations: self.annotations.clone(),
        })
    }

    /// The path and the query of a proxied request, as they were sent.
    pub fn proxied_path(&self) -> String {
        let path = if self.info.remainder.is_empty() { "/" } else { &self.info.remainder };
        match self.info.query.raw() {
            "" => path.to_owned(),
            query => format!("{path}?{query}"),
        }
    }

    /// The media type of the body.
    pub fn content_type(&self) -> &str {
        let text = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim()
    }

    /// Decodes the body as an object of the addressed resource, by its schema.
    pub fn decode_object(&self, kind: &GroupVersionKind, validation: FieldValidation) -> Answer<Decoded> {
        let schema = &self.view()?.definition.schema;
        Ok(schema.decode(&self.body, self.body_type()?, kind, validation)?)
    }

    /// Decodes the body as one of `kinds`.
    pub fn decode(&self, kinds: &[GroupVersionKind], validation: FieldValidation) -> Answer<Decoded> {
        Ok(schema::decode_any(&self.body, self.body_type()?, kinds, validation)?)
    }

    fn body_type(&self) -> Answer<ContentType> {
        match self.content_type() {
            "" | "application/json" => Ok(ContentType::Json),
            "application/yaml" => Ok(ContentType::Yaml),
            protobuf::CONTENT_TYPE => Ok(ContentType::Protobuf),
            _ => Err(Status::unsupported_media_type(&["application/json", "application/yaml", protobuf::CONTENT_TYPE]).into()),
        }
    }

    /// Decodes the body as an untyped document; `None` if there is none.
    pub fn document(&self) -> Answer<Option<Value>> {
        if self.body.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.content_type() {
            "" | "application/json" => schema::parse_json(&self.body).map_err(Status::bad_request)?,
            "application/yaml" => schema::parse_yaml(&self.body).map_err(Status::bad_request)?,
            protobuf::CONTENT_TYPE => protobuf::decode(&self.body).map_err(|e| Status::bad_request(e.to_string()))?,
            _ => return Err(unsupported_media_type()),
        }))
    }

    /// A mutation's answer: the object in the negotiated form, with the warnings that came up.
    pub fn written(&self, code: u16, object: Value, warnings: &[String]) -> Answer<Response<Body>> {
        let include = IncludeObject::parse(&self.info.query)?;
        let shown = transform::single(self.view()?, object, self.form, include, jiff::Timestamp::now());
        let mut response = respond::object(code, self.form.encoding, &shown);
        respond::add_warnings(&mut response, warnings);
        Ok(response)
    }
}
