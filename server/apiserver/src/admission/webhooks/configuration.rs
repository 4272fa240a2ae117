//! The webhooks of all configurations of one kind, parsed once for each change of them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use trireme_api::meta;

use crate::admission::match_conditions::MatchConditions;
use crate::admission::request::AdmissionRequest;
use crate::admission::rules::{self, Rule, Selectors};
use crate::authz::Authorizer;
use crate::egress::webhooks::ClientConfig;
use crate::storage::lookup::ObjectReader;

const GROUP: &str = "admissionregistration.k8s.io";
/// Upstream's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// One webhook.
#[derive(Debug)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// Tells webhooks of the same name in several configurations apart.
    pub uid: String,
    /// Where it is.
    pub client: Result<ClientConfig, String>,
    /// Whether a request goes on when it cannot be asked.
    pub ignores_failure: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// The version of the review that it gets.
    pub review_version: &'static str,
    /// Whether it is asked again when others change the object after it.
    pub reinvoke_if_needed: bool,
    exact: bool,
    rules: Vec<Rule>,
    selectors: Result<Selectors, String>,
    conditions: Result<MatchConditions, String>,
}

/// The webhooks of one kind of configuration, as of the last change.
pub struct Configurations {
    plural: &'static str,
    reader: Arc<dyn ObjectReader>,
    parsed: Mutex<(i64, Arc<Vec<Arc<Webhook>>>)>,
}

// === impl Configurations ===

impl Configurations {
    /// Follows the objects of `plural`.
    pub fn new(plural: &'static str, reader: Arc<dyn ObjectReader>) -> Configurations {
        Configurations { plural, reader, parsed: Mutex::new((-1, Arc::default())) }
    }

    /// All webhooks, by name of their configuration, in its order.
    pub fn webhooks(&self) -> Arc<Vec<Arc<Webhook>>> {
        let revision = self.reader.last_change(GROUP, self.plural);
        let mut parsed = self.parsed.lock();
        if parsed.0 != revision {
            let mut configurations = self.reader.list(GROUP, self.plural, None);
            configurations.sort_by(|a, b| meta::name(&a.object).cmp(meta::name(&b.object)));
            let webhooks = configurations.iter().flat_map(|found| of_configuration(&found.object)).map(Arc::new).collect();
            *parsed = (revision, Arc::new(webhooks));
        }
        parsed.1.clone()
    }
}

fn of_configuration(configuration: &Value) -> Vec<Webhook> {
    let name = meta::name(configuration);
    meta::list_at(configuration, &["webhooks"]).iter().enumerate().map(|(index, hook)| parse(hook, &format!("{name}/{index}"))).collect()
}

fn parse(hook: &Value, uid: &str) -> Webhook {
    let name = meta::str_at(hook, &["name"]);
    let versions = meta::list_at(hook, &["admissionReviewVersions"]);
    Webhook {
        name: name.to_owned(),
        uid: format!("{uid}/{name}"),
        client: ClientConfig::parse(meta::get(hook, &["clientConfig"]).unwrap_or(&Value::Null)),
        ignores_failure: meta::str_at(hook, &["failurePolicy"]) == "Ignore",
        timeout: meta::i64_at(hook, &["timeoutSeconds"])
            .and_then(|secs| u64::try_from(secs).ok())
            .map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        review_version: if versions.iter().find_map(Value::as_str) == Some("v1beta1") { "v1beta1" } else { "v1" },
        reinvoke_if_needed: meta::str_at(hook, &["reinvocationPolicy"]) == "IfNeeded",
        exact: meta::str_at(hook, &["matchPolicy"]) == "Exact",
        rules: meta::list_at(hook, &["rules"]).iter().map(Rule::parse).collect(),
        selectors: Selectors::parse(hook),
        conditions: MatchConditions::compile(&hook["matchConditions"]).map_err(|errors| errors.into_iter().map(|(_, why)| why).collect()),
    }
}

// === impl Webhook ===

impl Webhook {
    /// The version in which it sees the request; `None` if its rules are not about it.
    pub fn version(&self, request: &AdmissionRequest) -> Option<String> {
        rules::matched_version(&self.rules, request, self.exact)
    }

    /// Whether its selectors select the request and its match conditions hold. An error is a failure of the webhook.
    pub async fn selects(&self, reader: &dyn ObjectReader, authorizer: &Authorizer, request: &AdmissionRequest) -> Result<bool, String> {
        let selectors = self.selectors.as_ref().map_err(Clone::clone)?;
        let namespace = match selectors.ask_for_namespace() {
            true => rules::namespace_of(reader, request).await,
            false => None,
        };
        if !selectors.select(request, namespace.as_deref()) {
            return Ok(false);
        }
        let conditions = self.conditions.as_ref().map_err(Clone::clone)?;
        if conditions.is_empty() {
            return Ok(true);
        }
        let version = self.version(request).unwrap_or_else(|| request.resource.version.to_string());
        conditions.matches(request, &version, namespace.as_deref(), authorizer).await
    }
}
