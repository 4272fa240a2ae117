//! Checks of admission policies and bindings. Upstream: `pkg/apis/admissionregistration/validation`.
//!
//! Expressions are not compiled here: the API server does that, in the admission of policies.

use std::collections::BTreeSet;

use super::matching;
use crate::cel::RESERVED_WORDS;
use crate::names;
use crate::validate::{At, metadata};

/// Audit annotations of a policy.
const MAX_ANNOTATIONS: usize = 20;
/// Bytes of the expression of an audit annotation.
const MAX_ANNOTATION_BYTES: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
/// What a mutation can be about: a deletion has no object to change.
const MUTATED: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// A ValidatingAdmissionPolicy.
pub(crate) fn validating(object: &At<'_>) {
    let spec = object.at("spec");
    common(&spec);
    let (validations, annotations) = (spec.at("validations"), spec.at("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        validations.required("validations or auditAnnotations must contain at least one item");
        annotations.required("validations or auditAnnotations must contain at least one item");
        return;
    }
    validations.items().for_each(|item| validation(&item));
    if annotations.len() > MAX_ANNOTATIONS {
        annotations.invalid(format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let mut keys = BTreeSet::new();
    for annotation in annotations.items() {
        audit_annotation(&annotation, object.at("metadata").at("name").text());
        if !keys.insert(annotation.at("key").text()) {
            annotation.at("key").duplicate();
        }
    }
}

/// A MutatingAdmissionPolicy.
pub(crate) fn mutating(object: &At<'_>) {
    let spec = object.at("spec");
    common(&spec);
    let constraints = spec.at("matchConstraints");
    only_mutated(&constraints, &constraints.at("resourceRules").at("operations"));
    let mutations = spec.at("mutations");
    if mutations.is_empty() {
        mutations.required("mutations must contain at least one item");
    }
    mutations.items().for_each(|item| mutation(&item));
    spec.at("reinvocationPolicy").one_of(&["IfNeeded", "Never"]);
}

/// A ValidatingAdmissionPolicyBinding.
pub(crate) fn validating_binding(object: &At<'_>) {
    let spec = object.at("spec");
    binding(&spec);
    let actions = spec.at("validationActions");
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        action.one_of(&["Audit", "Deny", "Warn"]);
        if !seen.insert(action.text()) {
            action.duplicate();
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        actions.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        );
    }
    if seen.is_empty() {
        actions.required("at least one validation action is required");
    }
}

/// A MutatingAdmissionPolicyBinding.
pub(crate) fn mutating_binding(object: &At<'_>) {
    let spec = object.at("spec");
    binding(&spec);
    let resources = spec.at("matchResources");
    only_mutated(&resources, &resources.at("resourceRules").at("operations"));
}

/// The status of a ValidatingAdmissionPolicy.
pub(crate) fn status(object: &At<'_>) {
    for warning in object.at("status").at("typeChecking").at("expressionWarnings").items() {
        for field in ["warning", "fieldRef"] {
            if warning.at(field).text().trim().is_empty() {
                warning.at(field).required("");
            }
        }
    }
}

fn common(spec: &At<'_>) {
    spec.at("failurePolicy").one_of(&["Fail", "Ignore"]);
    if spec.at("paramKind").is_set() {
        param_kind(&spec.at("paramKind"));
    }
    let constraints = spec.at("matchConstraints");
    if constraints.is_set() {
        match_resources(&constraints);
        if constraints.at("resourceRules").is_empty() {
            constraints.at("resourceRules").required("");
        }
    } else {
        constraints.required("");
    }
    matching::match_conditions(&spec.at("matchConditions"));
    for variable in spec.at("variables").items() {
        let (name, expression) = (variable.at("name"), variable.at("expression"));
        if name.text().trim().is_empty() {
            name.required("name is not specified");
        } else if !is_identifier(name.text()) {
            name.invalid("must be a valid CEL identifier");
        }
        if expression.text().trim().is_empty() {
            expression.required("expression is not specified");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain && !name.starts_with(|c: char| c.is_ascii_digit()) && !RESERVED_WORDS.contains(&name)
}

fn param_kind(kind: &At<'_>) {
    let version = kind.at("apiVersion");
    let parts: Vec<&str> = version.text().split('/').collect();
    match parts.as_slice() {
        [""] => version.required(""),
        [only] => label(&version, only),
        [group, label_of_version] => {
            let messages = names::is_dns1123_subdomain(group);
            if !group.is_empty() && !messages.is_empty() {
                version.invalid_as(*group, messages.join(","));
            }
            label(&version, label_of_version);
        }
        _ => version.invalid(format!("unexpected GroupVersion string: {}", version.text())),
    }
    let name = kind.at("kind");
    let messages = names::is_dns1035_label(&name.text().to_lowercase());
    if name.text().is_empty() {
        name.required("");
    } else if !messages.is_empty() {
        name.invalid(format!("may have mixed case, but should otherwise match: {}", messages.join(",")));
    }
}

fn label(version: &At<'_>, text: &str) {
    let messages = names::is_dns1035_label(text);
    if text.is_empty() {
        version.invalid("version must be specified");
    } else if !messages.is_empty() {
        version.invalid_as(text, messages.join(","));
    }
}

fn match_resources(resources: &At<'_>) {
    resources.at("matchPolicy").one_of(&["Equivalent", "Exact"]);
    for field in ["namespaceSelector", "objectSelector"] {
        if resources.at(field).is_set() {
            metadata::selector(&resources.at(field));
        } else {
            resources.at(field).required("");
        }
    }
    for rule in ["resourceRules", "excludeResourceRules"].iter().flat_map(|field| resources.at(field).items()) {
        let mut seen = BTreeSet::new();
        for name in rule.at("resourceNames").items() {
            name.obeys(names::is_path_segment_name);
            if !seen.insert(name.text()) {
                name.duplicate();
            }
        }
        matching::rule(&rule);
    }
}

fn only_mutated(resources: &At<'_>, shown: &At<'_>) {
    for operation in resources.at("resourceRules").items().flat_map(|rule| rule.at("operations").items()) {
        if !MUTATED.contains(&operation.text()) {
            operation.named(shown.path.clone()).not_supported(&MUTATED);
        }
    }
}

fn validation(item: &At<'_>) {
    let (expression, message, made) = (item.at("expression"), item.at("message"), item.at("messageExpression"));
    if expression.text().trim().is_empty() {
        expression.required("expression is not specified");
    }
    for text in [&made, &message] {
        if !text.text().is_empty() && text.text().trim().is_empty() {
            text.invalid("must be non-empty if specified");
        }
    }
    if message.text().trim().contains(['\n', '\r']) {
        message.invalid("must not contain line breaks");
    }
    item.at("reason").may_be_one_of(&REASONS);
}

fn audit_annotation(annotation: &At<'_>, policy: &str) {
    let (key, expression) = (annotation.at("key"), annotation.at("valueExpression"));
    if policy.is_empty() {
        key.invalid("requires metadata.name be non-empty");
    } else {
        let whole = format!("{policy}/{}", key.text());
        for message in names::is_qualified_name(&whole) {
            key.invalid_as(whole.as_str(), message);
        }
    }
    match expression.text().trim().len() {
        0 => expression.required("valueExpression is not specified"),
        length if length > MAX_ANNOTATION_BYTES => {
            expression.required(&format!("must not exceed {MAX_ANNOTATION_BYTES} bytes in length"));
        }
        _ => {}
    }
}

fn mutation(item: &At<'_>) {
    let (kind, apply, patch) = (item.at("patchType"), item.at("applyConfiguration"), item.at("jsonPatch"));
    let expect = |wanted: &At<'_>, other: &At<'_>, other_shown: &str| {
        if !wanted.is_set() {
            wanted.required(&format!("must be specified when patchType is {}", kind.text()));
        } else if wanted.at("expression").text().trim().is_empty() {
            wanted.at("expression").required("");
        }
        if other.is_set() {
            other.invalid_as(other_shown, format!("must not be specified when patchType is {}", kind.text()));
        }
    };
    match kind.text() {
        "JSONPatch" => expect(&patch, &apply, "{applyConfiguration}"),
        "ApplyConfiguration" => expect(&apply, &patch, "{jsonPatch}"),
        _ => kind.one_of(&["ApplyConfiguration", "JSONPatch"]),
    }
}

fn binding(spec: &At<'_>) {
    spec.at("policyName").must_obey(names::is_dns1123_subdomain);
    if spec.at("paramRef").is_set() {
        param_ref(&spec.at("paramRef"));
    }
    if spec.at("matchResources").is_set() {
        match_resources(&spec.at("matchResources"));
    }
}

fn param_ref(reference: &At<'_>) {
    let (name, selector) = (reference.at("name"), reference.at("selector"));
    name.may_obey(names::is_path_segment_name);
    match (name.text().is_empty(), selector.is_set()) {
        (false, true) => {
            name.forbidden("name and selector are mutually exclusive");
            selector.forbidden("name and selector are mutually exclusive");
        }
        (true, false) => reference.required("one of name or selector must be specified"),
        _ => {}
    }
    if selector.is_set() {
        metadata::selector(&selector);
    }
    reference.at("parameterNotFoundAction").one_of(&["Deny", "Allow"]);
}
