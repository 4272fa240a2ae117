//! Objects of a manifest into the API: created, or changed by a merge patch.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::{meta, time};
use trireme_apiserver::user::{GROUP_AUTHENTICATED, GROUP_MASTERS};
use trireme_apiserver::{ApiServer, Caller, UserInfo};
use trireme_raft::Fence;

/// The annotation that names an object's file.
pub(super) const FILE: &str = "trireme.io/manifest-file";
const IDENTITY: &str = "system:trireme:manifests";

/// Writes objects as an administrator.
pub(super) struct Applier {
    api: ApiServer,
    fence: Fence,
    node_name: String,
}

// === impl Applier ===

impl Applier {
    pub(super) fn new(api: ApiServer, fence: Fence, node_name: String) -> Applier {
        Applier { api, fence, node_name }
    }

    /// Applies the objects of a file in their order. One that fails does not keep the others from being applied.
    ///
    /// # Errors
    /// What failed: the first refusal, and how many more there were.
    pub(super) async fn apply(&self, file: &str, objects: Vec<Value>) -> Result<usize, String> {
        let count = objects.len();
        let mut failures = Vec::new();
        for mut object in objects {
            meta::set_annotation(&mut object, FILE, file);
            if let Err(why) = self.one(object).await {
                failures.push(why);
            }
        }
        match failures.split_first() {
            None => Ok(count),
            Some((first, [])) => Err(first.clone()),
            Some((first, more)) => Err(format!("{first} (and {} more)", more.len())),
        }
    }

    async fn one(&self, object: Value) -> Result<(), String> {
        let gvk = meta::gvk(&object).ok_or("apiVersion or kind is missing")?;
        let views = self.api.storage().rows.views();
        let view = views.iter().find(|view| view.row.is_some() && view.resource.gvk(&gvk.version).is_some_and(|served| served == gvk));
        let view = view.ok_or_else(|| format!("no resource of kind {:?} in {:?} is served", gvk.kind, gvk.api_version()))?;
        let base = if gvk.group.is_empty() { format!("/api/{}", gvk.version) } else { format!("/apis/{}", gvk.api_version()) };
        let namespace = match meta::namespace(&object) {
            "" if view.resource.namespaced => "default",
            given => given,
        };
        let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{}", segment(namespace)?) };
        let collection = format!("{base}{scope}/{}", view.resource.plural);
        let what = format!("{} {}", gvk.kind, meta::name(&object));
        let item = format!("{collection}/{}", segment(meta::name(&object))?);
        let (code, answer) = match self.send(Method::GET, &item, "", &Value::Null).await? {
            (404, _) => self.send(Method::POST, &collection, "application/json", &object).await?,
            (200, _) => self.send(Method::PATCH, &item, "application/merge-patch+json", &object).await?,
            other => other,
        };
        if (200..300).contains(&code) {
            return Ok(());
        }
        Err(format!("{what}: {}", answer["message"].as_str().unwrap_or("no reason given")))
    }

    /// Tells with an Event that a file is not applied.
    pub(super) async fn tell(&self, file: &str, error: &str) {
        let now = time::format(Timestamp::now());
        let mut message = format!("{file}: {error}");
        let end = (0..=message.len().min(1000)).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"generateName": "manifest-", "namespace": "default"},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": self.node_name},
            "reason": "ApplyManifestFailed", "message": message, "type": "Warning", "count": 1,
            "source": {"component": "trireme-manifests", "host": self.node_name},
            "firstTimestamp": now, "lastTimestamp": now,
        });
        match self.send(Method::POST, "/api/v1/namespaces/default/events", "application/json", &event).await {
            Ok((200..300, _)) => {}
            Ok((_, answer)) => tracing::debug!(reason = answer["message"].as_str(), "an event was refused"),
            Err(error) => tracing::debug!(error, "an event was not written"),
        }
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Result<(u16, Value), String> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request =
            Request::builder().method(method).uri(path).header("accept", "application/json").header("user-agent", "trireme-manifests");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.body(body).map_err(|e| e.to_string())?;
        let user = UserInfo::new(IDENTITY, &[GROUP_MASTERS, GROUP_AUTHENTICATED]);
        let response = self.api.call(Caller { user, fence: Some(self.fence) }, request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

/// A name that can stand in a path as it is.
fn segment(name: &str) -> Result<&str, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if name != "." && name != ".." && name.chars().all(plain) { Ok(name) } else { Err(format!("{name:?} is no name of an object")) }
}
