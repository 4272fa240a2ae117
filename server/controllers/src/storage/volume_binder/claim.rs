//! Reconciles one claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;
use trireme_client::{Object, ObjectKey, storage};

use super::binder::Binder;
use super::{plan, provision};
use crate::Error;
use crate::pods;
use crate::runtime::Next;

pub(super) async fn sync(binder: &Binder, key: &ObjectKey) -> Result<Next, Error> {
    binder.settle(key).await?;
    let Some(claim) = binder.claims.get_key(key) else { return Ok(Next::Wait) };
    let step = {
        let (volumes, classes, waiting_pods) = (binder.volumes.list(), binder.classes.list(), waiting_pods(binder, &claim));
        plan::claim(&claim, &plan::Surroundings { volumes: &volumes, classes: &classes, waiting_pods: &waiting_pods })
    };
    match step {
        plan::Claim::Bind(volume) => binder.bind(key, volume, claim).await?,
        plan::Claim::Pend(said) => {
            say(binder, &claim, said);
            binder.set_claim_status(key, claim, "Pending", None).await?;
        }
        plan::Claim::Lose(said) => {
            // The event is recorded once. The API is asked first, as the cache may lack a volume that has just been created.
            if storage::claim_phase(&claim) != "Lost" && !is_there(binder, &claim).await? {
                say(binder, &claim, said);
                binder.set_claim_status(key, claim, "Lost", None).await?;
            }
        }
        plan::Claim::Provision(class) => provision::provision(binder, key, &claim, &class).await?,
        plan::Claim::Classify(class) => {
            binder.write_claim(key, &claim, json!({"spec": {"storageClassName": class}})).await?;
        }
    }
    Ok(Next::Wait)
}

fn say(binder: &Binder, claim: &PersistentVolumeClaim, said: Option<plan::Said>) {
    if let Some(said) = said {
        binder.recorder.record(claim, said.kind, said.reason, said.message);
    }
}

/// Whether the API has the claim's volume, for this claim.
async fn is_there(binder: &Binder, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
    let name = storage::volume_of(claim);
    if name.is_empty() {
        return Ok(false);
    }
    match binder.client.get::<k8s_openapi::api::core::v1::PersistentVolume>(None, name).await {
        Ok(volume) => Ok(storage::is_meant_for(&volume, claim) || volume.spec.is_some_and(|spec| spec.claim_ref.is_none())),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The pods without a node that use a claim, for what is said about it.
fn waiting_pods(binder: &Binder, claim: &Arc<PersistentVolumeClaim>) -> Vec<String> {
    if storage::is_bound(claim) {
        return Vec::new();
    }
    let uses = |pod: &k8s_openapi::api::core::v1::Pod| {
        pods::node_name(pod).is_none() && pods::is_active(pod) && storage::claims_of(pod).any(|used| used.claim == claim.name())
    };
    let waiting = binder.pods.list_namespace(claim.namespace());
    waiting.iter().filter(|pod| uses(pod)).map(|pod| pod.name().to_owned()).collect()
}
