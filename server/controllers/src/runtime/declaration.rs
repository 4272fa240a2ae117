//! From a controller's declaration to its work.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tracing::{debug, warn};
use trireme_client::WorkQueue;

use super::informers::Followed;
use super::{Context, Controller, Informers, Lead, Next, Reads, Request, Watches};
use crate::Error;

/// A controller in the list of all.
pub(crate) struct Declaration {
    prepare: fn(&Informers) -> Arc<dyn Prepared>,
}

/// A controller whose informers run. It works once for each leadership.
pub(crate) trait Prepared: Send + Sync {
    /// Waits until its informers have passed the leadership's revision, works until the leadership ends, and returns when
    /// nothing of it works any more.
    fn lead(self: Arc<Self>, lead: Arc<Lead>) -> BoxFuture<'static, ()>;
}

impl Declaration {
    /// The declaration of a controller that works on a queue.
    pub(crate) fn of<C: Controller>() -> Self {
        Self {
            prepare: |informers| {
                let mut request = Request::new(informers);
                let reads = C::Reads::request(&mut request);
                Arc::new(Queued::<C> { reads, followed: request.into_followed() })
            },
        }
    }

    /// The declaration of a controller with a life of its own.
    pub(crate) fn custom(prepare: fn(&Informers) -> Arc<dyn Prepared>) -> Self {
        Self { prepare }
    }

    /// Starts its informers, those that do not run yet.
    pub(crate) fn prepare(&self, informers: &Informers) -> Arc<dyn Prepared> {
        (self.prepare)(informers)
    }
}

struct Queued<C: Controller> {
    reads: C::Reads,
    /// The informers in `reads`: they were recorded when `reads` asked for them.
    followed: Vec<Arc<dyn Followed>>,
}

impl<C: Controller> Prepared for Queued<C> {
    fn lead(self: Arc<Self>, lead: Arc<Lead>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let caught_up = futures::future::join_all(self.followed.iter().map(|informer| informer.wait_revision(lead.revision)));
            tokio::select! {
                _ = caught_up => {}
                () = lead.cancel.cancelled() => return,
            }
            let context = Context::new(&lead, C::NAME, C::COMPONENT);
            let Some(controller) = C::new(self.reads.clone(), &context) else { return };
            let controller = Arc::new(controller);
            let queue = WorkQueue::named(C::QUEUE, lead.metrics().queues());
            let mut watches = Watches::new(&queue);
            controller.watch(&mut watches);
            let subscriptions = watches.into_subscriptions();
            let mut workers = JoinSet::new();
            for _ in 0..lead.options.concurrency.max(1) {
                let (controller, queue, cancel) = (Arc::clone(&controller), queue.clone(), lead.cancel.clone());
                workers.spawn(async move {
                    let controller = &*controller;
                    let reconcile = |key: C::Key| async move { controller.reconcile(&key).await };
                    cancel.run_until_cancelled(work(C::COMPONENT, &queue, reconcile)).await
                });
            }
            lead.cancel.cancelled().await;
            drop(subscriptions);
            while workers.join_next().await.is_some() {}
        })
    }
}

/// Takes key after key from a queue and reconciles it, until the queue ends.
pub(crate) async fn work<K, R>(component: &'static str, queue: &WorkQueue<K>, reconcile: impl Fn(K) -> R)
where
    K: Clone + Eq + Hash + Debug,
    R: Future<Output = Result<Next, Error>>,
{
    while let Some(key) = queue.get().await {
        match reconcile(key.clone()).await {
            Ok(next) => {
                queue.forget(&key);
                if let Next::After(wait) = next {
                    queue.add_after(key.clone(), wait);
                }
            }
            Err(error) => {
                if error.is_expected() {
                    debug!(controller = component, ?key, %error, "to be tried again");
                } else {
                    warn!(controller = component, ?key, %error, "to be tried again");
                }
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}
