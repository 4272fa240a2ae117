//! The usage that objects have in a namespace's quotas: names of resources, amounts, scopes.
//!
//! Owns the arithmetic on which admission (charging a write) and the quota controller (recounting) must agree. Pure: it lists no objects
//! and writes no status.
//!
//! Answers to <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.

mod charge;
mod claim;
mod pod;
mod scope;
mod service;
mod term;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::quantity::{self, Quantity};

pub use charge::{Write, charge};
pub use scope::Scopes;

/// Amounts by the names of resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// Resources whose number has a name of its own beside `count/...`.
const SHORT_NAMES: [&str; 4] = ["replicationcontrollers", "resourcequotas", "secrets", "configmaps"];
const COUNT: &str = "count/";

/// The objects of one resource, as quotas see them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Pods: their number and what they compute with.
    Pods,
    /// Services: their number, node ports and load balancers.
    Services,
    /// PersistentVolumeClaims: their number and storage, in all and by class.
    Claims,
    /// Anything else: the number of objects.
    Objects {
        /// Group, empty for core.
        group: String,
        /// Plural name.
        plural: String,
    },
}

// === impl Subject ===

impl Subject {
    /// The objects of a resource; `None` for what is never counted.
    pub fn of(group: &str, plural: &str) -> Option<Subject> {
        match (group, plural) {
            ("" | "events.k8s.io", "events") => None,
            ("", "pods") => Some(Subject::Pods),
            ("", "services") => Some(Subject::Services),
            ("", "persistentvolumeclaims") => Some(Subject::Claims),
            _ => Some(Subject::Objects { group: group.to_owned(), plural: plural.to_owned() }),
        }
    }

    /// The kind of objects whose amounts a name in `hard` limits; `None` if no kind has such amounts.
    pub fn of_name(name: &str) -> Option<Subject> {
        if let Some(counted) = name.strip_prefix(COUNT) {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            return Subject::of(group, plural);
        }
        if SHORT_NAMES.contains(&name) {
            return Subject::of("", name);
        }
        [Subject::Pods, Subject::Services, Subject::Claims].into_iter().find(|subject| subject.has(name))
    }

    /// Group and plural of the resource.
    pub fn resource(&self) -> (&str, &str) {
        match self {
            Subject::Pods => ("", "pods"),
            Subject::Services => ("", "services"),
            Subject::Claims => ("", "persistentvolumeclaims"),
            Subject::Objects { group, plural } => (group, plural),
        }
    }

    /// Whether these objects have amounts of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Subject::Pods => pod::has(name),
            Subject::Services => service::has(name),
            Subject::Claims => claim::has(name),
            Subject::Objects { .. } => self.counts().iter().any(|known| known == name),
        }
    }

    /// Whether usage depends on the number of objects alone, so that their contents need not be read.
    pub fn is_number_only(&self) -> bool {
        matches!(self, Subject::Objects { .. })
    }

    /// What one object uses.
    pub fn usage(&self, object: &Value, now: Timestamp) -> Amounts {
        match self {
            Subject::Pods => pod::usage(object, now),
            Subject::Services => service::usage(object),
            Subject::Claims => claim::usage(object),
            Subject::Objects { .. } => self.counts().into_iter().map(|name| (name, whole(1))).collect(),
        }
    }

    /// When the usage of an object ends by the passing of time, without a write.
    pub fn expires(&self, object: &Value) -> Option<Timestamp> {
        if *self == Subject::Pods { pod::expires(object) } else { None }
    }

    /// The usage of `number` objects whose contents are not read.
    pub fn usage_of_number(&self, number: i64) -> Amounts {
        self.counts().into_iter().map(|name| (name, whole(number))).collect()
    }

    fn counts(&self) -> Vec<String> {
        let (group, plural) = self.resource();
        let mut names = vec![if group.is_empty() { format!("{COUNT}{plural}") } else { format!("{COUNT}{plural}.{group}") }];
        if group.is_empty() && SHORT_NAMES.contains(&plural) {
            names.push(plural.to_owned());
        }
        names
    }
}

/// The amounts of a `hard`, `used`, `requests` or `limits`.
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flat_map(Map::iter);
    entries.filter_map(|(name, value)| Some((name.clone(), quantity::from_json(value).ok()?))).collect()
}

/// Amounts as JSON.
pub fn to_json(amounts: &Amounts) -> Value {
    Value::Object(amounts.iter().map(|(name, amount)| (name.clone(), Value::String(amount.to_string()))).collect())
}

/// Adds amounts to others.
pub fn add(into: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = into.get(name).map_or(*amount, |have| have.plus(amount));
        into.insert(name.clone(), sum);
    }
}

/// An initial `used` for these limits: zero for every name that can be counted.
pub fn nothing_used<'a>(names: impl Iterator<Item = &'a str>) -> Amounts {
    names.filter(|name| Subject::of_name(name).is_some()).map(|name| (name.to_owned(), whole(0))).collect()
}

fn whole(number: i64) -> Quantity {
    Quantity::new(number, quantity::Format::DecimalSi)
}

#[cfg(test)]
mod tests;
