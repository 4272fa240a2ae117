//! The admission chain: what may be written, what is filled in, and what must hold together with it.
//!
//! Plugins run in upstream's order, first those that change the object, then those that only judge it. A plugin
//! never writes to the store: what must be true at the moment of the write comes back as compares, what must be
//! written with it as operations (D6).
//!
//! Owns the order and the built-in plugins. Must not do: defaulting and validation of the object's own fields
//! (`trireme-api`), HTTP.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/>.

pub mod certificates;
pub mod default_classes;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod node_tokens;
pub mod nodes;
pub mod priority;
pub mod service_account;
pub mod tolerations;

use std::sync::Arc;

use serde_json::Value;
use trireme_api::{meta, status::Status};

use crate::{
    admission_request::{AdmissionEffects, AdmissionRequest, Operation},
    authz::{Authorizer, EscalationCheck, review::needs_escalation_check},
    error::Answer,
    lookup::{LookedUp, ObjectReader},
};

/// All built-in plugins in their order. Cheap to clone.
#[derive(Clone)]
pub struct AdmissionChain {
    authorizer: Authorizer,
    reader: Arc<dyn ObjectReader>,
}

impl AdmissionChain {
    /// The chain over what `authorizer` reads from.
    pub fn new(authorizer: Authorizer) -> AdmissionChain {
        AdmissionChain { reader: authorizer.reader().clone(), authorizer }
    }

    /// The mutating phase.
    ///
    /// The places that are kept in the order and have no plugin yet: LimitRanger (after NamespaceLifecycle), PodSecurity
    /// (after TaintNodesByCondition), StorageObjectInUseProtection and RuntimeClass (after DefaultTolerationSeconds),
    /// MutatingAdmissionPolicy and MutatingAdmissionWebhook (last).
    pub async fn admit(&self, request: &mut AdmissionRequest) -> Answer<AdmissionEffects> {
        let mut effects = namespace_lifecycle::admit(&*self.reader, request).await?;
        // place: LimitRanger
        service_account::admit(&*self.reader, request).await?;
        node_restriction::admit(&self.authorizer, request).await?;
        nodes::taint_not_ready(request);
        // place: PodSecurity
        priority::admit(&*self.reader, request).await?;
        tolerations::admit(request);
        default_classes::storage_class(&*self.reader, request);
        // place: StorageObjectInUseProtection
        // place: RuntimeClass
        certificates::set_requester(request);
        default_classes::ingress_class(&*self.reader, request);
        // place: MutatingAdmissionPolicy, MutatingAdmissionWebhook
        effects.warnings.dedup();
        Ok(effects)
    }

    /// The validating phase.
    ///
    /// The places that are kept in the order and have no plugin yet: LimitRanger, PodSecurity, RuntimeClass,
    /// ValidatingAdmissionPolicy, ValidatingAdmissionWebhook, and last of all ResourceQuota: it counts only what everything
    /// else admitted, and its usage must join the object's transaction.
    pub async fn validate(&self, request: &AdmissionRequest) -> Answer<AdmissionEffects> {
        self.check_escalation(request).await?;
        // place: LimitRanger, PodSecurity
        priority::validate(&*self.reader, request)?;
        // place: RuntimeClass
        certificates::validate(&self.authorizer, request).await?;
        // place: ValidatingAdmissionPolicy, ValidatingAdmissionWebhook
        // place: ResourceQuota
        Ok(AdmissionEffects::default())
    }

    /// Not a plugin upstream (there it wraps the storage of roles and bindings), but the same moment: after every
    /// mutation, before the write.
    async fn check_escalation(&self, request: &AdmissionRequest) -> Answer<()> {
        let (group, resource) = (request.resource.group.as_ref(), request.resource.resource.as_ref());
        if !request.subresource.is_empty() || !needs_escalation_check(group, resource) {
            return Ok(());
        }
        let (Operation::Create | Operation::Update, Some(new)) = (request.operation, &request.object) else {
            return Ok(());
        };
        EscalationCheck { user: &request.user, resource, namespace: &request.namespace, new, old: request.old_object.as_deref() }
            .run(&self.authorizer)
            .await
    }
}

/// Whether the request is on this resource (and not on one of its subresources, unless named).
fn is_on(request: &AdmissionRequest, group: &str, plural: &str, subresource: &str) -> bool {
    request.resource.group == group && request.resource.resource == plural && request.subresource == subresource
}

/// The 403 of a plugin, naming the object as well as it can be named.
fn forbid(request: &AdmissionRequest, message: &str) -> Box<Status> {
    Box::new(Status::forbidden(&request.resource.group_resource(), &shown_name(request), message))
}

fn shown_name(request: &AdmissionRequest) -> String {
    if !request.name.is_empty() {
        return request.name.clone();
    }
    let from = |read: fn(&Value) -> &str| request.object.as_ref().map(read).filter(|name| !name.is_empty());
    from(meta::name).or_else(|| from(meta::generate_name)).unwrap_or("Unknown").to_owned()
}

/// One object; if it isn't visible here, looked for again after a ReadIndex: it may have been made through
/// another server a moment ago.
async fn find(reader: &dyn ObjectReader, group: &str, plural: &str, namespace: &str, name: &str) -> Option<LookedUp> {
    if let Some(found) = reader.get(group, plural, namespace, name) {
        return Some(found);
    }
    if reader.refresh().await { reader.get(group, plural, namespace, name) } else { None }
}

#[cfg(test)]
mod tests;
