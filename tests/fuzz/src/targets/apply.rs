//! `metadata.managedFields` as clients may send it.

use serde_json::{Value, json};
use trireme_api::apply::{Managed, Set, decode, encode};

use super::{Target, texts};

pub fn targets() -> Vec<Target> {
    let target = |name, what, corpus, run| Target { name, what, corpus, run };
    vec![
        target("fields-v1", "sets of fields that managers own", sets, run_set),
        target("managed-fields", "lists of managers with their fields", lists, run_list),
    ]
}

fn set() -> Value {
    json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}},
        "f:finalizers": {"v:\"x/y\"": {}, "v:1": {}}, "f:args": {"i:0": {}, "i:7": {}}}})
}

fn sets() -> Vec<Vec<u8>> {
    let mut found = texts(&[
        r#"{"f:a":{"f:b":{},".":{}}}"#,
        r#"{"k:{\"a\":1.5,\"b\":null,\"c\":true}":{}}"#,
        r#"{"v:{\"a\":[1]}":{},"i:-1":{},"x:y":{}}"#,
    ]);
    found.push(set().to_string().into_bytes());
    found
}

fn run_set(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    let Ok(read) = decode(&value) else { return };
    let again = decode(&encode(&read));
    assert_eq!(again.as_ref(), Ok(&read), "what was read is not what is written");
    let other = Set::of_names(&[&["spec", "ports"], &["metadata", "labels", "a"]]);
    let both = read.union(&other);
    assert!(both.difference(&read).difference(&other).is_empty(), "a union has a member of its own");
    let _ = (read.intersection(&other), read.recursive_difference(&other));
}

fn lists() -> Vec<Vec<u8>> {
    let entry = |manager: &str, operation: &str| {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
            "fieldsV1": set()})
    };
    [json!([entry("kubectl", "Apply"), entry("agent", "Update")]), json!([]), json!([{}]), json!([entry("", "Delete")])]
        .map(|list| list.to_string().into_bytes())
        .to_vec()
}

fn run_list(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    if let Ok(mut managed) = Managed::parse(&value) {
        managed.cap();
        let _ = managed.to_value();
    }
}
