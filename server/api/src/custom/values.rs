//! Values against a schema: types, ranges, lengths, patterns, enumerations, required fields, and schemas that are joined by
//! `allOf`, `anyOf`, `oneOf` and `not`.
//!
//! The messages are those of upstream's validator, down to which alternative's errors are shown. On an update, what did not
//! change is not judged again: an object that was valid once can be changed elsewhere.
//!
//! Upstream: `kube-openapi/pkg/validation/validate`, `apiextensions-apiserver/pkg/apiserver/validation`.

use serde_json::{Map, Number, Value};

use super::formats;
use super::structural::{Additional, Limits, ListType, Structural};
use crate::field::{BadValue, ErrorKind, FieldError, FieldErrors, FieldPath, quote};

/// More errors than this are not reported.
const ERRORS_MAX: usize = 100;

/// The errors of a value under `schema`. `at` is the path of the value in its object (empty for the object itself), `old` the value
/// before an update.
pub fn check(value: &Value, old: Option<&Value>, schema: &Structural, at: &str) -> FieldErrors {
    let mut errors = Checked::of(value, old, schema, "").errors;
    errors.truncate(ERRORS_MAX);
    if !at.is_empty() {
        for error in &mut errors {
            error.path = match error.path.as_str() {
                "" | "<nil>" => at.to_owned(),
                path if path.starts_with('[') => format!("{at}{path}"),
                path => format!("{at}.{path}"),
            };
        }
    }
    errors
}

/// The result of checking one value.
#[derive(Default)]
struct Checked {
    errors: FieldErrors,
    /// How much of a schema the value satisfied: of alternatives that all fail, the closest one's errors are shown.
    matches: usize,
}

/// Upstream's name for the place of a value.
const IN: &str = "in body";

impl Checked {
    fn of(value: &Value, old: Option<&Value>, schema: &Structural, path: &str) -> Checked {
        let mut checked = Checked::default();
        if old == Some(value) {
            return checked;
        }
        let none = Limits::default();
        let limits = schema.limits.as_deref().unwrap_or(&none);
        checked.types(value, schema, limits, path);
        if value.is_null() {
            checked.enumeration(value, limits, path);
            return checked;
        }
        checked.joined(value, old, limits, path);
        match value {
            Value::String(text) => checked.string(text, schema, limits, path),
            Value::Number(number) => checked.number(number, schema, limits, path),
            Value::Array(items) => checked.list(items, old, schema, limits, path),
            _ => {}
        }
        checked.enumeration(value, limits, path);
        if let Value::Object(map) = value {
            checked.object(map, old, schema, limits, path);
        }
        checked.matches += 1;
        checked
    }

    fn merge(&mut self, other: Checked) {
        self.matches += other.matches;
        if self.errors.len() < ERRORS_MAX {
            self.errors.extend(other.errors);
        }
    }

    fn push(&mut self, kind: ErrorKind, path: &str, value: Value, detail: String) {
        self.errors.push(FieldError { kind, path: shown(path).to_owned(), bad_value: BadValue::Shown(value), detail });
    }

    fn invalid(&mut self, path: &str, value: Value, rule: String) {
        self.push(ErrorKind::Invalid, path, value, format!("{path} {IN} {rule}"));
    }

    /// An error that upstream reports without its place.
    fn unplaced(&mut self, message: String) {
        self.push(ErrorKind::Invalid, "<nil>", Value::from(""), message);
    }

    fn mistyped(&mut self, path: &str, wanted: &str, value: &str) {
        let detail = format!("{path} {IN} must be of type {wanted}: {}", quote(value));
        self.push(ErrorKind::TypeInvalid, path, Value::from(value), detail);
    }

    fn types(&mut self, value: &Value, schema: &Structural, limits: &Limits, path: &str) {
        let wanted: &[&str] = match schema.type_.as_str() {
            _ if schema.is_int_or_string => &["integer", "string"],
            "" => &[],
            other => &[other],
        };
        if wanted.is_empty() {
            return;
        }
        let found = type_of(value);
        let fits = match found {
            "null" => schema.nullable,
            "integer" => wanted.contains(&"integer") || wanted.contains(&"number"),
            "number" => wanted.contains(&"number") || (wanted.contains(&"integer") && is_integral(value)),
            found => wanted.contains(&found),
        };
        if fits {
            self.matches += 1;
        } else if !limits.format.is_empty() && matches!(value, Value::Bool(_) | Value::Object(_)) {
            self.mistyped(path, &limits.format, "");
        } else {
            self.mistyped(path, &wanted.join(","), found);
        }
    }

