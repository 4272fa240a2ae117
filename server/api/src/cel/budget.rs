//! Limits the work of an evaluation. One step is about the cost of visiting a node of a tree or an element of a list.
//!
//! Upstream estimates the cost of an expression when it is written and counts it when it is evaluated. Here it is only counted: an
//! expression that exceeds its budget fails with an error, which the policy's `failurePolicy` handles.

use kube_cel::cel::Value;

use super::fault::Fault;
use super::listed::as_listed;
use super::values::{MAX_VALUE_DEPTH, as_optional, as_struct};

/// Steps of one expression. Some tens of milliseconds.
pub const EXPRESSION_STEPS: usize = 1_000_000;
/// Steps of all expressions of a policy for one request.
pub const POLICY_STEPS: usize = 4 * EXPRESSION_STEPS;
/// Bytes that are worth a step.
const STEP_BYTES: usize = 16;

/// What is left.
#[derive(Debug)]
pub struct Budget {
    left: usize,
}

// === impl Budget ===

impl Budget {
    /// A budget of so many steps.
    pub fn new(steps: usize) -> Budget {
        Budget { left: steps }
    }

    /// What is left of it.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes steps.
    pub fn spend(&mut self, steps: usize) -> Result<(), Fault> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(Fault::OutOfBudget)
            }
        }
    }

    /// Takes what going through bytes is worth.
    pub fn spend_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.spend(1 + bytes / STEP_BYTES)
    }

    /// Takes what going through a value is worth, and gives that.
    pub fn spend_value(&mut self, value: &Value) -> Result<usize, Fault> {
        let before = self.left;
        self.walk(value, MAX_VALUE_DEPTH)?;
        Ok(before - self.left)
    }

    fn walk(&mut self, value: &Value, depth: usize) -> Result<(), Fault> {
        let deeper = depth.checked_sub(1).ok_or_else(|| Fault::error("value nests too deep"))?;
        if let Some(inner) = as_optional(value) {
            self.spend(1)?;
            return inner.map_or(Ok(()), |inner| self.walk(inner, deeper));
        }
        if let Some(made) = as_struct(value) {
            self.spend(1)?;
            return made.fields.values().try_for_each(|field| self.walk(field, deeper));
        }
        if let Some(listed) = as_listed(value) {
            self.spend(1)?;
            return listed.items.iter().try_for_each(|item| self.walk(item, deeper));
        }
        match value {
            Value::String(text) => self.spend_bytes(text.len()),
            Value::Bytes(bytes) => self.spend_bytes(bytes.len()),
            Value::List(items) => {
                self.spend(1)?;
                items.iter().try_for_each(|item| self.walk(item, deeper))
            }
            Value::Map(map) => {
                self.spend(1 + map.map.len())?;
                map.map.values().try_for_each(|value| self.walk(value, deeper))
            }
            _ => self.spend(1),
        }
    }
}
