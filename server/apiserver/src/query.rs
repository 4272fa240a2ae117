//! The query parameters of lists, watches and writes.
//!
//! Answers to upstream's `metav1.ListOptions`, `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions` and their
//! validation.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::gvk::GroupKind;
use trireme_api::schema::FieldValidation;
use trireme_api::status::Status;

use crate::error::Answer;
use crate::request_info::{query_flag, query_pairs, query_value};

/// How `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// At least as new.
    NotOlderThan,
    /// Exactly that.
    Exact,
}

/// The parameters of a list or watch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `limit`, 0 for none.
    pub limit: usize,
    /// `continue`.
    pub continue_token: Option<Continue>,
    /// `resourceVersion`; None when empty or absent.
    pub resource_version: Option<i64>,
    /// `resourceVersionMatch`.
    pub version_match: Option<VersionMatch>,
    /// `allowWatchBookmarks`.
    pub allow_watch_bookmarks: bool,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub timeout_secs: Option<u64>,
}

/// Where a list goes on: at which revision (-1: newest) after which key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    v: String,
    /// The revision of the first page.
    pub rv: i64,
    /// The first key of the next page, relative to the list's prefix.
    pub start: String,
}

impl Continue {
    /// A token's content.
    pub fn new(rv: i64, start: String) -> Continue {
        Continue { v: "meta.k8s.io/v1".to_owned(), rv, start }
    }

    /// The token.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("invariant: a token is JSON"))
    }

    fn decode(text: &str) -> Answer<Continue> {
        let bad = |cause: &str| Status::bad_request(format!("continue key is not valid: {cause}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|e| bad(&e.to_string()))?;
        let token: Continue = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            Err(bad(&format!("server does not recognize this encoded version {:?}", token.v)))?;
        }
        if token.start.is_empty() || token.rv == 0 || token.start.split('/').any(|part| part == "..") {
            Err(bad("incorrect encoded start resourceVersion or key"))?;
        }
        Ok(token)
    }
}

/// Parses a resourceVersion parameter; empty is None.
pub fn resource_version(text: &str) -> Answer<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(n) if n >= 0 => Ok(Some(n)),
        _ => Err(Status::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
        .into()),
    }
}

fn invalid_options(kind: &'static str, errors: FieldErrors) -> Box<Status> {
    Box::new(Status::invalid(&GroupKind::new("meta.k8s.io", kind), "", &errors))
}

impl ListOptions {
    /// Parses and validates them.
    pub fn parse(query: &str, watch: bool) -> Answer<ListOptions> {
        let mut options = ListOptions::default();
        let (mut rv_text, mut continue_text) = (String::new(), String::new());
        for (key, value) in query_pairs(query) {
            match key.as_str() {
                "labelSelector" => options.label_selector = value,
                "fieldSelector" => options.field_selector = value,
                "limit" => options.limit = usize::try_from(number(&value)?).unwrap_or(0),
                "continue" => continue_text = value,
                "resourceVersion" => rv_text = value,
                "resourceVersionMatch" => {
                    options.version_match = match value.as_str() {
                        "" => None,
                        "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                        "Exact" => Some(VersionMatch::Exact),
                        other => {
                            return Err(invalid_options(
                                "ListOptions",
                                vec![FieldError::not_supported(
                                    &FieldPath::new("resourceVersionMatch"),
                                    other,
                                    &["Exact", "NotOlderThan", ""],
                                )],
                            ));
                        }
                    }
                }
                "timeoutSeconds" => options.timeout_secs = u64::try_from(number(&value)?).ok().filter(|n| *n > 0),
                _ => {}
            }
        }
        options.allow_watch_bookmarks = query_flag(query, "allowWatchBookmarks");
        options.send_initial_events =
            query_value(query, "sendInitialEvents").filter(|v| !v.is_empty()).map(|_| query_flag(query, "sendInitialEvents"));
        options.resource_version = resource_version(&rv_text)?;
        let field = FieldPath::new("resourceVersionMatch");
        let mut errors = FieldErrors::new();
        if watch {
            match (options.send_initial_events, options.version_match) {
                (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => {}
                (Some(_), _) => {
                    errors.push(FieldError::forbidden(&field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
                }
                (None, Some(_)) => errors.push(FieldError::forbidden(
                    &field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )),
            }
            if options.send_initial_events.is_some() && !options.allow_watch_bookmarks {
                errors.push(FieldError::forbidden(
                    &FieldPath::new("allowWatchBookmarks"),
                    "sendInitialEvents requires setting allowWatchBookmarks to true",
                ));
            }
        } else {
            if options.send_initial_events.is_some() {
                errors.push(FieldError::forbidden(&FieldPath::new("sendInitialEvents"), "sendInitialEvents is forbidden for list"));
            }
            if options.version_match.is_some() {
                if rv_text.is_empty() {
                    errors.push(FieldError::forbidden(&field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
                }
                if !continue_text.is_empty() {
                    errors.push(FieldError::forbidden(&field, "resourceVersionMatch is forbidden when continue is provided"));
                }
                if options.version_match == Some(VersionMatch::Exact) && rv_text == "0" {
                    errors.push(FieldError::forbidden(&field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
                }
            }
        }
        if !errors.is_empty() {
            return Err(invalid_options("ListOptions", errors));
        }
        if !continue_text.is_empty() && !watch {
            if options.resource_version.is_some_and(|rv| rv != 0) {
                Err(Status::bad_request("specifying resource version is not allowed when using continue"))?;
            }
            options.continue_token = Some(Continue::decode(&continue_text)?);
        }
        Ok(options)
    }
}

fn number(text: &str) -> Answer<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| Box::new(Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))))
}

/// The parameters of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Nothing is stored.
    pub dry_run: bool,
    /// `fieldManager`.
    pub field_manager: String,
    /// `fieldValidation`.
    pub field_validation: FieldValidation,
    /// `force`, for server-side apply.
    pub force: bool,
}

impl WriteOptions {
    /// Parses and validates the parameters of `kind` (`CreateOptions`, `UpdateOptions`, `PatchOptions`).
    pub fn parse(query: &str, kind: &'static str) -> Answer<WriteOptions> {
        let mut options = WriteOptions::default();
        let mut errors = FieldErrors::new();
        for (key, value) in query_pairs(query) {
            match (key.as_str(), value.as_str()) {
                ("dryRun", "All") => options.dry_run = true,
                ("dryRun", "") => {}
                ("dryRun", _) => errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), json!([value]), &["All"])),
                ("fieldManager", _) if value.len() > 128 => errors.push(FieldError::too_long(&FieldPath::new("fieldManager"), 128)),
                ("fieldManager", _) => options.field_manager = value,
                ("fieldValidation", text) => match FieldValidation::from_param(text) {
                    Ok(validation) => options.field_validation = validation,
                    Err(error) => errors.push(error),
                },
                ("force", _) => options.force = value != "false" && value != "0",
                _ => {}
            }
        }
        if errors.is_empty() { Ok(options) } else { Err(invalid_options(kind, errors)) }
    }

    /// As the options object that admission sees.
    pub fn to_value(&self, kind: &str) -> Value {
        let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if !self.field_manager.is_empty() {
            value["fieldManager"] = json!(self.field_manager);
        }
        value
    }
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
}

