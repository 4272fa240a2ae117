//! The shell: informers feed queue and cache, one loop schedules, many tasks bind.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use trireme_client::{Client, Event, EventKind, EventRecorder, Object, Patch, Subscription};

use crate::cache::Cache;
use crate::cycle::{self, Unfit};
use crate::framework::{Plugin, Snapshot, Wake};
use crate::metrics::{Look, Metrics, Outcome, Standing};
use crate::node_info::PodInfo;
use crate::queue::{Attempt, Queue};
use crate::{SchedulerInformers, SchedulerOptions, plugins};

struct Shared {
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
    let queue = Queue::new(options.initial_backoff, options.max_backoff, options.unschedulable_flush).counting(metrics.incoming.clone());
    let shared = Arc::new(Shared {
        client,
        recorder,
        queue: Mutex::new(queue),
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
    // A binding that was sent is fenced; one that was not need not be.
    bindings.shutdown().await;
}

fn subscribe(shared: &Arc<Shared>) -> Vec<Subscription> {
    let sink = Arc::clone(shared);
    let nodes = shared.informers.nodes.subscribe(move |event| sink.on_node(event));
    let sink = Arc::clone(shared);
    let pods = shared.informers.pods.subscribe(move |event| sink.on_pod(event));
    vec![nodes, pods]
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
        let placed = shared.place(&pod, tie);
        shared.metrics.decided(began.elapsed());
        match placed {
            Ok(None) => {}
            Ok(Some(node)) => {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let shared = Arc::clone(shared);
                bindings.spawn(async move {
                    shared.bind(&pod, &node, attempt, began).await;
                    drop(permit);
                });
            }
            Err(unfit) => {
                shared.metrics.attempted(Outcome::Unschedulable, began.elapsed());
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let shared = Arc::clone(shared);
                bindings.spawn(async move {
                    shared.report(&pod, &unfit).await;
                    drop(permit);
                });
            }
        }
    }
}

impl Shared {
    fn wakes(&self, plugin: &str, wake: Wake) -> bool {
        self.plugins.iter().any(|known| known.name() == plugin && known.wakes_on(wake))
    }

