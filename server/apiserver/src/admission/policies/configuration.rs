//! The policies of one kind with their bindings, compiled once for each change of them.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use trireme_api::meta;

use super::GROUP;
use super::binding::Binding;
use crate::storage::lookup::{LookedUp, ObjectReader};

/// A policy and its bindings.
pub struct Bound<P> {
    /// The compiled policy.
    pub policy: Arc<P>,
    /// Its bindings, by name.
    pub bindings: Vec<Arc<Binding>>,
}

/// The policies of one kind, as of the last change.
pub struct Configuration<P> {
    plurals: [&'static str; 2],
    parse: fn(&Value) -> P,
    reader: Arc<dyn ObjectReader>,
    compiled: Mutex<Compiled<P>>,
}

struct Compiled<P> {
    revisions: [i64; 2],
    bound: Arc<Vec<Bound<P>>>,
    /// Policies by name and the revision of their change: a change of one does not compile the others again.
    policies: Vec<(String, i64, Arc<P>)>,
}

// === impl Configuration ===

impl<P> Configuration<P> {
    /// Follows the objects of `plurals`: policies, bindings.
    pub fn new(plurals: [&'static str; 2], parse: fn(&Value) -> P, reader: Arc<dyn ObjectReader>) -> Configuration<P> {
        let compiled = Compiled { revisions: [-1; 2], bound: Arc::default(), policies: Vec::new() };
        Configuration { plurals, parse, reader, compiled: Mutex::new(compiled) }
    }

    /// All policies that have bindings, by name.
    pub fn bound(&self) -> Arc<Vec<Bound<P>>> {
        let revisions = self.plurals.map(|plural| self.reader.last_change(GROUP, plural));
        let mut compiled = self.compiled.lock();
        if compiled.revisions != revisions {
            let [policies, bindings] = self.plurals.map(|plural| by_name(self.reader.list(GROUP, plural, None)));
            let bindings: Vec<Arc<Binding>> = bindings.iter().map(|found| Arc::new(Binding::parse(&found.object))).collect();
            let of = |policy: &str| bindings.iter().filter(|binding| binding.policy == policy).cloned().collect::<Vec<_>>();
            let mut kept = std::mem::take(&mut compiled.policies);
            let mut bound = Vec::new();
            for found in policies {
                let name = meta::name(&found.object).to_owned();
                let bindings = of(&name);
                if bindings.is_empty() {
                    continue;
                }
                let known = kept.iter().position(|(known, revision, _)| *known == name && *revision == found.mod_revision);
                let policy = known.map_or_else(|| Arc::new((self.parse)(&found.object)), |at| kept.swap_remove(at).2);
                compiled.policies.push((name, found.mod_revision, policy.clone()));
                bound.push(Bound { policy, bindings });
            }
            compiled.revisions = revisions;
            compiled.bound = Arc::new(bound);
        }
        compiled.bound.clone()
    }
}

fn by_name(mut objects: Vec<LookedUp>) -> Vec<LookedUp> {
    objects.sort_by(|a, b| meta::name(&a.object).cmp(meta::name(&b.object)));
    objects
}
