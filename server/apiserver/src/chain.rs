//! The filters that every request passes before an endpoint answers it, in this order:
//!
//! | filter | what it does |
//! |---|---|
//! | [`panics`] | turns a panic into a 500 and the end of the connection |
//! | [`audit`] | names the request, and records it once its user is known and when it is answered |
//! | [`extra_routes`] | answers the paths by which machines join, which need no identity or a node's |
//! | [`authentication`] | determines the user, and removes the credentials from the request |
//! | [`impersonation`] | lets a user act as another one |
//! | [`authorization`] | refuses what the user may not do |
//! | [`body`] | reads the body, within the budget of the user |
//! | [`flowcontrol`] | bounds the requests in flight: those of one user delay those of others as little as can be |
//! | [`deadline`] | bounds the time of the answer |
//! | [`compression`] | compresses a large answer |
//!
//! Owns the order: the user is known before limits per user are applied, and no part of a body is kept before the request is
//! authorized. A request counts as in flight only once its body is complete: slow bodies delay no other request. The URI is parsed
//! before the first filter ([`call::Call`]). Answers to upstream's `DefaultBuildHandlerChain`.

pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod body;
pub mod call;
pub mod compression;
pub mod deadline;
pub mod extra_routes;
pub mod flowcontrol;
pub mod impersonation;
pub mod panics;

use std::sync::Arc;
use std::time::Instant;

use http::header::{CACHE_CONTROL, CONNECTION};
use http::{HeaderValue, Method, Request, Response};
use parking_lot::Mutex;
use trireme_api::status::Status;

use crate::audit::Record;
use crate::audit::policy::Stage;
use crate::endpoints;
use crate::endpoints::context::{self, Context};
use crate::endpoints::target::Target;
use crate::error::Answer;
use crate::http::body::Payload;
use crate::http::respond::{self, Body};
use crate::metrics::RequestLabels;
use crate::resource_metrics;
use crate::server::Server;
use call::{Call, Source};

/// Runs a request through the chain.
pub async fn run(server: Arc<Server>, source: Source, request: Request<Payload>) -> Response<Body> {
    let started = Instant::now();
    let mut call = match Call::parse(&server.rows, source, request) {
        Ok(call) => call,
        Err(error) => return respond::status(&Status::bad_request(error.to_string())),
    };
    call.audit_id = audit::id(&call.headers);
    let compresses = compression::applies(&call.method, &call.headers, call.target.long_running);
    let outcome = panics::catch(filters(&server, &mut call)).await;
    let record = call.record.take();
    let mut response = match outcome {
        Ok(Ok(response)) => {
            let response = audit::answered(record, response, call.target.long_running).await;
            if compresses { server.compressor.filter(response) } else { response }
        }
        Ok(Err(status)) => {
            audit::refused(record, &status, Stage::ResponseComplete).await;
            refuse(&mut call, &status).await
        }
        Err(status) => {
            audit::refused(record, &status, Stage::Panic).await;
            refuse(&mut call, &status).await
        }
    };
    audit::mark(&mut response, call.audit_id.take());
    flowcontrol::mark(&mut response, call.class.take());
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    let size = http_body::Body::size_hint(response.body()).exact();
    let dry_run = call.info.query.all("dryRun").any(|value| value == "All");
    let labels = RequestLabels::of(&call.method, &call.info, call.target.resource());
    server.metrics.observe(&labels, dry_run, response.status().as_u16(), started.elapsed(), size, call.target.long_running);
    if call.method == Method::HEAD {
        *response.body_mut() = Body::default();
    }
    response
}

async fn filters(server: &Arc<Server>, call: &mut Call) -> Answer<Response<Body>> {
    if let Some(response) = extra_routes::stranger(server, call).await {
        return response;
    }
    let has_bearer = audit::has_bearer(&call.headers);
    if let Err(status) = authentication::filter(server, call).await {
        audit::unauthenticated(server, call, has_bearer, &status).await;
        return Err(status);
    }
    audit::begin(server, call).await?;
    if let Some(response) = extra_routes::member(server, call).await {
        return response;
    }
    impersonation::filter(server, call).await?;
    flowcontrol::classify(server, call);
    let decision = authorization::authorize(server, &call.attributes()).await;
    audit::decided(call, &decision);
    decision?;
    route(server, call);
    // A resource that was defined a moment ago may be known to other servers only.
    if call.target.is_unknown(&call.info) && server.storage.refresh_all().await {
        call.target = Target::resolve(&server.rows, &call.info);
        route(server, call);
    }
    call.target.check(&call.info)?;
    let form = context::form(&call.headers, &call.info, call.target.view.as_ref(), call.target.streams_body())?;
    let (bytes, _room) = body::filter(server, call).await?;
    if let Some(record) = &mut call.record {
        record.body(&call.headers, &call.info, &bytes);
    }
    let limit = deadline::limit(server.options.request_timeout, call)?;
    let asked = Instant::now();
    let admitted = flowcontrol::filter(server, call, limit.unwrap_or(server.options.request_timeout)).await?;
    let limit = limit.map(|limit| limit.saturating_sub(asked.elapsed()));
    let target = call.target.clone();
    let context = Context {
        server: server.clone(),
        info: call.info.clone(),
        method: call.method.clone(),
        headers: std::mem::take(&mut call.headers),
        user: call.user.clone(),
        annotations: call.record.as_ref().and_then(Record::annotations),
        fence: call.fence,
        form,
        body: bytes,
        payload: Mutex::new(call.payload.take()),
        upgrade: Mutex::new(call.upgrade.take()),
        view: target.view.clone(),
        place: admitted.place,
    };
    let _seat = admitted.seat;
    deadline::within(limit, endpoints::dispatch(&target, context)).await
}

/// Which requests are not answered from the store.
fn route(server: &Server, call: &mut Call) {
    call.target.remote = server.aggregation.route(&call.info);
    call.target.is_resource_metrics = call.target.remote.is_none() && resource_metrics::is_addressed(&call.info) && server.measures_usage();
}

/// The answer to a request that a filter or an endpoint refused.
async fn refuse(call: &mut Call, status: &Status) -> Response<Body> {
    let mut response = respond::status_as(status, call.status_encoding);
    let read = match call.payload.take() {
        Some(payload) => payload.discard(&call.headers).await,
        None => !call.broken,
    };
    if !read {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
