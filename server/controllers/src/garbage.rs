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

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tracing::debug;
use trireme_client::{Client, DeleteOptions, Patch, PatchOptions, Preconditions, ResourceType, WorkQueue};

use crate::Error;
use crate::runtime::{Lead, Next, Reconcile};
use graph::{FOREGROUND, Graph, ORPHAN, Owner, Verdict, Vertex};

const NAME: &str = "generic-garbage-collector";
/// Absent owners remembered: a uid never comes back.
const ABSENT_MAX: usize = 5_000;

/// An owner as it was asked for.
type Asked = (String, String, String, String, String);

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    /// What is served, to find an owner's resource by its kind.
    served: RwLock<Vec<Arc<ResourceType>>>,
    absent: Mutex<HashSet<Asked>>,
    check: WorkQueue<String>,
    orphan: WorkQueue<String>,
}

/// Deletes.
struct Check(Arc<Collector>);
/// Releases dependents.
struct Release(Arc<Collector>);

pub(crate) fn start(lead: &mut Lead) {
    let collector = Arc::new(Collector {
        client: lead.client(NAME),
        graph: Mutex::new(Graph::default()),
        served: RwLock::new(Vec::new()),
        absent: Mutex::new(HashSet::new()),
        check: lead.queue("garbage_collector_attempt_to_delete"),
        orphan: lead.queue("garbage_collector_attempt_to_orphan"),
    });
    let (ready, is_ready) = tokio::sync::watch::channel(false);
    let monitors = monitors::run(Arc::clone(&collector), lead.client(NAME), lead.cancel.clone(), ready);
    lead.spawn(monitors);
    // Nothing is judged before the graph is complete.
    lead.work_when(NAME, &collector.check, &Arc::new(Check(Arc::clone(&collector))), is_ready.clone());
    lead.work_when(NAME, &collector.orphan, &Arc::new(Release(Arc::clone(&collector))), is_ready);
}

impl Reconcile<String> for Check {
    async fn reconcile(&self, uid: &String) -> Result<Next, Error> {
        self.0.check(uid).await.map(|()| Next::Wait)
    }
}

impl Reconcile<String> for Release {
    async fn reconcile(&self, uid: &String) -> Result<Next, Error> {
        self.0.release(uid).await.map(|()| Next::Wait)
    }
}

impl Collector {
    fn touched(&self, touched: graph::Touched) {
        touched.check.into_iter().for_each(|uid| self.check.add(uid));
        touched.orphan.into_iter().for_each(|uid| self.orphan.add(uid));
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
                    // The graph is behind: its next event brings us back, and so does this.
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
            // A cluster-scoped object cannot have an owner in a namespace: nobody can say which.
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
