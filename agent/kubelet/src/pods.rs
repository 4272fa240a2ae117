//! All pods of this node: one worker each, fed from the watch and woken by the runtime's changes.
//!
//! The runtime of this generation tells no events, so it is listed: every second while something is expected to change, seldom
//! when all is quiet. Only pods whose sandboxes or containers changed state are woken. Nothing is concluded from a watch that has
//! not been read once: an agent that cannot reach a server leaves every container alone.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use trireme_client::{Event, Object};
use trireme_proto::cri::{self, CgroupDriver};

use crate::{
    clock::blocking,
    container::resources,
    core::Core,
    csi::Csi,
    error::{Error, Result},
    pod::{
        backoff,
        spec::{self, Qos},
        verdict::Verdict,
        worker::{Desired, Signals, Worker},
    },
    runtime::keys,
    static_pods::is_mirror,
};

/// Between looks at the runtime while pods come, go or end.
const BUSY: Duration = Duration::from_secs(1);
/// Between looks when nothing has happened for a while.
const QUIET: Duration = Duration::from_secs(5);
/// How long after the last change we keep looking often.
const STAYS_BUSY: Duration = Duration::from_secs(30);
/// How long a pod that the API server no longer has may take to end.
const ORPHAN_GRACE_SECS: i64 = 1;

struct Handle {
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    stale_content: Arc<AtomicBool>,
    sentence: Arc<Mutex<Option<Verdict>>>,
    is_static: bool,
}

/// The workers by pod UID.
#[derive(Default)]
pub(crate) struct Handles {
    by_uid: Mutex<HashMap<String, Handle>>,
}

impl Handles {
    /// An object that this pod refers to has changed.
    pub(crate) fn content_changed(&self, uid: &str) {
        if let Some(handle) = self.by_uid.lock().get(uid) {
            handle.stale_content.store(true, Ordering::Release);
            handle.wake.notify_one();
        }
    }

    /// Has a pod's worker end it.
    pub(crate) fn evict(&self, uid: &str, verdict: Verdict) {
        if let Some(handle) = self.by_uid.lock().get(uid) {
            *handle.sentence.lock() = Some(verdict);
            handle.wake.notify_one();
        }
    }

    fn wake(&self, uid: &str) {
        if let Some(handle) = self.by_uid.lock().get(uid) {
            handle.wake.notify_one();
        }
    }
}

/// Feeds the workers.
pub(crate) struct Pods {
    core: Arc<Core>,
    handles: Arc<Handles>,
    cancel: CancellationToken,
    /// Milliseconds since `began` of the last change.
    changed_at_ms: AtomicU64,
    began: Instant,
    stir: Notify,
    /// The runtime has answered: workers may start.
    is_begun: AtomicBool,
    /// True while the runtime answers.
    pub(crate) runtime_up: watch::Sender<bool>,
}

impl Pods {
    pub(crate) fn new(core: Arc<Core>, handles: Arc<Handles>, cancel: CancellationToken) -> Arc<Pods> {
        Arc::new(Pods {
            core,
            handles,
            cancel,
            changed_at_ms: AtomicU64::new(0),
            began: Instant::now(),
            stir: Notify::new(),
            is_begun: AtomicBool::new(false),
            runtime_up: watch::Sender::new(false),
        })
    }

