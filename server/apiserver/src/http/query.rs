//! The query parameters of lists, watches and writes.
//!
//! Answers to upstream's `metav1.ListOptions`, `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions` and their
//! validation.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trireme_api::apply::{MANAGER_MAX_BYTES, unprintable};
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::gvk::GroupKind;
use trireme_api::schema::FieldValidation;
use trireme_api::status::Status;

use crate::error::Answer;
use crate::http::parameters::Parameters;

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

/// How much of the object a row of a Table carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads `includeObject`.
    pub fn parse(query: &Parameters) -> Answer<IncludeObject> {
        match query.text("includeObject") {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "None" => Ok(IncludeObject::None),
            "Object" => Ok(IncludeObject::Object),
            other => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}")).into()),
        }
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
    pub fn parse(query: &Parameters, watch: bool) -> Answer<ListOptions> {
        let (version_text, continue_text) = (query.text("resourceVersion"), query.text("continue"));
        let mut options = ListOptions {
            label_selector: query.text("labelSelector").to_owned(),
            field_selector: query.text("fieldSelector").to_owned(),
            limit: integer(query, "limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            continue_token: None,
            resource_version: resource_version(version_text)?,
            version_match: version_match(query.text("resourceVersionMatch"))?,
            allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
            timeout_secs: integer(query, "timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        };
        let errors = if watch { options.validate_watch() } else { options.validate_list(version_text, continue_text) };
        if !errors.is_empty() {
            return Err(invalid_options("ListOptions", errors));
        }
        if !continue_text.is_empty() && !watch {
            if options.resource_version.is_some_and(|rv| rv != 0) {
                Err(Status::bad_request("specifying resource version is not allowed when using continue"))?;
            }
            options.continue_token = Some(Continue::decode(continue_text)?);
        }
        Ok(options)
    }

    fn validate_watch(&self) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let field = FieldPath::new("resourceVersionMatch");
        match (self.send_initial_events, self.version_match) {
            (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => {}
            (Some(_), _) => {
                errors.push(FieldError::forbidden(&field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
            }
            (None, Some(_)) => errors
                .push(FieldError::forbidden(&field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")),
        }
        if self.send_initial_events.is_some() && !self.allow_watch_bookmarks {
            let field = FieldPath::new("allowWatchBookmarks");
            errors.push(FieldError::forbidden(&field, "sendInitialEvents requires setting allowWatchBookmarks to true"));
        }
        errors
    }

    fn validate_list(&self, version_text: &str, continue_text: &str) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let field = FieldPath::new("resourceVersionMatch");
        if self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden(&FieldPath::new("sendInitialEvents"), "sendInitialEvents is forbidden for list"));
        }
        if self.version_match.is_some() {
            if version_text.is_empty() {
                errors.push(FieldError::forbidden(&field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
            }
            if !continue_text.is_empty() {
                errors.push(FieldError::forbidden(&field, "resourceVersionMatch is forbidden when continue is provided"));
            }
            if self.version_match == Some(VersionMatch::Exact) && version_text == "0" {
                errors.push(FieldError::forbidden(&field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
        }
        errors
    }
}

fn version_match(text: &str) -> Answer<Option<VersionMatch>> {
    match text {
        "" => Ok(None),
        "NotOlderThan" => Ok(Some(VersionMatch::NotOlderThan)),
        "Exact" => Ok(Some(VersionMatch::Exact)),
        other => {
            let error = FieldError::not_supported(&FieldPath::new("resourceVersionMatch"), other, &["Exact", "NotOlderThan", ""]);
            Err(invalid_options("ListOptions", vec![error]))
        }
    }
}

fn integer(query: &Parameters, name: &str) -> Answer<Option<i64>> {
    query.integer(name).map_err(|error| Box::new(Status::bad_request(error.to_string())))
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
    /// `force`, for server-side apply, if it is given.
    pub force: Option<bool>,
}

impl WriteOptions {
    /// Parses and validates the parameters of `kind` (`CreateOptions`, `UpdateOptions`, `PatchOptions`).
    pub fn parse(query: &Parameters, kind: &'static str) -> Answer<WriteOptions> {
        let mut options = WriteOptions { force: query.optional_flag("force"), ..WriteOptions::default() };
        let mut errors = FieldErrors::new();
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        options.dry_run = !dry_run.is_empty();
        if dry_run.iter().any(|value| *value != "All") {
            errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), json!(dry_run), &["All"]));
        }
        options.field_manager = query.text("fieldManager").to_owned();
        if options.field_manager.len() > MANAGER_MAX_BYTES {
            errors.push(FieldError::too_long(&FieldPath::new("fieldManager"), MANAGER_MAX_BYTES));
        }
        if let Some((position, c)) = unprintable(&options.field_manager) {
            let why = format!("invalid character U+{:04X} (at position {position})", u32::from(c));
            errors.push(FieldError::invalid(&FieldPath::new("fieldManager"), options.field_manager.as_str(), why));
        }
        if let Some(text) = query.get("fieldValidation") {
            match FieldValidation::from_param(text) {
                Ok(validation) => options.field_validation = validation,
                Err(error) => errors.push(error),
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
    /// Parses them from the body, or from the query if there is no body.
    pub fn parse(query: &Parameters, body: Option<&Value>) -> Answer<DeleteOptions> {
        let mut options = DeleteOptions::default();
        let mut errors = FieldErrors::new();
        let (policy, orphan, dry_run): (_, _, Vec<String>) = match body {
            Some(body) => {
                options.grace_period_secs = body.get("gracePeriodSeconds").and_then(Value::as_i64);
                let text = |key: &str| body.get("preconditions").and_then(|p| p.get(key)).and_then(Value::as_str).map(str::to_owned);
                options.uid = text("uid");
                options.resource_version = text("resourceVersion");
                let values = body.get("dryRun").and_then(Value::as_array).into_iter().flatten();
                (
                    body.get("propagationPolicy").and_then(Value::as_str).map(str::to_owned),
                    body.get("orphanDependents").and_then(Value::as_bool),
                    values.filter_map(Value::as_str).map(str::to_owned).collect(),
                )
            }
            None => {
                options.grace_period_secs = integer(query, "gracePeriodSeconds")?;
                (
                    query.get("propagationPolicy").map(str::to_owned),
                    query.optional_flag("orphanDependents"),
                    query.all("dryRun").filter(|value| !value.is_empty()).map(str::to_owned).collect(),
                )
            }
        };
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

    fn list(query: &str, watch: bool) -> Result<ListOptions, u16> {
        ListOptions::parse(&Parameters::parse(query), watch).map_err(|status| status.code())
    }

    #[test]
    fn continue_tokens_round_trip_and_refuse_nonsense() {
        let token = Continue::new(12, "a/b\u{0}".to_owned()).encode();
        let options = list(&format!("limit=3&continue={token}"), false).unwrap();
        assert_eq!(options.continue_token, Some(Continue::new(12, "a/b\u{0}".to_owned())));
        assert_eq!(list("continue=zzz", false).unwrap_err(), 400);
        assert_eq!(list(&format!("resourceVersion=5&continue={token}"), false).unwrap_err(), 400);
        assert_eq!(list("resourceVersionMatch=Exact", false).unwrap_err(), 422);
        assert_eq!(list("sendInitialEvents=true", true).unwrap_err(), 422);
    }

    #[test]
    fn security_02_and_08_the_first_value_counts_and_every_number_is_taken() {
        let options = list("fieldSelector=a%3Db&fieldSelector=&limit=1&limit=x&timeoutSeconds=9223372036854775807", false).unwrap();
        assert_eq!((options.field_selector.as_str(), options.limit, options.timeout_secs), ("a=b", 1, Some(i64::MAX.unsigned_abs())));
        for (query, code) in [("limit=9223372036854775808", 400), ("timeoutSeconds=1e9", 400), ("resourceVersion=-1", 400)] {
            assert_eq!(list(query, false).unwrap_err(), code, "{query}");
        }
        assert_eq!(list("limit=-5&timeoutSeconds=-5", false).unwrap().limit, 0);
    }

    #[test]
    fn delete_options_come_from_the_body_or_else_from_the_query() {
        let query = Parameters::parse("gracePeriodSeconds=5&propagationPolicy=Orphan&dryRun=All&dryRun=All");
        let options = DeleteOptions::parse(&query, None).unwrap();
        assert_eq!((options.grace_period_secs, options.propagation, options.dry_run), (Some(5), Some(Propagation::Orphan), true));
        let options = DeleteOptions::parse(&query, Some(&json!({"gracePeriodSeconds": 7}))).unwrap();
        assert_eq!((options.grace_period_secs, options.propagation, options.dry_run), (Some(7), None, false));
    }
}
