//! A small API server in memory: enough of the verbs, patches and watches for controllers to live on. A fast double beside the
//! real one, which the end-to-end tests use. Shared by the tests of controllers and scheduler; neither uses all of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use trireme_client::{Body, BoxError, Fence, Transport, TransportError, full_body};

/// (plural, namespace, name).
type Key = (String, String, String);

#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<i64>,
    /// The Events that were recorded.
    pub told: Arc<Mutex<Vec<Value>>>,
    /// What was sent to nodes' kubelets: method and path.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// What kubelets answer.
    pub kubelet_says: Arc<Mutex<(u16, &'static str)>>,
    /// Lists and watches of these resources do not answer.
    held: watch::Sender<BTreeSet<String>>,
    /// Answers and watch events take their time, which follows from a seed.
    delays: Option<Arc<Mutex<StdRng>>>,
}

struct State {
    objects: BTreeMap<Key, Value>,
    events: Vec<(i64, &'static str, String, Value)>,
    revision: i64,
    /// Writes that carry another fence are refused.
    term: u64,
    /// The number of writes that each leadership may make, and how many the current one has left.
    writes: Option<(usize, usize)>,
}

/// group, version, plural, kind, namespaced.
const RESOURCES: [(&str, &str, &str, &str, bool); 28] = [
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "services", "Service", true),
    ("", "v1", "endpoints", "Endpoints", true),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "secrets", "Secret", true),
    ("", "v1", "replicationcontrollers", "ReplicationController", true),
    ("", "v1", "resourcequotas", "ResourceQuota", true),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("", "v1", "persistentvolumes", "PersistentVolume", false),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", false),
    ("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", false),
    ("storage.k8s.io", "v1", "csidrivers", "CSIDriver", false),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true),
    ("batch", "v1", "jobs", "Job", true),
    ("batch", "v1", "cronjobs", "CronJob", true),
    ("apps", "v1", "statefulsets", "StatefulSet", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", true),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true),
    ("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false),
];

impl FakeApi {
    pub fn new() -> Self {
        let state = State { objects: BTreeMap::new(), events: Vec::new(), revision: 100, term: 1, writes: None };
        Self {
            state: Arc::new(Mutex::new(state)),
            revision: watch::Sender::new(100),
            told: Arc::default(),
            asked: Arc::default(),
            kubelet_says: Arc::new(Mutex::new((200, ""))),
            held: watch::Sender::new(BTreeSet::new()),
            delays: None,
        }
    }

    /// One whose answers and watch events come late and out of step, the same way for the same seed.
    pub fn slow(seed: u64) -> Self {
        Self { delays: Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))), ..Self::new() }
    }

    async fn delay(&self) {
        if let Some(delays) = &self.delays {
            let wait = delays.lock().random_range(0..40_u64);
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        }
    }

    /// Lists of a resource do not answer, and watches of it send nothing, until it is released.
    pub fn hold(&self, plural: &str) {
        self.held.send_modify(|held| {
            held.insert(plural.to_owned());
        });
    }

    pub fn release(&self, plural: &str) {
        self.held.send_modify(|held| {
            held.remove(plural);
        });
    }

    async fn released(&self, plural: &str) {
        self.held.subscribe().wait_for(|held| !held.contains(plural)).await.unwrap();
    }

    pub fn revision(&self) -> i64 {
        self.state.lock().revision
    }

    /// A new leadership: the old one's writes are refused from now on.
    pub fn set_term(&self, term: u64) {
        self.state.lock().term = term;
    }

    pub fn term(&self) -> u64 {
        self.state.lock().term
    }

    /// From now on each leadership is deposed after so many writes.
    pub fn depose_after(&self, writes: usize) {
        self.state.lock().writes = Some((writes, writes));
    }

    /// Everything that happened to a resource: revision, kind of event, object.
    pub fn history(&self, plural: &str) -> Vec<(i64, &'static str, Value)> {
        let state = self.state.lock();
        let of = state.events.iter().filter(|(_, _, known, _)| known == plural);
        of.map(|(revision, kind, _, object)| (*revision, *kind, object.clone())).collect()
    }

    /// Creates as a user would.
    pub fn create(&self, plural: &str, object: Value) -> Value {
        let created = self.state.lock().create(plural, object);
        self.announce();
        created.unwrap()
    }

    /// Changes an object as a user or kubelet would.
    pub fn edit(&self, plural: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock();
        let mut object = state.objects.get(&key).unwrap().clone();
        change(&mut object);
        state.store(key, object);
        drop(state);
        self.announce();
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str, propagation: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let options = json!({"propagationPolicy": propagation});
        let _ = self.state.lock().delete(&key, &options);
        self.announce();
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&(plural.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn list(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|((known, ..), _)| known == plural).map(|(_, object)| object.clone()).collect()
    }

    /// Waits until a condition holds, looked at after each change.
    pub async fn until(&self, what: &str, condition: impl Fn(&FakeApi) -> bool) {
        let mut changes = self.revision.subscribe();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(120), async {
            while !condition(self) {
                changes.changed().await.unwrap();
            }
        });
        let done = waited.await.is_ok();
        assert!(done, "never happened: {what}; there is {:#?}", self.state.lock().objects);
    }

    pub fn changes(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }

    fn announce(&self) {
        self.revision.send_replace(self.state.lock().revision);
    }
}

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}))
}

