//! Reports that NetworkPolicies are not enforced, in clusters where that was switched off.
//!
//! Owns one Event for each NetworkPolicy and generation, so that `kubectl describe networkpolicy` shows that
//! it isolates nothing. Its name follows from the policy, so a new leader does not say it again. Must not touch the policy.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/services-networking/network-policies/>, "Prerequisites".

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSource};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use sha2::{Digest, Sha256};
use trireme_client::{Client, Informer, Object, ObjectKey, reference};

use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches, clock};

const REASON: &str = "NotEnforced";
const MESSAGE: &str = "This cluster was set up with --disable-network-policy. Traffic to and from the selected pods is not restricted.";
/// The event's name has the policy's in it, and must not be longer than a name may be.
const NAME_MAX: usize = 253;

/// The controller.
pub(crate) struct UnenforcedPolicies {
    client: Client,
    host: String,
    policies: Arc<Informer<NetworkPolicy>>,
}

impl Controller for UnenforcedPolicies {
    const NAME: &'static str = "networkpolicy-controller";
    const QUEUE: &'static str = "network_policy";
    type Key = ObjectKey;
    type Reads = Arc<Informer<NetworkPolicy>>;

    fn new(policies: Self::Reads, context: &Context) -> Option<Self> {
        context.options.are_policies_ignored.then(|| Self { client: context.client.clone(), host: context.options.host.clone(), policies })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.policies, |event| {
            let policy = event.object();
            let generation = |policy: &NetworkPolicy| (policy.metadata.uid.clone(), policy.metadata.generation);
            let is_news = !event.is_deletion() && event.old().is_none_or(|old| generation(old) != generation(policy));
            is_news.then(|| ObjectKey::of(&**policy))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(policy) = self.policies.get_key(key).filter(|policy| policy.metadata.deletion_timestamp.is_none()) else {
            return Ok(Next::Wait);
        };
        match self.client.create(Some(policy.namespace()), &event(&policy, &self.host, clock::now())).await {
            Ok(_) => Ok(Next::Wait),
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Next::Wait),
            Err(error) => Err(error.into()),
        }
    }
}

fn event(policy: &NetworkPolicy, host: &str, now: Timestamp) -> CoreEvent {
    CoreEvent {
        metadata: ObjectMeta { name: Some(event_name(policy)), namespace: Some(policy.namespace().to_owned()), ..ObjectMeta::default() },
        involved_object: reference(policy),
        reason: Some(REASON.to_owned()),
        message: Some(MESSAGE.to_owned()),
        type_: Some("Warning".to_owned()),
        source: Some(EventSource { component: Some(UnenforcedPolicies::NAME.to_owned()), host: Some(host.to_owned()) }),
        reporting_component: Some(UnenforcedPolicies::NAME.to_owned()),
        reporting_instance: Some(host.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..CoreEvent::default()
    }
}

/// The same name for one object and generation on every leader.
fn event_name(policy: &NetworkPolicy) -> String {
    let digest = Sha256::digest(format!("{REASON}/{}/{}", policy.uid(), policy.metadata.generation.unwrap_or(0)));
    let suffix: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut name = policy.name().to_owned();
    // Names are ASCII.
    name.truncate(NAME_MAX - suffix.len() - 1);
    format!("{}.{suffix}", name.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, uid: &str, generation: i64) -> NetworkPolicy {
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), uid: Some(uid.to_owned()), generation: Some(generation), ..ObjectMeta::default() };
        NetworkPolicy { metadata, ..NetworkPolicy::default() }
    }

    #[test]
    fn d02_a_name_belongs_to_one_object_and_generation() {
        let name = event_name(&policy("deny", "u1", 1));
        assert!(name.starts_with("deny.") && name.len() == "deny.".len() + 16, "{name}");
        assert_eq!(name, event_name(&policy("deny", "u1", 1)));
        assert_ne!(name, event_name(&policy("deny", "u1", 2)));
        assert_ne!(name, event_name(&policy("deny", "u2", 1)));
        assert_eq!(event_name(&policy(&"a".repeat(253), "u", 1)).len(), NAME_MAX);
    }
}
