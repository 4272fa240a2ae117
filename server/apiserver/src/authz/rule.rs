//! One rule of a Role, and whether it covers a request.
//!
//! Answers to upstream's `rbac/v1` helpers: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#role-and-clusterrole>.

use serde_json::Value;

use crate::attributes::Attributes;

/// One `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRule {
    /// API groups, `*` for all.
    pub api_groups: Vec<String>,
    /// Resources, `name`, `name/subresource`, `*/subresource` or `*`.
    pub resources: Vec<String>,
    /// URL paths; a trailing `*` covers what begins so.
    pub non_resource_urls: Vec<String>,
    /// Names the rule is limited to; empty: all.
    pub resource_names: Vec<String>,
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
}

fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

impl PolicyRule {
    /// Reads a rule from its JSON form; what is missing is empty.
    pub fn from_value(value: &Value) -> PolicyRule {
        let strings = |field: &str| {
            value[field].as_array().map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
        };
        PolicyRule {
            api_groups: strings("apiGroups"),
            resources: strings("resources"),
            non_resource_urls: strings("nonResourceURLs"),
            resource_names: strings("resourceNames"),
            verbs: strings("verbs"),
        }
    }

    /// The rules of a Role or ClusterRole.
    pub fn list(role: &Value) -> Vec<PolicyRule> {
        role["rules"].as_array().map(|rules| rules.iter().map(PolicyRule::from_value).collect()).unwrap_or_default()
    }

    /// Whether this rule allows the request.
    pub fn allows(&self, request: &Attributes) -> bool {
        if !self.allows_verb(&request.verb) {
            return false;
        }
        if request.resource_request {
            self.allows_group(&request.group)
                && self.allows_resource(&request.resource, &request.subresource)
                && self.allows_name(&request.name)
        } else {
            self.allows_url(&request.path)
        }
    }

    /// Whether the verb is among the rule's.
    pub fn allows_verb(&self, verb: &str) -> bool {
        holds(&self.verbs, verb)
    }

    /// Whether the API group is among the rule's.
    pub fn allows_group(&self, group: &str) -> bool {
        holds(&self.api_groups, group)
    }

    /// Whether the resource (with its subresource) is among the rule's.
    pub fn allows_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|entry| {
            if entry == "*" {
                return true;
            }
            match entry.split_once('/') {
                None => subresource.is_empty() && entry == resource,
                Some((entry_resource, entry_subresource)) => {
                    !subresource.is_empty() && entry_subresource == subresource && (entry_resource == "*" || entry_resource == resource)
                }
            }
        })
    }

    /// Whether the name is among the rule's; a rule without names covers all, also "no name".
    pub fn allows_name(&self, name: &str) -> bool {
        self.resource_names.is_empty() || self.resource_names.iter().any(|entry| entry == name)
    }

    /// Whether the path is among the rule's.
    pub fn allows_url(&self, path: &str) -> bool {
        self.non_resource_urls
            .iter()
            .any(|entry| entry == "*" || entry == path || (entry.ends_with('*') && path.starts_with(entry.trim_end_matches('*'))))
    }

    /// The JSON form, as rules reviews show it.
    pub fn to_value(&self) -> Value {
        let mut value = serde_json::Map::new();
        for (field, list) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !list.is_empty() || field == "verbs" {
                value.insert(field.to_owned(), Value::from(list.clone()));
            }
        }
        Value::Object(value)
    }
}

/// The one-line form of upstream's messages: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl std::fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("{")?;
        let mut first = true;
        for (label, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ] {
            if list.is_empty() {
                continue;
            }
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            write!(f, "{label}:{}", quoted(list))?;
        }
        f.write_str("}")
    }
}

/// A list of strings as Go's `%q` prints it: `["a" "b"]`.
pub fn quoted(list: &[String]) -> String {
    let items: Vec<_> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}
