//! An AdmissionRequest without its objects and its uid: what webhooks are sent and what expressions see as `request`.
//!
//! Answers to `k8s.io/api/admission/v1.AdmissionRequest`.

use serde_json::{Value, json};
use trireme_api::gvk::GroupVersionKind;

use super::request::AdmissionRequest;
use crate::authn::review::user_value;

/// The request as it is shown in `kind` and `version` of its resource.
pub fn describe(request: &AdmissionRequest, kind: &GroupVersionKind, version: &str) -> Value {
    let kind_of = |gvk: &GroupVersionKind| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
    let gvr = &request.resource;
    let resource_of = |version: &str| json!({"group": gvr.group, "version": version, "resource": gvr.resource});
    let mut described = json!({
        "kind": kind_of(kind),
        "resource": resource_of(version),
        "requestKind": kind_of(&request.requested_kind),
        "requestResource": resource_of(&gvr.version),
        "operation": request.operation.as_str(),
        "userInfo": user_value(&request.user),
        "dryRun": request.dry_run,
        "options": request.options,
    });
    for (field, value) in [
        ("subResource", &request.subresource),
        ("requestSubResource", &request.subresource),
        ("name", &request.name),
        ("namespace", &request.namespace),
    ] {
        if !value.is_empty() {
            described[field] = Value::from(value.as_str());
        }
    }
    described
}
