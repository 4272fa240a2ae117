//! Field selectors: `metadata.name=x,status.phase!=Running`.

use std::fmt;

use super::SelectorError;

/// One comparison with a field's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// Path of the field, like `spec.nodeName`.
    pub field: String,
    /// Must be equal (true) or different (false).
    pub equals: bool,
    /// What to compare with.
    pub value: String,
}

/// A conjunction of comparisons; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

// === impl FieldSelector ===

impl FieldSelector {
    /// Parses the string form of `?fieldSelector=`. `\` escapes `\`, `,` and `=` in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            let Some((field, equals, value)) = split_term(term) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            requirements.push(FieldRequirement { field: field.to_owned(), equals, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }

    /// Its comparisons, in the order given.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it matches every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that a field must have, if one comparison says so.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equals && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether all comparisons hold; `lookup` gives a field's value ("" where absent).
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> std::borrow::Cow<'a, str>) -> bool {
        self.requirements.iter().all(|r| (lookup(&r.field) == r.value) == r.equals)
    }

    /// The first field that is not supported.
    pub fn first_unsupported(&self, supported: impl Fn(&str) -> bool) -> Option<&str> {
        self.requirements.iter().map(|r| r.field.as_str()).find(|field| !supported(field))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}{}", r.field, if r.equals { "=" } else { "!=" }, escape(&r.value))?;
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        for (operator, equals) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..i], equals, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                next => {
                    let sequence: String = std::iter::once('\\').chain(next).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {}", c as u32)));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_matches_and_prints() {
        let selector = FieldSelector::parse("metadata.name=a,status.phase!=Failed,spec.x==b\\,c").expect("valid");
        let lookup = |name: &str| match name {
            "metadata.name" => "a".into(),
            "status.phase" => "Running".into(),
            "spec.x" => "b,c".into(),
            _ => "".into(),
        };
        assert!(selector.matches(lookup));
        assert_eq!(selector.required_value("metadata.name"), Some("a"));
        assert_eq!(selector.first_unsupported(|name| ["metadata.name", "spec.x"].contains(&name)), Some("status.phase"));
        assert_eq!(FieldSelector::parse(&selector.to_string()).as_ref(), Ok(&selector));
        assert!(FieldSelector::parse("").expect("valid").is_everything());
    }

    #[test]
    fn errors_are_upstreams() {
        let text = |s: &str| FieldSelector::parse(s).map_err(|e| e.to_string()).expect_err("invalid");
        assert_eq!(text("metadata.name"), "invalid selector: 'metadata.name'; can't understand 'metadata.name'");
        assert_eq!(text("a=b=c"), "invalid field selector: unescaped character in value: 61");
        assert_eq!(text("a=\\x"), "invalid field selector: invalid escape sequence: \\x");
    }
}
