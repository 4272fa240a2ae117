//! One object in every form: what lists and watches show is what a get shows.

use crate::support::{Cluster, Events, admin, read};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use trireme_api::protobuf;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"managedFields": "x"}, "annotations": {"note": "{\"managedFields\":[]}"}},
        "spec": {"containers": [{"name": "main", "image": "example.com/main:1"}]},
    })
}

async fn show(cluster: &Cluster, target: &str, accept: &str) -> Value {
    let (code, shown) = read(cluster.send(Method::GET, target, Value::Null, &[("accept", accept)]).await).await;
    assert_eq!(code, 200, "{shown}");
    shown
}

/// Rows without their ages, which pass from one request to the next.
fn rows(table: &Value) -> Vec<Value> {
    let age = |cell: &Value| cell.as_str().is_some_and(|text| text.strip_suffix('s').is_some_and(|n| n.parse::<u32>().is_ok()));
    let mut rows = table["rows"].as_array().unwrap().clone();
    for row in &mut rows {
        row["cells"].as_array_mut().unwrap().retain(|cell| !age(cell));
    }
    rows
}

async fn protobuf_list(cluster: &Cluster) -> Vec<Value> {
    let request = Request::get(MAPS).header("accept", protobuf::CONTENT_TYPE).body(Bytes::new()).unwrap();
    let response = cluster.api.call(admin(), request).await;
    let list = protobuf::decode(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    list["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_objects_as_a_get_does() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        let (code, made) = cluster.admin(Method::POST, PODS, pod(name)).await;
        assert_eq!(code, 201, "{made}");
        cluster.seen(&made).await;
    }
    let one = |name: &str| format!("{PODS}/{name}");
    for query in ["", "?includeObject=None", "?includeObject=Object"] {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let listed = rows(&show(&cluster, &format!("{PODS}{query}"), accept).await);
        let mut got = rows(&show(&cluster, &format!("{}{query}", one("a")), accept).await);
        got.extend(rows(&show(&cluster, &format!("{}{query}", one("b")), accept).await));
        assert_eq!(listed, got, "{query}");
        let managers = &listed[0]["object"]["metadata"]["managedFields"];
        assert_eq!(managers.is_array(), query != "?includeObject=None", "{listed:?}");
    }
    let partial = show(&cluster, PODS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    let got = show(&cluster, &one("a"), "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    assert_eq!((&partial["items"][0], partial["items"].as_array().unwrap().len()), (&got, 2));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_metadata_shows_what_a_get_does() {
    let cluster = Cluster::start().await;
    let (_, made) = cluster.admin(Method::POST, PODS, pod("a")).await;
    let accept = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let mut events = Events::new(cluster.send(Method::GET, &format!("{PODS}?watch=1"), Value::Null, &accept).await);
    let got = show(&cluster, &format!("{PODS}/a"), accept[0].1).await;
    assert_eq!(events.next().await.unwrap(), ("ADDED".to_owned(), got));
    let (_, changed) = cluster.admin(Method::PATCH, &format!("{PODS}/a"), json!({"metadata": {"labels": {"new": "1"}}})).await;
    let got = show(&cluster, &format!("{PODS}/a"), accept[0].1).await;
    assert_eq!(got["metadata"], changed["metadata"]);
    assert_eq!(events.next().await.unwrap(), ("MODIFIED".to_owned(), got));
    let (_, _) = cluster.admin(Method::DELETE, &format!("{PODS}/a?gracePeriodSeconds=0"), Value::Null).await;
    let (kind, gone) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), &gone["metadata"]["uid"]), ("DELETED", &made["metadata"]["uid"]));
    assert_eq!(gone["kind"], "PartialObjectMetadata");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_items_are_of_the_newest_state() {
    let cluster = Cluster::start().await;
    let (_, first) = cluster.admin(Method::POST, MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    let untyped = |object: &Value| {
        let mut object = object.clone();
        object.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
        object
    };
    for _ in 0..2 {
        assert_eq!(protobuf_list(&cluster).await, [untyped(&first)]);
    }
    let (_, second) = cluster.admin(Method::PATCH, &format!("{MAPS}/a"), json!({"metadata": {"labels": {"new": "1"}}})).await;
    for _ in 0..2 {
        assert_eq!(protobuf_list(&cluster).await, [untyped(&second)]);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_together_are_all_there_in_order() {
    let cluster = Cluster::start().await;
    let mut expected = Vec::new();
    // More than one piece holds, and some larger than a piece.
    for n in 0..60 {
        let map = json!({"metadata": {"name": format!("m{n:02}")}, "data": {"x": "y".repeat(if n % 7 == 0 { 40_000 } else { 700 })}});
        let (code, made) = cluster.admin(Method::POST, MAPS, map).await;
        assert_eq!(code, 201);
        expected.push(("ADDED".to_owned(), made["metadata"]["name"].as_str().unwrap().to_owned()));
    }
    let (_, list) = cluster.admin(Method::GET, MAPS, Value::Null).await;
    let first = list["items"][0]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() - 1;
    for from in ["0".to_owned(), first.to_string()] {
        let target = format!("{MAPS}?watch=1&resourceVersion={from}");
        let mut events = Events::new(cluster.send(Method::GET, &target, Value::Null, &[]).await);
        for event in &expected {
            assert_eq!(&events.named().await, event);
        }
    }
    cluster.stop().await;
}