    /// Runs until cancelled.
    pub(crate) async fn run(self: Arc<Pods>) {
        let cancel = self.cancel.clone();
        cancel.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self: &Arc<Pods>) {
        // Pods of the runtime first: those that run but are not wanted must be told apart from those that run and are wanted.
        let mut known = loop {
            match self.begin().await {
                Ok(seen) => break seen,
                Err(error) => {
                    self.runtime_up.send_replace(false);
                    tracing::warn!(%error, "waiting for the container runtime");
                    tokio::time::sleep(BUSY).await;
                }
            }
        };
        self.runtime_up.send_replace(true);
        self.is_begun.store(true, Ordering::Release);
        self.settle_statics();
        // Static pods do not wait for the API server; nothing else is started or ended before its first answer.
        let mut synced = std::pin::pin!(self.core.pods.wait_synced());
        let mut is_synced = false;
        loop {
            let busy = self.began.elapsed().saturating_sub(Duration::from_millis(self.changed_at_ms.load(Ordering::Relaxed))) < STAYS_BUSY
                || self.anyone_may_end();
            let up = *self.runtime_up.borrow();
            tokio::select! {
                () = tokio::time::sleep(if busy || !up { BUSY } else { QUIET }) => {}
                () = self.stir.notified() => tokio::time::sleep(Duration::from_millis(200)).await,
                () = &mut synced, if !is_synced => {
                    is_synced = true;
                    let me = self.clone();
                    self.core.pods.api().on_event(move |event| me.on_event(event));
                    self.adopt_orphans(&known);
                    self.sweep_leftovers(&known);
                    self.core.devices.release_others(|uid| self.handles.by_uid.lock().contains_key(uid));
                    self.core.csi.clean_all();
                }
            }
            match self.look().await {
                Ok(seen) => {
                    if !self.runtime_up.send_replace(true) {
                        tracing::info!("the container runtime is back");
                        self.check_driver().await;
                        self.wake_all();
                    }
                    self.tell_changes(&known, &seen);
                    known = seen;
                }
                Err(error) => {
                    if self.runtime_up.send_replace(false) {
                        tracing::warn!(%error, "the container runtime is away; running containers are left alone");
                    }
                }
            }
        }
    }

    /// The first look, once the runtime answers and this host can do what it asks for.
    async fn begin(&self) -> Result<BTreeMap<String, Seen>> {
        let seen = self.look().await?;
        let driver = self.core.runtime.cgroup_driver().await?.unwrap_or(CgroupDriver::Cgroupfs);
        let have = |resource: &str| self.core.allocatable.get(resource).copied().unwrap_or_default();
        let prepared = blocking(|| {
            self.core.cgroups.follow(driver)?;
            self.core.cgroups.prepare(have("cpu"), have("memory"))
        });
        let why =
            |e: &Error| format!("cgroups for pods cannot be made with the driver of the container runtime ({}): {e}", name_of(driver));
        *self.core.host_trouble.write() = prepared.as_ref().err().map(why);
        prepared.map(|()| seen)
    }

    /// A runtime that came back with another cgroup driver cannot be followed while pods of the old one are here.
    async fn check_driver(&self) {
        let Ok(Some(driver)) = self.core.runtime.cgroup_driver().await else { return };
        let changed = !self.core.cgroups.follows(driver);
        *self.core.host_trouble.write() = changed
            .then(|| format!("the container runtime's cgroup driver is now {}: restart the agent, and the node's pods", name_of(driver)));
    }

    /// Pods that run to completion are watched closely: a Job or a user waits for their end.
    fn anyone_may_end(&self) -> bool {
        self.core
            .pods
            .list()
            .iter()
            .any(|pod| !spec::is_finished(pod) && (spec::restart_policy(pod) != spec::RestartPolicy::Always || spec::is_deleted(pod)))
    }

    fn stir(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.changed_at_ms.store(now, Ordering::Relaxed);
    }

    fn on_event(self: &Arc<Pods>, event: &Event<Pod>) {
        if is_mirror(event.object()) {
            self.core.pods.mirrors_changed.notify_one();
            return self.settle_statics();
        }
        let changed = match event {
            Event::Updated { old, new } if old.uid() != new.uid() => {
                self.tell(old, true);
                self.tell(new, false);
                true
            }
            Event::Updated { old, new } => {
                self.tell(new, false);
                old.metadata.generation != new.metadata.generation || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
            }
            Event::Added(pod) => {
                self.tell(pod, false);
                true
            }
            Event::Deleted(pod) => {
                self.tell(pod, true);
                true
            }
        };
        if changed {
            self.stir();
            self.stir.notify_one();
            self.weigh_burstable();
        }
    }

