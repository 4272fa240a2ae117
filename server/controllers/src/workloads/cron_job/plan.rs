//! Which run of a CronJob is due, what its Job looks like, and which old Jobs go. No I/O.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use trireme_client::Object;

use super::schedule::Schedule;
use crate::ownership::controller_reference;
use crate::workloads::job::is_finished;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// The last run that has not been started yet.
    At(Timestamp),
    /// The same, but the time in which it may be started is over.
    TooLate(Timestamp),
}

pub(super) fn due(cron: &CronJob, schedule: &Schedule, now: Timestamp) -> Due {
    let deadline = cron.spec.starting_deadline_seconds;
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let Some(time) = schedule.latest(since, now) else { return Due::Nothing };
    let age = now.as_second().saturating_sub(time.as_second());
    if deadline.is_some_and(|deadline| age > deadline) { Due::TooLate(time) } else { Due::At(time) }
}

/// The name that the Job of this time has.
pub(super) fn job_name(cron: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", cron.name(), time.as_second() / 60)
}

pub(super) fn job(cron: &CronJob, name: &str, time: Timestamp) -> Job {
    let spec = cron.spec.clone();
    let template = spec.job_template;
    let meta = template.metadata.unwrap_or_default();
    let zone = spec.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
    let zoned = time.to_zoned(zone.clone());
    let at = if zone == TimeZone::UTC { time.to_string() } else { zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), at);
    Job {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            creation_timestamp: Some(Time(time)),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

pub(super) fn has_succeeded(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
}

/// The oldest finished Jobs beyond the limits, those that succeeded and those that failed apart.
pub(super) fn outlived(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let spec = cron.spec.clone();
    let mut gone = Vec::new();
    for (succeeded, limit) in [(true, spec.successful_jobs_history_limit), (false, spec.failed_jobs_history_limit)] {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let mut finished: Vec<&Arc<Job>> = jobs.iter().filter(|job| is_finished(job) && has_succeeded(job) == succeeded).collect();
        let surplus = finished.len().saturating_sub(limit);
        finished.sort_by_key(|job| {
            (job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0), job.name().to_owned())
        });
        gone.extend(finished.into_iter().take(surplus).cloned());
    }
    gone
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missed_run_is_caught_up_once_and_only_in_time() {
        let schedule = Schedule::parse("0 * * * *", TimeZone::UTC).unwrap();
        let now: Timestamp = "2026-01-01T10:05:00Z".parse().unwrap();
        let due_with = |spec: serde_json::Value, last: Option<&str>| {
            let cron: CronJob = serde_json::from_value(json!({
                "metadata": {"name": "c", "creationTimestamp": "2026-01-01T07:30:00Z"}, "spec": spec,
                "status": last.map(|last| json!({"lastScheduleTime": last}))}))
            .unwrap();
            due(&cron, &schedule, now)
        };
        let base = json!({"schedule": "", "jobTemplate": {}});
        let at: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        assert_eq!(due_with(base.clone(), None), Due::At(at), "of three missed runs the last is made up for");
        assert_eq!(due_with(base, Some("2026-01-01T10:00:00Z")), Due::Nothing);
        let late = json!({"schedule": "", "jobTemplate": {}, "startingDeadlineSeconds": 60});
        assert_eq!(due_with(late, None), Due::TooLate(at));
    }
}
