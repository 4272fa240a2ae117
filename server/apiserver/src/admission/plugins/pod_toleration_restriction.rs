//! PodTolerationRestriction: a namespace's annotations say which tolerations its pods get and which they may have.
//!
//! `scheduler.alpha.kubernetes.io/defaultTolerations` and `.../tolerationsWhitelist` are lists in JSON; where a namespace has none, those
//! of the configuration file count. Every pod that requests something tolerates memory pressure. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podtolerationrestriction>.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trireme_api::gvk::GroupResource;
use trireme_api::kinds;
use trireme_api::status::Status;
use trireme_api::{meta, names};

use crate::admission::configuration;
use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::merged_tolerations::{covers, merge};
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const NAME: &str = "PodTolerationRestriction";
const API_VERSION: &str = "podtolerationrestriction.admission.k8s.io/v1alpha1";
const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// The plugin.
pub struct PodTolerationRestriction {
    reader: Arc<dyn ObjectReader>,
    /// For pods of namespaces without the annotation.
    defaults: Vec<Value>,
    /// What pods of namespaces without the annotation may tolerate; nothing: anything.
    allowed: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    default: Vec<Value>,
    whitelist: Vec<Value>,
}

/// A toleration, with empty fields left out.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Toleration {
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    operator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    toleration_seconds: Option<i64>,
}

impl PodTolerationRestriction {
    /// Made from `environment`.
    ///
    /// # Errors
    /// What is wrong with the section of the configuration.
    pub fn new(environment: &Environment) -> Result<PodTolerationRestriction, String> {
        let section = match environment.configuration.section(NAME) {
            Some(section) => configuration::typed::<Section>(section, API_VERSION, "Configuration")?,
            None => Section::default(),
        };
        let checked = |field: &str, list: &[Value]| {
            let list = normalized(list).map_err(|why| format!("{field}: {why}"))?;
            list.iter().enumerate().try_for_each(|(at, one)| check(one).map_err(|why| format!("{field}[{at}]: {why}")))?;
            Ok::<_, String>(list)
        };
        let (defaults, allowed) = (checked("default", &section.default)?, checked("whitelist", &section.whitelist)?);
        Ok(PodTolerationRestriction { reader: environment.reader.clone(), defaults, allowed })
    }

    async fn fill_in(&self, request: &mut AdmissionRequest) -> Answer<()> {
        let mut more = match request.operation {
            Operation::Create => self.annotated(request, DEFAULTS).await?.unwrap_or_else(|| self.defaults.clone()),
            _ => Vec::new(),
        };
        if request.object().is_some_and(|pod| kinds::qos_class(pod) != "BestEffort") {
            more.push(json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}));
        }
        if !more.is_empty()
            && let Some(spec) = request.object_mut().and_then(|pod| pod.get_mut("spec")).and_then(Value::as_object_mut)
        {
            let own = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
            spec.insert("tolerations".to_owned(), Value::from(merge(own, &more)));
        }
        self.judge(request).await
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        let own = request.object().map(|pod| meta::list_at(pod, &["spec", "tolerations"])).unwrap_or_default();
        if own.is_empty() {
            return Ok(());
        }
        let (allowed, scope) = match self.annotated(request, ALLOWED).await? {
            Some(allowed) => (allowed, "namespace"),
            None => (self.allowed.clone(), "cluster"),
        };
        if allowed.is_empty() || own.iter().all(|one| allowed.iter().any(|wide| covers(wide, one))) {
            return Ok(());
        }
        let text = format!("pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist");
        Err(plain(text))
    }

    /// The tolerations in an annotation of the namespace; none where it does not have the annotation.
    async fn annotated(&self, request: &AdmissionRequest, key: &str) -> Answer<Option<Vec<Value>>> {
        let Some(namespace) = find(&*self.reader, "", "namespaces", "", &request.namespace).await else {
            return Err(Status::not_found(&GroupResource::new("", "namespaces"), &request.namespace).into());
        };
        match meta::annotation(&namespace.object, key) {
            None => Ok(None),
            Some("") => Ok(Some(Vec::new())),
            Some(text) => {
                let list: Option<Vec<Value>> = serde_json::from_str(text).map_err(|error| plain(error.to_string()))?;
                normalized(&list.unwrap_or_default()).map(Some).map_err(plain)
            }
        }
    }
}

impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit, Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is_on("", "pods", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.fill_in(request))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request))
    }
}

/// Upstream's answer is a plain error, which has no reason and the code 500.
fn plain(text: String) -> Box<Status> {
    Status::failure(500, "", text).into()
}

/// The tolerations as a pod would have them.
fn normalized(list: &[Value]) -> Result<Vec<Value>, String> {
    let one = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let read: Toleration = serde_json::from_value(toleration)?;
        serde_json::to_value(read)
    };
    list.iter().map(one).collect::<Result<_, serde_json::Error>>().map_err(|error| error.to_string())
}

