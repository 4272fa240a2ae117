//! Checks the rules in the schemas of a definition: their form, and that they compile.
//!
//! Upstream: `ValidateCustomResourceDefinitionOpenAPISchema` in `apiextensions-apiserver/pkg/apis/apiextensions/validation`.

use serde_json::Value as Json;

use super::rule::Rule;
use super::{field_path, types};
use crate::cel::Type;
use crate::custom::structural::{ListType, Structural};
use crate::field::FieldPath;
use crate::validate::At;

/// Values of `reason`.
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Checks the form of the rules of one schema.
pub fn check_form(schema: &At<'_>) {
    let rules = schema.at("x-kubernetes-validations");
    if rules.is_empty() {
        return;
    }
    let named = rules.items().any(|rule| !rule.at("fieldPath").text().is_empty());
    let parsed = if named { Structural::parse(schema.value).ok() } else { None };
    for rule in rules.items() {
        let (text, message) = (rule.at("rule"), rule.at("message"));
        let has_breaks = |text: &str| text.contains(['\n', '\r']);
        let (trimmed, trimmed_message) = (text.text().trim(), message.text().trim());
        if trimmed.is_empty() {
            text.required("rule is not specified");
        } else if !message.text().is_empty() && trimmed_message.is_empty() {
            message.invalid("must be non-empty if specified");
        } else if has_breaks(trimmed_message) {
            message.invalid("must not contain line breaks");
        } else if has_breaks(trimmed) && trimmed_message.is_empty() {
            message.required("message must be specified if rule contains line breaks");
        }
        let expression = rule.at("messageExpression");
        if !expression.text().is_empty() && expression.text().trim().is_empty() {
            expression.required("messageExpression must be non-empty if specified");
        }
        if rule.at("reason").is_set() && !REASONS.contains(&rule.at("reason").text()) {
            rule.at("reason").not_supported(&REASONS);
        }
        let path = rule.at("fieldPath");
        if !path.text().is_empty() {
            if path.text().trim().is_empty() {
                path.invalid("must be non-empty if specified");
            }
            if has_breaks(path.text()) {
                path.invalid("must not contain line breaks");
            }
            if parsed.as_ref().is_some_and(|parsed| field_path::resolve(path.text(), parsed).is_err()) {
                path.invalid("must be a valid path");
            }
        }
    }
}

/// Compiles the rules of a whole schema that is sound otherwise.
pub fn check_expressions(schema: &At<'_>, parsed: &Structural) {
    walk(schema, parsed, types::of(parsed, true).as_ref(), None);
}

/// `apart`: the enclosing list whose items have no keys, if any.
fn walk(at: &At<'_>, schema: &Structural, of: Option<&Type>, apart: Option<&FieldPath>) {
    let Some(of) = of else {
        if !schema.rules.is_empty() {
            let why = "internal error: failed to retrieve type information for x-kubernetes-validations";
            at.errors.push(crate::field::FieldError::internal(&at.at("x-kubernetes-validations").path, why));
        }
        return;
    };
    for (rule, at) in schema.rules.iter().zip(at.at("x-kubernetes-validations").items()) {
        check_rule(&at, rule, schema, of, apart);
    }
    for (name, inner) in at.at("properties").entries() {
        if let Some(schema) = schema.properties.get(name) {
            walk(&inner, schema, types::of_field(of, name, schema).as_ref(), apart);
        }
    }
    if let Some(inner) = schema.values() {
        walk(&at.at("additionalProperties"), inner, types::of_field(of, "", inner).as_ref(), apart);
    }
    if let Some(inner) = schema.items.as_deref() {
        let apart = apart.or(Some(&at.path).filter(|_| schema.list_type != ListType::Map));
        walk(&at.at("items"), inner, types::of_items(of).as_ref(), apart);
    }
}

fn check_rule(at: &At<'_>, rule: &Json, schema: &Structural, of: &Type, apart: Option<&FieldPath>) {
    let compiled = Rule::compile(rule, schema, of);
    if let Err(why) = &compiled.expression {
        at.at("rule").invalid_as(rule.clone(), why.as_str());
    }
    if let Some(Err(why)) = &compiled.message_expression {
        at.at("messageExpression").invalid_as(rule.clone(), why.as_str());
    }
    if compiled.uses_old {
        if let Some(path) = apart {
            at.at("rule").invalid(format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}"));
        }
    } else if at.at("optionalOldSelf").is_set() {
        at.at("optionalOldSelf").invalid("may not be set if oldSelf is not used in rule");
    }
}
