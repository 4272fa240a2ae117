//! The objects of an informer and their indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::Event;
use crate::{Object, ObjectKey};

pub(super) type IndexFn<T> = Box<dyn Fn(&T) -> Vec<String> + Send + Sync>;

struct Entries<T> {
    values: IndexFn<T>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

pub(super) struct Store<T> {
    namespaces: BTreeMap<String, BTreeMap<String, Arc<T>>>,
    len: usize,
    indexes: HashMap<&'static str, Entries<T>>,
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

    pub(super) fn insert(&mut self, object: Arc<T>) -> Event<T> {
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
        match old {
            Some(old) => Event::Updated { old, new: object },
            None => Event::Added(object),
        }
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

    /// Makes the store hold exactly these objects; returns what changed, deletions last. An object with the revision that the
    /// store has is the same object.
    pub(super) fn replace(&mut self, objects: Vec<Arc<T>>) -> Vec<Event<T>> {
        let keep: HashSet<ObjectKey> = objects.iter().map(|object| ObjectKey::of(&**object)).collect();
        let mut events = Vec::new();
        for object in objects {
            let same = self.get(object.namespace(), object.name()).is_some_and(|known| {
                known.meta().resource_version.is_some()
                    && known.meta().resource_version == object.meta().resource_version
                    && known.meta().uid == object.meta().uid
            });
            if !same {
                events.push(self.insert(object));
            }
        }
        for known in self.list() {
            if !keep.contains(&ObjectKey::of(&*known)) {
                events.extend(self.remove(known.namespace(), known.name()).map(Event::Deleted));
            }
        }
        events
    }

    pub(super) fn add_index(&mut self, name: &'static str, values: IndexFn<T>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = Entries { values, keys: HashMap::new() };
        for object in self.namespaces.values().flat_map(BTreeMap::values) {
            index.insert(object, &ObjectKey::of(&**object));
        }
        self.indexes.insert(name, index);
    }

    pub(super) fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<T>> {
        let Some(keys) = self.indexes.get(name).and_then(|index| index.keys.get(value)) else {
            return Vec::new();
        };
        keys.iter().filter_map(|key| self.get(&key.namespace, &key.name)).collect()
    }
}

impl<T> Entries<T> {
    fn insert(&mut self, object: &T, key: &ObjectKey) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, object: &T, key: &ObjectKey) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}
