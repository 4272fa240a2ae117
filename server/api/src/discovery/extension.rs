//! Groups and versions that extension servers answer, in the discovery documents of the server that passes requests on.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::group_version;

/// A group with versions of extension servers.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtensionGroup {
    /// The group.
    pub name: String,
    /// The versions, preferred ones first.
    pub versions: Vec<ExtensionVersion>,
}

/// A version of an extension server.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtensionVersion {
    /// The version.
    pub version: String,
    /// Its APIResourceList, if the server has ever answered.
    pub resources: Option<Arc<Value>>,
    /// Whether the server answers now.
    pub is_current: bool,
}

/// Adds groups to `/apis` in the plain form.
pub fn add_to_list(document: &mut Value, groups: &[ExtensionGroup]) {
    for group in groups {
        let versions = group.plain_versions();
        merge(
            document,
            "groups",
            &["name"],
            group,
            versions,
            |versions| json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions}),
        );
    }
}

/// Adds groups to `/apis` in the aggregated form.
pub fn add_to_aggregated(document: &mut Value, groups: &[ExtensionGroup]) {
    for group in groups {
        let versions = group.versions.iter().map(|version| version.aggregated(&group.name)).collect();
        merge(
            document,
            "items",
            &["metadata", "name"],
            group,
            versions,
            |versions| json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions}),
        );
    }
}

/// `/apis/GROUP`. `own` is the document of the versions that this server answers itself. None if no server answers the group.
pub fn group(own: Option<Value>, name: &str, groups: &[ExtensionGroup]) -> Option<Value> {
    let Some(group) = groups.iter().find(|group| group.name == name) else { return own };
    let mut versions = group.plain_versions();
    let mut document = own.unwrap_or_else(
        || json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "preferredVersion": versions.first(), "versions": []}),
    );
    if let Some(listed) = document["versions"].as_array_mut() {
        listed.append(&mut versions);
    }
    Some(document)
}

/// Adds versions to the entry of the group, or an entry at the end.
fn merge(
    document: &mut Value,
    list: &str,
    name_at: &[&str],
    group: &ExtensionGroup,
    mut versions: Vec<Value>,
    entry: impl FnOnce(&[Value]) -> Value,
) {
    let Some(entries) = document[list].as_array_mut() else { return };
    let is_its = |one: &&mut Value| name_at.iter().try_fold(&**one, |value, key| value.get(key)) == Some(&json!(group.name));
    match entries.iter_mut().find(is_its).and_then(|one| one["versions"].as_array_mut()) {
        Some(listed) => listed.append(&mut versions),
        None => entries.push(entry(&versions)),
    }
}

// === impl ExtensionGroup ===

impl ExtensionGroup {
    fn plain_versions(&self) -> Vec<Value> {
        let of = |one: &ExtensionVersion| json!({"groupVersion": group_version(&self.name, &one.version), "version": one.version});
        self.versions.iter().map(of).collect()
    }
}

// === impl ExtensionVersion ===

impl ExtensionVersion {
    fn aggregated(&self, group: &str) -> Value {
        let list = self.resources.as_ref().and_then(|list| list["resources"].as_array());
        let all = list.map(Vec::as_slice).unwrap_or_default();
        let name = |one: &Value| one["name"].as_str().unwrap_or_default().to_owned();
        let kind = |one: &Value| {
            let or = |key: &str, default: &str| one[key].as_str().filter(|text| !text.is_empty()).unwrap_or(default).to_owned();
            json!({"group": or("group", group), "version": or("version", &self.version), "kind": one["kind"]})
        };
        let mut resources = Vec::new();
        for one in all.iter().filter(|one| !name(one).contains('/')) {
            let mut out = Map::new();
            out.insert("resource".to_owned(), one["name"].clone());
            out.insert("responseKind".to_owned(), kind(one));
            out.insert("scope".to_owned(), json!(if one["namespaced"] == true { "Namespaced" } else { "Cluster" }));
            out.insert("singularResource".to_owned(), json!(one["singularName"].as_str().unwrap_or_default()));
            for key in ["verbs", "shortNames", "categories"] {
                if let Some(list) = one[key].as_array().filter(|list| key == "verbs" || !list.is_empty()) {
                    out.insert(key.to_owned(), json!(list));
                }
            }
            let prefix = format!("{}/", name(one));
            let subresources: Vec<Value> = all
                .iter()
                .filter_map(|sub| Some((sub["name"].as_str()?.strip_prefix(&prefix)?, sub)))
                .map(|(name, sub)| json!({"subresource": name, "responseKind": kind(sub), "verbs": sub["verbs"]}))
                .collect();
            if !subresources.is_empty() {
                out.insert("subresources".to_owned(), json!(subresources));
            }
            resources.push(Value::Object(out));
        }
        json!({"version": self.version, "resources": resources, "freshness": if self.is_current { "Current" } else { "Stale" }})
    }
}

