//! The audit policy: which events are recorded, and how much of each request.
//!
//! Answers to <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#audit-policy> and to upstream's
//! `apiserver/pkg/audit/policy`. Unlike there, a policy with unknown fields is refused: a rule that is misspelled would record too little.

use serde::Deserialize;
use trireme_api::schema::parse_yaml;

use crate::http::request_info::RequestInfo;
use crate::user::UserInfo;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// User, time, resource, verb and status.
    Metadata,
    /// The body of the request too.
    Request,
    /// The body of the answer too.
    RequestResponse,
}

/// When an event is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// The request was received and its user is known.
    RequestReceived,
    /// The headers of a long-running answer were sent.
    ResponseStarted,
    /// The answer was sent.
    ResponseComplete,
    /// The request ended in a panic.
    Panic,
}

/// The rules, in order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How much is recorded.
    pub level: Level,
    /// Stages that are not recorded.
    pub omit_stages: Vec<Stage>,
    /// Whether recorded objects lose their `managedFields`.
    pub omit_managed_fields: bool,
}

// === impl Level ===

impl Level {
    /// As events and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

// === impl Stage ===

impl Stage {
    /// As events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Parses a policy in YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(text: &[u8]) -> Result<Policy, String> {
        let value = parse_yaml(text)?;
        let policy: Policy = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("expected a Policy of audit.k8s.io/v1, not a {:?} of {:?}", policy.kind, policy.api_version));
        }
        if policy.rules.is_empty() {
            return Err("it has no rules, so nothing would be recorded".to_owned());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|error| format!("rules[{index}]: {error}"))?;
        }
        Ok(policy)
    }

    /// The first rule that matches decides; without one nothing is recorded.
    pub fn judge(&self, user: &UserInfo, info: &RequestInfo) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, info)) else {
            return Verdict { level: Level::None, omit_stages: Vec::new(), omit_managed_fields: false };
        };
        Verdict {
            level: rule.level,
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

// === impl Rule ===

impl Rule {
    fn check(&self) -> Result<(), String> {
        let is_about_objects = !self.resources.is_empty() || !self.namespaces.is_empty();
        if is_about_objects && !self.non_resource_urls.is_empty() {
            return Err("rules cannot apply to both regular resources and non-resource URLs".to_owned());
        }
        for url in &self.non_resource_urls {
            let inner = url.strip_suffix('*').unwrap_or(url);
            if url != "*" && (!url.starts_with('/') || inner.contains('*')) {
                return Err(format!("nonResourceURLs: {url:?} must be \"*\" or begin with \"/\", with \"*\" only at its end"));
            }
        }
        for group in &self.resources {
            if group.group.contains('/') {
                return Err(format!("resources: the group {:?} must not contain a version", group.group));
            }
            if group.resources.is_empty() && !group.resource_names.is_empty() {
                return Err("resources: resourceNames need at least one resource".to_owned());
            }
        }
        Ok(())
    }

    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|item| item == text);
        if !(self.users.is_empty() || has(&self.users, &user.name))
            || !(self.user_groups.is_empty() || user.groups.iter().any(|group| has(&self.user_groups, group)))
            || !(self.verbs.is_empty() || has(&self.verbs, &info.verb))
        {
            return false;
        }
        if !(self.namespaces.is_empty() && self.resources.is_empty()) {
            return info.resource_request
                && (self.namespaces.is_empty() || has(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|group| group.matches(info)));
        }
        self.non_resource_urls.is_empty()
            || !info.resource_request && self.non_resource_urls.iter().any(|pattern| path_matches(pattern, &info.path))
    }
}

// === impl GroupResources ===

