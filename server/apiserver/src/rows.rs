//! The resources that are served, and where their objects live.
//!
//! A [`View`] is a resource as clients address it; a [`Row`] is the storage behind one or more views (Events in two groups
//! share one row, and so one watch cache and one revision order).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use trireme_api::gvk::{GroupResource, GroupVersionKind};
use trireme_api::resources::{self, Resource};
use trireme_api::selector::FieldSelector;

use crate::cache::{Cached, ResourceCache};
use crate::keys;

/// The storage of a resource.
pub struct Row {
    /// The folder of its keys.
    pub prefix: String,
    /// Its watch cache.
    pub cache: ResourceCache,
    /// The JSON paths that the cache indexes, for field selectors.
    pub fields: Vec<&'static str>,
    /// The resource whose storage this is.
    pub resource: Resource,
    /// Whether payloads are encrypted.
    pub secret: bool,
}

/// A resource as clients address it.
#[derive(Clone)]
pub struct View {
    /// Names, versions, verbs.
    pub resource: Arc<Resource>,
    /// Its storage; None for resources that only answer (reviews, bindings).
    pub row: Option<Arc<Row>>,
}

/// All resources that are served. CRDs will add to it at run time.
#[derive(Default)]
pub struct Rows {
    inner: RwLock<Tables>,
}

#[derive(Default)]
struct Tables {
    by_prefix: BTreeMap<String, Arc<Row>>,
    views: HashMap<(String, String), View>,
    order: Vec<View>,
}

impl Rows {
    /// The built-in resources.
    pub fn builtin(window_limit_bytes: usize) -> Rows {
        let rows = Rows::default();
        {
            let mut tables = rows.inner.write();
            for resource in resources::builtin() {
                tables.add(resource.clone(), window_limit_bytes);
            }
        }
        rows
    }

    /// The view that a path's group and plural name.
    pub fn view(&self, group: &str, plural: &str) -> Option<View> {
        // Two short strings a request; a borrowed pair cannot be looked up in a map of owned pairs.
        self.inner.read().views.get(&(group.to_owned(), plural.to_owned())).cloned()
    }

    /// All views, in the order of discovery.
    pub fn views(&self) -> Vec<View> {
        self.inner.read().order.clone()
    }

    /// Whether any resource of the group and version is served.
    pub fn serves_group_version(&self, group: &str, version: &str) -> bool {
        self.inner.read().order.iter().any(|v| v.resource.group == group && v.resource.serves(version))
    }

    /// The row that an object's key belongs to.
    pub fn by_key(&self, key: &str) -> Option<Arc<Row>> {
        let tables = self.inner.read();
        let (prefix, row) = tables.by_prefix.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        key.starts_with(prefix.as_str()).then(|| row.clone())
    }

    /// The row of a storage group and plural.
    pub fn row(&self, group: &str, plural: &str) -> Option<Arc<Row>> {
        self.inner.read().by_prefix.get(&keys::resource_prefix(group, plural)).cloned()
    }

    /// All rows.
    pub fn all(&self) -> Vec<Arc<Row>> {
        self.inner.read().by_prefix.values().cloned().collect()
    }
}

impl Tables {
    fn add(&mut self, resource: Resource, window_limit_bytes: usize) {
        let row = resource.is_stored().then(|| {
            let prefix = keys::resource_prefix(&resource.storage.group, &resource.plural);
            self.by_prefix
                .entry(prefix.clone())
                .or_insert_with(|| {
                    let storing = resources::find(&resource.storage.group, &resource.plural).unwrap_or(&resource);
                    Arc::new(Row {
                        prefix,
                        cache: ResourceCache::new(window_limit_bytes),
                        fields: indexed_paths(storing),
                        secret: storing.group.is_empty() && storing.plural == "secrets",
                        resource: storing.clone(),
                    })
                })
                .clone()
        });
        let view = View { resource: Arc::new(resource), row };
        self.views.insert((view.resource.group.to_string(), view.resource.plural.to_string()), view.clone());
        self.order.push(view);
    }
}

// === impl Row ===

impl Row {
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
    pub fn matches_fields(&self, view: &Resource, selector: &FieldSelector, object: &Cached) -> bool {
        selector.is_everything() || selector.matches(|field| self.field(view, field, object))
    }

    fn field<'a>(&self, view: &Resource, field: &str, object: &'a Cached) -> Cow<'a, str> {
        let stored = if view.group == self.resource.group { Cow::Borrowed(field) } else { renamed(field) };
        let path = match &*stored {
            "metadata.name" | "name" if self.resource.plural != "name" => return Cow::Borrowed(&object.name),
            "metadata.namespace" => return Cow::Borrowed(&object.namespace),
            "status.successful" => "status.succeeded",
            "source" => {
                let component = self.indexed("source.component", object);
                return Cow::Borrowed(if component.is_empty() { self.indexed("reportingComponent", object) } else { component });
            }
            // A list: too rare to index.
            "status.podIPs" => {
                let value: serde_json::Value = serde_json::from_slice(&object.json()).unwrap_or_default();
                return Cow::Owned(resources::field_value(&value, field).into_owned());
            }
            other => other,
        };
        let value = self.indexed(path, object);
        if value.is_empty() { resources::field_value(&serde_json::Value::Null, &stored).into_owned().into() } else { Cow::Borrowed(value) }
    }

    fn indexed<'a>(&self, path: &str, object: &'a Cached) -> &'a str {
        self.fields.iter().position(|p| *p == path).and_then(|at| object.fields.get(at)).map_or("", |v| v)
    }
}

/// Fields of events.k8s.io under their names in the core group.
fn renamed(field: &str) -> Cow<'_, str> {
    match field.strip_prefix("regarding.") {
        Some(rest) => Cow::Owned(format!("involvedObject.{rest}")),
        None if field == "reportingController" => Cow::Borrowed("reportingComponent"),
        None => Cow::Borrowed(field),
    }
}

fn indexed_paths(resource: &Resource) -> Vec<&'static str> {
    let mut paths = Vec::new();
    for field in resources::selectable_fields(resource) {
        match *field {
            "metadata.name" | "metadata.namespace" | "name" | "status.podIPs" => {}
            "status.successful" => paths.push("status.succeeded"),
            "source" => paths.push("source.component"),
            other => paths.push(other),
        }
    }
    paths
}
