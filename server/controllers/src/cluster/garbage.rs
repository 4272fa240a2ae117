//! The garbage collector: deletes what lost its last owner, walks foreground deletions, releases orphans.
//!
//! Owns the `orphan` and `foregroundDeletion` finalizers. Follows the metadata of every deletable resource, CRDs included, and
//! asks the API before it deletes: an owner that its graph does not know may only be newer than the graph.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.

mod graph;
mod monitors;

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::debug;
use trireme_client::{Client, DeleteOptions, EventKind, EventRecorder, Patch, PatchOptions, Preconditions, ResourceType, WorkQueue};

use crate::Error;
use crate::runtime::{Context, Declaration, Lead, Next, Prepared, work};
use graph::{FOREGROUND, Graph, ORPHAN, Owner, Verdict, Vertex};

const NAME: &str = "generic-garbage-collector";
const COMPONENT: &str = "garbage-collector-controller";
/// Absent owners remembered: a uid never comes back.
const ABSENT_MAX: usize = 5_000;

/// An owner as it was asked for.
type Asked = (String, String, String, String, String);

struct Collector {
    client: Client,
    recorder: EventRecorder,
    graph: Mutex<Graph>,
    /// What is served, to find an owner's resource by its kind.
    served: RwLock<Vec<Arc<ResourceType>>>,
    absent: Mutex<HashSet<Asked>>,
    check: WorkQueue<String>,
    orphan: WorkQueue<String>,
}

/// The garbage collector's declaration. It follows what discovery names, in informers of its own, and waits for those.
pub(crate) fn declaration() -> Declaration {
    Declaration::custom(|_| Arc::new(Garbage))
}

struct Garbage;

impl Prepared for Garbage {
    fn lead(self: Arc<Self>, lead: Arc<Lead>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let context = Context::new(&lead, NAME, COMPONENT);
            let queue = |name| WorkQueue::named(name, lead.metrics().queues());
            let collector = Arc::new(Collector {
                client: context.client.clone(),
                recorder: context.recorder,
                graph: Mutex::new(Graph::default()),
                served: RwLock::new(Vec::new()),
                absent: Mutex::new(HashSet::new()),
                check: queue("garbage_collector_attempt_to_delete"),
                orphan: queue("garbage_collector_attempt_to_orphan"),
            });
            let (ready, is_ready) = tokio::sync::watch::channel(false);
            let mut tasks = JoinSet::new();
            let monitors = monitors::run(Arc::clone(&collector), context.client, lead.cancel.clone(), ready);
            let cancel = lead.cancel.clone();
            tasks.spawn(async move { cancel.run_until_cancelled(monitors).await.unwrap_or(()) });
            for _ in 0..lead.options.concurrency.max(1) {
                let (collector, mut ready, cancel) = (Arc::clone(&collector), is_ready.clone(), lead.cancel.clone());
                tasks.spawn(async move {
                    let collect = async {
                        // Nothing is judged before the graph is complete.
                        if ready.wait_for(|ready| *ready).await.is_err() {
                            return;
                        }
                        let (me, queues) = (&collector, (&collector.check, &collector.orphan));
                        tokio::join!(
                            work(COMPONENT, queues.0, |uid| async move { me.check(&uid).await.map(|()| Next::Wait) }),
                            work(COMPONENT, queues.1, |uid| async move { me.release(&uid).await.map(|()| Next::Wait) }),
                        );
                    };
                    cancel.run_until_cancelled(collect).await.unwrap_or(())
                });
            }
            while tasks.join_next().await.is_some() {}
        })
    }
}

impl Collector {
    fn touched(&self, touched: graph::Touched) {
        for (dependent, owner) in touched.misplaced {
            self.report_misplaced(&dependent, &owner);
        }
        touched.check.into_iter().for_each(|uid| self.check.add(uid));
        touched.orphan.into_iter().for_each(|uid| self.orphan.add(uid));
    }

