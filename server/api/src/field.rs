//! Field paths and validation errors, worded as upstream's `k8s.io/apimachinery/pkg/util/validation/field`.
//!
//! Clients and their tests compare these texts, so `Display` is a contract.

use std::fmt;

use serde_json::Value;

/// The path of a field: `spec.containers[0].name`, `metadata.labels[app]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FieldPath(String);

/// Why a field was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A reference to something that doesn't exist.
    NotFound,
    /// A value that must be there is missing.
    Required,
    /// The same value twice where it must be unique.
    Duplicate,
    /// A malformed or out-of-range value.
    Invalid,
    /// A value outside of an enumeration.
    NotSupported,
    /// A well-formed value that is not allowed here.
    Forbidden,
    /// A value with too many bytes.
    TooLong,
    /// A list with too many items.
    TooMany,
    /// The validator failed, not the object.
    Internal,
    /// A value of the wrong type.
    TypeInvalid,
}

/// The value that an error shows.
#[derive(Clone, Debug, PartialEq)]
pub enum BadValue {
    /// Shown as upstream prints a value of that JSON type.
    Shown(Value),
    /// Not shown.
    Omitted,
}

/// One refused field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Why.
    pub kind: ErrorKind,
    /// Where.
    pub path: String,
    /// What was there.
    pub bad_value: BadValue,
    /// What would be right.
    pub detail: String,
}

/// All errors of an object, in the order in which they were found.
pub type FieldErrors = Vec<FieldError>;

// === impl FieldPath ===

impl FieldPath {
    /// A path of one name.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of the whole object; its text is empty and children start without a dot.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// `path.name`. A name may itself hold dots ("metadata.name").
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// `path[index]`.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// `path[key]`.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    /// Upstream prints a path without elements as `<nil>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

// === impl ErrorKind ===

impl ErrorKind {
    /// The words at the start of the message.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// The `reason` of the cause in a Status.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// Whether messages of this kind never show the value.
    fn hides_value(self) -> bool {
        matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

// === impl FieldError ===

impl FieldError {
    fn build(kind: ErrorKind, path: &FieldPath, bad_value: BadValue, detail: impl Into<String>) -> Self {
        Self { kind, path: path.to_string(), bad_value, detail: detail.into() }
    }

    /// "Not found: value".
    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::build(ErrorKind::NotFound, path, BadValue::Shown(value.into()), "")
    }

    /// "Required value[: detail]".
    pub fn required(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::build(ErrorKind::Required, path, BadValue::Omitted, detail)
    }

    /// "Duplicate value: value".
    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::build(ErrorKind::Duplicate, path, BadValue::Shown(value.into()), "")
    }

    /// "Invalid value: value: detail".
    pub fn invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::build(ErrorKind::Invalid, path, BadValue::Shown(value.into()), detail)
    }

    /// `Unsupported value: value: supported values: "a", "b"`.
    pub fn not_supported(path: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::build(ErrorKind::NotSupported, path, BadValue::Shown(value.into()), detail)
    }

    /// "Forbidden: detail".
    pub fn forbidden(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::build(ErrorKind::Forbidden, path, BadValue::Omitted, detail)
    }

    /// "Too long: may not be more than N bytes".
    pub fn too_long(path: &FieldPath, max_bytes: usize) -> Self {
        let detail = format!("may not be more than {max_bytes} {}", if max_bytes == 1 { "byte" } else { "bytes" });
        Self::build(ErrorKind::TooLong, path, BadValue::Omitted, detail)
    }

    /// "Too many: actual: must have at most N items".
    pub fn too_many(path: &FieldPath, actual: usize, max_items: usize) -> Self {
        let detail = format!("must have at most {max_items} {}", if max_items == 1 { "item" } else { "items" });
        Self::build(ErrorKind::TooMany, path, BadValue::Shown(actual.into()), detail)
    }

    /// "Internal error: detail".
    pub fn internal(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::build(ErrorKind::Internal, path, BadValue::Omitted, detail)
    }

    /// The message without the path, as it stands in a Status cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let (BadValue::Shown(value), false) = (&self.bad_value, self.kind.hides_value()) {
            text.push_str(": ");
            match value {
                Value::String(s) => text.push_str(&quote(s)),
                other => text.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// The text of several errors as upstream's aggregate prints them: one alone, or `[a, b]`, each distinct text once.
/// None if there are none.
pub fn aggregate<T: fmt::Display>(errors: &[T]) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.len() {
        0 => None,
        1 => texts.pop(),
        _ => Some(format!("[{}]", texts.join(", "))),
    }
}

/// A string as Go's `%q` prints it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || c == '\u{feff}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_upstreams() {
        let path = FieldPath::new("spec").child("containers").index(0).child("name");
        let cases = [
            (FieldError::required(&path, ""), "spec.containers[0].name: Required value"),
            (FieldError::invalid(&path, "A\"", "bad"), r#"spec.containers[0].name: Invalid value: "A\"": bad"#),
            (FieldError::invalid(&path, json!({"b": 1, "a": null}), ""), r#"spec.containers[0].name: Invalid value: {"a":null,"b":1}"#),
            (FieldError::invalid(&path, -1, "must be > 0"), "spec.containers[0].name: Invalid value: -1: must be > 0"),
            (
                FieldError::not_supported(&path, "x", &["a", "b"]),
                r#"spec.containers[0].name: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (FieldError::too_long(&path, 63), "spec.containers[0].name: Too long: may not be more than 63 bytes"),
            (FieldError::too_many(&path, 3, 1), "spec.containers[0].name: Too many: 3: must have at most 1 item"),
            (FieldError::forbidden(&FieldPath::root(), "no"), "<nil>: Forbidden: no"),
            (FieldError::duplicate(&FieldPath::new("a").key("k"), "v"), r#"a[k]: Duplicate value: "v""#),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(aggregate(&["a", "b", "a"]).as_deref(), Some("[a, b]"));
        assert_eq!(aggregate(&["a", "a"]).as_deref(), Some("a"));
    }
}
