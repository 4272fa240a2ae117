//! CronJobs: a Job at each time that a schedule names.
//!
//! Owns Jobs (by owner reference) and the CronJob's status. A Job's name follows from its time, so that no time runs twice.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>.

mod plan;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use trireme_client::{Client, DeleteOptions, EventKind, EventRecorder, Informer, Object, ObjectKey, Propagation, reference};

use super::job::is_finished;
use super::status::status_patch_any_revision;
use crate::Error;
use crate::ownership::references::controller_key;
use crate::ownership::{Children, is_controlled_by};
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches};
use plan::Due;
use schedule::Schedule;

/// After the time that a schedule names, so that it has surely come.
const SLACK: Duration = Duration::from_millis(100);

/// The CronJob controller.
pub(crate) struct CronJobs {
    client: Client,
    recorder: EventRecorder,
    cron_jobs: Arc<Informer<CronJob>>,
    all_jobs: Arc<Informer<Job>>,
    jobs: Children<CronJob, Job>,
    own_writes: OwnWrites<CronJob>,
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob-controller";
    const QUEUE: &'static str = "cronjob";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<CronJob>>, Arc<Informer<Job>>);

    fn new((cron_jobs, jobs): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            jobs: Children::new(&jobs, context),
            own_writes: OwnWrites::new(&cron_jobs),
            all_jobs: jobs,
            cron_jobs,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.cron_jobs, |event| [ObjectKey::of(&**event.object())]);
        watches.on(&self.all_jobs, |event| event.versions().filter_map(|job| controller_key::<CronJob>(&job.metadata)).collect::<Vec<_>>());
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.jobs.settle(key).await?;
        self.own_writes.settle(key).await?;
        let Some(cron) = self.cron_jobs.get_key(key) else { return Ok(Next::Wait) };
        let jobs = self.jobs.owned(&cron);
        let mut status = cron.status.clone().unwrap_or_default();
        self.note_jobs(&cron, &jobs, &mut status).await?;
        let next = self.run(&cron, &mut status).await;
        // The status records the Jobs that were started even if a later step failed.
        self.write_status(&cron, &status).await?;
        self.tidy(&cron, &jobs).await?;
        next
    }
}

