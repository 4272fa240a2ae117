//! What a Go client does: bodies in protobuf, answers and watches in protobuf, JSON where there is no such form.

use crate::support::{Cluster, PATIENCE, admin};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use trireme_api::protobuf;
use trireme_apiserver::Body;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn send(cluster: &Cluster, method: Method, target: &str, body: &Value) -> Response<Body> {
    let body = if body.is_null() { Bytes::new() } else { protobuf::encode(body).unwrap().into() };
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("content-type", protobuf::CONTENT_TYPE)
        .header("accept", "application/vnd.kubernetes.protobuf,application/json");
    cluster.api.call(admin(), request.body(body).unwrap()).await
}

async fn read(response: Response<Body>) -> (u16, Value) {
    assert_eq!(response.headers()["content-type"], protobuf::CONTENT_TYPE);
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, protobuf::decode(&bytes).unwrap())
}

/// The type and the object's bytes of a watch's next frame.
async fn next_event(body: &mut Body, rest: &mut BytesMut) -> (String, Value) {
    loop {
        if rest.len() >= 4 {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            if rest.len() >= 4 + length {
                rest.advance(4);
                let event = rest.split_to(length);
                // 0x0a: the type; then the object inside its extension, which starts with its magic.
                let kind = String::from_utf8(event[2..2 + usize::from(event[1])].to_vec()).unwrap();
                let at = event.windows(4).position(|w| w == b"k8s\0").unwrap();
                return (kind, protobuf::decode(&event[at..]).unwrap());
            }
        }
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("an event in time").unwrap();
        rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_in_and_out() {
    let cluster = Cluster::start().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let (code, made) = read(send(&cluster, Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &map).await).await;
    assert_eq!((code, &made["data"]), (201, &json!({"k": "v"})), "{made}");
    let (_, in_json) = cluster.admin(Method::GET, &format!("{MAPS}/a"), Value::Null).await;
    let (code, in_protobuf) = read(send(&cluster, Method::GET, &format!("{MAPS}/a"), &Value::Null).await).await;
    assert_eq!((code, &in_protobuf), (200, &in_json));

    let (code, refused) = read(send(&cluster, Method::POST, MAPS, &map).await).await;
    assert_eq!((code, &refused["kind"], &refused["reason"]), (409, &json!("Status"), &json!("AlreadyExists")));

    let (_, list) = read(send(&cluster, Method::GET, MAPS, &Value::Null).await).await;
    assert_eq!(list["kind"], "ConfigMapList");
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let response = send(&cluster, Method::GET, &format!("{MAPS}?watch=true&resourceVersion={from}"), &Value::Null).await;
    assert_eq!(response.headers()["content-type"], protobuf::WATCH_CONTENT_TYPE);
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": made["metadata"]["uid"]}});
    let (code, gone) = read(send(&cluster, Method::DELETE, &format!("{MAPS}/a"), &options).await).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")), "{gone}");
    let (mut body, mut rest) = (response.into_body(), BytesMut::new());
    let (kind, object) = next_event(&mut body, &mut rest).await;
    assert_eq!((kind.as_str(), &object["metadata"]["uid"]), ("DELETED", &made["metadata"]["uid"]));

    let garbled = Request::post(MAPS).header("content-type", protobuf::CONTENT_TYPE).body(Bytes::from_static(b"k8s\0\xff")).unwrap();
    assert_eq!(cluster.api.call(admin(), garbled).await.status(), 400);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_arrives_the_same_as_in_json() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = |name: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": "x"}}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "strategy": {},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {},
                "readinessProbe": {"httpGet": {"path": "/", "port": "web"}}}]}}}})
    };
    let (code, by_json) = cluster.admin(Method::POST, path, deployment("json")).await;
    assert_eq!(code, 201, "{by_json}");
    let (code, by_protobuf) = read(send(&cluster, Method::POST, path, &deployment("protobuf")).await).await;
    assert_eq!((code, &by_protobuf["spec"]), (201, &by_json["spec"]));
    cluster.stop().await;
}
