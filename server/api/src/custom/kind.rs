//! The rules of a custom resource in one of its versions, as a [`Kind`] like any other.
//!
//! Upstream: `apiextensions-apiserver/pkg/registry/customresource/strategy.go` and `status_strategy.go`.

use std::sync::Arc;

use serde_json::Value;

use super::columns::PrinterColumn;
use super::conversion::ConversionWebhook;
use super::embedded::{self, Malformed};
use super::scale_paths::ScalePaths;
use super::structural::Structural;
use super::validations::Validations;
use super::{decode, defaults, lists, prune, values};
use crate::field::{ErrorKind, FieldError, FieldErrors, FieldPath};
use crate::gvk::{GroupVersionKind, Name};
use crate::names;
use crate::resource::{Cells, Column, Kind, Scaled, SelectableField, carry};
use crate::time::Timestamp;
use crate::validate::{At, Errors};

/// What all versions of a resource share.
#[derive(Debug)]
pub struct Family {
    /// The group.
    pub group: Name,
    /// The version in which objects are stored.
    pub storage: Name,
    /// Each version with its schema.
    pub schemas: Vec<(Name, Arc<Structural>)>,
    /// What converts between versions; None: they differ in their schema alone.
    pub webhook: Option<ConversionWebhook>,
}

/// A custom resource in one version.
#[derive(Debug)]
pub struct CustomKind {
    /// Its versions.
    pub family: Arc<Family>,
    /// The schema of this version.
    pub schema: Arc<Structural>,
    /// Its rules in CEL, if it has any.
    pub validations: Option<Validations>,
    /// Whether the status is written through `/status`.
    pub has_status: bool,
    /// Where its replicas are.
    pub scale: Option<ScalePaths>,
    /// Its columns, beside the name.
    pub columns: Vec<PrinterColumn>,
    /// Paths that it can be selected by, without the leading dot.
    pub selectable: Vec<String>,
    /// The warning for those who use this version.
    pub deprecation: Option<String>,
}

impl Family {
    fn schema(&self, version: &str) -> Option<&Arc<Structural>> {
        self.schemas.iter().find(|(name, _)| name == version).map(|(_, schema)| schema)
    }

    /// Drops what a version does not know.
    fn fit(&self, object: &mut Value, version: &str) {
        if let Some(schema) = self.schema(version) {
            prune::prune(object, schema);
            prune::prune_nulls(object, Some(schema));
        }
    }
}

fn report(at: &At<'_>, errors: FieldErrors) {
    errors.into_iter().for_each(|error| at.errors.push(error));
}

/// Whether rules must not see an object with such an error.
fn is_blocking(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotSupported | ErrorKind::Required | ErrorKind::TooLong | ErrorKind::TooMany | ErrorKind::TypeInvalid)
}

fn version_of(object: &Value) -> &str {
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    api_version.rsplit('/').next().unwrap_or_default()
}

impl CustomKind {
    fn check(&self, object: &At<'_>, old: Option<&Value>) {
        let found = Errors::default();
        let at = &At::new(object.value, object.path.clone(), &found);
        report(at, values::check(at.value, old, &self.schema, ""));
        if let Some(scale) = &self.scale {
            scale.check(at, false);
        }
        report(at, embedded::check(at.value, &self.schema, false));
        self.check_lists(at, old);
        self.check_rules(object, found.take(), old);
    }

    /// Reports the errors found so far, and those of the CEL rules. Rules are evaluated only on values of valid types and sizes.
    fn check_rules(&self, object: &At<'_>, found: FieldErrors, old: Option<&Value>) {
        let blocked = found.iter().any(|error| is_blocking(error.kind));
        report(object, found);
        let Some(validations) = &self.validations else { return };
        if blocked {
            let detail =
                "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            object.errors.push(FieldError::invalid(&FieldPath::root(), "null", detail));
        } else {
            let judged = validations.check(object.value, old, &self.schema);
            report(object, judged.errors);
            judged.warnings.into_iter().for_each(|warning| object.errors.warn(warning));
        }
    }

    /// A list that had something twice before may keep it.
    fn check_lists(&self, at: &At<'_>, old: Option<&Value>) {
        if old.is_none_or(|old| lists::duplicates(old, &self.schema).is_empty()) {
            report(at, lists::duplicates(at.value, &self.schema));
        }
    }
}

