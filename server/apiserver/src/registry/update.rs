//! Updating objects: the one path of update, patch, status, scale and binding.

use std::sync::Arc;

use serde_json::Value;
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::status::Status;
use trireme_api::{meta, validate};

use super::pipeline::{MAX_ATTEMPTS, Mutation};
use super::{Commit, Put, Stored, deletion, identity};
use crate::admission_request::{AdmissionEffects, Operation};
use crate::allocate;
use crate::error::Answer;

/// Which rules an update follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// The object itself; its status stays.
    Main,
    /// Only the status.
    Status,
    /// A subresource that carries the whole object and changes a part of it (finalize, approval, resize).
    Part,
    /// A change by rules of its own, which has passed admission as something else (binding).
    Special,
}

/// What an update led to.
pub struct Updated {
    /// The object in its storage version.
    pub object: Value,
    /// Whether it did not exist before.
    pub created: bool,
}

impl Mutation<'_> {
    /// Replaces the object `name` by what `change` makes of the existing one (in its storage version). Where the change
    /// carries no resourceVersion, a conflict runs change and admission again on the fresh object.
    pub async fn update<F>(&mut self, name: &str, kind: UpdateKind, mut change: F) -> Answer<Updated>
    where
        F: FnMut(&mut Self, &Value) -> Answer<Value>,
    {
        let key = self.row.key(self.namespace, name);
        let mut existing = self.server.registry.read(self.row, &key)?;
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            let outcome = match &existing {
                Some(stored) => self.attempt(&key, name, kind, stored, &mut change).await,
                None => Err(Status::not_found(&self.group_resource(), name).into()),
            };
            match outcome {
                Ok(Attempt::Done(object)) => return Ok(Updated { object, created: false }),
                // A refusal or "nothing to do" on what may be an old state of the object counts only after a look at the
                // newest one (D3).
                Ok(Attempt::Unchanged(object)) if fresh => return Ok(Updated { object, created: false }),
                Err(status) if fresh => return Err(status),
                // The write may have happened all the same: a second attempt could do it twice (D3).
                Ok(Attempt::Failed(status)) => return Err(status),
                Ok(Attempt::Stale(newer)) => {
                    // The object is what it was: something else that admission or allocation relied on has changed.
                    if newer.as_ref().map(|s| s.mod_revision) == existing.as_ref().map(|s| s.mod_revision) {
                        self.server.registry.refresh(self.row).await?;
                    }
                    existing = newer;
                    fresh = true;
                    continue;
                }
                Ok(Attempt::Unchanged(_)) | Err(_) => {}
            }
            let before = existing.as_ref().map_or(0, |s| s.mod_revision);
            self.server.registry.refresh(self.row).await?;
            fresh = true;
            existing = self.server.registry.read(self.row, &key)?;
            // Unchanged: the next round gives the same outcome, now as a final one. (Warnings are collected once.)
            if existing.as_ref().map_or(0, |s| s.mod_revision) == before {
                self.warnings.clear();
            }
        }
        Err(Status::conflict_modified(&self.group_resource(), name).into())
    }

    async fn attempt<F>(&mut self, key: &str, name: &str, kind: UpdateKind, stored: &Stored, change: &mut F) -> Answer<Attempt>
    where
        F: FnMut(&mut Self, &Value) -> Answer<Value>,
    {
        let existing = Arc::new(stored.object.clone());
        let mut effects = AdmissionEffects::default();
        let mut object = change(self, &existing)?;
        meta::set_gvk(&mut object, &self.storage_gvk());
        self.default(&mut object);
        if kind != UpdateKind::Special {
            let mut request = self.admission_request(Operation::Update, name, Some(object), Some(existing.clone()));
            self.admit(&mut request, &mut effects).await?;
            object = request.object.take().unwrap_or_default();
        }
        self.settle_version(name, &mut object, stored)?;
        self.check_uid(name, &object, &existing)?;
        identity::keep_system_fields(&mut object, &existing);
        let strategy = self.strategy();
        let errors = match kind {
            UpdateKind::Main => {
                strategy.prepare_for_update(&mut object, &existing);
                allocate::update(self, &mut object, &existing, &mut effects)?;
                validate::update(&self.storage_gvk(), &object, &existing)
            }
            UpdateKind::Status => {
                strategy.prepare_for_status_update(&mut object, &existing);
                validate::update_status(&self.storage_gvk(), &object, &existing)
            }
            UpdateKind::Part => {
                if self.row.group().is_empty() && self.row.plural() == "pods" && object["spec"] != existing["spec"] {
                    meta::set_generation(&mut object, meta::generation(&existing) + 1);
                }
                validate::update_subresource(&self.storage_gvk(), self.subresource, &object, &existing)
            }
            UpdateKind::Special => Vec::new(),
        };
        self.refuse_invalid(name, errors)?;
        if kind == UpdateKind::Main {
            let more = strategy.warnings_on_update(&object, &existing);
            self.warnings.extend(more);
        }
        strategy.canonicalize(&mut object);
        if kind != UpdateKind::Special {
            let mut request = self.admission_request(Operation::Update, name, Some(object), Some(existing.clone()));
            self.admit_validating(&mut request, &mut effects).await?;
            object = request.object.take().unwrap_or_default();
        }
        if object == *existing {
            return Ok(Attempt::Unchanged(object));
        }
        let removes = deletion::ends_with(&object, &existing, self.row);
        if self.dry_run {
            return Ok(Attempt::Done(object));
        }
        let put = if removes {
            allocate::delete(&existing, self.row, &mut effects);
            Put::Delete
        } else {
            Put::Object(&object, self.lease().await?)
        };
        match self.server.registry.commit(self.row, key, stored.mod_revision, put, &effects, self.fence, "update").await {
            Ok(Commit::Done(revision)) => {
                meta::set_resource_version(&mut object, &revision.to_string());
                Ok(Attempt::Done(object))
            }
            // Once more, on what is true now: a resourceVersion of the client's then no longer matches.
            Ok(Commit::Stale(newer)) => Ok(Attempt::Stale(newer)),
            Err(status) => {
                self.forget_lease();
                Ok(Attempt::Failed(status))
            }
        }
    }

    /// Compares the client's resourceVersion with the stored one; without one, the write follows the stored one.
    fn settle_version(&self, name: &str, object: &mut Value, stored: &Stored) -> Answer<()> {
        let given = meta::resource_version(object);
        let current = stored.mod_revision.to_string();
        if given.is_empty() || given == "0" {
            if !self.strategy().allow_unconditional_update() {
                self.refuse_invalid(
                    name,
                    vec![FieldError::invalid(&FieldPath::new("metadata").child("resourceVersion"), 0, "must be specified for an update")],
                )?;
            }
            meta::set_resource_version(object, &current);
            return Ok(());
        }
        if given != current {
            Err(Status::conflict_modified(&self.group_resource(), name))?;
        }
        Ok(())
    }

    fn check_uid(&self, name: &str, object: &Value, existing: &Value) -> Answer<()> {
        let (given, uid) = (meta::uid(object), meta::uid(existing));
        if given.is_empty() || given == uid {
            return Ok(());
        }
        let plural = self.row.plural();
        let path = if self.namespace.is_empty() { format!("{plural}/{name}") } else { format!("{plural}/{}/{name}", self.namespace) };
        let message = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
             UID in precondition: {given}, UID in object meta: {uid}"
        );
        Err(Status::conflict(&self.group_resource(), name, &message).into())
    }
}

enum Attempt {
    Done(Value),
    Unchanged(Value),
    Stale(Option<Stored>),
    /// The store's refusal, or its silence about the outcome.
    Failed(Box<Status>),
}
