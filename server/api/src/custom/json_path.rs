//! Simple JSON paths, as printer columns and selectable fields have them: fields, indices, wildcards and comparisons of a filter.
//!
//! The other features of kubectl's templates (recursive descent, ranges, unions, slices) are refused: a column with such a path shows
//! nothing upstream either, or has no single value.
//!
//! <https://kubernetes.io/docs/reference/kubectl/jsonpath/>

use serde_json::Value;

/// The longest path, in bytes.
const MAX_BYTES: usize = 4096;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose field at a path compares so with a value.
    Where(Vec<String>, bool, Value),
}

impl JsonPath {
    /// Parses `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, `.items[0]`, `.metadata.labels.app\.kubernetes\.io/name`.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("path has more than {MAX_BYTES} bytes"));
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                if after.starts_with('.') {
                    return Err("recursive descent is not a simple path".to_owned());
                }
                if after.is_empty() && steps.is_empty() {
                    break;
                }
                let (name, after) = field_name(after);
                if name.is_empty() && !after.starts_with('[') {
                    return Err(format!("a field name is missing before {after:?}"));
                }
                if name == "*" {
                    steps.push(Step::All);
                } else if !name.is_empty() {
                    steps.push(Step::Field(name));
                }
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(|| "unterminated array".to_owned())?;
                steps.push(subscript(after[..end].trim())?);
                rest = &after[end + 1..];
            } else {
                return Err(format!("unexpected {rest:?}"));
            }
        }
        Ok(JsonPath(steps))
    }

    /// The values at the path, in order.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(items)) => {
                let at = if *index < 0 { items.len().checked_sub(index.unsigned_abs() as usize) } else { usize::try_from(*index).ok() };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Step::All, Value::Array(items)) => items.iter().collect(),
            (Step::All, Value::Object(map)) => map.values().collect(),
            (Step::Where(path, equal, wanted), Value::Array(items)) => {
                let holds = |item: &&Value| {
                    let at = path.iter().try_fold(*item, |value, key| value.get(key));
                    at.is_some_and(|at| same(at, wanted) == *equal)
                };
                items.iter().filter(holds).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn same(value: &Value, wanted: &Value) -> bool {
    value == wanted || (value.is_number() && wanted.is_number() && value.as_f64() == wanted.as_f64())
}

/// A name up to the next dot or bracket; a backslash quotes the sign behind it.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' => name.extend(signs.next().map(|(_, quoted)| quoted)),
            '.' | '[' => return (name, &text[at..]),
            sign => name.push(sign),
        }
    }
    (name, "")
}

/// Where the bracket ends, outside of quotes and of inner brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0_usize);
    for (at, sign) in text.char_indices() {
        match (quote, sign) {
            (Some(open), sign) if sign == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(sign),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn subscript(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Ok(index) = text.parse::<i64>() {
        return Ok(Step::Index(index));
    }
    if let Some(name) = quoted(text) {
        return Ok(Step::Field(name));
    }
    let inner = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')).ok_or_else(|| format!("invalid array index {text}"))?;
    let (left, equal, right) = match (inner.split_once("=="), inner.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (None, Some((left, right))) => (left, false, right),
        (None, None) => return Err(format!("{inner} is no comparison of a simple path")),
    };
    let path = left.trim().strip_prefix("@.").ok_or_else(|| format!("{left} is no field of an item"))?;
    let mut names = Vec::new();
    let mut rest = path;
    loop {
        let (name, after) = field_name(rest);
        names.push(name);
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => break,
            None => return Err(format!("{left} is no field of an item")),
        }
    }
    let right = right.trim();
    let wanted = match quoted(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).map_err(|_| format!("{right} is no value"))?,
    };
    Ok(Step::Where(names, equal, wanted))
}

fn quoted(text: &str) -> Option<String> {
    for sign in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(sign).and_then(|text| text.strip_suffix(sign)) {
            return Some(inner.replace("\\.", "."));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_kubectl_finds() {
        let object = json!({"spec": {"replicas": 3, "hosts": ["a", "b"]}, "metadata": {"labels": {"app.kubernetes.io/name": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Other", "status": "False"}]}});
        let cases = [
            (".spec.replicas", json!([3])),
            (".spec.nope.deep", json!([])),
            (".spec.hosts[0]", json!(["a"])),
            (".spec.hosts[-1]", json!(["b"])),
            (".spec.hosts[*]", json!(["a", "b"])),
            (".spec['replicas']", json!([3])),
            (r".metadata.labels.app\.kubernetes\.io/name", json!(["x"])),
            (".metadata.labels['app\\.kubernetes\\.io/name']", json!(["x"])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='Other')].status", json!(["False"])),
            (".status.conditions[?(@.type != 'Other')].type", json!(["Ready"])),
            (".status.conditions[?(@.n==1)].type", json!(["Ready"])),
        ];
        for (text, want) in cases {
            let path = JsonPath::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(json!(path.find(&object)), want, "{text}");
        }
        for text in ["spec", "..a", ".a[", ".a[x]", ".a[?(@.b)]", ".a..b"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        assert_eq!(JsonPath::parse(".").unwrap().find(&json!(1)), [&json!(1)]);
    }
}