    fn joined(&mut self, value: &Value, old: Option<&Value>, limits: &Limits, path: &str) {
        self.matches += 1;
        if !limits.any_of.is_empty() {
            let mut best: Option<Checked> = None;
            let mut fits = None;
            for schema in &limits.any_of {
                let checked = Checked::of(value, old, schema, path);
                if checked.errors.is_empty() {
                    fits = Some(checked);
                    break;
                }
                if best.as_ref().is_none_or(|best| checked.matches > best.matches) {
                    best = Some(checked);
                }
            }
            match (fits, best) {
                (Some(checked), _) => self.merge(checked),
                (None, best) => {
                    self.unplaced(format!("{} must validate at least one schema (anyOf)", quote(path)));
                    self.merge(best.unwrap_or_default());
                }
            }
        }
        self.one_of(value, old, limits, path);
        if !limits.all_of.is_empty() {
            let results: Vec<Checked> = limits.all_of.iter().map(|schema| Checked::of(value, old, schema, path)).collect();
            let valid = results.iter().filter(|checked| checked.errors.is_empty()).count();
            let all = results.len();
            results.into_iter().for_each(|checked| self.merge(checked));
            if valid != all {
                let none = if valid == 0 { ". None validated" } else { "" };
                self.unplaced(format!("{} must validate all the schemas (allOf){none}", quote(path)));
            }
        }
        if let Some(schema) = &limits.not
            && Checked::of(value, None, schema, path).errors.is_empty()
        {
            self.unplaced(format!("{} must not validate the schema (not)", quote(path)));
        }
    }

    fn one_of(&mut self, value: &Value, old: Option<&Value>, limits: &Limits, path: &str) {
        if limits.one_of.is_empty() {
            return;
        }
        let (mut valid, mut best, mut first): (usize, Option<Checked>, Option<Checked>) = (0, None, None);
        for schema in &limits.one_of {
            let checked = Checked::of(value, old, schema, path);
            if checked.errors.is_empty() {
                valid += 1;
                best = None;
                first.get_or_insert(checked);
            } else if valid == 0 && best.as_ref().is_none_or(|best| checked.matches > best.matches) {
                best = Some(checked);
            }
        }
        if valid == 1 {
            self.merge(first.unwrap_or_default());
            return;
        }
        let found = if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
        self.unplaced(format!("{} must validate one and only one schema (oneOf). {found}", quote(path)));
        self.merge(best.unwrap_or_default());
    }

