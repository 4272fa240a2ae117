//! Splits the text of an expression into tokens. Answers to the lexical part of the CEL specification
//! (<https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>).

use std::sync::Arc;

use kube_cel::cel::Value;

use super::fault::Syntax;

/// A token, and where it begins (in characters).
#[derive(Clone, Debug)]
pub struct Token {
    /// Offset in characters.
    pub at: usize,
    /// What it is.
    pub kind: TokenKind,
}

/// What a token is.
#[derive(Clone, Debug)]
pub enum TokenKind {
    /// A number, a string, bytes, `true`, `false`, `null`.
    Literal(Value),
    /// A name, reserved words among them.
    Name(String),
    /// A name in backquotes: a field.
    Quoted(String),
    /// An operator or a bracket.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

impl TokenKind {
    /// How a message names it.
    pub fn shown(&self) -> String {
        match self {
            TokenKind::Literal(_) => "literal".to_owned(),
            TokenKind::Name(name) | TokenKind::Quoted(name) => format!("'{name}'"),
            TokenKind::Symbol(text) => format!("'{text}'"),
            TokenKind::End => "<EOF>".to_owned(),
        }
    }
}

/// Longer ones first.
const SYMBOLS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "*", "/", "%", "<", ">", "!", "=", "&",
];

/// Goes through the characters.
struct Scanner {
    text: Vec<char>,
    at: usize,
}

/// The tokens of `text`, the end among them.
pub fn tokens(text: &str) -> Result<Vec<Token>, Syntax> {
    let mut scanner = Scanner { text: text.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        scanner.skip_space();
        let at = scanner.at;
        let kind = scanner.token()?;
        let end = matches!(kind, TokenKind::End);
        tokens.push(Token { at, kind });
        if end {
            return Ok(tokens);
        }
    }
}

// === impl Scanner ===

