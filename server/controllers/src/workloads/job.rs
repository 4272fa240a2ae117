//! Jobs: pods that run to their end, a number of times.
//!
//! Owns pods (by owner reference), the finalizer `batch.kubernetes.io/job-tracking` on them, and the Job's status. A finished pod
//! keeps the finalizer until the status lists its uid as uncounted; the uid moves to the counters when the finalizer is gone.
//! So each pod is counted once, even if a pod or the controller fails in between.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/job/>.

mod failure_policy;
mod indexes;
mod pod;
mod status;
mod view;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use trireme_client::{Client, Event, EventKind, EventRecorder, Index, Informer, Object, ObjectKey, Patch, labels};

use super::status::status_patch;
use crate::Error;
use crate::ownership::references::controller_key;
use crate::ownership::{Children, controller_of, slow_start};
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches, clock};
use pod::TRACKING_FINALIZER;
pub(super) use status::is_finished;
use view::View;

/// Pods created in one reconcile.
const BURST: usize = 500;

/// The Job controller.
pub(crate) struct Jobs {
    client: Client,
    recorder: EventRecorder,
    jobs: Arc<Informer<Job>>,
    all_pods: Arc<Informer<Pod>>,
    /// Pods that wait to be counted, by the name of their Job.
    tracked: Index<Pod>,
    pods: Children<Job, Pod>,
    own_writes: OwnWrites<Job>,
}

impl Controller for Jobs {
    const NAME: &'static str = "job-controller";
    const QUEUE: &'static str = "job";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<Job>>, Arc<Informer<Pod>>);

    fn new((jobs, pods): Self::Reads, context: &Context) -> Option<Self> {
        let tracked = pods.index("tracked-job", |pod| {
            let job = controller_key::<Job>(&pod.metadata).filter(|_| pod::is_tracked(pod));
            job.map(|job| job.to_string()).into_iter().collect()
        });
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            tracked,
            pods: Children::new(&pods, context).with_finalizer(TRACKING_FINALIZER),
            own_writes: OwnWrites::new(&jobs),
            all_pods: pods,
            jobs,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.jobs, |event| [ObjectKey::of(&**event.object())]);
        let me = Arc::clone(self);
        watches.on(&self.all_pods, move |event| me.jobs_of(event));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.pods.settle(key).await?;
        self.own_writes.settle(key).await?;
        let Some(job) = self.jobs.get_key(key) else {
            self.free_pods(key, None).await?;
            return Ok(Next::Wait);
        };
        self.free_pods(key, Some(job.uid())).await?;
        let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if managed_by.is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(Next::Wait);
        }
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let selects = |pod: &Pod| !labels::is_empty(&selector) && labels::matches(&selector, pod.metadata.labels.as_ref());
        if is_finished(&job) {
            let left = self.pods.owned(&job);
            self.release(&job, &left.iter().filter(|pod| pod::is_tracked(pod)).cloned().collect::<Vec<_>>()).await?;
            return Ok(Next::Wait);
        }
        let pods = self.pods.claim(&job, selects, |_| true).await?;
        self.sync(&job, &pods).await
    }
}

