//! Discovery documents, from rows: `/api`, `/apis`, `/apis/GROUP`, one list per group version, and the aggregated form.
//!
//! Rows come in as an iterator, so that custom resources join by adding theirs; what extension servers answer is added afterwards
//! ([`extension`]). Answers to
//! <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api>.

pub mod extension;

use std::cmp::Ordering;

use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::resources::{Resource, Subresource};

/// Media type parameters of the aggregated form, to compare with an Accept header's.
pub const AGGREGATED_GROUP: &str = "apidiscovery.k8s.io";
/// Version of the aggregated form.
pub const AGGREGATED_VERSION: &str = "v2";
/// Kind of the aggregated form.
pub const AGGREGATED_KIND: &str = "APIGroupDiscoveryList";
/// Content-Type of the aggregated form.
pub const AGGREGATED_CONTENT_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api` in the plain form. `server_address` is `host:port`.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis` in the plain form.
pub fn api_group_list<'a>(rows: impl IntoIterator<Item = &'a Resource>) -> Value {
    let groups: Vec<Value> = groups(rows).iter().filter(|g| !g.name.is_empty()).map(Group::to_json).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; None if no row is in the group.
pub fn api_group<'a>(rows: impl IntoIterator<Item = &'a Resource>, group: &str) -> Option<Value> {
    let groups = groups(rows);
    let Value::Object(mut document) = groups.iter().find(|g| g.name == group)?.to_json() else {
        return None;
    };
    document.insert("kind".to_owned(), "APIGroup".into());
    document.insert("apiVersion".to_owned(), "v1".into());
    Some(Value::Object(document))
}

/// `/api/v1` or `/apis/GROUP/VERSION` in the plain form; None if nothing is served there.
pub fn api_resource_list<'a>(rows: impl IntoIterator<Item = &'a Resource>, group: &str, version: &str) -> Option<Value> {
    let mut resources: Vec<(String, Value)> = Vec::new();
    for row in rows.into_iter().filter(|r| r.group == group && r.serves(version)) {
        resources.push((row.plural.to_string(), plain_resource(row)));
        for sub in row.subresources.iter() {
            resources.push((format!("{}/{}", row.plural, sub.name), plain_subresource(row, sub)));
        }
    }
    if resources.is_empty() {
        return None;
    }
    resources.sort_by(|a, b| a.0.cmp(&b.0));
    let resources: Vec<Value> = resources.into_iter().map(|(_, r)| r).collect();
    let mut document = json!({"kind": "APIResourceList", "groupVersion": group_version(group, version), "resources": resources});
    if !group.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    Some(document)
}

