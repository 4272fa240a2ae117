//! The state that the steps of every mutation share: the user, the resource, the version, and the calls into strategy,
//! admission and allocation (D6).
//!
//! Order, as upstream's registry has it: decode → convert → default → managers of fields → mutating admission → default
//! again → prepare → allocate → validate → canonicalize → validating admission → conditional write.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use trireme_api::field::FieldErrors;
use trireme_api::gvk::{GroupResource, GroupVersionKind, GroupVersionResource};
use trireme_api::resource::Definition;
use trireme_api::status::Status;
use trireme_raft::Fence;

use crate::admission::effects::Effects;
use crate::admission::request::{AdmissionRequest, Operation};
use crate::admission::{Admission, Removed};
use crate::audit::Annotations;
use crate::catalog::rows::{Row, View};
use crate::conversion::Conversions;
use crate::error::Answer;
use crate::registry::managers;
use crate::storage::{Storage, Stored};
use crate::user::UserInfo;

/// How often a write whose client gave no resourceVersion is done again on a newer object.
pub const MAX_ATTEMPTS: usize = 16;

/// One mutation.
pub struct Mutation<'a> {
    /// The objects.
    pub storage: &'a Storage,
    /// The way to other versions, where a webhook converts.
    pub conversions: &'a Arc<Conversions>,
    /// What may be written, and what is written with it.
    pub admission: &'a dyn Admission,
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
    /// The user of the request.
    pub user: &'a UserInfo,
    /// The leadership under which it is written.
    pub fence: Option<Fence>,
    /// Nothing is stored.
    pub dry_run: bool,
    /// CreateOptions and the like, for admission.
    pub options: Value,
    /// Who manages the fields that are written.
    pub manager: String,
    /// Whether the managers of this write are already recorded in the object.
    pub is_tracked: bool,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
    /// Where facts for audit events are collected, if the request is recorded.
    pub annotations: Option<Arc<Annotations>>,
}

impl Mutation<'_> {
    /// All that is known about the resource, in the addressed version if that differs.
    pub fn definition(&self) -> &Arc<Definition> {
        self.row.definition.in_version(self.version).unwrap_or(&self.row.definition)
    }

    /// Drops what the storage version cannot hold, if the object was written in another one.
    pub fn fit_storage(&self, object: &mut Value) {
        if self.version != self.row.resource.storage.version {
            self.row.definition.kind.fit_storage(object);
        }
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

    /// The kind that the steps of a mutation work on: as stored, or, where a webhook converts, as addressed. Only the stored form is
    /// then in the storage version.
    pub fn working_gvk(&self) -> GroupVersionKind {
        if self.row.webhook.is_some() { self.gvk() } else { self.storage_gvk() }
    }

    /// Brings an object from the addressed version to the one that is worked on.
    pub fn to_storage(&self, object: Value) -> Answer<Value> {
        let (from, to) = (self.gvk(), self.working_gvk());
        Ok(self.row.definition.convert(object, &from, &to).map_err(Status::bad_request)?)
    }

    /// Reads an object from the local store, as it is worked on.
    pub async fn stored(&self, key: &str) -> Answer<Option<Stored>> {
        self.adopt(self.storage.read(self.row, key)?).await
    }

    /// An object that was read, as it is worked on.
    pub async fn adopt(&self, stored: Option<Stored>) -> Answer<Option<Stored>> {
        match stored {
            Some(stored) if self.row.webhook.is_some() => {
                let object = self.conversions.one(self.row, stored.object, &self.working_gvk()).await?;
                Ok(Some(Stored { object, ..stored }))
            }
            stored => Ok(stored),
        }
    }

    /// An object that is worked on, as it is stored.
    pub async fn encoded<'o>(&self, object: &'o Value) -> Answer<Cow<'o, Value>> {
        match self.row.webhook {
            Some(_) => self.conversions.one(self.row, object.clone(), &self.storage_gvk()).await.map(Cow::Owned),
            None => Ok(Cow::Borrowed(object)),
        }
    }

    /// Fills in defaults of the storage version.
    pub fn default(&self, object: &mut Value) {
        self.definition().default(object);
    }

    /// What admission sees.
    pub fn admission_request(&self, operation: Operation, name: &str, object: Option<Value>, old: Option<Arc<Value>>) -> AdmissionRequest {
        let resource = &self.view.resource;
        let resource = GroupVersionResource::new(resource.group.clone(), self.version.to_owned(), resource.plural.clone());
        let mut request = AdmissionRequest::new(operation, self.working_gvk(), resource, self.user.clone());
        request.requested_kind = self.gvk();
        request.definition = Some(self.row.definition.clone());
        request.converter = self.conversions.of(self.row);
        self.subresource.clone_into(&mut request.subresource);
        self.namespace.clone_into(&mut request.namespace);
        name.clone_into(&mut request.name);
        request.old_object = old;
        request.options.clone_from(&self.options);
        request.dry_run = self.dry_run;
        if let Some(object) = object {
            request.set_object(object);
        }
        request
    }

    /// Runs the mutating plugins; defaults are filled in again if they changed the object.
    pub async fn admit(&mut self, request: &mut AdmissionRequest) -> Answer<Effects> {
        let before = request.object().and_then(|object| object.pointer("/metadata/managedFields")).cloned();
        let mut effects = self.admission.admit(request).await?;
        self.take_words(&mut effects);
        // The body of a subresource (a binding, an eviction) is no object of this resource.
        let own = request.kind == self.working_gvk();
        if own
            && request.is_changed()
            && let Some(object) = request.object_mut()
        {
            if let Some(why) = managers::unreadable(object) {
                managers::put_managers(object, before);
                self.warnings.push(format!(
                    ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
                     admission controller; please fix your requests: {why}"
                ));
            }
            self.definition().default(object);
        }
        Ok(effects)
    }

    /// Runs the validating plugins.
    pub async fn admit_validating(&mut self, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        self.admission.validate(request, effects).await?;
        self.take_words(effects);
        Ok(())
    }

    /// What plugins say to the client and to the audit log.
    fn take_words(&mut self, effects: &mut Effects) {
        self.warnings.append(&mut effects.take_warnings());
        for (key, value) in effects.take_annotations() {
            if let Some(annotations) = &self.annotations {
                annotations.add(key, value);
            }
        }
    }

    /// The removal of an object of this resource, for the plugins that have allocated something for it.
    pub fn removed(&self) -> Removed<'_> {
        Removed { group: self.row.group(), plural: self.row.plural() }
    }

    /// The lease under which objects of the resource are written (0: none). Every write renews it: one without would
    /// take the object's away, and keep it for ever.
    pub async fn lease(&self) -> Answer<i64> {
        match self.definition().kind.ttl_secs() {
            Some(secs) => self.storage.lease(self.row, secs).await,
            None => Ok(0),
        }
    }

    /// After a failed write: its lease may have run out under it, the next one takes a new one.
    pub fn forget_lease(&self) {
        if self.definition().kind.ttl_secs().is_some() {
            self.storage.forget_leases();
        }
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
        crate::catalog::transform::to_version(self.view, self.version, object)
    }
}
