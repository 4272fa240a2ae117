//! PodNodeSelector: the annotation of a namespace says which node selector its pods get, the configuration which ones they may have.
//!
//! The section of the configuration file has the default selector (`clusterDefaultNodeSelector`) and, by namespace, the labels that pods
//! may select. A selector that cannot be read in an annotation refuses pods; one in the configuration ends the start. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podnodeselector>.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::status::Status;
use trireme_api::{meta, names};

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const NAME: &str = "PodNodeSelector";
const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// The plugin.
pub struct PodNodeSelector {
    reader: Arc<dyn ObjectReader>,
    /// For namespaces without the annotation.
    default: Labels,
    /// What pods may select, by namespace; where there is nothing, anything.
    allowed: BTreeMap<String, Labels>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    #[serde(default)]
    pod_node_selector_plugin_config: BTreeMap<String, String>,
}

impl PodNodeSelector {
    /// Made from `environment`.
    ///
    /// # Errors
    /// What is wrong with the section of the configuration.
    pub fn new(environment: &Environment) -> Result<PodNodeSelector, String> {
        let section = match environment.configuration.section(NAME) {
            Some(section) => Section::deserialize(section).map_err(|error| error.to_string())?,
            None => Section::default(),
        };
        let mut allowed = BTreeMap::new();
        for (namespace, selector) in section.pod_node_selector_plugin_config {
            let selector = labels(&selector).map_err(|why| format!("podNodeSelectorPluginConfig.{namespace}: {why}"))?;
            allowed.insert(namespace, selector);
        }
        let default = allowed.remove(DEFAULT).unwrap_or_default();
        Ok(PodNodeSelector { reader: environment.reader.clone(), default, allowed })
    }

    async fn fill_in(&self, request: &mut AdmissionRequest) -> Answer<()> {
        let selector = self.selector(request).await?;
        let conflict = refused(request, "pod node label selector conflicts with its namespace node label selector");
        let Some(pod) = request.object() else { return Ok(()) };
        let own = own_labels(pod);
        if selector.iter().any(|(key, value)| own.get(key).is_some_and(|other| other != value)) {
            return Err(conflict);
        }
        if !selector.is_empty()
            && let Some(spec) = request.object_mut().and_then(|pod| pod.get_mut("spec")).and_then(Value::as_object_mut)
        {
            let merged = selector.into_iter().chain(own).map(|(key, value)| (key, Value::from(value))).collect();
            spec.insert("nodeSelector".to_owned(), Value::Object(merged));
        }
        self.judge(request).await
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        let Some(pod) = request.object() else { return Ok(()) };
        let own = own_labels(pod);
        let selector = self.selector(request).await?;
        if selector.iter().any(|(key, value)| own.get(key).is_some_and(|other| other != value)) {
            return Err(refused(request, "pod node label selector conflicts with its namespace node label selector"));
        }
        let allowed = self.allowed.get(&request.namespace).filter(|allowed| !allowed.is_empty());
        if allowed.is_some_and(|allowed| own.iter().any(|(key, value)| allowed.get(key) != Some(value))) {
            return Err(refused(request, "pod node label selector labels conflict with its namespace whitelist"));
        }
        Ok(())
    }

    /// What the namespace, or else the configuration, gives to pods.
    async fn selector(&self, request: &AdmissionRequest) -> Answer<Labels> {
        let name = request.namespace.as_str();
        let Some(namespace) = find(&*self.reader, "", "namespaces", "", name).await else {
            return Err(Status::internal(format!("namespace {name} does not exist")).into());
        };
        match meta::annotation(&namespace.object, ANNOTATION) {
            // Upstream's answer is a plain error, which has no reason and the code 500.
            Some(text) => labels(text).map_err(|why| Status::failure(500, "", why).into()),
            None => Ok(self.default.clone()),
        }
    }
}

impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit, Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on("", "pods", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.fill_in(request))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request))
    }
}

fn refused(request: &AdmissionRequest, why: &str) -> Box<Status> {
    let name = request.object().map(meta::name).unwrap_or_default();
    Status::forbidden(&request.resource.group_resource(), name, why).into()
}

