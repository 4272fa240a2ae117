//! From a request that may be made to its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use serde_json::Value;
use trireme_api::gvk::GroupVersionKind;
use trireme_api::protobuf;
use trireme_api::schema::{self, ContentType, Decoded, FieldValidation};
use trireme_api::status::{Status, StatusDetails};
use trireme_raft::Fence;

use crate::attributes::Attributes;
use crate::error::Answer;
use crate::filters;
use crate::negotiate::{Form, negotiate};
use crate::registry::pipeline::Mutation;
use crate::request_info::RequestInfo;
use crate::respond::{self, Body};
use crate::rows::{Row, View};
use crate::server::Server;
use crate::user::UserInfo;

pub mod connect;
pub mod paths;
pub mod read;
pub mod requests;
pub mod subresources;
pub mod watch;
pub mod write;

/// One request on its way through a handler.
pub struct Context {
    /// The server.
    pub server: Arc<Server>,
    /// What is asked for.
    pub info: RequestInfo,
    /// The raw query string.
    pub query: String,
    /// The method.
    pub method: Method,
    /// The headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: UserInfo,
    /// The leadership he writes under.
    pub fence: Option<Fence>,
    /// How he wants the answer.
    pub form: Form,
    /// What he sent.
    pub body: Bytes,
    /// The connection's way to another protocol.
    pub upgrade: parking_lot::Mutex<Option<hyper::upgrade::OnUpgrade>>,
    /// The resource, if the request names one that is served in the version.
    pub view: Option<View>,
}

impl Context {
    /// Resolves the resource and negotiates the form of the answer.
    pub fn new(
        server: Arc<Server>,
        parts: &mut Parts,
        info: RequestInfo,
        query: String,
        user: UserInfo,
        fence: Option<Fence>,
        body: Bytes,
    ) -> Answer<Context> {
        let view = if info.resource_request {
            server.rows.view(&info.group, &info.resource).filter(|v| v.resource.serves(&info.version))
        } else {
            None
        };
        // What is not answered by this server itself is not for it to negotiate.
        let connects = matches!(info.subresource.as_str(), "log" | "proxy" | "exec" | "attach" | "portforward");
        let has_protobuf = view.as_ref().and_then(|v| v.resource.gvk(&info.version)).is_some_and(|gvk| protobuf::knows(&gvk));
        let form = match negotiate(&parts.headers, has_protobuf) {
            Err(status) if info.resource_request && !connects => return Err(status),
            form => form.unwrap_or_default(),
        };
        Ok(Context {
            server,
            info,
            query,
            method: parts.method.clone(),
            headers: std::mem::take(&mut parts.headers),
            user,
            fence,
            form,
            body,
            upgrade: parking_lot::Mutex::new(parts.extensions.remove::<hyper::upgrade::OnUpgrade>()),
            view,
        })
    }

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

    /// Authorizes once more: a consistent read waited, and what was allowed before may not be now (D3).
    pub async fn reauthorize(&self) -> Answer<()> {
        filters::authorize(&self.server, &self.attributes()).await
    }

    /// The request as the authorizer sees it.
    pub fn attributes(&self) -> Attributes {
        filters::attributes_of(&self.user, &self.info, &self.query)
    }

