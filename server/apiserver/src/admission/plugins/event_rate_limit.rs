//! EventRateLimit: how many Events a second the server takes, in all, of a namespace, of a user, and of a source about an object.
//!
//! The limits come from the section of the configuration file; without one the server does not start. Events of the group
//! `events.k8s.io` are not limited, as upstream. Each server counts for itself. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#eventratelimit>.

mod buckets;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use trireme_api::field::{FieldError, FieldErrors, FieldPath, aggregate};
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::configuration;
use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use buckets::{Buckets, Rate};

const NAME: &str = "EventRateLimit";
const API_VERSION: &str = "eventratelimit.admission.k8s.io/v1alpha1";
const CACHE_SIZE: usize = 4096;
const TYPES: [&str; 4] = ["Namespace", "Server", "SourceAndObject", "User"];

/// The plugin.
pub struct EventRateLimit {
    limits: Vec<Limit>,
}

struct Limit {
    kind: String,
    buckets: Mutex<Buckets>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    limits: Vec<LimitSection>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LimitSection {
    #[serde(rename = "type")]
    kind: String,
    qps: i32,
    burst: i32,
    cache_size: i32,
}

impl EventRateLimit {
    /// Made from `environment`.
    ///
    /// # Errors
    /// What is wrong with the section of the configuration.
    pub fn new(environment: &Environment) -> Result<EventRateLimit, String> {
        let section = match environment.configuration.section(NAME) {
            Some(section) => configuration::typed::<Section>(section, API_VERSION, "Configuration")?,
            None => Section::default(),
        };
        match aggregate(&section.errors()) {
            Some(why) => Err(why),
            None => Ok(EventRateLimit { limits: section.limits.into_iter().map(Limit::new).collect() }),
        }
    }

    fn judge(&self, request: &AdmissionRequest, now: Instant) -> Answer<()> {
        // Every limit counts the request, also one that another limit refuses.
        let refusals: Vec<String> = self.limits.iter().filter_map(|limit| limit.refusal(request, now)).collect();
        match aggregate(&refusals) {
            Some(text) => Err(Status::failure(429, "TooManyRequests", format!("Too many requests: {text}")).into()),
            None => Ok(()),
        }
    }
}

impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let kind = &request.requested_kind;
        matches!(request.operation, Operation::Create | Operation::Update)
            && !request.dry_run
            && kind.group.is_empty()
            && kind.kind == "Event"
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(std::future::ready(self.judge(request, Instant::now())))
    }
}

// === impl Limit ===

impl Limit {
    fn new(section: LimitSection) -> Limit {
        let size = match usize::try_from(section.cache_size).unwrap_or_default() {
            _ if section.kind == "Server" => 1,
            0 => CACHE_SIZE,
            size => size,
        };
        let rate = Rate { per_sec: f64::from(section.qps), burst: f64::from(section.burst) };
        Limit { kind: section.kind, buckets: Mutex::new(Buckets::new(rate, size)) }
    }

    fn refusal(&self, request: &AdmissionRequest, now: Instant) -> Option<String> {
        let key = match self.kind.as_str() {
            "Namespace" => request.namespace.clone(),
            "User" => request.user.name.clone(),
            "SourceAndObject" => request.object().map(source_and_object).unwrap_or_default(),
            _ => String::new(),
        };
        let taken = self.buckets.lock().take(&key, now);
        (!taken).then(|| format!("limit reached on type {} for key {key}", self.kind))
    }
}

fn source_and_object(event: &Value) -> String {
    let source = ["component", "host"].map(|field| meta::str_at(event, &["source", field]));
    let object = ["kind", "namespace", "name", "uid", "apiVersion"].map(|field| meta::str_at(event, &["involvedObject", field]));
    source.concat() + &object.concat()
}

// === impl Section ===

