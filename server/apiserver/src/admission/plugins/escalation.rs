//! Roles and bindings grant no more than their writer has. Upstream checks it in the storage of roles and bindings.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>.

use futures::future::BoxFuture;

use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::authz::{Authorizer, EscalationCheck, review::needs_escalation_check};
use crate::error::Answer;

/// The plugin.
pub struct PrivilegeEscalation {
    authorizer: Authorizer,
}

impl PrivilegeEscalation {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> PrivilegeEscalation {
        PrivilegeEscalation { authorizer: environment.authorizer.clone() }
    }

    async fn check(&self, request: &AdmissionRequest) -> Answer<()> {
        let Some(new) = request.object() else { return Ok(()) };
        let resource = request.resource.resource.as_ref();
        EscalationCheck { user: &request.user, resource, namespace: &request.namespace, new, old: request.old_object.as_deref() }
            .run(&self.authorizer)
            .await
    }
}

impl Plugin for PrivilegeEscalation {
    fn name(&self) -> &'static str {
        "PrivilegeEscalation"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.subresource.is_empty()
            && needs_escalation_check(&request.resource.group, &request.resource.resource)
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.check(request))
    }
}