impl GroupResources {
    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        let is_named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        self.resources.is_empty() || is_named && self.resources.iter().any(|pattern| resource_matches(pattern, info))
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/log` or `*`.
fn resource_matches(pattern: &str, info: &RequestInfo) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || info.subresource.is_empty() && pattern == info.resource,
        Some(("*", subresource)) => !info.subresource.is_empty() && subresource == info.subresource,
        Some((resource, "*")) => resource == info.resource,
        Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
metadata: {name: test}
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ['system:kube-proxy'], verbs: [watch], resources: [{group: '', resources: [endpoints, services]}]}
- {level: None, userGroups: ['system:authenticated'], nonResourceURLs: ['/api*', /version]}
- {level: Request, resources: [{group: '', resources: [configmaps], resourceNames: [leader]}], namespaces: [kube-system]}
- {level: Metadata, resources: [{resources: [secrets, configmaps]}], omitManagedFields: false}
- {level: RequestResponse, resources: [{resources: ['pods/*']}, {group: apps}, {group: batch, resources: ['*/status']}], omitStages: [ResponseStarted]}
- {level: Metadata}
";

    fn level(user: &str, verb: &str, path: &str) -> Level {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let method = match verb {
            "create" => Method::POST,
            "update" => Method::PUT,
            _ => Method::GET,
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let info = RequestInfo::parse(&method, path, query).unwrap();
        policy.judge(&UserInfo::new(user, &["system:authenticated"]), &info).level
    }

    #[test]
    fn the_first_matching_rule_decides() {
        assert_eq!(level("system:kube-proxy", "watch", "/api/v1/services?watch=1"), Level::None);
        assert_eq!(level("system:kube-proxy", "list", "/api/v1/services"), Level::Metadata);
        assert_eq!(level("jane", "get", "/apis"), Level::None);
        assert_eq!(level("jane", "get", "/versions"), Level::Metadata);
        assert_eq!(level("jane", "update", "/api/v1/namespaces/kube-system/configmaps/leader"), Level::Request);
        assert_eq!(level("jane", "update", "/api/v1/namespaces/kube-system/configmaps/other"), Level::Metadata);
        assert_eq!(level("jane", "get", "/api/v1/namespaces/a/pods/p/log"), Level::RequestResponse);
        assert_eq!(
            level("jane", "get", "/api/v1/namespaces/a/pods/p"),
            Level::RequestResponse,
            "pods/* are the pods too, as upstream has it"
        );
        assert_eq!(level("jane", "create", "/apis/apps/v1/namespaces/a/deployments"), Level::RequestResponse);
        assert_eq!(level("jane", "update", "/apis/batch/v1/namespaces/a/jobs/j/status"), Level::RequestResponse);
        assert_eq!(level("jane", "update", "/apis/batch/v1/namespaces/a/jobs/j"), Level::Metadata);
    }

    #[test]
    fn stages_and_managed_fields_are_joined() {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let judge = |path| policy.judge(&UserInfo::new("jane", &[]), &RequestInfo::parse(&Method::GET, path, "").unwrap());
        let deployment = judge("/apis/apps/v1/namespaces/a/deployments/d");
        assert_eq!(deployment.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(deployment.omit_managed_fields && !judge("/api/v1/namespaces/a/secrets/s").omit_managed_fields);
    }

    #[test]
    fn a_policy_that_would_not_do_what_it_says_is_refused() {
        let policy = |rules: &str| Policy::parse(format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: {rules}}}").as_bytes());
        for (rules, word) in [
            ("[]", "no rules"),
            ("[{level: All}]", "All"),
            ("[{level: None, user: [a]}]", "user"),
            ("[{level: None, nonResourceURLs: [/a], namespaces: [b]}]", "rules[0]"),
            ("[{level: None, nonResourceURLs: ['/a*b']}]", "/a*b"),
            ("[{level: None, nonResourceURLs: [a]}]", "begin with"),
            ("[{level: None, resources: [{group: apps/v1}]}]", "apps/v1"),
            ("[{level: None, resources: [{resourceNames: [x]}]}]", "resourceNames"),
            ("[{level: None, omitStages: [Never]}]", "Never"),
        ] {
            let error = policy(rules).unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{rules}: {error}");
        }
        assert!(Policy::parse(b"{apiVersion: audit.k8s.io/v1beta1, kind: Policy, rules: [{level: None}]}").is_err());
        assert!(Policy::parse(b"rules: [").is_err());
    }
}
