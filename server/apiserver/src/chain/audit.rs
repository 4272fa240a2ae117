//! The id under which a request appears in logs and audit events: the client's, or a fresh one.
//!
//! The place of audit events and their stages: they are told from here, before and after the other filters.
//! Answers to upstream's `WithAuditInit`.

use http::{HeaderMap, HeaderValue, Response};

const AUDIT_ID: &str = "audit-id";
/// The longest id that is taken from a client.
const ID_BYTES_MAX: usize = 64;

/// The id of a request.
pub fn id(headers: &HeaderMap) -> Option<HeaderValue> {
    let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    given.cloned().or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok())
}

/// Shows the id to the client.
pub fn mark<T>(response: &mut Response<T>, id: Option<HeaderValue>) {
    if let Some(id) = id {
        response.headers_mut().insert(AUDIT_ID, id);
    }
}
