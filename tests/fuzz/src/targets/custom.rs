//! What the author of a CustomResourceDefinition writes: schemas, and rules in CEL.

use serde_json::{Value, json};
use trireme_api::custom::structural::Structural;
use trireme_api::custom::validations::Validations;
use trireme_api::custom::{decode, schema_rules};
use trireme_api::field::FieldPath;
use trireme_api::validate::{At, Errors};

use super::{Target, texts};

pub fn targets() -> Vec<Target> {
    let target = |name, what, corpus, run| Target { name, what, corpus, run };
    vec![target("crd-schema", "schemas of custom resources", schemas, run_schema), target("cel-rule", "rules in CEL", rules, run_rule)]
}

/// A schema with fields of every type.
fn schema(rules: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
        "count": {"type": "integer", "default": 1, "minimum": 0}, "ratio": {"type": "number"}, "flag": {"type": "boolean"},
        "name": {"type": "string", "maxLength": 20, "pattern": "^[a-z]*$"}, "at": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"}, "raw": {"type": "string", "format": "byte"},
        "port": {"x-kubernetes-int-or-string": true}, "none": {"type": "string", "nullable": true},
        "list": {"type": "array", "maxItems": 9, "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
}

fn object() -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "thing"}, "spec": {
        "count": 3, "ratio": 0.5, "flag": true, "name": "abc", "at": "2026-01-02T03:04:05Z", "wait": "1m30s", "raw": "YWJj", "port": "http",
        "list": ["a", "b", "c"], "set": ["x", "y"], "ports": [{"name": "http", "n": 80}, {"name": "dns", "n": 53}],
        "map": {"k": 1, "l": 2}, "any": {"deep": [1, {"er": null}]}, "unknown": 1}})
}

fn schemas() -> Vec<Vec<u8>> {
    let others = [
        json!({"type": "object", "allOf": [{"required": ["a"]}], "properties": {"a": {"type": "string", "enum": ["x"], "default": "x"}}}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "properties": {"a": {"not": {"anyOf": [{"minimum": 1}, {"maximum": -1.5, "exclusiveMaximum": true}]}}}}),
    ];
    std::iter::once(schema(&json!([{"rule": "self.count > 0"}]))).chain(others).map(|schema| schema.to_string().into_bytes()).collect()
}

fn run_schema(bytes: &[u8]) {
    let Ok(schema) = serde_json::from_slice::<Value>(bytes) else { return };
    let errors = Errors::default();
    schema_rules::check(&At::new(&schema, FieldPath::new("schema"), &errors), false);
    let is_accepted = errors.take().is_empty();
    let Ok(parsed) = Structural::parse(&schema) else { return };
    if is_accepted {
        judge(&parsed);
    }
}

fn rules() -> Vec<Vec<u8>> {
    texts(&[
        "self.count > 0 && self.ratio < 1.0 || !self.flag",
        "self.list.all(i, i.matches('^[a-c]+$')) && self.list.exists_one(i, i == 'a') && self.list.filter(i, i > 'a').size() == 2",
        "self.ports.map(p, p.n).sum() == 133 && self.ports.exists(p, p.name == 'dns')",
        "self.at + duration('1h') > timestamp('2026-01-01T00:00:00Z') && self.wait > duration('1s') && self.at.getFullYear() == 2026",
        "has(self.none) ? self.none == 'x' : self.?name.orValue('').startsWith('a')",
        "self.map.all(k, self.map[k] < 3) && 'k' in self.map && self.set + ['z'] == ['x', 'y', 'z']",
        "[1, 2u, 3.5, b'x', 'y', null, {'a': [true]}].size() == 7 && type(1) == int && dyn(self.any) != null",
        "self.name.replace('a', 'b').split('c').join('-').upperAscii() == 'BB-' && quantity('1Gi').isGreaterThan(quantity('1Mi'))",
        "self.count <= oldSelf.count && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
        "url('https://example.com:80/a?b=c').getPort() == '80' && self.list.sum().size() == 3 && self.raw == b'abc'",
        "\"%d %s %x\".format([self.count, self.name, 255]) == '3 abc ff'",
    ])
}

fn run_rule(bytes: &[u8]) {
    let schema = schema(&json!([{"rule": String::from_utf8_lossy(bytes)}]));
    let errors = Errors::default();
    schema_rules::check(&At::new(&schema, FieldPath::new("schema"), &errors), false);
    drop(errors.take());
    // Rules are evaluated although the definition may be refused: those of definitions that are stored must not panic either.
    if let Ok(parsed) = Structural::parse(&schema) {
        judge(&parsed);
    }
}

/// Everything that is done with an object by its schema.
fn judge(schema: &Structural) {
    let Ok(mut conformed) = decode::conform(object(), schema) else { return };
    decode::restore(&mut conformed.object, schema);
    let Some(rules) = Validations::compile(schema, true) else { return };
    let _ = rules.check(&conformed.object, None, schema);
    let _ = rules.check(&conformed.object, Some(&object()), schema);
}
