//! Custom resources over the whole server: a definition is created, its resource is served, and goes with it.

pub mod definitions;

use crate::support::{Cluster, Events};
use definitions::{CRDS, accept, boats, definition, establish, version};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

const BOATS: &str = "/apis/ships.example.com/v1/namespaces/default/boats";

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["harbour"], "properties": {
            "harbour": {"type": "string", "pattern": "^[a-z]+$"}, "sails": {"type": "integer", "default": 1, "maximum": 9},
            "crew": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"afloat": {"type": "boolean"}, "sails": {"type": "integer"}}}}})
}

fn boat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "ships.example.com/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec})
}

/// A definition with everything a version can have.
fn full() -> Value {
    let mut definition = boats(schema());
    definition["spec"]["names"]["shortNames"] = json!(["bo"]);
    definition["spec"]["names"]["categories"] = json!(["all"]);
    let version = &mut definition["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.sails", "statusReplicasPath": ".status.sails"}});
    version["additionalPrinterColumns"] = json!([{"name": "Harbour", "type": "string", "jsonPath": ".spec.harbour"},
        {"name": "Sails", "type": "integer", "jsonPath": ".spec.sails", "priority": 1}]);
    version["selectableFields"] = json!([{"jsonPath": ".spec.harbour"}]);
    definition
}

async fn post(cluster: &Cluster, target: &str, body: Value) -> (u16, Value) {
    cluster.admin(Method::POST, target, body).await
}

async fn get(cluster: &Cluster, target: &str) -> (u16, Value) {
    cluster.admin(Method::GET, target, Value::Null).await
}

