//! Deleting objects, one or a whole selection.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use trireme_api::meta;
use trireme_api::status::Status;

use super::deletion::{self, Deletion};
use super::pipeline::{MAX_ATTEMPTS, Mutation};
use super::{Commit, Put, Stored};
use crate::admission_request::{AdmissionEffects, Operation};
use crate::allocate;
use crate::error::Answer;
use crate::query::DeleteOptions;

/// What a delete led to.
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Value),
    /// It is marked, and will go when its time or its finalizers are over.
    Pending(Value),
}

/// What one try came to.
enum Attempt {
    /// Done, or shown what would be done.
    Done(Deleted),
    /// On its way already as far as this server knows.
    Unchanged(Deleted),
    /// The object, or something it depends on, has changed meanwhile.
    Stale,
    /// The store's refusal, or its silence about the outcome.
    Failed(Box<Status>),
}

/// Resources whose delete answers with the object in place of a Status.
const RETURN_OBJECT: [&str; 6] =
    ["pods", "podtemplates", "serviceaccounts", "resourcequotas", "persistentvolumes", "persistentvolumeclaims"];

/// Whether a completed delete of a resource of the core group answers with the object.
pub fn returns_object(group: &str, plural: &str) -> bool {
    group.is_empty() && RETURN_OBJECT.contains(&plural)
}

impl Mutation<'_> {
    /// Deletes `name`. `more` is an additional condition and change that joins the transaction (eviction's budget).
    pub async fn delete(&mut self, name: &str, options: &DeleteOptions, more: &AdmissionEffects) -> Answer<Deleted> {
        let key = self.row.key(self.namespace, name);
        let mut existing = self.server.registry.read(self.row, &key)?;
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            let outcome = match &existing {
                Some(stored) => self.attempt_delete(&key, name, options, stored, more).await,
                None => Err(Status::not_found(&self.group_resource(), name).into()),
            };
            match outcome {
                Ok(Attempt::Done(deleted)) => return Ok(deleted),
                // The write may have happened all the same. A second attempt could hit the object's successor (D3).
                Ok(Attempt::Failed(status)) => return Err(status),
                Ok(Attempt::Unchanged(deleted)) if fresh => return Ok(deleted),
                Err(status) if fresh => return Err(status),
                Ok(Attempt::Unchanged(_)) | Err(_) => {
                    self.server.registry.refresh(self.row).await?;
                    existing = self.server.registry.read(self.row, &key)?;
                }
                Ok(Attempt::Stale) if !more.compares.is_empty() => {
                    Err(Status::conflict_modified(&self.group_resource(), name))?;
                }
                Ok(Attempt::Stale) => existing = self.server.registry.read(self.row, &key)?,
            }
            fresh = true;
        }
        Err(Status::conflict_modified(&self.group_resource(), name).into())
    }

    /// One try.
    async fn attempt_delete(
        &mut self,
        key: &str,
        name: &str,
        options: &DeleteOptions,
        stored: &Stored,
        more: &AdmissionEffects,
    ) -> Answer<Attempt> {
        self.check_preconditions(name, options, &stored.object)?;
        let mut effects = more.clone();
        let old = Arc::new(stored.object.clone());
        let mut request = self.admission_request(Operation::Delete, name, None, Some(old));
        self.admit(&mut request, &mut effects).await?;
        self.admit_validating(&mut request, &mut effects).await?;
        let decision = deletion::decide(self.row, &stored.object, options, Timestamp::now());
        if self.dry_run {
            return Ok(match decision {
                Deletion::Now => Attempt::Done(Deleted::Gone(stored.object.clone())),
                Deletion::Mark(marked) => Attempt::Done(Deleted::Pending(marked)),
                Deletion::Pending => Attempt::Unchanged(Deleted::Pending(stored.object.clone())),
            });
        }
        let registry = &self.server.registry;
        let (put, mut result) = match &decision {
            Deletion::Pending => return Ok(Attempt::Unchanged(Deleted::Pending(stored.object.clone()))),
            Deletion::Now => {
                allocate::delete(&stored.object, self.row, &mut effects);
                (Put::Delete, stored.object.clone())
            }
            Deletion::Mark(marked) => (Put::Object(marked, 0), marked.clone()),
        };
        match registry.commit(self.row, key, stored.mod_revision, put, &effects, self.fence, "delete").await {
            Err(status) => Ok(Attempt::Failed(status)),
            Ok(Commit::Stale(_)) => Ok(Attempt::Stale),
            Ok(Commit::Done(revision)) => {
                meta::set_resource_version(&mut result, &revision.to_string());
                Ok(Attempt::Done(if matches!(decision, Deletion::Now) { Deleted::Gone(result) } else { Deleted::Pending(result) }))
            }
        }
    }

    fn check_preconditions(&self, name: &str, options: &DeleteOptions, object: &Value) -> Answer<()> {
        if let Some(wanted) = &options.uid
            && wanted != meta::uid(object)
        {
            let message = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                meta::uid(object)
            );
            Err(Status::conflict(&self.group_resource(), name, &message))?;
        }
        if let Some(wanted) = &options.resource_version
            && wanted != meta::resource_version(object)
        {
            let message = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({}). The object might have been modified",
                meta::resource_version(object)
            );
            Err(Status::conflict(&self.group_resource(), name, &message))?;
        }
        Ok(())
    }
}
