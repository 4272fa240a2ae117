//! What the steps of every mutation share: who writes, to which resource, in which version, and the calls into strategy,
//! admission and allocation (D6).
//!
//! Order, as upstream's registry has it: decode → convert → default → mutating admission → default again → prepare →
//! allocate → validate → canonicalize → validating admission → conditional write.

use std::sync::Arc;

use serde_json::Value;
use trireme_api::field::FieldErrors;
use trireme_api::gvk::{GroupResource, GroupVersionKind, GroupVersionResource};
use trireme_api::status::Status;
use trireme_api::strategy::{self, Strategy};
use trireme_api::{default, meta};
use trireme_raft::Fence;

use crate::admission_request::{AdmissionEffects, AdmissionRequest, Operation};
use crate::convert;
use crate::error::Answer;
use crate::rows::{Row, View};
use crate::server::Server;
use crate::user::UserInfo;

/// How long Events are kept after their last change.
const EVENT_TTL_SECS: i64 = 3600;

/// How often a write whose client gave no resourceVersion is done again on a newer object.
pub const MAX_ATTEMPTS: usize = 16;

/// One mutation.
pub struct Mutation<'a> {
    /// The server.
    pub server: &'a Arc<Server>,
    /// The resource as addressed.
    pub view: &'a View,
    /// Its storage.
    pub row: &'a Arc<Row>,
    /// The addressed version.
    pub version: &'a str,
    /// The addressed namespace, or empty.
    pub namespace: &'a str,
    /// The addressed subresource, or empty.
    pub subresource: &'a str,
    /// Who writes.
    pub user: &'a UserInfo,
    /// The leadership he writes under.
    pub fence: Option<Fence>,
    /// Nothing is stored.
    pub dry_run: bool,
    /// CreateOptions and the like, for admission.
    pub options: Value,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
}

impl Mutation<'_> {
    /// What differs for this resource.
    pub fn strategy(&self) -> &'static dyn Strategy {
        strategy::for_resource(self.row.group(), self.row.plural())
    }

    /// Group and plural as addressed.
    pub fn group_resource(&self) -> GroupResource {
        self.view.resource.group_resource()
    }

    /// The kind as addressed.
    pub fn gvk(&self) -> GroupVersionKind {
        self.view.resource.gvk(self.version).unwrap_or_else(|| self.row.storage_gvk())
    }

    /// The kind as stored.
    pub fn storage_gvk(&self) -> GroupVersionKind {
        self.row.storage_gvk()
    }

    /// Brings an object from the addressed to the storage version.
    pub fn to_storage(&self, object: Value) -> Answer<Value> {
        let (from, to) = (self.gvk(), self.storage_gvk());
        let mut object = if from == to { object } else { convert::convert(object, &from, &to).map_err(Status::bad_request)? };
        meta::set_gvk(&mut object, &to);
        Ok(object)
    }

    /// Fills in defaults of the storage version.
    pub fn default(&self, object: &mut Value) {
        default::apply(&self.storage_gvk(), object);
    }

    /// What admission sees.
    pub fn admission_request(&self, operation: Operation, name: &str, object: Option<Value>, old: Option<Arc<Value>>) -> AdmissionRequest {
        let gvk = self.storage_gvk();
        AdmissionRequest {
            operation,
            kind: gvk,
            resource: GroupVersionResource::new(
                self.view.resource.group.clone(),
                self.version.to_owned(),
                self.view.resource.plural.clone(),
            ),
            subresource: self.subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
            user: self.user.clone(),
            object,
            old_object: old,
            options: self.options.clone(),
            dry_run: self.dry_run,
        }
    }

    /// Runs the mutating plugins and defaults again what they added.
    pub async fn admit(&mut self, request: &mut AdmissionRequest, effects: &mut AdmissionEffects) -> Answer<()> {
        let mut added = self.server.security.admission.admit(request).await?;
        self.warnings.append(&mut added.warnings);
        effects.merge(added);
        if let Some(object) = &mut request.object {
            default::apply(&request.kind, object);
        }
        Ok(())
    }

    /// Runs the validating plugins.
    pub async fn admit_validating(&mut self, request: &mut AdmissionRequest, effects: &mut AdmissionEffects) -> Answer<()> {
        let mut added = self.server.security.admission.validate(request).await?;
        self.warnings.append(&mut added.warnings);
        effects.merge(added);
        Ok(())
    }

    /// The lease under which objects of the resource are written (0: none). Every write renews it: one without would
    /// take the object's away, and keep it for ever.
    pub async fn lease(&self) -> Answer<i64> {
        if self.is_event() { self.server.registry.lease(self.row, EVENT_TTL_SECS).await } else { Ok(0) }
    }

    /// After a failed write: its lease may have run out under it, the next one takes a new one.
    pub fn forget_lease(&self) {
        if self.is_event() {
            self.server.registry.forget_leases();
        }
    }

    fn is_event(&self) -> bool {
        self.row.group().is_empty() && self.row.plural() == "events"
    }

    /// 422 if there are errors.
    pub fn refuse_invalid(&self, name: &str, errors: FieldErrors) -> Answer<()> {
        if errors.is_empty() {
            return Ok(());
        }
        let mut kind = self.gvk().group_kind();
        kind.group = self.view.resource.group.clone();
        Err(Status::invalid(&kind, name, &errors).into())
    }

    /// The object as the client gets it back: addressed version, no stored-only parts.
    pub fn show(&self, object: Value) -> Answer<Value> {
        crate::transform::to_version(self.view, self.version, object)
    }
}
