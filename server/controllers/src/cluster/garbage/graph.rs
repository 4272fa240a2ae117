//! The ownership graph: all objects by uid, with their owners and dependents. No I/O.
//!
//! Events change the graph and return the objects to examine. [`Graph::judge`] decides what to do with an object, from the graph and
//! from live reads of owners that the graph does not know.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use trireme_client::{Propagation, ResourceType};

pub(super) const ORPHAN: &str = "orphan";
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Vertex {
    pub(super) resource: Arc<ResourceType>,
    /// Empty for cluster-scoped objects.
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    pub(super) foreground: bool,
    pub(super) orphan: bool,
}

impl Vertex {
    /// Whether it can own objects of this namespace: a cluster-scoped object can own any, another one those of its namespace.
    fn owns_in(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace == namespace
    }
}

/// The objects to examine after an event.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Touched {
    /// Objects that may have to be deleted, or may be done waiting.
    pub(super) check: HashSet<String>,
    /// Objects whose dependents are to be released.
    pub(super) orphan: HashSet<String>,
    /// Dependents that name an owner in another namespace, with the reference.
    pub(super) misplaced: Vec<(String, OwnerReference)>,
}

/// The state of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It exists and stays, or goes without waiting.
    Solid,
    /// It exists and waits for its dependents to go.
    Waiting,
    /// It does not exist.
    Absent,
}

/// What to do with an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// Its dependents are gone: it may go too.
    RemoveForegroundFinalizer,
    /// It waits for these.
    CheckDependents(Vec<String>),
    /// It has other owners: these references go.
    DropOwners(Vec<String>),
    /// It has no owner that holds it. `unblock`: it must stop blocking its owners first, because they wait for each other.
    Delete {
        propagation: Propagation,
        unblock: bool,
    },
}

