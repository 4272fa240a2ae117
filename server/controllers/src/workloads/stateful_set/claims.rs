//! The claims of a StatefulSet's pods: their names and owner references. No I/O.
//!
//! A claim outlives its pod, and by default its set. With `persistentVolumeClaimRetentionPolicy`, it is owned by the set, or by its pod
//! while the set is scaled down below it, and the garbage collector deletes it together with its owner.
//!
//! Answers to:
//! <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#persistentvolumeclaim-retention>.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use trireme_client::{Object, ResourceType, Typed};

use super::view::{Retention, View};
use crate::ownership::controller_reference;

pub(super) fn claim_name(set: &str, template: &str, ordinal: i32) -> String {
    format!("{template}-{set}-{ordinal}")
}

/// The claims that the pod with this ordinal has by the set's templates. A claim that is to go with its set is owned by it from the
/// start: a set may be deleted before the controller sees its new claim again.
pub(super) fn claims<'a>(view: &View<'a>, ordinal: i32) -> impl Iterator<Item = PersistentVolumeClaim> + use<'a> {
    let (set, selector) = (view.set, &view.spec.selector);
    let deleted_with_set = view.retention().delete_with_set;
    view.claim_templates().iter().map(move |template| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selector.match_labels.clone().unwrap_or_default());
        let mut owners = template.metadata.owner_references.clone().unwrap_or_default();
        if deleted_with_set && !owners.iter().any(|owner| owner.controller == Some(true)) {
            owners.push(controller_reference(set));
        }
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(set.name(), template.name(), ordinal)),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                finalizers: template.metadata.finalizers.clone(),
                owner_references: (!owners.is_empty()).then_some(owners),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    })
}

/// Who owns a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Set,
    Pod,
}

fn wanted(retention: Retention, scaled_away: bool) -> Owner {
    if retention.delete_with_pod && scaled_away {
        Owner::Pod
    } else if retention.delete_with_set {
        Owner::Set
    } else {
        Owner::Nobody
    }
}

/// Whether a reference means an object of this name and kind, whatever its uid.
fn names<T: Typed>(reference: &OwnerReference, object: &T) -> bool {
    let resource = ResourceType::of::<T>();
    reference.api_version == resource.api_version() && reference.kind == resource.kind && reference.name == object.name()
}

/// Whether a claim's owner of this name was another object: the claim is about to go with it.
pub(super) fn is_owned_by_predecessor<T: Typed>(claim: &PersistentVolumeClaim, object: &T) -> bool {
    references(claim).iter().find(|reference| names(reference, object)).is_some_and(|reference| reference.uid != object.uid())
}

fn references(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or_default()
}

/// Whether something else manages the claim, so that the set's policy is not to be applied.
pub(super) fn is_managed_by_other(view: &View<'_>, claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let retention = view.retention();
    let applies = retention.delete_with_set || retention.delete_with_pod;
    applies
        && references(claim).iter().any(|reference| {
            if names(reference, view.set) {
                reference.uid != view.set.uid()
            } else if names(reference, pod) {
                reference.uid != pod.uid()
            } else {
                reference.controller == Some(true)
            }
        })
}

/// The owners that a claim of this pod should have, if they are not those that it has.
pub(super) fn new_owners(view: &View<'_>, claim: &PersistentVolumeClaim, pod: &Pod, scaled_away: bool) -> Option<Vec<OwnerReference>> {
    if is_owned_by_predecessor(claim, view.set) || is_owned_by_predecessor(claim, pod) {
        return None;
    }
    let of = |uid: &str| references(claim).iter().find(|reference| reference.uid == uid);
    let (by_set, by_pod) = (of(view.set.uid()), of(pod.uid()));
    let owner = if is_managed_by_other(view, claim, pod) { Owner::Nobody } else { wanted(view.retention(), scaled_away) };
    let controls = |reference: Option<&OwnerReference>| reference.is_some_and(|reference| reference.controller == Some(true));
    let right = match owner {
        Owner::Nobody => by_set.is_none() && by_pod.is_none(),
        Owner::Set => controls(by_set) && by_pod.is_none(),
        Owner::Pod => controls(by_pod) && by_set.is_none(),
    };
    if right {
        return None;
    }
    let strangers = references(claim).iter().filter(|reference| !names(reference, view.set) && !names(reference, pod));
    let mut owners: Vec<OwnerReference> = strangers.cloned().collect();
    owners.extend(reference_to(view.set, pod, owner));
    Some(owners)
}

