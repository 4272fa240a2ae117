//! What can be wrong with an expression: in its text, and when it is evaluated.

/// An error in the text of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// Where, in characters.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

impl Syntax {
    /// An error at a place.
    pub fn new(at: usize, message: impl Into<String>) -> Syntax {
        Syntax { at, message: message.into() }
    }

    /// With line, column and the line itself, as upstream shows it.
    pub fn shown(&self, text: &str) -> String {
        let before: String = text.chars().take(self.at).collect();
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let source = text.lines().nth(line).unwrap_or_default();
        let source: String = source.chars().take(SHOWN_CHARS).collect();
        let pointer = ".".repeat(column.min(SHOWN_CHARS));
        format!("ERROR: <input>:{}:{}: {}\n | {source}\n | {pointer}^", line + 1, column + 1, self.message)
    }
}

/// So much of a line is repeated in a message.
const SHOWN_CHARS: usize = 300;

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The evaluation failed on this input. `&&` and `||` absorb it if their other operand decides the result.
    Error(String),
    /// The expression took too many steps. No operator absorbs this.
    OutOfBudget,
}

impl Fault {
    /// An error.
    pub fn error(message: impl Into<String>) -> Fault {
        Fault::Error(message.into())
    }

    /// No function takes operands of these types.
    pub fn no_overload() -> Fault {
        Fault::error("no such overload")
    }

    /// A map has no such key.
    pub fn no_key(key: impl std::fmt::Display) -> Fault {
        Fault::Error(format!("no such key: {key}"))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Error(message) => f.write_str(message),
            Fault::OutOfBudget => {
                f.write_str("validation failed due to running out of cost budget, no further validation rules will be run")
            }
        }
    }
}
