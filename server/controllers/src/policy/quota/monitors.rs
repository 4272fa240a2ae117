//! Following the objects that quotas bound, so that a deletion is noticed when it happens.
//!
//! Only resources that some quota names are followed, and nothing of their objects is kept but the names. Pods have an informer already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use trireme_api::quota::Subject;
use trireme_client::{Client, Event, Informer, InformerOptions, Object, PartialMeta, ResourceType};

use crate::Error;
use crate::cluster::discovery;

/// How often the API is asked what it serves because a quota names what it did not serve before.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(10);

type Report = Arc<dyn Fn(&Subject, &str) + Send + Sync>;

/// The informers of what quotas bound.
pub(super) struct Monitors {
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    report: Option<Report>,
    running: BTreeMap<Subject, Monitor>,
    /// What discovery said, and when.
    served: BTreeMap<(String, String), ResourceType>,
    asked: Option<Instant>,
}

/// How far what quotas bound is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Followed {
    /// All of it.
    All,
    /// A deletion of a moment ago may have been missed.
    SomeAreNew,
    /// A quota names a resource that is not served.
    SomeAreUnserved,
}

struct Monitor {
    resource: ResourceType,
    _informer: Arc<Informer<PartialMeta>>,
    _running: DropGuard,
}

// === impl Monitors ===

impl Monitors {
    pub(super) fn new(client: Client) -> Self {
        Self { client, state: Mutex::default() }
    }

    /// Calls `report` with a resource and a namespace whenever objects there may use less than before.
    pub(super) fn report_to(&self, report: impl Fn(&Subject, &str) + Send + Sync + 'static) {
        self.state.lock().report = Some(Arc::new(report));
    }

    /// The resource of a subject, if it is followed.
    pub(super) fn resource(&self, subject: &Subject) -> Option<ResourceType> {
        if *subject == Subject::Pods {
            return Some(ResourceType::of::<k8s_openapi::api::core::v1::Pod>());
        }
        self.state.lock().running.get(subject).map(|monitor| monitor.resource.clone())
    }

    /// The API no longer serves what a subject is about.
    pub(super) fn forget(&self, subject: &Subject) {
        let mut state = self.state.lock();
        state.running.remove(subject);
        let (group, plural) = subject.resource();
        state.served.remove(&(group.to_owned(), plural.to_owned()));
    }

    /// Follows exactly these. Returns whether all of them are followed, and were before.
    pub(super) async fn follow(&self, wanted: BTreeSet<Subject>) -> Result<Followed, Error> {
        if self.wants_discovery(&wanted) {
            let found = discovery::discover(&self.client).await?;
            let mut state = self.state.lock();
            state.asked = Some(Instant::now());
            let served = found.served.into_iter().map(|served| served.resource).filter(|resource| resource.namespaced);
            state.served = served.map(|resource| ((resource.group.to_string(), resource.plural.to_string()), resource)).collect();
        }
        let mut state = self.state.lock();
        state.running.retain(|subject, _| wanted.contains(subject));
        let mut followed = Followed::All;
        for subject in wanted {
            if subject == Subject::Pods || state.running.contains_key(&subject) {
                continue;
            }
            let (group, plural) = subject.resource();
            let resource = state.served.get(&(group.to_owned(), plural.to_owned())).cloned();
            match (resource, state.report.clone()) {
                (Some(resource), Some(report)) => {
                    let monitor = self.start(&subject, resource, report);
                    state.running.insert(subject, monitor);
                    followed = followed.max(Followed::SomeAreNew);
                }
                _ => followed = Followed::SomeAreUnserved,
            }
        }
        Ok(followed)
    }

    fn wants_discovery(&self, wanted: &BTreeSet<Subject>) -> bool {
        let state = self.state.lock();
        let is_known = |subject: &Subject| {
            let (group, plural) = subject.resource();
            *subject == Subject::Pods || state.served.contains_key(&(group.to_owned(), plural.to_owned()))
        };
        !wanted.iter().all(is_known) && state.asked.is_none_or(|asked| asked.elapsed() >= DISCOVERY_PERIOD)
    }

    fn start(&self, subject: &Subject, resource: ResourceType, report: Report) -> Monitor {
        let cancel = CancellationToken::new();
        let options = InformerOptions::default();
        let informer = Informer::start_for_with(resource.clone(), self.client.clone(), options, keep_the_name, cancel.clone());
        let subject = subject.clone();
        informer.on_event(move |event| {
            if event.is_deletion() || (!subject.is_number_only() && matches!(event, Event::Updated { .. })) {
                report(&subject, event.object().namespace());
            }
        });
        Monitor { resource, _informer: informer, _running: cancel.drop_guard() }
    }
}

fn keep_the_name(object: &mut PartialMeta) {
    let metadata = &mut object.metadata;
    metadata.labels = None;
    metadata.annotations = None;
    metadata.owner_references = None;
    metadata.finalizers = None;
    metadata.managed_fields = None;
    object.kind = String::new();
    object.api_version = String::new();
}
