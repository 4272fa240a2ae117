//! Objects in memory, for tests of everything that reads through [`ObjectReader`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use serde_json::Value;
use trireme_api::{meta, rbac_defaults};

use trireme_proto::etcd;

use crate::admission::effects::Effects;
use crate::error::Answer;
use crate::storage::keys;
use crate::storage::lookup::{LookedUp, ObjectReader, StoreAccess};

/// Objects in memory, for tests of everything that reads through [`ObjectReader`].
#[derive(Default)]
pub struct FakeReader {
    objects: RwLock<BTreeMap<(String, String, String, String), LookedUp>>,
    revision: RwLock<i64>,
    /// Becomes visible only by `refresh`, as if another server had it already.
    late: RwLock<Vec<(String, String, Value)>>,
    /// What was written ahead; it is not applied.
    pub ahead: RwLock<Vec<Effects>>,
    /// Whether `refresh` was called.
    pub refreshed: AtomicBool,
}

impl FakeReader {
    /// Writes an object.
    pub fn put(&self, group: &str, plural: &str, object: Value) {
        let mut revision = self.revision.write();
        *revision += 1;
        let key = (group.to_owned(), plural.to_owned(), meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
        let found = LookedUp { object: Arc::new(object), mod_revision: *revision };
        self.objects.write().insert(key, found);
    }

    /// Writes an object that becomes visible by the next `refresh`.
    pub fn put_late(&self, group: &str, plural: &str, object: Value) {
        self.late.write().push((group.to_owned(), plural.to_owned(), object));
    }

    /// Removes an object.
    pub fn remove(&self, group: &str, plural: &str, namespace: &str, name: &str) {
        *self.revision.write() += 1;
        self.objects.write().remove(&(group.into(), plural.into(), namespace.into(), name.into()));
    }

    /// Holds the default roles and bindings.
    pub fn with_defaults() -> FakeReader {
        let reader = FakeReader::default();
        for (plural, objects) in [
            ("clusterroles", rbac_defaults::cluster_roles()),
            ("clusterrolebindings", rbac_defaults::cluster_role_bindings()),
            ("roles", rbac_defaults::roles()),
            ("rolebindings", rbac_defaults::role_bindings()),
        ] {
            for object in objects {
                reader.put("rbac.authorization.k8s.io", plural, object);
            }
        }
        reader
    }
}

impl ObjectReader for FakeReader {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<LookedUp> {
        let key = (group.to_owned(), plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.objects.read().get(&key).cloned()
    }

    fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<LookedUp> {
        let objects = self.objects.read();
        let matching = objects.iter().filter(|((g, p, ns, _), _)| g == group && p == plural && namespace.is_none_or(|wanted| wanted == ns));
        matching.map(|(_, found)| found.clone()).collect()
    }

    fn last_change(&self, _group: &str, _plural: &str) -> i64 {
        *self.revision.read()
    }

    fn refresh(&self) -> BoxFuture<'_, bool> {
        self.refreshed.store(true, Ordering::Relaxed);
        let late = std::mem::take(&mut *self.late.write());
        for (group, plural, object) in late {
            self.put(&group, &plural, object);
        }
        Box::pin(async { true })
    }
}

impl StoreAccess for FakeReader {
    fn put_operation(&self, group: &str, plural: &str, object: &Value) -> Answer<etcd::RequestOp> {
        let key = keys::object_key(group, plural, meta::namespace(object), meta::name(object));
        Ok(keys::put(&key, object.to_string(), 0))
    }

    fn exists(&self, _key: &str) -> bool {
        false
    }

    fn newest(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Answer<Option<LookedUp>> {
        Ok(self.get(group, plural, namespace, name))
    }

    fn write_ahead(&self, effects: Effects) -> BoxFuture<'_, Answer<Option<i64>>> {
        self.ahead.write().push(effects);
        Box::pin(async { Ok(Some(77)) })
    }
}
