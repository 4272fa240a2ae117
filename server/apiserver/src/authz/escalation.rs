//! No user grants permissions beyond their own: checked on every write of a role or binding.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#restrictions-on-role-creation-or-update>.

use serde_json::Value;
use trireme_api::{gvk::GroupResource, meta, status::Status};

use super::{Authorizer, RBAC_GROUP, covers, rbac::RoleRef, rule::PolicyRule};
use crate::attributes::Attributes;
use crate::user::{GROUP_MASTERS, UserInfo};

/// A write of an RBAC object as the check sees it.
#[derive(Clone, Copy, Debug)]
pub struct EscalationCheck<'a> {
    /// The user who writes.
    pub user: &'a UserInfo,
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`.
    pub resource: &'a str,
    /// Namespace, empty for the cluster-scoped two.
    pub namespace: &'a str,
    /// The object as it will be stored.
    pub new: &'a Value,
    /// The object as it is stored, on update.
    pub old: Option<&'a Value>,
}

impl EscalationCheck<'_> {
    /// Refuses an escalation with 403. Resources of other kinds pass.
    pub async fn run(&self, authorizer: &Authorizer) -> Result<(), Box<Status>> {
        if self.user.in_group(GROUP_MASTERS) {
            return Ok(());
        }
        match self.resource {
            "roles" | "clusterroles" => self.role(authorizer).await,
            "rolebindings" | "clusterrolebindings" => self.binding(authorizer).await,
            _ => Ok(()),
        }
    }

    async fn role(&self, authorizer: &Authorizer) -> Result<(), Box<Status>> {
        let aggregation = |role: &Value| role.get("aggregationRule").filter(|rule| !rule.is_null()).cloned();
        let rules = PolicyRule::list(self.new);
        let aggregated = aggregation(self.new);
        if let Some(old) = self.old
            && PolicyRule::list(old) == rules
            && (aggregated.is_none() || aggregation(old) == aggregated)
        {
            return Ok(());
        }
        let name = meta::name(self.new);
        if self.allowed(authorizer, "escalate", self.resource, name).await {
            return Ok(());
        }
        if aggregated.is_some() {
            // An aggregated role may get any rule later: its author must hold all permissions.
            let star = || vec!["*".to_owned()];
            let everything = [
                PolicyRule { api_groups: star(), resources: star(), verbs: star(), ..PolicyRule::default() },
                PolicyRule { non_resource_urls: star(), verbs: star(), ..PolicyRule::default() },
            ];
            if self.lacks(authorizer, &everything).is_err() {
                let message = "must have cluster-admin privileges to use an aggregationRule";
                return Err(self.forbidden(message));
            }
        }
        self.lacks(authorizer, &rules).map_err(|message| self.forbidden(&message))
    }

    async fn binding(&self, authorizer: &Authorizer) -> Result<(), Box<Status>> {
        if let Some(old) = self.old
            && old["roleRef"] == self.new["roleRef"]
            && old["subjects"] == self.new["subjects"]
        {
            return Ok(());
        }
        let Some(role) = RoleRef::from_value(&self.new["roleRef"], self.namespace) else {
            // Validation refuses a roleRef that names no role, with a better message.
            return Ok(());
        };
        let (resource, name) = match &role {
            RoleRef::ClusterRole(name) => ("clusterroles", name),
            RoleRef::Role { name, .. } => ("roles", name),
        };
        if self.allowed(authorizer, "bind", resource, name).await {
            return Ok(());
        }
        let rules = match authorizer.index().rules_of(&role) {
            Ok(rules) => rules,
            Err(_) => {
                let resource = GroupResource::new(RBAC_GROUP, resource.to_owned());
                return Err(Box::new(Status::not_found(&resource, name)));
            }
        };
        self.lacks(authorizer, &rules).map_err(|message| self.forbidden(&message))
    }

    async fn allowed(&self, authorizer: &Authorizer, verb: &str, resource: &str, name: &str) -> bool {
        let request = Attributes {
            user: self.user.clone(),
            verb: verb.to_owned(),
            resource_request: true,
            group: RBAC_GROUP.to_owned(),
            version: "*".to_owned(),
            resource: resource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        authorizer.authorize(&request).await.allowed
    }

    fn lacks(&self, authorizer: &Authorizer, wanted: &[PolicyRule]) -> Result<(), String> {
        let (held, unresolved) = authorizer.index().rules_for(self.user, self.namespace);
        let lacking = covers::missing(&held, wanted);
        if lacking.is_empty() { Ok(()) } else { Err(covers::escalation_message(self.user, &lacking, &unresolved)) }
    }

    fn forbidden(&self, message: &str) -> Box<Status> {
        let resource = GroupResource::new(RBAC_GROUP, self.resource.to_owned());
        Box::new(Status::forbidden(&resource, meta::name(self.new), message))
    }
}
