//! The paths outside of Kubernetes' API by which machines join: some answer before authentication, some to a node alone.
//!
//! Owns the limits on what an unauthenticated client can make the server hold. The paths and their authentication belong to the crate
//! that registers them ([`crate::http::extra_routes::ExtraRoutes`]).

use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use trireme_api::status::Status;

use crate::chain::body;
use crate::chain::call::Call;
use crate::error::Answer;
use crate::http::extra_routes::RouteCall;
use crate::http::respond::{self, Body};
use crate::server::Server;

/// The largest body of a join request: two certificate requests and some addresses.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How many such bodies are read at once.
const BODIES_MAX: usize = 64;

static BODIES: Semaphore = Semaphore::const_new(BODIES_MAX);

/// Answers a join path that needs no identity.
pub async fn stranger(server: &Server, call: &mut Call) -> Option<Answer<Response<Body>>> {
    let endpoints = server.extra_routes.get().filter(|routes| !call.in_process && routes.is_for_strangers(&call.info.path))?;
    let now = Timestamp::now();
    if let Err(status) = endpoints.throttle(call.from, now) {
        return Some(Err(status));
    }
    let body = match read(call).await {
        Ok(body) => body,
        Err(status) => return Some(Err(status)),
    };
    Some(endpoints.stranger(request(call, &body, now)).await.map(|response| response.map(respond::full)))
}

/// Answers a join path that needs an identity.
pub async fn member(server: &Server, call: &mut Call) -> Option<Answer<Response<Body>>> {
    let endpoints = server.extra_routes.get().filter(|routes| routes.is_for_members(&call.info.path))?;
    // Within the budget of the user, like any other body.
    let (body, _room) = match body::filter(server, call).await {
        Ok(body) => body,
        Err(status) => return Some(Err(status)),
    };
    Some(endpoints.member(&call.user, request(call, &body, Timestamp::now())).await.map(|response| response.map(respond::full)))
}

fn request<'a>(call: &'a Call, body: &'a Bytes, now: Timestamp) -> RouteCall<'a> {
    RouteCall { method: &call.method, path: &call.info.path, headers: &call.headers, body, from: call.from, now }
}

async fn read(call: &mut Call) -> Answer<Bytes> {
    let Ok(_place) = BODIES.try_acquire() else {
        return Err(Status::too_many_requests("too many join requests, try again later", 1).into());
    };
    let Some(payload) = call.payload.take() else { return Ok(Bytes::new()) };
    payload.read(&call.headers, BODY_BYTES_MAX, |_| true).await.map_err(|error| {
        call.broken = true;
        body::status(&error, BODY_BYTES_MAX)
    })
}