    fn string(&mut self, text: &str, schema: &Structural, limits: &Limits, path: &str) {
        self.matches += 1;
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = limits.max_length.filter(|max| length > *max) {
            self.errors.push(FieldError::too_long(&FieldPath::new(shown(path)), usize::try_from(max).unwrap_or(0)));
        } else if let Some(min) = limits.min_length.filter(|min| length < *min) {
            self.invalid(path, Value::from(text), format!("should be at least {min} chars long"));
        } else if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            self.invalid(path, Value::from(text), format!("should match '{}'", pattern.source()));
        }
        let is_string = schema.is_int_or_string || matches!(schema.type_.as_str(), "" | "string");
        if is_string && !limits.format.is_empty() && !formats::accepts(&limits.format, text) {
            let detail = format!("{path} {IN} must be of type {}: {}", limits.format, quote(text));
            self.push(ErrorKind::TypeInvalid, path, Value::from(text), detail);
        }
    }

    fn number(&mut self, number: &Number, schema: &Structural, limits: &Limits, path: &str) {
        self.matches += 1;
        let value = || Value::Number(number.clone());
        if let Some(wanted) = out_of_range(number, schema, limits) {
            self.unplaced(format!("Checked value must be of type {wanted} in {path}"));
        }
        let float = number.as_f64().unwrap_or_default();
        let integer = number.as_i64();
        if let Some(factor) = limits.multiple_of {
            if factor <= 0.0 {
                let detail = format!("factor MultipleOf declared for {path} must be positive: {factor}");
                self.push(ErrorKind::Invalid, path, value(), detail);
            } else if !is_multiple(number, factor) {
                self.invalid(path, value(), format!("should be a multiple of {factor}"));
            }
        }
        if let Some(min) = limits.minimum {
            let (below, equal) = integer.map_or((float < min, float == min), |whole| (whole < min as i64, whole == min as i64));
            if below || (equal && limits.exclusive_minimum) {
                let words = if limits.exclusive_minimum { "greater than" } else { "greater than or equal to" };
                self.invalid(path, value(), format!("should be {words} {}", bound(min, integer.is_some())));
            }
        }
        if let Some(max) = limits.maximum {
            let (above, equal) = integer.map_or((float > max, float == max), |whole| (whole > max as i64, whole == max as i64));
            if above || (equal && limits.exclusive_maximum) {
                let words = if limits.exclusive_maximum { "less than" } else { "less than or equal to" };
                self.invalid(path, value(), format!("should be {words} {}", bound(max, integer.is_some())));
            }
        }
    }

    fn list(&mut self, items: &[Value], old: Option<&Value>, schema: &Structural, limits: &Limits, path: &str) {
        self.matches += 1;
        if let Some(inner) = schema.items.as_deref() {
            let before = Before::new(old, schema);
            for (index, item) in items.iter().enumerate() {
                self.merge(Checked::of(item, before.of(item), inner, &format!("{path}[{index}]")));
            }
        }
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(min) = limits.min_items.filter(|min| count < *min) {
            self.invalid(path, Value::from(count), format!("should have at least {min} items"));
        }
        if let Some(max) = limits.max_items.filter(|max| count > *max) {
            self.errors.push(FieldError::too_many(&FieldPath::new(shown(path)), items.len(), usize::try_from(max).unwrap_or(0)));
        }
    }

    fn enumeration(&mut self, value: &Value, limits: &Limits, path: &str) {
        self.matches += 1;
        if limits.values.is_empty() || limits.values.iter().any(|allowed| !allowed.is_null() && same(allowed, value)) {
            return;
        }
        let texts: Vec<String> =
            limits.values.iter().map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned)).collect();
        let supported: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.errors.push(FieldError::not_supported(&FieldPath::new(shown(path)), value.clone(), &supported));
    }

    fn object(&mut self, map: &Map<String, Value>, old: Option<&Value>, schema: &Structural, limits: &Limits, path: &str) {
        self.matches += 1;
        let count = i64::try_from(map.len()).unwrap_or(i64::MAX);
        if let Some(min) = limits.min_properties.filter(|min| count < *min) {
            self.invalid(path, Value::from(count), format!("should have at least {min} properties"));
        }
        if let Some(max) = limits.max_properties.filter(|max| count > *max) {
            self.errors.push(FieldError::too_many(&FieldPath::new(shown(path)), map.len(), usize::try_from(max).unwrap_or(0)));
        }
        for (key, value) in map {
            match &schema.additional {
                _ if schema.properties.contains_key(key) => {}
                Some(Additional::Allowed(false)) => {
                    let detail = format!("{path}.{key} {IN} is a forbidden property");
                    self.push(ErrorKind::Invalid, path, Value::from(key.as_str()), detail);
                }
                Some(Additional::Schema(values)) => self.merge(Checked::of(value, old_field(old, key), values, &child(path, key))),
                _ => {}
            }
        }
        for (key, property) in &schema.properties {
            if let Some(value) = map.get(key) {
                self.merge(Checked::of(value, old_field(old, key), property, &child(path, key)));
            }
        }
        for key in limits.required.iter().filter(|key| !map.contains_key(*key)) {
            self.errors.push(FieldError::required(&FieldPath::new(&child(path, key)), ""));
        }
    }
}

/// The old items of a list, by key. Only lists of type `map` have keys.
struct Before<'a> {
    items: std::collections::HashMap<String, &'a Value>,
    keys: &'a [String],
}

impl<'a> Before<'a> {
    fn new(old: Option<&'a Value>, schema: &'a Structural) -> Before<'a> {
        let old = old.and_then(Value::as_array).filter(|_| schema.list_type == ListType::Map).map(Vec::as_slice).unwrap_or_default();
        let items = old.iter().map(|item| (Self::key(item, &schema.list_keys), item)).collect();
        Before { items, keys: &schema.list_keys }
    }

    fn key(item: &Value, keys: &[String]) -> String {
        keys.iter().map(|key| item.get(key).map(ToString::to_string).unwrap_or_default()).collect::<Vec<_>>().join("\0")
    }

    fn of(&self, item: &Value) -> Option<&'a Value> {
        if self.items.is_empty() { None } else { self.items.get(&Self::key(item, self.keys)).copied() }
    }
}

