//! The informers of a server, by the type of their objects: each runs once, however many controllers read it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Informer, InformerOptions, Object, Typed};

/// How long an informer may be silent before it is asked how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// An informer of any type, as far as waiting for it goes.
pub(crate) trait Followed: Send + Sync {
    /// Waits until everything up to this revision is in.
    fn wait_revision(&self, revision: i64) -> BoxFuture<'_, ()>;
    /// The same, and asks if neither events nor bookmarks say so in time.
    fn ensure_revision(&self, revision: i64) -> BoxFuture<'_, ()>;
}

impl<T: Object> Followed for Informer<T> {
    fn wait_revision(&self, revision: i64) -> BoxFuture<'_, ()> {
        Box::pin(Informer::wait_revision(self, revision))
    }

    fn ensure_revision(&self, revision: i64) -> BoxFuture<'_, ()> {
        Box::pin(Informer::ensure_revision(self, revision, PATIENCE))
    }
}

#[derive(Default)]
struct Running {
    /// `Arc<Informer<T>>` by the type of the objects and of their scope.
    by_type: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    followed: Vec<Arc<dyn Followed>>,
}

/// All informers that were asked for.
pub(crate) struct Informers {
    client: Client,
    cancel: CancellationToken,
    running: Mutex<Running>,
}

impl Informers {
    pub(crate) fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, running: Mutex::default() }
    }

    /// The informer of a type and a part of its objects; starts it at the first call.
    pub(crate) fn get<T: Typed, S: Scope>(&self) -> Arc<Informer<T>> {
        let mut running = self.running.lock();
        let id = TypeId::of::<(T, S)>();
        if let Some(known) = running.by_type.get(&id).and_then(|known| known.downcast_ref::<Arc<Informer<T>>>()) {
            return Arc::clone(known);
        }
        let informer = Informer::<T>::start(self.client.clone(), S::options(), self.cancel.clone());
        running.by_type.insert(id, Box::new(Arc::clone(&informer)));
        running.followed.push(Arc::clone(&informer) as Arc<dyn Followed>);
        informer
    }

    /// Sees to it that every informer passes this revision.
    pub(crate) async fn ensure_revision(&self, revision: i64) {
        let followed = self.running.lock().followed.clone();
        futures::future::join_all(followed.iter().map(|informer| informer.ensure_revision(revision))).await;
    }
}

/// Which objects of a type an informer holds.
pub(crate) trait Scope: 'static {
    fn options() -> InformerOptions;
}

/// All objects.
pub(crate) struct All;

impl Scope for All {
    fn options() -> InformerOptions {
        InformerOptions::default()
    }
}

/// One controller's request for informers; remembers what it got.
pub(crate) struct Request<'a> {
    informers: &'a Informers,
    followed: Vec<Arc<dyn Followed>>,
}

impl<'a> Request<'a> {
    pub(super) fn new(informers: &'a Informers) -> Self {
        Self { informers, followed: Vec::new() }
    }

    fn informer<T: Typed, S: Scope>(&mut self) -> Arc<Informer<T>> {
        let informer = self.informers.get::<T, S>();
        self.followed.push(Arc::clone(&informer) as Arc<dyn Followed>);
        informer
    }

    pub(super) fn into_followed(self) -> Vec<Arc<dyn Followed>> {
        self.followed
    }
}

/// What a controller reads: an informer, a part of one, or a tuple of such.
pub(crate) trait Reads: Clone + Send + Sync + 'static {
    fn request(request: &mut Request<'_>) -> Self;
}

impl Reads for () {
    fn request(_: &mut Request<'_>) -> Self {}
}

impl<T: Typed> Reads for Arc<Informer<T>> {
    fn request(request: &mut Request<'_>) -> Self {
        request.informer::<T, All>()
    }
}

/// The informer of a part of a type's objects.
pub(crate) struct Part<T, S>(Arc<Informer<T>>, PhantomData<fn() -> S>);

impl<T, S> Clone for Part<T, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<T, S> Deref for Part<T, S> {
    type Target = Arc<Informer<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Typed, S: Scope> Reads for Part<T, S> {
    fn request(request: &mut Request<'_>) -> Self {
        Self(request.informer::<T, S>(), PhantomData)
    }
}

macro_rules! tuple {
    ($($part:ident),+) => {
        impl<$($part: Reads),+> Reads for ($($part,)+) {
            fn request(request: &mut Request<'_>) -> Self {
                ($($part::request(request),)+)
            }
        }
    };
}

tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
