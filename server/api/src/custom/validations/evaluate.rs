//! Evaluates the rules of a schema on an object, walking both in parallel.
//!
//! Upstream: `Validator.validate` in `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

use serde_json::Value as Json;

use super::Validations;
use super::ratchet::{Before, Ratchet};
use super::rule::{Reason, Rule};
use super::values;
use crate::cel::{Bindings, Budget, EXPRESSION_STEPS, Evaluation, Expression, Fault, Regexes, Value, Variables};
use crate::custom::structural::Structural;
use crate::field::{BadValue, ErrorKind, FieldError, FieldErrors, FieldPath};

/// Steps of all rules for one object.
const OBJECT_STEPS: usize = 10 * EXPRESSION_STEPS;
/// Bytes of a message that an expression makes.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
/// More errors than this are not looked for.
const ERRORS_MAX: usize = 100;

/// The violations that the rules found in an object.
#[derive(Debug, Default)]
pub struct Findings {
    /// Violations for which the object is refused.
    pub errors: FieldErrors,
    /// Violations that the object had before the update: the client gets them as warnings.
    pub warnings: Vec<String>,
}

/// The evaluation of all rules for one object.
pub struct Evaluator {
    left: usize,
    found: Findings,
    none: Variables,
    regexes: Regexes,
}

impl Default for Evaluator {
    fn default() -> Evaluator {
        Evaluator { left: OBJECT_STEPS, found: Findings::default(), none: Variables::default(), regexes: Regexes::default() }
    }
}

/// No more rules are evaluated.
struct Stop;

/// A value, and where it is.
struct At<'a> {
    schema: &'a Structural,
    path: &'a FieldPath,
    value: &'a Json,
    old: Option<&'a Json>,
    ratchet: Ratchet<'a>,
}

/// `self` and `oldSelf`.
struct Variable {
    own: Value,
    old: Option<Value>,
}

impl Bindings for Variable {
    fn get(&self, name: &str) -> Option<Value> {
        match name {
            "self" => Some(self.own.clone()),
            "oldSelf" => self.old.clone(),
            _ => None,
        }
    }
}

// === impl Evaluator ===

impl Evaluator {
    /// Evaluates the rules on a value.
    pub fn run(mut self, rules: &Validations, schema: &Structural, value: &Json, old: Option<&Json>, ratchet: Ratchet<'_>) -> Findings {
        let path = FieldPath::root();
        let _ = self.walk(rules, At { schema, path: &path, value, old, ratchet });
        self.found
    }

