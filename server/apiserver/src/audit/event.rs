//! One event: what is recorded of a request at one of its stages.
//!
//! Field for field upstream's `audit.k8s.io/v1.Event`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;
use trireme_api::status::Status;

use crate::audit::policy::{Level, Stage};
use crate::http::request_info::RequestInfo;
use crate::user::UserInfo;

/// An event whose objects would make it larger than this is recorded without them, with the annotation that upstream gives it.
pub const EVENT_BYTES_MAX: usize = 10 << 20;
/// The annotation of such an event.
pub const TRUNCATED: &str = "audit.k8s.io/truncated";

/// An event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    /// The object that is addressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<ResponseStatus>,
    /// The body of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Value>,
    /// The body of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    /// Facts that filters and admission plugins add.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is addressed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its uid, where the request gives it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    /// Its resource version, where the request gives it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

#[derive(Clone, Debug, Serialize)]
struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Serialize)]
struct ResponseStatus {
    metadata: Empty,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    code: u16,
}

#[derive(Clone, Debug, Serialize)]
struct Empty {}

/// Where a request comes from, as its sender and the connection say.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Addresses, the client's first.
    pub source_ips: Vec<String>,
    /// The header.
    pub user_agent: String,
}

// === impl Event ===

impl Event {
    /// The event of a request that has just been received.
    pub fn received(level: Level, audit_id: String, uri: String, user: &UserInfo, info: &RequestInfo, origin: Origin) -> Event {
        let now = micro_time(Timestamp::now());
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: level.as_str(),
            audit_id,
            stage: Stage::RequestReceived.as_str(),
            request_uri: uri,
            verb: info.verb.clone(),
            user: User::of(user),
            impersonated_user: None,
            source_ips: origin.source_ips,
            user_agent: origin.user_agent,
            object_ref: info.resource_request.then(|| ObjectRef::of(info)),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: now.clone(),
            stage_timestamp: now,
            annotations: BTreeMap::new(),
        }
    }

    /// Sets the impersonated user.
    pub fn impersonate(&mut self, user: &UserInfo) {
        self.impersonated_user = Some(User::of(user));
    }

    /// The request has come to another stage.
    pub fn reach(&mut self, stage: Stage) {
        self.stage = stage.as_str();
        self.stage_timestamp = micro_time(Timestamp::now());
    }

    /// The code of the answer.
    pub fn answer_code(&mut self, code: u16) {
        self.response_status = Some(ResponseStatus {
            metadata: Empty {},
            status: String::new(),
            message: String::new(),
            reason: String::new(),
            details: None,
            code,
        });
    }

    /// The answer is a Status.
    pub fn answer_status(&mut self, status: &Status) {
        self.response_status = Some(ResponseStatus {
            metadata: Empty {},
            status: status.status.clone(),
            message: status.message.clone(),
            reason: status.reason.clone(),
            details: status.details.as_ref().and_then(|details| serde_json::to_value(details).ok()),
            code: status.code(),
        });
    }

    /// The event in JSON, without a newline. If that has more than `bytes_max` bytes, its objects are left out.
    pub fn encode(&self, bytes_max: usize) -> Vec<u8> {
        let encoded = serde_json::to_vec(self).unwrap_or_default();
        let has_objects = self.request_object.is_some() || self.response_object.is_some();
        if encoded.len() <= bytes_max || !has_objects {
            return encoded;
        }
        let mut short = Event { request_object: None, response_object: None, ..self.clone() };
        short.annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        serde_json::to_vec(&short).unwrap_or_default()
    }
}

// === impl ObjectRef ===

impl ObjectRef {
    fn of(info: &RequestInfo) -> ObjectRef {
        ObjectRef {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..ObjectRef::default()
        }
    }
}

// === impl User ===

impl User {
    fn of(user: &UserInfo) -> User {
        User { username: user.name.clone(), uid: user.uid.clone(), groups: user.groups.clone(), extra: user.extra.clone() }
    }
}

/// As `metav1.MicroTime` is written.
fn micro_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Removes `managedFields` from an object or from the items of a list.
pub fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
}
