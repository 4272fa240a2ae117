use serde_json::{Value, json};

use super::*;
use crate::custom::schema_rules;
use crate::field::FieldPath;
use crate::validate::{At, Errors};

fn texts(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Structural::parse(schema).unwrap();
    let Some(rules) = Validations::compile(&schema, true) else { return Vec::new() };
    rules.check(object, old, &schema).errors.iter().map(ToString::to_string).collect()
}

/// A schema whose `spec` has this schema.
fn spec(schema: Value) -> Value {
    json!({"type": "object", "properties": {"spec": schema}})
}

/// What a definition with this schema is refused for.
fn refusals(schema: Value) -> Vec<String> {
    let errors = Errors::default();
    schema_rules::check(&At::new(&schema, FieldPath::new("s"), &errors), false);
    errors.take().iter().map(ToString::to_string).collect()
}

fn rules(texts: &[&str]) -> Value {
    texts.iter().map(|text| json!({"rule": text})).collect()
}

#[test]
fn rules_see_values_by_their_schema() {
    let schema = spec(json!({"type": "object", "properties": {
    "x": {"type": "integer"}, "ratio": {"type": "number"}, "name": {"type": "string"}, "flag": {"type": "boolean"},
    "port": {"x-kubernetes-int-or-string": true}, "raw": {"type": "string", "format": "byte"},
    "wait": {"type": "string", "format": "duration"}, "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
    "namespace": {"type": "string"}, "x-dash": {"type": "integer"}, "none": {"type": "string", "nullable": true},
    "list": {"type": "array", "items": {"type": "string"}},
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    "x-kubernetes-validations": rules(&[
        "self.x == 1 && self.ratio == 2.0 && self.name == 'n' && self.flag",
        "self.port == 80 || self.port == 'http'",
        "self.raw == b'abc' && self.wait == duration('1m') && self.at > timestamp('2024-01-01T00:00:00Z')",
        "self.day == timestamp('2024-01-02T00:00:00Z') && self.at.getFullYear() == 2024",
        "self.__namespace__ == 'ns' && self.x__dash__dash == 5",
        "!has(self.none)",
        "self.list[0] == 'a' && self.list.size() == 2 && self.list.all(i, i < 'c') && 'b' in self.list",
        "self.set == ['b', 'a'] && self.set + ['a', 'c'] == ['a', 'b', 'c'] && self.set.exists(i, i == 'a') && size(self.set) == 2",
        "self.list != ['b', 'a'] && self.list + ['a'] == ['a', 'b', 'a']",
        "self.ports == [{'name': 'b', 'n': 2}, {'name': 'a', 'n': 1}] || self.ports.size() == 2",
        "self.ports.filter(p, p.name == 'a')[0].n == 1 && self.ports.map(p, p.n).sum() == 3 && self.ports[1].name == 'b'",
        "self.map['k'] == 1 && self.map.all(k, self.map[k] > 0) && !('z' in self.map) && has(self.any)",
        "self.?x.orValue(3) == 1 && self.?name.hasValue()",
    ])}));
    let object = json!({"spec": {"x": 1, "ratio": 2, "name": "n", "flag": true, "port": "http", "raw": "YWJj", "wait": "1m", "at": "2024-05-05T00:00:00Z",
        "day": "2024-01-02", "namespace": "ns", "x-dash": 5, "list": ["a", "b"], "set": ["a", "b"], "map": {"k": 1}, "any": {"deep": [1]},
        "ports": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}});
    assert_eq!(refusals(schema.clone()), Vec::<String>::new());
    assert_eq!(texts(&schema, &object, None), Vec::<String>::new());
}

#[test]
fn refusals_are_upstreams() {
    let cases = [
        (json!([{"rule": "self.x + self.y > 0"}]), "spec: Invalid value: failed rule: self.x + self.y > 0"),
        (json!([{"rule": "self.x > 0", "message": " x must be positive "}]), "spec: Invalid value: x must be positive"),
        (json!([{"rule": "self.x > 0", "message": "m", "messageExpression": "'x is ' + string(self.x)"}]), "spec: Invalid value: x is 0"),
        (json!([{"rule": "self.x > 0", "message": "m", "messageExpression": "'a\\nb'"}]), "spec: Invalid value: m"),
        (json!([{"rule": "self.x > 0", "message": "m", "messageExpression": "self.list[7]"}]), "spec: Invalid value: m"),
        (json!([{"rule": "self.x > 0", "fieldPath": ".x"}]), "spec.x: Invalid value: failed rule: self.x > 0"),
        (json!([{"rule": "self.x > 0", "reason": "FieldValueForbidden", "message": "no"}]), "spec: Forbidden: no"),
        (json!([{"rule": "self.x > 0", "reason": "FieldValueRequired", "message": "no", "fieldPath": ".y"}]), "spec.y: Required value: no"),
        (
            json!([{"rule": "self.list[7] == 'a'"}]),
            r#"spec: Invalid value: "object": index out of bounds: 7 evaluating rule: self.list[7] == 'a'"#,
        ),
        (
            json!([{"rule": "self.p + 1 == 2", "message": "m"}]),
            r#"spec: Invalid value: "object": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: m"#,
        ),
    ];
    for (rules, want) in cases {
        let schema = spec(json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
            "x": {"type": "integer"}, "y": {"type": "integer"}, "p": {"x-kubernetes-int-or-string": true},
            "list": {"type": "array", "items": {"type": "string"}}}}));
        assert_eq!(refusals(schema.clone()), Vec::<String>::new(), "{want}");
        let object = json!({"spec": {"x": 0, "y": 0, "p": "a", "list": []}});
        assert_eq!(texts(&schema, &object, None), [want]);
    }
    let scalar =
        spec(json!({"type": "object", "properties": {"x": {"type": "integer", "x-kubernetes-validations": rules(&["self > 0"])}}}));
    assert_eq!(texts(&scalar, &json!({"spec": {"x": -1}}), None), ["spec.x: Invalid value: -1: failed rule: self > 0"]);
    assert_eq!(texts(&scalar, &json!({"spec": {}}), None), Vec::<String>::new());
}

