//! Query parameters and request bodies of the API's verbs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::push_escaped;

/// What to list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Label selector in its string form.
    pub label_selector: Option<String>,
    /// Field selector in its string form.
    pub field_selector: Option<String>,
    /// Objects per page.
    pub limit: Option<u32>,
    /// The token of the next page.
    pub continue_token: Option<String>,
    /// Where to start; its meaning depends on the verb and on the match.
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<&'static str>,
    /// How long a watch may run.
    pub timeout_secs: Option<u64>,
    /// Whether the server should send bookmarks on a watch.
    pub bookmarks: bool,
}

impl ListOptions {
    /// Options with a label selector.
    #[must_use]
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { label_selector: Some(selector.into()), ..Self::default() }
    }

    /// Options with a field selector.
    #[must_use]
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: Some(selector.into()), ..Self::default() }
    }

    pub(crate) fn query(&self, watch: bool) -> String {
        let mut query = Query::default();
        if watch {
            query.add("watch", "true");
        }
        query.add_some("labelSelector", self.label_selector.as_deref());
        query.add_some("fieldSelector", self.field_selector.as_deref());
        query.add_some("continue", self.continue_token.as_deref());
        query.add_some("resourceVersion", self.resource_version.as_deref());
        query.add_some("resourceVersionMatch", self.resource_version_match);
        query.add_some("limit", self.limit.map(|n| n.to_string()).as_deref());
        query.add_some("timeoutSeconds", self.timeout_secs.map(|n| n.to_string()).as_deref());
        if self.bookmarks {
            query.add("allowWatchBookmarks", "true");
        }
        query.text
    }
}

/// A query string under construction: empty, or `?a=b&c=d`.
#[derive(Default)]
pub(crate) struct Query {
    pub(crate) text: String,
}

impl Query {
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.text.push(if self.text.is_empty() { '?' } else { '&' });
        self.text.push_str(key);
        self.text.push('=');
        push_escaped(&mut self.text, value);
    }

    pub(crate) fn add_some(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.add(key, value);
        }
    }
}

/// A list as the server sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct List<T> {
    /// The list's resourceVersion and continue token.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The objects.
    #[serde(default = "Vec::new", deserialize_with = "null_as_empty")]
    pub items: Vec<T>,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// A patch with its content type.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own merge, which knows the keys of lists.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

impl Patch {
    pub(crate) fn parts(&self) -> (&'static str, &Value) {
        match self {
            Patch::Json(value) => ("application/json-patch+json", value),
            Patch::Merge(value) => ("application/merge-patch+json", value),
            Patch::Strategic(value) => ("application/strategic-merge-patch+json", value),
            Patch::Apply(value) => ("application/apply-patch+yaml", value),
        }
    }
}

/// Options of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchOptions {
    /// The name under which fields are owned.
    pub field_manager: Option<String>,
    /// Take fields over from other managers (apply only).
    pub force: bool,
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// They are released.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

/// Conditions under which a delete happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    /// The object's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The object's resourceVersion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// Options of a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOptions {
    /// Overrides the object's own grace period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    /// What becomes of dependents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
    /// Conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
}

impl DeleteOptions {
    /// Deletes only the object with this uid.
    #[must_use]
    pub fn uid(uid: impl Into<String>) -> Self {
        Self { preconditions: Some(Preconditions { uid: Some(uid.into()), resource_version: None }), ..Self::default() }
    }

    /// With this propagation.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation_policy = Some(propagation);
        self
    }

    /// With this grace period.
    #[must_use]
    pub fn grace_period_secs(mut self, seconds: i64) -> Self {
        self.grace_period_seconds = Some(seconds);
        self
    }
}