impl Kind for CustomKind {
    fn has_status(&self) -> bool {
        self.has_status
    }

    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn deprecation(&self, _version: &str) -> Option<Name> {
        self.deprecation.clone().map(Name::from)
    }

    fn default(&self, _version: &str, object: &mut Value) {
        defaults::fill(object, &self.schema);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry(object, old, "metadata");
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn validate(&self, object: &At<'_>) {
        self.check(object, None);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        self.check(object, Some(old.value));
    }

    fn validate_status(&self, object: &At<'_>, old: &At<'_>) {
        let found = Errors::default();
        let at = &At::new(object.value, object.path.clone(), &found);
        if let (Some(schema), Some(status)) = (self.schema.properties.get("status"), at.value.get("status")) {
            report(at, values::check(status, old.value.get("status"), schema, "status"));
        }
        if let Some(scale) = &self.scale {
            scale.check(at, true);
        }
        self.check_lists(at, Some(old.value));
        self.check_rules(object, found.take(), Some(old.value));
    }

    fn evaluates(&self) -> bool {
        self.validations.is_some()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let before = old.map(crate::meta::finalizers).unwrap_or_default();
        let mut added: Vec<&str> = crate::meta::finalizers(object).into_iter().filter(|name| !before.contains(name)).collect();
        added.sort_unstable();
        added.dedup();
        added.into_iter().flat_map(finalizer_warnings).collect()
    }

    fn convert(&self, mut object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, String> {
        if self.family.webhook.is_some() {
            return Err(format!("conversion webhook for {from} failed: it was not asked"));
        }
        self.family.fit(&mut object, &to.version);
        Ok(object)
    }

    fn conversion_webhook(&self) -> Option<&ConversionWebhook> {
        self.family.webhook.as_ref()
    }

    fn fit_converted(&self, object: &mut Value) -> Result<(), String> {
        let version = version_of(object).to_owned();
        let Some(schema) = self.family.schema(&version) else {
            return Err(format!("request to convert CR to an invalid group/version: {}/{version}", self.family.group));
        };
        self.family.fit(object, &version);
        embedded::conform(object, schema, Malformed::Refuse).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn restores(&self) -> bool {
        true
    }

    fn restore(&self, object: &mut Value) -> Result<(), String> {
        let (version, storage) = (version_of(object).to_owned(), &self.family.storage);
        let schema = self.family.schema(&version);
        if self.family.webhook.is_some() && schema.is_none() {
            return Err(format!("request to convert CR from an invalid group/version: {}/{version}", self.family.group));
        }
        decode::restore(object, schema.unwrap_or(&self.schema));
        if self.family.webhook.is_none() && version != **storage {
            self.family.fit(object, storage);
        }
        Ok(())
    }

    fn fit_storage(&self, object: &mut Value) {
        if self.family.webhook.is_none() {
            self.family.fit(object, &self.family.storage);
        }
    }

    fn scaled(&self, object: &Value) -> Result<Scaled, String> {
        self.scale.as_ref().map_or_else(|| Ok(Scaled::of(object)), |paths| paths.scaled(object))
    }

    fn scale(&self, object: &mut Value, replicas: i64) {
        if let Some(paths) = &self.scale {
            paths.set(object, replicas);
        }
    }

    fn replicas_path(&self) -> Option<Vec<String>> {
        self.scale.as_ref().map(|paths| paths.replicas().map(str::to_owned).collect())
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#").into_iter().chain(self.columns.iter().map(|column| column.column.clone())).collect()
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        std::iter::once(cells.name()).chain(self.columns.iter().map(|column| column.cell(cells))).collect()
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        self.selectable.iter().map(|path| SelectableField::new(path.clone())).collect()
    }
}

fn finalizer_warnings(name: &str) -> Vec<String> {
    let quoted = crate::field::quote(name);
    let warn = |text: &str| format!("metadata.finalizers: {quoted}: {text}");
    let mut warnings: Vec<String> = names::is_qualified_name(name).iter().map(|text| warn(text)).collect();
    if !name.contains('/') && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        warnings.push(warn(&format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        )));
    }
    warnings
}
