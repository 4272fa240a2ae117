//! Creating objects.

use jiff::Timestamp;
use serde_json::Value;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::request::Operation;
use crate::catalog::origin::Origin;
use crate::error::Answer;
use crate::registry::identity;
use crate::registry::mutation::{MAX_ATTEMPTS, Mutation};
use crate::storage::Commit;
use crate::storage::Put;

impl Mutation<'_> {
    /// Creates `object` (in the addressed version, decoded). Returns it in the version that is worked on.
    pub async fn create(&mut self, object: Value, name: &str) -> Answer<Value> {
        let mut object = self.to_storage(object)?;
        identity::settle_namespace(&mut object, self.row.resource.namespaced, self.namespace)?;
        if !name.is_empty() {
            meta::set_name(&mut object, name);
        }
        if meta::resource_version(&object).parse::<u64>().is_ok_and(|rv| rv != 0) {
            Err(Status::internal("resourceVersion should not be set on objects to be created"))?;
        }
        self.default(&mut object);
        if !std::mem::take(&mut self.is_tracked) {
            self.track(None, &mut object)?;
        }
        for attempt in 1.. {
            // In each attempt: the definition may be what has changed.
            if self.row.origin.as_ref().is_some_and(Origin::is_closing) {
                Err(Status::failure(405, "MethodNotAllowed", "create not allowed while custom resource definition is terminating"))?;
            }
            let (created, key, effects) = self.prepare_create(object.clone()).await?;
            let name = meta::name(&created).to_owned();
            if self.dry_run {
                if self.storage.read(self.row, &key)?.is_some() {
                    Err(Status::already_exists(&self.group_resource(), &name))?;
                }
                return Ok(created);
            }
            let (lease, encoded) = (self.lease().await?, self.encoded(&created).await?);
            let put = Put::Object(&encoded, lease);
            let commit = self.storage.commit(self.row, &key, 0, put, &effects, self.fence, "create").await;
            if commit.is_err() {
                self.forget_lease();
            }
            match commit? {
                Commit::Done(revision) => {
                    let mut created = created;
                    meta::set_resource_version(&mut created, &revision.to_string());
                    return Ok(created);
                }
                Commit::Stale(Some(_)) => {
                    let generated = meta::name(&object).is_empty();
                    if !generated {
                        Err(Status::already_exists(&self.group_resource(), &name))?;
                    }
                    if attempt >= MAX_ATTEMPTS / 2 {
                        Err(Status::generate_name_conflict(&self.group_resource(), &name, 1))?;
                    }
                }
                // Something that admission or allocation relied on has changed: decide again, on what is true now.
                Commit::Stale(None) if attempt < MAX_ATTEMPTS => {
                    self.storage.refresh(self.row).await?;
                }
                Commit::Stale(None) => Err(Status::server_timeout(&self.group_resource(), "create", 1))?,
            }
        }
        unreachable_attempts()
    }

    async fn prepare_create(&mut self, object: Value) -> Answer<(Value, String, Effects)> {
        let requested = meta::name(&object).to_owned();
        let mut request = self.admission_request(Operation::Create, &requested, Some(object), None);
        let mut effects = self.admit(&mut request).await?;
        // The write requires that the definition of the resource is the one this server knows: no object may be created in a resource
        // that has been removed.
        if let Some(origin) = &self.row.origin {
            effects.require(&origin.key, origin.revision());
        }
        let mut object = request.take_object();

        let now = Timestamp::now();
        identity::fill_new(&mut object, now);
        identity::generate_name(&mut object);
        let name = meta::name(&object).to_owned();
        request.name.clone_from(&name);
        request.set_object(object);
        self.admission.allocate(&mut request, &mut effects)?;
        let mut object = request.take_object();
        let definition = self.definition().clone();
        definition.prepare_for_create(&mut object, now);
        let errors = self.judge_create(&definition, &object).await;
        self.refuse_invalid(&name, errors)?;
        let warnings = definition.kind.warnings(&object, None);
        self.warnings.extend(warnings);

        request.set_object(object);
        self.admit_validating(&request, &mut effects).await?;
        let mut object = request.take_object();
        self.fit_storage(&mut object);
        let key = self.row.key(meta::namespace(&object), &name);
        Ok((object, key, effects))
    }
}

fn unreachable_attempts<T>() -> Answer<T> {
    Err(Status::internal("no attempt was made").into())
}