impl State {
    fn next(&mut self, object: &mut Value) -> i64 {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.revision
    }

    fn create(&mut self, plural: &str, mut object: Value) -> Result<Value, (u16, Value)> {
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            let base = meta["generateName"].as_str().unwrap().to_owned();
            meta["name"] = json!(format!("{base}{}", self.revision));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (plural.to_owned(), text(&meta["namespace"]), text(&meta["name"]));
        if self.objects.contains_key(&key) {
            return Err(status(409, "AlreadyExists", "already exists"));
        }
        let namespace = self.objects.get(&("namespaces".to_owned(), String::new(), key.1.clone()));
        if namespace.is_some_and(|namespace| !namespace["metadata"]["deletionTimestamp"].is_null()) {
            let (code, mut refusal) = status(403, "Forbidden", "the namespace is being terminated");
            refusal["details"] = json!({"causes": [{"reason": "NamespaceTerminating"}]});
            return Err((code, refusal));
        }
        meta["uid"] = json!(format!("uid-{}", self.revision));
        meta["creationTimestamp"] = json!(jiff::Timestamp::from_second(self.revision).unwrap().to_string());
        meta["generation"] = json!(1);
        let revision = self.next(&mut object);
        self.events.push((revision, "ADDED", plural.to_owned(), object.clone()));
        self.objects.insert(key, object.clone());
        Ok(object)
    }

    fn store(&mut self, key: Key, mut object: Value) -> Value {
        let old = self.objects.get(&key);
        if old.is_some_and(|old| *old == object) {
            return object;
        }
        if old.is_some_and(|old| old["spec"] != object["spec"]) {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        let finalizers =
            object["metadata"]["finalizers"].as_array().map_or(0, Vec::len) + object["spec"]["finalizers"].as_array().map_or(0, Vec::len);
        let revision = self.next(&mut object);
        let gone = !object["metadata"]["deletionTimestamp"].is_null() && finalizers == 0;
        self.events.push((revision, if gone { "DELETED" } else { "MODIFIED" }, key.0.clone(), object.clone()));
        if gone {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        object
    }

    fn delete(&mut self, key: &Key, options: &Value) -> Result<Value, (u16, Value)> {
        let Some(object) = self.objects.get(key) else { return Err(status(404, "NotFound", "not found")) };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return Err(status(409, "Conflict", "another uid"));
        }
        let mut object = object.clone();
        let meta = &mut object["metadata"];
        if meta["deletionTimestamp"].is_null() {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let mut finalizers = meta["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.contains(&json!(finalizer)) {
                finalizers.push(json!(finalizer));
            }
            meta["finalizers"] = json!(finalizers);
        }
        Ok(self.store(key.clone(), object))
    }

    /// Counts a write of the leadership. What it writes about itself does not count.
    fn count_write(&mut self, plural: &str) {
        if plural == "leases" {
            return;
        }
        if let Some((each, left)) = &mut self.writes {
            *left -= 1;
            if *left == 0 {
                *left = *each;
                self.term += 1;
            }
        }
    }

    fn patch(&mut self, key: Key, strategic: bool, patch: &Value) -> Result<Value, (u16, Value)> {
        let Some(object) = self.objects.get(&key) else { return Err(status(404, "NotFound", "not found")) };
        for field in ["uid", "resourceVersion"] {
            let wanted = &patch["metadata"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err(status(409, "Conflict", field));
            }
        }
        let mut patched = object.clone();
        merge(&mut patched, patch, strategic);
        Ok(self.store(key, patched))
    }
}

/// Merge patch; strategic: lists of conditions and owners are merged by their key.
fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().unwrap();
            into[list].as_array_mut().into_iter().for_each(|items| items.retain(|item| !gone.contains(item)));
            continue;
        }
        if name == "finalizers" && strategic {
            let mut all = into[name].as_array().cloned().unwrap_or_default();
            all.extend(value.as_array().unwrap().iter().filter(|item| !all.contains(item)).cloned().collect::<Vec<_>>());
            into[name] = json!(all);
            continue;
        }
        let key = match name.as_str() {
            "conditions" if strategic => Some("type"),
            "ownerReferences" if strategic => Some("uid"),
            _ => None,
        };
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else if let Some(key) = key {
            let mut list = into[name].as_array().cloned().unwrap_or_default();
            for item in value.as_array().unwrap() {
                if item["$patch"] == json!("delete") {
                    list.retain(|known| known[key] != item[key]);
                } else if let Some(known) = list.iter_mut().find(|known| known[key] == item[key]) {
                    merge(known, item, strategic);
                } else {
                    list.push(item.clone());
                }
            }
            into[name] = json!(list);
        } else {
            merge(&mut into[name], value, strategic);
        }
    }
}

