//! The access review kinds of `authorization.k8s.io/v1`: questions to the authorizer as objects.
//!
//! Each function takes the posted object and gives it back with its status; nothing is stored.
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access>.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trireme_api::{
    field::{FieldError, FieldPath},
    gvk::GroupKind,
    meta,
    status::Status,
};

use super::{Authorizer, RBAC_GROUP};
use crate::attributes::Attributes;
use crate::user::UserInfo;

const GROUP: &str = "authorization.k8s.io";

/// SubjectAccessReview: may that user do this?
pub async fn subject(authorizer: &Authorizer, review: Value) -> Result<Value, Box<Status>> {
    answer(authorizer, "SubjectAccessReview", review, None).await
}

/// LocalSubjectAccessReview: the same, within one namespace.
pub async fn local_subject(authorizer: &Authorizer, namespace: &str, review: Value) -> Result<Value, Box<Status>> {
    let path = FieldPath::new("spec").child("resourceAttributes").child("namespace");
    let asked = meta::str_at(&review, &["spec", "resourceAttributes", "namespace"]).to_owned();
    if review["spec"]["nonResourceAttributes"].is_object() {
        let path = FieldPath::new("spec").child("nonResourceAttributes");
        let error = FieldError::invalid(&path, review["spec"]["nonResourceAttributes"].clone(), "disallowed on this kind of request");
        return Err(invalid("LocalSubjectAccessReview", vec![error]));
    }
    if asked != namespace {
        let error = FieldError::invalid(&path, asked, "must match metadata.namespace");
        return Err(invalid("LocalSubjectAccessReview", vec![error]));
    }
    answer(authorizer, "LocalSubjectAccessReview", review, None).await
}

/// SelfSubjectAccessReview: may I do this?
pub async fn own(authorizer: &Authorizer, user: &UserInfo, review: Value) -> Result<Value, Box<Status>> {
    answer(authorizer, "SelfSubjectAccessReview", review, Some(user)).await
}

/// SelfSubjectRulesReview: what may I do here?
pub fn rules(authorizer: &Authorizer, user: &UserInfo, mut review: Value) -> Result<Value, Box<Status>> {
    let namespace = meta::str_at(&review, &["spec", "namespace"]).to_owned();
    if namespace.is_empty() {
        return Err(Box::new(Status::bad_request("no namespace on request")));
    }
    let (rules, unresolved) = authorizer.index().rules_for(user, &namespace);
    let (mut resource, mut non_resource) = (Vec::new(), Vec::new());
    for rule in rules {
        if rule.resources.is_empty() {
            non_resource.push(rule.to_value());
        } else {
            resource.push(rule.to_value());
        }
    }
    let mut status = json!({
        "resourceRules": resource,
        "nonResourceRules": non_resource,
        "incomplete": !unresolved.is_empty(),
    });
    if !unresolved.is_empty() {
        status["evaluationError"] = Value::from(unresolved.join(", "));
    }
    review["status"] = status;
    Ok(review)
}

async fn answer(authorizer: &Authorizer, kind: &'static str, mut review: Value, asker: Option<&UserInfo>) -> Result<Value, Box<Status>> {
    let spec = &review["spec"];
    validate(kind, spec, asker.is_none())?;
    let user = match asker {
        Some(user) => user.clone(),
        None => user_of(spec),
    };
    let request = attributes(spec, user);
    let decision = authorizer.authorize(&request).await;
    let mut status = serde_json::Map::new();
    status.insert("allowed".into(), Value::from(decision.allowed));
    if !decision.reason.is_empty() {
        status.insert("reason".into(), Value::from(decision.reason));
    }
    review["status"] = Value::Object(status);
    Ok(review)
}

fn validate(kind: &'static str, spec: &Value, names_user: bool) -> Result<(), Box<Status>> {
    let root = FieldPath::new("spec");
    let (resource, path) = (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    let mut errors = Vec::new();
    if resource && path {
        errors.push(FieldError::invalid(
            &root.child("nonResourceAttributes"),
            spec["nonResourceAttributes"].clone(),
            "cannot be specified in combination with resourceAttributes",
        ));
    }
    if !resource && !path {
        errors.push(FieldError::invalid(
            &root.child("resourceAttributes"),
            spec["resourceAttributes"].clone(),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let nobody = meta::str_at(spec, &["user"]).is_empty() && meta::list_at(spec, &["groups"]).is_empty();
    if names_user && nobody {
        errors.push(FieldError::invalid(&root.child("user"), "", "at least one of user or group must be specified"));
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid(kind, errors)) }
}

fn invalid(kind: &'static str, errors: Vec<FieldError>) -> Box<Status> {
    Box::new(Status::invalid(&GroupKind::new(GROUP, kind), "", &errors))
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
}

fn user_of(spec: &Value) -> UserInfo {
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .map(|map| map.iter().map(|(key, list)| (key.to_ascii_lowercase(), strings(list))).collect())
        .unwrap_or_default();
    UserInfo {
        name: meta::str_at(spec, &["user"]).to_owned(),
        uid: meta::str_at(spec, &["uid"]).to_owned(),
        groups: strings(&spec["groups"]),
        extra,
    }
}

/// The question in the authorizer's form.
fn attributes(spec: &Value, user: UserInfo) -> Attributes {
    if let Some(asked) = spec["resourceAttributes"].as_object() {
        let text = |field: &str| asked.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let raw = |selector: &str| asked.get(selector).and_then(|s| s["rawSelector"].as_str()).map(str::to_owned);
        return Attributes {
            user,
            verb: text("verb"),
            resource_request: true,
            group: text("group"),
            version: text("version"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
            path: String::new(),
            field_selector: raw("fieldSelector"),
            label_selector: raw("labelSelector"),
        };
    }
    let asked = &spec["nonResourceAttributes"];
    Attributes {
        user,
        verb: meta::str_at(asked, &["verb"]).to_owned(),
        path: meta::str_at(asked, &["path"]).to_owned(),
        ..Attributes::default()
    }
}

/// Whether a resource is one whose writes need the escalation check.
pub fn needs_escalation_check(group: &str, resource: &str) -> bool {
    group == RBAC_GROUP && super::RBAC_RESOURCES.contains(&resource)
}
