//! Whether a user who holds some rules may grant others: the check behind the prevention of privilege escalation.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>.

use std::collections::BTreeMap;

use super::rule::{PolicyRule, quoted};
use crate::user::UserInfo;

/// The part of `wanted` that `held` does not cover, compacted: one rule per group, resource and name.
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut lacking: BTreeMap<PolicyRule, Vec<String>> = BTreeMap::new();
    for single in wanted.iter().flat_map(break_down) {
        if !held.iter().any(|rule| covers(rule, &single)) {
            let mut key = single;
            let verbs = std::mem::take(&mut key.verbs);
            let entry = lacking.entry(key).or_default();
            for verb in verbs {
                if !entry.contains(&verb) {
                    entry.push(verb);
                }
            }
        }
    }
    lacking.into_iter().map(|(rule, verbs)| PolicyRule { verbs, ..rule }).collect()
}

/// Upstream's text of an attempted escalation.
pub fn escalation_message(user: &UserInfo, lacking: &[PolicyRule], unresolved: &[String]) -> String {
    let mut lines: Vec<_> = lacking.iter().map(PolicyRule::to_string).collect();
    lines.sort();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        lines.join("\n")
    );
    if !unresolved.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", unresolved.join(", ")));
    }
    message
}

/// Splits a rule into rules of one verb and one group, resource, name (or one URL) each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut singles = Vec::new();
    let one = |text: &String| vec![text.clone()];
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let base = PolicyRule { api_groups: one(group), resources: one(resource), verbs: one(verb), ..PolicyRule::default() };
                if rule.resource_names.is_empty() {
                    singles.push(base.clone());
                }
                for name in &rule.resource_names {
                    singles.push(PolicyRule { resource_names: one(name), ..base.clone() });
                }
            }
        }
        for url in &rule.non_resource_urls {
            singles.push(PolicyRule { non_resource_urls: one(url), verbs: one(verb), ..PolicyRule::default() });
        }
    }
    singles
}

/// Whether one held rule covers one broken-down rule. A wanted `*` is covered by a held `*` only.
fn covers(held: &PolicyRule, single: &PolicyRule) -> bool {
    let all = |held: &[String], wanted: &[String]| held.iter().any(|entry| entry == "*") || wanted.iter().all(|entry| held.contains(entry));
    let verbs = all(&held.verbs, &single.verbs);
    if let Some(url) = single.non_resource_urls.first() {
        let urls = held
            .non_resource_urls
            .iter()
            .any(|entry| entry == "*" || entry == url || (entry.ends_with('*') && url.starts_with(entry.trim_end_matches('*'))));
        return verbs && urls;
    }
    let resources = single.resources.iter().all(|wanted| {
        held.resources.iter().any(|entry| {
            entry == "*"
                || entry == wanted
                || wanted.split_once('/').is_some_and(|(_, subresource)| entry.strip_prefix("*/") == Some(subresource))
        })
    });
    // Names have no wildcard: a rule for the name `*` is one for an object of that name.
    let named = !single.resource_names.is_empty() && single.resource_names.iter().all(|name| held.resource_names.contains(name));
    let names = held.resource_names.is_empty() || named;
    verbs && all(&held.api_groups, &single.api_groups) && resources && names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_20_names_have_no_wildcard() {
        let rule = |names: &[&str]| PolicyRule {
            api_groups: vec![String::new()],
            resources: vec!["secrets".to_owned()],
            verbs: vec!["get".to_owned()],
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..PolicyRule::default()
        };
        assert_eq!(missing(&[rule(&["*"])], &[rule(&["db"])]), [rule(&["db"])]);
        assert_eq!(missing(&[rule(&["*"])], &[rule(&[])]), [rule(&[])]);
        assert!(missing(&[rule(&["db", "x"])], &[rule(&["db"])]).is_empty());
        assert!(missing(&[rule(&[])], &[rule(&["db"])]).is_empty());
    }
}
