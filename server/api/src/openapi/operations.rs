//! Paths and their operations.

use serde_json::{Map, Value, json};

use super::custom;
use super::dialect::Dialect;
use super::served::{Served, path_of};
use super::target::{Target, Used};
use crate::gvk::{GroupVersion, GroupVersionKind, Name};
use crate::resources::Resource;
use crate::schema::{definition, type_of};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const BODY_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const WRITE_PARAMETERS: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const DELETE_PARAMETERS: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST_PARAMETERS: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

/// The parts of one operation.
struct Operation<'a> {
    method: &'static str,
    /// x-kubernetes-action
    action: &'static str,
    /// Start of the operation id.
    id: &'static str,
    query: Vec<(&'static str, &'static str)>,
    body: Option<Body>,
    answer: Option<Target>,
    kind: &'a GroupVersionKind,
}

enum Body {
    Object(Target),
    Patch,
    Optional(Target),
}

struct Context<'a> {
    gv: GroupVersion,
    row: &'a Resource,
    /// Whether its schema stands beside the tables.
    is_published: bool,
    dialect: Dialect,
}

/// The paths of a resource in a version; the types that they name are added to `used`.
pub(super) fn paths(served: &Served, version: &str, dialect: Dialect, used: &mut Used) -> Vec<(String, Value)> {
    let row = &*served.resource;
    if let Some(published) = &served.published {
        custom::add(row, version, published, dialect, used);
    }
    let gv = GroupVersion { group: row.group.clone(), version: Name::Owned(version.to_owned()) };
    let context = Context { gv, row, is_published: served.published.is_some(), dialect };
    let base = format!("/{}", path_of(&context.gv));
    let scope = if row.namespaced { "/namespaces/{namespace}" } else { "" };
    let kind = context.gv.with_kind(row.kind.clone());
    let mut paths = Vec::new();
    let mut add = |path: String, scope: &str, name: &str, operations: Vec<Operation<'_>>| {
        if !operations.is_empty() {
            let item = context.path_item(&path, scope, name, &operations, used);
            paths.push((path, item));
        }
    };
    if row.namespaced && row.has_verb("list") {
        add(format!("{base}/{}", row.plural), "", "ForAllNamespaces", vec![context.list(&kind)]);
    }
    let middle = if row.namespaced { "Namespaced" } else { "" };
    add(format!("{base}{scope}/{}", row.plural), middle, "", context.collection(&kind));
    let single = format!("{base}{scope}/{}/{{name}}", row.plural);
    add(single.clone(), middle, "", context.single(&kind, &row.verbs, true));
    for sub in row.subresources.iter() {
        let kind = sub.gvk(&context.gv);
        let mut operations = context.single(&kind, &sub.verbs, false);
        if sub.has_verb("create") {
            operations.push(context.create(&kind));
        }
        let suffix: String = sub.name.split('/').map(capital).collect();
        add(format!("{single}/{}", sub.name), middle, &suffix, operations);
    }
    paths
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn meta_type(name: &str) -> Option<Target> {
    definition(&format!("{META}.{name}")).map(Target::Type)
}

// === impl Context ===

