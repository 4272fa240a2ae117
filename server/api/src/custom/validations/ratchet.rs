//! Ratcheting: finds the old value of each field, so that rules on values that an update did not change do not refuse it.
//!
//! Upstream: `ratchetingOptions` in `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`, `apiserver/pkg/cel/common/equality.go`.

use serde_json::Value as Json;

use crate::custom::structural::{ListType, Structural};

/// A value of an update, with what was at its place before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ratchet<'a> {
    /// The value and the one before; None: nothing at its place is known to be the same thing.
    current: Option<(&'a Json, &'a Json)>,
    /// The nearest value around it for which that is known.
    around: Option<(&'a Json, &'a Json)>,
}

impl<'a> Ratchet<'a> {
    /// A whole object.
    pub fn of(object: &'a Json, old: &'a Json) -> Ratchet<'a> {
        Ratchet { current: Some((object, old)), around: None }
    }

    /// Whether the value has not changed.
    pub fn is_unchanged(&self) -> bool {
        self.current.or(self.around).is_some_and(|(new, old)| new == old)
    }

    /// The field of an object, the value of a map.
    #[must_use]
    pub fn key(self, key: &str) -> Ratchet<'a> {
        let Some((new, old)) = self.current else { return self };
        if self.around.is_none() && matches!(key, "apiVersion" | "kind") {
            return Ratchet::default();
        }
        Ratchet { current: new.get(key).zip(old.get(key)), around: self.current }
    }

    /// The item of a list, whose counterpart is `old`.
    #[must_use]
    pub fn item(self, item: &'a Json, old: Option<&'a Json>) -> Ratchet<'a> {
        if self.current.is_none() {
            return self;
        }
        Ratchet { current: old.map(|old| (item, old)), around: self.current }
    }
}

/// The old items of a list, by key. Only lists of type `map` have keys; the items of other lists have no old value.
pub struct Before<'a> {
    items: std::collections::HashMap<String, &'a Json>,
    keys: &'a [String],
}

impl<'a> Before<'a> {
    /// The items of `old`.
    pub fn new(old: Option<&'a Json>, schema: &'a Structural) -> Before<'a> {
        let old = old.and_then(Json::as_array).filter(|_| schema.list_type == ListType::Map).map(Vec::as_slice).unwrap_or_default();
        let items = old.iter().map(|item| (identity(item, &schema.list_keys), item)).collect();
        Before { items, keys: &schema.list_keys }
    }

    /// The old value of an item.
    pub fn of(&self, item: &Json) -> Option<&'a Json> {
        if self.items.is_empty() { None } else { self.items.get(&identity(item, self.keys)).copied() }
    }
}

fn identity(item: &Json, keys: &[String]) -> String {
    keys.iter().map(|key| item.get(key).map(ToString::to_string).unwrap_or_default()).collect::<Vec<_>>().join("\0")
}
