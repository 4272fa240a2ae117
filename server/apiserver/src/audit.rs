//! Audit: which requests are recorded, what of them, and where.
//!
//! Owns the policy, the events of a request from its receipt to the end of its answer, and the log and the webhook that they go to. Knows
//! neither filters nor endpoints: [`crate::chain::audit`] says when a request reaches a stage. A server without a policy records nothing,
//! at no cost.
//!
//! An answer waits until its event is in the log, as in the mode `blocking` of upstream's log backend; only events that end a stream are
//! written after it. Whether it waits for the webhook is for the webhook's mode to say. Answers to <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/>.

pub mod event;
pub mod log;
pub mod policy;
pub mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use serde::Deserialize;
use serde_json::Value;
use trireme_api::status::Status;
use trireme_api::{protobuf, schema};

use crate::egress::kubeconfig;
use crate::egress::webhooks::Client;
use crate::http::request_info::RequestInfo;
use crate::user::UserInfo;
use event::{EVENT_BYTES_MAX, Event, ObjectRef, Origin, drop_managed_fields};
use log::{Log, LogOptions};
use policy::{Level, Policy, Stage, Verdict};
use webhook::{Losses, Webhook, WebhookOptions};

/// What a server records.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditOptions {
    /// The file with the policy.
    pub policy: PathBuf,
    /// The log that events go to.
    pub log: Option<LogOptions>,
    /// Whether a request is refused whose receipt cannot be written to the log.
    pub strict: bool,
    /// The webhook that events go to.
    pub webhook: Option<WebhookOptions>,
}

/// The audit of a server.
pub struct Audit {
    policy: Policy,
    log: Option<Log>,
    strict: bool,
    webhook: Option<Webhook>,
    metrics: Arc<AuditMetrics>,
}

struct AuditMetrics {
    events: IntCounter,
    errors: IntCounterVec,
    levels: IntCounterVec,
    rejected: IntCounter,
}

/// Facts about a request that filters and admission plugins add to its events.
#[derive(Debug, Default)]
pub struct Annotations(Mutex<BTreeMap<String, String>>);

/// The events of one request. One that is dropped before it is complete (its client went away) is recorded as complete without a status.
pub struct Record(Option<Box<Pending>>);

struct Pending {
    audit: Arc<Audit>,
    verdict: Verdict,
    event: Event,
    annotations: Arc<Annotations>,
}

/// Of an object, what names it.
#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    metadata: NamedMetadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NamedMetadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}

// === impl Audit ===

impl Audit {
    /// Reads the policy, opens the log, and reads where the webhook is.
    ///
    /// # Errors
    /// Which of them is not usable, and why.
    pub fn open(options: AuditOptions) -> Result<Audit, String> {
        let path = options.policy.display();
        let text = std::fs::read(&options.policy).map_err(|error| format!("audit policy {path}: {error}"))?;
        let policy = Policy::parse(&text).map_err(|error| format!("audit policy {path}: {error}"))?;
        let log = options.log.map(Log::open).transpose().map_err(|error| format!("audit log {error}"))?;
        let metrics = Arc::new(AuditMetrics::new());
        let webhook = match options.webhook {
            None => None,
            Some(webhook) => {
                let target = kubeconfig::read(&webhook.config).map_err(|error| format!("audit webhook {error}"))?;
                Some(Webhook::new(webhook, target, metrics.clone()))
            }
        };
        Ok(Audit { policy, log, strict: options.strict, webhook, metrics })
    }

    /// Begins to deliver to the webhook, if there is one.
    pub fn start(&self, client: impl FnOnce() -> Client) {
        if let Some(webhook) = &self.webhook {
            webhook.start(client());
        }
    }

    /// Delivers what waits for the webhook, as far as that is possible in this time.
    pub async fn flush(&self, longest: Duration) {
        if let Some(webhook) = &self.webhook {
            webhook.flush(longest).await;
        }
    }

