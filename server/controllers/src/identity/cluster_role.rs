//! ClusterRoles that are the sum of others, chosen by label.
//!
//! Answers to: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles>.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;
use trireme_client::{Client, Informer, Object, Patch, labels};

use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches};

/// The ClusterRole aggregation controller.
pub(crate) struct ClusterRoleAggregation {
    client: Client,
    roles: Arc<Informer<ClusterRole>>,
}

impl Controller for ClusterRoleAggregation {
    const NAME: &'static str = "clusterrole-aggregation-controller";
    const QUEUE: &'static str = "ClusterRoleAggregator";
    type Key = String;
    type Reads = Arc<Informer<ClusterRole>>;

    fn new(roles: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), roles })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        let all = Arc::clone(&self.roles);
        watches.on(&self.roles, move |_| {
            // Any role may be part of any sum, and sums may be parts of sums.
            let sums = all.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            sums.map(|role| role.name().to_owned()).collect::<Vec<_>>()
        });
    }

    async fn reconcile(&self, key: &String) -> Result<Next, Error> {
        let Some(role) = self.roles.get("", key) else { return Ok(Next::Wait) };
        let Some(rules) = sum(&role, &self.roles.list()) else { return Ok(Next::Wait) };
        if role.rules.as_ref() == Some(&rules) {
            return Ok(Next::Wait);
        }
        let patch = json!({
            "metadata": {"uid": role.uid(), "resourceVersion": role.metadata.resource_version},
            "rules": rules,
        });
        self.client.patch::<ClusterRole>(None, key, &Patch::Merge(patch)).await?;
        Ok(Next::Wait)
    }
}

/// The rules of all selected roles, by name, each once; `None` if the role is no sum.
fn sum(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for other in all {
        let selected =
            other.name() != role.name() && selectors.iter().any(|selector| labels::matches(selector, other.metadata.labels.as_ref()));
        if selected {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}
