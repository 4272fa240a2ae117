//! The pods of a Job: how they are made, and what is read off them. No I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use trireme_client::Object;

use crate::ownership::Children;
use crate::pods;

/// Keeps a finished pod until it has been counted.
pub(super) const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// A generated name has five more characters than its prefix and at most 63.
const PREFIX_MAX: usize = 58;

/// How often an index has failed before: counted, and ignored by the pod failure policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct IndexFailures {
    pub(super) counted: i32,
    pub(super) ignored: i32,
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING_FINALIZER)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The completion index of a pod.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// How often the pod's index failed before this pod.
pub(super) fn index_failures(pod: &Pod) -> IndexFailures {
    let number = |key: &str| annotation(pod, key).and_then(|text| text.parse().ok()).filter(|number| *number >= 0).unwrap_or(0);
    IndexFailures { counted: number(INDEX_FAILURES), ignored: number(INDEX_IGNORED_FAILURES) }
}

/// When the pod's last container ended; the time of its deletion if no container reports one.
pub(super) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let containers = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = containers.filter_map(|one| Some(one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)).max();
    let not_ready = || pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0);
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    ended.or_else(not_ready).or_else(deleted).or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// A pod of the Job; for an index, if the Job has such.
pub(super) fn new_pod(job: &Job, index: Option<i32>, failures: Option<IndexFailures>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = Children::pod_of(job, &template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING_FINALIZER) {
        finalizers.push(TRACKING_FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let set = |map: &mut Option<BTreeMap<String, String>>, key: &str, value: String| {
        map.get_or_insert_default().insert(key.to_owned(), value);
    };
    set(&mut pod.metadata.labels, INDEX, index.to_string());
    set(&mut pod.metadata.annotations, INDEX, index.to_string());
    if let Some(failures) = failures {
        set(&mut pod.metadata.annotations, INDEX_FAILURES, failures.counted.to_string());
        if failures.ignored > 0 {
            set(&mut pod.metadata.annotations, INDEX_IGNORED_FAILURES, failures.ignored.to_string());
        }
    }
    let suffix = format!("-{index}-");
    let name: String = job.name().chars().take(PREFIX_MAX.saturating_sub(suffix.len())).collect();
    pod.metadata.generate_name = Some(name + &suffix);
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{}-{index}", job.name()));
        spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(tell_index);
    }
    pod
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}