#[test]
fn rules_of_items_and_values_and_of_the_whole_object() {
    let schema = json!({"type": "object", "x-kubernetes-validations": rules(&["self.metadata.name.startsWith('a') && self.kind == 'Foo'"]),
        "properties": {"spec": {"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": rules(&["self < 5"])}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "string"}},
                "x-kubernetes-validations": rules(&["self.v.matches('^[a-z]$')"])}}}}}});
    assert_eq!(refusals(schema.clone()), Vec::<String>::new());
    let object = json!({"apiVersion": "g/v", "kind": "Foo", "metadata": {"name": "b"}, "spec": {"list": [1, 7], "map": {"k": {"v": "ab"}, "l": {"v": "a"}}}});
    assert_eq!(
        texts(&schema, &object, None),
        [
            "<nil>: Invalid value: failed rule: self.metadata.name.startsWith('a') && self.kind == 'Foo'",
            "spec.list[1]: Invalid value: 7: failed rule: self < 5",
            "spec.map[k]: Invalid value: failed rule: self.v.matches('^[a-z]$')",
        ]
    );
}

#[test]
fn transition_rules_need_something_to_compare_with() {
    let schema = spec(json!({"type": "object", "properties": {
        "n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "must not shrink"}]},
        "once": {"type": "string", "x-kubernetes-validations": [{"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": true}]},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"],
            "properties": {"k": {"type": "string"}, "v": {"type": "integer", "x-kubernetes-validations": rules(&["self == oldSelf"])}}}}}}));
    assert_eq!(refusals(schema.clone()).len(), 0);
    let old = json!({"spec": {"n": 5, "once": "second", "map": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]}});
    assert_eq!(texts(&schema, &old, None), ["spec.once: Invalid value: \"second\": failed rule: oldSelf.hasValue() || self == 'first'"]);
    let new = json!({"spec": {"n": 4, "once": "third", "map": [{"k": "c", "v": 9}, {"k": "b", "v": 3}, {"k": "a", "v": 1}]}});
    assert_eq!(
        texts(&schema, &new, Some(&old)),
        ["spec.map[1].v: Invalid value: 3: failed rule: self == oldSelf", "spec.n: Invalid value: 4: must not shrink"]
    );
}

