//! The life of the controllers under one leadership: subscriptions, queues and workers that end together.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use trireme_client::metrics::ComponentMetrics;
use trireme_client::{Client, EventRecorder, Subscription, WorkQueue};

use crate::{ControllerOptions, Error, InformerSet};

/// What a reconcile wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: events will tell.
    Wait,
    /// To look again after this time.
    After(Duration),
}

/// One controller: makes one key right.
pub(crate) trait Reconcile<K>: Send + Sync + 'static {
    fn reconcile(&self, key: &K) -> impl Future<Output = Result<Next, Error>> + Send;
}

/// Everything that lives as long as a leadership.
pub(crate) struct Lead {
    client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    pub(crate) informers: Arc<InformerSet>,
    pub(crate) options: Arc<ControllerOptions>,
    recorder: EventRecorder,
    metrics: ComponentMetrics,
    pub(crate) cancel: CancellationToken,
    tasks: JoinSet<()>,
    subscriptions: Vec<Subscription>,
}

impl Lead {
    pub(crate) fn new(
        client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
        informers: Arc<InformerSet>,
        options: Arc<ControllerOptions>,
        recorder: EventRecorder,
        metrics: ComponentMetrics,
        cancel: CancellationToken,
    ) -> Self {
        Self { client_for, informers, options, recorder, metrics, cancel, tasks: JoinSet::new(), subscriptions: Vec::new() }
    }

    /// The fenced client of a controller.
    pub(crate) fn client(&self, name: &str) -> Client {
        (self.client_for)(name)
    }

    /// The recorder of a controller.
    pub(crate) fn recorder(&self, component: &str) -> EventRecorder {
        self.recorder.for_component(component)
    }

    /// A queue, under the name that upstream's controller gives it in `workqueue_*`.
    pub(crate) fn queue<K: Clone + Eq + Hash + Send + Sync + 'static>(&self, name: &'static str) -> WorkQueue<K> {
        WorkQueue::named(name, self.metrics.queues())
    }

    /// Keeps a subscription as long as the leadership.
    pub(crate) fn keep(&mut self, subscription: Subscription) {
        self.subscriptions.push(subscription);
    }

    /// Runs a task that ends with the leadership.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Works on a queue with the configured number of workers.
    pub(crate) fn work<K, R>(&mut self, name: &'static str, queue: &WorkQueue<K>, reconciler: &Arc<R>)
    where
        K: Clone + Eq + Hash + Send + Sync + std::fmt::Debug + 'static,
        R: Reconcile<K>,
    {
        for _ in 0..self.options.concurrency.max(1) {
            let (queue, reconciler) = (queue.clone(), Arc::clone(reconciler));
            self.spawn(async move {
                while let Some(key) = queue.get().await {
                    work_one(name, &queue, &*reconciler, key).await;
                }
            });
        }
    }

    /// Works on a queue once something is ready.
    pub(crate) fn work_when<K, R>(
        &mut self,
        name: &'static str,
        queue: &WorkQueue<K>,
        reconciler: &Arc<R>,
        ready: tokio::sync::watch::Receiver<bool>,
    ) where
        K: Clone + Eq + Hash + Send + Sync + std::fmt::Debug + 'static,
        R: Reconcile<K>,
    {
        for _ in 0..self.options.concurrency.max(1) {
            let (queue, reconciler, mut ready) = (queue.clone(), Arc::clone(reconciler), ready.clone());
            self.spawn(async move {
                if ready.wait_for(|ready| *ready).await.is_err() {
                    return;
                }
                while let Some(key) = queue.get().await {
                    work_one(name, &queue, &*reconciler, key).await;
                }
            });
        }
    }

    /// Ends everything and waits for it.
    pub(crate) async fn stop(mut self) {
        self.subscriptions.clear();
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn work_one<K, R>(name: &'static str, queue: &WorkQueue<K>, reconciler: &R, key: K)
where
    K: Clone + Eq + Hash + std::fmt::Debug,
    R: Reconcile<K>,
{
    match reconciler.reconcile(&key).await {
        Ok(next) => {
            queue.forget(&key);
            if let Next::After(wait) = next {
                queue.add_after(key.clone(), wait);
            }
        }
        Err(error) => {
            if error.is_expected() {
                debug!(controller = name, ?key, %error, "to be tried again");
            } else {
                warn!(controller = name, ?key, %error, "to be tried again");
            }
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(&key);
}
