//! Custom resources whose versions a webhook converts; the webhook is a real HTTPS server of this test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::crd::definitions::{CRDS, definition, establish, version};
use crate::support::hook::{self, Hook};
use crate::support::{Cluster, Events};
use futures::future::BoxFuture;
use http::Method;
use serde_json::{Value, json};

const V1: &str = "/apis/ships.example.com/v1/namespaces/default/berths";
const V2: &str = "/apis/ships.example.com/v2/namespaces/default/berths";

/// `hostPort: "a:1"` in v1 is `host: a, port: "1"` in v2.
fn converted(mut object: Value, desired: &str) -> Value {
    let map = object.as_object_mut().unwrap();
    if desired.ends_with("/v2") {
        let text = map.remove("hostPort").unwrap_or_default();
        if let Some((host, port)) = text.as_str().and_then(|text| text.split_once(':')) {
            map.insert("host".to_owned(), json!(host));
            map.insert("port".to_owned(), json!(port));
        }
    } else {
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        let joined = format!("{}:{}", text(map.remove("host")), text(map.remove("port")));
        map.insert("hostPort".to_owned(), json!(joined));
    }
    map.insert("apiVersion".to_owned(), json!(desired));
    object
}

fn review(question: &Value, objects: Vec<Value>) -> Value {
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response":
        {"uid": question["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects}})
}

/// Converts all objects, each as `change` leaves it.
async fn webhook(change: impl Fn(Value) -> Value + Send + Sync + 'static) -> Hook {
    hook::serve(move |question| {
        let desired = question["request"]["desiredAPIVersion"].as_str().unwrap().to_owned();
        let objects = question["request"]["objects"].as_array().unwrap().clone();
        let objects = objects.into_iter().map(|object| change(converted(object, &desired))).collect();
        let answer = review(&question, objects);
        Box::pin(async move { answer })
    })
    .await
}

fn berths(hook: &Hook) -> Value {
    let text = || json!({"type": "string"});
    let v1 = json!({"type": "object", "properties": {"hostPort": {"type": "string", "maxLength": 20}}});
    let v2 = json!({"type": "object", "required": ["host"], "properties": {"host": text(), "port": text()}});
    let mut versions = json!([version("v1", true, v1), version("v2", false, v2)]);
    versions[0]["selectableFields"] = json!([{"jsonPath": ".hostPort"}]);
    versions[1]["selectableFields"] = json!([{"jsonPath": ".host"}, {"jsonPath": ".port"}]);
    let mut crd = definition("berths", "Berth", versions);
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook":
        {"clientConfig": {"url": hook.url, "caBundle": hook.ca}, "conversionReviewVersions": ["v1", "v1beta1"]}});
    crd
}

fn v1(name: &str, host_port: &str) -> Value {
    json!({"apiVersion": "ships.example.com/v1", "kind": "Berth", "metadata": {"name": name}, "hostPort": host_port})
}

fn v2(name: &str, host: &str, port: &str) -> Value {
    json!({"apiVersion": "ships.example.com/v2", "kind": "Berth", "metadata": {"name": name}, "host": host, "port": port})
}

async fn post(cluster: &Cluster, target: &str, body: Value) -> (u16, Value) {
    cluster.admin(Method::POST, target, body).await
}