    fn walk(&mut self, rules: &Validations, at: At<'_>) -> Result<(), Stop> {
        // A rule that is to see a null stands around it.
        if at.value.is_null() {
            return Ok(());
        }
        self.rules(&rules.rules, &at)?;
        match at.value {
            Json::Object(map) => {
                for (key, value) in map {
                    let old = at.old.and_then(|old| old.get(key));
                    let (inner, schema, path) = match (rules.properties.get(key), at.schema.properties.get(key)) {
                        (Some(inner), Some(schema)) => (inner, schema, at.path.child(key)),
                        _ => match (rules.values.as_deref(), at.schema.values()) {
                            (Some(inner), Some(schema)) => (inner, schema, at.path.key(key)),
                            _ => continue,
                        },
                    };
                    self.walk(inner, At { schema, path: &path, value, old, ratchet: at.ratchet.key(key) })?;
                }
            }
            Json::Array(items) => {
                let (Some(inner), Some(schema)) = (rules.items.as_deref(), at.schema.items.as_deref()) else { return Ok(()) };
                let before = Before::new(at.old, at.schema);
                for (index, value) in items.iter().enumerate() {
                    let (old, path) = (before.of(value), at.path.index(index));
                    self.walk(inner, At { schema, path: &path, value, old, ratchet: at.ratchet.item(value, old) })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(&mut self, rules: &[Rule], at: &At<'_>) -> Result<(), Stop> {
        if rules.is_empty() {
            return Ok(());
        }
        let own = match self.value(at, at.value)? {
            Some(own) => own,
            None => return Ok(()),
        };
        let old = match at.old.filter(|old| !old.is_null() && rules.iter().any(|rule| rule.uses_old)) {
            Some(old) => self.value(at, old)?,
            None => None,
        };
        for rule in rules {
            // A transition needs something to compare with.
            if rule.uses_old && old.is_none() && !rule.old_is_optional {
                continue;
            }
            let old = match rule.old_is_optional {
                true => Some(crate::cel::values::optional(old.clone())),
                false => old.clone(),
            };
            self.rule(rule, &Variable { own: own.clone(), old }, at)?;
        }
        Ok(())
    }

    /// The value as expressions see it; None if it does not fit its schema.
    fn value(&mut self, at: &At<'_>, json: &Json) -> Result<Option<Value>, Stop> {
        let mut budget = Budget::new(self.left);
        let value = values::of(json, at.schema, &mut budget);
        self.left = budget.left();
        match value {
            Ok(value) => Ok(Some(value)),
            Err(Fault::OutOfBudget) => Err(self.exhausted(at)),
            Err(Fault::Error(why)) => {
                self.refuse(at, why)?;
                Ok(None)
            }
        }
    }

    fn rule(&mut self, rule: &Rule, variable: &Variable, at: &At<'_>) -> Result<(), Stop> {
        let expression = match &rule.expression {
            Ok(expression) => expression,
            Err(why) => return self.refuse(at, format!("rule compile error: {why}")),
        };
        match self.evaluate(expression, variable) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(_) => {
                let message = self.message(rule, variable, at)?;
                self.failed(rule, at, message)
            }
            Err(Fault::OutOfBudget) if self.left == 0 => Err(self.exhausted(at)),
            Err(Fault::OutOfBudget) => {
                let why = format!(
                    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.shown()
                );
                self.refuse(at, why)?;
                Err(Stop)
            }
            Err(Fault::Error(why)) if why.starts_with("no such overload") => {
                let shown = rule.shown();
                let why =
                    format!("'{why}': call arguments did not match a supported operator, function or macro signature for rule: {shown}");
                self.refuse(at, why)
            }
            Err(Fault::Error(why)) => self.refuse(at, format!("{why} evaluating rule: {}", rule.shown())),
        }
    }

    fn evaluate(&mut self, expression: &Expression, variable: &Variable) -> Result<Value, Fault> {
        if self.left == 0 {
            return Err(Fault::OutOfBudget);
        }
        let mut evaluation = Evaluation::new(variable, &self.none, self.left).with_regexes(std::mem::take(&mut self.regexes));
        let outcome = expression.value(&mut evaluation);
        self.left = *evaluation.left();
        self.regexes = evaluation.into_regexes();
        outcome
    }

    /// What a refusal says: what its expression makes, else what is written.
    fn message(&mut self, rule: &Rule, variable: &Variable, at: &At<'_>) -> Result<String, Stop> {
        if let Some(Ok(expression)) = &rule.message_expression {
            match self.evaluate(expression, variable) {
                Ok(Value::String(text)) => {
                    let text = text.trim();
                    if !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n') {
                        return Ok(text.to_owned());
                    }
                }
                Err(Fault::OutOfBudget) => {
                    let why =
                        "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
                    self.refuse(at, why.to_owned())?;
                    return Err(Stop);
                }
                Ok(_) | Err(Fault::Error(_)) => {}
            }
        }
        Ok(if rule.message.is_empty() { format!("failed rule: {}", rule.text) } else { rule.message.clone() })
    }

    fn failed(&mut self, rule: &Rule, at: &At<'_>, message: String) -> Result<(), Stop> {
        let path = match &rule.field {
            Some(field) if field.as_str().starts_with('[') => FieldPath::new(&format!("{}{}", at.path.as_str(), field.as_str())),
            Some(field) => at.path.child(field.as_str()),
            None => at.path.clone(),
        };
        let shown = match at.schema.type_.as_str() {
            "object" | "array" => BadValue::Omitted,
            _ => BadValue::Shown(at.value.clone()),
        };
        let (kind, detail) = match rule.reason {
            Reason::Invalid => (ErrorKind::Invalid, message),
            Reason::Forbidden => (ErrorKind::Forbidden, message),
            Reason::Required => (ErrorKind::Required, message),
            Reason::Duplicate => (ErrorKind::Duplicate, String::new()),
        };
        let error = FieldError { kind, path: path.to_string(), bad_value: shown, detail };
        // An invalid value that the update did not touch does not block other changes.
        if !rule.uses_old && at.ratchet.is_unchanged() {
            if self.found.warnings.len() < ERRORS_MAX {
                self.found.warnings.push(error.to_string());
            }
            return Ok(());
        }
        self.push(error)
    }

    fn refuse(&mut self, at: &At<'_>, why: String) -> Result<(), Stop> {
        self.push(FieldError::invalid(at.path, at.schema.type_.as_str(), why))
    }

    fn exhausted(&mut self, at: &At<'_>) -> Stop {
        let _ = self.refuse(at, Fault::OutOfBudget.to_string());
        Stop
    }

    fn push(&mut self, error: FieldError) -> Result<(), Stop> {
        self.found.errors.push(error);
        if self.found.errors.len() < ERRORS_MAX { Ok(()) } else { Err(Stop) }
    }
}
