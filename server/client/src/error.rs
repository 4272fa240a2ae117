//! The crate's one error.

use serde::{Deserialize, Serialize};

use crate::TransportError;

/// What an API server says when it refuses: the interesting part of `metav1.Status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason (`NotFound`, `Conflict`, ...).
    pub reason: String,
    /// Human-readable message.
    pub message: String,
    /// Details: causes, the object's name, `retryAfterSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
    /// `Success` or `Failure`.
    pub status: String,
}

impl Status {
    /// Reads a response that is no success. A body that is no `Status` becomes the message.
    #[must_use]
    pub fn from_response(code: u16, body: &[u8]) -> Self {
        let mut status = match serde_json::from_slice::<Status>(body) {
            Ok(status) if status.code != 0 || !status.reason.is_empty() || !status.message.is_empty() => status,
            _ => Status { message: String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_owned(), ..Status::default() },
        };
        if status.code == 0 {
            status.code = code;
        }
        status
    }

    /// Whether one of the causes has this reason (`NamespaceTerminating`, ...).
    #[must_use]
    pub fn has_cause(&self, reason: &str) -> bool {
        self.details
            .as_ref()
            .and_then(|details| details.get("causes"))
            .and_then(|causes| causes.as_array())
            .is_some_and(|causes| causes.iter().any(|cause| cause.get("reason").and_then(|r| r.as_str()) == Some(reason)))
    }

    /// The server's Retry-After.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }
}

/// Everything that can go wrong between a client and the API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered and refused.
    #[error("{} ({} {})", .0.message, .0.code, .0.reason)]
    Api(Box<Status>),
    /// No (complete) answer came.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer's body broke off.
    #[error("the response broke off: {0}")]
    Body(String),
    /// The answer is not what it should be.
    #[error("cannot decode {what}: {source}")]
    Decode {
        /// What was decoded.
        what: String,
        /// Why it failed.
        source: serde_json::Error,
    },
    /// The request could not be built.
    #[error("cannot build the request: {0}")]
    Request(String),
}

impl Error {
    pub(crate) fn api(status: Status) -> Self {
        Error::Api(Box::new(status))
    }

    /// The server's answer, if it was the server that refused.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn is(&self, code: u16, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason || (status.reason.is_empty() && status.code == code))
    }

    /// 404.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is(404, "NotFound")
    }

    /// 409 because of a resourceVersion or uid precondition.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.is(409, "Conflict")
    }

    /// 409 because the name is taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.reason == "AlreadyExists")
    }

    /// 410: the resourceVersion or continue token is too old.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410 || status.reason == "Expired" || status.reason == "Gone")
    }

    /// 422.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.is(422, "Invalid")
    }

    /// 405.
    #[must_use]
    pub fn is_method_not_allowed(&self) -> bool {
        self.is(405, "MethodNotAllowed")
    }

    /// Whether the namespace is going away, so that creating in it is pointless.
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|status| status.has_cause("NamespaceTerminating"))
    }

    /// Whether the same request may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Api(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504) || status.reason == "Conflict",
            Error::Transport(TransportError::Config(_)) => false,
            Error::Transport(_) | Error::Body(_) => true,
            Error::Decode { .. } | Error::Request(_) => false,
        }
    }
}
