//! The task of one pod: looks at the runtime, plans, acts, reports; woken by changes, asleep otherwise.
//!
//! It alone starts and stops this pod's containers, so within one agent nothing races; across agents the runtime's names
//! protect (see `plan`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use trireme_client::{EventKind, Patch};
use trireme_proto::cri;

use super::{
    admit,
    backoff::{self, Backoff},
    kill,
    observed::{Observed, Observer, State},
    plan::{self, Plan, Situation},
    spec,
    start::{self, Target},
    status::{self, Facts, Verdict, Waiting},
};
use crate::{
    container::{config, hosts, sandbox},
    core::Core,
    error::{Error, Result},
    probe::Probes,
    volume::{self, Mounted},
};

mod end;

/// A failed step is tried again after this, unless it knows better.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
const RETRY_SANDBOX: SignedDuration = SignedDuration::from_secs(10);
/// While tarballs are imported.
const LOOK_FOR_IMAGES: SignedDuration = SignedDuration::from_millis(250);
/// Steps in one go before others are let in; each is followed by a fresh look.
const MAX_ROUNDS: usize = 16;
/// The last words of a container are cut here.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// What the API server wants of this pod.
#[derive(Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The object is gone: kill what is left and clean up.
    pub(crate) gone: bool,
}

impl Desired {
    /// The pod must not run (any more).
    fn is_ending(&self) -> bool {
        self.gone || spec::is_deleted(&self.pod) || spec::is_finished(&self.pod)
    }
}

/// What a round of work ended with.
enum Next {
    /// The pod is gone, and all traces of it.
    Done,
    /// Look again at this moment, or when woken.
    At(Option<Timestamp>),
}

pub(crate) struct Worker {
    core: Arc<Core>,
    uid: String,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    observer: Observer,
    probes: Probes,
    backoffs: BTreeMap<String, Backoff>,
    waiting: BTreeMap<String, Waiting>,
    not_before: BTreeMap<String, Timestamp>,
    verdict: Option<Verdict>,
    admitted: bool,
    /// Set from outside when an object changed that the pod's files are made of; true at first, for what changed while we were away.
    stale_content: Arc<AtomicBool>,
    volumes_refresh_at: Option<Timestamp>,
    /// Times in a row that the volumes could not be prepared.
    volume_failures: u32,
    last_volume_failure: Option<String>,
    torn_down: bool,
    /// The status that the API server took last, and its revision.
    reported: Option<(u64, PodStatus)>,
    /// When this pod was first seen, until it runs; none if it ran before.
    starting_since: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(
        core: Arc<Core>,
        uid: String,
        desired: watch::Receiver<Desired>,
        wake: Arc<Notify>,
        stale_content: Arc<AtomicBool>,
    ) -> Worker {
        Worker {
            core,
            uid,
            desired,
            probes: Probes::new(wake.clone()),
            wake,
            observer: Observer::default(),
            backoffs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            not_before: BTreeMap::new(),
            verdict: None,
            admitted: false,
            stale_content,
            volumes_refresh_at: None,
            volume_failures: 0,
            last_volume_failure: None,
            torn_down: false,
            reported: None,
            starting_since: None,
        }
    }