fn reference_to(set: &StatefulSet, pod: &Pod, owner: Owner) -> Option<OwnerReference> {
    match owner {
        Owner::Nobody => None,
        Owner::Set => Some(controller_reference(set)),
        Owner::Pod => Some(controller_reference(pod)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn set(when_scaled: &str, when_deleted: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "set"},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "db"}}, "template": {},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"x": "y"}}, "spec": {"volumeName": "v"}}],
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": when_scaled, "whenDeleted": when_deleted},
            },
        }))
        .unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "db-0", "namespace": "ns", "uid": "pod"}})).unwrap()
    }

    fn reference(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        let version = if kind == "Pod" { "v1" } else { "apps/v1" };
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller})
    }

    fn claim(owners: &[Value]) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data-db-0", "ownerReferences": owners}})).unwrap()
    }

    fn uids(owners: Option<Vec<OwnerReference>>) -> Option<Vec<String>> {
        owners.map(|owners| owners.into_iter().map(|owner| owner.uid).collect())
    }

    #[test]
    fn a_claim_is_named_and_labelled_after_its_pod() {
        let set = set("Retain", "Retain");
        let view = View::of(&set).unwrap();
        let made: Vec<PersistentVolumeClaim> = claims(&view, 4).collect();
        assert_eq!(made[0].name(), "data-db-4");
        assert_eq!(serde_json::to_value(&made[0].metadata.labels).unwrap(), json!({"app": "db", "x": "y"}));
        assert_eq!(made[0].spec.as_ref().unwrap().volume_name.as_deref(), Some("v"));
    }

    #[test]
    fn a_claim_that_goes_with_its_set_is_owned_by_it_from_the_start() {
        for (scaled, deleted, owner) in
            [("Retain", "Retain", None), ("Delete", "Retain", None), ("Retain", "Delete", Some("set")), ("Delete", "Delete", Some("set"))]
        {
            let set = set(scaled, deleted);
            let view = View::of(&set).unwrap();
            let made = claims(&view, 4).next().unwrap();
            let owners: Option<Vec<String>> = owner.map(|owner| vec![owner.to_owned()]);
            assert_eq!(uids(made.metadata.owner_references.clone()), owners, "{scaled} {deleted}");
            assert!(new_owners(&view, &made, &pod(), false).is_none(), "{scaled} {deleted}");
        }
    }

    #[test]
    fn the_policy_says_whom_a_claim_goes_with() {
        let (by_set, by_pod) = (reference("StatefulSet", "db", "set", true), reference("Pod", "db-0", "pod", true));
        // whenScaled, whenDeleted, scaled away, the owner that it has then
        for (scaled, deleted, away, owner) in [
            ("Retain", "Retain", false, None),
            ("Retain", "Retain", true, None),
            ("Retain", "Delete", false, Some("set")),
            ("Retain", "Delete", true, Some("set")),
            ("Delete", "Retain", false, None),
            ("Delete", "Retain", true, Some("pod")),
            ("Delete", "Delete", false, Some("set")),
            ("Delete", "Delete", true, Some("pod")),
        ] {
            let set = set(scaled, deleted);
            let view = View::of(&set).unwrap();
            for before in [vec![], vec![by_set.clone()], vec![by_pod.clone()], vec![by_set.clone(), by_pod.clone()]] {
                let has: Vec<&str> = before.iter().map(|owner| owner["uid"].as_str().unwrap()).collect();
                let should: Vec<&str> = owner.into_iter().collect();
                let expected = (has != should).then(|| should.iter().map(ToString::to_string).collect::<Vec<_>>());
                let found = uids(new_owners(&view, &claim(&before), &pod(), away));
                assert_eq!(found, expected, "{scaled} {deleted} {away} {has:?}");
            }
        }
    }

    #[test]
    fn what_others_own_is_left_to_them() {
        let deleting = set("Delete", "Delete");
        let view = View::of(&deleting).unwrap();
        let owners = |before: &[Value]| uids(new_owners(&view, &claim(before), &pod(), false));
        let (by_set, other) = (reference("StatefulSet", "db", "set", true), reference("Deployment", "x", "other", true));
        assert_eq!(owners(std::slice::from_ref(&other)), None, "another controller");
        assert_eq!(owners(&[by_set.clone(), other]), Some(vec!["other".to_owned()]), "two controllers: ours goes");
        assert_eq!(owners(&[reference("StatefulSet", "db", "old", true)]), None, "a set of the same name before");
        assert_eq!(owners(&[reference("Pod", "db-0", "old", true)]), None, "a pod of the same name before");
        assert_eq!(owners(&[reference("StatefulSet", "db", "set", false)]), Some(vec!["set".to_owned()]), "no controller yet");
        let plain = reference("ConfigMap", "c", "plain", false);
        assert_eq!(owners(&[plain]), Some(vec!["plain".to_owned(), "set".to_owned()]), "other owners stay");
        let keeping = set("Retain", "Retain");
        let view = View::of(&keeping).unwrap();
        assert_eq!(uids(new_owners(&view, &claim(&[by_set]), &pod(), false)), Some(vec![]));
        assert!(is_owned_by_predecessor(&claim(&[reference("Pod", "db-0", "old", true)]), &pod()));
    }
}