struct Target {
    plural: String,
    namespace: String,
    name: String,
    subresource: String,
    query: BTreeMap<String, String>,
}

fn target(uri: &http::Uri) -> Option<Target> {
    let mut parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let skip = if parts.first() == Some(&"api") { 2 } else { 3 };
    parts.drain(..skip.min(parts.len()));
    let mut namespace = String::new();
    if parts.first() == Some(&"namespaces") && parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
        namespace = parts[1].to_owned();
        parts.drain(..2);
    }
    let query = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=")))
        .collect();
    let part = |nth: usize| parts.get(nth).map(|part| (*part).to_owned()).unwrap_or_default();
    Some(Target { plural: Some(part(0)).filter(|plural| !plural.is_empty())?, namespace, name: part(1), subresource: part(2), query })
}

fn selected(target: &Target, object: &Value) -> bool {
    let in_namespace = target.namespace.is_empty() || object["metadata"]["namespace"] == json!(target.namespace);
    let field = target.query.get("fieldSelector").and_then(|text| text.split_once('='));
    in_namespace
        && field.is_none_or(|(field, value)| {
            let value = value.replace("%2F", "/");
            object.pointer(&format!("/{}", field.replace('.', "/"))) == Some(&json!(value))
        })
}

fn discovery(path: &str) -> Option<Value> {
    if path == "/apis" {
        let groups: std::collections::BTreeSet<&str> = RESOURCES.iter().map(|row| row.0).filter(|group| !group.is_empty()).collect();
        let list: Vec<Value> = groups
            .iter()
            .map(|group| json!({"name": group, "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}))
            .collect();
        return Some(json!({"groups": list}));
    }
    let group = path.strip_prefix("/apis/").and_then(|rest| rest.strip_suffix("/v1"));
    let group = if path == "/api/v1" { Some("") } else { group.filter(|group| !group.contains('/')) }?;
    let list: Vec<Value> = RESOURCES
        .iter()
        .filter(|row| row.0 == group)
        .map(|(_, _, plural, kind, namespaced)| {
            json!({"name": plural, "kind": kind, "namespaced": namespaced,
                "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]})
        })
        .collect();
    Some(json!({"resources": list}))
}

impl FakeApi {
    fn answer(&self, request: &Request<Bytes>) -> (u16, Value) {
        if let Some(found) = discovery(request.uri().path()) {
            return (200, found);
        }
        let Some(target) = target(request.uri()) else { return status(404, "NotFound", "no such path") };
        if target.plural == "events" {
            if *request.method() == Method::POST {
                self.told.lock().push(serde_json::from_slice(request.body()).unwrap());
                self.announce();
            }
            return (201, json!({}));
        }
        if target.subresource == "proxy" {
            self.asked.lock().push(format!("{} {}", request.method(), request.uri().path()));
            let (code, said) = *self.kubelet_says.lock();
            return (code, json!(said));
        }
        let key = (target.plural.clone(), target.namespace.clone(), target.name.clone());
        let body = || serde_json::from_slice::<Value>(request.body()).unwrap();
        let mut state = self.state.lock();
        let fence = request.extensions().get::<Fence>().filter(|_| *request.method() != Method::GET);
        if fence.is_some_and(|fence| fence.term != state.term) {
            return status(409, "Conflict", "fenced");
        }
        let result = match *request.method() {
            Method::GET if target.name.is_empty() => {
                let items: Vec<&Value> = state
                    .objects
                    .iter()
                    .filter(|((plural, ..), object)| *plural == target.plural && selected(&target, object))
                    .map(|(_, object)| object)
                    .collect();
                Ok(json!({"metadata": {"resourceVersion": state.revision.to_string()}, "items": items}))
            }
            Method::GET => state.objects.get(&key).cloned().ok_or_else(|| status(404, "NotFound", "not found")),
            Method::POST if target.subresource == "binding" => {
                let node = body()["target"]["name"].clone();
                match state.objects.get(&key).cloned() {
                    None => Err(status(404, "NotFound", "not found")),
                    Some(pod) if !pod["spec"]["nodeName"].is_null() => Err(status(409, "Conflict", "already assigned")),
                    Some(mut pod) => {
                        pod["spec"]["nodeName"] = node;
                        Ok(state.store(key, pod))
                    }
                }
            }
            Method::POST => {
                let mut object = body();
                if !target.namespace.is_empty() {
                    object["metadata"]["namespace"] = json!(target.namespace);
                }
                state.create(&target.plural, object)
            }
            Method::PUT => {
                let object = body();
                match state.objects.get(&key) {
                    None => Err(status(404, "NotFound", "not found")),
                    Some(known) if known["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] => {
                        Err(status(409, "Conflict", "resourceVersion"))
                    }
                    Some(_) => Ok(state.store(key, object)),
                }
            }
            Method::PATCH => {
                let kind = request.headers()[http::header::CONTENT_TYPE].to_str().unwrap();
                state.patch(key, kind.contains("strategic"), &body())
            }
            Method::DELETE if target.name.is_empty() => {
                let keys: Vec<Key> = state
                    .objects
                    .iter()
                    .filter(|((plural, ..), object)| *plural == target.plural && selected(&target, object))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in keys {
                    let _ = state.delete(&key, &body());
                }
                Ok(json!({}))
            }
            Method::DELETE => state.delete(&key, &body()),
            _ => Err(status(405, "MethodNotAllowed", "no")),
        };
        assert!(target.subresource.is_empty() || matches!(target.subresource.as_str(), "status" | "finalize" | "binding"));
        if result.is_ok() && fence.is_some() {
            state.count_write(&target.plural);
        }
        match result {
            Ok(value) => (200, value),
            Err(refusal) => refusal,
        }
    }

    fn watch(&self, target: Target) -> Body {
        let from: i64 = target.query["resourceVersion"].parse().unwrap();
        let (api, changes) = (self.clone(), self.revision.subscribe());
        let frames = futures::stream::unfold((api, changes, from, target), |(api, mut changes, mut at, target)| async move {
            loop {
                let mut text = String::new();
                {
                    let state = api.state.lock();
                    for (revision, kind, plural, object) in &state.events {
                        if *revision > at && *plural == target.plural && selected(&target, object) {
                            text.push_str(&json!({"type": kind, "object": object}).to_string());
                            text.push('\n');
                        }
                    }
                    at = state.revision;
                }
                if !text.is_empty() {
                    api.delay().await;
                    api.released(&target.plural).await;
                    let frame = http_body::Frame::data(Bytes::from(text));
                    return Some((Ok::<_, BoxError>(frame), (api, changes, at, target)));
                }
                changes.changed().await.ok()?;
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

impl Transport for FakeApi {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let api = self.clone();
        Box::pin(async move {
            if let Some(target) = target(request.uri()).filter(|target| *request.method() == Method::GET && target.name.is_empty()) {
                api.released(&target.plural).await;
                if target.query.contains_key("watch") {
                    return Ok(Response::new(api.watch(target)));
                }
            }
            api.delay().await;
            let (code, body) = api.answer(&request);
            api.announce();
            api.delay().await;
            Ok(Response::builder().status(code).body(full_body(body.to_string().into())).unwrap())
        })
    }
}
