//! The Common Expression Language: expressions of policies, match conditions and schemas, compiled when they are written, evaluated on
//! objects.
//!
//! Text is split into tokens ([`token`]), parsed into a tree ([`parser`], [`ast`]), checked ([`check`]) and evaluated ([`evaluate`]).
//! Parser and evaluation are our own, because both must be bounded: the depth of a tree is limited, and an evaluation takes steps from a
//! [`budget`], so no expression can stop the server. The values and Kubernetes' function libraries are those of the crate `kube-cel`.
//!
//! The caller defines the variables of an expression ([`Names`], [`Bindings`]). Must not do: read objects, decide what an error means.
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
