//! One rule of a schema: as it is written, and compiled.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/cel/compilation.go`.

use serde_json::Value as Json;

use super::field_path;
use crate::cel::{Expression, Names, Type, Variables, Wanted};
use crate::custom::structural::Structural;
use crate::field::FieldPath;

/// What a rule says about a value that it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// `FieldValueInvalid`
    #[default]
    Invalid,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueRequired`
    Required,
    /// `FieldValueDuplicate`
    Duplicate,
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// The expression, or why it does not compile.
    pub expression: Result<Expression, String>,
    /// The expression that makes the message; None: there is none.
    pub message_expression: Option<Result<Expression, String>>,
    /// The message, or empty.
    pub message: String,
    /// What a refusal is.
    pub reason: Reason,
    /// The field that is refused, below the value.
    pub field: Option<FieldPath>,
    /// Whether it looks at what the value was before.
    pub uses_old: bool,
    /// Whether it is evaluated without a value before, too: `oldSelf` is an optional.
    pub old_is_optional: bool,
    /// The expression's text.
    pub text: String,
}

/// `self` and `oldSelf`.
struct Variable {
    own: Type,
    old: Type,
}

impl Names for Variable {
    fn get(&self, name: &str) -> Option<Type> {
        match name {
            "self" => Some(self.own.clone()),
            "oldSelf" => Some(self.old.clone()),
            _ => None,
        }
    }
}

// === impl Rule ===

impl Rule {
    /// Compiles an item of `x-kubernetes-validations` for values of a type.
    pub fn compile(rule: &Json, schema: &Structural, of: &Type) -> Rule {
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let old_is_optional = rule["optionalOldSelf"] == true;
        let old = if old_is_optional { Type::optional(of.clone()) } else { of.clone() };
        let (names, none) = (Variable { own: of.clone(), old }, Variables::default());
        let compiled = |text: &str, wanted| Expression::compile(text, wanted, &names, &none);
        let expression = compiled(text("rule"), Wanted::Bool)
            .map_err(|why| mistyped(why, "must evaluate to bool", "cel expression must evaluate to a bool"));
        let message_expression = Some(text("messageExpression")).filter(|text| !text.is_empty()).map(|text| {
            compiled(text, Wanted::Text).map_err(|why| match why.starts_with("must evaluate") {
                true => "messageExpression must evaluate to a string".to_owned(),
                false => format!("messageExpression {why}"),
            })
        });
        Rule {
            uses_old: expression.as_ref().is_ok_and(|expression| expression.refers_to("oldSelf")),
            expression,
            message_expression,
            message: text("message").trim().to_owned(),
            reason: reason(text("reason")),
            field: Some(text("fieldPath")).filter(|path| !path.is_empty()).and_then(|path| field_path::resolve(path, schema).ok()),
            old_is_optional,
            text: text("rule").trim().to_owned(),
        }
    }

    /// How messages name it.
    pub fn shown(&self) -> &str {
        if self.message.is_empty() { &self.text } else { &self.message }
    }
}

fn mistyped(why: String, start: &str, words: &str) -> String {
    if why.starts_with(start) { words.to_owned() } else { why }
}

fn reason(text: &str) -> Reason {
    match text {
        "FieldValueForbidden" => Reason::Forbidden,
        "FieldValueRequired" => Reason::Required,
        "FieldValueDuplicate" => Reason::Duplicate,
        _ => Reason::Invalid,
    }
}
