//! A JSON reader that keeps what `serde_json::Value` loses: the order of fields and duplicates.
//!
//! Syntax errors carry the words of Go's `encoding/json`, because upstream passes them on to clients. Nesting is bounded
//! so that neither this reader nor any later recursion over an object can exhaust a stack.

use serde_json::{Map, Number, Value};

/// Deepest nesting of a body. Equal to the recursion limit of `serde_json`, with which stored objects are read again, less
/// some room for envelopes.
pub const MAX_DEPTH: usize = 120;

/// JSON with everything that was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// null
    Null,
    /// true or false
    Bool(bool),
    /// A number as written.
    Number(String),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Node>),
    /// An object: pairs in order, duplicates included.
    Object(Vec<(String, Node)>),
}

/// Parses a document.
pub fn parse(bytes: &[u8]) -> Result<Node, String> {
    let mut reader = Reader { bytes, position: 0 };
    reader.space();
    let node = reader.value(0)?;
    reader.space();
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.invalid("after top-level value")),
    }
}

// === impl Node ===

impl Node {
    /// The value; of duplicate keys the last one counts.
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(flag),
            Self::Number(text) => number(&text).map_or(Value::Null, Value::Number),
            Self::String(text) => Value::String(text),
            Self::Array(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Object(pairs) => Value::Object(pairs.into_iter().map(|(k, v)| (k, v.into_value())).collect::<Map<_, _>>()),
        }
    }

    /// The same as a value already has it.
    pub fn from_value(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(flag),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::String(text),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from_value).collect()),
            Value::Object(map) => Self::Object(map.into_iter().map(|(k, v)| (k, Self::from_value(v))).collect()),
        }
    }

    /// Go's word for the type of JSON value.
    pub fn type_word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// The last value of a key of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(pairs) => pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }
}

/// A number from its text; integers beyond 64 bits become floating-point numbers, as in Go's `interface{}`.
pub fn number(text: &str) -> Option<Number> {
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Some(integer.into());
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.position += 1;
        }
    }

    /// The error at the current character.
    fn invalid(&self, context: &str) -> String {
        match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(b'\'') => format!("invalid character '\\'' {context}"),
            Some(b'"') => format!("invalid character '\"' {context}"),
            Some(byte) => {
                let quoted = crate::field::quote(&char::from(byte).to_string());
                format!("invalid character '{}' {context}", &quoted[1..quoted.len() - 1])
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, String> {
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Err(self.invalid("exceeded max depth")),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Node::String),
            Some(b't') => self.literal("true", Node::Bool(true)),
            Some(b'f') => self.literal("false", Node::Bool(false)),
            Some(b'n') => self.literal("null", Node::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.invalid("looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, String> {
        self.position += 1;
        let mut pairs = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.position += 1;
            return Ok(Node::Object(pairs));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.invalid("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.invalid("after object key"));
            }
            self.position += 1;
            self.space();
            let value = self.value(depth)?;
            pairs.push((key, value));
            self.space();
            match self.peek() {
                Some(b',') => self.position += 1,
                Some(b'}') => {
                    self.position += 1;
                    return Ok(Node::Object(pairs));
                }
                _ => return Err(self.invalid("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node, String> {
        self.position += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.position += 1;
            return Ok(Node::Array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(b',') => self.position += 1,
                Some(b']') => {
                    self.position += 1;
                    return Ok(Node::Array(items));
                }
                _ => return Err(self.invalid("after array element")),
            }
        }
    }

    fn literal(&mut self, word: &str, node: Node) -> Result<Node, String> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.invalid(&format!("in literal {word} (expecting '{}')", char::from(expected))));
            }
            self.position += 1;
        }
        Ok(node)
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.invalid(context));
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.position += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Node, String> {
        let start = self.position;
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        if self.peek() == Some(b'0') {
            self.position += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        let text = String::from_utf8_lossy(&self.bytes[start..self.position]).into_owned();
        Ok(Node::Number(text))
    }

    fn string(&mut self) -> Result<String, String> {
        self.position += 1;
        let mut out = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.position += 1;
                    // Go replaces what is no UTF-8 by the replacement character.
                    return Ok(match String::from_utf8(out) {
                        Ok(text) => text,
                        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    });
                }
                Some(b'\\') => {
                    self.position += 1;
                    self.escape(&mut out)?;
                }
                Some(byte) if byte >= 0x20 => {
                    out.push(byte);
                    self.position += 1;
                }
                _ => return Err(self.invalid("in string literal")),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let plain = match self.peek() {
            Some(b @ (b'"' | b'\\' | b'/')) => b,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.position += 1;
                let first = self.hex4()?;
                let c = self.surrogates(first)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.invalid("in string escape code")),
        };
        out.push(plain);
        self.position += 1;
        Ok(())
    }

    fn surrogates(&mut self, first: u32) -> Result<char, String> {
        let pair_follows = self.bytes.get(self.position..self.position + 2) == Some(b"\\u");
        if (0xd800..0xdc00).contains(&first) && pair_follows {
            let back = self.position;
            self.position += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.position = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..4 {
            match self.peek().and_then(|b| char::from(b).to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return Err(self.invalid("in \\u hexadecimal character escape")),
            }
            self.position += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_are_gos() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{nope", "invalid character 'n' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("tru3", "invalid character '3' in literal true (expecting 'e')"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("1.", "unexpected end of JSON input"),
            ("-a", "invalid character 'a' in numeric literal"),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text.as_bytes()), Err(want.to_owned()), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()), Err("invalid character '[' exceeded max depth".to_owned()));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\"a1.e0-truefalsn\\\\ ]{0,24}") {
            let ours = parse(text.as_bytes()).ok().map(Node::into_value);
            let theirs = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn reads_strings(text in any::<String>()) {
            let json = serde_json::to_vec(&text).expect("a string is JSON");
            prop_assert_eq!(parse(&json), Ok(Node::String(text)));
        }
    }
}
