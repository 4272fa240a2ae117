//! The rules and selectors that decide which requests a webhook or a policy applies to.
//!
//! Answers to upstream's `rules`, `namespace` and `object` predicates (`apiserver/pkg/admission/plugin/webhook/predicates`).

use std::sync::Arc;

use serde_json::Value;
use trireme_api::meta;
use trireme_api::selector::LabelSelector;

use super::find;
use super::request::{AdmissionRequest, Operation};
use crate::storage::lookup::ObjectReader;

/// One rule: operations on resources.
#[derive(Clone, Debug)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: Scope,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Cluster,
    Namespaced,
}

/// Labels of the object and of its namespace.
#[derive(Clone, Debug)]
pub struct Selectors {
    namespace: LabelSelector,
    object: LabelSelector,
}

// === impl Rule ===

impl Rule {
    /// Parses a rule of a webhook, or one with `resourceNames` of a policy.
    pub fn parse(rule: &Value) -> Rule {
        let strings = |field: &str| meta::list_at(rule, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Rule {
            operations: strings("operations"),
            groups: strings("apiGroups"),
            versions: strings("apiVersions"),
            resources: strings("resources"),
            scope: match meta::str_at(rule, &["scope"]) {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::Any,
            },
            names: strings("resourceNames"),
        }
    }

    /// Whether the rule is about the request, were it made in `version`.
    pub fn matches(&self, request: &AdmissionRequest, version: &str) -> bool {
        has(&self.operations, request.operation.as_str())
            && has(&self.groups, &request.resource.group)
            && has(&self.versions, version)
            && self.matches_resource(&request.resource.resource, &request.subresource)
            && self.matches_scope(request)
            && (self.names.is_empty() || self.names.contains(&request.name))
    }

    fn matches_resource(&self, plural: &str, subresource: &str) -> bool {
        self.resources.iter().any(|pattern| {
            let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
            (resource == "*" || resource == plural) && (sub == "*" || sub == subresource)
        })
    }

    fn matches_scope(&self, request: &AdmissionRequest) -> bool {
        // A namespace is cluster-scoped, though requests on it carry its name as the namespace.
        let namespaced = !request.namespace.is_empty() && !is_namespace(request);
        match self.scope {
            Scope::Any => true,
            Scope::Namespaced => namespaced,
            Scope::Cluster => !namespaced,
        }
    }
}

/// The version in which a webhook or a policy with these rules sees the request: the requested one where a rule names it; else, unless
/// `exact`, another one of the same resource.
pub fn matched_version(rules: &[Rule], request: &AdmissionRequest, exact: bool) -> Option<String> {
    let requested = &*request.resource.version;
    let matches = |version: &str| rules.iter().any(|rule| rule.matches(request, version));
    if matches(requested) {
        return Some(requested.to_owned());
    }
    if exact {
        return None;
    }
    request.versions().find(|version| matches(version)).map(str::to_owned)
}

/// Whether no webhook and no policy is asked: they would have to be in order to be mended.
pub fn is_exempt(request: &AdmissionRequest) -> bool {
    request.resource.group == "admissionregistration.k8s.io"
}

fn is_namespace(request: &AdmissionRequest) -> bool {
    request.resource.group.is_empty() && request.resource.resource == "namespaces"
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == "*" || one == value)
}

// === impl Selectors ===

impl Selectors {
    /// Parses `namespaceSelector` and `objectSelector` of `parent`.
    pub fn parse(parent: &Value) -> Result<Selectors, String> {
        let selector = |field: &str| match meta::get(parent, &[field]).filter(|selector| !selector.is_null()) {
            Some(selector) => LabelSelector::from_object(selector).map_err(|error| error.to_string()),
            None => Ok(LabelSelector::everything()),
        };
        Ok(Selectors { namespace: selector("namespaceSelector")?, object: selector("objectSelector")? })
    }

    /// Whether the request is selected; `namespace` is as [`namespace_of`] found it.
    pub fn select(&self, request: &AdmissionRequest, namespace: Option<&Value>) -> bool {
        self.selects_namespace(request, namespace) && self.selects_object(request)
    }

    /// Whether the namespace of the request has to be looked up.
    pub fn ask_for_namespace(&self) -> bool {
        !self.namespace.is_everything()
    }

    fn selects_namespace(&self, request: &AdmissionRequest, namespace: Option<&Value>) -> bool {
        if self.namespace.is_everything() || (request.namespace.is_empty() && !is_namespace(request)) {
            return true;
        }
        namespace.is_some_and(|namespace| self.namespace.matches(meta::labels(namespace)))
    }

