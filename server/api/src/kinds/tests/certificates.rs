//! Certificate requests: who may decide, and what each path keeps.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::now;
use crate::resource::Definition;

fn requests() -> Arc<Definition> {
    crate::kinds::find("certificates.k8s.io", "certificatesigningrequests").unwrap()
}

fn request(conditions: Value) -> Value {
    let pem = BASE64_STANDARD.encode(include_str!("../../certificate_request/alice.pem"));
    json!({"metadata": {"name": "r", "resourceVersion": "1"}, "spec": {"request": pem, "usages": ["client auth"],
        "signerName": "example.com/s"}, "status": {"conditions": conditions}})
}

fn condition(kind: &str, message: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "r", "message": message})
}

fn through(subresource: &str, new: Value, old: &Value) -> (Value, Vec<String>) {
    let mut object = new;
    requests().prepare_for_subresource(subresource, &mut object, old, now());
    let errors = requests().validate_subresource(subresource, &object, old);
    (object, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn security_16_only_approval_adds_a_decision() {
    let old = request(json!([]));
    for kind in ["Approved", "Denied"] {
        let new = request(json!([condition(kind, "m")]));
        let refusal = format!("status.conditions: Forbidden: updates may not add a condition of type {kind:?}");
        assert_eq!(through("status", new.clone(), &old).1, [refusal]);
        assert_eq!(through("approval", new.clone(), &old).1, Vec::<String>::new());
        let taken = format!("status.conditions: Forbidden: updates may not remove a condition of type {kind:?}");
        assert_eq!(through("status", old.clone(), &new).1, std::slice::from_ref(&taken));
        assert_eq!(through("approval", old.clone(), &new).1, [taken]);
    }
    assert_eq!(through("status", request(json!([condition("Failed", "m")])), &old).1, Vec::<String>::new());
}

#[test]
fn a_status_update_does_not_change_what_a_decision_says() {
    let (old, _) = through("approval", request(json!([condition("Approved", "first")])), &request(json!([])));
    let (object, errors) = through("status", request(json!([condition("Approved", "second")])), &old);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(object["status"], old["status"]);
}

#[test]
fn conformance_csr_operations_metadata_is_kept_on_both_paths() {
    for subresource in ["status", "approval"] {
        let mut new = request(json!([]));
        new["metadata"]["annotations"] = json!({"patched": "true"});
        new["spec"]["username"] = json!("other");
        new["status"]["certificate"] = json!("eA==");
        let (object, _) = through(subresource, new, &request(json!([])));
        assert_eq!(object["metadata"]["annotations"], json!({"patched": "true"}), "{subresource}");
        assert_eq!(object["spec"].get("username"), None, "{subresource}");
        assert_eq!(object["status"].get("certificate").is_some(), subresource == "status");
    }
}

#[test]
fn conditions_get_their_times_once() {
    let (object, _) = through("approval", request(json!([condition("Approved", "m")])), &request(json!([])));
    let stamped = &object["status"]["conditions"][0];
    assert_eq!(stamped["lastUpdateTime"], "2024-01-01T01:00:00Z");
    assert_eq!(stamped["lastTransitionTime"], "2024-01-01T01:00:00Z");
}
