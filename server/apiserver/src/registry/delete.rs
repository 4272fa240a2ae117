//! Deleting objects, one or a whole selection.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use trireme_api::gvk::GroupVersionKind;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::http::query::DeleteOptions;
use crate::registry::deletion::{self, Deletion};
use crate::registry::mutation::{MAX_ATTEMPTS, Mutation};
use crate::storage::Commit;
use crate::storage::Put;
use crate::storage::Stored;

/// Why an object is deleted: what admission is asked about.
pub enum Cause {
    /// A client deletes it.
    Delete,
    /// A client evicts it; this is the Eviction that it sent.
    Eviction(Value),
}

/// The result of a delete.
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Value),
    /// It is marked, and will go when its time or its finalizers are over.
    Pending(Value),
}

/// The result of one attempt.
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

impl Mutation<'_> {
    /// Deletes `name`.
    pub async fn delete(&mut self, name: &str, options: &DeleteOptions, cause: &Cause) -> Answer<Deleted> {
        let key = self.row.key(self.namespace, name);
        let mut existing = self.stored(&key).await?;
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            let outcome = match &existing {
                Some(stored) => self.attempt_delete(&key, name, options, stored, cause).await,
                None => Err(Status::not_found(&self.group_resource(), name).into()),
            };
            match outcome {
                Ok(Attempt::Done(deleted)) => return Ok(deleted),
                // The write may have happened all the same. A second attempt could hit the object's successor (D3).
                Ok(Attempt::Failed(status)) => return Err(status),
                Ok(Attempt::Unchanged(deleted)) if fresh => return Ok(deleted),
                Err(status) if fresh => return Err(status),
                // The decision was based on a possibly stale object, or the object or something that admission relied on has changed.
                Ok(Attempt::Unchanged(_) | Attempt::Stale) | Err(_) => {
                    self.storage.refresh(self.row).await?;
                    existing = self.stored(&key).await?;
                }
            }
            self.warnings.clear();
            fresh = true;
        }
        match cause {
            Cause::Delete => Err(Status::conflict_modified(&self.group_resource(), name).into()),
            Cause::Eviction(_) => {
                Err(Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10).into())
            }
        }
    }

    /// One try.
    async fn attempt_delete(&mut self, key: &str, name: &str, options: &DeleteOptions, stored: &Stored, cause: &Cause) -> Answer<Attempt> {
        self.check_preconditions(name, options, &stored.object)?;
        let mut request = self.deletion_request(name, Arc::new(stored.object.clone()), cause);
        let mut effects: Effects = self.admit(&mut request).await?;
        self.admit_validating(&request, &mut effects).await?;
        let now = Timestamp::now();
        let mut decision = deletion::decide(self.row, &stored.object, options, now);
        if let (Cause::Eviction(_), Deletion::Mark(marked)) = (cause, &mut decision) {
            self.definition().kind.mark_evicted(marked, now);
        }
        if self.dry_run {
            return Ok(match decision {
                Deletion::Now => Attempt::Done(Deleted::Gone(stored.object.clone())),
                Deletion::Mark(marked) => Attempt::Done(Deleted::Pending(marked)),
                Deletion::Pending => Attempt::Unchanged(Deleted::Pending(stored.object.clone())),
            });
        }
        let encoded = match &decision {
            Deletion::Mark(marked) => match self.encoded(marked).await {
                Ok(encoded) => Some(encoded),
                Err(status) => return Ok(Attempt::Failed(status)),
            },
            Deletion::Now | Deletion::Pending => None,
        };
        let (put, mut result) = match &decision {
            Deletion::Pending => return Ok(Attempt::Unchanged(Deleted::Pending(stored.object.clone()))),
            Deletion::Now => {
                self.admission.release(self.removed(), &stored.object, &mut effects);
                (Put::Delete, stored.object.clone())
            }
            Deletion::Mark(marked) => (Put::Object(encoded.as_deref().unwrap_or(marked), 0), marked.clone()),
        };
        match self.storage.commit(self.row, key, stored.mod_revision, put, &effects, self.fence, "delete").await {
            Err(status) => Ok(Attempt::Failed(status)),
            Ok(Commit::Stale(_)) => Ok(Attempt::Stale),
            Ok(Commit::Done(revision)) => {
                meta::set_resource_version(&mut result, &revision.to_string());
                Ok(Attempt::Done(if matches!(decision, Deletion::Now) { Deleted::Gone(result) } else { Deleted::Pending(result) }))
            }
        }
    }

    fn deletion_request(&self, name: &str, stored: Arc<Value>, cause: &Cause) -> AdmissionRequest {
        match cause {
            Cause::Delete => self.admission_request(Operation::Delete, name, None, Some(stored)),
            Cause::Eviction(eviction) => {
                let mut request = self.admission_request(Operation::Create, name, Some(eviction.clone()), None);
                request.kind = GroupVersionKind::new("policy", "v1", "Eviction");
                request.requested_kind = request.kind.clone();
                request.target = Some(stored);
                request
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