impl Section {
    fn errors(&self) -> FieldErrors {
        let limits = FieldPath::new("limits");
        let mut errors = FieldErrors::new();
        if self.limits.is_empty() {
            errors.push(FieldError::invalid(&limits, Value::Array(Vec::new()), "must not be empty"));
        }
        for (at, limit) in self.limits.iter().enumerate() {
            let path = limits.index(at);
            if !TYPES.contains(&limit.kind.as_str()) {
                errors.push(FieldError::not_supported(&path.child("type"), limit.kind.as_str(), &TYPES));
            }
            for (field, number) in [("burst", limit.burst), ("qps", limit.qps)] {
                if number <= 0 {
                    errors.push(FieldError::invalid(&path.child(field), number, "must be positive"));
                }
            }
            if limit.kind != "Server" && limit.cache_size < 0 {
                errors.push(FieldError::invalid(&path.child("cacheSize"), limit.cache_size, "must not be negative"));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;
    use trireme_api::gvk::{GroupVersionKind, GroupVersionResource};

    use super::*;
    use crate::admission::configuration::Configuration;
    use crate::admission::tests::world;
    use crate::user::UserInfo;

    fn plugin(limits: Value) -> Result<EventRateLimit, String> {
        let section = json!({"apiVersion": API_VERSION, "kind": "Configuration", "limits": limits});
        EventRateLimit::new(&Environment { configuration: Arc::new(Configuration::of(NAME, section)), ..world().environment })
    }

    fn event(namespace: &str, user: &str, object: &str) -> AdmissionRequest {
        let (kind, resource) = (GroupVersionKind::new("", "v1", "Event"), GroupVersionResource::new("", "v1", "events"));
        let mut request = AdmissionRequest::new(Operation::Create, kind, resource, UserInfo::new(user, &[]));
        namespace.clone_into(&mut request.namespace);
        request.set_object(json!({"source": {"component": "c", "host": "h"}, "involvedObject": {"kind": "Pod", "name": object}}));
        request
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_has_its_keys() {
        let start = Instant::now();
        let second = |number: u64| start + Duration::from_secs(number);
        let of = |kind: &str| plugin(json!([{"type": kind, "qps": 1, "burst": 2, "cacheSize": 10}])).unwrap();
        let (one, other) = (event("a", "ann", "p"), event("b", "bob", "q"));
        for (kind, key) in [("Server", ""), ("Namespace", "a"), ("User", "ann"), ("SourceAndObject", "chPodp")] {
            let plugin = of(kind);
            let text = format!("Too many requests: limit reached on type {kind} for key {key}");
            assert!(plugin.judge(&one, start).is_ok() && plugin.judge(&one, start).is_ok(), "{kind}");
            let status = plugin.judge(&one, start).unwrap_err();
            assert_eq!((status.code(), status.reason.as_str(), status.message), (429, "TooManyRequests", text), "{kind}");
            assert_eq!(plugin.judge(&other, start).is_ok(), kind != "Server", "{kind}");
            assert!(plugin.judge(&one, second(1)).is_ok() && plugin.judge(&one, second(1)).is_err(), "{kind}: one a second");
        }
        let both = plugin(json!([{"type": "Server", "qps": 1, "burst": 1}, {"type": "User", "qps": 1, "burst": 1}])).unwrap();
        assert!(both.judge(&one, start).is_ok());
        let message = "Too many requests: [limit reached on type Server for key , limit reached on type User for key ann]";
        assert_eq!(both.judge(&one, start).unwrap_err().message, message);

        let (mut dry, mut newer) = (one.clone(), one);
        dry.dry_run = true;
        newer.requested_kind = GroupVersionKind::new("events.k8s.io", "v1", "Event");
        assert!(both.handles(&other) && !both.handles(&dry) && !both.handles(&newer));
    }

    #[test]
    fn a_wrong_section_is_refused() {
        for (limits, message) in [
            (json!([]), "limits: Invalid value: []: must not be empty"),
            (json!([{"type": "Server", "qps": 0, "burst": 1}]), "limits[0].qps: Invalid value: 0: must be positive"),
            (json!([{"type": "User", "qps": 1, "burst": -1}]), "limits[0].burst: Invalid value: -1: must be positive"),
            (
                json!([{"type": "User", "qps": 1, "burst": 1, "cacheSize": -1}]),
                "limits[0].cacheSize: Invalid value: -1: must not be negative",
            ),
            (
                json!([{"type": "Node", "qps": 1, "burst": 1}]),
                "limits[0].type: Unsupported value: \"Node\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\"",
            ),
        ] {
            assert_eq!(plugin(limits).err().unwrap(), message);
        }
        assert!(plugin(json!([{"type": "Server", "qps": 1, "burst": 1, "size": 3}])).is_err());
        assert!(EventRateLimit::new(&world().environment).is_err(), "without limits there is nothing to enforce");
    }
}
