//! AdmissionReview: the question and the answer.

use serde_json::{Value, json};
use trireme_api::gvk::GroupVersionKind;
use trireme_api::status::Status;

use crate::admission::request::AdmissionRequest;
use crate::admission::review_request::describe;

/// The objects of a request as one webhook sees them.
#[derive(Debug)]
pub struct Shown {
    /// The version of the resource.
    pub version: String,
    /// The kind, in that version.
    pub kind: GroupVersionKind,
    /// The object, in that version.
    pub object: Value,
    /// The stored object, in that version.
    pub old_object: Value,
}

/// What a webhook answered.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Why not.
    pub result: Value,
    /// Operations on the object.
    pub patch: Option<Value>,
    /// For the client.
    pub warnings: Vec<String>,
    /// For audit events.
    pub audit_annotations: Vec<(String, String)>,
}

/// The question.
pub fn question(request: &AdmissionRequest, shown: &Shown, review_version: &str, uid: &str) -> Value {
    let mut body = describe(request, &shown.kind, &shown.version);
    body["uid"] = json!(uid);
    body["object"] = shown.object.clone();
    body["oldObject"] = shown.old_object.clone();
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{review_version}"), "request": body})
}

/// Reads the answer to the question `uid`. An error is a failure of the webhook, not its refusal.
pub fn verdict(answer: &[u8], review_version: &str, uid: &str, mutating: bool) -> Result<Verdict, String> {
    let answer: Value = trireme_api::schema::parse_json(answer).map_err(|error| format!("invalid response body: {error}"))?;
    let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default();
    let wanted = format!("admission.k8s.io/{review_version}");
    // The old version was lenient about what the answer calls itself.
    if review_version == "v1" && (text("apiVersion") != wanted || text("kind") != "AdmissionReview") {
        return Err(format!(
            "expected webhook response of {wanted}, Kind=AdmissionReview, got {}, Kind={}",
            text("apiVersion"),
            text("kind")
        ));
    }
    let response = answer.get("response").filter(|response| response.is_object()).ok_or("webhook response was absent")?;
    let given = response.get("uid").and_then(Value::as_str).unwrap_or_default();
    if review_version == "v1" && given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let patch = patch_of(response, mutating)?;
    let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let annotations = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    Ok(Verdict {
        allowed: response.get("allowed").and_then(Value::as_bool).unwrap_or_default(),
        result: response.get("status").cloned().unwrap_or_default(),
        patch,
        warnings: warnings.map(str::to_owned).collect(),
        audit_annotations: annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
    })
}

fn patch_of(response: &Value, mutating: bool) -> Result<Option<Value>, String> {
    use base64::Engine;
    let encoded = response.get("patch").and_then(Value::as_str).filter(|patch| !patch.is_empty());
    let kind = response.get("patchType").and_then(Value::as_str);
    match (encoded, kind) {
        (None, None) => Ok(None),
        _ if !mutating => Err("validating webhook may not return response.patch".to_owned()),
        (None, Some(_)) => Err("webhook returned response.patchType but not response.patch".to_owned()),
        (Some(_), kind) if kind.is_some_and(|kind| kind != "JSONPatch") => {
            Err(format!("invalid response.patchType of {:?}", kind.unwrap_or_default()))
        }
        (Some(encoded), _) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|error| format!("response.patch: {error}"))?;
            trireme_api::schema::parse_json(&bytes).map(Some).map_err(|error| format!("response.patch: {error}"))
        }
    }
}

/// The Status of a request that `webhook` refused.
pub fn refusal(webhook: &str, result: &Value) -> Status {
    let denied = format!("admission webhook {webhook:?} denied the request");
    let text = |field: &str| result.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let message = match text("message").or_else(|| text("reason")) {
        Some(why) => format!("{denied}: {why}"),
        None => format!("{denied} without explanation"),
    };
    let code =
        result.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    Status::failure(code.unwrap_or(400), text("reason").unwrap_or_default(), message)
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    fn answer(response: Value) -> Vec<u8> {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}).to_string().into_bytes()
    }

    #[test]
    fn answers_are_verified() {
        let patch = base64::engine::general_purpose::STANDARD.encode(r#"[{"op":"add","path":"/data/a","value":"b"}]"#);
        let good = verdict(
            &answer(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch", "warnings": ["w"]})),
            "v1",
            "u",
            true,
        );
        let good = good.unwrap();
        assert!(good.allowed && good.patch.is_some() && good.warnings == ["w"]);
        for (bad, why) in [
            (answer(json!({"uid": "x", "allowed": true})), "response.uid"),
            (answer(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "Merge"})), "patchType"),
            (answer(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"})), "but not response.patch"),
            (answer(json!({"uid": "u", "allowed": true, "patch": "!", "patchType": "JSONPatch"})), "response.patch"),
            (b"{}".to_vec(), "expected webhook response"),
            (br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#.to_vec(), "absent"),
            (b"no".to_vec(), "invalid response body"),
        ] {
            let error = verdict(&bad, "v1", "u", true).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let given = answer(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch"}));
        assert!(verdict(&given, "v1", "u", false).unwrap_err().contains("may not return"));
        assert!(verdict(br#"{"response":{"allowed":false}}"#, "v1beta1", "u", false).is_ok_and(|verdict| !verdict.allowed));
    }

    #[test]
    fn a_refusal_has_upstreams_words_and_never_the_code_of_a_success() {
        let status = refusal("a.b.c", &json!({"message": "no", "code": 418, "reason": "Teapot"}));
        assert_eq!((status.code(), status.message.as_str()), (418, r#"admission webhook "a.b.c" denied the request: no"#));
        let status = refusal("a.b.c", &json!({"code": 200}));
        assert_eq!((status.code(), status.message.as_str()), (400, r#"admission webhook "a.b.c" denied the request without explanation"#));
    }
}
