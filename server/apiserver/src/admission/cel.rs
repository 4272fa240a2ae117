//! Expressions of policies and match conditions: their variables, and the values of these for a request.
//!
//! The language is that of [`trireme_api::cel`]. Must not do: read objects, decide what an error means.
//!
//! Answers to <https://kubernetes.io/docs/reference/using-api/cel/>.

mod authorizer;
mod declared;
mod inputs;

pub use declared::Declared;
pub use inputs::Inputs;
pub use trireme_api::cel::{EXPRESSION_STEPS, Evaluation, Expression, Fault, POLICY_STEPS, Value, Variables, Wanted, compile, values};

#[cfg(test)]
mod tests;
