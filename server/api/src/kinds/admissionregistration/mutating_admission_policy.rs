//! MutatingAdmissionPolicies.

use serde_json::Value;

use super::policy::{self, POLICY};
use super::policy_validation;
use crate::default::{Lit::*, Set, fill};
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// CEL rules that change requests.
pub(crate) struct MutatingAdmissionPolicy;

impl Kind for MutatingAdmissionPolicy {
    fn has_status(&self) -> bool {
        false
    }

    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj)]);
        fill(object, POLICY);
        fill(object, &[Set("spec", "reinvocationPolicy", S("Never"))]);
    }

    fn validate(&self, object: &At<'_>) {
        policy_validation::mutating(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Mutations:i|ParamKind|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        policy::cells(cells, "mutations")
    }
}
