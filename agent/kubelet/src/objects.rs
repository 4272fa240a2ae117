//! The ConfigMaps and Secrets that this node's pods refer to, one watch per object, and their claims and volumes, which are got.
//!
//! Must not list or watch whole namespaces: the node authorizer grants a node single objects only, and memory is for pods.
//! A holder (a pod) names what it needs; with the last holder the watch ends. Until a watch has its first answer, and
//! for objects without a holder, a plain get answers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Informer, InformerOptions, Typed};

use crate::{error::Result, pod::spec};

/// Called with a pod's UID when an object it holds has changed.
pub(crate) type OnChange = Arc<dyn Fn(&str) + Send + Sync>;

type Key = (String, String);

struct Watched<T> {
    informer: Arc<Informer<T>>,
    holders: Arc<Mutex<HashSet<String>>>,
    cancel: CancellationToken,
}

/// The cache.
pub(crate) struct Objects {
    client: Client,
    cancel: CancellationToken,
    on_change: OnChange,
    config_maps: Mutex<HashMap<Key, Watched<ConfigMap>>>,
    secrets: Mutex<HashMap<Key, Watched<Secret>>>,
}

impl Objects {
    pub(crate) fn new(client: Client, on_change: OnChange, cancel: CancellationToken) -> Objects {
        Objects { client, cancel, on_change, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// Watches what this pod refers to, until [`Objects::release`].
    pub(crate) fn hold(&self, pod: &Pod) {
        let references = References::of(pod);
        let namespace = spec::namespace(pod);
        hold(&self.config_maps, self, namespace, &references.config_maps, spec::uid(pod));
        hold(&self.secrets, self, namespace, &references.secrets, spec::uid(pod));
    }

    /// The pod is gone.
    pub(crate) fn release(&self, uid: &str) {
        release(&self.config_maps, uid);
        release(&self.secrets, uid);
    }

    /// How many objects are watched.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        self.config_maps.lock().len() + self.secrets.lock().len()
    }

    /// A ConfigMap, or None if there is none of that name.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>> {
        self.get(&self.config_maps, namespace, name).await
    }

    /// A Secret, or None if there is none of that name.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>> {
        self.get(&self.secrets, namespace, name).await
    }

    /// A claim, or None if there is none of that name. A node may get claims that its pods use, and not watch them.
    pub(crate) async fn claim(&self, namespace: &str, name: &str) -> Result<Option<PersistentVolumeClaim>> {
        found(self.client.get(Some(namespace), name).await)
    }

    /// A volume, or None if there is none of that name.
    pub(crate) async fn volume(&self, name: &str) -> Result<Option<PersistentVolume>> {
        found(self.client.get(None, name).await)
    }

    async fn get<T: Typed>(&self, cache: &Mutex<HashMap<Key, Watched<T>>>, namespace: &str, name: &str) -> Result<Option<Arc<T>>> {
        let watched = cache.lock().get(&(namespace.to_string(), name.to_string())).map(|w| w.informer.clone());
        if let Some(object) = watched.filter(|i| i.is_synced()).and_then(|i| i.get(namespace, name)) {
            return Ok(Some(object));
        }
        // The API server is also asked when the watch has no such object: the watch may be a moment behind, and "not found" ends up in a
        // pod's status.
        found(self.client.get::<T>(Some(namespace), name).await).map(|object| object.map(Arc::new))
    }
}

fn found<T>(answer: Result<T, trireme_client::Error>) -> Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn hold<T: Typed>(cache: &Mutex<HashMap<Key, Watched<T>>>, objects: &Objects, namespace: &str, names: &HashSet<String>, uid: &str) {
    let mut cache = cache.lock();
    for name in names {
        let watched = cache.entry((namespace.to_string(), name.clone())).or_insert_with(|| {
            let cancel = objects.cancel.child_token();
            let options = InformerOptions {
                namespace: Some(namespace.to_string()),
                field_selector: Some(format!("metadata.name={name}")),
                ..Default::default()
            };
            let informer = Informer::start_with(
                objects.client.clone(),
                options,
                |object: &mut T| object.meta_mut().managed_fields = None,
                cancel.clone(),
            );
            let holders: Arc<Mutex<HashSet<String>>> = Arc::default();
            let (told, on_change) = (holders.clone(), objects.on_change.clone());
            informer.on_event(move |_| {
                let uids: Vec<String> = told.lock().iter().cloned().collect();
                for uid in uids {
                    on_change(&uid);
                }
            });
            Watched { informer, holders, cancel }
        });
        watched.holders.lock().insert(uid.to_string());
    }
}

fn release<T>(cache: &Mutex<HashMap<Key, Watched<T>>>, uid: &str) {
    cache.lock().retain(|_, watched| {
        let mut holders = watched.holders.lock();
        if holders.remove(uid) && holders.is_empty() {
            watched.cancel.cancel();
            return false;
        }
        true
    });
}

/// The names a pod refers to.
#[derive(Default)]
struct References {
    config_maps: HashSet<String>,
    secrets: HashSet<String>,
}

impl References {
    fn of(pod: &Pod) -> References {
        let mut all = References::default();
        let pod_spec = spec::pod_spec(pod);
        for (_, container) in spec::all_containers(pod) {
            for from in container.env_from.iter().flatten() {
                all.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
                all.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
            }
            for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
                all.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
                all.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
            }
        }
        for volume in pod_spec.volumes.iter().flatten() {
            all.config_maps.extend(volume.config_map.as_ref().map(|r| r.name.clone()));
            all.secrets.extend(volume.secret.as_ref().and_then(|r| r.secret_name.clone()));
            for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
                all.config_maps.extend(source.config_map.as_ref().map(|r| r.name.clone()));
                all.secrets.extend(source.secret.as_ref().map(|r| r.name.clone()));
            }
        }
        all.secrets.extend(pod_spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
        all
    }
}
