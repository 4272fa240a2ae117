//! Computes what a write charges to a quota, and whether the quota allows it. Upstream:
//! `apiserver/pkg/admission/plugin/resourcequota/controller.go`.

use jiff::Timestamp;
use serde_json::Value;

use super::{Amounts, Scopes, Subject, add, amounts, pod};
use crate::meta;
use crate::quantity::Quantity;

/// A create or an update.
pub struct Write<'a> {
    /// What will be stored.
    pub object: &'a Value,
    /// What is stored.
    pub old: Option<&'a Value>,
    /// The subresource that is written, or empty.
    pub subresource: &'a str,
}

// === impl Write ===

impl Write<'_> {
    /// Whether it can change what objects of this resource use.
    pub fn matters(&self, subject: &Subject) -> bool {
        match (subject, self.subresource, self.old) {
            (_, "", None) => true,
            (Subject::Pods, "", Some(old)) => pod::is_terminating(old) != pod::is_terminating(self.object),
            (Subject::Pods, "resize", Some(_)) => true,
            (Subject::Services | Subject::Claims, "", Some(_)) | (Subject::Claims, "status", Some(_)) => true,
            _ => false,
        }
    }
}

/// The new `status.used` of a quota if the write is allowed; `None` if it stays as it is.
///
/// # Errors
/// Why the quota does not allow it.
pub fn charge(quota: &Value, subject: &Subject, write: &Write<'_>, now: Timestamp) -> Result<Option<Amounts>, String> {
    let scopes = Scopes::of(quota);
    let (hard, used) = (status(quota, "hard"), status(quota, "used"));
    let restricted: Vec<&str> = hard.keys().map(String::as_str).filter(|name| subject.has(name)).collect();
    if restricted.is_empty() || !scopes.hold(subject, write.object) {
        return Ok(None);
    }
    let name = meta::name(quota);
    if *subject == Subject::Pods
        && let Some(missing) = pod::missing(write.object, restricted.iter().copied())
    {
        return Err(format!("failed quota: {name}: {missing}"));
    }
    if restricted.iter().any(|resource| !used.contains_key(*resource)) {
        return Err(format!("status unknown for quota: {name}, resources: {}", restricted.join(",")));
    }
    let mut delta = subject.usage(write.object, now);
    let negative: Vec<&str> = delta.iter().filter(|(_, amount)| amount.sign() < 0).map(|(resource, _)| resource.as_str()).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    if let Some(old) = write.old.filter(|old| scopes.hold(subject, old)) {
        subtract(&mut delta, &subject.usage(old, now));
    }
    delta.retain(|resource, amount| !amount.is_zero() && hard.contains_key(resource));
    if delta.is_empty() {
        return Ok(None);
    }
    let mut after = used.clone();
    add(&mut after, &delta);
    // A status follows what has happened already.
    if write.subresource != "status" {
        let exceeded: Vec<&str> = delta.keys().map(String::as_str).filter(|resource| after.get(*resource) > hard.get(*resource)).collect();
        if !exceeded.is_empty() {
            let [delta, used, hard] = [&delta, &used, &hard].map(|list| listed(list, &exceeded));
            return Err(format!("exceeded quota: {name}, requested: {delta}, used: {used}, limited: {hard}"));
        }
    }
    Ok(Some(after))
}

fn status(quota: &Value, key: &str) -> Amounts {
    amounts(meta::get(quota, &["status", key]).unwrap_or(&Value::Null))
}

/// Leaves only the increase over the amounts before; the quota controller counts decreases.
fn subtract(from: &mut Amounts, before: &Amounts) {
    for (name, amount) in from {
        if let Some(before) = before.get(name) {
            *amount = amount.minus(before).max(Quantity::zero());
        }
    }
}

fn listed(amounts: &Amounts, names: &[&str]) -> String {
    let parts: Vec<String> = names.iter().filter_map(|name| Some(format!("{name}={}", amounts.get(*name)?))).collect();
    parts.join(",")
}