    /// Tells the reader of a dependent that its owner lives in another namespace.
    fn report_misplaced(&self, dependent: &str, owner: &OwnerReference) {
        let Some(vertex) = self.vertex(dependent) else { return };
        let object = ObjectReference {
            api_version: Some(vertex.resource.api_version()),
            kind: Some(vertex.resource.kind.clone().into_owned()),
            namespace: Some(vertex.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(vertex.name.clone()),
            uid: Some(dependent.to_owned()),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version, owner.kind, vertex.namespace, owner.name, owner.uid, vertex.namespace
        );
        self.recorder.record_ref(object, EventKind::Warning, "OwnerRefInvalidNamespace", message);
    }

    fn vertex(&self, uid: &str) -> Option<Vertex> {
        self.graph.lock().get(uid).cloned()
    }

    async fn check(&self, uid: &str) -> Result<(), Error> {
        let Some(vertex) = self.vertex(uid) else { return Ok(()) };
        if vertex.deleting && !vertex.foreground {
            return Ok(());
        }
        let mut owners = Vec::with_capacity(vertex.owners.len());
        if !vertex.foreground {
            for owner in &vertex.owners {
                owners.push((owner.uid.clone(), self.owner(&vertex, owner).await?));
            }
        }
        let verdict = self.graph.lock().judge(uid, &owners);
        match verdict {
            Verdict::Nothing => Ok(()),
            Verdict::RemoveForegroundFinalizer => self.remove_finalizer(uid, &vertex, FOREGROUND).await,
            Verdict::CheckDependents(dependents) => {
                for dependent in dependents {
                    let waits = self.vertex(&dependent).is_some_and(|vertex| vertex.deleting);
                    if !waits {
                        self.check.add(dependent);
                    }
                }
                Ok(())
            }
            Verdict::DropOwners(gone) => self.drop_owners(uid, &vertex, &gone).await,
            Verdict::Delete { propagation, unblock } => {
                let Some(live) = self.live(uid, &vertex).await? else { return Ok(()) };
                if live.metadata.owner_references.as_deref().unwrap_or_default() != vertex.owners {
                    // The graph is stale: the object is judged again on its next event, or when this error is retried.
                    return Err(Error::StaleCache);
                }
                if unblock {
                    self.unblock(uid, &vertex).await?;
                }
                let options = DeleteOptions {
                    preconditions: Some(Preconditions {
                        uid: Some(uid.to_owned()),
                        resource_version: live.metadata.resource_version.filter(|_| !unblock),
                    }),
                    ..DeleteOptions::default().propagation(propagation)
                };
                debug!(resource = %vertex.resource, namespace = vertex.namespace, name = vertex.name, "deleting");
                let deleted = self.client.delete_any(&vertex.resource, namespace(&vertex), &vertex.name, &options).await;
                match deleted {
                    Ok(()) => Ok(()),
                    Err(error) if error.is_not_found() => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    async fn release(&self, uid: &str) -> Result<(), Error> {
        let Some(vertex) = self.vertex(uid).filter(|vertex| vertex.orphan) else { return Ok(()) };
        let dependents = self.graph.lock().dependents_of(uid);
        let mut errors = Vec::new();
        for dependent in dependents {
            let Some(known) = self.vertex(&dependent) else { continue };
            if let Err(error) = self.drop_owners(&dependent, &known, &[uid.to_owned()]).await {
                errors.push(error);
            }
        }
        if let Some(error) = Error::first_of(errors) {
            return Err(error);
        }
        self.remove_finalizer(uid, &vertex, ORPHAN).await
    }

    /// The object's metadata as the API has it; `None` if it is gone (and then the graph forgets it).
    async fn live(&self, uid: &str, vertex: &Vertex) -> Result<Option<trireme_client::PartialMeta>, Error> {
        match self.client.get_meta(&vertex.resource, namespace(vertex), &vertex.name).await {
            Ok(live) if live.metadata.uid.as_deref() == Some(uid) => Ok(Some(live)),
            Ok(_) => {
                self.forget(uid);
                Ok(None)
            }
            Err(error) if error.is_not_found() => {
                self.forget(uid);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn forget(&self, uid: &str) {
        let touched = self.graph.lock().remove(uid);
        self.touched(touched);
    }

    /// Whether an owner exists: from the graph if that knows it, else from the API.
    async fn owner(&self, dependent: &Vertex, owner: &OwnerReference) -> Result<Owner, Error> {
        if let Some(known) = self.graph.lock().owner(dependent, owner) {
            return Ok(known);
        }
        let asked: Asked =
            (owner.api_version.clone(), owner.kind.clone(), dependent.namespace.clone(), owner.name.clone(), owner.uid.clone());
        if self.absent.lock().contains(&asked) {
            return Ok(Owner::Absent);
        }
        let Some(resource) = self.resource_of(owner) else {
            return Err(Error::Invalid(format!("no resource is served for owner kind {}/{}", owner.api_version, owner.kind)));
        };
        if resource.namespaced && dependent.namespace.is_empty() {
            // A cluster-scoped object cannot have an owner in a namespace: the reference does not name one.
            return Ok(Owner::Solid);
        }
        let scope = Some(dependent.namespace.as_str()).filter(|_| resource.namespaced);
        match self.client.get_meta(&resource, scope, &owner.name).await {
            Ok(live) if live.metadata.uid.as_deref() == Some(&owner.uid) => {
                let foreground = live.metadata.deletion_timestamp.is_some()
                    && live.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
                Ok(if foreground { Owner::Waiting } else { Owner::Solid })
            }
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => {
                let mut absent = self.absent.lock();
                if absent.len() >= ABSENT_MAX {
                    absent.clear();
                }
                absent.insert(asked);
                Ok(Owner::Absent)
            }
        }
    }

    fn resource_of(&self, owner: &OwnerReference) -> Option<Arc<ResourceType>> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.served.read().iter().find(|resource| resource.group == group && resource.kind == owner.kind).cloned()
    }

    async fn patch(&self, vertex: &Vertex, patch: Value) -> Result<(), Error> {
        let options = PatchOptions::default();
        let patched: Result<serde::de::IgnoredAny, _> =
            self.client.patch_any(&vertex.resource, namespace(vertex), &vertex.name, None, &Patch::Merge(patch), &options).await;
        match patched {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove_finalizer(&self, uid: &str, vertex: &Vertex, finalizer: &str) -> Result<(), Error> {
        let Some(live) = self.live(uid, vertex).await? else { return Ok(()) };
        let before = live.metadata.finalizers.unwrap_or_default();
        let after: Vec<&String> = before.iter().filter(|one| *one != finalizer).collect();
        if after.len() == before.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": uid, "resourceVersion": live.metadata.resource_version, "finalizers": after,
        }});
        self.patch(vertex, patch).await
    }

    async fn drop_owners(&self, uid: &str, vertex: &Vertex, gone: &[String]) -> Result<(), Error> {
        let Some(live) = self.live(uid, vertex).await? else { return Ok(()) };
        let before = live.metadata.owner_references.unwrap_or_default();
        let after: Vec<&OwnerReference> = before.iter().filter(|owner| !gone.contains(&owner.uid)).collect();
        if after.len() == before.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": uid, "resourceVersion": live.metadata.resource_version, "ownerReferences": after,
        }});
        self.patch(vertex, patch).await
    }

    /// The object no longer blocks its owners.
    async fn unblock(&self, uid: &str, vertex: &Vertex) -> Result<(), Error> {
        let Some(live) = self.live(uid, vertex).await? else { return Ok(()) };
        let mut owners = live.metadata.owner_references.unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        let patch = json!({"metadata": {
            "uid": uid, "resourceVersion": live.metadata.resource_version, "ownerReferences": owners,
        }});
        self.patch(vertex, patch).await
    }
}

fn namespace(vertex: &Vertex) -> Option<&str> {
    Some(vertex.namespace.as_str()).filter(|namespace| !namespace.is_empty())
}
