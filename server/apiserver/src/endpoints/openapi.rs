//! `/openapi/v2` and `/openapi/v3`, as kubectl asks for them when it validates and explains.
//!
//! A document is made on request. For clients that accept gzip, which are nearly all, it is compressed once and kept in that form.

pub mod kept;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, VARY};
use http::{HeaderValue, Response};
use serde_json::json;
use trireme_api::gvk::GroupVersion;
use trireme_api::openapi::{self, Served};

use crate::chain::compression::takes_gzip;
use crate::endpoints::context::Context;
use crate::http::respond::{self, Body, path_not_found};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a path below `/openapi`.
pub fn answer(ctx: &Context, rest: &[&str]) -> Response<Body> {
    let rows = ctx.server.rows.served();
    match rest {
        ["v2"] => {
            let accept = ctx.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let hash = openapi::v2_hash(&rows);
            if accept.contains(PROTOBUF) || accept.contains(PROTOBUF_V2) {
                let name = format!("v2.protobuf/{hash}");
                respond::tagged(&ctx.headers, &format!("{hash}-P"), || document(ctx, PROTOBUF_V2, &name, || openapi::v2_protobuf(&rows)))
            } else {
                respond::tagged(&ctx.headers, &hash, || document(ctx, "application/json", &format!("v2/{hash}"), || openapi::v2(&rows)))
            }
        }
        ["v3"] => {
            let mut index = openapi::v3_index(&rows);
            for (path, address) in ctx.server.aggregation.openapi() {
                index["paths"][path] = json!({"serverRelativeURL": address});
            }
            respond::object(200, ctx.form.encoding, &index)
        }
        ["v3", "api", version] => v3(ctx, &rows, &GroupVersion::new("", (*version).to_owned())),
        ["v3", "apis", group, version] => v3(ctx, &rows, &GroupVersion::new((*group).to_owned(), (*version).to_owned())),
        _ => path_not_found(),
    }
}

fn v3(ctx: &Context, rows: &[Served], group_version: &GroupVersion) -> Response<Body> {
    let hash = openapi::v3_hash(rows, group_version);
    if !rows.iter().any(|row| row.is_in(group_version)) {
        return path_not_found();
    }
    let name = format!("v3/{}/{hash}", openapi::path_of(group_version));
    let mut response = respond::tagged(&ctx.headers, &hash, || {
        document(ctx, "application/json", &name, || openapi::v3(rows, group_version).unwrap_or_default())
    });
    if ctx.info.query.has("hash") {
        // The index names documents by their hash: such an address never changes its meaning.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    response
}

/// The document of this name, compressed for those who take it so.
fn document(ctx: &Context, content_type: &'static str, name: &str, make: impl FnOnce() -> Bytes) -> Response<Body> {
    if !takes_gzip(&ctx.headers) {
        return respond::bytes(200, content_type, make());
    }
    let mut response = respond::bytes(200, content_type, ctx.server.openapi.get(name, make));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}