async fn patch(cluster: &Cluster, target: &str, body: Value) -> (u16, Value) {
    cluster.admin(Method::PATCH, target, body).await
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_served_from_the_moment_its_names_are_accepted() {
    let cluster = Cluster::start().await;
    let (code, made) = post(&cluster, CRDS, full()).await;
    assert_eq!(
        (code, &made["spec"]["names"]["listKind"], &made["spec"]["conversion"]),
        (201, &json!("BoatList"), &json!({"strategy": "None"})),
        "{made}"
    );
    assert_eq!(made["status"], json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]}));
    assert_eq!(post(&cluster, BOATS, boat("a", json!({"harbour": "kiel"}))).await.0, 404, "its names are not granted yet");
    let accepted = accept(&cluster, "boats.ships.example.com").await;
    assert_eq!(accepted["metadata"]["generation"], 1);

    let (code, found) = get(&cluster, "/apis/ships.example.com/v1").await;
    assert_eq!(code, 200);
    assert_eq!(found["resources"][0]["shortNames"], json!(["bo"]));
    let parts: Vec<&str> = found["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    assert_eq!(parts, ["boats", "boats/scale", "boats/status"]);
    let (_, group) = get(&cluster, "/apis/ships.example.com").await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let accept_aggregated = ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let response = cluster.send(Method::GET, "/apis", Value::Null, &[accept_aggregated]).await;
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let (_, aggregated) = crate::support::read(response).await;
    let group = aggregated["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == "ships.example.com").unwrap();
    assert_eq!(group["versions"][0]["resources"][0]["responseKind"]["group"], "ships.example.com");
    let again = cluster.send(Method::GET, "/apis", Value::Null, &[accept_aggregated, ("if-none-match", &etag)]).await;
    assert_eq!(again.status(), 304);

    let (code, table) = crate::support::read(
        cluster.send(Method::GET, CRDS, Value::Null, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")]).await,
    )
    .await;
    assert_eq!((code, &table["columnDefinitions"][1]["name"]), (200, &json!("Created At")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_pruned_defaulted_and_validated() {
    let cluster = Cluster::start().await;
    establish(&cluster, full()).await;
    let sent = json!({"harbour": "kiel", "anchor": 1, "any": {"x": 1}, "crew": [{"name": "a", "rank": 1}]});
    let mut body = boat("a", sent.clone());
    body["status"] = json!({"afloat": true});
    let response = cluster.send(Method::POST, BOATS, body, &[("content-type", "application/json")]).await;
    let warnings: Vec<String> = response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    assert_eq!(warnings, [r#"299 - "unknown field \"spec.anchor\"""#, r#"299 - "unknown field \"spec.crew[0].rank\"""#]);
    let (code, made) = crate::support::read(response).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"], json!({"harbour": "kiel", "any": {"x": 1}, "crew": [{"name": "a"}], "sails": 1}));
    assert!(made.get("status").is_none(), "a creator does not write the status");
    let (code, strict) = post(&cluster, &format!("{BOATS}?fieldValidation=Strict"), boat("b", sent)).await;
    let message = r#"Boat in version "v1" cannot be handled as a Boat: strict decoding error: unknown field "spec.anchor", unknown field "spec.crew[0].rank""#;
    assert_eq!((code, strict["message"].as_str()), (400, Some(message)));
    let refusals = [
        (json!({"sails": 1}), "spec.harbour: Required value"),
        (json!({"harbour": "K"}), r#"spec.harbour: Invalid value: "K": spec.harbour in body should match '^[a-z]+$'"#),
        (
            json!({"harbour": "k", "sails": "x"}),
            r#"spec.sails: Invalid value: "string": spec.sails in body must be of type integer: "string""#,
        ),
        (json!({"harbour": "k", "crew": [{"name": "a"}, {"name": "a"}]}), r#"spec.crew[1]: Duplicate value: {"name":"a"}"#),
    ];
    for (spec, why) in refusals {
        let (code, refused) = post(&cluster, BOATS, boat("b", spec)).await;
        let message = refused["message"].as_str().unwrap();
        assert!(code == 422 && message.starts_with("Boat.ships.example.com \"b\" is invalid: ") && message.contains(why), "{refused}");
    }
    let (code, refused) =
        post(&cluster, BOATS, json!({"apiVersion": "ships.example.com/v1", "kind": "Boat", "metadata": {"name": "b", "labels": {"a": 1}}}))
            .await;
    assert_eq!(code, 400, "{refused}");
    // Dry runs change nothing.
    assert_eq!(post(&cluster, &format!("{BOATS}?dryRun=All"), boat("b", json!({"harbour": "k"}))).await.0, 201);
    let (_, list) = get(&cluster, BOATS).await;
    assert_eq!((names(&list), &list["kind"], &list["items"][0]["kind"]), (vec!["a"], &json!("BoatList"), &json!("Boat")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_changed_selected_watched_and_shown() {
    let cluster = Cluster::start().await;
    establish(&cluster, full()).await;
    for (name, harbour) in [("a", "kiel"), ("b", "rostock"), ("c", "kiel")] {
        assert_eq!(post(&cluster, BOATS, boat(name, json!({"harbour": harbour}))).await.0, 201);
    }
    let (_, list) = get(&cluster, &format!("{BOATS}?fieldSelector=spec.harbour%3Dkiel")).await;
    assert_eq!(names(&list), ["a", "c"]);
    assert_eq!(get(&cluster, &format!("{BOATS}?fieldSelector=spec.sails%3D1")).await.0, 400, "it is not selectable");
    let target = format!(
        "{BOATS}?watch=1&resourceVersion={}&fieldSelector=spec.harbour%3Dkiel",
        list["metadata"]["resourceVersion"].as_str().unwrap()
    );
    let mut events = Events::new(cluster.send(Method::GET, &target, Value::Null, &[]).await);

    let (code, changed) = patch(&cluster, &format!("{BOATS}/a"), json!({"spec": {"sails": 3}, "status": {"afloat": true}})).await;
    assert_eq!((code, &changed["metadata"]["generation"], changed.get("status")), (200, &json!(2), None));
    assert_eq!(events.named().await, ("MODIFIED".to_owned(), "a".to_owned()));
    let (_, labelled) = patch(&cluster, &format!("{BOATS}/a"), json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(labelled["metadata"]["generation"], 2, "labels are no change of what is wanted");
    assert_eq!(events.named().await.0, "MODIFIED");
    let (code, status) = patch(
        &cluster,
        &format!("{BOATS}/a/status"),
        json!({"metadata": {"labels": {"x": "z"}}, "spec": {"sails": 5}, "status": {"afloat": true}}),
    )
    .await;
    assert_eq!(
        (code, &status["spec"]["sails"], &status["status"], &status["metadata"]["labels"]["x"]),
        (200, &json!(3), &json!({"afloat": true}), &json!("y")),
        "{status}"
    );
    assert_eq!(events.named().await.0, "MODIFIED");
    let (code, refused) = patch(&cluster, &format!("{BOATS}/a/status"), json!({"status": {"afloat": 5}})).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].as_str()), (422, Some("status.afloat")), "{refused}");
    let moved = [("content-type", "application/json-patch+json")];
    let (code, answer) = crate::support::read(
        cluster
            .send(Method::PATCH, &format!("{BOATS}/c"), json!([{"op": "replace", "path": "/spec/harbour", "value": "rostock"}]), &moved)
            .await,
    )
    .await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(events.named().await, ("DELETED".to_owned(), "c".to_owned()), "it left the selection");
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    assert_eq!(cluster.send(Method::PATCH, &format!("{BOATS}/a"), json!({"spec": {}}), &strategic).await.status(), 415);
    let mut stale = changed;
    stale["spec"]["sails"] = json!(7);
    assert_eq!(cluster.admin(Method::PUT, &format!("{BOATS}/a"), stale.clone()).await.0, 409);
    stale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(cluster.admin(Method::PUT, &format!("{BOATS}/a"), stale).await.0, 422, "an update says what it replaces");

    let (code, scale) = get(&cluster, &format!("{BOATS}/a/scale")).await;
    assert_eq!((code, &scale["kind"], &scale["spec"]["replicas"]), (200, &json!("Scale"), &json!(3)), "{scale}");
    let (code, scaled) = patch(&cluster, &format!("{BOATS}/a/scale"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(4)), "{scaled}");
    assert_eq!(get(&cluster, &format!("{BOATS}/a")).await.1["spec"]["sails"], 4);

    let as_table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, table) = crate::support::read(cluster.send(Method::GET, BOATS, Value::Null, &as_table).await).await;
    let columns: Vec<&str> = table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!((columns, &table["rows"][0]["cells"]), (vec!["Name", "Harbour", "Sails"], &json!(["a", "kiel", 4])));
    let as_metadata = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let (_, partial) = crate::support::read(cluster.send(Method::GET, BOATS, Value::Null, &as_metadata).await).await;
    assert!(partial["items"][0].get("spec").is_none() && partial["kind"] == "PartialObjectMetadataList");

    let (code, _) = cluster.admin(Method::DELETE, &format!("{BOATS}?labelSelector=x%3Dy"), Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(names(&get(&cluster, BOATS).await.1), ["b", "c"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_have_their_own_schema_columns_and_parts() {
    let cluster = Cluster::start().await;
    let old = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}, "old": {"type": "string"}}}}});
    let new = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}, "new": {"type": "string", "default": "n"}}}}});
    let mut versions = json!([version("v1beta1", false, old), version("v1", true, new)]);
    versions[0]["deprecated"] = json!(true);
    versions[1]["subresources"] = json!({"status": {}});
    establish(&cluster, definition("boats", "Boat", versions)).await;
    let beta = BOATS.replace("/v1/", "/v1beta1/");
    let mut object = boat("a", json!({"a": "1", "old": "2", "new": "3"}));
    object["apiVersion"] = json!("ships.example.com/v1beta1");
    object["status"] = json!({"x": 1});
    let response = cluster.send(Method::POST, &beta, object, &[("content-type", "application/json")]).await;
    let warnings: Vec<String> = response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    assert!(
        warnings.iter().any(|text| text.contains("ships.example.com/v1beta1 Boat is deprecated; use ships.example.com/v1 Boat")),
        "{warnings:?}"
    );
    let (code, made) = crate::support::read(response).await;
    assert_eq!((code, &made["apiVersion"]), (201, &json!("ships.example.com/v1beta1")), "{made}");
    let (_, shown) = get(&cluster, &format!("{BOATS}/a")).await;
    assert_eq!(
        (&shown["apiVersion"], &shown["spec"]),
        (&json!("ships.example.com/v1"), &json!({"a": "1", "new": "n"})),
        "stored as v1, which has no `old`"
    );
    assert_eq!(get(&cluster, &format!("{beta}/a")).await.1["spec"], json!({"a": "1"}));
    assert_eq!(get(&cluster, &format!("{beta}/a/status")).await.0, 404);
    assert_eq!(get(&cluster, &format!("{BOATS}/a/status")).await.0, 200);
    let (_, list) = get(&cluster, &beta).await;
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["apiVersion"]),
        (&json!("ships.example.com/v1beta1"), &json!("ships.example.com/v1beta1"))
    );
    let (_, group) = get(&cluster, "/apis/ships.example.com").await;
    assert_eq!((&group["preferredVersion"]["version"], group["versions"].as_array().unwrap().len()), (&json!("v1"), 2));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_come_from_storage_and_watches_outlive_what_changes_nothing() {
    let cluster = Cluster::start().await;
    let simple = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    establish(&cluster, boats(simple)).await;
    let one = format!("{CRDS}/boats.ships.example.com");
    let object = |name: &str| json!({"apiVersion": "ships.example.com/v1", "kind": "Boat", "metadata": {"name": name}, "a": "A"});
    assert_eq!(post(&cluster, BOATS, object("one")).await.0, 201);
    let mut events = Events::new(cluster.send(Method::GET, &format!("{BOATS}?watch=1"), Value::Null, &[]).await);
    assert_eq!(events.named().await.1, "one");
    let (code, _) = patch(&cluster, &one, json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((code, post(&cluster, BOATS, object("two")).await.0), (200, 201), "the definition is another one, its resource is not");
    assert_eq!(events.named().await.1, "two");

    let json_patch = [("content-type", "application/json-patch+json")];
    let add = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/b/default", "value": "B"},
        {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/a"}]);
    let (code, answer) = crate::support::read(cluster.send(Method::PATCH, &one, add, &json_patch).await).await;
    assert_eq!((code, &answer["metadata"]["generation"]), (200, &json!(2)), "{answer}");
    assert!(events.next().await.is_none(), "the watch ends with the old schema");
    let (_, shown) = get(&cluster, &format!("{BOATS}/one")).await;
    assert_eq!((shown.get("a"), &shown["b"]), (None, &json!("B")), "{shown}");
    // An update that changes nothing writes what is shown.
    let (code, written) = cluster.admin(Method::PUT, &format!("{BOATS}/one"), shown.clone()).await;
    assert_eq!(code, 200);
    assert_ne!(written["metadata"]["resourceVersion"], shown["metadata"]["resourceVersion"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_goes_after_its_instances() {
    let cluster = Cluster::start().await;
    establish(&cluster, full()).await;
    assert_eq!(post(&cluster, BOATS, boat("a", json!({"harbour": "kiel"}))).await.0, 201);
    let mut events = Events::new(cluster.send(Method::GET, &format!("{BOATS}?watch=1"), Value::Null, &[]).await);
    assert_eq!(events.named().await.1, "a");
    let one = format!("{CRDS}/boats.ships.example.com");
    let (code, going) = cluster.admin(Method::DELETE, &one, Value::Null).await;
    assert_eq!((code, &going["metadata"]["finalizers"]), (200, &json!(["customresourcecleanup.apiextensions.k8s.io"])), "{going}");
    let terminating = going["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Terminating").unwrap();
    assert_eq!((&terminating["status"], &terminating["reason"]), (&json!("True"), &json!("InstanceDeletionPending")));
    let (code, refused) = post(&cluster, BOATS, boat("b", json!({"harbour": "kiel"}))).await;
    assert_eq!((code, refused["message"].as_str()), (405, Some("create not allowed while custom resource definition is terminating")));
    assert_eq!(cluster.admin(Method::DELETE, &one, Value::Null).await.0, 200, "once more changes nothing");
    assert_eq!(get(&cluster, &format!("{BOATS}/a")).await.0, 200, "it is still there");
    assert_eq!(cluster.admin(Method::DELETE, BOATS, Value::Null).await.0, 200);
    assert_eq!(events.named().await.0, "DELETED");
    assert_eq!(patch(&cluster, &one, json!({"metadata": {"finalizers": null}})).await.0, 200);
    assert_eq!(get(&cluster, &one).await.0, 404);
    assert_eq!((get(&cluster, BOATS).await.0, get(&cluster, "/apis/ships.example.com/v1").await.0), (404, 404));
    assert!(events.next().await.is_none(), "the watch ends");
    establish(&cluster, full()).await;
    assert_eq!(names(&get(&cluster, BOATS).await.1), Vec::<&str>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_describe_what_is_served() {
    let cluster = Cluster::start().await;
    let read = |etag: String| {
        let cluster = &cluster;
        async move {
            let response = cluster.send(Method::GET, "/openapi/v2", Value::Null, &[("if-none-match", &etag)]).await;
            let (code, tag) = (response.status().as_u16(), response.headers()["etag"].to_str().unwrap().to_owned());
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (code, tag, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
        }
    };
    let (_, before, document) = read(String::new()).await;
    assert!(document["definitions"].get("com.example.ships.v1.Boat").is_none());
    establish(&cluster, full()).await;
    // The documents follow the watch cache.
    let changed = |known: String| {
        let read = &read;
        async move {
            loop {
                let answer = read(known.clone()).await;
                if answer.0 != 304 {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    let (code, tag, document) = changed(before.clone()).await;
    assert_eq!(code, 200);
    let boat = &document["definitions"]["com.example.ships.v1.Boat"];
    assert_eq!(boat["x-kubernetes-group-version-kind"], json!([{"group": "ships.example.com", "version": "v1", "kind": "Boat"}]));
    assert_eq!(boat["properties"]["spec"]["required"], json!(["harbour"]));
    assert_eq!(read(tag.clone()).await.0, 304);
    let (code, v3) = get(&cluster, "/openapi/v3/apis/ships.example.com/v1").await;
    assert_eq!((code, v3["components"]["schemas"]["com.example.ships.v1.Boat"].is_object()), (200, true));
    let (_, index) = get(&cluster, "/openapi/v3").await;
    assert!(index["paths"]["apis/ships.example.com/v1"].is_object());
    let (code, _) = patch(
        &cluster,
        &format!("{CRDS}/boats.ships.example.com"),
        json!({"spec": {"versions": [
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema()}},
        {"name": "v1", "served": false, "storage": true, "schema": {"openAPIV3Schema": schema()}}]}}),
    )
    .await;
    assert_eq!(code, 200);
    let (_, after, document) = changed(tag).await;
    assert!(
        document["definitions"].get("com.example.ships.v1.Boat").is_none()
            && document["definitions"].get("com.example.ships.v2.Boat").is_some()
    );
    assert_ne!(after, before);
    assert_eq!((get(&cluster, BOATS).await.0, get(&cluster, &BOATS.replace("/v1/", "/v2/")).await.0), (404, 200));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_cannot_be_served_are_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let refusals = [
        (json!({"/metadata/name": "x"}), "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group"),
        (json!({"/spec/scope": null}), "spec.scope: Required value"),
        (
            json!({"/spec/versions/0/schema/openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "strin"}}}}),
            "spec.validation.openAPIV3Schema.properties[a].type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (json!({"/spec/versions/0/schema": null}), "spec.versions[0].schema.openAPIV3Schema: Required value"),
        (
            json!({"/spec/preserveUnknownFields": true}),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (
            json!({"/spec/versions/0/selectableFields": [{"jsonPath": ".spec.nope"}]}),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.nope\": is an invalid path: does not refer to a valid field",
        ),
        (
            json!({"/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations": [{"rule": "self.metadata.labels['a'] == 'b'"}]}),
            "undefined field 'labels'\n | self.metadata.labels['a'] == 'b'\n | .............^",
        ),
    ];
    for (changes, why) in refusals {
        let mut wrong = boats(schema());
        for (path, value) in changes.as_object().unwrap() {
            let (parent, key) = path.rsplit_once('/').unwrap();
            wrong.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        let (code, refused) = post(&cluster, CRDS, wrong).await;
        let message = refused["message"].as_str().unwrap();
        assert_eq!(code, 422, "{refused}");
        assert!(message.ends_with(why) || message.contains(&format!("{why},")) || message.contains(&format!("{why}]")), "{message}");
    }
    let made = establish(&cluster, boats(schema())).await;
    let mut other = made.clone();
    other["spec"]["scope"] = json!("Cluster");
    let (code, refused) = cluster.admin(Method::PUT, &format!("{CRDS}/boats.ships.example.com"), other).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].as_str()), (422, Some("spec.scope")), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_schema_judge_new_objects_and_changes() {
    let cluster = Cluster::start().await;
    let mut definition = boats(schema());
    let version = &mut definition["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}});
    let properties = &mut version["schema"]["openAPIV3Schema"]["properties"];
    properties["spec"]["x-kubernetes-validations"] = json!([
        {"rule": "self.sails < 5 || self.harbour == 'kiel'", "messageExpression": "self.harbour + ' has no room for ' + string(self.sails) + ' sails'"},
        {"rule": "!has(oldSelf.harbour) || self.harbour == oldSelf.harbour", "message": "a boat stays in its harbour", "fieldPath": ".harbour"}]);
    properties["status"]["x-kubernetes-validations"] = json!([{"rule": "!has(self.sails) || self.sails <= 9"}]);
    establish(&cluster, definition).await;
    let message = |answer: &Value| answer["message"].as_str().unwrap_or_default().to_owned();
    let (code, refused) = post(&cluster, BOATS, boat("a", json!({"harbour": "rostock", "sails": 7}))).await;
    assert_eq!(
        (code, message(&refused).as_str()),
        (422, "Boat.ships.example.com \"a\" is invalid: spec: Invalid value: rostock has no room for 7 sails")
    );
    let (_, refused) = post(&cluster, BOATS, boat("a", json!({"harbour": "rostock", "sails": "x"}))).await;
    assert!(message(&refused).contains("<nil>: Invalid value: \"null\": some validation rules were not checked"), "{refused}");
    assert_eq!(post(&cluster, BOATS, boat("a", json!({"harbour": "kiel", "sails": 7}))).await.0, 201);
    let (code, refused) = patch(&cluster, &format!("{BOATS}/a"), json!({"spec": {"harbour": "lubeck", "sails": 1}})).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].as_str()), (422, Some("spec.harbour")), "{refused}");
    assert!(message(&refused).ends_with("spec.harbour: Invalid value: a boat stays in its harbour"), "{refused}");
    let (code, refused) = patch(&cluster, &format!("{BOATS}/a/status"), json!({"status": {"sails": 10}})).await;
    assert!(
        code == 422 && message(&refused).contains("status: Invalid value: failed rule: !has(self.sails) || self.sails <= 9"),
        "{refused}"
    );

    // The rule becomes stricter: an unchanged value that violates it stays valid, and other changes are accepted.
    let stricter = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations",
        "value": [{"rule": "self.sails < 5"}]}]);
    let json_patch = [("content-type", "application/json-patch+json")];
    let response = cluster.send(Method::PATCH, &format!("{CRDS}/boats.ships.example.com"), stricter, &json_patch).await;
    let (code, changed) = crate::support::read(response).await;
    assert_eq!(code, 200, "{changed}");
    cluster.seen(&changed).await;
    let merge = [("content-type", "application/merge-patch+json")];
    let response = cluster.send(Method::PATCH, &format!("{BOATS}/a"), json!({"metadata": {"labels": {"x": "y"}}}), &merge).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["warning"], r#"299 - "spec: Invalid value: failed rule: self.sails < 5""#);
    let (code, refused) = patch(&cluster, &format!("{BOATS}/a"), json!({"spec": {"sails": 8}})).await;
    assert_eq!(code, 422, "{refused}");
    assert_eq!(patch(&cluster, &format!("{BOATS}/a"), json!({"spec": {"sails": 2}})).await.0, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_serves_what_was_defined_before_it_started() {
    let cluster = Cluster::start().await;
    establish(&cluster, full()).await;
    assert_eq!(post(&cluster, BOATS, boat("a", json!({"harbour": "kiel"}))).await.0, 201);
    let options = trireme_apiserver::ApiServerOptions::default();
    let second =
        trireme_apiserver::ApiServer::start(options, cluster.keys.api_server_keys().unwrap(), cluster.store.clone()).await.unwrap();
    let ask = |target: String| http::Request::builder().uri(target).body(bytes::Bytes::new()).unwrap();
    let (code, found) = crate::support::read(second.call(crate::support::admin(), ask(format!("{BOATS}/a"))).await).await;
    assert_eq!((code, &found["spec"]["sails"]), (200, &json!(1)));
    // A definition that one server has just written is known to the other server at the next request.
    let ships = definition("ships", "Ship", json!([version("v1", true, schema())]));
    establish(&cluster, ships).await;
    let (code, _) = crate::support::read(second.call(crate::support::admin(), ask(BOATS.replace("boats", "ships"))).await).await;
    assert_eq!(code, 200);
    second.stop();
    cluster.stop().await;
}
