//! The shell: informers feed queue and cache, one loop schedules, many tasks bind.
//!
//! [`events`] takes in what happens, [`place`] decides and binds, [`report`] tells why a pod waits, [`evict`] sends victims
//! away. All writes carry the leadership's fence.

mod events;
mod evict;
mod place;
mod report;
mod volumes;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, EventRecorder, Object, Subscription};

use crate::cache::Cache;
use crate::framework::{Plugin, Wake};
use crate::metrics::{Look, Metrics, Outcome, Standing};
use crate::queue::Queue;
use crate::{SchedulerInformers, SchedulerOptions, plugins};
use place::Placement;

pub(crate) struct Shared {
    client: Client,
    recorder: EventRecorder,
    informers: SchedulerInformers,
    options: SchedulerOptions,
    plugins: Vec<Box<dyn Plugin>>,
    metrics: Metrics,
    /// Locked in this order.
    cache: Mutex<Cache>,
    queue: Mutex<Queue>,
    wake: Notify,
}

pub(crate) async fn run(
    client: Client,
    recorder: EventRecorder,
    informers: SchedulerInformers,
    options: SchedulerOptions,
    metrics: Metrics,
    cancel: CancellationToken,
) {
    let queue = Queue::new(options.initial_backoff, options.max_backoff, options.unschedulable_flush, Instant::now());
    let shared = Arc::new(Shared {
        client,
        recorder,
        queue: Mutex::new(queue.counting(metrics.incoming.clone())),
        cache: Mutex::new(Cache::default()),
        plugins: plugins::default_plugins(),
        informers,
        options,
        metrics,
        wake: Notify::new(),
    });
    let looked_at: Arc<dyn Look> = Arc::clone(&shared) as _;
    shared.metrics.watch(Arc::downgrade(&looked_at));
    let subscriptions = subscribe(&shared);
    let mut bindings = JoinSet::new();
    tokio::select! {
        () = cancel.cancelled() => {}
        () = schedule_all(&shared, &mut bindings) => {}
    }
    drop(subscriptions);
    // Bindings may be aborted: one that was sent already carries the fence, and one that was not sent is dropped.
    bindings.shutdown().await;
}

fn subscribe(shared: &Arc<Shared>) -> Vec<Subscription> {
    let sink = Arc::clone(shared);
    let nodes = shared.informers.nodes.subscribe(move |event| sink.on_node(event));
    let sink = Arc::clone(shared);
    let pods = shared.informers.pods.subscribe(move |event| sink.on_pod(event));
    let sink = Arc::clone(shared);
    let claims = shared.informers.claims.subscribe(move |event| sink.on_storage(event, Wake::ClaimChanged));
    let sink = Arc::clone(shared);
    let volumes = shared.informers.volumes.subscribe(move |event| sink.on_storage(event, Wake::VolumeChanged));
    let sink = Arc::clone(shared);
    let classes = shared.informers.classes.subscribe(move |event| sink.on_storage(event, Wake::ClassChanged));
    vec![nodes, pods, claims, volumes, classes]
}

async fn schedule_all(shared: &Arc<Shared>, bindings: &mut JoinSet<()>) {
    let permits = Arc::new(Semaphore::new(shared.options.parallel_bindings.max(1)));
    let mut tie = 0_u64;
    loop {
        while bindings.try_join_next().is_some() {}
        let began = Instant::now();
        let next = {
            let mut queue = shared.queue.lock();
            queue.pop(began).and_then(|pod| queue.attempt(pod.uid()).map(|attempt| (pod, attempt)))
        };
        let Some((pod, attempt)) = next else {
            shared.wait().await;
            continue;
        };
        tie = tie.wrapping_add(1);
        let placement = shared.place(&pod, tie);
        shared.metrics.decided(began.elapsed());
        let waits = matches!(placement, Placement::Wait(_));
        if matches!(placement, Placement::NotNeeded) {
            continue;
        }
        if waits {
            shared.metrics.attempted(Outcome::Unschedulable, began.elapsed());
        }
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let shared = Arc::clone(shared);
        bindings.spawn(async move {
            match placement {
                Placement::NotNeeded => {}
                Placement::Bind(node, steps) if steps.is_empty() => shared.bind(&pod, &node, attempt, began).await,
                Placement::Bind(node, steps) => {
                    // Volumes may take minutes, and others must not wait for them: there are as many such tasks as pods.
                    drop(permit);
                    return shared.bind_with_volumes(&pod, &node, &steps, attempt, began).await;
                }
                Placement::Wait(waiting) => shared.report(&pod, &waiting).await,
            }
            drop(permit);
        });
    }
}

impl Shared {
    fn wakes(&self, plugin: &str, wake: Wake) -> bool {
        self.plugins.iter().any(|known| known.name() == plugin && known.wakes_on(wake))
    }

    async fn wait(&self) {
        let due = {
            let queue = self.queue.lock();
            if queue.has_next() {
                return;
            }
            queue.next_due()
        };
        match due {
            Some(due) => tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            },
            None => self.wake.notified().await,
        }
    }

    fn happened(&self, wake: Wake) {
        self.queue.lock().happened(wake, |plugin, wake| self.wakes(plugin, wake), Instant::now());
        self.wake.notify_one();
    }

    /// Waiting, for us, and free to go.
    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let name = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        name == self.options.scheduler_name
            && pod.metadata.deletion_timestamp.is_none()
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
    }
}

impl Look for Shared {
    fn look(&self) -> Standing {
        let (nodes, pods, assumed) = self.cache.lock().size();
        let lengths = self.queue.lock().lengths();
        let held = |pod: &Pod| {
            let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
            events::node_name(pod).is_none() && !events::is_over(pod) && gates.is_some_and(|gates| !gates.is_empty())
        };
        Standing {
            active: lengths.active,
            backoff: lengths.backoff,
            unschedulable: lengths.unschedulable,
            gated: self.informers.pods.list().iter().filter(|pod| held(pod)).count(),
            refused_by: lengths.refused_by.into_iter().collect(),
            nodes,
            pods,
            assumed,
        }
    }
}
