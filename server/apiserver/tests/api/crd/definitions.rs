//! Definitions for tests, and the controller's part: the names are granted as it would grant them.

#![allow(dead_code, clippy::unwrap_used)]

use http::Method;
use serde_json::{Value, json};
use trireme_api::custom::accept::{Claim, Names, settle};

use crate::support::Cluster;

pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of `boats` with one version.
pub fn boats(schema: Value) -> Value {
    definition("boats", "Boat", json!([version("v1", true, schema)]))
}

pub fn version(name: &str, storage: bool, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
}

pub fn definition(plural: &str, kind: &str, versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.ships.example.com")},
        "spec": {"group": "ships.example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": versions}})
}

/// Creates a definition and grants its names.
pub async fn establish(cluster: &Cluster, definition: Value) -> Value {
    let (code, made) = cluster.admin(Method::POST, CRDS, definition).await;
    assert_eq!(code, 201, "{made}");
    accept(cluster, made["metadata"]["name"].as_str().unwrap()).await
}

/// Does what the controller does for one definition.
pub async fn accept(cluster: &Cluster, name: &str) -> Value {
    let (_, list) = cluster.admin(Method::GET, CRDS, Value::Null).await;
    let names = |value: &Value| serde_json::from_value::<Names>(value.clone()).unwrap();
    let all = list["items"].as_array().unwrap();
    let granted: Vec<Names> = all.iter().map(|item| names(&item["status"]["acceptedNames"])).collect();
    let own = all.iter().find(|item| item["metadata"]["name"] == name).unwrap();
    let claim = Claim {
        wanted: names(&own["spec"]["names"]),
        accepted: names(&own["status"]["acceptedNames"]),
        conditions: serde_json::from_value(own["status"]["conditions"].clone()).unwrap_or_default(),
        approval: None,
    };
    let status = settle(&claim, granted.iter(), jiff::Timestamp::now()).unwrap();
    let (code, written) = cluster.admin(Method::PATCH, &format!("{CRDS}/{name}/status"), json!({"status": status})).await;
    assert_eq!(code, 200, "{written}");
    cluster.seen(&written).await;
    written
}
