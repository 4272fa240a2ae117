//! The objects of an informer and their indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::{Object, ObjectKey};

pub(super) type IndexFn<T> = Box<dyn Fn(&T) -> Vec<String> + Send + Sync>;

struct Index<T> {
    values: IndexFn<T>,
    entries: HashMap<String, BTreeSet<ObjectKey>>,
}

pub(super) struct Store<T> {
    namespaces: BTreeMap<String, BTreeMap<String, Arc<T>>>,
    len: usize,
    indexes: HashMap<&'static str, Index<T>>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { namespaces: BTreeMap::new(), len: 0, indexes: HashMap::new() }
    }
}

impl<T: Object> Store<T> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.namespaces.get(namespace)?.get(name).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<T>> {
        self.namespaces.values().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn list_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.namespaces.get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let key = ObjectKey::of(&*object);
        let names = match self.namespaces.get_mut(&key.namespace) {
            Some(names) => names,
            None => self.namespaces.entry(key.namespace.clone()).or_default(),
        };
        let old = names.insert(key.name.clone(), Arc::clone(&object));
        if old.is_none() {
            self.len += 1;
        }
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(old, &key);
            }
            index.insert(&object, &key);
        }
        old
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let names = self.namespaces.get_mut(namespace)?;
        let old = names.remove(name)?;
        if names.is_empty() {
            self.namespaces.remove(namespace);
        }
        self.len -= 1;
        let key = ObjectKey::new(namespace, name);
        for index in self.indexes.values_mut() {
            index.remove(&old, &key);
        }
        Some(old)
    }

    pub(super) fn add_index(&mut self, name: &'static str, values: IndexFn<T>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values, entries: HashMap::new() };
        for object in self.list() {
            index.insert(&object, &ObjectKey::of(&*object));
        }
        self.indexes.insert(name, index);
    }

    pub(super) fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<T>> {
        let Some(keys) = self.indexes.get(name).and_then(|index| index.entries.get(value)) else {
            return Vec::new();
        };
        keys.iter().filter_map(|key| self.get(&key.namespace, &key.name)).collect()
    }
}

impl<T> Index<T> {
    fn insert(&mut self, object: &T, key: &ObjectKey) {
        for value in (self.values)(object) {
            self.entries.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, object: &T, key: &ObjectKey) {
        for value in (self.values)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}
