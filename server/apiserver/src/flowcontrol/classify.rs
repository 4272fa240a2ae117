//! Which FlowSchema a request belongs to.
//!
//! Owns the match of rules, and an index by subject: a request is compared with the schemas that name its user or a group of it, and
//! with no others. Pure. Answers to upstream's `pkg/util/flowcontrol/rule.go`.

use std::collections::HashMap;

use crate::flowcontrol::configuration::{Distinguisher, PathRule, ResourceRule, Rule, SchemaSpec, Subject};
use crate::http::request_info::RequestInfo;
use crate::user::UserInfo;

const ALL: &str = "*";

/// Finds the schema of a request by its position.
#[derive(Debug, Default)]
pub struct Index {
    /// Positions of the schemas that are for everybody; sorted, as all positions are.
    everybody: Vec<u32>,
    users: HashMap<String, Vec<u32>>,
    groups: HashMap<String, Vec<u32>>,
    /// By namespace of the service account.
    service_accounts: HashMap<String, Vec<u32>>,
}

// === impl Index ===

impl Index {
    /// An index of schemas that are sorted by precedence.
    pub fn new(schemas: &[SchemaSpec]) -> Index {
        let mut index = Index::default();
        for (position, schema) in (0_u32..).zip(schemas) {
            for subject in schema.rules.iter().flat_map(|rule| &rule.subjects) {
                let positions = match subject {
                    Subject::User(name) | Subject::Group(name) if name == ALL => &mut index.everybody,
                    Subject::User(name) => index.users.entry(name.clone()).or_default(),
                    Subject::Group(name) => index.groups.entry(name.clone()).or_default(),
                    Subject::ServiceAccount(namespace, _) => index.service_accounts.entry(namespace.clone()).or_default(),
                };
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
            }
        }
        index
    }

    /// The first of `schemas` that matches.
    pub fn find(&self, schemas: &[SchemaSpec], user: &UserInfo, info: &RequestInfo) -> Option<usize> {
        let account = service_account(&user.name);
        let named = self.users.get(&user.name).into_iter().chain(account.and_then(|(namespace, _)| self.service_accounts.get(namespace)));
        let lists = named.chain(user.groups.iter().filter_map(|group| self.groups.get(group))).chain([&self.everybody]);
        let mut best: Option<usize> = None;
        for position in lists.flat_map(|list| list.iter().map(|position| *position as usize)) {
            if best.is_none_or(|found| position < found) && schemas.get(position).is_some_and(|schema| matches(schema, user, account, info))
            {
                best = Some(position);
            }
        }
        best
    }
}

/// Namespace and name of a service account's user.
fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// What tells the flows of a schema apart.
pub fn distinguish<'a>(schema: &SchemaSpec, user: &'a UserInfo, info: &'a RequestInfo) -> &'a str {
    match schema.distinguisher {
        Distinguisher::None => "",
        Distinguisher::User => &user.name,
        Distinguisher::Namespace => &info.namespace,
    }
}

fn matches(schema: &SchemaSpec, user: &UserInfo, account: Option<(&str, &str)>, info: &RequestInfo) -> bool {
    schema.rules.iter().any(|rule| asks(rule, info) && rule.subjects.iter().any(|subject| is(subject, user, account)))
}

fn is(subject: &Subject, user: &UserInfo, account: Option<(&str, &str)>) -> bool {
    match subject {
        Subject::User(name) => name == ALL || *name == user.name,
        Subject::Group(name) => name == ALL || user.in_group(name),
        Subject::ServiceAccount(namespace, name) => account.is_some_and(|(its, own)| its == namespace && (name == ALL || name == own)),
    }
}

fn asks(rule: &Rule, info: &RequestInfo) -> bool {
    match info.resource_request {
        true => rule.resources.iter().any(|rule| asks_for_resource(rule, info)),
        false => rule.paths.iter().any(|rule| asks_for_path(rule, info)),
    }
}

fn asks_for_resource(rule: &ResourceRule, info: &RequestInfo) -> bool {
    let in_scope = match info.namespace.is_empty() {
        true => rule.cluster_scope,
        false => has(&rule.namespaces, &info.namespace),
    };
    in_scope && has(&rule.verbs, &info.verb) && has(&rule.groups, &info.group) && has_resource(&rule.resources, info)
}

fn asks_for_path(rule: &PathRule, info: &RequestInfo) -> bool {
    let is_below = |url: &String| match url.strip_suffix('*') {
        Some(prefix) => info.path.starts_with(prefix),
        None => *url == info.path,
    };
    has(&rule.verbs, &info.verb) && rule.urls.iter().any(is_below)
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == ALL || one == value)
}

