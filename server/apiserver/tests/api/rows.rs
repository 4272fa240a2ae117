//! A resource that no generated table knows is served at run time, removed, and served again.

use std::borrow::Cow;
use std::sync::Arc;

use crate::support::{Cluster, Events};
use http::Method;
use serde_json::{Value, json};
use trireme_api::gvk::Name;
use trireme_api::resource::{Cells, Column, Definition, Kind, Schema, SelectableField};
use trireme_api::resources::{Resource, Storage, Subresource};
use trireme_api::validate::At;

/// Boats have sails; racing boats show their number too.
struct Boat {
    racing: bool,
}

impl Kind for Boat {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, boat: &mut Value) {
        if boat["spec"].get("sails").is_none() {
            boat["spec"]["sails"] = json!(1);
        }
    }

    fn validate(&self, boat: &At<'_>) {
        boat.at("spec").at("sails").in_range(0, 9);
    }

    fn validate_update(&self, boat: &At<'_>, old: &At<'_>) {
        self.validate(boat);
        boat.at("spec").at("harbour").immutable(&old.at("spec").at("harbour"));
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse(if self.racing { "Name#|Sails:i|Number" } else { "Name#|Sails:i" })
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name(), json!(cells.int(&["spec", "sails"]))];
        if self.racing {
            row.push(cells.text_or(&["spec", "number"], "<none>"));
        }
        row
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("spec.harbour")]
    }
}

/// Names that are made at run time.
fn boats(racing: bool) -> Vec<Arc<Definition>> {
    let owned = |text: &str| Name::from(text.to_owned());
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"].map(owned);
    let resource = Resource {
        group: owned("ships.example.com"),
        versions: Cow::Owned(vec![owned("v1")]),
        storage: Storage { group: owned("ships.example.com"), version: owned("v1"), hash_version: owned("v1") },
        plural: owned("boats"),
        singular: owned("boat"),
        kind: owned("Boat"),
        list_kind: owned("BoatList"),
        short_names: Cow::Owned(Vec::new()),
        categories: Cow::Owned(Vec::new()),
        namespaced: true,
        verbs: Cow::Owned(verbs.to_vec()),
        subresources: Cow::Owned(vec![Subresource {
            name: owned("status"),
            group: owned(""),
            version: owned(""),
            kind: owned("Boat"),
            verbs: Cow::Owned(["get", "patch", "update"].map(owned).to_vec()),
        }]),
    };
    vec![Arc::new(Definition::new(Arc::new(resource), Schema::Open, Arc::new(Boat { racing })))]
}

const BOATS: &str = "/apis/ships.example.com/v1/namespaces/default/boats";

fn boat(name: &str, harbour: &str) -> Value {
    json!({"apiVersion": "ships.example.com/v1", "kind": "Boat", "metadata": {"name": name}, "spec": {"harbour": harbour, "crew": [{"any": 1}]}})
}