fn old_field<'a>(old: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    old.and_then(|old| old.get(key))
}

fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Upstream prints the path of a whole object as `<nil>`.
fn shown(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

/// The name of a value's type.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integral(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.is_finite())
}

/// The type that a number is too large for.
fn out_of_range(number: &Number, schema: &Structural, limits: &Limits) -> Option<String> {
    let fits = match (schema.type_.as_str(), limits.format.as_str()) {
        ("integer", "int32") => number.as_i64().is_some_and(|whole| i32::try_from(whole).is_ok()),
        ("integer", _) => number.is_i64() || number.as_f64().is_some_and(|float| float.abs() < 9.2e18),
        ("number", "float") => number.as_f64().is_some_and(|float| float.abs() <= f64::from(f32::MAX)),
        _ => true,
    };
    let format = match limits.format.as_str() {
        "" => "(default format)".to_owned(),
        format => format!("with format {format}"),
    };
    (!fits).then(|| format!("{} {format}", schema.type_))
}

fn is_multiple(number: &Number, factor: f64) -> bool {
    match number.as_i64() {
        Some(whole) if factor.fract() == 0.0 => whole % (factor as i64).max(1) == 0,
        _ => {
            let float = number.as_f64().unwrap_or_default();
            let ratio = if factor < 1.0 { 1.0 / factor * float } else { float / factor };
            (ratio - ratio.round()).abs() < 1e-9
        }
    }
}

fn bound(limit: f64, integer: bool) -> String {
    if integer { (limit as i64).to_string() } else { limit.to_string() }
}