async fn get(cluster: &Cluster, target: &str) -> (u16, Value) {
    cluster.admin(Method::GET, target, Value::Null).await
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap_or_else(|| panic!("{list}")).iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// Makes v2 the version in which objects are stored from now on.
async fn store_v2(cluster: &Cluster) {
    let change = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    let json_patch = [("content-type", "application/json-patch+json")];
    let response = cluster.send(Method::PATCH, &format!("{CRDS}/berths.ships.example.com"), change, &json_patch).await;
    let (code, changed) = crate::support::read(response).await;
    assert_eq!(code, 200, "{changed}");
    cluster.seen(&changed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_and_written_in_each_version() {
    let cluster = Cluster::start().await;
    let hook = webhook(|object| object).await;
    establish(&cluster, berths(&hook)).await;
    let (code, made) = post(&cluster, V1, v1("a", "kiel:80")).await;
    assert_eq!(code, 201, "{made}");
    assert!(hook.asked.lock().is_empty(), "it is written in the version in which it is stored");
    let (code, shown) = get(&cluster, &format!("{V2}/a")).await;
    assert_eq!(
        (code, &shown["apiVersion"], &shown["host"], &shown["port"], shown.get("hostPort")),
        (200, &json!("ships.example.com/v2"), &json!("kiel"), &json!("80"), None),
        "{shown}"
    );
    assert_eq!(shown["metadata"], made["metadata"]);

    // Created in the other version: validated and defaulted there, stored in v1.
    let (code, refused) =
        post(&cluster, V2, json!({"apiVersion": "ships.example.com/v2", "kind": "Berth", "metadata": {"name": "b"}})).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].as_str()), (422, Some("host")), "{refused}");
    let (code, made) = post(&cluster, V2, v2("b", "rostock", "443")).await;
    assert_eq!((code, &made["host"], made.get("hostPort")), (201, &json!("rostock"), None), "{made}");
    let calls = hook.asked.lock().len();
    assert_eq!(get(&cluster, &format!("{V1}/b")).await.1["hostPort"], "rostock:443");
    assert_eq!(hook.asked.lock().len(), calls, "it is stored as v1");

    // A patch is applied to what its version shows.
    let (code, patched) = cluster.admin(Method::PATCH, &format!("{V2}/b"), json!({"port": "8443"})).await;
    assert_eq!((code, &patched["port"], &patched["metadata"]["generation"]), (200, &json!("8443"), &json!(2)), "{patched}");
    let (code, put) = cluster.admin(Method::PUT, &format!("{V2}/b"), patched.clone()).await;
    assert_eq!((code, &put["metadata"]), (200, &patched["metadata"]), "nothing has changed");
    assert_eq!(get(&cluster, &format!("{V1}/b")).await.1["hostPort"], "rostock:8443");
    let (code, gone) = cluster.admin(Method::DELETE, &format!("{V2}/b"), Value::Null).await;
    assert_eq!(code, 200, "{gone}");
    assert_eq!(names(&get(&cluster, V2).await.1), ["a"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_objects_in_several_versions_is_converted_in_one_review() {
    let cluster = Cluster::start().await;
    let hook = webhook(|object| object).await;
    establish(&cluster, berths(&hook)).await;
    for (name, text) in [("a", "kiel:80"), ("b", "kiel:81")] {
        assert_eq!(post(&cluster, V1, v1(name, text)).await.0, 201);
    }
    store_v2(&cluster).await;
    assert_eq!(post(&cluster, V1, v1("c", "rostock:80")).await.0, 201, "stored as v2");
    let before = hook.asked.lock().len();
    let (code, list) = get(&cluster, V2).await;
    assert_eq!((code, names(&list), &list["apiVersion"]), (200, vec!["a", "b", "c"], &json!("ships.example.com/v2")), "{list}");
    assert!(list["items"].as_array().unwrap().iter().all(|item| item["apiVersion"] == "ships.example.com/v2" && item["host"].is_string()));
    let asked: Vec<Value> = hook.asked.lock()[before..].to_vec();
    assert_eq!((asked.len(), asked[0]["objects"].as_array().unwrap().len()), (1, 2), "one review, without the one that is v2 already");
    let (_, list) = get(&cluster, V1).await;
    let texts: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["hostPort"]).collect();
    assert_eq!(texts, ["kiel:80", "kiel:81", "rostock:80"]);
    let (_, page) = get(&cluster, &format!("{V2}?limit=2")).await;
    assert_eq!(names(&page), ["a", "b"]);
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&get(&cluster, &format!("{V2}?limit=2&continue={token}")).await.1), ["c"]);

    // An update that changes nothing writes an object in the version in which it is stored now.
    let (_, shown) = get(&cluster, &format!("{V2}/a")).await;
    let (code, written) = cluster.admin(Method::PUT, &format!("{V2}/a"), shown.clone()).await;
    assert_eq!(code, 200, "{written}");
    assert_ne!(written["metadata"]["resourceVersion"], shown["metadata"]["resourceVersion"]);
    let (_, again) = cluster.admin(Method::PUT, &format!("{V2}/a"), written.clone()).await;
    assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_selected_in_the_addressed_version() {
    let cluster = Cluster::start().await;
    let hook = webhook(|object| object).await;
    establish(&cluster, berths(&hook)).await;
    let watch = |target: String| {
        let cluster = &cluster;
        async move { Events::new(cluster.send(Method::GET, &target, Value::Null, &[]).await) }
    };
    let mut by_host = watch(format!("{V2}?watch=1&fieldSelector=host%3Dhost1")).await;
    let mut by_both = watch(format!("{V2}?watch=1&fieldSelector=host%3Dhost1,port%3D80")).await;
    let mut by_text = watch(format!("{V1}?watch=1&fieldSelector=hostPort%3Dhost1%3A80")).await;
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "80")] {
        assert_eq!(post(&cluster, V2, v2(name, host, port)).await.0, 201);
    }
    for (target, want) in [
        (format!("{V2}?fieldSelector=host%3Dhost1"), vec!["a", "b"]),
        (format!("{V2}?fieldSelector=host%3Dhost1,port%3D80"), vec!["a"]),
        (format!("{V2}?fieldSelector=host!%3Dhost1"), vec!["c"]),
        (format!("{V1}?fieldSelector=hostPort%3Dhost1%3A8080"), vec!["b"]),
        (format!("{V2}?fieldSelector=host%3Dhost1&limit=1"), vec!["a"]),
    ] {
        assert_eq!(names(&get(&cluster, &target).await.1), want, "{target}");
    }
    let (_, page) = get(&cluster, &format!("{V2}?fieldSelector=host%3Dhost1&limit=1")).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = get(&cluster, &format!("{V2}?fieldSelector=host%3Dhost1&limit=1&continue={token}")).await;
    assert_eq!(names(&rest), ["b"]);
    let (code, refused) = get(&cluster, &format!("{V1}?fieldSelector=host%3Dhost1")).await;
    assert!(code == 400 && refused["message"].as_str().unwrap().ends_with("field label not supported: host"), "{refused}");
    let added = |name: &str| ("ADDED".to_owned(), name.to_owned());
    assert_eq!((by_host.named().await, by_host.named().await), (added("a"), added("b")));
    assert_eq!((by_both.named().await, by_text.named().await), (added("a"), added("a")));

    let (code, gone) = cluster.admin(Method::DELETE, &format!("{V2}?fieldSelector=host%3Dhost1,port%3D80"), Value::Null).await;
    assert_eq!((code, names(&gone)), (200, vec!["a"]), "{gone}");
    let (code, _) = cluster.admin(Method::PATCH, &format!("{V2}/b"), json!({"host": "host2"})).await;
    assert_eq!(code, 200);
    let deleted = |name: &str| ("DELETED".to_owned(), name.to_owned());
    let (kind, object) = by_host.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["apiVersion"], &object["host"]), ("DELETED", &json!("ships.example.com/v2"), &json!("host1")));
    assert_eq!(by_host.named().await, deleted("b"), "it left the selection");
    assert_eq!((by_both.named().await, by_text.named().await), (deleted("a"), deleted("a")));
    // A watch that begins with the state.
    let mut late = watch(format!("{V2}?watch=1&fieldSelector=host%3Dhost2")).await;
    assert_eq!((late.named().await, late.named().await), (added("b"), added("c")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_changes_labels_and_annotations_of_the_metadata_alone() {
    let cluster = Cluster::start().await;
    let hook = webhook(|mut object| {
        object["metadata"]["labels"] = json!({"by": "webhook"});
        object["metadata"]["generation"] = json!(77);
        object["surplus"] = json!(1);
        object
    })
    .await;
    establish(&cluster, berths(&hook)).await;
    assert_eq!(post(&cluster, V1, v1("a", "kiel:80")).await.0, 201);
    let (_, shown) = get(&cluster, &format!("{V2}/a")).await;
    assert_eq!(
        (&shown["metadata"]["labels"], &shown["metadata"]["generation"], shown.get("surplus")),
        (&json!({"by": "webhook"}), &json!(1), None),
        "{shown}"
    );
    assert_eq!(names(&get(&cluster, &format!("{V2}?labelSelector=by%3Dwebhook")).await.1), ["a"]);
    assert_eq!(names(&get(&cluster, &format!("{V1}?labelSelector=by%3Dwebhook")).await.1), Vec::<&str>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_wrong_are_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    type Wrong = fn(&mut Value);
    let cases: [(Wrong, &str); 5] = [
        (
            |answer| answer["response"]["uid"] = json!("x"),
            "conversion webhook for ships.example.com/v1, Kind=Berth failed: expected response.uid=",
        ),
        (
            |answer| answer["response"]["result"] = json!({"status": "Failure", "message": "no idea"}),
            "conversion webhook for ships.example.com/v1, Kind=Berth failed: no idea",
        ),
        (
            |answer| answer["response"]["convertedObjects"] = json!([]),
            "conversion webhook for ships.example.com/v1, Kind=Berth returned 0 objects, expected 1",
        ),
        (
            |answer| answer["response"]["convertedObjects"][0]["metadata"]["name"] = json!("other"),
            "returned invalid converted object at index 0: must have the same name: a != other",
        ),
        (
            |answer| answer["response"]["convertedObjects"][0]["apiVersion"] = json!("ships.example.com/v3"),
            "invalid groupVersion (expected ships.example.com/v2, received ships.example.com/v3)",
        ),
    ];
    let case = Arc::new(parking_lot::Mutex::new(cases[0].0));
    let current = case.clone();
    let hook = hook::serve(move |question| {
        let objects =
            question["request"]["objects"].as_array().unwrap().iter().map(|object| converted(object.clone(), "ships.example.com/v2"));
        let mut answer = review(&question, objects.collect());
        (current.lock())(&mut answer);
        Box::pin(async move { answer })
    })
    .await;
    establish(&cluster, berths(&hook)).await;
    assert_eq!(post(&cluster, V1, v1("a", "kiel:80")).await.0, 201);
    for (wrong, why) in cases {
        *case.lock() = wrong;
        let (code, refused) = get(&cluster, &format!("{V2}/a")).await;
        assert!(code == 500 && refused["message"].as_str().unwrap().contains(why), "{why}: {refused}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_does_not_answer_fails_its_own_requests_only() {
    let cluster = Cluster::start().await;
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = silent.clone();
    let hook = hook::serve(move |question| {
        let objects = question["request"]["objects"].as_array().unwrap().iter();
        let desired = question["request"]["desiredAPIVersion"].as_str().unwrap();
        let answer = review(&question, objects.map(|object| converted(object.clone(), desired)).collect());
        let silent = is_silent.load(Ordering::Relaxed);
        let answered: BoxFuture<'static, Value> = match silent {
            true => Box::pin(std::future::pending()),
            false => Box::pin(async move { answer }),
        };
        answered
    })
    .await;
    establish(&cluster, berths(&hook)).await;
    assert_eq!(post(&cluster, V1, v1("a", "kiel:80")).await.0, 201);
    silent.store(true, Ordering::Relaxed);
    // The request's own limit is shorter than the webhook's.
    let target = format!("{V2}?timeout=2s");
    let list = get(&cluster, &target);
    let others = async {
        assert_eq!(get(&cluster, &format!("{V1}/a")).await.0, 200, "no conversion is needed");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
        assert_eq!(post(&cluster, "/api/v1/namespaces/default/configmaps", map).await.0, 201);
        assert_eq!(post(&cluster, V1, v1("b", "kiel:81")).await.0, 201);
    };
    let ((code, refused), ()) = tokio::join!(list, others);
    assert_eq!((code, &refused["reason"]), (504, &json!("Timeout")), "{refused}");

    // Nothing listens.
    let change = json!({"spec": {"conversion": {"webhook": {"clientConfig": {"url": "https://127.0.0.1:1/convert"}}}}});
    let (code, changed) = cluster.admin(Method::PATCH, &format!("{CRDS}/berths.ships.example.com"), change).await;
    assert_eq!(code, 200, "{changed}");
    cluster.seen(&changed).await;
    let (code, refused) = get(&cluster, &format!("{V2}/a")).await;
    let message = refused["message"].as_str().unwrap();
    assert_eq!(code, 500);
    assert!(
        message.starts_with(
            "conversion webhook for ships.example.com/v1, Kind=Berth failed: Post \"https://127.0.0.1:1/convert?timeout=30s\": "
        ),
        "{message}"
    );
    let (code, refused) = post(&cluster, V2, v2("c", "kiel", "82")).await;
    assert!(code == 500 && refused["message"].as_str().unwrap().starts_with("conversion webhook for ships.example.com/v2"), "{refused}");
    assert_eq!(get(&cluster, &format!("{V1}/a")).await.0, 200);
    cluster.stop().await;
}