    /// Works until the pod is gone or the kubelet stops. Stopping leaves the containers as they are.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let wake = self.wake.clone();
        let began = Instant::now();
        self.starting_since = self.desired.borrow().pod.status.as_ref().is_none_or(|s| s.start_time.is_none()).then_some(began);
        let mut operation = "create";
        loop {
            let round = Instant::now();
            let synced = cancel.run_until_cancelled(self.sync()).await;
            self.core.metrics.synced(operation, round.elapsed());
            operation = "sync";
            let next = match synced {
                None => return,
                Some(Ok(Next::Done)) => return,
                Some(Ok(Next::At(at))) => at,
                Some(Err(error)) => {
                    tracing::info!(pod = spec::display(&self.desired.borrow().pod), %error, "pod sync will be retried");
                    let delay = if error.is_runtime_away() { SignedDuration::from_secs(1) } else { RETRY };
                    Some(self.core.now() + delay)
                }
            };
            let delay = next.map_or(Duration::from_secs(3600), |at| {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default() + Duration::from_millis(20)
            });
            tokio::select! {
                () = cancel.cancelled() => return,
                () = wake.notified() => {}
                changed = self.desired.changed() => match changed {
                    Ok(()) => operation = "update",
                    Err(_) => return,
                },
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn observe(&mut self, pod: &Pod) -> Result<Observed> {
        let mut observed = self.observer.observe(&self.core.runtime, &self.uid).await?;
        let pod_dir = self.core.options.pod_dir(&self.uid);
        for run in observed.containers.iter_mut().filter(|run| run.state == State::Exited && run.message.is_empty()) {
            run.message = last_words(pod, &pod_dir, run).await;
        }
        Ok(observed)
    }

    async fn sync(&mut self) -> Result<Next> {
        let desired = self.desired.borrow_and_update().clone();
        let pod = desired.pod.clone();
        if desired.is_ending() || self.verdict.is_some() {
            return self.end(&desired).await;
        }
        self.core.objects.hold(&pod);
        if self.stale_content.swap(false, Ordering::AcqRel) && volume::has_content(&pod) {
            self.volumes_refresh_at = Some(self.core.now());
        }
        for _ in 0..MAX_ROUNDS {
            let observed = self.observe(&pod).await?;
            if let Some(verdict) = self.judge(&pod, &observed) {
                self.core.events.pod(&pod, EventKind::Warning, &verdict.reason, &verdict.message);
                self.verdict = Some(verdict);
                return self.end(&desired).await;
            }
            let health = self.probes.health();
            let now = self.core.now();
            let situation =
                Situation { pod: &pod, observed: &observed, health: &health, backoffs: &self.backoffs, not_before: &self.not_before, now };
            let plan = plan::plan(&situation);
            self.note_back_off(&pod, &plan, &observed);
            if plan.finished {
                kill::kill_pod(&self.core, &pod, &observed, None, spec::grace_period_secs(&pod)).await?;
                let observed = self.observe(&pod).await?;
                self.report(&pod, &observed, true).await?;
                self.release(&pod).await?;
                return Ok(Next::At(None));
            }
            let acted = self.act(&pod, &observed, &plan).await?;
            let observed = self.observe(&pod).await?;
            self.probes.update(&self.core, &pod, &observed);
            self.note_start(&pod, &observed);
            self.report(&pod, &observed, false).await?;
            self.sweep(&observed).await;
            if !acted || self.desired.has_changed().unwrap_or(true) {
                return Ok(Next::At(self.next_look(&pod, plan.again_at)));
            }
        }
        Ok(Next::At(Some(self.core.now() + RETRY)))
    }

    /// Measures the start of a pod once all its containers have run.
    fn note_start(&mut self, pod: &Pod, observed: &Observed) {
        let mut regular = spec::all_containers(pod).filter(|(kind, _)| *kind == spec::Kind::Main);
        if regular.all(|(_, container)| observed.latest(&container.name).is_some_and(|run| run.started_at.is_some()))
            && let Some(since) = self.starting_since.take()
        {
            self.core.metrics.pod_runs(since.elapsed());
        }
    }

    /// Whether the pod must fail without a container having a say.
    fn judge(&mut self, pod: &Pod, observed: &Observed) -> Option<Verdict> {
        if !self.admitted && observed.sandboxes.is_empty() && pod.status.as_ref().is_none_or(|s| s.start_time.is_none()) {
            let node = self.core.node.read().clone();
            let verdict = admit::admit(pod, &self.core.pods.list(), node.as_deref(), &self.core.allocatable);
            if verdict.is_some() {
                return verdict;
            }
        }
        self.admitted = true;
        let deadline = deadline(pod)?;
        (self.core.now() >= deadline).then(|| Verdict {
            reason: "DeadlineExceeded".into(),
            message: "Pod was active on the node longer than the specified deadline".into(),
        })
    }

    fn next_look(&self, pod: &Pod, planned: Option<Timestamp>) -> Option<Timestamp> {
        let known = [planned, self.volumes_refresh_at, deadline(pod)];
        known.into_iter().flatten().chain(backoff::next_try(&self.not_before, Timestamp::now())).min()
    }

    fn note_back_off(&mut self, pod: &Pod, plan: &Plan, observed: &Observed) {
        for wait in &plan.back_off {
            let shown = if wait.delay.as_secs() >= 60 {
                format!("{}m{}s", wait.delay.as_secs() / 60, wait.delay.as_secs() % 60)
            } else {
                format!("{}s", wait.delay.as_secs())
            };
            let message = format!("back-off {shown} restarting failed container={} pod={}", wait.name, spec::display(pod));
            let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
            if self.waiting.get(&wait.name) != Some(&waiting) {
                let text = format!("Back-off restarting failed container {} in pod {}", wait.name, spec::display(pod));
                self.core.events.container(pod, &wait.name, EventKind::Warning, "BackOff", &text);
                self.waiting.insert(wait.name.clone(), waiting);
            }
        }
        self.waiting.retain(|name, _| observed.latest(name).is_none_or(|run| run.state != State::Running));
    }

    /// Carries a plan out. True when something was done, so that a fresh look is worth it.
    async fn act(&mut self, pod: &Arc<Pod>, observed: &Observed, plan: &Plan) -> Result<bool> {
        if plan.kill_pod {
            kill::kill_pod(&self.core, pod, observed, None, spec::grace_period_secs(pod)).await?;
        }
        for id in &plan.stop_sandboxes {
            self.core.runtime.stop_sandbox(id).await?;
        }
        let pod_ip = self.core.place(pod, observed).pod_ips.first().cloned().unwrap_or_default();
        for kill in &plan.kill {
            if let Some(run) = observed.containers.iter().find(|c| c.id == kill.id) {
                let grace = kill.grace_secs.unwrap_or(spec::grace_period_secs(pod));
                kill::kill_container(&self.core, pod, run, &pod_ip, Some(&kill.message), grace).await?;
            }
        }
        let mut acted = plan.kill_pod || !plan.kill.is_empty();
        let refresh = self.volumes_refresh_at.is_some_and(|at| at <= Timestamp::now());
        if plan.new_sandbox.is_none() && plan.start.is_empty() && !refresh {
            return Ok(acted);
        }
        if plan.new_sandbox.is_some() && self.core.images_are_coming() && !self.core.images.has_all(pod).await? {
            self.not_before.insert("images".into(), Timestamp::now() + LOOK_FOR_IMAGES);
            return Ok(acted);
        }
        self.core.cgroups.create_pod(pod)?;
        let Some(volumes) = self.prepare_volumes(pod, observed).await? else { return Ok(acted) };
        if let Some(attempt) = plan.new_sandbox {
            return Ok(self.make_sandbox(pod, attempt).await? || acted);
        }
        let Some(current) = observed.ready_sandbox() else { return Ok(acted) };
        if plan.start.is_empty() {
            return Ok(acted);
        }
        let configuration = self.sandbox_config(pod, current.attempt).await?;
        let place = self.core.place(pod, observed);
        hosts::write(&self.core.options.pod_dir(&self.uid).join("etc-hosts"), pod, &place.pod_ips, &self.core.options.cluster_domain)
            .await?;
        for planned in &plan.start {
            let target = Target { sandbox_id: &current.id, sandbox: &configuration, place: &place, volumes: &volumes };
            let core = self.core.clone();
            let starting = start::start(&core, pod, planned, &target);
            // A pull may take long; a pod that is being deleted does not wait for it.
            let outcome = tokio::select! {
                outcome = starting => outcome,
                () = ending(self.desired.clone()) => return Ok(false),
            };
            if let Some(failed_at) = planned.failed_at {
                self.backoffs.entry(planned.name.clone()).or_default().retried(failed_at, self.core.now());
            }
            self.not_before.remove(&planned.name);
            let kind = if spec::container(pod, &planned.name).is_some_and(|(kind, _)| kind != spec::Kind::Main) {
                "init_container"
            } else {
                "container"
            };
            let refused = outcome.as_ref().err().map(|n| n.waiting.as_ref().map_or("Unknown", |w| w.reason.as_str()));
            self.core.metrics.container(kind, refused);
            match outcome {
                Ok(()) => {
                    self.waiting.remove(&planned.name);
                    acted = true;
                }
                Err(not_started) => {
                    if let Some(waiting) = not_started.waiting {
                        acted |= waiting.reason == "PostStartHookError";
                        self.waiting.insert(planned.name.clone(), waiting);
                    }
                    if let Some(at) = not_started.retry_at {
                        self.not_before.insert(planned.name.clone(), at);
                    }
                }
            }
        }
        Ok(acted)
    }

    async fn sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<cri::PodSandboxConfig> {
        let resolv_conf = tokio::fs::read_to_string(&self.core.options.resolv_conf).await.unwrap_or_default();
        sandbox::config(pod, attempt, &self.core.options, &self.core.cgroups.pod_parent(pod), &resolv_conf)
    }

    async fn make_sandbox(&mut self, pod: &Pod, attempt: u32) -> Result<bool> {
        let made = async {
            let configuration = self.sandbox_config(pod, attempt).await?;
            let logs = sandbox::log_directory(pod, &self.core.options);
            tokio::fs::create_dir_all(&logs).await.map_err(Error::io(format!("create {}", logs.display())))?;
            self.core.runtime.run_sandbox(configuration).await
        };
        let made = made.await;
        self.core.metrics.sandbox(made.as_ref().err().map(|_| "CreatePodSandboxError"));
        match made {
            Ok(_) => {
                self.not_before.remove("");
                Ok(true)
            }
            Err(error) if error.is_runtime_away() => Err(error),
            Err(error) => {
                let soon = error.is_name_reserved();
                if !soon {
                    self.core.events.pod(
                        pod,
                        EventKind::Warning,
                        "FailedCreatePodSandBox",
                        &format!("Failed to create pod sandbox: {error}"),
                    );
                }
                let delay = if soon { SignedDuration::from_secs(1) } else { RETRY_SANDBOX };
                self.not_before.insert(String::new(), self.core.now() + delay);
                Ok(false)
            }
        }
    }

    async fn prepare_volumes(&mut self, pod: &Pod, observed: &Observed) -> Result<Option<BTreeMap<String, Mounted>>> {
        let pod_dir = self.core.options.pod_dir(&self.uid);
        tokio::fs::create_dir_all(&pod_dir).await.map_err(Error::io(format!("create {}", pod_dir.display())))?;
        let place = self.core.place(pod, observed);
        let context = volume::Context {
            pod_dir: &pod_dir,
            place: &place,
            objects: &self.core.objects,
            tokens: &self.core.tokens,
            node_memory_bytes: self.core.machine.memory_bytes,
            now: Timestamp::now(),
        };
        match volume::prepare(pod, &context).await {
            Ok(prepared) => {
                self.last_volume_failure = None;
                self.volume_failures = 0;
                self.not_before.remove("volumes");
                self.volumes_refresh_at = prepared.refresh_at;
                Ok(Some(prepared.mounted))
            }
            Err(failure) => {
                let text = format!("MountVolume.SetUp failed for volume {:?} : {}", failure.volume, failure.error);
                if self.last_volume_failure.as_ref() != Some(&text) {
                    self.core.events.pod(pod, EventKind::Warning, "FailedMount", &text);
                }
                self.last_volume_failure = Some(text);
                let again_at = Timestamp::now() + backoff::volume_retry(self.volume_failures);
                self.volume_failures = self.volume_failures.saturating_add(1);
                self.volumes_refresh_at = self.volumes_refresh_at.map(|_| again_at);
                self.not_before.insert("volumes".into(), again_at);
                Ok(None)
            }
        }
    }

    /// Writes the status if it differs from what the API server has.
    async fn report(&mut self, pod: &Pod, observed: &Observed, terminated: bool) -> Result<()> {
        let host_ips = self.core.host_ips();
        let mut basis = pod.clone();
        // Our own last write may be newer than what the watch has brought so far.
        if let Some((_, reported)) = self.reported.as_ref().filter(|(revision, _)| *revision > revision_of(pod)) {
            basis.status = Some(reported.clone());
        }
        let health = self.probes.health();
        let facts = Facts {
            pod: &basis,
            observed,
            health: &health,
            waiting: &self.waiting,
            terminated,
            verdict: self.verdict.as_ref(),
            host_ips: &host_ips,
            now: self.core.now(),
        };
        let fresh = status::status(&facts);
        self.not_before.remove("status");
        let Some(patch) = status::patch(&self.uid, basis.status.as_ref(), &fresh) else { return Ok(()) };
        match self.core.client.patch_status::<Pod>(Some(spec::namespace(pod)), spec::name(pod), &Patch::Strategic(patch)).await {
            Ok(stored) => {
                self.reported = stored.status.clone().map(|status| (revision_of(&stored), status));
                Ok(())
            }
            // Gone, or another pod of that name: the watch will tell.
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
            Err(e) => {
                if terminated {
                    return Err(e.into());
                }
                tracing::info!(pod = spec::display(pod), error = %e, "pod status not written, will be retried");
                self.not_before.insert("status".into(), self.core.now() + SignedDuration::from_secs(2));
                Ok(())
            }
        }
    }
}

fn revision_of(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}

fn deadline(pod: &Pod) -> Option<Timestamp> {
    let limit = spec::pod_spec(pod).active_deadline_seconds?;
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    Some(started + SignedDuration::from_secs(limit))
}

async fn ending(mut desired: watch::Receiver<Desired>) {
    // An error means that the kubelet stops: the worker is cancelled anyway.
    if desired.wait_for(Desired::is_ending).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The termination message: from its file, or, if the policy says so, the end of the log.
async fn last_words(pod: &Pod, pod_dir: &std::path::Path, run: &super::observed::ContainerRun) -> String {
    let policy = spec::container(pod, &run.name).and_then(|(_, c)| c.termination_message_policy.clone());
    let file = config::termination_message_file(pod_dir, &run.name, run.attempt);
    let text = read_limited(&file).await;
    if text.is_empty() && run.exit_code != 0 && policy.as_deref() == Some("FallbackToLogsOnError") {
        return crate::logs::tail(std::path::Path::new(&run.log_path), 80, 2048).await;
    }
    text
}

async fn read_limited(path: &std::path::Path) -> String {
    use tokio::io::AsyncReadExt;
    let Ok(file) = tokio::fs::File::open(path).await else { return String::new() };
    let mut bytes = Vec::new();
    let _ = file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
