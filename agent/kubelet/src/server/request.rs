//! What handlers read from a request, how they answer, and how a request names a container.

// A refusal is a whole response; it is made once for a request that fails.
#![allow(clippy::result_large_err)]

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use trireme_proto::cri;

use super::context::Api;
use crate::runtime::keys;

/// The name and value pairs of a query string.
pub(crate) type Query = Vec<(String, String)>;

/// The decoded pairs of a query string, in order.
pub(crate) fn query(raw: Option<&str>) -> Query {
    let decode = |text: &str| {
        let mut out = Vec::with_capacity(text.len());
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let escaped = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
            match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
                Some(byte) => {
                    out.push(byte);
                    at += 3;
                }
                None => {
                    out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                    at += 1;
                }
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let pairs = raw.unwrap_or_default().split('&').filter(|p| !p.is_empty());
    pairs.map(|pair| pair.split_once('=').map_or((decode(pair), String::new()), |(k, v)| (decode(k), decode(v)))).collect()
}

/// A flag under any of its names.
pub(crate) fn flag(query: &[(String, String)], names: &[&str]) -> bool {
    query.iter().any(|(k, v)| names.contains(&k.as_str()) && matches!(v.as_str(), "1" | "true"))
}

/// All values under any of these names.
pub(crate) fn values(query: &[(String, String)], names: &[&str]) -> Vec<String> {
    query.iter().filter(|(k, _)| names.contains(&k.as_str())).map(|(_, v)| v.clone()).collect()
}

/// An error as plain text, as upstream's kubelet answers.
pub(crate) fn refuse(code: StatusCode, message: impl Into<String>) -> Response {
    (code, message.into()).into_response()
}

/// A JSON document.
pub(crate) fn answer_json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// The newest container of that name, in whatever state.
pub(crate) async fn find_container(api: &Api, namespace: &str, pod: &str, container: &str) -> Result<cri::Container, Response> {
    let uid = pod_uid(api, namespace, pod)?;
    let containers =
        api.core.runtime.list_containers(Some(&uid)).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let named = containers.into_iter().filter(|c| c.labels.get(keys::CONTAINER_NAME).is_some_and(|n| n == container));
    let attempt = |c: &cri::Container| c.metadata.as_ref().map_or(0, |m| m.attempt);
    named
        .max_by_key(|c| (attempt(c), c.created_at))
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")")))
}

pub(crate) fn pod_uid(api: &Api, namespace: &str, pod: &str) -> Result<String, Response> {
    let found = api.core.pods.get(namespace, pod).and_then(|p| p.metadata.uid.clone());
    found.ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("pod does not exist: pod \"{pod}_{namespace}\" not found")))
}
