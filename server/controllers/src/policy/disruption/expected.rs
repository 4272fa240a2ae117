//! How many pods a budget expects, and how many of them must be healthy.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use trireme_client::{Client, Informer, Object};

use crate::Error;
use crate::cluster::discovery;
use crate::ownership::controller_of;

/// The owners whose scale is known without asking.
pub(super) type Owners =
    (Arc<Informer<ReplicaSet>>, Arc<Informer<Deployment>>, Arc<Informer<ReplicationController>>, Arc<Informer<StatefulSet>>);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) pods: i32,
    pub(super) healthy: i32,
    /// A pod has no controller, so a percentage of the expected pods cannot be computed.
    pub(super) unmanaged: bool,
}

/// What a budget expects of these pods.
pub(super) async fn expected(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scales: &Scales) -> Result<Expected, Error> {
    let spec = budget.spec.clone().unwrap_or_default();
    if let Some(most) = &spec.max_unavailable {
        let (scale, unmanaged) = scales.total(pods).await?;
        let healthy = scale.saturating_sub(share(most, scale)?).max(0);
        return Ok(Expected { pods: scale, healthy, unmanaged });
    }
    match &spec.min_available {
        Some(IntOrString::Int(number)) => {
            Ok(Expected { pods: i32::try_from(pods.len()).unwrap_or(i32::MAX), healthy: *number, unmanaged: false })
        }
        Some(least) => {
            let (scale, unmanaged) = scales.total(pods).await?;
            Ok(Expected { pods: scale, healthy: share(least, scale)?, unmanaged })
        }
        None => Ok(Expected { pods: 0, healthy: 0, unmanaged: false }),
    }
}

/// A number, or a percentage of the total, rounded up.
fn share(value: &IntOrString, total: i32) -> Result<i32, Error> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i32>().ok());
            let percent = percent.ok_or_else(|| Error::Invalid(format!("{text:?} is neither a number nor a percentage")))?;
            let scaled = i64::from(percent).saturating_mul(i64::from(total));
            Ok(i32::try_from(scaled.div_euclid(100) + i64::from(scaled.rem_euclid(100) > 0)).unwrap_or(i32::MAX))
        }
    }
}

/// Knows how many pods an owner wants.
pub(super) struct Scales {
    owners: Owners,
    client: Client,
}

impl Scales {
    pub(super) fn new(owners: Owners, client: Client) -> Self {
        Self { owners, client }
    }

    /// The pods that the owners of these pods want together, and whether some pod has no controller.
    async fn total(&self, pods: &[Arc<Pod>]) -> Result<(i32, bool), Error> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        let mut asked: BTreeMap<String, String> = BTreeMap::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if asked.contains_key(&owner.uid) {
                continue;
            }
            let Some((uid, scale)) = self.scale_of(pod.namespace(), owner).await? else {
                return Err(Error::Invalid(format!("found no controllers for pod {:?}", pod.name())));
            };
            asked.insert(owner.uid.clone(), uid.clone());
            scales.insert(uid, scale);
        }
        Ok((scales.values().fold(0, |sum: i32, scale| sum.saturating_add(*scale)), unmanaged))
    }

    /// The uid of what scales the pods of this owner, and how many it wants.
    async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, Error> {
        let (sets, deployments, controllers, stateful) = &self.owners;
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let is = |uid: &str| uid == owner.uid;
        let scale = |uid: &str, replicas: Option<i32>| Some((uid.to_owned(), replicas.unwrap_or(1)));
        match (group, owner.kind.as_str()) {
            ("apps" | "extensions", "ReplicaSet") => {
                let Some(set) = sets.get(namespace, &owner.name).filter(|set| is(set.uid())) else { return Ok(None) };
                let above = controller_of(&set.metadata).filter(|above| above.kind == "Deployment");
                let Some(above) = above else { return Ok(scale(set.uid(), set.spec.as_ref().and_then(|spec| spec.replicas))) };
                let deployment = deployments.get(namespace, &above.name).filter(|deployment| deployment.uid() == above.uid);
                Ok(deployment.and_then(|found| scale(found.uid(), found.spec.as_ref().and_then(|spec| spec.replicas))))
            }
            ("apps", "StatefulSet") => {
                let found = stateful.get(namespace, &owner.name).filter(|set| is(set.uid()));
                Ok(found.and_then(|set| scale(set.uid(), set.spec.as_ref().and_then(|spec| spec.replicas))))
            }
            ("", "ReplicationController") => {
                let found = controllers.get(namespace, &owner.name).filter(|controller| is(controller.uid()));
                Ok(found.and_then(|found| scale(found.uid(), found.spec.as_ref().and_then(|spec| spec.replicas))))
            }
            _ => self.scale_subresource(namespace, owner, group).await,
        }
    }

    async fn scale_subresource(&self, namespace: &str, owner: &OwnerReference, group: &str) -> Result<Option<(String, i32)>, Error> {
        let found = discovery::discover(&self.client).await?;
        let resource = found.served.into_iter().map(|served| served.resource);
        let resource = resource.into_iter().find(|resource| resource.group == group && resource.kind == owner.kind);
        let Some(resource) = resource.filter(|resource| resource.namespaced) else { return Ok(None) };
        let path = resource.path(Some(namespace), Some(&owner.name), Some("scale"));
        match self.client.get_path::<Value>(&path, "application/json").await {
            Ok(scale) if scale["metadata"]["uid"].as_str() == Some(&owner.uid) => {
                let replicas = scale["spec"]["replicas"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
                Ok(Some((owner.uid.clone(), replicas)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => {
                Err(Error::Invalid(format!("{}.{group} does not implement the scale subresource", resource.plural)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shares_are_rounded_up() {
        let text = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(share(&IntOrString::Int(3), 10).unwrap(), 3);
        assert_eq!(share(&text("50%"), 3).unwrap(), 2);
        assert_eq!(share(&text("0%"), 3).unwrap(), 0);
        assert_eq!(share(&text("100%"), 7).unwrap(), 7);
        assert_eq!(share(&text("2147483647%"), i32::MAX).unwrap(), i32::MAX);
        assert!(share(&text("half"), 3).is_err());
    }
}
