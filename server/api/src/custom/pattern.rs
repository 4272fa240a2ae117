//! Regular expressions as Go's `regexp` reads them, on Rust's engine of the same family (no backtracking, linear time).
//!
//! Both follow RE2, and differ in a few signs: Go's `\d`, `\w`, `\s` and `\b` know ASCII only; a bracket or a doubled sign inside of a
//! class is nothing special to Go; `\Q..\E` quotes; `{` that begins no repetition is a sign like others. An expression is
//! compiled once, when its schema is read, and neither its program nor the memory of a match grows without bound.
//!
//! <https://github.com/google/re2/wiki/Syntax>

use regex::{Regex, RegexBuilder};

/// The longest expression, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// The largest compiled program: more than any expression in use needs, and a bound for repetitions of repetitions.
const MAX_PROGRAM_BYTES: usize = 2 << 20;
/// Memory for the states of matches, kept between them.
const MAX_STATES_BYTES: usize = 256 << 10;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression; the error says what is wrong with it.
    pub fn new(source: &str) -> Result<Pattern, String> {
        if source.len() > MAX_BYTES {
            return Err(format!("expression has more than {MAX_BYTES} bytes"));
        }
        let regex = RegexBuilder::new(&translated(source))
            .size_limit(MAX_PROGRAM_BYTES)
            .dfa_size_limit(MAX_STATES_BYTES)
            .build()
            .map_err(|error| reason(&error))?;
        Ok(Pattern { source: source.to_owned(), regex })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches somewhere in the text.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// One line: the engine's message ends with a drawing of the place.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    format!("error parsing regexp: {}", last.strip_prefix("error: ").unwrap_or(last))
}

/// The same expression in the signs of Rust's engine.
fn translated(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 16);
    let mut rest = source;
    let mut class = Class::Outside;
    while let Some(sign) = rest.chars().next() {
        let after = &rest[sign.len_utf8()..];
        rest = match (sign, class) {
            ('\\', _) => escape(after, class != Class::Outside, &mut out),
            ('[', Class::Outside) => {
                out.push('[');
                let (negation, inner) = after.strip_prefix('^').map_or(("", after), |inner| ("^", inner));
                out.push_str(negation);
                class = Class::First;
                inner
            }
            (']', Class::Inside) => {
                out.push(']');
                class = Class::Outside;
                after
            }
            (_, Class::First | Class::Inside) => {
                let first = class == Class::First;
                class = Class::Inside;
                in_class(rest, first, &mut out)
            }
            ('{', Class::Outside) if !is_repetition(after) => {
                out.push_str("\\{");
                after
            }
            (sign, Class::Outside) => {
                out.push(sign);
                after
            }
        };
        if sign == '\\' && class == Class::First {
            class = Class::Inside;
        }
    }
    out
}

/// Where the reader is with regard to a class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Outside,
    /// Before the first sign, where `]` is one like others.
    First,
    Inside,
}

/// One character in a character class.
fn in_class<'a>(text: &'a str, first: bool, out: &mut String) -> &'a str {
    let named = text.starts_with("[:").then(|| text.find(":]")).flatten();
    if let Some(end) = named {
        out.push_str(&text[..end + 2]);
        return &text[end + 2..];
    }
    let sign = text.chars().next().unwrap_or_default();
    // Doubled, these are operations on classes in Rust's engine.
    if matches!(sign, '[' | '&' | '~') || (sign == ']' && first) || (sign == '-' && text[1..].starts_with('-')) {
        out.push('\\');
    }
    out.push(sign);
    &text[sign.len_utf8()..]
}

/// What follows a backslash.
fn escape<'a>(text: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(sign) = text.chars().next() else {
        out.push('\\');
        return text;
    };
    let after = &text[sign.len_utf8()..];
    let known = match (sign, in_class) {
        ('d', true) => "0-9",
        ('d', false) => "[0-9]",
        ('D', _) => "[^0-9]",
        ('w', true) => "0-9A-Za-z_",
        ('w', false) => "[0-9A-Za-z_]",
        ('W', _) => "[^0-9A-Za-z_]",
        ('s', true) => r"\t\n\f\r ",
        ('s', false) => r"[\t\n\f\r ]",
        ('S', _) => r"[^\t\n\f\r ]",
        ('b', false) => r"(?-u:\b)",
        ('<', _) => "<",
        ('>', _) => ">",
        ('Q', false) => {
            let (quoted, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(quoted));
            return after;
        }
        _ => {
            out.push('\\');
            out.push(sign);
            return after;
        }
    };
    out.push_str(known);
    after
}

/// Whether `n}`, `n,}` or `n,m}` follows.
fn is_repetition(text: &str) -> bool {
    let Some((inner, _)) = text.split_once('}') else { return false };
    let (low, high) = inner.split_once(',').unwrap_or((inner, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_to_go() {
        let cases = [
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * * */5", true),
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * *", false),
            (r"^\d$", "\u{0665}", false),
            (r"^\w+$", "ä", false),
            (r"^[\w.-]+$", "a.b-c_9", true),
            (r"^[^\d]$", "5", false),
            (r"^[[a]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]]$", "]", false),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^[+--]$", "-", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^a{1,2}$", "aa", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"\bfoo\b", "a foo b", true),
            (r"^\<a\>$", "<a>", true),
            (r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "a.b-c", true),
            (r"^[\\\/]$", "/", true),
            (r"(?i)^abc$", "ABC", true),
            (r"^\pL+$", "äö", true),
        ];
        for (source, text, want) in cases {
            let pattern = Pattern::new(source).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(pattern.matches(text), want, "{source} on {text:?}");
        }
    }

    #[test]
    fn what_is_no_expression_or_too_much_is_refused() {
        for source in ["(", "[a", "a**b(", r"(?=a)", "a{1000}{1000}{1000}", &"a".repeat(MAX_BYTES + 1)] {
            let error = Pattern::new(source).map(|_| ()).unwrap_err();
            assert!(!error.contains('\n') && error.len() > 10, "{error}");
        }
    }
}
