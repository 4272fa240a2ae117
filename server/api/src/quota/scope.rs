//! The scopes of a quota: they select the objects that it counts.

use serde_json::Value;

use super::term::Term;
use super::{Subject, claim, pod};
use crate::meta;

/// The scopes of a quota: an object has to be in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<Term>);

// === impl Scopes ===

impl Scopes {
    /// The scopes of a ResourceQuota.
    pub fn of(quota: &Value) -> Scopes {
        let named = meta::list_at(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str);
        let named = named.map(Term::named);
        let terms = meta::list_at(quota, &["spec", "scopeSelector", "matchExpressions"]).iter().map(Term::of);
        Scopes(named.chain(terms).collect())
    }

    /// Whether an object is in all of these scopes. Only pods and claims can be in a scope.
    pub fn hold(&self, subject: &Subject, object: &Value) -> bool {
        self.0.iter().all(|term| match subject {
            Subject::Pods => pod::is_in_scope(object, term),
            Subject::Claims => claim::is_in_scope(object, term),
            Subject::Services | Subject::Objects { .. } => false,
        })
    }

    /// Whether every object is in them.
    pub fn are_empty(&self) -> bool {
        self.0.is_empty()
    }
}
