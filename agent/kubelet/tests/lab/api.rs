//! A small API server in memory, behind the client's `Transport`: just enough semantics for a kubelet.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use trireme_client::{Body, BoxError, Client, Transport, TransportError, full_body};

#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(String, Value)>,
    pub down: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// All that ever happened, by revision.
    history: Vec<(u64, String, Value)>,
    revision: u64,
}

impl Api {
    pub fn new() -> Api {
        Api { state: Arc::default(), events: broadcast::channel(4096).0, down: Arc::default() }
    }

    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// All objects whose path contains this.
    pub fn find(&self, part: &str) -> Vec<Value> {
        self.state.lock().objects.iter().filter(|(path, _)| path.contains(part)).map(|(_, object)| object.clone()).collect()
    }

    pub fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock();
        state.revision += 1;
        let known = state.objects.contains_key(path);
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", state.revision).into();
        }
        if let Some(ns) = path.split("/namespaces/").nth(1).and_then(|rest| rest.split('/').next()) {
            object["metadata"]["namespace"] = ns.into();
        }
        state.objects.insert(path.to_string(), object.clone());
        self.tell(&mut state, path, if known { "MODIFIED" } else { "ADDED" }, &object);
        object
    }

    pub fn remove(&self, path: &str) {
        let mut state = self.state.lock();
        if let Some(mut object) = state.objects.remove(path) {
            state.revision += 1;
            object["metadata"]["resourceVersion"] = state.revision.to_string().into();
            self.tell(&mut state, path, "DELETED", &object);
        }
    }

    /// What `kubectl delete` does: marks the pod.
    pub fn delete_gracefully(&self, path: &str, seconds: i64) {
        let mut object = self.get(path).unwrap();
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        object["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
        self.put(path, object);
    }

    fn tell(&self, state: &mut State, path: &str, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        state.history.push((state.revision, path.to_string(), event.clone()));
        let _ = self.events.send((path.to_string(), event));
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<Body> {
        let path = request.uri().path().to_string();
        let decode = |text: &str| text.replace("%3D", "=").replace("%2F", "/");
        let pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
        let query: BTreeMap<String, String> = pairs.map(|(k, v)| (k.to_string(), decode(v))).collect();
        let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        match request.method().as_str() {
            "GET" if query.contains_key("watch") => self.watch(&path, &query),
            "GET" => match self.get(&path) {
                Some(object) => reply(StatusCode::OK, &object),
                None if is_collection(&path) => {
                    let state = self.state.lock();
                    let items: Vec<&Value> =
                        state.objects.iter().filter(|(p, o)| in_collection(&path, p) && selected(&query, o)).map(|(_, o)| o).collect();
                    reply(
                        StatusCode::OK,
                        &json!({"kind": "List", "metadata": {"resourceVersion": state.revision.to_string()}, "items": items}),
                    )
                }
                None => not_found(&path),
            },
            "POST" if path.ends_with("/token") => reply(
                StatusCode::CREATED,
                &json!({"metadata": {}, "spec": body["spec"], "status": {"token": "the-token", "expirationTimestamp": "2036-01-01T00:00:00Z"}}),
            ),
            "POST" if path.ends_with("tokenreviews") => {
                let known = body["spec"]["token"] == "good";
                reply(
                    StatusCode::CREATED,
                    &json!({"metadata": {}, "spec": body["spec"], "status": {"authenticated": known, "user": {"username": "someone", "groups": ["g"]}}}),
                )
            }
            "POST" if path.ends_with("subjectaccessreviews") => reply(
                StatusCode::CREATED,
                &json!({"metadata": {}, "spec": body["spec"], "status": {"allowed": body["spec"]["user"] == "someone"}}),
            ),
            "POST" => {
                let full = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.get(&full).is_some() {
                    return reply(StatusCode::CONFLICT, &status(409, "AlreadyExists", "exists"));
                }
                reply(StatusCode::CREATED, &self.put(&full, body))
            }
            "PATCH" => {
                let path = path.trim_end_matches("/status");
                let Some(mut object) = self.get(path) else { return not_found(path) };
                if body["metadata"]["uid"].as_str().is_some_and(|uid| object["metadata"]["uid"] != uid) {
                    return reply(StatusCode::CONFLICT, &status(409, "Conflict", "uid"));
                }
                merge(&mut object, &body);
                reply(StatusCode::OK, &self.put(path, object))
            }
            "DELETE" => {
                let Some(object) = self.get(&path) else { return not_found(&path) };
                if body["preconditions"]["uid"].as_str().is_some_and(|uid| object["metadata"]["uid"] != uid) {
                    return reply(StatusCode::CONFLICT, &status(409, "Conflict", "uid"));
                }
                self.remove(&path);
                reply(StatusCode::OK, &object)
            }
            other => reply(StatusCode::METHOD_NOT_ALLOWED, &status(405, "MethodNotAllowed", other)),
        }
    }

    fn watch(&self, path: &str, query: &BTreeMap<String, String>) -> Response<Body> {
        let (path, query, down) = (path.to_string(), query.clone(), self.down.clone());
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default();
        let (missed, live) = {
            let state = self.state.lock();
            let missed: Vec<_> = state
                .history
                .iter()
                .filter(|(revision, ..)| *revision > from)
                .map(|(_, path, event)| Ok((path.clone(), event.clone())))
                .collect();
            (missed, tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe()))
        };
        let stream = futures::stream::iter(missed).chain(live).filter_map(move |event| {
            let (path, query) = (path.clone(), query.clone());
            let cut = down.load(Ordering::Relaxed);
            async move {
                let (at, event) = event.ok()?;
                if cut {
                    return Some(Err(BoxError::from("cut")));
                }
                (in_collection(&path, &at) && selected(&query, &event["object"]))
                    .then(|| Ok(http_body::Frame::data(Bytes::from(format!("{event}\n")))))
            }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
    }
}

impl Transport for Api {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let me = self.clone();
        Box::pin(async move {
            if me.down.load(Ordering::Relaxed) {
                return Err(TransportError::Connect("the server is down".into()));
            }
            Ok(me.answer(&request))
        })
    }
}

fn is_collection(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("pods" | "services" | "nodes" | "configmaps" | "secrets" | "events"))
}

