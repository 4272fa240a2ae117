//! Converts objects to other versions of their resource by the resource's conversion webhook.
//!
//! The watch cache holds objects in the versions that they were written in and knows no webhook: they are converted on their way out, and
//! written objects on their way in, by the request that needs it. So a webhook that is down fails requests for its own resource, after its
//! timeout, and nothing else. Resources without a webhook pass through here unchanged.
//!
//! Must not: keep a lock while a webhook is asked, or decide in which version a request is worked on (`registry/mutation.rs`).
//!
//! Answers to <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion>.

pub mod webhook;

use std::sync::Arc;

use serde_json::Value;
use trireme_api::gvk::GroupVersionKind;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::catalog::rows::Row;
use crate::egress::Egress;
use crate::egress::webhooks::Client;
use crate::error::Answer;
use crate::storage::cache::index;
use crate::storage::cache::object::Cached;
use crate::storage::encode;
use crate::storage::lookup::ObjectReader;

/// Asks the webhooks of all resources.
pub struct Conversions {
    client: Client,
}

/// The way to other versions of the objects of one resource.
#[derive(Clone)]
pub struct Converter {
    conversions: Arc<Conversions>,
    row: Arc<Row>,
}

// === impl Conversions ===

impl Conversions {
    /// Asks by `egress`, with Services as `reader` knows them.
    pub fn new(egress: Arc<dyn Egress>, reader: Arc<dyn ObjectReader>) -> Conversions {
        Conversions { client: Client::new(egress, reader) }
    }

    /// What converts the objects of `row`; None: no webhook does.
    pub fn of(self: &Arc<Self>, row: &Arc<Row>) -> Option<Converter> {
        row.webhook.is_some().then(|| Converter { conversions: self.clone(), row: row.clone() })
    }

    /// Objects of `row` in the version of `to`, fitted to its schema. An error is in upstream's words.
    async fn convert(&self, row: &Row, objects: Vec<Value>, to: &GroupVersionKind) -> Result<Vec<Value>, String> {
        let Some(webhook) = &row.webhook else { return Ok(objects) };
        let desired = to.api_version();
        let foreign: Vec<bool> = objects.iter().map(|object| meta::api_version(object) != desired).collect();
        let mut converted = webhook.convert(&self.client, objects, to).await?;
        for (object, _) in converted.iter_mut().zip(foreign).filter(|(_, foreign)| *foreign) {
            row.definition.kind.fit_converted(object)?;
        }
        Ok(converted)
    }

    /// One object of `row` in the version of `to`.
    pub async fn one(&self, row: &Row, object: Value, to: &GroupVersionKind) -> Answer<Value> {
        let converted = self.convert(row, vec![object], to).await.map_err(refused)?;
        converted.into_iter().next().ok_or_else(|| Status::internal("no object was converted").into())
    }

    /// Converts cached objects of `row` to `version`, in their order, with the labels and fields by which they are selected in it.
    pub async fn cached(&self, row: &Row, version: &str, mut objects: Vec<Arc<Cached>>) -> Answer<Vec<Arc<Cached>>> {
        if row.webhook.is_none() {
            return Ok(objects);
        }
        let to = GroupVersionKind { version: version.to_owned().into(), ..row.storage_gvk() };
        // Every stored payload begins with kind and apiVersion.
        let head = format!("{{\"kind\":{},\"apiVersion\":{},", Value::from(&*to.kind), Value::from(to.api_version()));
        let foreign = |object: &Arc<Cached>| !object.json().starts_with(head.as_bytes());
        let places: Vec<usize> = (0..objects.len()).filter(|at| objects.get(*at).is_some_and(foreign)).collect();
        let parse = |at: &usize| objects.get(*at).map(|object| serde_json::from_slice(&object.json()));
        let values = places.iter().filter_map(parse).collect::<Result<Vec<Value>, _>>().map_err(Status::internal)?;
        let converted = self.convert(row, values, &to).await.map_err(refused)?;
        for (at, value) in places.into_iter().zip(converted) {
            if let Some(object) = objects.get_mut(at) {
                *object = Arc::new(recoded(row, object, &value, &to).map_err(Status::internal)?);
            }
        }
        Ok(objects)
    }
}

fn recoded(row: &Row, object: &Cached, value: &Value, gvk: &GroupVersionKind) -> Result<Cached, String> {
    let payload = encode::payload(value, &gvk.api_version(), &gvk.kind);
    let indexed = index::index(&payload, &row.fields).map_err(|error| error.to_string())?;
    object.converted(&payload, indexed.labels.into(), indexed.fields.into()).map_err(|error| error.to_string())
}

/// As upstream answers: 500, and the error as it is.
fn refused(error: String) -> Box<Status> {
    Box::new(Status::failure(500, "", error))
}

// === impl Converter ===

impl Converter {
    /// An object in the version of `to`.
    ///
    /// # Errors
    /// Upstream's words.
    pub async fn convert(&self, object: Value, to: &GroupVersionKind) -> Result<Value, String> {
        self.conversions.one(&self.row, object, to).await.map_err(|status| status.message)
    }

    /// Cached objects as they are in `version`, in their order.
    pub async fn cached(&self, version: &str, objects: Vec<Arc<Cached>>) -> Answer<Vec<Arc<Cached>>> {
        self.conversions.cached(&self.row, version, objects).await
    }
}

impl std::fmt::Debug for Converter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Converter").field("resource", &self.row.resource).finish_non_exhaustive()
    }
}