impl Scanner {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(index, wanted)| self.peek(index) == Some(wanted))
    }

    fn skip_space(&mut self) {
        loop {
            while self.peek(0).is_some_and(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')) {
                self.at += 1;
            }
            if !self.starts_with("//") {
                return;
            }
            while self.peek(0).is_some_and(|c| c != '\n') {
                self.at += 1;
            }
        }
    }

    fn token(&mut self) -> Result<TokenKind, Syntax> {
        let Some(first) = self.peek(0) else { return Ok(TokenKind::End) };
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(self.name());
        }
        if first == '`' {
            return self.quoted();
        }
        let symbol = SYMBOLS.into_iter().find(|symbol| self.starts_with(symbol)).filter(|symbol| !matches!(*symbol, "=" | "&"));
        let Some(symbol) = symbol else {
            return Err(Syntax::new(self.at, format!("Syntax error: token recognition error at: '{first}'")));
        };
        self.at += symbol.len();
        Ok(TokenKind::Symbol(symbol))
    }

    fn name(&mut self) -> TokenKind {
        let from = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.at += 1;
        }
        let name: String = self.text[from..self.at].iter().collect();
        match name.as_str() {
            "true" => TokenKind::Literal(Value::Bool(true)),
            "false" => TokenKind::Literal(Value::Bool(false)),
            "null" => TokenKind::Literal(Value::Null),
            _ => TokenKind::Name(name),
        }
    }

    fn quoted(&mut self) -> Result<TokenKind, Syntax> {
        let from = self.at;
        self.at += 1;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' ')) {
            self.at += 1;
        }
        if self.peek(0) != Some('`') || self.at == from + 1 {
            return Err(Syntax::new(from, "Syntax error: token recognition error at: '`'"));
        }
        let name = self.text[from + 1..self.at].iter().collect();
        self.at += 1;
        Ok(TokenKind::Quoted(name))
    }

    fn number(&mut self) -> Result<TokenKind, Syntax> {
        let from = self.at;
        let hex = self.starts_with("0x");
        self.at += if hex { 2 } else { 0 };
        let digit = |c: char| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        self.skip(digit);
        let mut double = false;
        if !hex && self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            double = true;
            self.at += 1;
            self.skip(digit);
        }
        if !hex && matches!(self.peek(0), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                double = true;
                self.at += 1 + sign;
                self.skip(digit);
            }
        }
        let text: String = self.text[from..self.at].iter().collect();
        let (digits, radix) = text.strip_prefix("0x").map_or((text.as_str(), 10), |digits| (digits, 16));
        let value = if double {
            text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float).ok_or("invalid double literal")
        } else if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            u64::from_str_radix(digits, radix).map(Value::UInt).map_err(|_| "invalid uint literal")
        } else {
            // The parser puts the sign on: the least integer has no positive counterpart.
            match u64::from_str_radix(digits, radix) {
                Ok(number) if number == i64::MIN.unsigned_abs() => Ok(Value::Int(i64::MIN)),
                Ok(number) => i64::try_from(number).map(Value::Int).map_err(|_| "invalid int literal"),
                Err(_) => Err("invalid int literal"),
            }
        };
        value.map(TokenKind::Literal).map_err(|why| Syntax::new(from, why))
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&wanted) {
            self.at += 1;
        }
    }

    /// Whether a string begins here: is it raw, is it bytes, how long is the prefix.
    fn string_prefix(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes, mut length) = (false, false, 0);
        loop {
            match self.peek(length)? {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                '"' | '\'' => return Some((raw, bytes, length)),
                _ => return None,
            }
            length += 1;
        }
    }

    fn string(&mut self, (raw, bytes, prefix): (bool, bool, usize)) -> Result<TokenKind, Syntax> {
        let from = self.at;
        self.at += prefix;
        let quote = self.peek(0).unwrap_or('"');
        let long = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let width = if long { 3 } else { 1 };
        self.at += width;
        let mut content = Vec::new();
        loop {
            let Some(c) = self.peek(0).filter(|c| long || !matches!(c, '\n' | '\r')) else {
                return Err(Syntax::new(from, "Syntax error: token recognition error: the string does not end"));
            };
            if (0..width).all(|index| self.peek(index) == Some(quote)) {
                self.at += width;
                break;
            }
            if c == '\\' && !raw {
                self.escape(bytes, &mut content)?;
            } else {
                self.at += 1;
                // A quote after a backslash does not end a raw string.
                if raw && c == '\\' && self.peek(0) == Some(quote) {
                    content.push(b'\\');
                    self.at += 1;
                    content.push(quote as u8);
                } else {
                    content.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        if bytes {
            return Ok(TokenKind::Literal(Value::Bytes(Arc::new(content))));
        }
        match String::from_utf8(content) {
            Ok(text) => Ok(TokenKind::Literal(Value::String(Arc::new(text)))),
            Err(_) => Err(Syntax::new(from, "invalid string literal")),
        }
    }

    fn escape(&mut self, bytes: bool, content: &mut Vec<u8>) -> Result<(), Syntax> {
        let from = self.at;
        let bad = || Syntax::new(from, "invalid escape sequence in a string");
        let kind = self.peek(1).ok_or_else(bad)?;
        self.at += 2;
        let simple = match kind {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '?' | '"' | '\'' | '`' => kind as u8,
            'x' | 'X' | 'u' | 'U' | '0'..='3' => 0,
            _ => return Err(bad()),
        };
        let (digits, radix) = match kind {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => (3, 8),
            'u' | 'U' => return Err(bad()),
            _ => {
                content.push(simple);
                return Ok(());
            }
        };
        if radix == 8 {
            self.at -= 1;
        }
        let text: String = (0..digits).filter_map(|index| self.peek(index)).collect();
        let code = u32::from_str_radix(&text, radix).ok().filter(|_| text.len() == digits && !text.starts_with('+')).ok_or_else(bad)?;
        self.at += digits;
        match (bytes, u8::try_from(code), char::from_u32(code)) {
            (true, Ok(byte), _) => content.push(byte),
            (false, _, Some(c)) => content.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => return Err(bad()),
        }
        Ok(())
    }
}
