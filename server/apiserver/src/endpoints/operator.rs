//! The operator's endpoints, below `/trireme/v1/`: members, tokens, certificates, snapshots.
//!
//! Owns how such a request is parsed and dispatched to a family of endpoints. It has been authenticated and authorized before, as a
//! non-resource URL with the HTTP method as its verb: `system:masters` passes, other users need a role. The component that implements a
//! family registers it ([`crate::ApiServer::add_operator_routes`]).
//!
//! Shapes are in [`trireme_api::admin`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Response};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trireme_api::admin::PREFIX;
use trireme_api::status::Status;

use crate::error::Answer;
use crate::http::parameters::Parameters;
use crate::http::respond::{self, Body};
use crate::user::UserInfo;

/// One request below [`PREFIX`].
#[derive(Debug)]
pub struct RouteRequest {
    /// The method.
    pub method: Method,
    /// The parts of the path after the family's name.
    pub path: Vec<String>,
    /// The parameters.
    pub query: Parameters,
    /// What was sent.
    pub body: Bytes,
    /// Who asks; authorization has allowed it.
    pub user: UserInfo,
}

/// The endpoints below `/trireme/v1/<name>`.
pub trait RouteFamily: Send + Sync + 'static {
    /// The first part of the path.
    fn name(&self) -> &'static str;
    /// Answers one request. What is not there is [`not_found`], a verb that is not there [`method_not_allowed`].
    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>>;
}

/// The families that were added.
#[derive(Default)]
pub struct OperatorRoutes {
    families: RwLock<BTreeMap<&'static str, Arc<dyn RouteFamily>>>,
}

// === impl RouteRequest ===

impl RouteRequest {
    /// The parts of the path, to be matched.
    pub fn parts(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// The first value of a query parameter.
    pub fn param(&self, name: &str) -> Option<String> {
        self.query.get(name).map(str::to_owned)
    }

    /// The body as JSON; an empty one is an empty object.
    pub fn json<T: DeserializeOwned>(&self) -> Answer<T> {
        let body: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(body).map_err(|error| Box::new(Status::bad_request(format!("request body: {error}"))))
    }
}

// === impl OperatorRoutes ===

impl OperatorRoutes {
    /// Adds a family; a second one of the same name takes its place.
    pub fn add(&self, family: Arc<dyn RouteFamily>) {
        self.families.write().insert(family.name(), family);
    }

    /// Answers a request below [`PREFIX`]; `None` for another path.
    pub async fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &Parameters,
        body: &Bytes,
        user: &UserInfo,
    ) -> Option<Answer<Response<Body>>> {
        let rest = path.strip_prefix(PREFIX)?;
        let mut parts = rest.split('/').filter(|part| !part.is_empty()).map(str::to_owned);
        let name = parts.next().unwrap_or_default();
        let Some(family) = self.families.read().get(name.as_str()).cloned() else { return Some(Err(not_found())) };
        let request =
            RouteRequest { method: method.clone(), path: parts.collect(), query: query.clone(), body: body.clone(), user: user.clone() };
        Some(family.answer(request).await)
    }
}

/// There is no such thing here.
pub fn not_found() -> Box<Status> {
    Box::new(Status::resource_not_found())
}

/// It is there, but not for this method.
pub fn method_not_allowed(request: &RouteRequest) -> Box<Status> {
    Box::new(Status::failure(405, "MethodNotAllowed", format!("{} is not supported on this path", request.method)))
}

/// A document as JSON.
pub fn json(document: &impl Serialize) -> Answer<Response<Body>> {
    let body = serde_json::to_vec(document).map_err(|error| Box::new(Status::internal(error)))?;
    Ok(respond::bytes(200, "application/json", body))
}