/// The parameters of delete and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_period_secs: Option<i64>,
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub resource_version: Option<String>,
    /// `propagationPolicy` (or the older `orphanDependents`).
    pub propagation: Option<Propagation>,
    /// Nothing is stored.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Parses them from body (if any) or query.
    pub fn parse(query: &str, body: Option<&Value>) -> Answer<DeleteOptions> {
        let mut options = DeleteOptions::default();
        let mut errors = FieldErrors::new();
        let (mut policy, mut orphan, mut dry_run) = (None, None, Vec::new());
        if let Some(body) = body {
            options.grace_period_secs = body.get("gracePeriodSeconds").and_then(Value::as_i64);
            let preconditions = body.get("preconditions");
            let text = |key: &str| preconditions.and_then(|p| p.get(key)).and_then(Value::as_str).map(str::to_owned);
            options.uid = text("uid");
            options.resource_version = text("resourceVersion");
            policy = body.get("propagationPolicy").and_then(Value::as_str).map(str::to_owned);
            orphan = body.get("orphanDependents").and_then(Value::as_bool);
            dry_run =
                body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        for (key, value) in query_pairs(query) {
            match key.as_str() {
                "gracePeriodSeconds" => options.grace_period_secs = Some(number(&value)?),
                "propagationPolicy" => policy = Some(value),
                "orphanDependents" => orphan = Some(value == "true" || value == "1"),
                "dryRun" if !value.is_empty() => dry_run.push(value),
                _ => {}
            }
        }
        if dry_run.iter().any(|d| d != "All") {
            errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), json!(dry_run), &["All"]));
        }
        options.dry_run = !dry_run.is_empty();
        if policy.is_some() && orphan.is_some() {
            errors.push(FieldError::invalid(
                &FieldPath::new("propagationPolicy"),
                policy.clone().unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        options.propagation = match (policy.as_deref(), orphan) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (None, None) => None,
            (Some(other), _) => {
                errors.push(FieldError::not_supported(
                    &FieldPath::new("propagationPolicy"),
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
                None
            }
        };
        if errors.is_empty() { Ok(options) } else { Err(invalid_options("DeleteOptions", errors)) }
    }

    /// As the options object that admission sees.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(secs) = self.grace_period_secs {
            value["gracePeriodSeconds"] = json!(secs);
        }
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if let Some(policy) = self.propagation {
            value["propagationPolicy"] = json!(format!("{policy:?}"));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_round_trip_and_refuse_nonsense() {
        let token = Continue::new(12, "a/b\u{0}".to_owned()).encode();
        let options = ListOptions::parse(&format!("limit=3&continue={token}"), false).unwrap();
        assert_eq!(options.continue_token, Some(Continue::new(12, "a/b\u{0}".to_owned())));
        assert_eq!(ListOptions::parse("continue=zzz", false).unwrap_err().code(), 400);
        assert_eq!(ListOptions::parse(&format!("resourceVersion=5&continue={token}"), false).unwrap_err().code(), 400);
        assert_eq!(ListOptions::parse("resourceVersionMatch=Exact", false).unwrap_err().code(), 422);
        assert_eq!(ListOptions::parse("sendInitialEvents=true", true).unwrap_err().code(), 422);
    }
}
