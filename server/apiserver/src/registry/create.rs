//! Creating objects.

use jiff::Timestamp;
use serde_json::Value;
use trireme_api::status::Status;
use trireme_api::{meta, validate};

use super::pipeline::{MAX_ATTEMPTS, Mutation};
use super::{Commit, Put, identity};
use crate::admission_request::{AdmissionEffects, Operation};
use crate::allocate;
use crate::error::Answer;

impl Mutation<'_> {
    /// Creates `object` (in the addressed version, decoded). Returns it as stored, in the storage version.
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
        for attempt in 1.. {
            let (created, key, effects) = self.prepare_create(object.clone()).await?;
            let name = meta::name(&created).to_owned();
            if self.dry_run {
                if self.server.registry.read(self.row, &key)?.is_some() {
                    Err(Status::already_exists(&self.group_resource(), &name))?;
                }
                return Ok(created);
            }
            let lease = self.lease().await?;
            let put = Put::Object(&created, lease);
            let commit = self.server.registry.commit(self.row, &key, 0, put, &effects, self.fence, "create").await;
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
                    self.server.registry.refresh(self.row).await?;
                }
                Commit::Stale(None) => Err(Status::server_timeout(&self.group_resource(), "create", 1))?,
            }
        }
        unreachable_attempts()
    }

    async fn prepare_create(&mut self, object: Value) -> Answer<(Value, String, AdmissionEffects)> {
        let mut effects = AdmissionEffects::default();
        let requested = meta::name(&object).to_owned();
        let mut request = self.admission_request(Operation::Create, &requested, Some(object), None);
        self.admit(&mut request, &mut effects).await?;
        let mut object = request.object.take().unwrap_or_default();

        identity::fill_new(&mut object, Timestamp::now());
        identity::generate_name(&mut object);
        let name = meta::name(&object).to_owned();
        allocate::create(self, &mut object, &mut effects)?;
        let strategy = self.strategy();
        strategy.prepare_for_create(&mut object);
        // What preparation took away (a status) comes back as its empty form.
        self.default(&mut object);
        self.refuse_invalid(&name, validate::create(&self.storage_gvk(), &object))?;
        self.warnings.extend(strategy.warnings_on_create(&object));
        strategy.canonicalize(&mut object);

        request.name.clone_from(&name);
        request.object = Some(object);
        self.admit_validating(&mut request, &mut effects).await?;
        let object = request.object.take().unwrap_or_default();
        let key = self.row.key(meta::namespace(&object), &name);
        Ok((object, key, effects))
    }
}

fn unreachable_attempts<T>() -> Answer<T> {
    Err(Status::internal("no attempt was made").into())
}