fn has_resource(list: &[String], info: &RequestInfo) -> bool {
    list.iter().any(|one| {
        one == ALL
            || match one.split_once('/') {
                Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
                None => *one == info.resource && info.subresource.is_empty(),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flowcontrol::configuration::Configuration;
    use http::Method;
    use serde_json::json;
    use trireme_api::bootstrap;

    fn configuration(more: &[serde_json::Value]) -> Configuration {
        let (schemas, levels) = (bootstrap::flow_schemas(), bootstrap::priority_levels());
        Configuration::of(schemas.iter().chain(more), levels.iter())
    }

    fn find(configuration: &Configuration, name: &str, groups: &[&str], method: Method, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let info = RequestInfo::parse(&method, path, query).unwrap();
        let groups: Vec<&str> = groups.iter().copied().chain(["system:authenticated"]).collect();
        let found = Index::new(&configuration.schemas).find(&configuration.schemas, &UserInfo::new(name, &groups), &info);
        found.map(|at| configuration.schemas[at].name.clone()).unwrap_or_default()
    }

    #[test]
    fn the_default_schemas_classify_as_upstreams() {
        let all = configuration(&[]);
        let account = "system:serviceaccount:kube-system:x";
        let accounts = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
        let (get, put) = (Method::GET, Method::PUT);
        for (name, groups, method, target, expected) in [
            ("admin", &["system:masters"][..], &get, "/api/v1/pods", "exempt"),
            ("alice", &[], &get, "/healthz", "probes"),
            ("alice", &[], &get, "/api/v1/pods", "global-default"),
            ("system:node:n", &["system:nodes"], &put, lease, "system-node-high"),
            ("system:node:n", &["system:nodes"], &put, "/api/v1/nodes/n/status", "system-node-high"),
            ("system:node:n", &["system:nodes"], &get, "/api/v1/pods?watch=1", "system-nodes"),
            ("system:kube-scheduler", &[], &put, lease, "system-leader-election"),
            ("system:kube-scheduler", &[], &Method::DELETE, lease, "kube-scheduler"),
            (account, &accounts, &put, lease, "system-leader-election"),
            (account, &accounts, &get, "/api/v1/pods", "kube-system-service-accounts"),
            ("system:serviceaccount:kube-systemx:x", &accounts[..1], &get, "/api/v1/pods", "service-accounts"),
            ("system:serviceaccount:kube-system", &[], &get, "/api/v1/pods", "global-default"),
        ] {
            assert_eq!(find(&all, name, groups, method.clone(), target), expected, "{name} {target}");
        }
        assert_eq!(
            Index::new(&all.schemas).find(&all.schemas, &UserInfo::new("x", &[]), &RequestInfo::default()),
            None,
            "nobody who is neither known nor unknown"
        );
    }

    #[test]
    fn the_lowest_precedence_counts_and_then_the_name() {
        let schema = |name: &str, precedence: i64, resource: serde_json::Value| {
            json!({"metadata": {"name": name}, "spec": {
                "priorityLevelConfiguration": {"name": "system"}, "matchingPrecedence": precedence,
                "rules": [{"subjects": [{"kind": "User", "user": {"name": "alice"}}], "resourceRules": [resource]}],
            }})
        };
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"], "namespaces": ["a"]});
        let everywhere = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true});
        let all = configuration(&[schema("b", 700, pods.clone()), schema("a", 700, pods), schema("nodes", 600, everywhere)]);
        for (target, expected) in [
            ("/api/v1/namespaces/a/pods/p", "a"),
            ("/api/v1/namespaces/a/pods/p/log", "a"),
            ("/api/v1/namespaces/a/pods/p/exec", "global-default"),
            ("/api/v1/namespaces/b/pods/p", "global-default"),
            ("/api/v1/pods", "nodes"),
        ] {
            assert_eq!(find(&all, "alice", &[], Method::GET, target), expected, "{target}");
        }
        assert_eq!(find(&all, "bob", &[], Method::GET, "/api/v1/namespaces/a/pods/p"), "global-default");
    }

    #[test]
    fn the_index_finds_what_a_search_finds() {
        let all = configuration(&[]);
        for (name, groups) in [("a", vec![]), ("system:node:n", vec!["system:nodes"]), ("system:kube-scheduler", vec!["system:masters"])] {
            let groups: Vec<&str> = groups.into_iter().chain(["system:authenticated"]).collect();
            let user = UserInfo::new(name, &groups);
            for target in ["/api/v1/pods", "/healthz", "/apis/coordination.k8s.io/v1/namespaces/x/leases"] {
                let info = RequestInfo::parse(&Method::GET, target, "").unwrap();
                let searched = all.schemas.iter().position(|schema| matches(schema, &user, None, &info));
                assert_eq!(Index::new(&all.schemas).find(&all.schemas, &user, &info), searched, "{name} {target}");
            }
        }
    }
}