    /// The start of a mutation.
    pub fn mutation(&self, dry_run: bool, options: Value) -> Answer<Mutation<'_>> {
        self.mutation_of(self.view()?, dry_run, options)
    }

    /// The start of a mutation of another resource than the addressed one (the pod of a binding).
    pub fn mutation_of<'a>(&'a self, view: &'a View, dry_run: bool, options: Value) -> Answer<Mutation<'a>> {
        let row = view.row.as_ref().ok_or_else(method_not_allowed)?;
        Ok(Mutation {
            server: &self.server,
            view,
            row,
            version: &self.info.version,
            namespace: if view.resource.namespaced { &self.info.namespace } else { "" },
            subresource: &self.info.subresource,
            user: &self.user,
            fence: self.fence,
            dry_run,
            options,
            warnings: Vec::new(),
        })
    }

    /// The media type of the body.
    pub fn content_type(&self) -> &str {
        let text = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim()
    }

    /// Decodes the body as one of `kinds`.
    pub fn decode(&self, kinds: &[GroupVersionKind], validation: FieldValidation) -> Answer<Decoded> {
        let content_type = match self.content_type() {
            "" | "application/json" => ContentType::Json,
            "application/yaml" => ContentType::Yaml,
            protobuf::CONTENT_TYPE => ContentType::Protobuf,
            _ => {
                return Err(Status::unsupported_media_type(&["application/json", "application/yaml", protobuf::CONTENT_TYPE]).into());
            }
        };
        Ok(schema::decode_any(&self.body, content_type, kinds, validation)?)
    }
}

/// A body in a format that no handler of the path reads, as upstream's router refuses it.
pub fn unsupported_media_type() -> Box<Status> {
    plain_status(415, "UnsupportedMediaType", "415: Unsupported Media Type")
}

/// A verb that the resource does not have.
pub fn method_not_allowed() -> Box<Status> {
    plain_status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

fn plain_status(code: u16, reason: &str, message: &str) -> Box<Status> {
    let mut status = Status::failure(code, reason, message);
    status.details = Some(StatusDetails::default());
    Box::new(status)
}

/// Answers a request that passed all filters.
pub async fn dispatch(ctx: Context) -> Answer<Response<Body>> {
    if !ctx.info.resource_request {
        return paths::answer(&ctx).await;
    }
    if !ctx.server.rows.serves_group_version(&ctx.info.group, &ctx.info.version) {
        return Ok(paths::not_found());
    }
    let view = ctx.view()?;
    if !ctx.info.subresource.is_empty() {
        // The old `/watch/` and `/proxy/` forms are authorized by that word: they lead to objects and collections only.
        if matches!(ctx.info.verb.as_str(), "watch" | "proxy") {
            return Err(Status::resource_not_found().into());
        }
        let Some(sub) = view.resource.subresource(&ctx.info.subresource) else { return Err(Status::resource_not_found().into()) };
        let connects = matches!(sub.name.as_ref(), "exec" | "attach" | "portforward" | "proxy" | "log");
        if !connects && !sub.has_verb(&ctx.info.verb) {
            return Err(method_not_allowed());
        }
        return subresources::answer(&ctx).await;
    }
    if !view.resource.has_verb(&ctx.info.verb)
        || (ctx.info.verb == "create" && !ctx.info.name.is_empty() && view.resource.plural != "namespaces")
    {
        return Err(method_not_allowed());
    }
    if view.resource.namespaced && ctx.info.namespace.is_empty() && !matches!(ctx.info.verb.as_str(), "list" | "watch" | "create") {
        return Err(method_not_allowed());
    }
    if view.row.is_none() {
        return requests::answer(&ctx).await;
    }
    match ctx.info.verb.as_str() {
        "get" => read::get(&ctx).await,
        "list" => read::list(&ctx).await,
        "watch" => watch::watch(&ctx).await,
        "create" => write::create(&ctx).await,
        "update" => write::update(&ctx).await,
        "patch" => write::patch(&ctx).await,
        "delete" => write::delete(&ctx).await,
        "deletecollection" => write::delete_collection(&ctx).await,
        _ => Err(method_not_allowed()),
    }
}

/// A mutation's answer: the object in the negotiated form, with the warnings that came up.
pub fn written(ctx: &Context, code: u16, object: Value, warnings: &[String]) -> Answer<Response<Body>> {
    let view = ctx.view()?;
    let include = crate::transform::IncludeObject::parse(&ctx.query)?;
    let shown = crate::transform::single(view, object, ctx.form, include, jiff::Timestamp::now());
    let mut response = respond::object(code, ctx.form.encoding, &shown);
    respond::add_warnings(&mut response, warnings);
    Ok(response)
}