/// What a toleration of the configuration must be.
fn check(toleration: &Value) -> Result<(), String> {
    let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(|field| meta::str_at(toleration, &[field]));
    let wrong = if key.is_empty() { Vec::new() } else { names::is_qualified_name(key) };
    if !wrong.is_empty() {
        return Err(format!("key: {}", wrong.join("; ")));
    }
    if key.is_empty() && operator != "Exists" {
        return Err("operator must be Exists when `key` is empty, which means \"match all values and all keys\"".to_owned());
    }
    if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
        return Err("effect must be 'NoExecute' when `tolerationSeconds` is set".to_owned());
    }
    if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!("effect: Unsupported value: {effect:?}"));
    }
    match operator {
        "" | "Equal" => match names::is_label_value(value) {
            wrong if wrong.is_empty() => Ok(()),
            wrong => Err(format!("value: {}", wrong.join("; "))),
        },
        "Exists" if value.is_empty() => Ok(()),
        "Exists" => Err("value must be empty when `operator` is 'Exists'".to_owned()),
        other => Err(format!("operator: Unsupported value: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::configuration::Configuration;
    use crate::admission::tests::{pod, world};

    fn plugin(environment: &Environment, mut section: Value) -> Result<PodTolerationRestriction, String> {
        (section["apiVersion"], section["kind"]) = (json!(API_VERSION), json!("Configuration"));
        let configuration = Arc::new(Configuration::of(NAME, section));
        PodTolerationRestriction::new(&Environment { configuration, ..environment.clone() })
    }

    fn exists(key: &str) -> Value {
        json!({"key": key, "operator": "Exists", "effect": "NoSchedule"})
    }

    #[tokio::test]
    async fn defaults_are_given_and_others_refused() {
        let world = world();
        let list = |keys: &[&str]| Value::from(keys.iter().map(|key| exists(key)).collect::<Vec<_>>());
        for (name, defaults, allowed) in [
            ("own", Some(list(&["own"]).to_string()), Some(list(&["own", "node.kubernetes.io/memory-pressure"]).to_string())),
            ("none", Some(String::new()), Some("[]".to_owned())),
            ("wrong", Some("{".to_owned()), None),
        ] {
            let mut namespace = json!({"metadata": {"name": name}});
            for (key, value) in [(DEFAULTS, defaults), (ALLOWED, allowed)] {
                value.iter().for_each(|value| meta::set_annotation(&mut namespace, key, value));
            }
            world.reader.put("", "namespaces", namespace);
        }
        let section = json!({"default": list(&["cluster"]), "whitelist": list(&["cluster", "also"])});
        let plugin = plugin(&world.environment, section).unwrap();
        let containers = |requests: Value| json!([{"name": "c", "resources": {"requests": requests}}]);
        let conflict = |scope: &str| {
            format!("pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist")
        };
        let pressure = "node.kubernetes.io/memory-pressure";
        for (namespace, own, requests, outcome) in [
            ("a", list(&[]), json!({}), Ok(list(&["cluster"]))),
            ("a", list(&["also"]), json!({}), Ok(list(&["also", "cluster"]))),
            ("a", list(&["other"]), json!({}), Err(conflict("cluster"))),
            ("a", list(&[]), json!({"cpu": "1"}), Err(conflict("cluster"))),
            ("own", list(&[]), json!({"cpu": "1"}), Ok(list(&["own", pressure]))),
            ("own", list(&["other"]), json!({}), Err(conflict("namespace"))),
            ("none", list(&["other"]), json!({}), Ok(list(&["other"]))),
        ] {
            let shown = format!("{namespace} {own} {requests}");
            let mut request = pod(namespace, json!({"containers": containers(requests), "tolerations": own}));
            let said = plugin.admit(&mut request, &mut Effects::default()).await.map_err(|status| status.message);
            match outcome {
                Ok(wanted) => assert_eq!((said, &request.object().unwrap()["spec"]["tolerations"]), (Ok(()), &wanted), "{shown}"),
                Err(message) => assert_eq!(said, Err(message), "{shown}"),
            }
        }
        let mut wrong = pod("wrong", json!({"containers": []}));
        assert_eq!(plugin.admit(&mut wrong, &mut Effects::default()).await.unwrap_err().code(), 500);
        wrong.operation = Operation::Update;
        assert!(plugin.admit(&mut wrong, &mut Effects::default()).await.is_ok(), "an update gets no defaults");
    }

    #[test]
    fn a_wrong_section_is_refused() {
        let world = world();
        for (toleration, part) in [
            (json!({"operator": "Equal"}), "default[0]: operator must be Exists when `key` is empty"),
            (json!({"key": "k", "operator": "Exists", "value": "v"}), "value must be empty when `operator` is 'Exists'"),
            (json!({"key": "k", "tolerationSeconds": 3}), "effect must be 'NoExecute'"),
            (json!({"key": "k", "effect": "Never"}), "Unsupported value: \"Never\""),
            (json!({"key": 3}), "invalid type"),
        ] {
            let why = plugin(&world.environment, json!({"default": [toleration]})).err().unwrap();
            assert!(why.contains(part), "{why}");
        }
        assert!(plugin(&world.environment, json!({"defaults": []})).is_err());
    }
}