async fn names(cluster: &Cluster, target: &str) -> Vec<String> {
    let (code, list) = cluster.admin(Method::GET, target, Value::Null).await;
    assert_eq!(code, 200, "{list}");
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn table(cluster: &Cluster) -> Value {
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    crate::support::read(cluster.send(Method::GET, BOATS, Value::Null, &[accept]).await).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_is_added_served_removed_and_added_again() {
    let cluster = Cluster::start().await;
    let (code, _) = cluster.admin(Method::POST, BOATS, boat("a", "kiel")).await;
    assert_eq!(code, 404, "nobody knows boats yet");

    cluster.api.serve_resource(boats(false)).await.unwrap();
    let (code, made) = cluster.admin(Method::POST, BOATS, boat("a", "kiel")).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"harbour": "kiel", "sails": 1, "crew": [{"any": 1}]})), "{made}");
    assert_eq!(made["metadata"]["generation"], 1);
    let (code, discovery) = cluster.admin(Method::GET, "/apis/ships.example.com/v1", Value::Null).await;
    assert_eq!((code, &discovery["resources"][0]["name"]), (200, &json!("boats")), "{discovery}");

    // Validation, with the kind's rules and words.
    let mut wrong = boat("b", "rostock");
    wrong["spec"]["sails"] = json!(10);
    let (code, refused) = cluster.admin(Method::POST, BOATS, wrong).await;
    let message = "Boat.ships.example.com \"b\" is invalid: spec.sails: Invalid value: 10: must be between 0 and 9, inclusive";
    assert_eq!((code, refused["message"].as_str()), (422, Some(message)));
    let (code, _) = cluster.admin(Method::POST, BOATS, json!({"metadata": {"name": "b", "labels": {"a": 1}}})).await;
    assert_eq!(code, 400, "metadata is typed");

    // A watch sees what follows; a selector by field divides it.
    let target = format!(
        "{BOATS}?watch=1&fieldSelector=spec.harbour%3Drostock&resourceVersion={}",
        made["metadata"]["resourceVersion"].as_str().unwrap()
    );
    let mut events = Events::new(cluster.send(Method::GET, &target, Value::Null, &[]).await);
    assert_eq!(cluster.admin(Method::POST, BOATS, boat("c", "kiel")).await.0, 201);
    assert_eq!(cluster.admin(Method::POST, BOATS, boat("b", "rostock")).await.0, 201);
    assert_eq!(events.named().await, ("ADDED".to_owned(), "b".to_owned()));
    assert_eq!(names(&cluster, BOATS).await, ["a", "b", "c"]);
    assert_eq!(names(&cluster, &format!("{BOATS}?fieldSelector=spec.harbour%3Dkiel")).await, ["a", "c"]);

    // Update, patch, status, immutability.
    let (code, patched) = cluster.admin(Method::PATCH, &format!("{BOATS}/b"), json!({"spec": {"sails": 2}})).await;
    assert_eq!((code, &patched["metadata"]["generation"]), (200, &json!(2)), "{patched}");
    assert_eq!(events.named().await, ("MODIFIED".to_owned(), "b".to_owned()));
    let (code, status) =
        cluster.admin(Method::PATCH, &format!("{BOATS}/b/status"), json!({"spec": {"sails": 3}, "status": {"afloat": true}})).await;
    assert_eq!((code, &status["spec"]["sails"], &status["status"]), (200, &json!(2), &json!({"afloat": true})), "{status}");
    assert_eq!(events.named().await, ("MODIFIED".to_owned(), "b".to_owned()));
    let (code, _) = cluster.admin(Method::PATCH, &format!("{BOATS}/b"), json!({"spec": {"harbour": "kiel"}})).await;
    assert_eq!(code, 422);
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let (code, _) = crate::support::read(cluster.send(Method::PATCH, &format!("{BOATS}/b"), json!({"spec": {}}), &strategic).await).await;
    assert_eq!(code, 415, "no types, no strategic merge");
    let shown = table(&cluster).await;
    assert_eq!(shown["columnDefinitions"].as_array().unwrap().len(), 2);
    assert_eq!(shown["rows"][1]["cells"], json!(["b", 2]));
    assert_eq!(cluster.admin(Method::DELETE, &format!("{BOATS}/c"), Value::Null).await.0, 200);

    // Removed: 404, and the watch ends.
    assert!(cluster.api.stop_serving("ships.example.com", "boats").await);
    assert!(!cluster.api.stop_serving("ships.example.com", "boats").await);
    assert!(events.next().await.is_none(), "the watch ends");
    assert_eq!(cluster.admin(Method::GET, BOATS, Value::Null).await.0, 404);
    assert_eq!(cluster.admin(Method::GET, "/apis/ships.example.com/v1", Value::Null).await.0, 404);

    // Added again, with other columns: the objects are back, and those of other kinds were never away.
    cluster.api.serve_resource(boats(true)).await.unwrap();
    assert_eq!(names(&cluster, BOATS).await, ["a", "b"]);
    assert_eq!(table(&cluster).await["rows"][0]["cells"], json!(["a", 1, "<none>"]));
    let mut events = Events::new(cluster.send(Method::GET, &format!("{BOATS}?watch=1"), Value::Null, &[]).await);
    assert_eq!(events.named().await.1, "a");
    assert_eq!(events.named().await.1, "b");

    // Replaced while it is served: watches end, objects stay.
    cluster.api.serve_resource(boats(false)).await.unwrap();
    assert!(events.next().await.is_none(), "the watch ends");
    assert_eq!(names(&cluster, BOATS).await, ["a", "b"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_added_under_writes_misses_none() {
    let cluster = Arc::new(Cluster::start().await);
    cluster.api.serve_resource(boats(false)).await.unwrap();
    for round in 0..5 {
        let writer = tokio::spawn({
            let cluster = cluster.clone();
            async move {
                for i in 0..20 {
                    let (code, answer) = cluster.admin(Method::POST, BOATS, boat(&format!("b{round}-{i}"), "kiel")).await;
                    assert_eq!(code, 201, "{answer}");
                }
            }
        });
        for _ in 0..5 {
            cluster.api.serve_resource(boats(false)).await.unwrap();
        }
        writer.await.unwrap();
        assert_eq!(names(&cluster, BOATS).await.len(), 20 * (round + 1));
    }
}
