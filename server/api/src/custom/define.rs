//! Builds the definitions of a resource from its CustomResourceDefinition.
//!
//! Upstream: `getOrCreateServingInfoFor` in `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`, and
//! `customresource_discovery_controller.go` for names and verbs.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::columns;
use super::conversion::ConversionWebhook;
use super::kind::{CustomKind, Family};
use super::scale_paths::ScalePaths;
use super::structural::Structural;
use super::validations::Validations;
use crate::discovery::compare_versions;
use crate::gvk::Name;
use crate::resource::{Defined, Definition, Identity, Published, Schema};
use crate::resources::{Resource, Storage, Subresource};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Whether a condition of a definition holds.
pub fn has_condition(crd: &Value, type_: &str) -> bool {
    let conditions = crd["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

/// The resource that a definition is about.
pub fn identity(crd: &Value) -> Identity {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let served = !served(crd).is_empty() && (has_condition(crd, "NamesAccepted") || has_condition(crd, "Established"));
    let digest = served.then(|| {
        let mut hasher = Sha256::new();
        hasher.update(spec.to_string());
        hasher.update(crd["status"]["acceptedNames"].to_string());
        hasher.update([u8::from(!versions(spec).any(is_served))]);
        hasher.finalize().into()
    });
    Identity { group: text(&spec["group"]), plural: text(&spec["names"]["plural"]), digest, is_closing: has_condition(crd, "Terminating") }
}

/// The definition of a resource, with one for each served version in it.
pub fn define(crd: &Value) -> Result<Defined, String> {
    let spec = &crd["spec"];
    let group: Name = text(&spec["group"]);
    let storage = versions(spec).find(|version| version["storage"] == true).ok_or("no version is the storage version")?;
    let storage = Storage { group: group.clone(), version: text(&storage["name"]), hash_version: text(&storage["name"]) };
    let mut schemas = Vec::new();
    for version in versions(spec) {
        let schema = Structural::parse(&version["schema"]["openAPIV3Schema"])?;
        schemas.push((text(&version["name"]), Arc::new(schema)));
    }
    let webhook = ConversionWebhook::of(&spec["conversion"]);
    let family = Arc::new(Family { group: group.clone(), storage: storage.version.clone(), schemas, webhook });
    let mut served = served(crd);
    served.sort_by(|a, b| compare_versions(a["name"].as_str().unwrap_or_default(), b["name"].as_str().unwrap_or_default()));
    let definition = |version: &Value, names: Vec<Name>| -> Result<Definition, String> {
        let name = version["name"].as_str().unwrap_or_default();
        let schema = family.schemas.iter().find(|(known, _)| known == name).map(|(_, schema)| schema.clone()).unwrap_or_default();
        let kind = kind(crd, version, &family, schema.clone());
        let resource = resource(crd, names, &storage, version);
        let mut definition = Definition::new(Arc::new(resource), Schema::Structural(schema), Arc::new(kind));
        definition.published = Some(published(version));
        Ok(definition)
    };
    let mut by_version = Vec::with_capacity(served.len());
    for version in &served {
        let name = text(&version["name"]);
        by_version.push((name.clone(), Arc::new(definition(version, vec![name])?)));
    }
    let stored = versions(spec).find(|version| version["storage"] == true).ok_or("no version is the storage version")?;
    let mut whole = definition(stored, by_version.iter().map(|(name, _)| name.clone()).collect())?;
    // The cache holds what any version is selected by.
    for (_, version) in &by_version {
        for field in &version.fields {
            if !whole.fields.contains(field) {
                whole.fields.push(field.clone());
            }
        }
    }
    whole.versions = by_version;
    Ok(vec![Arc::new(whole)])
}

fn versions(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["versions"].as_array().into_iter().flatten()
}

/// The versions that are served. One that is about to go is served in its storage version if in no other: its instances have to be
/// deleted.
fn served(crd: &Value) -> Vec<&Value> {
    let spec = &crd["spec"];
    let found: Vec<&Value> = versions(spec).filter(|version| is_served(version)).collect();
    if found.is_empty() && has_condition(crd, "Terminating") {
        return versions(spec).filter(|version| version["storage"] == true).collect();
    }
    found
}

fn is_served(version: &Value) -> bool {
    version["served"] == true
}

fn text(value: &Value) -> Name {
    Name::Owned(value.as_str().unwrap_or_default().to_owned())
}

fn list(value: &Value) -> Cow<'static, [Name]> {
    value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().into()
}

fn owned(names: &[&'static str]) -> Cow<'static, [Name]> {
    names.iter().map(|name| Name::Borrowed(*name)).collect::<Vec<_>>().into()
}

fn resource(crd: &Value, served: Vec<Name>, storage: &Storage, version: &Value) -> Resource {
    let (spec, names) = (&crd["spec"], &crd["status"]["acceptedNames"]);
    let part = |name: &'static str, group: &'static str, version: &'static str, kind: Name| Subresource {
        name: name.into(),
        group: group.into(),
        version: version.into(),
        kind,
        verbs: owned(&PART_VERBS),
    };
    let mut subresources = Vec::new();
    if version["subresources"]["status"].is_object() {
        subresources.push(part("status", "", "", text(&names["kind"])));
    }
    if version["subresources"]["scale"].is_object() {
        subresources.push(part("scale", "autoscaling", "v1", "Scale".into()));
    }
    Resource {
        group: text(&spec["group"]),
        versions: served.into(),
        storage: storage.clone(),
        plural: text(&spec["names"]["plural"]),
        singular: text(&names["singular"]),
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        short_names: list(&names["shortNames"]),
        categories: list(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        verbs: owned(&VERBS),
        subresources: subresources.into(),
    }
}

fn kind(crd: &Value, version: &Value, family: &Arc<Family>, schema: Arc<Structural>) -> CustomKind {
    let scale = &version["subresources"]["scale"];
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    let path = |field: &Value| field["jsonPath"].as_str().unwrap_or_default().trim_start_matches('.').to_owned();
    CustomKind {
        family: family.clone(),
        validations: Validations::compile(&schema, true),
        schema,
        has_status: version["subresources"]["status"].is_object(),
        scale: scale.is_object().then(|| ScalePaths::of(scale)),
        columns: columns::of(version),
        selectable: selectable.map(path).filter(|path| !path.is_empty()).collect(),
        deprecation: (version["deprecated"] == true).then(|| deprecation(crd, version)),
    }
}

/// The version's own warning, or one that names the newest version that is not deprecated.
fn deprecation(crd: &Value, version: &Value) -> String {
    if let Some(text) = version["deprecationWarning"].as_str() {
        return text.to_owned();
    }
    let (spec, name) = (&crd["spec"], version["name"].as_str().unwrap_or_default());
    let (group, kind) = (spec["group"].as_str().unwrap_or_default(), spec["names"]["kind"].as_str().unwrap_or_default());
    let newer = versions(spec)
        .filter(|other| is_served(other) && other["deprecated"] != true)
        .filter_map(|other| other["name"].as_str())
        .filter(|other| compare_versions(other, name).is_lt())
        .min_by(|a, b| compare_versions(a, b));
    let instead = newer.map(|newer| format!("; use {group}/{newer} {kind}")).unwrap_or_default();
    format!("{group}/{name} {kind} is deprecated{instead}")
}

fn published(version: &Value) -> Published {
    let schema = version["schema"]["openAPIV3Schema"].to_string();
    let mut hasher = Sha256::new();
    hasher.update(&schema);
    hasher.update(version["selectableFields"].to_string());
    Published { schema: Bytes::from(schema), digest: hasher.finalize().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::GroupVersion;
    use serde_json::json;

    fn crd() -> Value {
        json!({
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"}, "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"color": {"type": "string", "default": "red"}}}}}}},
                {"name": "v2", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
            ]},
            "status": {"acceptedNames": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": ["fo"], "categories": ["all"]},
                "conditions": [{"type": "NamesAccepted", "status": "True"}]},
        })
    }

    #[test]
    fn a_definition_becomes_a_resource() {
        let crd = crd();
        let identity = identity(&crd);
        assert!(identity.digest.is_some() && !identity.is_closing && identity.plural == "foos");
        let whole = define(&crd).unwrap().remove(0);
        assert_eq!(whole.resource.versions.as_ref(), ["v1", "v1beta1"]);
        assert!(whole.in_version("v2").is_none(), "it is not served");
        let (v1, beta) = (whole.in_version("v1").unwrap(), whole.in_version("v1beta1").unwrap());
        assert_eq!(v1.resource.subresources.len(), 2);
        let scale = v1.resource.subresource("scale").unwrap().gvk(&GroupVersion::new("example.com", "v1"));
        assert_eq!(scale.to_string(), "autoscaling/v1, Kind=Scale");
        assert!(beta.resource.subresources.is_empty() && !beta.kind.has_status());
        assert_eq!(beta.kind.deprecation("v1beta1").unwrap(), "example.com/v1beta1 Foo is deprecated; use example.com/v1 Foo");
        assert!(v1.field("spec.color").is_some() && beta.field("spec.color").is_none() && whole.field("spec.color").is_some());
        let mut object = json!({"apiVersion": "example.com/v1beta1", "spec": {"x": 1}, "metadata": {}});
        whole.kind.restore(&mut object).unwrap();
        assert_eq!(object["spec"], json!({}), "the old version knows everything, the stored one does not");
        let mut none = crd.clone();
        none["status"]["conditions"] = json!([]);
        assert!(super::identity(&none).digest.is_none());
    }
}