    fn selects_object(&self, request: &AdmissionRequest) -> bool {
        let selects = |object: Option<&Value>| object.is_some_and(|object| self.object.matches(meta::labels(object)));
        self.object.is_everything() || selects(request.object()) || selects(request.old_object.as_deref())
    }
}

/// The namespace whose labels count: the object's own where it is a namespace. `None` for cluster-scoped objects, and where it is not there.
pub async fn namespace_of(reader: &dyn ObjectReader, request: &AdmissionRequest) -> Option<Arc<Value>> {
    if is_namespace(request) {
        let own = match request.operation {
            Operation::Create | Operation::Update => request.object().cloned().map(Arc::new),
            Operation::Delete | Operation::Connect => None,
        };
        return own.or_else(|| request.old_object.clone());
    }
    if request.namespace.is_empty() {
        return None;
    }
    find(reader, "", "namespaces", "", &request.namespace).await.map(|found| found.object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_api::gvk::{GroupVersionKind, GroupVersionResource};

    use super::*;
    use crate::user::UserInfo;

    fn request(operation: Operation, group: &'static str, plural: &'static str, subresource: &str, namespace: &str) -> AdmissionRequest {
        let kind = GroupVersionKind::new(group, "v1", "Any");
        let mut request = AdmissionRequest::new(operation, kind, GroupVersionResource::new(group, "v1", plural), UserInfo::default());
        subresource.clone_into(&mut request.subresource);
        namespace.clone_into(&mut request.namespace);
        request
    }

    fn rule(operations: &[&str], groups: &[&str], versions: &[&str], resources: &[&str], scope: &str) -> Rule {
        Rule::parse(
            &json!({"operations": operations, "apiGroups": groups, "apiVersions": versions, "resources": resources, "scope": scope}),
        )
    }

    #[test]
    fn rules_match_as_upstreams_do() {
        let create = request(Operation::Create, "", "pods", "", "ns");
        let connect = request(Operation::Connect, "", "pods", "attach", "ns");
        for (rule, object, subresource) in [
            (rule(&["*"], &["*"], &["*"], &["*"], "*"), true, false),
            (rule(&["*"], &["*"], &["*"], &["*/*"], "*"), true, true),
            (rule(&["*"], &[""], &["v1"], &["pods"], "*"), true, false),
            (rule(&["*"], &[""], &["v1"], &["pods/*"], "*"), true, true),
            (rule(&["*"], &[""], &["v1"], &["pods/attach"], "Namespaced"), false, true),
            (rule(&["*"], &[""], &["v1"], &["*/attach"], "*"), false, true),
            (rule(&["CREATE"], &[""], &["v1"], &["pods/*"], "*"), true, false),
            (rule(&["*"], &["apps"], &["v1"], &["*"], "*"), false, false),
            (rule(&["*"], &[""], &["v2"], &["pods"], "*"), false, false),
            (rule(&["*"], &[""], &["v1"], &["pods", "pods/attach"], "Cluster"), false, false),
        ] {
            assert_eq!((rule.matches(&create, "v1"), rule.matches(&connect, "v1")), (object, subresource), "{rule:?}");
        }
        let namespace = request(Operation::Create, "", "namespaces", "", "ns");
        assert!(rule(&["*"], &[""], &["*"], &["namespaces"], "Cluster").matches(&namespace, "v1"));
        assert!(is_exempt(&request(Operation::Delete, "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "")));
    }

    #[test]
    fn selectors_look_at_the_namespace_and_at_either_object() {
        let selectors = Selectors::parse(&json!({
            "namespaceSelector": {"matchLabels": {"on": "yes"}},
            "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]}
        }))
        .unwrap();
        let (on, off) = (json!({"metadata": {"labels": {"on": "yes"}}}), json!({"metadata": {}}));
        let mut create = request(Operation::Create, "", "pods", "", "ns");
        create.set_object(json!({"metadata": {}}));
        assert!(selectors.select(&create, Some(&on)));
        assert!(!selectors.select(&create, Some(&off)) && !selectors.select(&create, None));
        create.set_object(json!({"metadata": {"labels": {"skip": "me"}}}));
        assert!(!selectors.select(&create, Some(&on)));
        create.old_object = Some(Arc::new(json!({"metadata": {}})));
        assert!(selectors.select(&create, Some(&on)), "the stored object counts too");
        let mut cluster = request(Operation::Create, "storage.k8s.io", "storageclasses", "", "");
        cluster.set_object(json!({"metadata": {}}));
        assert!(selectors.select(&cluster, None), "what is in no namespace is not selected by one");
    }
}
