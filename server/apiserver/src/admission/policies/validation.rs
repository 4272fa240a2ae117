//! A ValidatingAdmissionPolicy, compiled, and what it decides.

use serde_json::Value as Json;
use trireme_api::meta;

use super::policy::Policy;
use crate::admission::cel::{self, Declared, Evaluation, Expression, Fault, Inputs, Value, Wanted};

/// Bytes of a message that an expression makes.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// A compiled policy.
#[derive(Debug)]
pub struct ValidatingPolicy {
    /// What all policies have.
    pub base: Policy,
    validations: Vec<Validation>,
    audit_annotations: Vec<(String, Compiled)>,
}

/// An expression, or why it does not compile.
type Compiled = Result<Expression, String>;

#[derive(Debug)]
struct Validation {
    expression: Compiled,
    message: String,
    message_expression: Option<Compiled>,
    reason: String,
    text: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For the client.
    pub message: String,
    /// The Status' reason, or empty.
    pub reason: String,
    /// Whether the binding's actions apply. An error of an audit annotation denies whatever they are.
    pub by_validation: bool,
    /// The place of the validation in the policy.
    pub index: usize,
}

/// What a policy says about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Why it is refused; empty: it is not.
    pub refusals: Vec<Refusal>,
    /// Facts for audit events, by the keys of the policy.
    pub annotations: Vec<(String, String)>,
}

impl From<Option<Refusal>> for Decision {
    fn from(refusal: Option<Refusal>) -> Decision {
        Decision { refusals: refusal.into_iter().collect(), annotations: Vec::new() }
    }
}

// === impl ValidatingPolicy ===

impl ValidatingPolicy {
    /// Parses and compiles a policy.
    pub fn parse(policy: &Json) -> ValidatingPolicy {
        let base = Policy::parse(policy);
        let declared = base.declared();
        let without_authorizer = Declared::new(base.param_kind.is_some(), false);
        let compile = |text: &str, wanted, declared: &Declared| Expression::compile(text, wanted, declared, &base.variables);
        let spec = &policy["spec"];
        let validations = meta::list_at(spec, &["validations"]).iter().map(|validation| {
            let text = |field: &str| meta::str_at(validation, &[field]).to_owned();
            let message = text("messageExpression");
            Validation {
                expression: compile(&text("expression"), Wanted::Bool, &declared),
                message: text("message").trim().to_owned(),
                message_expression: Some(message)
                    .filter(|text| !text.is_empty())
                    .map(|text| compile(&text, Wanted::Text, &without_authorizer)),
                reason: text("reason"),
                text: text("expression"),
            }
        });
        let validations = validations.collect();
        let annotations = meta::list_at(spec, &["auditAnnotations"]).iter();
        let audit_annotations = annotations.map(|annotation| {
            let text = |field: &str| meta::str_at(annotation, &[field]).trim();
            (text("key").to_owned(), compile(text("valueExpression"), Wanted::TextOrNull, &declared))
        });
        let audit_annotations = audit_annotations.collect();
        ValidatingPolicy { base, validations, audit_annotations }
    }

    /// Judges a request with these inputs.
    pub fn evaluate(&self, inputs: &Inputs) -> Decision {
        let mut evaluation = Evaluation::new(inputs, &self.base.variables, cel::POLICY_STEPS);
        let matched = match &self.base.conditions {
            Ok(conditions) => conditions.decide(&mut evaluation),
            Err(why) => Err(format!("compilation error: {why}")),
        };
        match matched {
            Ok(true) => {}
            Ok(false) => return Decision::default(),
            Err(why) => return self.failed(0, why).into(),
        }
        let mut decision = Decision::default();
        for (index, validation) in self.validations.iter().enumerate() {
            match self.judge(index, validation, &mut evaluation) {
                Ok(refusal) => decision.refusals.extend(refusal),
                // As upstream, earlier decisions of this policy are discarded.
                Err(Fault::OutOfBudget) => return self.failed(index, Fault::OutOfBudget.to_string()).into(),
                Err(Fault::Error(why)) => decision.refusals.extend(self.failed(index, why)),
            }
        }
        for (index, (key, annotation)) in self.audit_annotations.iter().enumerate() {
            match annotate(annotation, &mut evaluation) {
                Ok(value) => decision.annotations.extend(value.map(|value| (key.clone(), value))),
                Err(why) => {
                    let refusal = self.failed(index, why).map(|refusal| Refusal { by_validation: false, ..refusal });
                    decision.refusals.extend(refusal);
                }
            }
        }
        decision
    }

    fn judge<'a>(&'a self, index: usize, validation: &'a Validation, evaluation: &mut Evaluation<'a>) -> Result<Option<Refusal>, Fault> {
        let expression = validation.expression.as_ref().map_err(|why| Fault::Error(format!("compilation error: {why}")))?;
        if matches!(expression.evaluate(evaluation)?, Value::Bool(true)) {
            return Ok(None);
        }
        let message = match &validation.message_expression {
            Some(Ok(expression)) => message_of(expression, evaluation)?,
            _ => None,
        };
        let own = Some(validation.message.clone()).filter(|message| !message.is_empty());
        let message = message.or(own).unwrap_or_else(|| format!("failed expression: {}", validation.text.trim()));
        Ok(Some(Refusal { message, reason: validation.reason.clone(), by_validation: true, index }))
    }

    /// What an error means.
    fn failed(&self, index: usize, message: String) -> Option<Refusal> {
        (!self.base.ignores_failure).then(|| Refusal { message, reason: String::new(), by_validation: true, index })
    }
}

/// The message that an expression makes; None: it makes none that can be shown.
fn message_of<'a>(expression: &'a Expression, evaluation: &mut Evaluation<'a>) -> Result<Option<String>, Fault> {
    let text = match expression.evaluate(evaluation) {
        Ok(Value::String(text)) => text.trim().to_owned(),
        Ok(_) | Err(Fault::Error(_)) => return Ok(None),
        Err(Fault::OutOfBudget) => return Err(Fault::error(format!("failed messageExpression: {}", Fault::OutOfBudget))),
    };
    let shown = !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n');
    Ok(shown.then_some(text))
}

/// Evaluates an audit annotation; none if it has nothing to say.
fn annotate<'a>(annotation: &'a Compiled, evaluation: &mut Evaluation<'a>) -> Result<Option<String>, String> {
    let expression = annotation.as_ref().map_err(|why| format!("compilation error: {why}"))?;
    match expression.evaluate(evaluation) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Ok(other) => Err(format!(
            "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
            expression.text(),
            cel::values::type_name(&other)
        )),
        Err(fault) => Err(fault.to_string()),
    }
}
