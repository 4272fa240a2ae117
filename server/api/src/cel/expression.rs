//! An expression that has been compiled: its text, its tree, its type.

use super::ast::Node;
use super::check::{Names, check};
use super::evaluate::Evaluation;
use super::fault::{Fault, Syntax};
use super::parser::parse;
use super::types::Type;
use super::variables::Variables;
use kube_cel::cel::Value;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    text: String,
    node: Node,
}

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `true` or `false`.
    Bool,
    /// Text.
    Text,
    /// Text or null.
    TextOrNull,
    /// A struct `Object`.
    Object,
    /// A list of structs `JSONPatch`.
    Patches,
    /// Anything.
    Any,
}

// === impl Expression ===

impl Expression {
    /// Compiles `text`.
    ///
    /// # Errors
    /// Upstream's words.
    pub fn compile(text: &str, wanted: Wanted, declared: &dyn Names, variables: &Variables) -> Result<Expression, String> {
        let (node, of) = compile(text, declared, variables)?;
        wanted.check(&of)?;
        Ok(Expression { text: text.to_owned(), node })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it refers to a variable.
    pub fn refers_to(&self, name: &str) -> bool {
        self.node.refers_to(name)
    }

    /// Its value.
    ///
    /// # Errors
    /// The fault alone.
    pub fn value<'a>(&'a self, evaluation: &mut Evaluation<'a>) -> Result<Value, Fault> {
        evaluation.run(&self.node)
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// Upstream's words.
    pub fn evaluate<'a>(&'a self, evaluation: &mut Evaluation<'a>) -> Result<Value, Fault> {
        evaluation.run(&self.node).map_err(|fault| match fault {
            Fault::OutOfBudget => Fault::OutOfBudget,
            Fault::Error(why) => Fault::Error(format!("expression '{}' resulted in error: {why}", self.text)),
        })
    }
}

/// The tree of a text and its type.
///
/// # Errors
/// Upstream's words.
pub fn compile(text: &str, declared: &dyn Names, variables: &Variables) -> Result<(Node, Type), String> {
    let failed = |errors: &[Syntax]| {
        let shown: Vec<String> = errors.iter().map(|error| error.shown(text)).collect();
        format!("compilation failed: {}", shown.join("\n"))
    };
    let node = parse(text).map_err(|error| failed(&[error]))?;
    let of = check(&node, declared, variables).map_err(|errors| failed(&errors))?;
    Ok((node, of))
}

// === impl Wanted ===

impl Wanted {
    fn check(self, of: &Type) -> Result<(), String> {
        let (fits, wanted) = match self {
            Wanted::Any => (true, ""),
            Wanted::Bool => (matches!(of, Type::Bool | Type::Dyn), "must evaluate to bool"),
            Wanted::Text => (matches!(of, Type::String | Type::Dyn), "must evaluate to string"),
            Wanted::TextOrNull => (matches!(of, Type::String | Type::Null | Type::Dyn), "must evaluate to one of [string null_type]"),
            Wanted::Object => (matches!(of, Type::Named(name) if &**name == "Object") || of.is_dyn(), "must evaluate to Object"),
            Wanted::Patches => match of {
                Type::List(element) => {
                    let fits = matches!(&**element, Type::Named(name) if &**name == "JSONPatch") || element.is_dyn();
                    (fits, "must evaluate to list(JSONPatch)")
                }
                other => (other.is_dyn(), "must evaluate to list(JSONPatch)"),
            },
        };
        if fits { Ok(()) } else { Err(format!("{wanted} but got {of}")) }
    }
}
