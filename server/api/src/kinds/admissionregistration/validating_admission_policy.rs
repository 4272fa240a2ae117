//! ValidatingAdmissionPolicies. Upstream: `pkg/registry/admissionregistration/validatingadmissionpolicy`.

use serde_json::Value;

use super::policy::{self, POLICY};
use super::policy_validation;
use crate::default::{Lit::Obj, Set, fill};
use crate::meta;
use crate::resource::{Cells, Column, Kind, carry_own_metadata};
use crate::time::Timestamp;
use crate::validate::At;

/// CEL rules that judge requests.
pub(crate) struct ValidatingAdmissionPolicy;

impl Kind for ValidatingAdmissionPolicy {
    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj)]);
        fill(object, POLICY);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry_own_metadata(object, old);
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn validate(&self, object: &At<'_>) {
        policy_validation::validating(object);
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        policy_validation::status(object);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        policy::audit_warning(!meta::list_at(object, &["spec", "auditAnnotations"]).is_empty())
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Validations:i|ParamKind|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        policy::cells(cells, "validations")
    }
}
