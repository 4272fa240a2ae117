//! An object being written as the cells of a table row.

use serde_json::{Value, json};

use crate::meta;
use crate::time::Timestamp;

/// An object and the time at which it is shown. All cells are made as for wide output; kubectl drops columns of priority
/// 1 itself.
pub struct Cells<'a> {
    /// The object.
    pub object: &'a Value,
    /// The time that ages are counted to.
    pub now: Timestamp,
}

/// What a table row says about its object beside its cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowCondition {
    /// Type, like `Completed`.
    pub type_: &'static str,
    /// Reason in one word.
    pub reason: &'static str,
    /// Reason in a sentence.
    pub message: &'static str,
}

impl<'a> Cells<'a> {
    /// The value at a path; null if absent.
    pub fn at(&self, path: &[&str]) -> &'a Value {
        meta::get(self.object, path).unwrap_or(&Value::Null)
    }

    /// The string at a path; "" if absent.
    pub fn text(&self, path: &[&str]) -> &'a str {
        meta::str_at(self.object, path)
    }

    /// The list at a path; empty if absent.
    pub fn list(&self, path: &[&str]) -> &'a [Value] {
        meta::list_at(self.object, path)
    }

    /// The integer at a path; 0 if absent.
    pub fn int(&self, path: &[&str]) -> i64 {
        meta::i64_at(self.object, path).unwrap_or_default()
    }

    /// Whether the value at a path is true.
    pub fn flag(&self, path: &[&str]) -> Value {
        json!(self.at(path) == &Value::Bool(true))
    }

    /// A string cell; `otherwise` if absent or empty.
    pub fn text_or(&self, path: &[&str], otherwise: &str) -> Value {
        let text = self.text(path);
        json!(if text.is_empty() { otherwise } else { text })
    }

    /// The object's name.
    pub fn name(&self) -> Value {
        json!(meta::name(self.object))
    }

    /// How long ago the object was created.
    pub fn age(&self) -> Value {
        json!(self.since(meta::creation_timestamp(self.object)))
    }

    /// How long ago that was, `<unknown>` for an absent time.
    pub fn since(&self, time: &str) -> String {
        crate::time::age(time, self.now)
    }

    /// When the object was created.
    pub fn created_at(&self) -> Value {
        json!(meta::creation_timestamp(self.object))
    }
}
