//! The Common Expression Language: expressions of policies, match conditions and schemas, compiled when they are written, evaluated on
//! objects.
//!
//! Text becomes tokens ([`token`]), a tree ([`parser`], [`ast`]), is checked ([`check`]) and goes through by [`evaluate`]. The parser and
//! the evaluation are ours, because both must be bounded: a tree has a depth, an evaluation takes steps of a [`budget`], and neither can
//! stop the server whatever is written in an expression. The values and Kubernetes' function libraries are those of the crate `kube-cel`.
//!
//! Which variables an expression has is for its user to say ([`Names`], [`Bindings`]). Must not do: read objects, decide what an error
//! means.
//!
//! Answers to <https://kubernetes.io/docs/reference/using-api/cel/>.

mod ast;
pub mod budget;
mod check;
mod evaluate;
mod expression;
mod fault;
mod functions;
mod join;
mod library;
pub mod listed;
mod names;
mod operate;
mod parser;
pub mod receiver;
mod token;
mod types;
pub mod values;
mod variables;

pub use budget::{Budget, EXPRESSION_STEPS, POLICY_STEPS};
pub use check::Names;
pub use evaluate::{Bindings, Evaluation};
pub use expression::{Expression, Wanted, compile};
pub use fault::Fault;
pub use kube_cel::cel::Value;
pub use library::{Regexes, parsed};
pub use names::RESERVED_WORDS;
pub use types::{Fields, Type};
pub use variables::Variables;
