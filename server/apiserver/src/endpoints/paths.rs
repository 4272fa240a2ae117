//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, OpenID.

use std::sync::Arc;

use http::{HeaderValue, Method, Response};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use trireme_api::discovery::{self, extension};
use trireme_api::resources::Resource;

use crate::endpoints::context::Context;
use crate::endpoints::{flowcontrol, health, openapi, tunnel};
use crate::error::Answer;
use crate::http::respond::{self, Body, method_not_allowed, path_not_found};
use crate::resource_metrics;
use crate::user::GROUP_AUTHENTICATED;
use crate::version;

/// Answers such a path.
pub async fn answer(ctx: &Context) -> Answer<Response<Body>> {
    let Some(parts) = ctx.info.parts() else { return Ok(path_not_found()) };
    if ctx.info.path == trireme_tunnel::PATH {
        return tunnel::answer(ctx);
    }
    let operator = &ctx.server.operator_routes;
    if let Some(answer) = operator.answer(&ctx.method, &ctx.info.path, &ctx.info.query, &ctx.body, &ctx.user).await {
        return answer;
    }
    if !matches!(ctx.method, Method::GET | Method::HEAD) {
        return if parts.first().is_some_and(|p| matches!(*p, "api" | "apis" | "version" | "openapi")) {
            Err(method_not_allowed())
        } else {
            Ok(path_not_found())
        };
    }
    Ok(match parts.as_slice() {
        [] => root(ctx),
        ["version"] => respond::object(200, ctx.form.encoding, &version::document()),
        [kind @ ("livez" | "readyz" | "healthz"), check @ ..] => {
            let check = (!check.is_empty()).then(|| check.join("/"));
            health::answer(&ctx.server, kind, check.as_deref(), &ctx.info.query, ctx.user.in_group(GROUP_AUTHENTICATED))
        }
        ["metrics"] => {
            let text = ctx.server.metrics.render(&ctx.server.rows, ctx.server.storage.cache.ingested());
            respond::bytes(200, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        ["api"] => groups(ctx, true),
        ["apis"] => groups(ctx, false),
        ["api", version] => group_version(ctx, "", version),
        ["apis", group] => {
            let own = discovery::api_group(resources(ctx).iter().map(AsRef::as_ref), group);
            match extension::group(own, group, &ctx.server.extension_groups()) {
                Some(document) => respond::object(200, ctx.form.encoding, &document),
                None => path_not_found(),
            }
        }
        ["apis", group, version] => group_version(ctx, group, version),
        ["debug", "api_priority_and_fairness", table] => flowcontrol::answer(&ctx.server, table),
        ["openapi", rest @ ..] => openapi::answer(ctx, rest),
        [".well-known", "openid-configuration"] => {
            let tokens = ctx.server.security.authenticator.tokens();
            respond::object(200, ctx.form.encoding, &tokens.openid_configuration(&ctx.server.options.advertise_address))
        }
        ["openid", "v1", "jwks"] => {
            let mut response = respond::object(200, ctx.form.encoding, &ctx.server.security.authenticator.tokens().jwks());
            response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
            response
        }
        _ => path_not_found(),
    })
}

fn resources(ctx: &Context) -> Vec<Arc<Resource>> {
    ctx.server.rows.served().into_iter().map(|served| served.resource).collect()
}

fn groups(ctx: &Context, core: bool) -> Response<Body> {
    let rows = resources(ctx);
    if ctx.form.aggregated_discovery {
        let mut document = discovery::aggregated(rows.iter().map(AsRef::as_ref), core);
        if !core {
            extension::add_to_aggregated(&mut document, &ctx.server.extension_groups());
        }
        let hash = hex::encode_upper(Sha256::digest(document.to_string()));
        let mut response = respond::tagged(&ctx.headers, &hash, || respond::object(200, ctx.form.encoding, &document));
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED_CONTENT_TYPE));
        headers.insert(http::header::VARY, HeaderValue::from_static("Accept"));
        return response;
    }
    let document = if core {
        discovery::api_versions(&ctx.server.options.advertise_address)
    } else {
        let mut document = discovery::api_group_list(rows.iter().map(AsRef::as_ref));
        extension::add_to_list(&mut document, &ctx.server.extension_groups());
        document
    };
    let mut response = respond::object(200, ctx.form.encoding, &document);
    response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn group_version(ctx: &Context, group: &str, version: &str) -> Response<Body> {
    let own = discovery::api_resource_list(resources(ctx).iter().map(AsRef::as_ref), group, version);
    let measured = || group == resource_metrics::GROUP && resource_metrics::VERSIONS.contains(&version) && ctx.server.measures_usage();
    match own.or_else(|| measured().then(|| resource_metrics::objects::resource_list(version))) {
        Some(document) => respond::object(200, ctx.form.encoding, &document),
        None => path_not_found(),
    }
}

/// The list of paths at `/`.
fn root(ctx: &Context) -> Response<Body> {
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".to_owned(),
        "/apis".to_owned(),
        "/healthz".to_owned(),
        "/livez".to_owned(),
        "/metrics".to_owned(),
        "/openapi/v2".to_owned(),
        "/openapi/v3".to_owned(),
        "/openid/v1/jwks".to_owned(),
        "/readyz".to_owned(),
        "/version".to_owned(),
    ];
    for view in ctx.server.rows.views() {
        let group = &view.resource.group;
        for version in view.resource.versions.iter() {
            paths.push(if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") });
        }
        if !group.is_empty() {
            paths.push(format!("/apis/{group}"));
        }
    }
    for group in ctx.server.extension_groups() {
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{}", group.name, version.version)));
        paths.push(format!("/apis/{}", group.name));
    }
    paths.sort();
    paths.dedup();
    respond::object(200, ctx.form.encoding, &json!({"paths": paths}))
}