#[derive(Default)]
pub(super) struct Graph {
    vertices: HashMap<String, Vertex>,
    /// By the owner's uid, whether or not the owner is known.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Vertex> {
        self.vertices.get(uid)
    }

    pub(super) fn len(&self) -> usize {
        self.vertices.len()
    }

    /// An object as it is now.
    pub(super) fn upsert(&mut self, resource: &Arc<ResourceType>, meta: &ObjectMeta) -> Touched {
        let mut touched = Touched::default();
        let Some(uid) = meta.uid.clone() else { return touched };
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|one| one == finalizer);
        let deleting = meta.deletion_timestamp.is_some();
        let vertex = Vertex {
            resource: Arc::clone(resource),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphan: deleting && has(ORPHAN),
        };
        let old = self.vertices.get(&uid);
        let old_owners: HashSet<String> = old.iter().flat_map(|old| old.owners.iter().map(|owner| owner.uid.clone())).collect();
        let new_owners: HashSet<String> = vertex.owners.iter().map(|owner| owner.uid.clone()).collect();
        let was_foreground = old.is_some_and(|old| old.foreground);
        let was_deleting = old.is_some_and(|old| old.deleting);
        for gone in old_owners.difference(&new_owners) {
            self.unlink(gone, &uid);
            touched.check.insert(gone.clone());
        }
        for owner in &vertex.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            let known = self.vertices.get(&owner.uid);
            let held = known.is_some_and(|known| !known.foreground && !known.orphan) && self.owner(&vertex, owner).is_some();
            if !held {
                touched.check.insert(uid.clone());
            }
            if known.is_some_and(|known| !known.owns_in(&vertex.namespace)) && !old_owners.contains(&owner.uid) {
                touched.misplaced.push((uid.clone(), owner.clone()));
            }
        }
        if vertex.foreground {
            touched.check.insert(uid.clone());
            if !was_foreground {
                touched.check.extend(self.dependents_of(&uid));
            }
        }
        if deleting && !was_deleting {
            // An owner may have been waiting for this object although blockOwnerDeletion is off: the owners are examined again.
            touched.check.extend(new_owners.iter().cloned());
        }
        if vertex.orphan {
            touched.orphan.insert(uid.clone());
        }
        self.vertices.insert(uid, vertex);
        touched
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Touched {
        let mut touched = Touched::default();
        let Some(vertex) = self.vertices.remove(uid) else { return touched };
        for owner in &vertex.owners {
            self.unlink(&owner.uid, uid);
            touched.check.insert(owner.uid.clone());
        }
        touched.check.extend(self.dependents_of(uid));
        touched
    }

    /// A resource is no longer served: its objects are unknown now.
    pub(super) fn remove_resource(&mut self, resource: &ResourceType) {
        let gone: Vec<String> =
            self.vertices.iter().filter(|(_, vertex)| *vertex.resource == *resource).map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            // Its dependents are not to be judged by this: the object may still exist.
            let _ = self.remove(&uid);
        }
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    pub(super) fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The state of an owner as far as the graph knows it; `None` if the API server must be asked. That is also the case for a
    /// reference into another namespace, and for one whose name or kind differs from the object with that uid.
    pub(super) fn owner(&self, dependent: &Vertex, owner: &OwnerReference) -> Option<Owner> {
        let known = self.vertices.get(&owner.uid)?;
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let same = known.name == owner.name && known.resource.kind == owner.kind && known.resource.group == group;
        (known.owns_in(&dependent.namespace) && same).then_some(if known.foreground { Owner::Waiting } else { Owner::Solid })
    }

    /// What to do with an object whose owners are known.
    pub(super) fn judge(&self, uid: &str, owners: &[(String, Owner)]) -> Verdict {
        let Some(vertex) = self.vertices.get(uid) else { return Verdict::Nothing };
        if vertex.foreground {
            let blocking = self.blocking(uid);
            return if blocking.is_empty() { Verdict::RemoveForegroundFinalizer } else { Verdict::CheckDependents(blocking) };
        }
        if vertex.deleting || owners.is_empty() {
            return Verdict::Nothing;
        }
        let of = |wanted: Owner| owners.iter().filter(move |(_, owner)| *owner == wanted);
        let droppable: Vec<String> = owners.iter().filter(|(_, owner)| *owner != Owner::Solid).map(|(uid, _)| uid.clone()).collect();
        if of(Owner::Solid).next().is_some() {
            return if droppable.is_empty() { Verdict::Nothing } else { Verdict::DropOwners(droppable) };
        }
        let dependents = self.dependents_of(uid);
        if of(Owner::Waiting).next().is_some() && !dependents.is_empty() {
            // Its owner waits for it in a foreground deletion, so it must wait for its own dependents. If one of these waits too, there
            // may be a cycle of owners, which is broken by unblocking.
            let circle = dependents.iter().any(|dependent| self.get(dependent).is_some_and(|one| one.foreground));
            return Verdict::Delete { propagation: Propagation::Foreground, unblock: circle };
        }
        let propagation = if vertex.orphan { Propagation::Orphan } else { Propagation::Background };
        Verdict::Delete { propagation, unblock: false }
    }

    /// The dependents for which a foreground deletion waits. Objects in other namespaces do not count: they cannot have this owner.
    fn blocking(&self, uid: &str) -> Vec<String> {
        let Some(owner) = self.get(uid) else { return Vec::new() };
        let blocks = |reference: &OwnerReference| reference.uid == uid && reference.block_owner_deletion == Some(true);
        self.dependents_of(uid)
            .into_iter()
            .filter(|dependent| {
                self.get(dependent).is_some_and(|vertex| owner.owns_in(&vertex.namespace) && vertex.owners.iter().any(blocks))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn upsert(graph: &mut Graph, uid: &str, owners: &[&str], finalizer: Option<&str>) -> Touched {
        let owners: Vec<Value> = owners
            .iter()
            .map(|owner| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner, "blockOwnerDeletion": true}))
            .collect();
        let mut meta = json!({"name": uid, "namespace": "ns", "uid": uid, "ownerReferences": owners});
        if let Some(finalizer) = finalizer {
            meta["finalizers"] = json!([finalizer]);
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let resource = Arc::new(ResourceType::of::<k8s_openapi::api::core::v1::ConfigMap>());
        graph.upsert(&resource, &serde_json::from_value(meta).unwrap())
    }

    fn judge(graph: &Graph, uid: &str) -> Verdict {
        let vertex = graph.get(uid).unwrap();
        let owners: Vec<(String, Owner)> =
            vertex.owners.iter().map(|owner| (owner.uid.clone(), graph.owner(vertex, owner).unwrap_or(Owner::Absent))).collect();
        graph.judge(uid, &owners)
    }

    fn set(uids: &[&str]) -> HashSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn background_deletion_takes_the_dependents_that_nobody_else_owns() {
        let mut graph = Graph::default();
        upsert(&mut graph, "a", &[], None);
        upsert(&mut graph, "b", &[], None);
        assert_eq!(upsert(&mut graph, "only", &["a"], None), Touched::default(), "its owner is there");
        upsert(&mut graph, "shared", &["a", "b"], None);
        assert_eq!(graph.remove("a").check, set(&["only", "shared"]));
        let background = Verdict::Delete { propagation: Propagation::Background, unblock: false };
        assert_eq!(judge(&graph, "only"), background);
        assert_eq!(judge(&graph, "shared"), Verdict::DropOwners(vec!["a".to_owned()]));
        assert_eq!(upsert(&mut graph, "late", &["a"], None).check, set(&["late"]), "its owner is not there");
        assert_eq!(judge(&graph, "late"), background);
    }

    #[test]
    fn foreground_deletion_goes_down_and_comes_up_again() {
        let mut graph = Graph::default();
        upsert(&mut graph, "top", &[], None);
        upsert(&mut graph, "middle", &["top"], None);
        upsert(&mut graph, "leaf", &["middle"], None);
        let touched = upsert(&mut graph, "top", &[], Some(FOREGROUND));
        assert_eq!(touched.check, set(&["top", "middle"]));
        assert_eq!(judge(&graph, "top"), Verdict::CheckDependents(vec!["middle".to_owned()]));
        assert_eq!(judge(&graph, "middle"), Verdict::Delete { propagation: Propagation::Foreground, unblock: false });
        upsert(&mut graph, "middle", &["top"], Some(FOREGROUND));
        assert_eq!(judge(&graph, "leaf"), Verdict::Delete { propagation: Propagation::Background, unblock: false });
        assert!(graph.remove("leaf").check.contains("middle"));
        assert_eq!(judge(&graph, "middle"), Verdict::RemoveForegroundFinalizer);
        assert!(graph.remove("middle").check.contains("top"));
        assert_eq!(judge(&graph, "top"), Verdict::RemoveForegroundFinalizer);
    }

    #[test]
    fn security_19_owners_in_other_namespaces_own_nothing() {
        let mut graph = Graph::default();
        upsert(&mut graph, "victim", &[], None);
        let resource = Arc::new(ResourceType::of::<k8s_openapi::api::core::v1::ConfigMap>());
        let stranger = json!({"name": "stranger", "namespace": "other", "uid": "stranger", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "victim", "uid": "victim", "blockOwnerDeletion": true}]});
        let touched = graph.upsert(&resource, &serde_json::from_value(stranger.clone()).unwrap());
        assert_eq!(touched.check, set(&["stranger"]), "it is judged although an object with that uid exists");
        let told: Vec<(&str, &str)> = touched.misplaced.iter().map(|(child, owner)| (child.as_str(), owner.name.as_str())).collect();
        assert_eq!(told, [("stranger", "victim")]);
        assert_eq!(judge(&graph, "stranger"), Verdict::Delete { propagation: Propagation::Background, unblock: false });
        let again = graph.upsert(&resource, &serde_json::from_value(stranger).unwrap());
        assert!(again.misplaced.is_empty(), "it is told once");

        upsert(&mut graph, "victim", &[], Some(FOREGROUND));
        assert_eq!(judge(&graph, "victim"), Verdict::RemoveForegroundFinalizer, "it does not wait for a stranger");
    }

    #[test]
    fn orphans_are_released_and_circles_are_broken() {
        let mut graph = Graph::default();
        upsert(&mut graph, "owner", &[], None);
        upsert(&mut graph, "child", &["owner"], None);
        assert_eq!(upsert(&mut graph, "owner", &[], Some(ORPHAN)).orphan, set(&["owner"]));
        assert_eq!(judge(&graph, "child"), Verdict::Nothing, "it is to be released, not deleted");

        upsert(&mut graph, "x", &["y"], Some(FOREGROUND));
        upsert(&mut graph, "y", &["x"], None);
        assert_eq!(judge(&graph, "y"), Verdict::Delete { propagation: Propagation::Foreground, unblock: true });
    }
}
