//! A Job and its pods at one moment: what is finished, what is to be counted, whether the Job is over. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use trireme_client::Object;

use super::failure_policy::{Meaning, meaning};
use super::indexes::Indexes;
use super::pod::{self, IndexFailures};
use crate::pods;
use crate::runtime::clock::seconds_since;

/// First wait after a failed pod, and the longest.
const BACKOFF_SECS: i64 = 10;
const BACKOFF_MAX_SECS: i64 = 600;

/// Why a Job is over, before its last pods are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) succeeded: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Outcome {
    fn new(succeeded: bool, reason: &str, message: &str) -> Self {
        Self { succeeded, reason: reason.to_owned(), message: message.to_owned() }
    }
}

pub(super) struct View<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: JobSpec,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) active: Vec<Arc<Pod>>,
    /// With what was counted since it was written.
    pub(super) status: JobStatus,
    pub(super) succeeded_indexes: Indexes,
    pub(super) failed_indexes: Indexes,
    pub(super) now: Timestamp,
}

impl<'a> View<'a> {
    pub(super) fn new(job: &'a Job, pods: &'a [Arc<Pod>], now: Timestamp) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        let active = pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let mut view = Self {
            job,
            spec,
            pods,
            active,
            status: counted(job, pods),
            succeeded_indexes: Indexes::default(),
            failed_indexes: Indexes::default(),
            now,
        };
        if view.is_indexed() {
            let known = |text: Option<&String>| Indexes::parse(text.map_or("", String::as_str), view.completions());
            let (succeeded, failed) = (known(view.status.completed_indexes.as_ref()), known(view.status.failed_indexes.as_ref()));
            let newly = |test: &dyn Fn(&Pod) -> bool| -> Vec<i32> {
                let tracked = pods.iter().filter(|pod| pod::is_tracked(pod) && test(pod));
                tracked.filter_map(|pod| view.index_of(pod)).collect()
            };
            let succeeded = succeeded.with(newly(&|pod| pods::phase(pod) == "Succeeded"));
            let failed = if view.limits_each_index() {
                failed.with(newly(&|pod| view.fails_its_index(pod)).into_iter().filter(|index| !succeeded.contains(*index)))
            } else {
                Indexes::default()
            };
            (view.succeeded_indexes, view.failed_indexes) = (succeeded, failed);
        }
        view
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub(super) fn limits_each_index(&self) -> bool {
        self.is_indexed() && self.spec.backoff_limit_per_index.is_some()
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The pod's index, if the Job has it.
    pub(super) fn index_of(&self, pod: &Pod) -> Option<i32> {
        pod::index(pod).filter(|index| self.is_indexed() && *index < self.completions())
    }

    /// Whether a terminating pod is replaced only when it has failed.
    fn replaces_failed_only(&self) -> bool {
        match self.spec.pod_replacement_policy.as_deref() {
            Some(policy) => policy == "Failed",
            None => self.spec.pod_failure_policy.is_some(),
        }
    }

    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_terminating(pod) && !self.replaces_failed_only(),
        }
    }

    fn meaning(&self, pod: &Pod) -> Meaning {
        meaning(self.spec.pod_failure_policy.as_ref(), pod)
    }

    pub(super) fn counts_as_failed(&self, pod: &Pod) -> bool {
        self.is_failed(pod) && self.meaning(pod) != Meaning::Ignored
    }

    fn fails_its_index(&self, pod: &Pod) -> bool {
        if !self.is_failed(pod) {
            return false;
        }
        let limit = self.spec.backoff_limit_per_index.unwrap_or(i32::MAX);
        match self.meaning(pod) {
            Meaning::FailsIndex => true,
            Meaning::Ignored => false,
            _ => pod::index_failures(pod).counted >= limit,
        }
    }

    fn uncounted(&self) -> (BTreeSet<&str>, BTreeSet<&str>) {
        fn set(list: Option<&Vec<String>>) -> BTreeSet<&str> {
            list.into_iter().flatten().map(String::as_str).collect()
        }
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        (set(uncounted.and_then(|pods| pods.succeeded.as_ref())), set(uncounted.and_then(|pods| pods.failed.as_ref())))
    }

    /// Pods that were counted or will be: all that succeeded, and all that failed and are not ignored.
    pub(super) fn totals(&self) -> (i32, i32) {
        let (succeeded, failed) = self.uncounted();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let fresh = self.pods.iter().filter(|pod| pod::is_tracked(pod) && !succeeded.contains(pod.uid()) && !failed.contains(pod.uid()));
        let (mut more_succeeded, mut more_failed) = (succeeded.len(), failed.len());
        for pod in fresh {
            if pods::phase(pod) == "Succeeded" {
                more_succeeded += 1;
            } else if self.counts_as_failed(pod) {
                more_failed += 1;
            }
        }
        let all_succeeded = if self.is_indexed() {
            self.succeeded_indexes.total()
        } else {
            self.status.succeeded.unwrap_or(0).saturating_add(number(more_succeeded))
        };
        (all_succeeded, self.status.failed.unwrap_or(0).saturating_add(number(more_failed)))
    }

    pub(super) fn condition(&self, kind: &str) -> bool {
        self.status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
    }

    fn decided(&self, kind: &str) -> Option<Outcome> {
        let conditions = self.status.conditions.iter().flatten();
        let known = conditions.into_iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Some(Outcome { succeeded: kind == "SuccessCriteriaMet", reason: text(&known.reason), message: text(&known.message) })
    }

    /// Whether the Job has ended, and why. A decision that the status already records stands.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        if let Some(decided) = self.decided("SuccessCriteriaMet").or_else(|| self.decided("FailureTarget")) {
            return Some(decided);
        }
        for pod in self.pods.iter().filter(|pod| self.is_failed(pod)) {
            if let Meaning::FailsJob(why) = self.meaning(pod) {
                return Some(Outcome::new(false, "PodFailurePolicy", &why));
            }
        }
        let (succeeded, failed) = self.totals();
        if failed > self.spec.backoff_limit.unwrap_or(6) || self.restarts_exceed_limit() {
            return Some(Outcome::new(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if self.deadline_in_secs().is_some_and(|left| left <= 0) {
            return Some(Outcome::new(false, "DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        if let Some(outcome) = self.outcome_of_indexes() {
            return Some(outcome);
        }
        let complete = match self.spec.completions {
            None => succeeded > 0,
            Some(wanted) => succeeded >= wanted,
        };
        (complete && self.active.is_empty()).then(|| Outcome::new(true, "CompletionsReached", "Reached expected number of succeeded pods"))
    }

    fn outcome_of_indexes(&self) -> Option<Outcome> {
        if !self.is_indexed() {
            return None;
        }
        if self.limits_each_index() {
            let failed = self.failed_indexes.total();
            if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Outcome::new(false, "MaxFailedIndexesExceeded", message));
            }
            if failed > 0 && failed.saturating_add(self.succeeded_indexes.total()) >= self.completions() {
                return Some(Outcome::new(false, "FailedIndexes", "Job has failed indexes"));
            }
        }
        let rules = self.spec.success_policy.iter().flat_map(|policy| policy.rules.iter());
        for (at, rule) in rules.enumerate() {
            let enough = match (&rule.succeeded_indexes, rule.succeeded_count) {
                (Some(text), count) => {
                    let wanted = Indexes::parse(text, self.completions());
                    self.succeeded_indexes.common(&wanted) >= count.unwrap_or(wanted.total())
                }
                (None, Some(count)) => self.succeeded_indexes.total() >= count,
                (None, None) => false,
            };
            if enough && self.succeeded_indexes.total() > 0 {
                return Some(Outcome::new(true, "SuccessPolicy", &format!("Matched rules at index {at}")));
            }
        }
        None
    }

    /// Containers that are restarted in place count towards the limit as pods do.
    fn restarts_exceed_limit(&self) -> bool {
        if self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let restarts: i64 = running
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()))
            .map(|container| i64::from(container.restart_count))
            .sum();
        match i64::from(self.spec.backoff_limit.unwrap_or(6)) {
            0 => restarts > 0,
            limit => restarts >= limit,
        }
    }

    /// Seconds until the Job has been active for too long.
    pub(super) fn deadline_in_secs(&self) -> Option<i64> {
        let deadline = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let since = self.status.start_time.as_ref()?;
        Some(deadline.saturating_sub(seconds_since(since, self.now)))
    }

    /// How many pods more there should be (or fewer, if negative).
    pub(super) fn missing(&self) -> i32 {
        let active = i32::try_from(self.active.len()).unwrap_or(i32::MAX);
        if self.is_suspended() {
            return -active;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let (succeeded, _) = self.totals();
        let wanted = match self.spec.completions {
            None if succeeded > 0 => active,
            None => parallelism,
            Some(completions) => completions.saturating_sub(succeeded).min(parallelism).max(0),
        };
        if wanted < active {
            return wanted - active;
        }
        let ending = if self.replaces_failed_only() { i32::try_from(self.ending()).unwrap_or(i32::MAX) } else { 0 };
        wanted.saturating_sub(active).saturating_sub(ending).max(0)
    }

    /// Pods that are being deleted and not yet finished.
    pub(super) fn ending(&self) -> usize {
        self.pods.iter().filter(|pod| pods::is_ending(pod)).count()
    }

    /// Seconds until a new pod may follow those that failed since the last success.
    pub(super) fn backoff_secs(&self) -> i64 {
        if self.limits_each_index() {
            return 0;
        }
        let finished = |test: &dyn Fn(&Pod) -> bool| -> Vec<Timestamp> {
            self.pods.iter().filter(|pod| test(pod)).filter_map(|pod| pod::finished_at(pod)).collect()
        };
        let last_success = finished(&|pod| pods::phase(pod) == "Succeeded").into_iter().max();
        let failures: Vec<Timestamp> =
            finished(&|pod| self.is_failed(pod)).into_iter().filter(|at| last_success.is_none_or(|success| *at > success)).collect();
        wait_secs(failures.len(), failures.into_iter().max(), self.now)
    }

    /// The last failed pod of each index that is to be tried again.
    pub(super) fn to_be_replaced(&self) -> BTreeMap<i32, &Arc<Pod>> {
        let mut last: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
        if !self.limits_each_index() {
            return last;
        }
        let active: BTreeSet<i32> = self.active.iter().filter_map(|pod| self.index_of(pod)).collect();
        for pod in self.pods.iter().filter(|pod| pod::is_tracked(pod) && self.is_failed(pod)) {
            let Some(index) = self.index_of(pod) else { continue };
            if active.contains(&index) || self.succeeded_indexes.contains(index) || self.failed_indexes.contains(index) {
                continue;
            }
            let tries = |pod: &Pod| {
                let failures = pod::index_failures(pod);
                failures.counted.saturating_add(failures.ignored)
            };
            if last.get(&index).is_none_or(|known| tries(known) < tries(pod)) {
                last.insert(index, pod);
            }
        }
        last
    }

    /// The next indexes to run, with their failures so far, and seconds until one that still waits may run.
    pub(super) fn next_indexes(&self, count: usize) -> (Vec<(i32, Option<IndexFailures>)>, Option<i64>) {
        let replaced = self.to_be_replaced();
        let mut busy: BTreeSet<i32> = self.active.iter().filter_map(|pod| self.index_of(pod)).collect();
        if self.replaces_failed_only() {
            busy.extend(self.pods.iter().filter(|pod| pods::is_ending(pod)).filter_map(|pod| self.index_of(pod)));
        }
        let failures_of = |index: i32| {
            replaced.get(&index).map_or(IndexFailures::default(), |pod| {
                let before = pod::index_failures(pod);
                match self.meaning(pod) {
                    Meaning::Ignored => IndexFailures { ignored: before.ignored.saturating_add(1), ..before },
                    _ => IndexFailures { counted: before.counted.saturating_add(1), ..before },
                }
            })
        };
        let wait_of = |index: i32| {
            replaced.get(&index).map_or(0, |pod| {
                let failures = failures_of(index);
                let tries = failures.counted.saturating_add(failures.ignored);
                wait_secs(usize::try_from(tries).unwrap_or(0), pod::finished_at(pod), self.now)
            })
        };
        let refused = |index: i32| busy.contains(&index) || self.failed_indexes.contains(index) || wait_of(index) > 0;
        let next = self.succeeded_indexes.first_missing(self.completions(), count, refused);
        let waits = replaced.keys().map(|index| wait_of(*index)).filter(|secs| *secs > 0).min();
        let failures = |index: i32| self.limits_each_index().then(|| failures_of(index));
        (next.into_iter().map(|index| (index, failures(index))).collect(), waits)
    }

    /// Pods to delete when there are too many: two of one index first, then the least useful.
    pub(super) fn surplus(&self, count: usize) -> Vec<Arc<Pod>> {
        let rank = |pod: &Arc<Pod>| {
            let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
            (pods::node_name(pod).is_some(), pods::phase(pod) == "Running", pods::is_ready(pod), std::cmp::Reverse(created))
        };
        let mut sorted = self.active.clone();
        sorted.sort_by_key(rank);
        if !self.is_indexed() {
            return sorted.into_iter().take(count).collect();
        }
        let mut seen = BTreeSet::new();
        let (kept, doubled): (Vec<_>, Vec<_>) =
            sorted.into_iter().rev().partition(|pod| self.index_of(pod).is_some_and(|index| seen.insert(index)));
        let mut rest = kept;
        rest.sort_by_key(|pod| std::cmp::Reverse(self.index_of(pod)));
        let count = count.max(doubled.len());
        doubled.into_iter().chain(rest).take(count).collect()
    }
}

