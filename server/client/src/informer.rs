//! A local, always fresh copy of a collection: one list, then one watch, resumed where it broke.
//!
//! Owns the objects as `Arc<T>` without `managedFields`, any number of indexes, and the order of events: handlers run
//! one event at a time, after the store holds it and outside of its lock. A list replaces the content at once: no reader sees
//! half of it. There is no timer-driven relist: only "410 Gone", a first start, or, at the last,
//! [`Informer::ensure_revision`] lists.
//!
//! Must not: block. Handlers put keys into queues and return.
//!
//! Answers to: client-go's `tools/cache` (Reflector, SharedIndexInformer).

mod dispatch;
mod event;
mod index;
mod key;
mod run;
mod store;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{Client, Object, ResourceType, Typed};
use dispatch::{Dispatch, Handler};
pub use event::Event;
pub use index::Index;
pub use key::ObjectKey;
use store::Store;

/// How far an informer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Whether the first list is in.
    pub synced: bool,
    /// Everything up to this revision is in.
    pub revision: i64,
}

/// What to hold.
#[derive(Clone, Debug, Default)]
pub struct InformerOptions {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only objects with these labels.
    pub label_selector: Option<String>,
    /// Only objects with these fields.
    pub field_selector: Option<String>,
}

/// Keeps a handler registered; dropping it ends that.
#[must_use = "dropping the subscription unregisters the handler"]
pub struct Subscription {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

type Transform<T> = Box<dyn Fn(&mut T) + Send + Sync>;

/// The copy. Ends with its cancellation token; what it held stays readable.
pub struct Informer<T> {
    client: Client,
    resource: ResourceType,
    options: InformerOptions,
    store: RwLock<Store<T>>,
    dispatch: Arc<Dispatch<T>>,
    transform: Option<Transform<T>>,
    progress: watch::Sender<Synced>,
    rewatch: Notify,
    relist: Notify,
}

impl<T: Typed> Informer<T> {
    /// Starts to follow a typed resource.
    pub fn start(client: Client, options: InformerOptions, cancel: CancellationToken) -> Arc<Self> {
        Self::start_for(T::resource_type(), client, options, cancel)
    }

    /// Starts to follow a typed resource; every object goes through `transform` first, to drop fields that this process never reads.
    pub fn start_with(
        client: Client,
        options: InformerOptions,
        transform: impl Fn(&mut T) + Send + Sync + 'static,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        Self::launch(T::resource_type(), client, options, Some(Box::new(transform)), cancel)
    }
}

impl<T: Object> Informer<T> {
    /// Starts to follow any resource.
    pub fn start_for(resource: ResourceType, client: Client, options: InformerOptions, cancel: CancellationToken) -> Arc<Self> {
        Self::launch(resource, client, options, None, cancel)
    }

    /// Starts to follow any resource; every object goes through `transform` first.
    pub fn start_for_with(
        resource: ResourceType,
        client: Client,
        options: InformerOptions,
        transform: impl Fn(&mut T) + Send + Sync + 'static,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        Self::launch(resource, client, options, Some(Box::new(transform)), cancel)
    }

    fn launch(
        resource: ResourceType,
        client: Client,
        options: InformerOptions,
        transform: Option<Transform<T>>,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let informer = Arc::new(Self {
            client,
            resource,
            options,
            store: RwLock::new(Store::default()),
            dispatch: Arc::default(),
            transform,
            progress: watch::Sender::new(Synced::default()),
            rewatch: Notify::new(),
            relist: Notify::new(),
        });
        let runner = Arc::clone(&informer);
        tokio::spawn(async move {
            let done = cancel.clone();
            tokio::select! {
                () = done.cancelled() => {}
                () = run::run(&runner) => {}
            }
        });
        informer
    }

    /// The resource that is followed.
    pub fn resource(&self) -> &ResourceType {
        &self.resource
    }

    /// One object. Cluster-scoped objects have the empty namespace.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.store.read().get(namespace, name)
    }

