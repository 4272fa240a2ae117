//! ClusterRoles that are the sum of others, chosen by label.
//!
//! Answers to: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles>.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;
use trireme_client::{Client, Informer, Object, Patch, labels};

use crate::Error;
use crate::runtime::{Lead, Next, Reconcile};

const NAME: &str = "clusterrole-aggregation-controller";

struct Controller {
    client: Client,
    roles: Arc<Informer<ClusterRole>>,
}

pub(crate) fn start(lead: &mut Lead) {
    let roles = Arc::clone(&lead.informers.cluster_roles);
    let queue = lead.queue("ClusterRoleAggregator");
    let controller = Arc::new(Controller { client: lead.client(NAME), roles: Arc::clone(&roles) });
    let (keys, all) = (queue.clone(), Arc::clone(&roles));
    lead.keep(roles.subscribe(move |_| {
        // Any role may be part of any sum, and sums may be parts of sums.
        for role in all.list().iter().filter(|role| role.aggregation_rule.is_some()) {
            keys.add(role.name().to_owned());
        }
    }));
    lead.work(NAME, &queue, &controller);
}

impl Reconcile<String> for Controller {
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
