//! Requests for groups and versions that an extension server answers: passed on as they came, with the user in headers.
//!
//! Owns what is passed on: path, query, body and upgrade of the client, none of its credentials. Answers to upstream's
//! `proxyHandler` (`kube-aggregator/pkg/apiserver/handler_proxy.go`).

use http::Response;
use trireme_api::status::Status;

use crate::aggregation::identity;
use crate::aggregation::table::Remote;
use crate::egress::services;
use crate::endpoints::connect::destination::{Destination, Security};
use crate::endpoints::connect::forward::forward;
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::parameters::escape;
use crate::http::respond::Body;

/// Passes a request on to its extension server.
pub async fn answer(mut ctx: Context, remote: &Remote) -> Answer<Response<Body>> {
    let unavailable = |error: &dyn std::fmt::Display| {
        tracing::debug!(name = remote.name, %error, "an extension server cannot be asked");
        Box::new(Status::service_unavailable("service unavailable"))
    };
    if !remote.is_available {
        return Err(unavailable(&"its APIService is not available"));
    }
    let reader = ctx.server.aggregation.reader();
    let (dial, port, place) =
        services::resolve(reader, &remote.namespace, &remote.service, remote.port).map_err(|error| unavailable(&error))?;
    let tls = remote.tls.clone().map_err(|error| unavailable(&error))?;
    identity::set(&mut ctx.headers, &ctx.user).map_err(Status::bad_request)?;
    let destination = Destination { host: remote.host(), dial, port, place, security: Security::Verified(tls), path: path_and_query(&ctx) };
    forward(&ctx, &destination).await
}

/// The decoded path, encoded again: the extension server reads the path that was authorized.
fn path_and_query(ctx: &Context) -> String {
    let path = escape(&ctx.info.path, b"/-_.~!$&'()*+,;=:@");
    match ctx.info.query.raw() {
        "" => path,
        query => format!("{path}?{query}"),
    }
}
