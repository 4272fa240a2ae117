//! Words that have a meaning of their own in expressions.
//!
//! Source: <https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>.

/// Words that no variable can have as its name.
pub const RESERVED_WORDS: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
