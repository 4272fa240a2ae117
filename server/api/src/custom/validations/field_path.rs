//! Paths of fields below a schema: `.spec.host`, `['a.b'].c`, as rules and selectable fields name them.
//!
//! Upstream: `ValidFieldPath` in `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

use crate::custom::structural::Structural;
use crate::field::FieldPath;

/// The path as errors show it.
///
/// # Errors
/// Upstream's words for what is wrong with it.
pub fn resolve(path: &str, schema: &Structural) -> Result<FieldPath, String> {
    let (mut found, mut schema, mut rest) = (FieldPath::root(), schema, path);
    while let Some(first) = rest.chars().next() {
        let (name, after) = match first {
            '.' => {
                let after = &rest[1..];
                let end = after.find(['.', '[', ']']).unwrap_or(after.len());
                match end {
                    0 if after.is_empty() => return Err("unexpected end of JSON path".to_owned()),
                    0 => return Err("does not refer to a valid field".to_owned()),
                    end => (after[..end].to_owned(), &after[end..]),
                }
            }
            '[' => subscript(&rest[1..])?,
            _ => {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                return Err(format!("expected [ or . but got: {}", &rest[..end.max(1)]));
            }
        };
        if let Some(property) = schema.properties.get(&name) {
            (found, schema) = (found.child(&name), property);
        } else if let Some(values) = schema.values().filter(|_| schema.properties.is_empty()) {
            (found, schema) = (found.key(&name), values);
        } else {
            return Err("does not refer to a valid field".to_owned());
        }
        rest = after;
    }
    Ok(found)
}

/// The name in `'name']`, and what follows it.
fn subscript(text: &str) -> Result<(String, &str), String> {
    let inner = text.strip_prefix('\'').ok_or_else(|| {
        let end = text.find(['.', '[', ']']).unwrap_or(text.len());
        format!("expected single quoted string but got {}", &text[..end])
    })?;
    let mut name = String::new();
    let mut signs = inner.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\'' => {
                let after = &inner[at + 1..];
                return match after.strip_prefix(']') {
                    Some(after) => Ok((name, after)),
                    None if after.is_empty() => Err("unexpected end of JSON path".to_owned()),
                    None => Err(format!("expected ] but got {after}")),
                };
            }
            '\\' => name.push(match signs.next().map(|(_, escaped)| escaped) {
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(same @ ('\'' | '\\')) => same,
                other => return Err(format!("invalid string literal: invalid escape char \\{}", other.unwrap_or_default())),
            }),
            sign => name.push(sign),
        }
    }
    Err("unexpected end of JSON path".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_fields() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a.b": {"type": "string"}, "it's": {"type": "string"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
        }}))
        .unwrap();
        let shown = |path: &str| resolve(path, &schema).map(|path| path.to_string());
        for (path, want) in
            [(".spec['a.b']", "spec.a.b"), (".spec['it\\'s']", "spec.it's"), (".map['k'].x", "map[k].x"), (".map.k.x", "map[k].x")]
        {
            assert_eq!(shown(path).as_deref(), Ok(want), "{path}");
        }
        for (path, why) in [
            ("spec", "expected [ or . but got: spec"),
            (".spec.", "unexpected end of JSON path"),
            (".nope", "does not refer to a valid field"),
            (".list[0]", "expected single quoted string but got 0"),
            (".list.x", "does not refer to a valid field"),
            (".spec['a.b'", "unexpected end of JSON path"),
            (".spec['\\x']", "invalid string literal: invalid escape char \\x"),
        ] {
            assert_eq!(shown(path).unwrap_err(), why, "{path}");
        }
    }
}
