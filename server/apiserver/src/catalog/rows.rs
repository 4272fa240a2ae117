//! The resources that are served, and where their objects live.
//!
//! A [`View`] is a resource as clients address it; a [`Row`] is the storage behind one or more views (Events in two groups
//! share one row, and so one watch cache and one revision order). Rows are added, replaced and removed at run time;
//! built-in ones are added at start and are treated like all others afterwards.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use trireme_api::kinds;
use trireme_api::openapi::Served;
use trireme_api::resource::Definition;
use trireme_api::resources::Resource;

use super::origin::Origin;
pub use super::row::Row;
use crate::storage::keys;

/// A resource as clients address it.
#[derive(Clone)]
pub struct View {
    /// Names, versions, verbs.
    pub resource: Arc<Resource>,
    /// All that is known about it.
    pub definition: Arc<Definition>,
    /// Its storage; None for resources that only answer (reviews, bindings).
    pub row: Option<Arc<Row>>,
}

impl View {
    /// The same resource as it is in one version, where versions differ in more than their types.
    #[must_use]
    pub fn in_version(self, version: &str) -> View {
        match self.definition.in_version(version).cloned() {
            Some(definition) => View { resource: definition.resource.clone(), definition, row: self.row },
            None => self,
        }
    }

    fn is_defined(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.origin.is_some())
    }
}

/// All resources that are served.
pub struct Rows {
    inner: RwLock<Tables>,
    window_limit_bytes: usize,
}

#[derive(Default)]
struct Tables {
    by_prefix: BTreeMap<String, Arc<Row>>,
    views: HashMap<(String, String), View>,
    order: Vec<View>,
}

impl Rows {
    /// The built-in resources, with empty caches.
    pub fn builtin(window_limit_bytes: usize) -> Rows {
        let rows = Rows { inner: RwLock::default(), window_limit_bytes };
        // Views that share a storage make one row.
        let mut by_prefix: BTreeMap<String, Vec<Arc<Definition>>> = BTreeMap::new();
        for definition in kinds::builtin().iter().filter(|definition| definition.resource.is_stored()) {
            by_prefix.entry(prefix_of(&definition.resource)).or_default().push(definition.clone());
        }
        let mut tables = rows.inner.write();
        let made =
            by_prefix.into_iter().filter_map(|(prefix, views)| Some((prefix, Arc::new(Row::new(&views, None, window_limit_bytes)?))));
        tables.by_prefix = made.collect();
        for definition in kinds::builtin() {
            let row = tables.by_prefix.get(&prefix_of(&definition.resource)).filter(|_| definition.resource.is_stored()).cloned();
            tables.show(definition.clone(), row);
        }
        for kinds::Unlisted { definition, of: (group, plural) } in kinds::unlisted() {
            let row = tables.by_prefix.get(&keys::resource_prefix(group, plural)).cloned();
            let key = (definition.resource.group.to_string(), definition.resource.plural.to_string());
            tables.views.insert(key, View { resource: definition.resource.clone(), definition, row });
        }
        drop(tables);
        rows
    }

    /// A row behind `views`, not yet served. Its cache has to be loaded first.
    pub fn prepare(&self, views: &[Arc<Definition>], origin: Option<Origin>) -> Option<Arc<Row>> {
        Row::new(views, origin, self.window_limit_bytes).map(Arc::new)
    }

    /// The row that the object at `key` defines.
    pub fn defined_by(&self, key: &str) -> Option<Arc<Row>> {
        let tables = self.inner.read();
        tables.by_prefix.values().find(|row| row.origin.as_ref().is_some_and(|origin| origin.key == key)).cloned()
    }

    /// All rows that objects define.
    pub fn defined(&self) -> Vec<Arc<Row>> {
        self.inner.read().by_prefix.values().filter(|row| row.origin.is_some()).cloned().collect()
    }

    /// Serves `views` from `row`, whose cache is loaded. They take the place of views and of a row of the same names.
    pub fn insert(&self, views: Vec<Arc<Definition>>, row: Arc<Row>) {
        let mut tables = self.inner.write();
        if let Some(old) = tables.by_prefix.insert(row.prefix.clone(), row.clone()) {
            old.retired.cancel();
        }
        for view in views {
            tables.show(view, Some(row.clone()));
        }
    }

    /// Stops serving a row and all of its views. Its objects stay in the store.
    pub fn remove(&self, group: &str, plural: &str) -> Option<Arc<Row>> {
        let mut tables = self.inner.write();
        let row = tables.by_prefix.remove(&keys::resource_prefix(group, plural))?;
        let gone = |view: &View| view.row.as_ref().is_some_and(|other| other.prefix == row.prefix);
        tables.views.retain(|_, view| !gone(view));
        tables.order.retain(|view| !gone(view));
        row.retired.cancel();
        Some(row)
    }

    /// The view that a path's group and plural name.
    pub fn view(&self, group: &str, plural: &str) -> Option<View> {
        // Two short strings a request; a borrowed pair cannot be looked up in a map of owned pairs.
        self.inner.read().views.get(&(group.to_owned(), plural.to_owned())).cloned()
    }

    /// All resources in the order of discovery; one for each version where versions differ in more than their types.
    pub fn served(&self) -> Vec<Served> {
        let of = |definition: &Arc<Definition>| Served { resource: definition.resource.clone(), published: definition.published.clone() };
        let tables = self.inner.read();
        let mut all = Vec::with_capacity(tables.order.len());
        for view in &tables.order {
            match view.definition.versions.as_slice() {
                [] => all.push(of(&view.definition)),
                versions => all.extend(versions.iter().map(|(_, definition)| of(definition))),
            }
        }
        all
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

fn prefix_of(resource: &Resource) -> String {
    keys::resource_prefix(&resource.storage.group, &resource.plural)
}

impl Tables {
    fn show(&mut self, definition: Arc<Definition>, row: Option<Arc<Row>>) {
        let view = View { resource: definition.resource.clone(), definition, row };
        let key = (view.resource.group.to_string(), view.resource.plural.to_string());
        let same = |other: &View| other.resource.group_resource() == view.resource.group_resource();
        match self.order.iter().position(same) {
            Some(at) => self.order[at] = view.clone(),
            // Those that objects define come last, sorted by their names.
            None if view.is_defined() => {
                let name = |view: &View| (view.resource.group.clone(), view.resource.plural.clone());
                let at = self.order.iter().position(|other| other.is_defined() && name(other) > name(&view));
                self.order.insert(at.unwrap_or(self.order.len()), view.clone());
            }
            None => self.order.push(view.clone()),
        }
        self.views.insert(key, view);
    }
}
