//! PodDisruptionBudgets: how many pods may be evicted at this moment.
//!
//! Owns the status of PodDisruptionBudgets. The eviction subresource takes from `disruptionsAllowed` and notes the pod in
//! `disruptedPods`, in the transaction that deletes the pod; this controller counts anew and forgets what has been confirmed.
//! Must not delete pods.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/>.

mod expected;
mod stale;
mod status;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use trireme_client::{Client, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, labels};

use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches, clock};
use crate::workloads::status::status_patch;
use expected::Scales;
pub(crate) use stale::StaleDisruptions;

/// The disruption controller.
pub(crate) struct DisruptionBudgets {
    client: Client,
    recorder: EventRecorder,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    scales: Scales,
}

impl Controller for DisruptionBudgets {
    const NAME: &'static str = "disruption-controller";
    const COMPONENT: &'static str = "controllermanager";
    const QUEUE: &'static str = "disruption";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<PodDisruptionBudget>>, Arc<Informer<Pod>>, expected::Owners);

    fn new((budgets, pods, owners): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            budgets,
            pods,
            scales: Scales::new(owners, context.client.clone()),
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.budgets, |event| [ObjectKey::of(&**event.object())]);
        let me = Arc::clone(self);
        watches.on(&self.pods, move |event| me.budgets_of(event));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get_key(key) else { return Ok(Next::Wait) };
        let pods = self.pods_of(&budget);
        if pods.is_empty() {
            self.recorder.record(&*budget, EventKind::Normal, "NoPods", "No matching pods found");
        }
        let now = clock::now();
        let expected = match expected::expected(&budget, &pods, &self.scales).await {
            Ok(expected) => expected,
            Err(error @ Error::Invalid(_)) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.recorder.record(&*budget, EventKind::Warning, "CalculateExpectedPodCountFailed", message);
                // No pod may be evicted while the expected number of pods is unknown.
                self.write(&budget, &status::failed(&budget, &error.to_string(), now)).await?;
                return Ok(Next::Wait);
            }
            Err(error) => return Err(error),
        };
        if expected.unmanaged {
            let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB \
                cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
                \".spec.minAvailable\" field of the PDB to an integer value.";
            self.recorder.record(&*budget, EventKind::Warning, "UnmanagedPods", message);
        }
        let (disrupted, undeleted) = status::disrupted(&budget, &pods, now);
        for pod in undeleted {
            let message = format!("Pod was expected by PDB {}/{} to be deleted but it wasn't", budget.namespace(), budget.name());
            self.recorder.record(&*pod, EventKind::Warning, "NotDeleted", message);
        }
        let recheck = status::recheck_secs(&disrupted, now);
        self.write(&budget, &status::status(&budget, &pods, &expected, disrupted, now)).await?;
        Ok(Next::after_secs(recheck))
    }
}

impl DisruptionBudgets {
    /// The budgets that cover the pod before or after the event.
    fn budgets_of(&self, event: &Event<Pod>) -> Vec<ObjectKey> {
        let pod = event.object();
        let mut covering = self.budgets.list_namespace(pod.namespace());
        covering.retain(|budget| event.versions().any(|pod| covers(budget, pod)));
        let now = covering.iter().filter(|budget| covers(budget, pod)).count();
        if now > 1 && event.old().is_none() && !event.is_deletion() {
            let message =
                format!("Pod {:?}/{:?} matches multiple PodDisruptionBudgets: it cannot be evicted.", pod.namespace(), pod.name());
            self.recorder.record(&**pod, EventKind::Warning, "MultiplePodDisruptionBudgets", message);
        }
        covering.iter().map(|budget| ObjectKey::of(&**budget)).collect()
    }

    fn pods_of(&self, budget: &PodDisruptionBudget) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list_namespace(budget.namespace());
        pods.retain(|pod| covers(budget, pod));
        pods
    }

    async fn write(&self, budget: &PodDisruptionBudget, wanted: &PodDisruptionBudgetStatus) -> Result<(), Error> {
        let old = budget.status.clone().unwrap_or_default();
        if budget.status.as_ref() == Some(wanted) {
            return Ok(());
        }
        // With the revision: an eviction may have taken from the budget meanwhile.
        let patch = status_patch(budget, &old, wanted)?;
        match self.client.patch_status::<PodDisruptionBudget>(Some(budget.namespace()), budget.name(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a budget selects a pod. No selector selects none, an empty one all.
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| labels::matches(selector, pod.metadata.labels.as_ref()))
}