/// Numbers are equal by their value, however they are written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
        check(value, old, &Structural::parse(schema).unwrap(), "").iter().map(ToString::to_string).collect()
    }

    fn spec(property: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": property}}}})
    }

    fn errors(property: Value, value: Value) -> Vec<String> {
        texts(&spec(property), &json!({"spec": {"a": value}}), None)
    }

    #[test]
    fn messages_are_upstreams() {
        let cases = [
            (
                json!({"type": "string"}),
                json!(1),
                vec![r#"spec.a: Invalid value: "integer": spec.a in body must be of type string: "integer""#],
            ),
            (
                json!({"type": "string"}),
                json!(null),
                vec![r#"spec.a: Invalid value: "null": spec.a in body must be of type string: "null""#],
            ),
            (json!({"type": "integer"}), json!(1.0), vec![]),
            (
                json!({"type": "integer"}),
                json!(1.5),
                vec![r#"spec.a: Invalid value: "number": spec.a in body must be of type integer: "number""#],
            ),
            (json!({"type": "number"}), json!(1), vec![]),
            (json!({"type": "string", "nullable": true}), json!(null), vec![]),
            (json!({"x-kubernetes-int-or-string": true}), json!("1"), vec![]),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                vec![r#"spec.a: Invalid value: "boolean": spec.a in body must be of type integer,string: "boolean""#],
            ),
            (json!({"type": "string", "maxLength": 2}), json!("abc"), vec!["spec.a: Too long: may not be more than 2 bytes"]),
            (
                json!({"type": "string", "minLength": 2}),
                json!("ä"),
                vec![r#"spec.a: Invalid value: "ä": spec.a in body should be at least 2 chars long"#],
            ),
            (
                json!({"type": "string", "pattern": "^a"}),
                json!("b"),
                vec![r#"spec.a: Invalid value: "b": spec.a in body should match '^a'"#],
            ),
            (
                json!({"type": "string", "format": "date"}),
                json!("b"),
                vec![r#"spec.a: Invalid value: "b": spec.a in body must be of type date: "b""#],
            ),
            (
                json!({"type": "string", "enum": ["x", "y"]}),
                json!("z"),
                vec![r#"spec.a: Unsupported value: "z": supported values: "x", "y""#],
            ),
            (json!({"type": "integer", "enum": [1, 2]}), json!(2), vec![]),
            (
                json!({"type": "integer", "maximum": 5}),
                json!(6),
                vec!["spec.a: Invalid value: 6: spec.a in body should be less than or equal to 5"],
            ),
            (
                json!({"type": "integer", "minimum": 5, "exclusiveMinimum": true}),
                json!(5),
                vec!["spec.a: Invalid value: 5: spec.a in body should be greater than 5"],
            ),
            (
                json!({"type": "number", "minimum": 0.5}),
                json!(0.25),
                vec!["spec.a: Invalid value: 0.25: spec.a in body should be greater than or equal to 0.5"],
            ),
            (
                json!({"type": "integer", "multipleOf": 3}),
                json!(7),
                vec!["spec.a: Invalid value: 7: spec.a in body should be a multiple of 3"],
            ),
            (
                json!({"type": "integer", "format": "int32"}),
                json!(3_000_000_000_i64),
                vec![r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.a"#],
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "minItems": 3}),
                json!(["x", 1]),
                vec![
                    r#"spec.a[1]: Invalid value: "integer": spec.a[1] in body must be of type string: "integer""#,
                    "spec.a: Invalid value: 2: spec.a in body should have at least 3 items",
                ],
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
                json!(["x", "y"]),
                vec!["spec.a: Too many: 2: must have at most 1 item"],
            ),
            (
                json!({"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}, "maxProperties": 1}),
                json!({"c": 1, "d": 1}),
                vec!["spec.a: Too many: 2: must have at most 1 item", "spec.a.b: Required value"],
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"k": 1}),
                vec![r#"spec.a.k: Invalid value: "integer": spec.a.k in body must be of type string: "integer""#],
            ),
        ];
        for (property, value, want) in cases {
            assert_eq!(errors(property.clone(), value.clone()), want, "{property} {value}");
        }
    }

    #[test]
    fn alternatives_show_the_closest_one() {
        let one = json!({"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": "string"}},
            "oneOf": [{"required": ["b"]}, {"required": ["c"]}]});
        assert_eq!(
            errors(one.clone(), json!({"b": "1", "c": "2"})),
            [r#"<nil>: Invalid value: "": "spec.a" must validate one and only one schema (oneOf). Found 2 valid alternatives"#]
        );
        assert_eq!(
            errors(one.clone(), json!({})),
            [
                r#"<nil>: Invalid value: "": "spec.a" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.a.b: Required value"
            ]
        );
        assert!(errors(one, json!({"c": "1"})).is_empty());
        let any = json!({"type": "string", "anyOf": [{"minLength": 3}, {"pattern": "^x"}]});
        assert_eq!(errors(any.clone(), json!("xy")).len(), 0);
        assert_eq!(errors(any, json!("y"))[0], r#"<nil>: Invalid value: "": "spec.a" must validate at least one schema (anyOf)"#);
        let all = json!({"type": "string", "allOf": [{"minLength": 3}, {"pattern": "^x"}], "not": {"enum": ["xxx"]}});
        assert_eq!(
            errors(all.clone(), json!("xy")).last().unwrap(),
            r#"<nil>: Invalid value: "": "spec.a" must validate all the schemas (allOf)"#
        );
        assert_eq!(errors(all, json!("xxx")), [r#"<nil>: Invalid value: "": "spec.a" must not validate the schema (not)"#]);
    }

    #[test]
    fn what_did_not_change_is_not_judged_again() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object",
                "properties": {"n": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}}}});
        let old = json!({"a": "long", "b": "x", "list": [{"n": "1", "v": "long"}]});
        let new = json!({"a": "long", "b": "long", "list": [{"n": "0", "v": "x"}, {"n": "1", "v": "long"}, {"n": "2", "v": "long"}]});
        assert_eq!(
            texts(&schema, &new, Some(&old)),
            ["b: Too long: may not be more than 1 byte", "list[2].v: Too long: may not be more than 1 byte"]
        );
        assert_eq!(texts(&schema, &new, None).len(), 4);
    }

    #[test]
    fn a_status_has_its_place() {
        let schema = Structural::parse(&json!({"type": "object", "required": ["n"], "properties": {"r": {"type": "integer"}}})).unwrap();
        let errors = check(&json!({"r": "x"}), None, &schema, "status");
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [r#"status.r: Invalid value: "string": r in body must be of type integer: "string""#, "status.n: Required value"]
        );
    }
}
