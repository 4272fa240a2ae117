//! `metav1.Status`: the one form in which an error reaches a client.
//!
//! Every constructor answers to the one of the same purpose in upstream's `k8s.io/apimachinery/pkg/api/errors`:
//! same HTTP code, reason, message and details, because clients branch on all four.

use serde::{Deserialize, Serialize};

use crate::field::{FieldErrors, aggregate, quote};
use crate::gvk::{GroupKind, GroupResource};

/// A `metav1.Status`, serialized in upstream's field order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    kind: String,
    api_version: String,
    #[serde(default)]
    metadata: ListMeta,
    /// "Success" or "Failure".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs, like `NotFound`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the error is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// HTTP status code, 0 if unset.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue", skip_serializing_if = "String::is_empty")]
    continue_token: String,
}

/// What a Status is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Group of the resource or kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource, or (for `Invalid`) the kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Single causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds after which the client may try again; also sent as the Retry-After header.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u16,
}

/// One cause of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// For programs, like `FieldValueRequired`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

// === impl Status ===

impl Status {
    /// A failure without details.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: ListMeta::default(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }
    }

    fn with_resource(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(StatusDetails {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.resource.to_string(),
            ..StatusDetails::default()
        });
        self
    }

    /// When to try again.
    pub fn with_retry_after(mut self, seconds: u16) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same failure with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let cause = StatusCause { reason: reason.to_owned(), message: message.into(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The same failure with a continue token: where an expired list may go on.
    #[must_use]
    pub fn with_continue(mut self, token: &str) -> Self {
        token.clone_into(&mut self.metadata.continue_token);
        self
    }

    /// The answer to a successful delete that removed the object at once.
    pub fn success(resource: &GroupResource, name: &str, uid: &str) -> Self {
        let mut status = Self::failure(0, "", "").with_resource(resource, name);
        status.status = "Success".to_owned();
        status.details.get_or_insert_default().uid = uid.to_owned();
        status
    }

    /// A success without details (deletecollection of nothing, bindings).
    pub fn success_plain(code: u16) -> Self {
        let mut status = Self::failure(code, "", "");
        status.status = "Success".to_owned();
        status
    }

    /// 404: the object doesn't exist.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{resource} {} not found", quote(name))).with_resource(resource, name)
    }

    /// 404: there is no such resource (path).
    pub fn resource_not_found() -> Self {
        let mut status = Self::failure(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(StatusDetails::default());
        status
    }

    /// 409: create of a name that is taken.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, "AlreadyExists", format!("{resource} {} already exists", quote(name))).with_resource(resource, name)
    }

    /// 409: every generated name was taken.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after_secs: u16) -> Self {
        let message =
            format!("{resource} {} already exists, the server was not able to generate a unique name for the object", quote(name));
        Self::failure(409, "AlreadyExists", message).with_resource(resource, name).with_retry_after(retry_after_secs)
    }

    /// 409: the object has changed (or another reason why this write cannot be done now).
    pub fn conflict(resource: &GroupResource, name: &str, message: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {message}", quote(name));
        Self::failure(409, "Conflict", message).with_resource(resource, name)
    }

    /// 409: the write carried a resourceVersion that is no longer the current one.
    pub fn conflict_modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(resource, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    /// 422: the object failed validation.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &FieldErrors) -> Self {
        let causes = errors
            .iter()
            .map(|error| StatusCause { reason: error.kind.cause().to_owned(), message: error.body(), field: error.path.clone() })
            .collect();
        let message = match aggregate(errors) {
            Some(text) => format!("{kind} {} is invalid: {text}", quote(name)),
            None => format!("{kind} {} is invalid", quote(name)),
        };
        let mut status = Self::failure(422, "Invalid", message);
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            group: kind.group.to_string(),
            kind: kind.kind.to_string(),
            causes,
            ..StatusDetails::default()
        });
        status
    }

    /// 422 with a free message and no details (a JSON patch that doesn't apply).
    pub fn generic_invalid(message: &str) -> Self {
        let mut status = Self::failure(422, "Invalid", message);
        status.details = Some(StatusDetails::default());
        status
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 401. An empty message becomes upstream's default.
    pub fn unauthorized(message: &str) -> Self {
        Self::failure(401, "Unauthorized", if message.is_empty() { "not authorized" } else { message })
    }

    /// 403, by the authorizer or by admission.
    pub fn forbidden(resource: &GroupResource, name: &str, message: &str) -> Self {
        let text = if resource.resource.is_empty() {
            format!("forbidden: {message}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {message}")
        } else {
            format!("{resource} {} is forbidden: {message}", quote(name))
        };
        Self::failure(403, "Forbidden", text).with_resource(resource, name)
    }

    /// 403 on a path that is no resource; message like `User "x" cannot get path "/y"`.
    pub fn forbidden_path(message: &str) -> Self {
        let mut status = Self::failure(403, "Forbidden", format!("forbidden: {message}"));
        status.details = Some(StatusDetails::default());
        status
    }

    /// 405.
    pub fn method_not_allowed(resource: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", quote(&resource.to_string()));
        Self::failure(405, "MethodNotAllowed", message).with_resource(resource, "")
    }

    /// 406; `accepted` are the media types that would have done.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {}", accepted.join(", "));
        let mut status = Self::failure(406, "NotAcceptable", message);
        status.details = Some(StatusDetails::default());
        status
    }

    /// 415; `accepted` are the media types that would have done.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!("the body of the request was in an unknown format - accepted media types include: {}", accepted.join(", "));
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 410 Gone.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, "Gone", message)
    }

    /// 410 Expired: the revision asked for is compacted; the client must list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 413.
    pub fn request_entity_too_large(message: &str) -> Self {
        Self::failure(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// 413 of a body over the limit in bytes.
    pub fn body_too_large(limit_bytes: usize) -> Self {
        Self::request_entity_too_large(&format!("limit is {limit_bytes}"))
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_secs: u16) -> Self {
        Self::failure(429, "TooManyRequests", message).with_retry_after(retry_after_secs)
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::failure(500, "InternalError", format!("Internal error occurred: {message}")).with_cause("", message.to_string(), "")
    }

    /// 500 ServerTimeout: could not be done at this time, safe to try again.
    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after_secs: u16) -> Self {
        let message = format!("The {operation} operation against {resource} could not be completed at this time, please try again.");
        Self::failure(500, "ServerTimeout", message).with_resource(resource, operation).with_retry_after(retry_after_secs)
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504: the request took too long; its outcome may be unknown.
    pub fn timeout(message: &str, retry_after_secs: u16) -> Self {
        let mut status = Self::failure(504, "Timeout", format!("Timeout: {message}"));
        status.details = Some(StatusDetails { retry_after_seconds: retry_after_secs, ..StatusDetails::default() });
        status
    }

    /// 504: a resourceVersion that this server hasn't seen yet.
    pub fn resource_version_too_large(requested: u64, current: u64) -> Self {
        Self::timeout(&format!("Too large resource version: {requested}, current: {current}"), 1).with_cause(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        )
    }

    /// Whether this is the answer to a successful request.
    pub fn is_success(&self) -> bool {
        self.status == "Success"
    }

    /// The HTTP status code to send it with (200 where none is set).
    pub fn code(&self) -> u16 {
        match self.code {
            0 if self.is_success() => 200,
            0 => 500,
            code => code,
        }
    }

    /// Seconds for the Retry-After header, if any.
    pub fn retry_after_secs(&self) -> Option<u16> {
        self.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0)
    }

    /// The JSON document.
    pub fn to_bytes(&self) -> bytes::Bytes {
        let mut json = serde_json::to_vec(self).expect("invariant: a Status has only string keys");
        json.push(b'\n');
        json.into()
    }

    /// As an object.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("invariant: a Status has only string keys")
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{FieldError, FieldPath};

    fn text(status: &Status) -> String {
        serde_json::to_string(status).expect("status is JSON")
    }

    #[test]
    fn documents_are_upstreams() {
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(
            text(&Status::not_found(&deployments, "x")),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"x\" not found","reason":"NotFound","details":{"name":"x","group":"apps","kind":"deployments"},"code":404}"#
        );
        let errors = vec![
            FieldError::required(&FieldPath::new("spec").child("selector"), ""),
            FieldError::invalid(&FieldPath::new("spec.replicas"), -1, "must be greater than or equal to 0"),
        ];
        assert_eq!(
            text(&Status::invalid(&GroupKind::new("apps", "Deployment"), "x", &errors)),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Deployment.apps \"x\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: must be greater than or equal to 0]","reason":"Invalid","details":{"name":"x","group":"apps","kind":"Deployment","causes":[{"reason":"FieldValueRequired","message":"Required value","field":"spec.selector"},{"reason":"FieldValueInvalid","message":"Invalid value: -1: must be greater than or equal to 0","field":"spec.replicas"}]},"code":422}"#
        );
        let deleted = Status::success(&GroupResource::new("", "services"), "s", "u");
        assert_eq!(
            text(&deleted),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"s","kind":"services","uid":"u"}}"#
        );
        assert_eq!(deleted.code(), 200);
        let late = Status::resource_version_too_large(9, 3);
        assert_eq!((late.code(), late.retry_after_secs()), (504, Some(1)));
        assert_eq!(late.message, "Timeout: Too large resource version: 9, current: 3");
    }
}