    async fn wait(&self) {
        let due = {
            let queue = self.queue.lock();
            if queue.has_active() {
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

    fn on_node(&self, event: &Event<Node>) {
        let node = event.object();
        match event {
            Event::Deleted(_) => self.cache.lock().remove_node(node.name()),
            _ => self.cache.lock().set_node(Arc::clone(node)),
        }
        let relevant = match event {
            Event::Added(_) => true,
            Event::Updated { old, new } => is_other_place(old, new),
            Event::Deleted(_) => false,
        };
        if relevant {
            self.happened(Wake::NodeChanged);
        }
    }

    fn on_pod(&self, event: &Event<Pod>) {
        if let Event::Updated { old, new } = event
            && old.uid() != new.uid()
        {
            self.pod_gone(old);
        }
        let pod = event.object();
        if matches!(event, Event::Deleted(_)) || is_over(pod) {
            self.pod_gone(pod);
            return;
        }
        if let Some(node) = node_name(pod) {
            let placed = match event.old() {
                Some(old) => node_name(old).is_none() || old.metadata.labels != pod.metadata.labels,
                None => true,
            };
            self.cache.lock().confirm(Arc::clone(pod), node);
            self.queue.lock().remove(pod.uid());
            if placed {
                self.happened(Wake::PodPlaced);
            }
        } else if self.is_ours(pod) {
            self.queue.lock().add(Arc::clone(pod), Instant::now());
            self.wake.notify_one();
        } else {
            self.queue.lock().remove(pod.uid());
        }
    }

    fn pod_gone(&self, pod: &Pod) {
        self.cache.lock().remove(pod.uid());
        self.queue.lock().remove(pod.uid());
        if node_name(pod).is_some() {
            self.happened(Wake::PodFreed);
        }
    }

    /// Waiting, for us, and free to go.
    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let name = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        name == self.options.scheduler_name
            && pod.metadata.deletion_timestamp.is_none()
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
    }

    /// Decides, and counts the pod where it is to go. `None`: the pod needs no decision any more.
    fn place(&self, pod: &Arc<Pod>, tie: u64) -> Result<Option<String>, Unfit> {
        let current = self.informers.pods.get(pod.namespace(), pod.name()).filter(|current| current.uid() == pod.uid());
        let Some(current) = current.filter(|current| node_name(current).is_none() && self.is_ours(current)) else {
            self.queue.lock().remove(pod.uid());
            return Ok(None);
        };
        let info = PodInfo::new(current);
        let mut cache = self.cache.lock();
        let node = {
            let namespaces: HashMap<_, _> =
                self.informers.namespaces.list().into_iter().map(|namespace| (namespace.name().to_owned(), namespace)).collect();
            let snapshot = Snapshot { nodes: cache.nodes().collect(), namespaces };
            cycle::schedule(&self.plugins, &info, &snapshot, tie)?
        };
        cache.assume(info, &node);
        Ok(Some(node))
    }

    async fn bind(&self, pod: &Arc<Pod>, node: &str, attempt: Attempt, began: Instant) {
        let binding = Instant::now();
        let bound = self.client.bind(pod.namespace(), pod.name(), pod.uid(), node).await;
        self.metrics.bound(bound.is_ok(), binding.elapsed());
        self.metrics.attempted(if bound.is_ok() { Outcome::Scheduled } else { Outcome::Error }, began.elapsed());
        match bound {
            Ok(()) => {
                self.metrics.placed(attempt.number, attempt.queued_at.elapsed());
                let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
                self.recorder.record(&**pod, EventKind::Normal, "Scheduled", message);
                self.queue.lock().remove(pod.uid());
            }
            Err(error) if error.is_not_found() => {
                debug!(namespace = pod.namespace(), pod = pod.name(), "gone before it was bound");
                self.cache.lock().forget(pod.uid());
                self.queue.lock().remove(pod.uid());
            }
            Err(error) => {
                warn!(namespace = pod.namespace(), pod = pod.name(), node, %error, "binding failed");
                self.cache.lock().forget(pod.uid());
                if !error.is_conflict() {
                    let message = format!("binding rejected: {error}");
                    self.recorder.record(&**pod, EventKind::Warning, "FailedScheduling", message);
                }
                // Whether it was bound after all, the informer tells; then the pod leaves the queue.
                let none = BTreeSet::new();
                self.queue.lock().failed(pod.uid(), none, |plugin, wake| self.wakes(plugin, wake), Instant::now());
                self.happened(Wake::PodFreed);
            }
        }
    }

    /// Says why the pod has no node, then lets it wait.
    async fn report(&self, pod: &Arc<Pod>, unfit: &Unfit) {
        let message = unfit.message();
        self.recorder.record(&**pod, EventKind::Warning, "FailedScheduling", message.clone());
        let reason = if unfit.nodes == 0 { "SchedulerError" } else { "Unschedulable" };
        if !says(pod, reason, &message) {
            let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
            let since = known_condition(pod)
                .filter(|known| known.status == "False")
                .and_then(|known| known.last_transition_time.as_ref())
                .map_or(now, |time| time.0);
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": since.to_string(),
            }]}});
            let patched = self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &Patch::Strategic(patch)).await;
            if let Err(error) = patched {
                debug!(namespace = pod.namespace(), pod = pod.name(), %error, "the condition was not written");
            }
        }
        let mut plugins = unfit.plugins.clone();
        if unfit.nodes == 0 {
            // Any node will change that.
            plugins.insert(plugins::NODE_NAME);
        }
        self.queue.lock().failed(pod.uid(), plugins, |plugin, wake| self.wakes(plugin, wake), Instant::now());
        self.wake.notify_one();
    }
}

impl Look for Shared {
    fn look(&self) -> Standing {
        let (nodes, pods, assumed) = self.cache.lock().size();
        let lengths = self.queue.lock().lengths();
        let held = |pod: &Pod| {
            let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
            node_name(pod).is_none() && !is_over(pod) && gates.is_some_and(|gates| !gates.is_empty())
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

fn known_condition(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")
}

fn says(pod: &Pod, reason: &str, message: &str) -> bool {
    known_condition(pod).is_some_and(|known| {
        known.status == "False" && known.reason.as_deref() == Some(reason) && known.message.as_deref() == Some(message)
    })
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether a node's change can matter to any pod.
fn is_other_place(old: &Node, new: &Node) -> bool {
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.unschedulable, spec.taints.clone()));
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels || spec(old) != spec(new) || allocatable(old) != allocatable(new)
}