#[test]
fn what_was_invalid_before_may_stay() {
    let schema = spec(json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": rules(&["self > 0"])},
        "b": {"type": "integer", "x-kubernetes-validations": rules(&["self > 0"])},
        "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": rules(&["self > 0"])}}},
        "x-kubernetes-validations": rules(&["self.a + self.b > 0"])}));
    let old = json!({"spec": {"a": -1, "b": -1, "list": [-1]}});
    assert_eq!(texts(&schema, &old, Some(&old)), Vec::<String>::new());
    let parsed = Structural::parse(&schema).unwrap();
    let warnings = Validations::compile(&parsed, true).unwrap().check(&old, Some(&old), &parsed).warnings;
    assert_eq!((warnings.len(), warnings[0].as_str()), (4, "spec: Invalid value: failed rule: self.a + self.b > 0"));
    let new = json!({"spec": {"a": -1, "b": -2, "list": [-1]}});
    assert_eq!(
        texts(&schema, &new, Some(&old)),
        ["spec: Invalid value: failed rule: self.a + self.b > 0", "spec.b: Invalid value: -2: failed rule: self > 0"]
    );
    let longer = json!({"spec": {"a": -1, "b": -1, "list": [-1, 1]}});
    assert_eq!(
        texts(&schema, &longer, Some(&old)),
        ["spec: Invalid value: failed rule: self.a + self.b > 0", "spec.list[0]: Invalid value: -1: failed rule: self > 0"],
        "the items of a list cannot be told apart: all of it has changed"
    );
}

#[test]
fn definitions_are_refused_in_upstreams_words() {
    let with = |rule: Value| {
        spec(
            json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {"x": {"type": "integer"}, "free": {"x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"y": {"type": "integer"}}}}}}),
        )
    };
    let at = "s.properties[spec].x-kubernetes-validations[0]";
    for (rule, field, part) in [
        (json!({"rule": " "}), "rule", "Required value: rule is not specified"),
        (json!({"rule": "true", "message": " "}), "message", "must be non-empty if specified"),
        (json!({"rule": "true", "message": "a\nb"}), "message", "must not contain line breaks"),
        (json!({"rule": "true\n"}), "", ""),
        (json!({"rule": "true &&\ntrue"}), "message", "Required value: message must be specified if rule contains line breaks"),
        (json!({"rule": "true", "reason": "Nope"}), "reason", "Unsupported value: \"Nope\""),
        (json!({"rule": "true", "fieldPath": ".nope"}), "fieldPath", "must be a valid path"),
        (json!({"rule": "self.z == 100"}), "rule", "compilation failed: ERROR: <input>:1:5: undefined field 'z'"),
        (json!({"rule": "self.free == 1"}), "rule", "undefined field 'free'"),
        (json!({"rule": "self.x"}), "rule", "cel expression must evaluate to a bool"),
        (json!({"rule": "self.x == 'a'"}), "rule", "found no matching overload for '_==_' applied to '(int, string)'"),
        (json!({"rule": "object.x == 1"}), "rule", "undeclared reference to 'object'"),
        (json!({"rule": "true", "messageExpression": "self.x"}), "messageExpression", "messageExpression must evaluate to a string"),
        (json!({"rule": "true", "messageExpression": "self.z"}), "messageExpression", "messageExpression compilation failed: ERROR"),
        (json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf", "may not be set if oldSelf is not used in rule"),
        (json!({"rule": "authorizer.path('/x').check('get').allowed()"}), "rule", "undeclared reference to 'authorizer'"),
    ] {
        let found = refusals(with(rule.clone()));
        if part.is_empty() {
            assert_eq!(found, Vec::<String>::new(), "{rule}");
        } else {
            assert!(found.len() == 1 && found[0].starts_with(&format!("{at}.{field}: ")) && found[0].contains(part), "{rule}: {found:?}");
        }
    }
    let in_list = spec(
        json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": rules(&["self == oldSelf"])}}}}),
    );
    assert_eq!(
        refusals(in_list),
        [
            r#"s.properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec].properties[list]"#
        ]
    );
}

#[test]
fn nothing_that_is_written_in_a_rule_takes_for_ever() {
    let heavy = "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))";
    let schema = spec(json!({"type": "object", "x-kubernetes-validations": rules(&[heavy, "true"]),
        "properties": {"list": {"type": "array", "items": {"type": "integer"}}}}));
    let object = json!({"spec": {"list": vec![1; 1000]}});
    let found = texts(&schema, &object, None);
    assert!(found.len() == 1 && found[0].contains("call cost exceeds limit for rule: self.list.all"), "{found:?}");
    // Rules that are within their own bound, many times.
    let heavy = "lists.range(300).all(a, lists.range(300).all(b, a + b >= self - self))";
    let schema = spec(
        json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": rules(&[heavy])}}}}),
    );
    let found = texts(&schema, &object, None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("validation failed due to running out of cost budget, no further validation rules will be run"),
        "{found:?}"
    );
}