impl Jobs {
    /// The Jobs that an event of a pod concerns: its controllers before and after, or, if it has no controller, those that would
    /// adopt it.
    fn jobs_of(&self, event: &Event<Pod>) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = event.versions().filter_map(|pod| controller_key::<Job>(&pod.metadata)).collect();
        let pod = event.object();
        if controller_of(&pod.metadata).is_none() && !event.is_deletion() {
            let selects = |job: &Job| {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| !labels::is_empty(selector) && labels::matches(selector, pod.metadata.labels.as_ref()))
            };
            let matching = self.jobs.list_namespace(pod.namespace()).into_iter().filter(|job| selects(job));
            keys.extend(matching.map(|job| ObjectKey::of(&*job)));
        }
        keys
    }

    /// Takes the finalizer off pods of a Job that is gone, or of another one of its name: no Job will count them.
    async fn free_pods(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), Error> {
        let mut stray = self.tracked.get(&key.to_string());
        stray.retain(|pod| controller_of(&pod.metadata).is_some_and(|owner| uid != Some(owner.uid.as_str())));
        if stray.is_empty() {
            return Ok(());
        }
        match self.client.get::<Job>(Some(&key.namespace), &key.name).await {
            // The Job exists, but is not in the cache yet: its pods are not stray.
            Ok(live) => stray.retain(|pod| controller_of(&pod.metadata).is_some_and(|owner| owner.uid != live.uid())),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        for pod in stray {
            self.take_finalizer(&pod).await?;
        }
        Ok(())
    }

    /// Takes the finalizer off; returns the pod as it is then, if it is still there.
    async fn take_finalizer(&self, pod: &Pod) -> Result<Option<Pod>, Error> {
        let patch = json!({"metadata": {"uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER]}});
        match self.client.patch::<Pod>(Some(pod.namespace()), pod.name(), &Patch::Strategic(patch)).await {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn release(&self, job: &Job, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let freed = futures::future::join_all(pods.iter().map(|pod| self.take_finalizer(pod))).await;
        let mut errors = Vec::new();
        for result in freed {
            match result {
                Ok(Some(written)) => self.pods.found(job, &written),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        Error::first_of(errors).map_or(Ok(()), Err)
    }

    async fn sync(&self, job: &Job, pods: &[Arc<Pod>]) -> Result<Next, Error> {
        let now = clock::now();
        let mut view = View::new(job, pods, now);
        status::start(&mut view);
        let outcome = view.outcome();
        let mut wait = view.deadline_in_secs().filter(|secs| *secs > 0);
        let managed = if job.metadata.deletion_timestamp.is_some() {
            Ok(())
        } else if outcome.is_some() {
            let active = std::mem::take(&mut view.active);
            self.pods.delete_pods(job, &active).await
        } else {
            self.manage(&mut view, &mut wait).await
        };
        let suspension = if outcome.is_none() { status::suspension(&mut view) } else { None };
        let counted = status::note_finished(&mut view, outcome.as_ref());
        let finished = managed.is_ok() && status::conclude(&mut view, outcome.as_ref(), counted.is_empty());
        self.write_status(job, &view.status).await?;
        if let Some((reason, message)) = suspension {
            self.recorder.record(job, EventKind::Normal, reason, message);
        }
        if let Some(outcome) = outcome.filter(|_| finished) {
            if outcome.succeeded {
                self.recorder.record(job, EventKind::Normal, "Completed", "Job completed");
            } else {
                self.recorder.record(job, EventKind::Warning, &outcome.reason, outcome.message);
            }
        }
        self.release(job, &counted).await?;
        managed?;
        Ok(Next::after_secs(wait))
    }

    /// Creates or deletes pods, so that as many run as should.
    async fn manage(&self, view: &mut View<'_>, wait: &mut Option<i64>) -> Result<(), Error> {
        let missing = view.missing();
        let amount = usize::try_from(missing.unsigned_abs()).unwrap_or(usize::MAX).min(BURST);
        if missing < 0 {
            let victims = view.surplus(amount);
            self.pods.delete_pods(view.job, &victims).await?;
            view.active.retain(|pod| !victims.iter().any(|victim| victim.uid() == pod.uid()));
            return Ok(());
        }
        let mut sooner = |secs: i64| *wait = Some(wait.map_or(secs, |known: i64| known.min(secs)));
        if missing == 0 {
            return Ok(());
        }
        let backoff = view.backoff_secs();
        if backoff > 0 {
            sooner(backoff);
            return Ok(());
        }
        let job = view.job;
        if view.is_indexed() {
            let (next, later) = view.next_indexes(amount);
            if let Some(secs) = later {
                sooner(secs);
            }
            let pods: Vec<Pod> = next.into_iter().map(|(index, failures)| pod::new_pod(job, Some(index), failures)).collect();
            slow_start(pods.len(), |at| self.pods.create_pod(job, &pods[at])).await.1
        } else {
            let pod = pod::new_pod(job, None, None);
            slow_start(amount, |_| self.pods.create_pod(job, &pod)).await.1
        }
    }

    async fn write_status(&self, job: &Job, wanted: &JobStatus) -> Result<(), Error> {
        let old = job.status.clone().unwrap_or_default();
        if *wanted == old {
            return Ok(());
        }
        let patch = status_patch(job, &old, wanted)?;
        match self.client.patch_status::<Job>(Some(job.namespace()), job.name(), &patch).await {
            Ok(written) => {
                self.own_writes.wrote(&ObjectKey::of(job), &written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
