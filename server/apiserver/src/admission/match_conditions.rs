//! The match conditions of webhooks and policies: expressions that must all be true for the webhook or policy to apply to a request.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-matchconditions>.

use serde_json::Value;
use trireme_api::meta;

use super::cel::{self, Declared, Evaluation, Expression, Fault, Inputs, Variables, Wanted};
use super::request::AdmissionRequest;
use crate::authz::Authorizer;

/// Compiled conditions.
#[derive(Debug, Default)]
pub struct MatchConditions {
    conditions: Vec<Expression>,
    none: Variables,
}

// === impl MatchConditions ===

impl MatchConditions {
    /// Compiles a list of `{name, expression}`, as webhooks have it.
    ///
    /// # Errors
    /// For each condition that does not compile, its index and upstream's words.
    pub fn compile(list: &Value) -> Result<MatchConditions, Vec<(usize, String)>> {
        MatchConditions::compile_with(list, &Declared::new(false, true))
    }

    /// Compiles a list that may refer to what is declared.
    ///
    /// # Errors
    /// As [`MatchConditions::compile`].
    pub fn compile_with(list: &Value, declared: &Declared) -> Result<MatchConditions, Vec<(usize, String)>> {
        let (mut compiled, mut errors) = (MatchConditions::default(), Vec::new());
        for (index, condition) in list.as_array().into_iter().flatten().enumerate() {
            let text = meta::str_at(condition, &["expression"]).trim();
            match Expression::compile(text, Wanted::Bool, declared, &compiled.none) {
                Ok(expression) => compiled.conditions.push(expression),
                Err(why) => errors.push((index, why)),
            }
        }
        if errors.is_empty() { Ok(compiled) } else { Err(errors) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether a webhook is asked. `version` is the one in which it sees the request. One condition that does not hold decides, whatever
    /// becomes of the others.
    ///
    /// # Errors
    /// No condition fails to hold, and one cannot be evaluated: what that means is for the `failurePolicy` to say.
    pub async fn matches(
        &self,
        request: &AdmissionRequest,
        version: &str,
        namespace: Option<&Value>,
        authorizer: &Authorizer,
    ) -> Result<bool, String> {
        if self.is_empty() {
            return Ok(true);
        }
        let inputs = Inputs::new(request, version, namespace).await?.with_authorizer(authorizer, request);
        self.decide(&mut Evaluation::new(&inputs, &self.none, cel::EXPRESSION_STEPS))
    }

    /// As [`MatchConditions::matches`], as a part of a greater evaluation.
    ///
    /// # Errors
    /// As [`MatchConditions::matches`].
    pub fn decide<'a>(&'a self, evaluation: &mut Evaluation<'a>) -> Result<bool, String> {
        let mut errors = Vec::new();
        for condition in &self.conditions {
            match condition.evaluate(evaluation) {
                Ok(cel::Value::Bool(false)) => return Ok(false),
                Ok(cel::Value::Bool(true)) => {}
                Ok(_) => errors.push(format!("expression '{}' resulted in error: no such overload", condition.text())),
                Err(Fault::OutOfBudget) => return Err(Fault::OutOfBudget.to_string()),
                Err(fault) => errors.push(fault.to_string()),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }
}
