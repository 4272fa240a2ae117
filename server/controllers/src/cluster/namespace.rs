//! Namespace deletion: everything in a terminating namespace goes, pods first, then the namespace itself.
//!
//! Owns the `kubernetes` finalizer in a namespace's spec and the deletion conditions in its status.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/>.

mod report;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};
use trireme_client::{Client, DeleteOptions, Informer, ListOptions, Object, ObjectKey, PartialMeta, Patch, Propagation, ResourceType};

use super::discovery::{self, Served};
use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches, clock};
use report::Report;

const FINALIZER: &str = "kubernetes";
/// How soon a namespace with something left in it is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// The namespace controller.
pub(crate) struct NamespaceDeletion {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
}

impl Controller for NamespaceDeletion {
    const NAME: &'static str = "namespace-controller";
    const QUEUE: &'static str = "namespace";
    type Key = ObjectKey;
    type Reads = Arc<Informer<Namespace>>;

    fn new(namespaces: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), namespaces })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.namespaces, |event| {
            let namespace = event.object();
            namespace.metadata.deletion_timestamp.is_some().then(|| ObjectKey::of(&**namespace))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Next::Wait) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|one| one == FINALIZER) {
            return Ok(Next::Wait);
        }
        let report = self.empty(&key.name).await;
        self.write_conditions(&namespace, &report).await?;
        if let Some(error) = report.error {
            return Err(error);
        }
        if !report.remaining.is_empty() {
            return Ok(Next::After(RETRY));
        }
        self.finalize(&namespace).await?;
        Ok(Next::Wait)
    }
}

impl NamespaceDeletion {
    /// Deletes what is there; reports what remains.
    async fn empty(&self, namespace: &str) -> Report {
        let mut report = Report::default();
        let discovery = match discovery::discover(&self.client).await {
            Ok(discovery) => discovery,
            Err(error) => {
                report.discovery_failures.push(error.to_string());
                report.error = Some(error);
                return report;
            }
        };
        report.discovery_failures = discovery.failed.iter().map(|(group, reason)| format!("{group}: {reason}")).collect();
        let mut served: Vec<Served> = discovery
            .served
            .into_iter()
            .filter(|served| served.resource.namespaced && served.can("list") && served.can("delete"))
            .collect();
        // Pods first, and nothing else while one is left: a pod must not outlive the NetworkPolicy that fences it in.
        served.sort_by_key(|served| served.resource.plural != "pods" || !served.resource.group.is_empty());
        for served in &served {
            match self.empty_one(served, namespace, &mut report).await {
                Ok(()) => {}
                Err(error) => {
                    report.content_failures.push(error.to_string());
                    report.error.get_or_insert(error);
                }
            }
            if served.resource.plural == "pods" && !report.remaining.is_empty() {
                return report;
            }
        }
        if report.error.is_none() && !report.discovery_failures.is_empty() {
            report.error = Some(Error::Invalid(format!("discovery failed: {}", report.discovery_failures.join("; "))));
        }
        report
    }

    async fn empty_one(&self, served: &Served, namespace: &str, report: &mut Report) -> Result<(), Error> {
        let resource = &served.resource;
        if self.list(resource, namespace).await?.is_empty() {
            return Ok(());
        }
        let background = DeleteOptions::default().propagation(Propagation::Background);
        if served.can("deletecollection") {
            let all = ListOptions::default();
            match self.client.delete_collection(resource, Some(namespace), &background, &all).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        } else {
            for object in self.list(resource, namespace).await? {
                match self.client.delete_any(resource, Some(namespace), object.name(), &background).await {
                    Ok(()) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let left = self.list(resource, namespace).await?;
        if !left.is_empty() {
            report.left(resource, &left);
        }
        Ok(())
    }

    async fn list(&self, resource: &ResourceType, namespace: &str) -> Result<Vec<PartialMeta>, Error> {
        match self.client.list_any::<PartialMeta>(resource, Some(namespace), &ListOptions::default()).await {
            Ok(list) => Ok(list.items),
            Err(error) if error.is_not_found() || error.is_method_not_allowed() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_conditions(&self, namespace: &Namespace, report: &Report) -> Result<(), Error> {
        let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let changed: Vec<Value> = report.conditions(&old, clock::now());
        let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
        if changed.is_empty() && phase == Some("Terminating") {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": namespace.uid()},
            "status": {"phase": "Terminating", "conditions": changed},
        });
        match self.client.patch_status::<Namespace>(None, namespace.name(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes our finalizer. The object is written back undecoded.
    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let resource = ResourceType::of::<Namespace>();
        let mut fresh: Value = match self.client.get_any(&resource, None, namespace.name()).await {
            Ok(fresh) => fresh,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if fresh["metadata"]["uid"].as_str() != Some(namespace.uid()) {
            return Ok(());
        }
        if let Some(finalizers) = fresh["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|one| one.as_str() != Some(FINALIZER));
        }
        let done: Result<serde::de::IgnoredAny, _> =
            self.client.replace_any(&resource, None, namespace.name(), Some("finalize"), &fresh).await;
        match done {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
