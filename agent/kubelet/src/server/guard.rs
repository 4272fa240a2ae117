//! The filter before every handler of the kubelet API: authenticates, then authorizes the path.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::{Method, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{auth::Peer, context::Api};

/// The subresources of `nodes` that open a path: any of them will do.
fn subresources(path: &str) -> &'static [&'static str] {
    let under = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if under("/stats") {
        &["stats"]
    } else if under("/metrics") {
        &["metrics"]
    } else if under("/checkpoint") {
        &["checkpoint"]
    } else if under("/logs") {
        &["log"]
    } else if path == "/pods" || path == "/runningpods" {
        &["pods", "proxy"]
    } else if under("/healthz") {
        &["healthz", "proxy"]
    } else if path == "/configz" {
        &["configz", "proxy"]
    } else {
        &["proxy"]
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Lets a request through, or answers 401 or 403.
pub(crate) async fn guard(State(api): State<Arc<Api>>, Extension(Peer(peer)): Extension<Peer>, request: Request, next: Next) -> Response {
    let bearer = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|h| h.to_str().ok())
        .and_then(|h| h.strip_prefix("Bearer "))
        .map(|t| t.trim().to_string());
    let user = match (peer, bearer) {
        (Some(user), _) => Some(user),
        (None, Some(token)) => api.auth.user_of_token(&token).await,
        (None, None) => None,
    };
    let Some(user) = user else {
        return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    };
    let verb = verb(request.method());
    let wanted = subresources(request.uri().path());
    for subresource in wanted {
        match api.auth.is_allowed(&user, verb, subresource).await {
            Ok(true) => return next.run(request).await,
            Ok(false) => {}
            Err(error) => {
                return (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource}): {error}", user.name),
                )
                    .into_response();
            }
        }
    }
    let text = format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])", user.name, wanted.join(" "));
    (StatusCode::FORBIDDEN, text).into_response()
}