impl Context<'_> {
    fn type_of(&self, kind: &GroupVersionKind) -> Option<Target> {
        if self.is_published && kind.group == self.gv.group {
            return Some(Target::Named(custom::name(&kind.group, &kind.version, &kind.kind)));
        }
        type_of(&kind.group, &kind.version, &kind.kind).map(Target::Type)
    }

    fn list<'k>(&self, kind: &'k GroupVersionKind) -> Operation<'k> {
        let answer = self.type_of(&self.gv.with_kind(self.row.list_kind.clone()));
        Operation { method: "get", action: "list", id: "list", query: LIST_PARAMETERS.to_vec(), body: None, answer, kind }
    }

    fn create<'k>(&self, kind: &'k GroupVersionKind) -> Operation<'k> {
        let ty = self.type_of(kind);
        let body = ty.clone().map(Body::Object);
        Operation { method: "post", action: "post", id: "create", query: WRITE_PARAMETERS.to_vec(), body, answer: ty, kind }
    }

    fn collection<'k>(&self, kind: &'k GroupVersionKind) -> Vec<Operation<'k>> {
        let mut operations = Vec::new();
        if self.row.has_verb("list") {
            operations.push(self.list(kind));
        }
        if self.row.has_verb("create") {
            operations.push(self.create(kind));
        }
        if self.row.has_verb("deletecollection") {
            let query = DELETE_PARAMETERS.iter().chain(&LIST_PARAMETERS[1..7]).copied().collect();
            let body = meta_type("DeleteOptions").map(Body::Optional);
            let answer = meta_type("Status");
            operations.push(Operation { method: "delete", action: "deletecollection", id: "deleteCollection", query, body, answer, kind });
        }
        operations
    }

    fn single<'k>(&self, kind: &'k GroupVersionKind, verbs: &[Name], with_delete: bool) -> Vec<Operation<'k>> {
        let has = |verb: &str| verbs.iter().any(|v| v == verb);
        let ty = self.type_of(kind);
        let mut operations = Vec::new();
        if has("get") {
            operations.push(Operation {
                method: "get",
                action: "get",
                id: "read",
                query: Vec::new(),
                body: None,
                answer: ty.clone(),
                kind,
            });
        }
        if has("update") {
            let (query, body) = (WRITE_PARAMETERS.to_vec(), ty.clone().map(Body::Object));
            operations.push(Operation { method: "put", action: "put", id: "replace", query, body, answer: ty.clone(), kind });
        }
        if has("patch") {
            let query = WRITE_PARAMETERS.into_iter().chain([("force", "boolean")]).collect();
            operations.push(Operation {
                method: "patch",
                action: "patch",
                id: "patch",
                query,
                body: Some(Body::Patch),
                answer: ty.clone(),
                kind,
            });
        }
        if with_delete && has("delete") {
            let body = meta_type("DeleteOptions").map(Body::Optional);
            let query = DELETE_PARAMETERS.to_vec();
            operations.push(Operation { method: "delete", action: "delete", id: "delete", query, body, answer: meta_type("Status"), kind });
        }
        operations
    }

    fn path_item(&self, path: &str, scope: &str, suffix: &str, operations: &[Operation<'_>], used: &mut Used) -> Value {
        let mut item = Map::new();
        let in_path: Vec<Value> = ["name", "namespace"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(|name| self.parameter("path", name, "string"))
            .collect();
        if !in_path.is_empty() {
            item.insert("parameters".to_owned(), in_path.into());
        }
        for operation in operations {
            let group: String = if self.gv.group.is_empty() {
                "Core".to_owned()
            } else {
                self.gv.group.trim_end_matches(".k8s.io").split('.').map(capital).collect()
            };
            let id = format!("{}{group}{}{scope}{}{suffix}", operation.id, capital(&self.gv.version), self.row.kind);
            item.insert(operation.method.to_owned(), self.operation(operation, &id, used));
        }
        Value::Object(item)
    }

    fn parameter(&self, place: &str, name: &str, json_type: &str) -> Value {
        let mut parameter = match self.dialect {
            Dialect::V2 => json!({"name": name, "in": place, "type": json_type, "uniqueItems": true}),
            Dialect::V3 => json!({"name": name, "in": place, "schema": {"type": json_type, "uniqueItems": true}}),
        };
        if place == "path" {
            parameter["required"] = true.into();
        }
        parameter
    }

    fn operation(&self, operation: &Operation<'_>, id: &str, used: &mut Used) -> Value {
        let mut parameters: Vec<Value> = operation.query.iter().map(|(name, ty)| self.parameter("query", name, ty)).collect();
        let tag =
            format!("{}_{}", if self.gv.group.is_empty() { "core" } else { self.gv.group.trim_end_matches(".k8s.io") }, self.gv.version);
        let mut out = json!({
            "operationId": id,
            "tags": [tag],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {
                "group": operation.kind.group, "version": operation.kind.version, "kind": operation.kind.kind,
            },
        });
        let mut refer = |target: &Target| {
            used.add(target);
            target.reference(self.dialect)
        };
        // Custom resources have no Go types, and so neither protobuf nor strategic merge patches.
        let body_types = if self.is_published { &BODY_TYPES[..2] } else { &BODY_TYPES[..] };
        let patch_types: Vec<&str> = PATCH_TYPES.into_iter().filter(|ty| !self.is_published || !ty.contains("strategic")).collect();
        let (types, schema, required): (&[&str], Option<Value>, bool) = match &operation.body {
            Some(Body::Object(target)) => (body_types, Some(refer(target)), true),
            Some(Body::Optional(target)) => (body_types, Some(refer(target)), false),
            Some(Body::Patch) => (&patch_types, meta_type("Patch").as_ref().map(&mut refer), true),
            None => (&[], None, false),
        };
        let answer = operation.answer.as_ref().map(&mut refer);
        match self.dialect {
            Dialect::V2 => {
                if let Some(schema) = schema {
                    parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                    out["consumes"] = json!(types);
                }
                out["produces"] = json!(body_types);
                out["responses"] = match answer {
                    Some(schema) => json!({"200": {"description": "OK", "schema": schema}}),
                    None => json!({"200": {"description": "OK"}}),
                };
            }
            Dialect::V3 => {
                let content = |types: &[&str], schema: &Value| -> Map<String, Value> {
                    types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect()
                };
                if let Some(schema) = schema {
                    out["requestBody"] = json!({"required": required, "content": content(types, &schema)});
                }
                out["responses"] = match answer {
                    Some(schema) => json!({"200": {"description": "OK", "content": content(body_types, &schema)}}),
                    None => json!({"200": {"description": "OK"}}),
                };
            }
        }
        if !parameters.is_empty() {
            out["parameters"] = parameters.into();
        }
        out
    }
}
