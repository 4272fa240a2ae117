//! Bindings of either scope: defaults, validation, cells.

use serde_json::{Value, json};

use crate::default::{Lit::S, Set, each, fill, set, text};
use crate::kinds::text::plain;
use crate::names;
use crate::resource::Cells;
use crate::validate::{At, same};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn default(object: &mut Value) {
    fill(object, &[Set("roleRef", "apiGroup", S(GROUP))]);
    each(object, "subjects[]", &mut |subject| {
        if matches!(text(subject, "kind"), "User" | "Group") {
            set(subject, "apiGroup", S(GROUP));
        }
    });
}

pub(crate) fn binding(object: &At<'_>, namespaced: bool) {
    let reference = object.at("roleRef");
    if reference.at("apiGroup").text() != GROUP {
        reference.at("apiGroup").not_supported(&[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&reference.at("kind").text()) {
        reference.at("kind").not_supported(kinds);
    }
    reference.at("name").must_obey(names::is_path_segment_name);
    object.at("subjects").items().for_each(|one| subject(&one, namespaced));
}

fn subject(subject: &At<'_>, namespaced: bool) {
    let (name, group) = (subject.at("name"), subject.at("apiGroup"));
    if name.text().is_empty() {
        name.required("");
    }
    match subject.at("kind").text() {
        "ServiceAccount" => {
            name.may_obey(names::is_dns1123_subdomain);
            if group.is_full() {
                group.not_supported(&[""]);
            }
            if !namespaced && subject.at("namespace").text().is_empty() {
                subject.at("namespace").required("");
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                group.not_supported(&[GROUP]);
            }
        }
        _ => subject.at("kind").not_supported(&["ServiceAccount", "User", "Group"]),
    }
}

/// A binding's role is what its subjects were given: it never changes under them.
pub(crate) fn binding_update(object: &At<'_>, old: &At<'_>) {
    if !same(object.at("roleRef").value, old.at("roleRef").value) {
        object.at("roleRef").invalid("cannot change roleRef");
    }
}

pub(crate) fn cells(cells: &Cells<'_>) -> Vec<Value> {
    let role = cells.at(&["roleRef"]);
    let subjects = |kind: &str| {
        let names: Vec<String> = cells
            .list(&["subjects"])
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| match (kind, subject["namespace"].as_str()) {
                ("ServiceAccount", Some(namespace)) => format!("{namespace}/{}", plain(&subject["name"])),
                ("ServiceAccount", None) => format!("/{}", plain(&subject["name"])),
                _ => plain(&subject["name"]),
            })
            .collect();
        json!(names.join(", "))
    };
    vec![
        cells.name(),
        json!(format!("{}/{}", plain(&role["kind"]), plain(&role["name"]))),
        cells.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
