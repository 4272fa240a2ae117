//! ResourceQuotas: what the objects of a namespace use.
//!
//! Owns the status of ResourceQuotas: `hard` follows the spec, `used` is counted anew when something was given back. Admission adds to
//! `used` in the transactions that write objects; this controller never judges a write.
//!
//! A count is of lists that are not older than the quota, and is written only if the quota is still the same. Whatever was charged is
//! therefore in the lists, or the write conflicts and the count begins again: no charge is lost.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.

mod count;
mod monitors;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus};
use trireme_api::quota::Subject;
use trireme_client::{Client, Event, Informer, Object, ObjectKey};

use crate::Error;
use crate::pods;
use crate::runtime::{Context, Controller, Next, Watches, clock};
use crate::workloads::status::status_patch;
use count::Count;
use monitors::{Followed, Monitors};

/// After a release, the recount waits this long, so that releases that follow are counted together.
const GATHER: Duration = Duration::from_millis(250);
/// A charge whose object was not written after all is found within this time.
const DOUBT: Duration = Duration::from_secs(5);
/// The interval at which every quota is counted again, even without events.
const RESYNC: Duration = Duration::from_secs(300);
/// A resource that is not served now may be served later.
const UNSERVED_RETRY: Duration = Duration::from_secs(10);

/// The quota controller.
pub(crate) struct Quotas {
    client: Client,
    quotas: Arc<Informer<ResourceQuota>>,
    pods: Arc<Informer<Pod>>,
    monitors: Monitors,
}

impl Controller for Quotas {
    const NAME: &'static str = "resourcequota-controller";
    const QUEUE: &'static str = "resourcequota_primary";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<ResourceQuota>>, Arc<Informer<Pod>>);

    fn new((quotas, pods): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), monitors: Monitors::new(context.client.clone()), quotas, pods })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        let queue = watches.queue();
        let later = queue.clone();
        watches.on(&self.quotas, move |event| {
            let key = ObjectKey::of(&**event.object());
            if asks_anew(event) {
                return Some(key);
            }
            later.add_after(key, DOUBT);
            None
        });
        let quotas = Arc::clone(&self.quotas);
        let given_back = move |subject: &Subject, namespace: &str| {
            for quota in quotas.list_namespace(namespace).iter().filter(|quota| bounds(quota, subject)) {
                queue.add_after(ObjectKey::of(&**quota), GATHER);
            }
        };
        self.monitors.report_to(given_back.clone());
        watches.on(&self.pods, move |event| {
            if gives_back(event) {
                given_back(&Subject::Pods, event.object().namespace());
            }
            None
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        // The monitors start before the count, so that no deletion after the count is missed.
        let followed = self.monitors.follow(self.bounded()).await?;
        let Some(quota) = self.quotas.get_key(key) else { return Ok(Next::Wait) };
        let count = Count::of(&quota, &self.monitors, &self.client, clock::now()).await?;
        self.write(&quota, &count).await?;
        let wait = match followed {
            Followed::All => RESYNC,
            Followed::SomeAreNew => DOUBT,
            Followed::SomeAreUnserved => UNSERVED_RETRY,
        };
        Ok(Next::After(count.changes_in(clock::now()).map_or(wait, |change| change.min(wait))))
    }
}

impl Quotas {
    /// The subjects that any quota limits.
    fn bounded(&self) -> BTreeSet<Subject> {
        self.quotas.list().iter().flat_map(|quota| subjects(quota)).collect()
    }

    async fn write(&self, quota: &ResourceQuota, count: &Count) -> Result<(), Error> {
        let old = quota.status.clone().unwrap_or_default();
        let wanted = ResourceQuotaStatus { hard: quota.spec.as_ref().and_then(|spec| spec.hard.clone()), used: Some(count.used()) };
        let amounts = |status: &ResourceQuotaStatus| [count::amounts(status.hard.as_ref()), count::amounts(status.used.as_ref())];
        if quota.status.is_some() && old.used.is_some() && amounts(&old) == amounts(&wanted) {
            return Ok(());
        }
        let patch = status_patch(quota, &old, &wanted)?;
        match self.client.patch_status::<ResourceQuota>(Some(quota.namespace()), quota.name(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The subjects that a quota limits.
fn subjects(quota: &ResourceQuota) -> BTreeSet<Subject> {
    let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    hard.filter_map(|(name, _)| Subject::of_name(name)).collect()
}

fn bounds(quota: &ResourceQuota, subject: &Subject) -> bool {
    quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten()).any(|(name, _)| subject.has(name))
}

/// Whether a quota is new, gone, or has other limits than its status says. Every other change is a charge, or our own.
fn asks_anew(event: &Event<ResourceQuota>) -> bool {
    let quota = event.object();
    let hard = |limits: Option<&std::collections::BTreeMap<_, _>>| count::amounts(limits);
    let wanted = hard(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
    event.old().is_none() || event.is_deletion() || wanted != hard(quota.status.as_ref().and_then(|status| status.hard.as_ref()))
}

/// Whether a pod uses less than before, now or soon.
fn gives_back(event: &Event<Pod>) -> bool {
    let pod = event.object();
    let Some(old) = event.old() else { return event.is_deletion() };
    let ends = |pod: &Pod| (pods::is_terminal(pod), pods::is_terminating(pod));
    event.is_deletion() || ends(old) != ends(pod) || old.spec != pod.spec
}