#[cfg(test)]
mod tests {
    use super::super::{aggregated, api_group, api_group_list};
    use super::*;
    use crate::resources::builtin;

    fn groups() -> Vec<ExtensionGroup> {
        let list = json!({"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"], "shortNames": ["fl"]},
            {"name": "flunders/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
            {"name": "fischers", "singularName": "", "namespaced": false, "kind": "Fischer", "verbs": ["list"]}]});
        let version = |version: &str, resources| ExtensionVersion { version: version.to_owned(), is_current: true, resources };
        vec![
            ExtensionGroup { name: "wardle.example.com".to_owned(), versions: vec![version("v1alpha1", Some(Arc::new(list)))] },
            ExtensionGroup {
                name: "autoscaling".to_owned(),
                versions: vec![ExtensionVersion { is_current: false, ..version("v9", None) }],
            },
        ]
    }

    #[test]
    fn plain_documents_name_the_group() {
        let mut document = api_group_list(builtin());
        add_to_list(&mut document, &groups());
        let own = json!({"groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1"});
        let wanted = json!({"name": "wardle.example.com", "preferredVersion": own, "versions": [own]});
        assert_eq!(document["groups"].as_array().and_then(|groups| groups.last()), Some(&wanted));
        let found = group(None, "wardle.example.com", &groups()).expect("an extension has it");
        assert_eq!((&found["kind"], &found["versions"]), (&json!("APIGroup"), &json!([own])));
        assert_eq!(group(None, "other.example.com", &groups()), None);
        let shared = group(api_group(builtin(), "autoscaling"), "autoscaling", &groups()).expect("it is built in");
        assert_eq!(shared["preferredVersion"]["version"], "v2", "what the server itself has is preferred");
        assert_eq!(
            shared["versions"].as_array().and_then(|versions| versions.last()),
            Some(&json!({"groupVersion": "autoscaling/v9", "version": "v9"}))
        );
    }

    #[test]
    fn the_aggregated_document_has_the_resources() {
        let mut document = aggregated(builtin(), false);
        add_to_aggregated(&mut document, &groups());
        let items = document["items"].as_array().cloned().unwrap_or_default();
        let version = &items.last().expect("there are some")["versions"][0];
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        let flunder = kind("wardle.example.com", "v1alpha1", "Flunder");
        assert_eq!(
            version["resources"][0],
            json!({"resource": "flunders", "responseKind": flunder, "scope": "Namespaced", "singularResource": "flunder",
                "verbs": ["get", "list"], "shortNames": ["fl"], "subresources": [
                    {"subresource": "scale", "responseKind": kind("autoscaling", "v1", "Scale"), "verbs": ["get"]},
                    {"subresource": "status", "responseKind": flunder, "verbs": ["update"]}]})
        );
        assert_eq!((&version["resources"][1]["scope"], &version["freshness"]), (&json!("Cluster"), &json!("Current")));
        let autoscaling = items.iter().find(|item| item["metadata"]["name"] == "autoscaling").expect("it is built in");
        let last = autoscaling["versions"].as_array().and_then(|versions| versions.last()).expect("it has versions");
        assert_eq!(*last, json!({"version": "v9", "resources": [], "freshness": "Stale"}));
    }
}