    /// One object by its key.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.get(&key.namespace, &key.name)
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.store.read().list()
    }

    /// All objects of a namespace, ordered by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.store.read().list_namespace(namespace)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.store.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An index: `values` names the values under which an object is found. Asking again for a name gives the index that is
    /// there.
    pub fn index(self: &Arc<Self>, name: &'static str, values: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) -> Index<T> {
        self.store.write().add_index(name, Box::new(values));
        Index { informer: Arc::clone(self), name }
    }

    /// Calls the handler for every event from now on, after an `Added` for every object that is already there.
    pub fn on_event(&self, handler: impl Fn(&Event<T>) + Send + Sync + 'static) {
        self.register(handler);
    }

    /// Like [`on_event`](Self::on_event), until the subscription is dropped.
    pub fn subscribe(&self, handler: impl Fn(&Event<T>) + Send + Sync + 'static) -> Subscription {
        let handler = self.register(handler);
        let dispatch = Arc::downgrade(&self.dispatch);
        let end = move || {
            if let Some(dispatch) = dispatch.upgrade() {
                dispatch.unregister(&handler);
            }
        };
        Subscription { end: Some(Box::new(end)) }
    }

    fn register(&self, handler: impl Fn(&Event<T>) + Send + Sync + 'static) -> Arc<Handler<T>> {
        self.dispatch.register(Box::new(handler), || self.list())
    }

    /// How far it is.
    pub fn progress(&self) -> Synced {
        *self.progress.borrow()
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        self.progress().synced
    }

    /// Everything up to this revision is in.
    pub fn last_revision(&self) -> i64 {
        self.progress().revision
    }

    /// Waits for the first list.
    pub async fn wait_synced(&self) {
        self.wait(|progress| progress.synced).await;
    }

    /// Waits until the informer holds everything up to this revision.
    pub async fn wait_revision(&self, revision: i64) {
        self.wait(|progress| progress.synced && progress.revision >= revision).await;
    }

    /// Waits until the informer holds everything up to this revision. If neither events nor bookmarks show this in time, the watch is
    /// reopened, as a new watch soon sends a bookmark; if that does not help either, the informer lists.
    pub async fn ensure_revision(&self, revision: i64, patience: Duration) {
        const EVENTS_IN_FLIGHT: Duration = Duration::from_millis(50);
        if tokio::time::timeout(EVENTS_IN_FLIGHT, self.wait_revision(revision)).await.is_ok() {
            return;
        }
        self.rewatch.notify_one();
        while tokio::time::timeout(patience, self.wait_revision(revision)).await.is_err() {
            if self.is_synced() {
                self.relist.notify_one();
            }
        }
    }

    /// Waits until the condition holds; it is looked at again after each event.
    pub async fn wait_until(&self, condition: impl Fn() -> bool) {
        self.wait(|_| condition()).await;
    }

    async fn wait(&self, condition: impl Fn(&Synced) -> bool) {
        let mut receiver = self.progress.subscribe();
        loop {
            // Not under the channel's lock: a condition that reads the progress itself would wait behind a writer that waits for this lock.
            let progress = *receiver.borrow_and_update();
            // The sender lives in `self`, so waiting cannot fail.
            if condition(&progress) || receiver.changed().await.is_err() {
                return;
            }
        }
    }

    // --- called by the runner ---

    fn prepare(&self, mut object: T) -> Arc<T> {
        object.meta_mut().managed_fields = None;
        if let Some(transform) = &self.transform {
            transform(&mut object);
        }
        Arc::new(object)
    }

    fn upsert(&self, object: T) {
        let object = self.prepare(object);
        self.dispatch.change(|| vec![self.store.write().insert(object)]);
    }

    /// Removes; `last` is the object as the server saw it last.
    fn remove(&self, namespace: &str, name: &str, last: Option<T>) {
        let last = last.map(|last| self.prepare(last));
        self.dispatch.change(|| {
            let known = self.store.write().remove(namespace, name);
            known.map(|known| Event::Deleted(last.unwrap_or(known))).into_iter().collect()
        });
    }

    /// Makes the store hold exactly these objects, in one step for its readers.
    fn replace_all(&self, objects: Vec<T>) {
        let objects = objects.into_iter().map(|object| self.prepare(object)).collect();
        self.dispatch.change(|| self.store.write().replace(objects));
    }

    fn reached(&self, revision: i64) {
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.synced = true;
            progress.revision = progress.revision.max(revision);
            before != *progress
        });
    }
}