/// Collections are asked for cluster-wide or in a namespace.
fn in_collection(collection: &str, path: &str) -> bool {
    let plural = collection.rsplit('/').next().unwrap_or_default();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    parent.rsplit('/').next() == Some(plural) && (!collection.contains("/namespaces/") || parent == collection)
}

fn selected(query: &BTreeMap<String, String>, object: &Value) -> bool {
    let Some((field, value)) = query.get("fieldSelector").and_then(|s| s.split_once('=')) else { return true };
    let at = format!("/{}", field.replace('.', "/"));
    object.pointer(&at).and_then(Value::as_str) == Some(value)
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn not_found(path: &str) -> Response<Body> {
    reply(StatusCode::NOT_FOUND, &status(404, "NotFound", &format!("{path} not found")))
}

fn reply(code: StatusCode, body: &Value) -> Response<Body> {
    Response::builder().status(code).header("content-type", "application/json").body(full_body(Bytes::from(body.to_string()))).unwrap()
}

/// A strategic merge as far as the kubelet uses it: maps merge, null deletes, lists replace, conditions merge by type.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.as_object_mut().unwrap().remove(key);
            }
            Value::Array(items) if key == "conditions" => {
                let mut list: Vec<Value> = target[key].as_array().cloned().unwrap_or_default();
                for item in items {
                    if item["$patch"] == "delete" {
                        list.retain(|known| known["type"] != item["type"]);
                        continue;
                    }
                    match list.iter_mut().find(|known| known["type"] == item["type"]) {
                        Some(known) => merge(known, item),
                        None => {
                            let mut fresh = json!({});
                            merge(&mut fresh, item);
                            list.push(fresh);
                        }
                    }
                }
                target[key] = list.into();
            }
            Value::Array(items) => target[key] = items.iter().filter(|i| i["$patch"].is_null()).cloned().collect(),
            Value::Object(_) => merge(&mut target[key], value),
            _ => target[key] = value.clone(),
        }
    }
}