    /// Writes an event.
    ///
    /// # Errors
    /// It was not written where it must be for its request to be answered.
    async fn write(&self, event: &Event) -> Result<(), String> {
        let encoded = event.encode(EVENT_BYTES_MAX);
        let to_webhook = self.webhook.as_ref().map(|webhook| {
            let event = match webhook.event_bytes_max() {
                Some(most) if encoded.len() > most => event.encode(most),
                _ => encoded.clone(),
            };
            (webhook, event)
        });
        let (mut refusal, mut is_written) = (None, true);
        if let Some(log) = &self.log
            && let Err(error) = log.write(encoded).await
        {
            self.metrics.errors.with_label_values(&["log"]).inc();
            is_written = false;
            refusal = Some(error).filter(|_| self.strict);
        }
        if let Some((webhook, event)) = to_webhook
            && let Err(error) = webhook.write(event.into()).await
        {
            is_written = false;
            refusal = refusal.or(Some(error).filter(|_| webhook.is_strict()));
        }
        if is_written {
            self.metrics.events.inc();
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Adds its metrics to a registry.
    pub fn register(&self, registry: &Registry) {
        let AuditMetrics { events, errors, levels, rejected } = &*self.metrics;
        for metric in [Box::new(events.clone()) as Box<dyn prometheus::core::Collector>, Box::new(rejected.clone())] {
            registry.register(metric).expect("invariant: metrics are registered once");
        }
        for metric in [errors, levels] {
            registry.register(Box::new(metric.clone())).expect("invariant: metrics are registered once");
        }
    }

    /// Begins the record of a request; none if the policy wants nothing of it.
    pub fn begin(self: &Arc<Audit>, id: String, uri: String, user: &UserInfo, info: &RequestInfo, origin: Origin) -> Option<Record> {
        let verdict = self.policy.judge(user, info);
        self.metrics.levels.with_label_values(&[verdict.level.as_str()]).inc();
        if verdict.level == Level::None {
            return None;
        }
        let event = Event::received(verdict.level, id, uri, user, info, origin);
        Some(Record(Some(Box::new(Pending { audit: self.clone(), verdict, event, annotations: Arc::default() }))))
    }
}

// === impl AuditMetrics ===

impl AuditMetrics {
    fn new() -> AuditMetrics {
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("invariant: static names are valid");
        let vec = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("invariant: static names are valid")
        };
        AuditMetrics {
            events: counter("apiserver_audit_event_total", "Audit events generated and written."),
            errors: vec("apiserver_audit_error_total", "Audit events that were not written.", "plugin"),
            levels: vec("apiserver_audit_level_total", "Policy levels of requests.", "level"),
            rejected: counter("apiserver_audit_requests_rejected_total", "Requests refused because they could not be recorded."),
        }
    }
}

impl Losses for AuditMetrics {
    fn dropped(&self, events: usize) {
        self.errors.with_label_values(&["buffered"]).inc_by(events as u64);
    }

    fn undelivered(&self, events: usize) {
        self.errors.with_label_values(&["webhook"]).inc_by(events as u64);
    }
}

// === impl Annotations ===

impl Annotations {
    /// Adds a fact. The first one of a key stays.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        self.0.lock().entry(key.into()).or_insert_with(|| value.into());
    }
}

// === impl Record ===

impl Record {
    /// Where facts about the request are collected.
    pub fn annotations(&self) -> Option<Arc<Annotations>> {
        self.0.as_ref().map(|pending| pending.annotations.clone())
    }

    /// Whether the body of the answer is recorded.
    pub fn wants_answer(&self) -> bool {
        self.0.as_ref().is_some_and(|pending| pending.verdict.level == Level::RequestResponse)
    }