fn wait_secs(failures: usize, last: Option<Timestamp>, now: Timestamp) -> i64 {
    let Some(last) = last.filter(|_| failures > 0) else { return 0 };
    let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(6);
    let wait = (BACKOFF_SECS << doublings).min(BACKOFF_MAX_SECS);
    wait.saturating_sub(now.as_second().saturating_sub(last.as_second())).max(0)
}

/// The status with the uncounted pods that have lost their finalizer moved to the counters.
fn counted(job: &Job, pods: &[Arc<Pod>]) -> JobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    let tracked: BTreeSet<&str> = pods.iter().filter(|pod| pod::is_tracked(pod)).map(|pod| pod.uid()).collect();
    let Some(mut uncounted) = status.uncounted_terminated_pods.take() else { return status };
    let settle = |list: &mut Option<Vec<String>>| -> i32 {
        let all = list.take().unwrap_or_default();
        let (left, done): (Vec<String>, Vec<String>) = all.into_iter().partition(|uid| tracked.contains(uid.as_str()));
        *list = Some(left).filter(|left| !left.is_empty());
        i32::try_from(done.len()).unwrap_or(i32::MAX)
    };
    let (succeeded, failed) = (settle(&mut uncounted.succeeded), settle(&mut uncounted.failed));
    if succeeded > 0 {
        status.succeeded = Some(status.succeeded.unwrap_or(0).saturating_add(succeeded));
    }
    if failed > 0 {
        status.failed = Some(status.failed.unwrap_or(0).saturating_add(failed));
    }
    status.uncounted_terminated_pods = Some(uncounted);
    status
}