impl CronJobs {
    /// Brings the list of active Jobs up to date.
    async fn note_jobs(&self, cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus) -> Result<(), Error> {
        let mut active = status.active.take().unwrap_or_default();
        let lists = |active: &[ObjectReference], job: &Job| active.iter().any(|one| one.uid.as_deref() == Some(job.uid()));
        for job in jobs {
            if !is_finished(job) {
                if !lists(&active, job) {
                    let message = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                    self.recorder.record(cron, EventKind::Warning, "UnexpectedJob", message);
                }
                continue;
            }
            if lists(&active, job) {
                active.retain(|one| one.uid.as_deref() != Some(job.uid()));
                let how = if plan::has_succeeded(job) { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {}, condition: {how}", job.name());
                self.recorder.record(cron, EventKind::Normal, "SawCompletedJob", message);
            }
            let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
            let Some(ended) = ended.filter(|_| plan::has_succeeded(job)) else { continue };
            if status.last_successful_time.as_ref().is_none_or(|last| last.0 < ended.0) {
                status.last_successful_time = Some(ended);
            }
        }
        let mut present = Vec::with_capacity(active.len());
        for one in active {
            let known = jobs.iter().any(|job| one.uid.as_deref() == Some(job.uid()));
            let name = one.name.clone().unwrap_or_default();
            if !known {
                match self.client.get::<Job>(Some(cron.namespace()), &name).await {
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {
                        self.recorder.record(cron, EventKind::Normal, "MissingJob", format!("Active job went missing: {name}"));
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            present.push(one);
        }
        status.active = Some(present).filter(|active| !active.is_empty());
        Ok(())
    }

    /// Starts the Job that is due, if one is; returns when to look again.
    async fn run(&self, cron: &CronJob, status: &mut CronJobStatus) -> Result<Next, Error> {
        let spec = cron.spec.clone();
        if cron.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(error) => {
                    let message = format!("invalid timeZone: {name:?}: {error}");
                    self.recorder.record(cron, EventKind::Warning, "UnknownTimeZone", message);
                    return Ok(Next::Wait);
                }
            },
        };
        if spec.suspend == Some(true) {
            return Ok(Next::Wait);
        }
        let schedule = match Schedule::parse(&spec.schedule, zone) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.recorder.record(cron, EventKind::Warning, "UnparseableSchedule", message);
                return Ok(Next::Wait);
            }
        };
        let now = Timestamp::now();
        let later = next(&schedule, now);
        let time = match plan::due(cron, &schedule, now) {
            Due::Nothing => return Ok(later),
            Due::TooLate(time) => {
                let message = format!("Missed scheduled time to start a job: {}", time.strftime("%a, %d %b %Y %H:%M:%S +0000"));
                self.recorder.record(cron, EventKind::Warning, "MissSchedule", message);
                return Ok(later);
            }
            Due::At(time) => time,
        };
        let name = plan::job_name(cron, time);
        let active = status.active.clone().unwrap_or_default();
        if active.iter().any(|one| one.name.as_deref() == Some(&name)) || status.last_schedule_time == Some(Time(time)) {
            return Ok(later);
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.record(cron, EventKind::Normal, "JobAlreadyActive", message);
                return Ok(later);
            }
            Some("Replace") => {
                for one in &active {
                    self.delete_job(cron, one.name.as_deref().unwrap_or_default(), one.uid.as_deref().unwrap_or_default()).await?;
                }
                status.active = None;
            }
            _ => {}
        }
        if let Some(job) = self.start(cron, plan::job(cron, &name, time)).await? {
            status.active.get_or_insert_default().push(reference(&job));
            status.last_schedule_time = Some(Time(time));
        }
        Ok(later)
    }

    /// Creates a Job; `None` if there is one of its name that is not this CronJob's, or the namespace goes away.
    async fn start(&self, cron: &CronJob, job: Job) -> Result<Option<Job>, Error> {
        match self.jobs.create(cron, &job).await {
            Ok(created) => {
                self.recorder.record(cron, EventKind::Normal, "SuccessfulCreate", format!("Created job {}", created.name()));
                Ok(Some(created))
            }
            Err(error) if error.is_namespace_terminating() => Ok(None),
            Err(error) if error.is_already_exists() => {
                let known: Job = self.client.get(Some(cron.namespace()), job.name()).await?;
                Ok(Some(known).filter(|known| is_controlled_by(&known.metadata, cron)))
            }
            Err(error) => {
                self.recorder.record(cron, EventKind::Warning, "FailedCreate", format!("Error creating job: {error}"));
                Err(error.into())
            }
        }
    }

    async fn delete_job(&self, cron: &CronJob, name: &str, uid: &str) -> Result<(), Error> {
        let options = DeleteOptions::uid(uid).propagation(Propagation::Background);
        match self.client.delete::<Job>(Some(cron.namespace()), name, &options).await {
            Ok(()) => {
                self.recorder.record(cron, EventKind::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.recorder.record(cron, EventKind::Warning, "FailedDelete", format!("Deleted job: {error}"));
                Err(error.into())
            }
        }
    }

    /// Deletes the oldest finished Jobs beyond the limits.
    async fn tidy(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<(), Error> {
        for job in plan::outlived(cron, jobs) {
            self.delete_job(cron, job.name(), job.uid()).await?;
        }
        Ok(())
    }

    async fn write_status(&self, cron: &CronJob, wanted: &CronJobStatus) -> Result<(), Error> {
        let old = cron.status.clone().unwrap_or_default();
        if *wanted == old {
            return Ok(());
        }
        // Written whatever the current revision: the Job was started even if the spec has changed meanwhile.
        let patch = status_patch_any_revision(cron, &old, wanted)?;
        match self.client.patch_status::<CronJob>(Some(cron.namespace()), cron.name(), &patch).await {
            Ok(written) => {
                self.own_writes.wrote(&ObjectKey::of(cron), &written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn next(schedule: &Schedule, now: Timestamp) -> Next {
    let wait = schedule.next(now).map(|at| at.duration_since(now).unsigned_abs());
    wait.map_or(Next::Wait, |wait| Next::After(wait + SLACK))
}
