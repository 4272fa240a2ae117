//! CustomResourceDefinitions: grants their names, establishes them, and empties those that are being deleted.
//!
//! Owns the conditions and accepted names in their status, and the finalizer `customresourcecleanup.apiextensions.k8s.io`. A group is
//! reconciled as a whole, one definition after the other, so that a name is never granted twice. It does not serve the resources: each
//! API server follows the definitions itself.
//!
//! Answers to: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>.

mod definition;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trireme_api::custom::accept::{self, Condition, condition};
use trireme_client::{Client, DeleteOptions, Informer, ListOptions, Object, ObjectKey, PartialMeta, Patch, Propagation, ResourceType};

use crate::Error;
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches, clock};
use definition::Definition;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// How soon a definition with instances left is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// The controller of CustomResourceDefinitions.
pub(crate) struct CustomResources {
    client: Client,
    definitions: Arc<Informer<Definition>>,
    written: OwnWrites<Definition>,
}

impl Controller for CustomResources {
    const NAME: &'static str = "custom-resource-definition-controller";
    const QUEUE: &'static str = "crd_naming_condition_controller";
    /// A group.
    type Key = String;
    type Reads = Arc<Informer<Definition>>;

    fn new(definitions: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), written: OwnWrites::new(&definitions), definitions })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        watches.on(&self.definitions, |event| [event.object().spec.group.clone()]);
    }

    async fn reconcile(&self, group: &String) -> Result<Next, Error> {
        self.written.settle(&key_of(group)).await?;
        let mut members: Vec<Arc<Definition>> = self.definitions.list();
        members.retain(|member| member.spec.group == *group);
        // The oldest definition that asks for a name gets it.
        members.sort_by(|a, b| (&a.metadata.creation_timestamp, a.name()).cmp(&(&b.metadata.creation_timestamp, b.name())));
        let mut granted: BTreeMap<&str, accept::Names> = members.iter().map(|member| (member.name(), member.accepted())).collect();
        let (mut next, mut errors) = (Next::Wait, Vec::new());
        for member in &members {
            let outcome = match member.metadata.deletion_timestamp {
                Some(_) => self.empty(member).await,
                None => self.grant(member, &mut granted).await.map(|()| Next::Wait),
            };
            match outcome {
                Ok(Next::Wait) => {}
                Ok(after) => next = after,
                Err(error) => errors.push(error),
            }
        }
        Error::first_of(errors).map_or(Ok(next), Err)
    }
}

/// Own writes are waited for by group.
fn key_of(group: &str) -> ObjectKey {
    ObjectKey::new("", group)
}

impl CustomResources {
    /// Grants a definition the names that it asks for, as far as they are free.
    async fn grant<'a>(&self, member: &'a Definition, granted: &mut BTreeMap<&'a str, accept::Names>) -> Result<(), Error> {
        let Some(status) = accept::settle(&member.claim(), granted.values(), clock::now()) else { return Ok(()) };
        if let Some(written) = self.write_status(member, status).await? {
            granted.insert(member.name(), written.accepted());
        }
        Ok(())
    }

    /// Writes a part of the status of a definition that is still the one that was read; `None` if it is gone.
    async fn write_status(&self, member: &Definition, status: Value) -> Result<Option<Definition>, Error> {
        let patch = json!({
            "metadata": {"uid": member.uid(), "resourceVersion": member.metadata.resource_version},
            "status": status,
        });
        match self.client.patch_status::<Definition>(None, member.name(), &Patch::Merge(patch)).await {
            Ok(written) => {
                self.written.wrote(&key_of(&member.spec.group), &written);
                Ok(Some(written))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn set_condition(&self, member: &Definition, new: Condition) -> Result<Option<Definition>, Error> {
        let mut conditions = member.conditions();
        accept::set(&mut conditions, new, clock::now());
        if conditions == member.conditions() {
            return Ok(Some(member.clone()));
        }
        self.write_status(member, json!({"conditions": conditions})).await
    }

    /// Deletes the instances of a definition that is being deleted; lets it go when none is left.
    async fn empty(&self, member: &Definition) -> Result<Next, Error> {
        if !member.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Next::Wait);
        }
        let terminating = |status, reason, message: &str| condition("Terminating", status, reason, message);
        let built_in = trireme_api::resources::find(&member.spec.group, &member.spec.names.plural).is_some();
        let done = match member.instances().filter(|_| member.is("Established")) {
            // The objects stored under its name belong to a built-in resource.
            Some(_) if built_in => {
                terminating("False", "OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
            }
            None => terminating("False", "NeverEstablished", "resource was never established"),
            Some(instances) => {
                let started = terminating("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
                // From here on no server takes new ones: a create is conditional on the definition's revision.
                let Some(member) = self.set_condition(member, started).await? else { return Ok(Next::Wait) };
                match self.delete_instances(&instances).await {
                    Ok(0) => terminating("False", "InstanceDeletionCompleted", "removed all instances"),
                    Ok(_) => return Ok(Next::After(RETRY)),
                    Err(error) => {
                        let message = format!("could not issue all deletes: {error}");
                        self.set_condition(&member, terminating("True", "InstanceDeletionFailed", &message)).await?;
                        return Err(error);
                    }
                }
            }
        };
        self.written.settle(&key_of(&member.spec.group)).await?;
        let Some(member) = self.definitions.get("", member.name()).filter(|fresh| fresh.uid() == member.uid()) else {
            return Ok(Next::Wait);
        };
        let Some(member) = self.set_condition(&member, done).await? else { return Ok(Next::Wait) };
        self.release(&member).await?;
        Ok(Next::Wait)
    }

    /// Deletes all instances; says how many are left.
    async fn delete_instances(&self, instances: &ResourceType) -> Result<usize, Error> {
        let namespaces: BTreeSet<Option<String>> = self
            .list(instances)
            .await?
            .iter()
            .map(|instance| Some(instance.namespace().to_owned()).filter(|_| instances.namespaced))
            .collect();
        if namespaces.is_empty() {
            return Ok(0);
        }
        let options = DeleteOptions::default().propagation(Propagation::Background);
        let mut errors = Vec::new();
        for namespace in namespaces {
            let all = ListOptions::default();
            if let Err(error) = self.client.delete_collection(instances, namespace.as_deref(), &options, &all).await {
                errors.push(Error::from(error));
            }
        }
        if let Some(error) = Error::first_of(errors) {
            return Err(error);
        }
        Ok(self.list(instances).await?.len())
    }

    async fn list(&self, instances: &ResourceType) -> Result<Vec<PartialMeta>, Error> {
        Ok(self.client.list_any::<PartialMeta>(instances, None, &ListOptions::default()).await?.items)
    }

    /// Takes our finalizer away.
    async fn release(&self, member: &Definition) -> Result<(), Error> {
        let others: Vec<&String> = member.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch = json!({"metadata": {
            "uid": member.uid(), "resourceVersion": member.metadata.resource_version, "finalizers": others,
        }});
        match self.client.patch::<Definition>(None, member.name(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
