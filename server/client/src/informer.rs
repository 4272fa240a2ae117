//! A local, always fresh copy of a collection: one list, then one watch, resumed where it broke.
//!
//! Owns the objects as `Arc<T>` without `managedFields`, any number of indexes, and the order of events: handlers run
//! one event at a time, after the store holds it. There is no timer-driven relist: only "410 Gone", a first start, or,
//! at the last, [`Informer::ensure_revision`] lists.
//!
//! Must not: block. Handlers put keys into queues and return; a handler must not register handlers on its own
//! informer.
//!
//! Answers to: client-go's `tools/cache` (Reflector, SharedIndexInformer).

mod run;
mod store;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{Client, Object, ResourceType, Typed};
use store::{IndexFn, Store};

/// Where an object is: its namespace (empty if it has none) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, or the empty string.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of an object.
    #[must_use]
    pub fn of<T: Object>(object: &T) -> Self {
        Self::new(object.namespace(), object.name())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// What happened to an object.
#[derive(Debug)]
pub enum Event<T> {
    /// It is new to us.
    Added(Arc<T>),
    /// It changed (or was replaced by another of the same name: compare uids).
    Updated {
        /// As it was.
        old: Arc<T>,
        /// As it is.
        new: Arc<T>,
    },
    /// It is gone; the last content known.
    Deleted(Arc<T>),
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        match self {
            Event::Added(object) => Event::Added(Arc::clone(object)),
            Event::Updated { old, new } => Event::Updated { old: Arc::clone(old), new: Arc::clone(new) },
            Event::Deleted(object) => Event::Deleted(Arc::clone(object)),
        }
    }
}

impl<T> Event<T> {
    /// The newest content the event knows.
    #[must_use]
    pub fn object(&self) -> &Arc<T> {
        match self {
            Event::Added(object) | Event::Deleted(object) | Event::Updated { new: object, .. } => object,
        }
    }

    /// The content before, if it was known.
    #[must_use]
    pub fn old(&self) -> Option<&Arc<T>> {
        match self {
            Event::Updated { old, .. } => Some(old),
            _ => None,
        }
    }
}

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

type Handler<T> = Box<dyn Fn(&Event<T>) + Send + Sync>;

struct Handlers<T> {
    list: Vec<(u64, Handler<T>)>,
    next_id: u64,
}

/// Keeps a handler registered; dropping it ends that. Must not be dropped inside a handler of the same informer.
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
    /// Held while an event goes into the store and through the handlers, so that a late handler's replay and the live
    /// events neither overlap nor leave a gap.
    handlers: Arc<Mutex<Handlers<T>>>,
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

    /// Starts to follow a typed resource; every object goes through `transform` first, to drop what nobody here reads.
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
            handlers: Arc::new(Mutex::new(Handlers { list: Vec::new(), next_id: 0 })),
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

    /// Adds an index: `values` names the values under which an object is found. Adding a name twice is the same as once.
    pub fn add_index(&self, name: &'static str, values: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) {
        let values: IndexFn<T> = Box::new(values);
        self.store.write().add_index(name, values);
    }

    /// The objects that an index finds under a value, ordered by namespace and name.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<T>> {
        self.store.read().by_index(name, value)
    }

    /// Calls the handler for every event from now on, after an `Added` for every object that is already there.
    pub fn on_event(&self, handler: impl Fn(&Event<T>) + Send + Sync + 'static) {
        self.register(Box::new(handler));
    }

    /// Like [`on_event`](Self::on_event), until the subscription is dropped.
    pub fn subscribe(&self, handler: impl Fn(&Event<T>) + Send + Sync + 'static) -> Subscription {
        let id = self.register(Box::new(handler));
        let handlers = Arc::downgrade(&self.handlers);
        let end = move || {
            if let Some(handlers) = handlers.upgrade() {
                handlers.lock().list.retain(|(known, _)| *known != id);
            }
        };
        Subscription { end: Some(Box::new(end)) }
    }

    fn register(&self, handler: Handler<T>) -> u64 {
        let mut handlers = self.handlers.lock();
        for object in self.list() {
            handler(&Event::Added(object));
        }
        let id = handlers.next_id;
        handlers.next_id += 1;
        handlers.list.push((id, handler));
        id
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

    /// Waits until everything up to this revision is in.
    pub async fn wait_revision(&self, revision: i64) {
        self.wait(|progress| progress.synced && progress.revision >= revision).await;
    }

    /// Waits until everything up to this revision is in. If neither events nor bookmarks say so, asks: a watch that is
    /// opened anew soon says how far it is, and if even that does not help, a list does.
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
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|progress| condition(progress)).await;
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
        let handlers = self.handlers.lock();
        let old = self.store.write().insert(Arc::clone(&object));
        let event = match old {
            Some(old) => Event::Updated { old, new: object },
            None => Event::Added(object),
        };
        handlers.list.iter().for_each(|(_, handler)| handler(&event));
    }

    /// Removes; `last` is the object as the server saw it last.
    fn remove(&self, namespace: &str, name: &str, last: Option<T>) {
        let handlers = self.handlers.lock();
        let Some(known) = self.store.write().remove(namespace, name) else { return };
        let event = Event::Deleted(last.map_or(known, |last| self.prepare(last)));
        handlers.list.iter().for_each(|(_, handler)| handler(&event));
    }

    /// Makes the store hold exactly these objects.
    fn replace_all(&self, objects: Vec<T>) {
        let mut keep = std::collections::HashSet::with_capacity(objects.len());
        for object in objects {
            keep.insert(ObjectKey::of(&object));
            let same = self.get(object.namespace(), object.name()).is_some_and(|known| {
                known.meta().resource_version.is_some() && known.meta().resource_version == object.meta().resource_version
            });
            if !same {
                self.upsert(object);
            }
        }
        for known in self.list() {
            if !keep.contains(&ObjectKey::of(&*known)) {
                self.remove(known.namespace(), known.name(), None);
            }
        }
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