    /// The request was received.
    ///
    /// # Errors
    /// It cannot be recorded, and so must not be answered.
    pub async fn received(&mut self) -> Result<(), Box<Status>> {
        let Some(pending) = &mut self.0 else { return Ok(()) };
        match pending.tell(Stage::RequestReceived).await {
            Err(error) => {
                pending.audit.metrics.rejected.inc();
                Err(Status::internal(format!("unable to write an audit event: {error}")).into())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The request acts as another user.
    pub fn impersonates(&mut self, user: &UserInfo) {
        if let Some(pending) = &mut self.0 {
            pending.event.impersonate(user);
        }
    }

    /// The body of the request.
    pub fn body(&mut self, headers: &HeaderMap, info: &RequestInfo, body: &Bytes) {
        if let Some(pending) = &mut self.0
            && info.resource_request
            && !body.is_empty()
        {
            pending.take_body(headers, info, body);
        }
    }

    /// The headers of the answer.
    pub fn answers(&mut self, code: u16) {
        if let Some(pending) = &mut self.0 {
            pending.event.answer_code(code);
        }
    }

    /// The answer is a Status.
    pub fn refused(&mut self, status: &Status) {
        if let Some(pending) = &mut self.0 {
            pending.event.answer_status(status);
        }
    }

    /// The body of the answer; none if it was too large to be kept.
    pub fn answer_body(&mut self, headers: &HeaderMap, body: Option<&Bytes>) {
        let Some(pending) = &mut self.0 else { return };
        match body {
            Some(body) => pending.event.response_object = pending.object(headers, body),
            None => pending.annotations.add(event::TRUNCATED, "true"),
        }
    }

    /// The answer has begun.
    pub async fn started(&mut self) {
        if let Some(pending) = &mut self.0 {
            // The failure was counted and told; the request was accepted already.
            let _ = pending.tell(Stage::ResponseStarted).await;
        }
    }

    /// The last event.
    pub async fn end(mut self, stage: Stage) {
        if let Some(mut pending) = self.0.take() {
            let _ = pending.tell(stage).await;
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let (Some(mut pending), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { pending.tell(Stage::ResponseComplete).await });
        }
    }
}

// === impl Pending ===

impl Pending {
    async fn tell(&mut self, stage: Stage) -> Result<(), String> {
        if self.verdict.omit_stages.contains(&stage) {
            return Ok(());
        }
        self.event.reach(stage);
        self.event.annotations.clone_from(&self.annotations.0.lock());
        self.audit.write(&self.event).await
    }

    fn take_body(&mut self, headers: &HeaderMap, info: &RequestInfo, body: &Bytes) {
        let names_object = matches!(info.verb.as_str(), "create" | "update");
        if self.verdict.level >= Level::Request || names_object && body.starts_with(b"k8s\0") {
            let object = self.object(headers, body);
            if let (Some(object), Some(target), true) = (&object, &mut self.event.object_ref, names_object) {
                complete(target, Named::deserialize(object).unwrap_or_default().metadata);
            }
            self.event.request_object = object.filter(|_| self.verdict.level >= Level::Request);
        } else if let (Some(target), true) = (&mut self.event.object_ref, names_object) {
            complete(target, serde_json::from_slice::<Named>(body).unwrap_or_default().metadata);
        }
    }

    /// A body as JSON; none if it is none that events can show.
    fn object(&self, headers: &HeaderMap, body: &Bytes) -> Option<Value> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
        let mut object = if body.starts_with(b"k8s\0") {
            protobuf::decode(body).ok()?
        } else if content_type.contains("yaml") {
            schema::parse_yaml(body).ok()?
        } else if content_type.contains("json") {
            schema::parse_json(body).ok()?
        } else {
            return None;
        };
        if self.verdict.omit_managed_fields {
            drop_managed_fields(&mut object);
        }
        Some(object)
    }
}

/// Fills in what the path does not say.
fn complete(target: &mut ObjectRef, named: NamedMetadata) {
    for (known, given) in [
        (&mut target.name, named.name),
        (&mut target.namespace, named.namespace),
        (&mut target.uid, named.uid),
        (&mut target.resource_version, named.resource_version),
    ] {
        if known.is_empty() {
            *known = given;
        }
    }
}