/// `/api` (core) or `/apis` (all other groups) in the aggregated form.
pub fn aggregated<'a>(rows: impl IntoIterator<Item = &'a Resource>, core: bool) -> Value {
    let groups = groups(rows);
    let items: Vec<Value> = groups.iter().filter(|g| g.name.is_empty() == core).map(Group::to_aggregated).collect();
    json!({"kind": AGGREGATED_KIND, "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// Base64 of the first eight bytes of a hash of the stored kind: clients see by it that a storage version changed.
pub fn storage_version_hash(row: &Resource) -> Option<String> {
    if !row.is_stored() {
        return None;
    }
    let digest = Sha256::digest(format!("{}/{}/{}", row.storage.group, row.storage.hash_version, row.kind));
    Some(base64::engine::general_purpose::STANDARD.encode(&digest[..8]))
}

/// Upstream's order of versions: stable before beta before alpha, newer before older, anything else last by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// (stability, major, minor) of `v2`, `v1beta3`.
fn parse_version(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    match &rest[digits..] {
        "" => Some((2, major, 0)),
        suffix => {
            let (stability, minor) = match suffix.strip_prefix("beta") {
                Some(minor) => (1, minor),
                None => (0, suffix.strip_prefix("alpha")?),
            };
            Some((stability, major, minor.parse().ok()?))
        }
    }
}

pub(super) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A group with its versions, preferred first, and its rows.
struct Group<'a> {
    name: &'a str,
    versions: Vec<&'a str>,
    rows: Vec<&'a Resource>,
}

/// Groups in the order of their first row.
fn groups<'a>(rows: impl IntoIterator<Item = &'a Resource>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for row in rows {
        let name = row.group.as_ref();
        let i = groups.iter().position(|g| g.name == name).unwrap_or_else(|| {
            groups.push(Group { name, versions: Vec::new(), rows: Vec::new() });
            groups.len() - 1
        });
        let group = &mut groups[i];
        group.rows.push(row);
        for version in row.versions.iter().map(AsRef::as_ref) {
            if !group.versions.contains(&version) {
                group.versions.push(version);
            }
        }
    }
    for group in &mut groups {
        group.versions.sort_by(|a, b| compare_versions(a, b));
        group.rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    }
    groups
}

// === impl Group ===

impl Group<'_> {
    fn to_json(&self) -> Value {
        let version = |version: &&str| json!({"groupVersion": group_version(self.name, version), "version": version});
        let versions: Vec<Value> = self.versions.iter().map(version).collect();
        json!({"name": self.name, "preferredVersion": versions.first(), "versions": versions})
    }

    fn to_aggregated(&self) -> Value {
        let version = |version: &&str| {
            let resources: Vec<Value> = self.rows.iter().filter(|r| r.serves(version)).map(|r| aggregated_resource(r, version)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        };
        let versions: Vec<Value> = self.versions.iter().map(version).collect();
        let mut metadata = Map::new();
        if !self.name.is_empty() {
            metadata.insert("name".to_owned(), self.name.into());
        }
        json!({"metadata": metadata, "versions": versions})
    }
}

fn plain_resource(row: &Resource) -> Value {
    let mut out = json!({
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": row.verbs,
    });
    names(&mut out, row);
    if let Some(hash) = storage_version_hash(row) {
        out["storageVersionHash"] = hash.into();
    }
    out
}

fn names(out: &mut Value, row: &Resource) {
    if !row.short_names.is_empty() {
        out["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        out["categories"] = json!(row.categories);
    }
}

fn plain_subresource(row: &Resource, sub: &Subresource) -> Value {
    let mut out = json!({
        "name": format!("{}/{}", row.plural, sub.name),
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": sub.kind,
        "verbs": sub.verbs,
    });
    if !sub.version.is_empty() {
        out["group"] = json!(sub.group);
        out["version"] = json!(sub.version);
    }
    out
}

fn aggregated_resource(row: &Resource, version: &str) -> Value {
    // Upstream names group and version of kinds that are not built in.
    let kind = |kind: &str| match crate::resources::find(&row.group, &row.plural) {
        Some(_) => json!({"group": "", "version": "", "kind": kind}),
        None => json!({"group": row.group, "version": version, "kind": kind}),
    };
    let mut out = json!({
        "resource": row.plural,
        "responseKind": kind(&row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    names(&mut out, row);
    if !row.subresources.is_empty() {
        let subresource = |sub: &Subresource| {
            let own = json!({"group": sub.group, "version": sub.version, "kind": sub.kind});
            json!({
                "subresource": sub.name,
                "responseKind": if sub.version.is_empty() { kind(&sub.kind) } else { own },
                "verbs": sub.verbs,
            })
        };
        out["subresources"] = row.subresources.iter().map(subresource).collect();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::builtin;

    #[test]
    fn versions_are_ordered_as_upstream() {
        let mut versions = ["v1alpha1", "foo", "v1", "v2beta1", "v10", "v1beta2", "v2", "v11alpha2", "bar"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v11alpha2", "v1alpha1", "bar", "foo"]);
    }

    #[test]
    fn documents_have_their_shape() {
        let group = api_group(builtin(), "autoscaling").expect("served");
        assert_eq!(group["preferredVersion"], json!({"groupVersion": "autoscaling/v2", "version": "v2"}));
        assert_eq!(group["kind"], "APIGroup");
        assert!(api_group(builtin(), "nope").is_none() && api_resource_list(builtin(), "apps", "v2").is_none());
        let core = api_resource_list(builtin(), "", "v1").expect("served");
        let find = |name: &str| core["resources"].as_array().into_iter().flatten().find(|r| r["name"] == name).cloned();
        assert_eq!(
            find("pods/eviction"),
            Some(
                json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]})
            )
        );
        // The hash is upstream's, so that its clients see the same storage version.
        assert_eq!(find("configmaps").map(|r| r["storageVersionHash"].clone()), Some("qFsyl6wFWjQ=".into()));
        let all = aggregated(builtin(), false);
        assert_eq!(all["items"].as_array().map(Vec::len), Some(20));
        assert_eq!(aggregated(builtin(), true)["items"][0]["versions"][0]["version"], "v1");
    }
}
