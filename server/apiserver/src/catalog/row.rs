//! The storage of a resource: its keys, its watch cache and its definition.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trireme_api::gvk::{GroupResource, GroupVersionKind};
use trireme_api::meta;
use trireme_api::resource::{Definition, SelectableField};
use trireme_api::resources::Resource;
use trireme_api::selector::FieldSelector;

use crate::catalog::origin::Origin;
use crate::conversion::webhook::Webhook;
use crate::storage::cache::object::Cached;
use crate::storage::cache::resource::ResourceCache;
use crate::storage::keys;

/// The storage of a resource.
pub struct Row {
    /// The folder of its keys.
    pub prefix: String,
    /// Its watch cache.
    pub cache: ResourceCache,
    /// The paths that the cache indexes, for the field selectors of all views.
    pub fields: Vec<String>,
    /// The resource whose storage this is.
    pub resource: Arc<Resource>,
    /// All that is known about it.
    pub definition: Arc<Definition>,
    /// The webhook that converts between its versions, if it has one. Its objects are then cached in the version that they were
    /// written in.
    pub webhook: Option<Webhook>,
    /// The object that defines it, if it is not built in.
    pub origin: Option<Origin>,
    /// Cancelled when the row is removed or replaced: watches end.
    pub retired: CancellationToken,
}

// === impl Row ===

impl Row {
    /// An empty row behind `views`, which share a storage. The one in the group of the storage defines it.
    pub fn new(views: &[Arc<Definition>], origin: Option<Origin>, window_limit_bytes: usize) -> Option<Row> {
        let definition = views.iter().find(|view| view.resource.group == view.resource.storage.group).or(views.first())?.clone();
        let mut fields: Vec<String> = Vec::new();
        for path in views.iter().flat_map(|view| &view.fields).flat_map(SelectableField::indexed_paths) {
            // Names come from the key.
            if !path.starts_with("metadata.name") && !fields.iter().any(|known| known == path) {
                fields.push(path.to_string());
            }
        }
        Some(Row {
            prefix: keys::resource_prefix(&definition.resource.storage.group, &definition.resource.plural),
            cache: ResourceCache::new(window_limit_bytes),
            fields,
            resource: definition.resource.clone(),
            webhook: definition.kind.conversion_webhook().map(Webhook::new),
            definition,
            origin,
            retired: CancellationToken::new(),
        })
    }

    /// Storage group, empty for core.
    pub fn group(&self) -> &str {
        &self.resource.storage.group
    }

    /// Plural name.
    pub fn plural(&self) -> &str {
        &self.resource.plural
    }

    /// Group and plural, as error messages name them.
    pub fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    /// The kind in which objects are stored.
    pub fn storage_gvk(&self) -> GroupVersionKind {
        self.resource.storage_gvk()
    }

    /// The kind of an object that was restored from the store: in the storage version, or, where a webhook converts, in its own.
    pub fn restored_gvk(&self, object: &Value) -> GroupVersionKind {
        let stored = self.storage_gvk();
        let own = meta::gvk(object).filter(|own| self.webhook.is_some() && own.group == stored.group);
        own.map_or_else(|| stored.clone(), |own| GroupVersionKind { kind: stored.kind.clone(), ..own })
    }

    /// The key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let mut key = self.prefix.clone();
        if self.resource.namespaced {
            key.push_str(namespace);
            key.push('/');
        }
        key.push_str(name);
        key
    }

    /// The keys of a namespace (or of all), relative to the row's prefix.
    pub fn scope_prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() || !self.resource.namespaced { String::new() } else { format!("{namespace}/") }
    }

    /// Namespace and name of a key.
    pub fn split_key<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = key.strip_prefix(self.prefix.as_str())?;
        if self.resource.namespaced { rest.split_once('/') } else { Some(("", rest)) }
    }

    /// Whether an object satisfies a field selector written for `view`.
    pub fn matches_fields(&self, view: &Definition, selector: &FieldSelector, object: &Cached) -> bool {
        selector.is_everything() || selector.matches(|name| Cow::Owned(self.field(view, name, object)))
    }

    fn field(&self, view: &Definition, name: &str, object: &Cached) -> String {
        let Some(field) = view.field(name) else { return String::new() };
        let indexed = |path: &str| {
            Cow::Owned(match path {
                "metadata.name" => object.name.to_string(),
                "metadata.namespace" => object.namespace.to_string(),
                path => {
                    let at = self.fields.iter().position(|known| known == path);
                    at.and_then(|at| object.fields.get(at)).map_or_else(String::new, ToString::to_string)
                }
            })
        };
        // A path through a list is too rare to index.
        let whole = || serde_json::from_slice(&object.json()).unwrap_or_default();
        field.value(indexed, whole).into_owned()
    }
}
