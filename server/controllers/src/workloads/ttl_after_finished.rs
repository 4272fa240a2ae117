//! Finished Jobs with `ttlSecondsAfterFinished` are deleted when that time is over.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/>.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use trireme_client::{Client, DeleteOptions, Informer, Object, ObjectKey, Preconditions, Propagation};

use crate::Error;
use crate::runtime::clock::{self, seconds_since};
use crate::runtime::{Context, Controller, Next, Watches};

/// The TTL-after-finished controller.
pub(crate) struct TtlAfterFinished {
    client: Client,
    jobs: Arc<Informer<Job>>,
}

impl Controller for TtlAfterFinished {
    const NAME: &'static str = "ttl-after-finished-controller";
    const QUEUE: &'static str = "ttl_jobs_to_delete";
    type Key = ObjectKey;
    type Reads = Arc<Informer<Job>>;

    fn new(jobs: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), jobs })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.jobs, |event| {
            let job = event.object();
            (!event.is_deletion() && expires_in_secs(job, clock::now()).is_some()).then(|| ObjectKey::of(&**job))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(job) = self.jobs.get_key(key) else { return Ok(Next::Wait) };
        match expires_in_secs(&job, clock::now()) {
            None => Ok(Next::Wait),
            Some(left) if left > 0 => Ok(Next::after_secs(Some(left))),
            Some(_) => {
                // In the revision that was looked at: the time to live may have been changed.
                let options = DeleteOptions {
                    preconditions: Some(Preconditions {
                        uid: job.metadata.uid.clone(),
                        resource_version: job.metadata.resource_version.clone(),
                    }),
                    ..DeleteOptions::default().propagation(Propagation::Foreground)
                };
                match self.client.delete::<Job>(Some(job.namespace()), job.name(), &options).await {
                    Ok(()) => Ok(Next::Wait),
                    Err(error) if error.is_not_found() => Ok(Next::Wait),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// Seconds until a Job is to be deleted; `None` if it is not finished, has no time to live, or is being deleted.
fn expires_in_secs(job: &Job, now: Timestamp) -> Option<i64> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished.filter(|_| job.metadata.deletion_timestamp.is_none())?;
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ended =
        conditions.into_iter().find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")?;
    let since = ended.last_transition_time.as_ref()?;
    Some(i64::from(ttl) - seconds_since(since, now))
}
