//! ResourceQuota: charges the objects written in a namespace to its quotas, or refuses the write.
//!
//! A quota's new `status.used` is written in the transaction that writes the object, under the condition that the quota has not changed
//! meanwhile. A transaction writes one object of a resource at most, so if several quotas limit one object, all but one are charged in
//! earlier transactions of their own, as upstream charges all of them, and the object is written only if they are unchanged since then.
//! If the object's write fails, a quota shows too much, never too little, until the quota controller counts again. Releases are counted
//! by that controller only.
//!
//! Writes that charge the quotas of a namespace wait for one another on this server: they would otherwise only repeat each other's work.
//!
//! Answers to <https://kubernetes.io/docs/concepts/policy/resource-quotas/>; the rules are in `trireme_api::quota`.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Mutex;
use trireme_api::meta;
use trireme_api::quota::{self, Amounts, Subject, Write};
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::keys;
use crate::storage::lookup::{LookedUp, ObjectReader, StoreAccess};

const GROUP: &str = "";
const PLURAL: &str = "resourcequotas";
/// Namespaces that share a place wait for one another too.
const PLACES: usize = 64;
/// How often the quotas are looked at again because another server has changed one.
const ATTEMPTS: usize = 8;

/// The plugin.
pub struct ResourceQuota {
    reader: Arc<dyn ObjectReader>,
    store: Arc<dyn StoreAccess>,
    places: Vec<Arc<Mutex<()>>>,
}

/// A quota and its new `used`.
struct Charge {
    quota: LookedUp,
    used: Amounts,
}

// === impl ResourceQuota ===

impl ResourceQuota {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> ResourceQuota {
        ResourceQuota {
            reader: environment.reader.clone(),
            store: environment.store.clone(),
            places: (0..PLACES).map(|_| Arc::default()).collect(),
        }
    }

    async fn check(&self, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        let (group, plural) = (&*request.resource.group, &*request.resource.resource);
        let (Some(subject), Some(object)) = (Subject::of(group, plural), request.object()) else { return Ok(()) };
        let write = Write { object, old: request.old_object.as_deref(), subresource: &request.subresource };
        if !write.matters(&subject) {
            return Ok(());
        }
        let seen = self.reader.list(GROUP, PLURAL, Some(&request.namespace));
        if seen.is_empty() || charges(request, &subject, &write, seen).is_ok_and(|charges| charges.is_empty()) {
            return Ok(());
        }
        effects.hold(self.place(&request.namespace).lock_owned().await);
        self.charge(request, &subject, &write, effects).await
    }

    /// Charges the quotas as the store has them.
    async fn charge(&self, request: &AdmissionRequest, subject: &Subject, write: &Write<'_>, effects: &mut Effects) -> Answer<()> {
        let (mut charged, mut refreshed) = (BTreeSet::new(), false);
        for _ in 0..ATTEMPTS {
            let mut quotas = self.newest(&request.namespace)?;
            quotas.retain(|quota| !charged.contains(meta::name(&quota.object)));
            match charges(request, subject, write, quotas) {
                // A refusal of what may be an old state of a quota counts only after a look at the newest one.
                Err(status) if refreshed => return Err(status),
                Err(_) => {}
                Ok(_) if request.dry_run => return Ok(()),
                Ok(charges) => {
                    if self.write(subject, charges, &mut charged, effects).await? {
                        return Ok(());
                    }
                }
            }
            refreshed = self.reader.refresh().await;
            if !refreshed {
                break;
            }
        }
        Err(Status::server_timeout(&request.resource.group_resource(), "create", 1).into())
    }

    /// Lets the last charge join the object's transaction and writes the others now. False if one of them found its quota changed.
    async fn write(
        &self,
        subject: &Subject,
        mut charges: Vec<Charge>,
        charged: &mut BTreeSet<String>,
        effects: &mut Effects,
    ) -> Answer<bool> {
        // The object is a quota itself: its transaction writes no other one.
        let joining = if subject.resource() == (GROUP, PLURAL) { None } else { charges.pop() };
        for charge in charges {
            let mut ahead = Effects::default();
            self.add(&charge, &mut ahead)?;
            let Some(revision) = self.store.write_ahead(ahead).await? else { return Ok(false) };
            let quota = &charge.quota.object;
            // If the quota controller recounts before the object exists, this condition fails the object's transaction.
            effects.require(&keys::object_key(GROUP, PLURAL, meta::namespace(quota), meta::name(quota)), revision);
            charged.insert(meta::name(quota).to_owned());
        }
        if let Some(charge) = joining {
            self.add(&charge, effects)?;
        }
        Ok(true)
    }

    fn add(&self, charge: &Charge, effects: &mut Effects) -> Answer<()> {
        let mut quota = (*charge.quota.object).clone();
        meta::map_at(&mut quota, "status").insert("used".to_owned(), quota::to_json(&charge.used));
        effects.require(&keys::object_key(GROUP, PLURAL, meta::namespace(&quota), meta::name(&quota)), charge.quota.mod_revision);
        effects.operation(self.store.put_operation(GROUP, PLURAL, &quota)?);
        Ok(())
    }

    fn newest(&self, namespace: &str) -> Answer<Vec<LookedUp>> {
        let mut quotas = Vec::new();
        for seen in self.reader.list(GROUP, PLURAL, Some(namespace)) {
            quotas.extend(self.store.newest(GROUP, PLURAL, namespace, meta::name(&seen.object))?);
        }
        Ok(quotas)
    }

    fn place(&self, namespace: &str) -> Arc<Mutex<()>> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % PLACES as u64).unwrap_or_default();
        self.places[index].clone()
    }
}

/// What a write costs each of some quotas.
fn charges(request: &AdmissionRequest, subject: &Subject, write: &Write<'_>, quotas: Vec<LookedUp>) -> Answer<Vec<Charge>> {
    let now = Timestamp::now();
    let mut charges = Vec::new();
    for quota in quotas {
        match quota::charge(&quota.object, subject, write, now) {
            Ok(None) => {}
            Ok(Some(used)) => charges.push(Charge { quota, used }),
            Err(message) => return Err(forbid(request, &message)),
        }
    }
    Ok(charges)
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        !request.namespace.is_empty() && matches!(request.operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.check(request, effects))
    }
}

#[cfg(test)]
mod tests;
