//! Updating objects: the one path of update, patch, status, scale and binding.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::request::Operation;
use crate::error::Answer;
use crate::registry::deletion;
use crate::registry::identity;
use crate::registry::managers::{keep_times, put_managers, take_managers};
use crate::registry::mutation::{MAX_ATTEMPTS, Mutation};
use crate::storage::Commit;
use crate::storage::Put;
use crate::storage::Stored;

/// Which rules an update follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// The object itself; its status stays.
    Main,
    /// A subresource that carries the whole object and owns a part of it (status, finalize, approval, resize).
    Part,
    /// A change by rules of its own, which has passed admission as something else (binding).
    Special,
}

/// The result of an update.
pub struct Updated {
    /// The object in the version that is worked on.
    pub object: Value,
    /// Whether it did not exist before.
    pub created: bool,
}

impl Mutation<'_> {
    /// Replaces the object `name` by the result of `change` on the existing one (in the working version). If the change
    /// carries no resourceVersion, a conflict runs change and admission again on the fresh object.
    pub async fn update<F>(&mut self, name: &str, kind: UpdateKind, mut change: F) -> Answer<Updated>
    where
        F: FnMut(&mut Self, &Value) -> Answer<Value>,
    {
        let key = self.row.key(self.namespace, name);
        let mut existing = self.stored(&key).await?;
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
                    // The object is unchanged: another object that admission or allocation relied on has changed.
                    if newer.as_ref().map(|s| s.mod_revision) == existing.as_ref().map(|s| s.mod_revision) {
                        self.storage.refresh(self.row).await?;
                    }
                    existing = self.adopt(newer).await?;
                    fresh = true;
                    continue;
                }
                Ok(Attempt::Unchanged(_)) | Err(_) => {}
            }
            let before = existing.as_ref().map_or(0, |s| s.mod_revision);
            self.storage.refresh(self.row).await?;
            fresh = true;
            existing = self.stored(&key).await?;
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
        self.is_tracked = kind == UpdateKind::Special;
        let mut object = change(self, &existing)?;
        meta::set_gvk(&mut object, &self.working_gvk());
        self.default(&mut object);
        if !std::mem::take(&mut self.is_tracked) {
            self.track(Some(existing.as_ref()), &mut object)?;
        }
        let mut request = self.admission_request(Operation::Update, name, Some(object), Some(existing.clone()));
        let mut effects = match kind {
            UpdateKind::Special => Effects::default(),
            _ => self.admit(&mut request).await?,
        };
        object = request.take_object();
        self.settle_version(name, &mut object, stored)?;
        self.check_uid(name, &object, &existing)?;
        // managedFields are final here: neither the system fields nor the rules of the kind change them.
        let managers = take_managers(&mut object);
        identity::keep_system_fields(&mut object, &existing);
        let definition = self.definition().clone();
        let errors = match kind {
            UpdateKind::Main => {
                definition.prepare_for_update(&mut object, &existing);
                put_managers(&mut object, managers);
                // An update that completes the deletion allocates nothing: the removal releases only what the stored object holds.
                if !deletion::ends_with(&object, &existing, self.row) {
                    request.set_object(object);
                    self.admission.allocate(&mut request, &mut effects)?;
                    object = request.take_object();
                }
                self.judge_update(&definition, "", &object, &existing).await
            }
            UpdateKind::Part => {
                definition.prepare_for_subresource(self.subresource, &mut object, &existing, Timestamp::now());
                put_managers(&mut object, managers);
                self.judge_update(&definition, self.subresource, &object, &existing).await
            }
            UpdateKind::Special => {
                put_managers(&mut object, managers);
                Vec::new()
            }
        };
        self.refuse_invalid(name, errors)?;
        if kind == UpdateKind::Main {
            let more = definition.kind.warnings(&object, Some(&existing));
            self.warnings.extend(more);
        }
        if kind != UpdateKind::Special {
            request.set_object(object);
            self.admit_validating(&request, &mut effects).await?;
            object = request.take_object();
        }
        self.fit_storage(&mut object);
        keep_times(&mut object, &existing);
        if object == *existing && !stored.is_outdated {
            return Ok(Attempt::Unchanged(object));
        }
        let removes = deletion::ends_with(&object, &existing, self.row);
        if self.dry_run {
            return Ok(Attempt::Done(object));
        }
        let encoded = match removes {
            true => Ok(Cow::Borrowed(&object)),
            false => self.encoded(&object).await,
        };
        let encoded = match encoded {
            Ok(encoded) => encoded,
            // Asking the webhook again would take as long again.
            Err(status) => return Ok(Attempt::Failed(status)),
        };
        let put = if removes {
            self.admission.release(self.removed(), &existing, &mut effects);
            Put::Delete
        } else {
            Put::Object(&encoded, self.lease().await?)
        };
        match self.storage.commit(self.row, key, stored.mod_revision, put, &effects, self.fence, "update").await {
            Ok(Commit::Done(revision)) => {
                meta::set_resource_version(&mut object, &revision.to_string());
                Ok(Attempt::Done(object))
            }
            // Try again on the current state. If the client gave a resourceVersion, it no longer matches then.
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
            if !self.definition().kind.unconditional_update() {
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
    /// The store's refusal, or its silence about the outcome; or that of a webhook that converts.
    Failed(Box<Status>),
}
