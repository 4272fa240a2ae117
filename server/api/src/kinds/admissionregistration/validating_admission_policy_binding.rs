//! ValidatingAdmissionPolicyBindings.

use serde_json::Value;

use super::policy::{self, POLICY_BINDING};
use super::policy_validation;
use crate::default::{Lit::Obj, Set, fill};
use crate::meta;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// Where a policy holds.
pub(crate) struct ValidatingAdmissionPolicyBinding;

impl Kind for ValidatingAdmissionPolicyBinding {
    fn has_status(&self) -> bool {
        false
    }

    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj)]);
        fill(object, POLICY_BINDING);
    }

    fn validate(&self, object: &At<'_>) {
        policy_validation::validating_binding(object);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        policy::audit_warning(meta::list_at(object, &["spec", "validationActions"]).iter().any(|action| action == "Audit"))
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|PolicyName|ParamRef|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        policy::binding_cells(cells)
    }
}
