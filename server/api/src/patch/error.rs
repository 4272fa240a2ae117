//! Why a patch does not apply, and the bounds of patches.

use serde_json::Value;

use crate::schema;
use crate::status::Status;

/// Most operations in a JSON patch.
pub const JSON_PATCH_MAX_OPERATIONS: usize = 10_000;

/// Most bytes that the `copy` operations of one JSON patch may add, as upstream's `JSONPatchMaxCopyBytes`.
pub const JSON_PATCH_MAX_COPY_BYTES: usize = 3 * 1024 * 1024;

/// Most bytes of a patched object.
pub const PATCH_RESULT_MAX_BYTES: usize = 3 * 1024 * 1024;

/// Why a patch doesn't apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is no patch at all: 400.
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch that is right but doesn't fit the object (a failed test, an absent path): 422.
    #[error("{0}")]
    Inapplicable(String),
    /// More operations than allowed: 413.
    #[error("The allowed maximum operations in a JSON patch is {JSON_PATCH_MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// The copies of a JSON patch add more than allowed: 413.
    #[error("Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {JSON_PATCH_MAX_COPY_BYTES}")]
    CopiesTooLarge(usize),
    /// The operations of a JSON patch walk through more values than allowed: 413.
    #[error("the operations of the JSON patch are too expensive")]
    TooExpensive,
    /// The patched object is larger than any object may be: 413.
    #[error("the patched object is larger than {PATCH_RESULT_MAX_BYTES} bytes")]
    ResultTooLarge,
    /// A strategic merge patch that contradicts the schema. Upstream has no reason for it and answers 500.
    #[error("{0}")]
    Unmergeable(String),
}

impl PatchError {
    /// What the client gets.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message.as_str()),
            // Upstream says no more than this about the operation that failed.
            Self::Inapplicable(_) => Status::generic_invalid("the server rejected our request due to an error in our request"),
            Self::TooManyOperations(_) | Self::CopiesTooLarge(_) | Self::TooExpensive | Self::ResultTooLarge => {
                Status::request_entity_too_large(&self.to_string())
            }
            Self::Unmergeable(message) => Status::failure(500, "", message.as_str()),
        }
    }
}

/// A patch that is no JSON object.
pub(super) fn not_a_map(prefix: &str, patch: &Value) -> PatchError {
    let word = schema::type_word(patch);
    PatchError::Malformed(format!("{prefix}json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"))
}
