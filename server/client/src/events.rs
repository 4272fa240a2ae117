//! Records what happened to objects as `v1` Events, as kubectl describe shows them.
//!
//! Recording never waits and never fails: a bounded queue feeds one task, and events that do not fit are dropped. A repeated
//! event increases the count of the existing one; the events of one object are rate limited.
//!
//! Answers to: client-go's `tools/record`.

mod correlate;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{Client, Patch, ResourceType, Typed};
use correlate::{Correlator, Decision};

const QUEUE: usize = 1024;

/// How serious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Someone may want to look.
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) object: ObjectReference,
    pub(crate) kind: EventKind,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) component: Arc<str>,
    pub(crate) host: Arc<str>,
}

/// Records events under one component's name; clones share the queue.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Record>,
    component: Arc<str>,
    host: Arc<str>,
}

impl EventRecorder {
    /// Starts the task that writes. It ends with the token or with the last recorder.
    #[must_use]
    pub fn start(client: Client, component: &str, host: &str, cancel: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = write_all(client, receiver) => {}
            }
        });
        Self { sender, component: component.into(), host: host.into() }
    }

    /// A recorder for another component on the same queue.
    #[must_use]
    pub fn for_component(&self, component: &str) -> Self {
        Self { component: component.into(), ..self.clone() }
    }

    /// Something happened to this object.
    pub fn record<T: Typed>(&self, object: &T, kind: EventKind, reason: &str, message: impl Into<String>) {
        self.record_ref(reference(object), kind, reason, message);
    }

    /// Something happened to the object with this reference.
    pub fn record_ref(&self, object: ObjectReference, kind: EventKind, reason: &str, message: impl Into<String>) {
        let record = Record {
            object,
            kind,
            reason: reason.to_owned(),
            message: truncate(message.into()),
            component: Arc::clone(&self.component),
            host: Arc::clone(&self.host),
        };
        if self.sender.try_send(record).is_err() {
            debug!(reason, "the event queue is full: an event is dropped");
        }
    }
}

/// A reference to an object, as events and bindings hold it.
#[must_use]
pub fn reference<T: Typed>(object: &T) -> ObjectReference {
    let resource = ResourceType::of::<T>();
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        resource_version: object.meta().resource_version.clone(),
        field_path: None,
    }
}

/// The API takes 1024 bytes of message.
fn truncate(mut message: String) -> String {
    const MAX: usize = 1024;
    if message.len() > MAX {
        let mut end = MAX - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}

async fn write_all(client: Client, mut receiver: mpsc::Receiver<Record>) {
    let mut correlator = Correlator::new();
    let events = ResourceType::of::<k8s_openapi::api::core::v1::Event>();
    while let Some(record) = receiver.recv().await {
        let now = Timestamp::now();
        let namespace = record.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let (name, event) = match correlator.decide(&record, now) {
            Decision::Drop => continue,
            Decision::Repeat { name, count, message } => {
                let patch = Patch::Merge(json!({
                    "count": count, "lastTimestamp": stamp(now), "message": message,
                }));
                let patched = client
                    .patch_any::<serde::de::IgnoredAny>(&events, Some(&namespace), &name, None, &patch, &crate::PatchOptions::default())
                    .await;
                match patched {
                    Err(error) if error.is_not_found() => {
                        // The stored event has expired: create it again.
                        correlator.forget(&record);
                        let Decision::New { name, message } = correlator.decide(&record, now) else { continue };
                        let event = body(&record, &namespace, &name, &message, now);
                        (name, event)
                    }
                    Err(error) => {
                        debug!(%error, "an event was not updated");
                        continue;
                    }
                    Ok(_) => continue,
                }
            }
            Decision::New { name, message } => {
                let event = body(&record, &namespace, &name, &message, now);
                (name, event)
            }
        };
        let created: Result<serde::de::IgnoredAny, _> = client.create_any(&events, Some(&namespace), &event).await;
        if let Err(error) = created {
            debug!(%error, %name, "an event was not recorded");
            correlator.forget(&record);
        }
    }
}

fn stamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn body(record: &Record, namespace: &str, name: &str, message: &str, now: Timestamp) -> serde_json::Value {
    let mut source = json!({"component": &*record.component});
    if !record.host.is_empty() {
        source["host"] = (*record.host).into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": record.object,
        "reason": record.reason,
        "message": message,
        "source": source,
        "reportingComponent": &*record.component,
        "reportingInstance": &*record.host,
        "type": record.kind.as_str(),
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
    })
}