    fn tell(self: &Arc<Pods>, pod: &Arc<Pod>, gone: bool) {
        let uid = spec::uid(pod).to_string();
        // It becomes a part of paths.
        if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
            tracing::warn!(pod = spec::display(pod), "a pod without a usable UID is ignored");
            return;
        }
        let desired = Desired { pod: pod.clone(), gone };
        let is_static = self.core.pods.is_static(&uid);
        let mut handles = self.handles.by_uid.lock();
        if let Some(handle) = handles.get(&uid) {
            let before = handle.desired.send_replace(desired);
            if before.pod.metadata.labels != pod.metadata.labels || before.pod.metadata.annotations != pod.metadata.annotations {
                handle.stale_content.store(true, Ordering::Release);
            }
            return;
        }
        let (sender, receiver) = watch::channel(desired);
        let handle = Handle {
            desired: sender,
            wake: Arc::default(),
            stale_content: Arc::new(AtomicBool::new(true)),
            sentence: Arc::default(),
            is_static,
        };
        let signals = Signals { wake: handle.wake.clone(), stale_content: handle.stale_content.clone(), sentence: handle.sentence.clone() };
        let worker = Worker::new(self.core.clone(), uid.clone(), receiver, signals);
        handles.insert(uid.clone(), handle);
        let (me, cancel) = (self.clone(), self.cancel.child_token());
        tokio::spawn(async move {
            worker.run(cancel).await;
            me.handles.by_uid.lock().remove(&uid);
            me.stir();
            if is_static && !me.cancel.is_cancelled() {
                // Its successor of the same name has waited.
                me.settle_statics();
            }
        });
    }

    /// Tells the workers of static pods what the manifests say now. A pod whose manifest has changed is another pod, and starts when the one
    /// before has ended.
    pub(crate) fn settle_statics(self: &Arc<Pods>) {
        if !self.is_begun.load(Ordering::Acquire) {
            return;
        }
        let wanted = self.core.pods.statics();
        let running: Vec<Desired> = {
            let handles = self.handles.by_uid.lock();
            handles.values().filter(|handle| handle.is_static).map(|handle| handle.desired.borrow().clone()).collect()
        };
        let is_same = |a: &Pod, b: &Pod| spec::uid(a) == spec::uid(b);
        for last in running.iter().filter(|last| !last.gone && !wanted.iter().any(|pod| is_same(pod, &last.pod))) {
            self.tell(&last.pod, true);
        }
        for pod in &wanted {
            let same_name = |other: &Pod| spec::name(other) == spec::name(pod) && spec::namespace(other) == spec::namespace(pod);
            if !running.iter().any(|last| same_name(&last.pod) && (last.gone || !is_same(&last.pod, pod))) {
                self.tell(pod, false);
            }
        }
        self.stir();
        self.stir.notify_one();
    }

    // === The runtime's side

    /// A fingerprint of each pod that the runtime has.
    async fn look(&self) -> Result<BTreeMap<String, Seen>> {
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        for sandbox in self.core.runtime.list_sandboxes(None).await? {
            let Some(uid) = sandbox.labels.get(keys::POD_UID) else { continue };
            let entry = seen.entry(uid.clone()).or_default();
            entry.states.insert((sandbox.id, sandbox.state));
            entry.metadata = sandbox.metadata.unwrap_or_default();
        }
        for container in self.core.runtime.list_containers(None).await? {
            let Some(uid) = container.labels.get(keys::POD_UID) else { continue };
            let entry = seen.entry(uid.clone()).or_default();
            if entry.metadata.name.is_empty() {
                let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
                entry.metadata = cri::PodSandboxMetadata {
                    name: label(keys::POD_NAME),
                    namespace: label(keys::POD_NAMESPACE),
                    uid: uid.clone(),
                    attempt: 0,
                };
            }
            entry.states.insert((container.id, container.state));
        }
        Ok(seen)
    }

    fn tell_changes(&self, before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) {
        let uids: HashSet<&String> = before.keys().chain(after.keys()).collect();
        for uid in uids {
            if before.get(uid).map(|s| &s.states) != after.get(uid).map(|s| &s.states) {
                self.stir();
                self.handles.wake(uid);
            }
        }
    }

    fn wake_all(&self) {
        for handle in self.handles.by_uid.lock().values() {
            handle.wake.notify_one();
        }
    }

    /// Pods of ours in the runtime that the API server does not have: they were deleted while we were away.
    fn adopt_orphans(self: &Arc<Pods>, seen: &BTreeMap<String, Seen>) {
        for (uid, seen) in seen {
            if self.handles.by_uid.lock().contains_key(uid) {
                continue;
            }
            tracing::info!(pod = seen.metadata.name, namespace = seen.metadata.namespace, uid, "a pod runs that nobody wants any more");
            let mut pod = Pod::default();
            pod.metadata.name = Some(seen.metadata.name.clone());
            pod.metadata.namespace = Some(seen.metadata.namespace.clone());
            pod.metadata.uid = Some(uid.clone());
            pod.metadata.deletion_timestamp = Some(Time(self.core.now()));
            pod.metadata.deletion_grace_period_seconds = Some(ORPHAN_GRACE_SECS);
            self.tell(&Arc::new(pod), true);
        }
    }

    /// Directories and cgroups of pods that neither side knows.
    fn sweep_leftovers(&self, seen: &BTreeMap<String, Seen>) {
        let known = |uid: &str| seen.contains_key(uid) || self.handles.by_uid.lock().contains_key(uid);
        let directories = std::fs::read_dir(self.core.options.data_dir.join("pods")).into_iter().flatten().flatten();
        for uid in directories.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|uid| !known(uid)) {
            let pod_dir = self.core.options.pod_dir(&uid);
            if self.core.csi.holds(&uid).unwrap_or_default() {
                // Its volumes' drivers may come late, or never.
                let (csi, cancel) = (self.core.csi.clone(), self.cancel.clone());
                tokio::spawn(async move { cancel.run_until_cancelled(release_leftover(csi, uid, pod_dir)).await });
            } else if let Err(error) = crate::volume::tear_down(&pod_dir) {
                tracing::warn!(%error, uid, "cannot remove what is left of a pod");
            }
        }
        for uid in self.core.cgroups.pods().into_iter().filter(|uid| !known(uid)) {
            if let Err(error) = self.core.cgroups.remove_pod(&uid) {
                tracing::warn!(%error, uid, "cannot remove a pod's cgroup");
            }
        }
    }

    /// Burstable pods together weigh what they ask for together.
    fn weigh_burstable(&self) {
        let milli = self
            .core
            .pods
            .list()
            .iter()
            .filter(|p| !spec::is_finished(p) && spec::qos(p) == Qos::Burstable)
            .map(|p| resources::pod_request(p, "cpu").milli())
            .sum();
        if let Err(error) = self.core.cgroups.set_burstable_cpu(milli) {
            tracing::debug!(%error, "cannot set the weight of burstable pods");
        }
    }
}

/// Gives a pod's volumes back to their drivers, and removes what is left of the pod.
async fn release_leftover(csi: Arc<Csi>, uid: String, pod_dir: PathBuf) {
    let mut failures = 0;
    loop {
        let released = match csi.release_pod(&uid).await {
            Ok(()) => blocking(|| crate::volume::tear_down(&pod_dir)),
            failed => failed,
        };
        let Err(error) = released else { return };
        tracing::warn!(%error, uid, "cannot release the volumes of a pod that is gone, will be retried");
        tokio::time::sleep(backoff::volume_retry(failures).unsigned_abs()).await;
        failures = failures.saturating_add(1);
    }
}

fn name_of(driver: CgroupDriver) -> &'static str {
    match driver {
        CgroupDriver::Systemd => "systemd",
        CgroupDriver::Cgroupfs => "cgroupfs",
    }
}

/// One pod in the runtime.
#[derive(Default)]
struct Seen {
    metadata: cri::PodSandboxMetadata,
    states: HashSet<(String, i32)>,
}
