//! What a delete request means for an object: gone at once, marked for a graceful end, or held by finalizers.
//!
//! Pure. Answers to upstream's `rest.BeforeDelete` and `deletionFinalizersForGarbageCollection`.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use trireme_api::resource::{Dependents, Kind};
use trireme_api::{meta, time};

use crate::catalog::rows::Row;
use crate::http::query::{DeleteOptions, Propagation};

/// Holds an object until its dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents no longer name it as owner.
pub const ORPHAN: &str = "orphan";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Deletion {
    /// Remove the object.
    Now,
    /// Write this: marked as being deleted.
    Mark(Value),
    /// It is on its way already; nothing changes.
    Pending,
}

/// Decides about one object of `row`.
pub fn decide(row: &Row, object: &Value, options: &DeleteOptions, now: Timestamp) -> Deletion {
    decide_for(row.definition.kind.as_ref(), object, options, now)
}

fn decide_for(kind: &dyn Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Deletion {
    let mut marked = object.clone();
    let mut graceful = None;
    match graceful_end(kind, &mut marked, options, now) {
        Graceful::Pending => return Deletion::Pending,
        Graceful::No => {}
        Graceful::Yes(secs) => graceful = Some(secs),
    }
    let finalizers = finalizers_after(kind, object, options);
    let held: Vec<&str> = finalizers.iter().map(String::as_str).collect();
    meta::set_finalizers(&mut marked, &held);
    if held.is_empty() && !kind.is_held(object) && graceful.unwrap_or(0) == 0 {
        return Deletion::Now;
    }
    if graceful.is_none() {
        mark(&mut marked, now);
    }
    kind.mark_deleted(&mut marked, object);
    if marked == *object { Deletion::Pending } else { Deletion::Mark(marked) }
}

enum Graceful {
    No,
    Yes(i64),
    Pending,
}

/// The grace period of an object whose kind is deleted gracefully; `object` is marked accordingly.
fn graceful_end(kind: &dyn Kind, object: &mut Value, options: &DeleteOptions, now: Timestamp) -> Graceful {
    let Some(secs) = kind.grace_period_secs(object, options.grace_period_secs) else { return Graceful::No };
    if let Some(deletion) = meta::deletion_timestamp(object).map(str::to_owned) {
        // Being deleted already: the grace period can only become shorter.
        let Some(current) = meta::deletion_grace_period_seconds(object) else { return Graceful::No };
        let Some(wanted) = options.grace_period_secs.map(|secs| secs.max(0)) else {
            return if current == 0 { Graceful::No } else { Graceful::Pending };
        };
        if wanted >= current {
            return if current == 0 { Graceful::No } else { Graceful::Pending };
        }
        if let Some(at) = time::parse(&deletion)
            && let Ok(at) = at.checked_add(SignedDuration::from_secs(wanted - current))
        {
            meta::set_deletion_timestamp(object, &time::format(at));
        }
        meta::set_deletion_grace_period_seconds(object, Some(wanted));
        return Graceful::Yes(wanted);
    }
    let at = now.checked_add(SignedDuration::from_secs(secs)).unwrap_or(now);
    meta::set_deletion_timestamp(object, &time::format(at));
    meta::set_deletion_grace_period_seconds(object, Some(secs));
    bump_generation(object);
    Graceful::Yes(secs)
}

/// Marks an object without graceful deletion as being deleted.
fn mark(object: &mut Value, now: Timestamp) {
    if meta::deletion_grace_period_seconds(object).is_none() {
        bump_generation(object);
    }
    let later = meta::deletion_timestamp(object).and_then(time::parse).is_none_or(|at| at > now);
    if later {
        meta::set_deletion_timestamp(object, &time::format(now));
    }
    meta::set_deletion_grace_period_seconds(object, Some(0));
}

fn bump_generation(object: &mut Value) {
    let generation = meta::generation(object);
    if generation > 0 {
        meta::set_generation(object, generation + 1);
    }
}

/// The finalizers after the request's propagation policy is honoured.
fn finalizers_after(kind: &dyn Kind, object: &Value, options: &DeleteOptions) -> Vec<String> {
    let existing = meta::finalizers(object);
    let collected = kind.dependents() != Dependents::None;
    let (orphan, foreground) = match options.propagation {
        _ if !collected => (false, false),
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None if existing.contains(&ORPHAN) => (true, false),
        None if existing.contains(&FOREGROUND) => (false, true),
        None => (kind.dependents() == Dependents::Orphan, false),
    };
    let mut after: Vec<String> = existing.iter().filter(|f| **f != ORPHAN && **f != FOREGROUND).map(|f| (*f).to_owned()).collect();
    if orphan {
        after.push(ORPHAN.to_owned());
    }
    if foreground {
        after.push(FOREGROUND.to_owned());
    }
    after
}

/// Whether an update that leads from `existing` to `object` completes a pending deletion.
pub fn ends_with(object: &Value, existing: &Value, row: &Row) -> bool {
    if meta::deletion_timestamp(existing).is_none() || !meta::finalizers(object).is_empty() {
        return false;
    }
    if meta::deletion_grace_period_seconds(existing).is_some_and(|secs| secs > 0) {
        return false;
    }
    // An object that is held by something other than its finalizers stays; otherwise a late status write would complete its deletion.
    !row.definition.kind.is_held(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(group: &str, plural: &str) -> std::sync::Arc<dyn Kind> {
        trireme_api::kinds::find(group, plural).unwrap().kind.clone()
    }

    fn now() -> Timestamp {
        time::parse("2026-01-01T00:00:10Z").unwrap()
    }

    fn pod(metadata: Value, node: &str) -> Value {
        json!({"kind": "Pod", "metadata": metadata, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 20}})
    }

    #[test]
    fn pods_end_gracefully_once_and_only_shorter() {
        let options = DeleteOptions::default();
        assert_eq!(decide_for(kind("", "pods").as_ref(), &pod(json!({"name": "a"}), ""), &options, now()), Deletion::Now);
        let Deletion::Mark(marked) =
            decide_for(kind("", "pods").as_ref(), &pod(json!({"name": "a", "generation": 1}), "n"), &options, now())
        else {
            panic!("graceful")
        };
        assert_eq!(
            marked["metadata"],
            json!({"name": "a", "generation": 2, "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 20})
        );
        assert_eq!(decide_for(kind("", "pods").as_ref(), &marked, &options, now()), Deletion::Pending);
        let five = DeleteOptions { grace_period_secs: Some(5), ..DeleteOptions::default() };
        let Deletion::Mark(shorter) = decide_for(kind("", "pods").as_ref(), &marked, &five, now()) else { panic!("shorter") };
        assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-01T00:00:15Z");
        let force = DeleteOptions { grace_period_secs: Some(0), ..DeleteOptions::default() };
        assert_eq!(decide_for(kind("", "pods").as_ref(), &marked, &force, now()), Deletion::Now);
    }

    #[test]
    fn finalizers_hold_and_policies_add_them() {
        let plain = json!({"metadata": {"name": "a", "generation": 3}});
        assert_eq!(decide_for(kind("apps", "deployments").as_ref(), &plain, &DeleteOptions::default(), now()), Deletion::Now);
        let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
        let Deletion::Mark(marked) = decide_for(kind("apps", "deployments").as_ref(), &plain, &foreground, now()) else { panic!("held") };
        assert_eq!(
            marked["metadata"],
            json!({"name": "a", "generation": 4, "deletionTimestamp": "2026-01-01T00:00:10Z", "deletionGracePeriodSeconds": 0, "finalizers": ["foregroundDeletion"]})
        );
        assert_eq!(decide_for(kind("apps", "deployments").as_ref(), &marked, &DeleteOptions::default(), now()), Deletion::Pending);
        let background = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        assert_eq!(decide_for(kind("apps", "deployments").as_ref(), &marked, &background, now()), Deletion::Now);
        let namespace = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let Deletion::Mark(marked) = decide_for(kind("", "namespaces").as_ref(), &namespace, &DeleteOptions::default(), now()) else {
            panic!("held")
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(decide_for(kind("", "namespaces").as_ref(), &marked, &DeleteOptions::default(), now()), Deletion::Pending);
    }
}
