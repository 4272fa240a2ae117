//! Which names a definition is granted, and what its conditions say about it.
//!
//! Within a group, plural, singular and short names are unique, and so are kinds: the first definition that asks for a name keeps it. One
//! writer computes this for all definitions, in one order, so two of them are never granted the same name.
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/status/naming_controller.go`, `establish` and `apiapproval`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::time::{self, Timestamp};

/// The names of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    /// In URLs.
    pub plural: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub singular: String,
    /// Abbreviations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    /// The kind.
    pub kind: String,
    /// The kind of a list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub list_kind: String,
    /// Groups of resources that it belongs to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// A condition of a definition. Fields that are not known here stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// `NamesAccepted`, `Established`, `Terminating`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// Why, in a word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Fields that this type does not know.
    #[serde(flatten)]
    pub other: serde_json::Map<String, Value>,
}

/// What a definition asks for and has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// The names that it asks for.
    pub wanted: Names,
    /// The names that it was granted.
    pub accepted: Names,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// The `KubernetesAPIApprovalPolicyConformant` condition, if its group is one of the community's.
    pub approval: Option<Condition>,
}

/// The change of a definition's status that its names ask for; None if there is none. `group` are the names granted to all definitions
/// of its group.
pub fn settle<'a>(claim: &Claim, group: impl Iterator<Item = &'a Names>, now: Timestamp) -> Option<Value> {
    let (accepted, names) = accept(claim, group);
    let mut conditions = claim.conditions.clone();
    let is_accepted = names.status == "True";
    set(&mut conditions, names, now);
    let established = conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True");
    if !established {
        let state = if is_accepted {
            // Each server serves the resource from the moment at which it sees this.
            condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
        } else {
            condition("Established", "False", "NotAccepted", "not all names are accepted")
        };
        set(&mut conditions, state, now);
    }
    if let Some(approval) = &claim.approval {
        set(&mut conditions, approval.clone(), now);
    }
    if accepted == claim.accepted && conditions == claim.conditions {
        return None;
    }
    Some(json!({"acceptedNames": accepted, "conditions": conditions}))
}

/// A condition without its time.
pub fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Condition::default()
    }
}

/// Puts a condition in the place of the one of its type. Its time changes with its status.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition, now: Timestamp) {
    match conditions.iter_mut().find(|known| known.type_ == new.type_) {
        Some(known) => {
            let same = known.status == new.status && known.last_transition_time.is_some();
            new.last_transition_time = if same { known.last_transition_time.clone() } else { Some(time::format(now)) };
            new.other = std::mem::take(&mut known.other);
            *known = new;
        }
        None => {
            new.last_transition_time = Some(time::format(now));
            conditions.push(new);
        }
    }
}

fn accept<'a>(claim: &Claim, group: impl Iterator<Item = &'a Names>) -> (Names, Condition) {
    let (mut resources, mut kinds): (BTreeSet<&str>, BTreeSet<&str>) = Default::default();
    for names in group {
        resources.extend([names.plural.as_str(), names.singular.as_str()]);
        resources.extend(names.short_names.iter().map(String::as_str));
        kinds.extend([names.kind.as_str(), names.list_kind.as_str()]);
    }
    let (wanted, own) = (&claim.wanted, &claim.accepted);
    let mut accepted = own.clone();
    let mut refused: Option<(&str, String)> = None;
    let free = |name: &str, own: &str, taken: &BTreeSet<&str>| {
        if name == own || !taken.contains(name) { Ok(()) } else { Err(format!("{} is already in use", crate::field::quote(name))) }
    };
    match free(&wanted.plural, &own.plural, &resources) {
        Ok(()) => accepted.plural.clone_from(&wanted.plural),
        Err(error) => refused = Some(("PluralConflict", error)),
    }
    match free(&wanted.singular, &own.singular, &resources) {
        Ok(()) => accepted.singular.clone_from(&wanted.singular),
        Err(error) => refused = Some(("SingularConflict", error)),
    }
    let mine = |name: &String| own.short_names.contains(name) || *name == own.plural || *name == own.singular;
    let taken: Vec<String> =
        wanted.short_names.iter().filter(|name| !mine(name)).filter_map(|name| free(name, "", &resources).err()).collect();
    match crate::field::aggregate(&taken) {
        None => accepted.short_names.clone_from(&wanted.short_names),
        Some(error) => refused = Some(("ShortNamesConflict", error)),
    }
    match free(&wanted.kind, &own.kind, &kinds) {
        Ok(()) => accepted.kind.clone_from(&wanted.kind),
        Err(error) => refused = Some(("KindConflict", error)),
    }
    match free(&wanted.list_kind, &own.list_kind, &kinds) {
        Ok(()) => accepted.list_kind.clone_from(&wanted.list_kind),
        Err(error) => refused = Some(("ListKindConflict", error)),
    }
    accepted.categories.clone_from(&wanted.categories);
    let names = match refused {
        None => condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => condition("NamesAccepted", "False", reason, &message),
    };
    (accepted, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        time::parse("2024-01-01T00:00:00Z").unwrap()
    }

    fn names(plural: &str, kind: &str, short: &[&str]) -> Names {
        Names {
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            short_names: short.iter().map(|name| (*name).to_owned()).collect(),
            categories: Vec::new(),
        }
    }

    #[test]
    fn names_that_are_free_are_granted_and_the_resource_is_established() {
        let claim = Claim { wanted: names("foos", "Foo", &["fo"]), ..Claim::default() };
        let patch = settle(&claim, std::iter::empty(), now()).unwrap();
        assert_eq!(
            patch["acceptedNames"],
            json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": ["fo"]})
        );
        let states: Vec<_> = patch["conditions"].as_array().unwrap().iter().map(|c| (c["type"].clone(), c["status"].clone())).collect();
        assert_eq!(states, [(json!("NamesAccepted"), json!("True")), (json!("Established"), json!("True"))]);
        let settled = Claim {
            accepted: serde_json::from_value(patch["acceptedNames"].clone()).unwrap(),
            conditions: serde_json::from_value(patch["conditions"].clone()).unwrap(),
            wanted: claim.wanted,
            approval: None,
        };
        assert_eq!(settle(&settled, [settled.accepted.clone()].iter(), now()), None, "nothing is left to do");
    }

    #[test]
    fn the_approval_follows_its_annotation() {
        let approval = |annotation: &str| crate::custom::approval::condition("x.k8s.io", annotation);
        let mut claim = Claim { wanted: names("foos", "Foo", &[]), approval: approval("unapproved"), ..Claim::default() };
        let patch = settle(&claim, std::iter::empty(), now()).unwrap();
        assert_eq!(
            (&patch["conditions"][2]["status"], &patch["conditions"][2]["reason"]),
            (&json!("False"), &json!("UnapprovedAnnotation"))
        );
        claim.accepted = serde_json::from_value(patch["acceptedNames"].clone()).unwrap();
        claim.conditions = serde_json::from_value(patch["conditions"].clone()).unwrap();
        assert_eq!(settle(&claim, std::iter::empty(), now()), None);
        claim.approval = approval("https://example.com/approved");
        let patch = settle(&claim, std::iter::empty(), now()).unwrap();
        assert_eq!((&patch["conditions"][2]["status"], &patch["conditions"][2]["reason"]), (&json!("True"), &json!("ApprovedAnnotation")));
    }

    #[test]
    fn names_that_are_taken_are_not_granted_twice() {
        let first = names("foos", "Foo", &["fo"]);
        let claim = Claim { wanted: names("bars", "Bar", &["fo", "foo", "b"]), ..Claim::default() };
        let patch = settle(&claim, [first.clone()].iter(), now()).unwrap();
        let condition = &patch["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("ShortNamesConflict")));
        assert_eq!(condition["message"], r#"["fo" is already in use, "foo" is already in use]"#);
        assert_eq!(patch["acceptedNames"]["plural"], "bars", "what is free is granted");
        assert_eq!(patch["conditions"][1]["reason"], "NotAccepted");
        let claim = Claim { wanted: names("foos2", "Foo", &[]), ..Claim::default() };
        assert_eq!(settle(&claim, [first].iter(), now()).unwrap()["conditions"][0]["reason"], "ListKindConflict");
    }
}
