//! The declaration of one controller.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use trireme_client::{Event, Informer, Object, Subscription, WorkQueue};

use super::{Context, Reads};
use crate::Error;

/// What a reconcile wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: an event will bring the key back.
    Wait,
    /// The key again after this time.
    After(Duration),
}

impl Next {
    /// The key again after so many seconds, if there is a number.
    pub(crate) fn after_secs(seconds: Option<i64>) -> Self {
        seconds.map_or(Next::Wait, |seconds| Next::After(Duration::from_secs(seconds.max(0).unsigned_abs())))
    }
}

/// One controller: its name, the informers it reads, the events that enqueue a key, and the reconciliation of one key.
pub(crate) trait Controller: Send + Sync + Sized + 'static {
    /// The ServiceAccount in kube-system whose permissions it has, and the manager of the fields it writes; upstream's name.
    const NAME: &'static str;
    /// The source of its events.
    const COMPONENT: &'static str = Self::NAME;
    /// Its queue in the `workqueue_*` metrics; upstream's name.
    const QUEUE: &'static str;
    /// The unit of work of one reconcile, usually an object's key.
    type Key: Clone + Eq + Hash + Debug + Send + Sync + 'static;
    /// The informers it reads. There is no other way to get one, and it works when all of them have caught up.
    type Reads: Reads;

    /// The controller for one leadership; `None` if the options leave it nothing to do.
    fn new(reads: Self::Reads, context: &Context) -> Option<Self>;

    /// Says which events put which keys into the queue.
    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, Self::Key>);

    /// Reconciles the key. Never runs twice at once for a key.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Next, Error>> + Send;
}

/// Where a controller registers its interest in events.
pub(crate) struct Watches<'a, K> {
    queue: &'a WorkQueue<K>,
    subscriptions: Vec<Subscription>,
}

impl<'a, K: Clone + Eq + Hash + Send + Sync + 'static> Watches<'a, K> {
    pub(super) fn new(queue: &'a WorkQueue<K>) -> Self {
        Self { queue, subscriptions: Vec::new() }
    }

    /// Every event of this informer puts the keys that `keys` returns for it into the queue.
    pub(crate) fn on<T: Object, I: IntoIterator<Item = K>>(
        &mut self,
        informer: &Informer<T>,
        keys: impl Fn(&Event<T>) -> I + Send + Sync + 'static,
    ) {
        let queue = self.queue.clone();
        self.subscriptions.push(informer.subscribe(move |event| keys(event).into_iter().for_each(|key| queue.add(key))));
    }

    /// The queue, for keys that come by other ways than the declared informers, or later.
    pub(crate) fn queue(&self) -> WorkQueue<K> {
        self.queue.clone()
    }

    /// Puts a key into the queue at the start.
    pub(crate) fn once(&mut self, key: K) {
        self.queue.add(key);
    }

    pub(super) fn into_subscriptions(self) -> Vec<Subscription> {
        self.subscriptions
    }
}
