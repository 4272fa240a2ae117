//! What extension servers say about themselves, as they were last asked.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::client::Client;
use super::table::Remote;

/// What is known of one group version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Its APIResourceList; the last one, where the server does not answer any more.
    pub resources: Option<Arc<Value>>,
    /// The address of its OpenAPI document on the extension server.
    pub openapi: Option<String>,
    /// Whether the server answered when it was last asked.
    pub is_current: bool,
}

/// By the name of the APIService.
#[derive(Default)]
pub struct Documents {
    kept: RwLock<HashMap<String, Document>>,
}

impl Documents {
    /// What is known.
    pub fn get(&self, name: &str) -> Document {
        self.kept.read().get(name).cloned().unwrap_or_default()
    }

    /// Forgets those that `keep` does not name.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.kept.write().retain(|name, _| keep(name));
    }

    /// Asks a server for its documents.
    ///
    /// # Errors
    /// Why it has no list of resources.
    pub async fn refresh(&self, client: &Client, remote: &Remote) -> Result<(), String> {
        let listed = resources(client, remote).await;
        let openapi = if listed.is_ok() { openapi(client, remote).await } else { None };
        let mut kept = self.kept.write();
        let document = kept.entry(remote.name.clone()).or_default();
        document.is_current = listed.is_ok();
        listed.map(|resources| {
            document.resources = Some(Arc::new(resources));
            document.openapi = openapi;
        })
    }
}

async fn resources(client: &Client, remote: &Remote) -> Result<Value, String> {
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let body = client.get(remote, &path).await?;
    let list: Value = serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))?;
    if list["kind"] == "APIResourceList" && list["resources"].is_array() { Ok(list) } else { Err(format!("{path} is no APIResourceList")) }
}

/// Servers need not have one.
async fn openapi(client: &Client, remote: &Remote) -> Option<String> {
    let body = client.get(remote, "/openapi/v3").await.ok()?;
    let index: Value = serde_json::from_slice(&body).ok()?;
    let path = format!("apis/{}/{}", remote.group, remote.version);
    let address = index.get("paths")?.get(&path)?.get("serverRelativeURL")?.as_str()?;
    // Only the document of this group version: what is asked for there is passed on to the same server.
    let own = format!("/openapi/v3/{path}");
    (address == own || address.strip_prefix(&own).is_some_and(|rest| rest.starts_with('?'))).then(|| address.to_owned())
}
