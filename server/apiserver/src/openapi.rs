//! `/openapi/v2` and `/openapi/v3`, as kubectl asks for them when it validates and explains.

use http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Response, StatusCode};
use trireme_api::gvk::GroupVersion;
use trireme_api::openapi;
use trireme_api::resources::Resource;

use crate::handlers::{Context, paths};
use crate::respond::{self, Body};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a path below `/openapi`.
pub fn answer(ctx: &Context, rest: &[&str]) -> Response<Body> {
    let rows: Vec<Resource> = ctx.server.rows.views().iter().map(|v| (*v.resource).clone()).collect();
    match rest {
        ["v2"] => {
            let accept = ctx.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
            if accept.contains(PROTOBUF) || accept.contains(PROTOBUF_V2) {
                respond::bytes(200, PROTOBUF_V2, openapi::v2_protobuf(&rows))
            } else {
                respond::bytes(200, "application/json", openapi::v2(&rows))
            }
        }
        ["v3"] => respond::object(200, ctx.form.encoding, &openapi::v3_index(&rows)),
        ["v3", "api", version] => v3(ctx, &rows, &GroupVersion::new("", (*version).to_owned())),
        ["v3", "apis", group, version] => v3(ctx, &rows, &GroupVersion::new((*group).to_owned(), (*version).to_owned())),
        _ => paths::not_found(),
    }
}

fn v3(ctx: &Context, rows: &[Resource], group_version: &GroupVersion) -> Response<Body> {
    let etag = format!("\"{}\"", openapi::v3_hash(rows, group_version));
    let known = ctx.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| v == etag);
    let mut response = if known {
        let mut response = respond::bytes(304, "application/json", "");
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        match openapi::v3(rows, group_version) {
            Some(document) => respond::bytes(200, "application/json", document),
            None => return paths::not_found(),
        }
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    if ctx.query.contains("hash=") {
        // The index names documents by their hash: such an address never changes its meaning.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    response
}
