//! PersistentVolumeClaims in quotas. Upstream: `pkg/quota/v1/evaluator/core/persistent_volume_claims.go`.

use serde_json::Value;

use super::term::Term;
use super::{Amounts, whole};
use crate::meta;
use crate::quantity::{self, Quantity};

const COUNT: &str = "count/persistentvolumeclaims";
const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn has(name: &str) -> bool {
    let of_class = name.rsplit_once(OF_CLASS).is_some_and(|(_, rest)| matches!(rest, CLAIMS | STORAGE));
    matches!(name, COUNT | CLAIMS | STORAGE) || of_class
}

pub(super) fn usage(claim: &Value) -> Amounts {
    let class = match meta::annotation(claim, BETA_CLASS) {
        Some(class) => class,
        None => meta::str_at(claim, &["spec", "storageClassName"]),
    };
    let mut amounts = Amounts::from([(COUNT.to_owned(), whole(1))]);
    let mut charge = |name: &str, amount: Quantity| {
        amounts.insert(name.to_owned(), amount);
        if !class.is_empty() {
            amounts.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
    };
    charge(CLAIMS, whole(1));
    if let Some(storage) = storage(claim) {
        charge(STORAGE, storage);
    }
    amounts
}

/// The larger of the requested and the allocated storage, in whole bytes. They differ while a volume recovers from a failed expansion.
fn storage(claim: &Value) -> Option<Quantity> {
    let read = |path: &str| claim.pointer(path).and_then(|value| quantity::from_json(value).ok());
    let asked = read("/spec/resources/requests/storage")?;
    let most = read("/status/allocatedResources/storage").map_or(asked, |allocated| allocated.max(asked));
    Some(if most.is_integer() { most } else { Quantity::new(most.value(), most.format()) })
}

pub(super) fn is_in_scope(claim: &Value, term: &Term) -> bool {
    let names = [
        &["spec", "volumeAttributesClassName"][..],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    let names: Vec<&str> = names.iter().map(|path| meta::str_at(claim, path)).filter(|name| !name.is_empty()).collect();
    term.scope == "VolumeAttributesClass" && term.selects_any(&names)
}