fn own_labels(pod: &Value) -> Labels {
    let selector = meta::get(pod, &["spec", "nodeSelector"]).and_then(Value::as_object);
    selector.into_iter().flatten().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Reads `key=value,key=value`.
fn labels(selector: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for pair in selector.split(',').filter(|_| !selector.is_empty()) {
        let parts: Vec<&str> = pair.split('=').collect();
        let [key, value] = parts[..] else { return Err(format!("invalid selector: [{}]", parts.join(" "))) };
        let (key, value, path) = (key.trim(), value.trim(), FieldPath::root());
        for (wrong, path, shown) in
            [(names::is_qualified_name(key), path.clone(), key), (names::is_label_value(value), path.key(key), value)]
        {
            if !wrong.is_empty() {
                return Err(FieldError::invalid(&path, shown, wrong.join("; ")).to_string());
            }
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::configuration::Configuration;
    use crate::admission::tests::{pod, world};

    fn plugin(environment: &Environment, section: Value) -> Result<PodNodeSelector, String> {
        let configuration = Arc::new(Configuration::of(NAME, section));
        PodNodeSelector::new(&Environment { configuration, ..environment.clone() })
    }

    #[tokio::test]
    async fn the_namespace_selects_nodes_and_the_configuration_bounds_it() {
        let world = world();
        for (name, annotation) in [("annotated", "pool=a, disk = fast"), ("empty", ""), ("wrong", "pool==a"), ("bounded", "pool=a")] {
            let object = json!({"metadata": {"name": name, "annotations": {ANNOTATION: annotation}}});
            world.reader.put("", "namespaces", object);
        }
        let section = json!({"podNodeSelectorPluginConfig": {DEFAULT: "pool=default", "bounded": "pool=a,disk=slow"}});
        let plugin = plugin(&world.environment, section).unwrap();
        let conflict = "pods is forbidden: pod node label selector conflicts with its namespace node label selector";
        let beyond = "pods is forbidden: pod node label selector labels conflict with its namespace whitelist";
        for (namespace, own, outcome) in [
            ("a", json!({}), Ok(json!({"pool": "default"}))),
            ("a", json!({"disk": "x"}), Ok(json!({"pool": "default", "disk": "x"}))),
            ("a", json!({"pool": "x"}), Err(conflict)),
            ("annotated", json!({}), Ok(json!({"pool": "a", "disk": "fast"}))),
            ("annotated", json!({"pool": "a"}), Ok(json!({"pool": "a", "disk": "fast"}))),
            ("empty", json!({}), Ok(json!({}))),
            ("wrong", json!({}), Err("invalid selector: [pool  a]")),
            ("bounded", json!({"disk": "slow"}), Ok(json!({"pool": "a", "disk": "slow"}))),
            ("bounded", json!({"disk": "fast"}), Err(beyond)),
        ] {
            let mut request = pod(namespace, json!({"containers": [], "nodeSelector": own}));
            let said = plugin.admit(&mut request, &mut Effects::default()).await.map_err(|status| status.message);
            match outcome {
                Ok(selector) => assert_eq!((said, &request.object().unwrap()["spec"]["nodeSelector"]), (Ok(()), &selector), "{namespace}"),
                Err(message) => assert_eq!(said, Err(message.to_owned()), "{namespace}"),
            }
        }
        let unseen = pod("bounded", json!({"nodeSelector": {"disk": "fast"}}));
        assert!(plugin.validate(&unseen, &mut Effects::default()).await.is_err(), "what a webhook selects is judged too");
    }

    #[test]
    fn a_wrong_section_is_refused() {
        let world = world();
        for (section, part) in [
            (json!({"podNodeSelectorPluginConfig": {"a": "x"}}), "podNodeSelectorPluginConfig.a: invalid selector: [x]"),
            (json!({"podNodeSelectorPluginConfig": {"a": "-=x"}}), "podNodeSelectorPluginConfig.a: <nil>: Invalid value: \"-\""),
            (json!({"other": {}}), "unknown field `other`"),
        ] {
            let why = plugin(&world.environment, section).err().unwrap();
            assert!(why.contains(part), "{why}");
        }
    }
}
