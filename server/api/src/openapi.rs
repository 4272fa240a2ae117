//! OpenAPI documents: v3 per group version, v2 as a whole.
//!
//! They are computed on request from rows, schema tables and the schemas of definitions, written straight into the output, and not
//! kept here. They contain what clients use: schemas with merge keys and kinds, and the operations with their query parameters, bodies
//! and kinds. Descriptions are omitted, so `kubectl explain` shows types only.

mod custom;
mod dialect;
mod operations;
mod schemas;
mod served;
mod target;
mod v2_protobuf;

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::gvk::GroupVersion;
use dialect::Dialect;
pub use served::Served;
pub use served::path_of;
use target::Used;

/// Media type of the v2 document in protobuf, the only form in which client-go asks for it.
pub const V2_PROTOBUF_CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v3`: where the documents are, each with a hash that changes when the document does.
pub fn v3_index(rows: &[Served]) -> Value {
    let paths: serde_json::Map<String, Value> = group_versions(rows)
        .iter()
        .map(|gv| {
            let path = path_of(gv);
            let url = format!("/openapi/v3/{path}?hash={}", v3_hash(rows, gv));
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// Hash of the document of a group version, without making it: everything it is made of goes in.
pub fn v3_hash(rows: &[Served], group_version: &GroupVersion) -> String {
    hash(rows.iter().filter(|row| row.is_in(group_version)))
}

/// Hash of the v2 document.
pub fn v2_hash(rows: &[Served]) -> String {
    hash(rows.iter())
}

fn hash<'a>(rows: impl Iterator<Item = &'a Served>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    hasher.update(crate::schema::fingerprint());
    for row in rows {
        hasher.update(format!("{:?}", row.resource));
        hasher.update(row.published.as_ref().map_or([0; 32], |published| published.digest));
    }
    hex::encode_upper(hasher.finalize())
}

/// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`; None if nothing is served there.
pub fn v3(rows: &[Served], group_version: &GroupVersion) -> Option<Bytes> {
    let rows: Vec<&Served> = rows.iter().filter(|row| row.is_in(group_version)).collect();
    if rows.is_empty() {
        return None;
    }
    let mut used = Used::default();
    let mut out = String::from(r#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{"#);
    write_paths(&mut out, Dialect::V3, &rows, Some(&group_version.version), &mut used);
    out.push_str(r#"},"components":{"schemas":{"#);
    write_schemas(&mut out, Dialect::V3, used);
    out.push_str("}}}");
    Some(out.into())
}

/// `/openapi/v2` in JSON.
pub fn v2(rows: &[Served]) -> Bytes {
    let rows: Vec<&Served> = rows.iter().collect();
    let mut used = Used::default();
    let mut out = String::from(r#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{"#);
    write_paths(&mut out, Dialect::V2, &rows, None, &mut used);
    out.push_str(r#"},"definitions":{"#);
    write_schemas(&mut out, Dialect::V2, used);
    out.push_str("}}");
    out.into()
}

/// `/openapi/v2` in protobuf (gnostic's `openapi.v2.Document`).
pub fn v2_protobuf(rows: &[Served]) -> Bytes {
    v2_protobuf::encode(rows)
}

fn group_versions(rows: &[Served]) -> Vec<GroupVersion> {
    let mut seen: Vec<GroupVersion> = Vec::new();
    for row in rows {
        for version in row.resource.versions.iter() {
            let gv = GroupVersion { group: row.resource.group.clone(), version: version.clone() };
            if !seen.contains(&gv) {
                seen.push(gv);
            }
        }
    }
    seen
}

fn write_paths(out: &mut String, dialect: Dialect, rows: &[&Served], version: Option<&str>, used: &mut Used) {
    let mut first = true;
    for row in rows {
        for served in row.resource.versions.iter().filter(|v| version.is_none_or(|only| *v == only)) {
            for (path, item) in operations::paths(row, served, dialect, used) {
                write_member(out, &mut first, &path, &item);
            }
        }
    }
}

fn write_schemas(out: &mut String, dialect: Dialect, used: Used) {
    let mut first = true;
    for (name, schema) in used.definitions(dialect) {
        write_member(out, &mut first, &name, &schema);
    }
}

fn write_member(out: &mut String, first: &mut bool, key: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(',');
    }
    write!(out, "{}:{value}", Value::from(key)).expect("invariant: writing to a string doesn't fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Published;

    fn builtin() -> &'static [Served] {
        static BUILTIN: std::sync::LazyLock<Vec<Served>> = std::sync::LazyLock::new(|| served::builtin().collect());
        &BUILTIN
    }

    fn document(gv: &GroupVersion) -> Value {
        serde_json::from_slice(&v3(builtin(), gv).expect("served")).expect("JSON")
    }

    /// Every `$ref` below a value.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, child)| match child {
                Value::String(target) if key == "$ref" => found.push(target),
                _ => references(child, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn references_resolve_in_every_document() {
        for gv in group_versions(builtin()) {
            let document = document(&gv);
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(!found.is_empty(), "{gv}");
            for target in found {
                assert!(document.pointer(&target[1..]).is_some(), "{gv}: {target}");
            }
        }
        let v2: Value = serde_json::from_slice(&v2(builtin())).expect("JSON");
        let mut found = Vec::new();
        references(&v2, &mut found);
        assert!(found.iter().all(|target| v2.pointer(&target[1..]).is_some()));
    }

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let document = document(&GroupVersion::new("apps", "v1"));
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
        let names: Vec<_> = patch["parameters"].as_array().into_iter().flatten().map(|p| p["name"].clone()).collect();
        assert!(names.contains(&"fieldValidation".into()) && names.contains(&"dryRun".into()));
        let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    }

    #[test]
    fn the_index_lists_all_group_versions() {
        let index = v3_index(builtin());
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("listed");
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        assert!(index["paths"]["api/v1"].is_object());
    }

    #[test]
    fn a_resource_that_was_defined_is_described() {
        let crd = json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
            "schema": {"openAPIV3Schema": {"type": "object", "description": "A foo.", "properties": {"spec": {"type": "object"}}}}}]},
            "status": {"acceptedNames": {"singular": "foo", "kind": "Foo", "listKind": "FooList"}}});
        let definition = crate::custom::define::define(&crd).expect("a definition").remove(0);
        let of = |published: Option<Published>| Served { resource: definition.resource.clone(), published };
        let rows = [of(definition.published.clone())];
        let gv = GroupVersion::new("example.com", "v1");
        let document: Value = serde_json::from_slice(&v3(&rows, &gv).expect("served")).expect("JSON");
        let schema = &document["components"]["schemas"]["com.example.v1.Foo"];
        assert_eq!(schema["description"], "A foo.");
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([{"group": "example.com", "version": "v1", "kind": "Foo"}]));
        let create = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/foos"]["post"];
        let body = &create["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(body, "#/components/schemas/com.example.v1.Foo");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.iter().all(|target| document.pointer(&target[1..]).is_some()), "{found:?}");
        let swagger: Value = serde_json::from_slice(&v2(&rows)).expect("JSON");
        assert!(swagger["definitions"]["com.example.v1.FooList"]["properties"]["items"].is_object());
        assert!(!v2_protobuf(&rows).is_empty());
        assert_ne!(v2_hash(&rows), v2_hash(&[of(None)]), "the hash knows the schema");
    }
}
