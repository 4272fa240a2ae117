//! Which events are new, which repeat an earlier one, and which are too many. No I/O.

use std::collections::HashMap;

use jiff::Timestamp;

use super::Record;

/// Events of one kind remembered at a time.
const MEMORY: usize = 4096;
/// From this many different messages for one reason on, they are combined into one event.
const SIMILAR_MAX: u32 = 10;
/// The window in which messages are similar.
const SIMILAR_WINDOW_SECS: i64 = 600;
/// An object may say this much at once ...
const BURST: f64 = 25.0;
/// ... and then one event in this time.
const REFILL_SECS: f64 = 300.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    New { name: String, message: String },
    Repeat { name: String, count: i32, message: String },
    Drop,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Subject {
    component: String,
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Group {
    subject: Subject,
    warning: bool,
    reason: String,
}

struct Similar {
    messages: Vec<String>,
    since: i64,
}

struct Seen {
    name: String,
    count: i32,
}

pub(super) struct Correlator {
    budgets: HashMap<Subject, (f64, i64)>,
    similar: HashMap<Group, Similar>,
    seen: HashMap<(Group, String), Seen>,
    sequence: u64,
}

impl Correlator {
    pub(super) fn new() -> Self {
        Self { budgets: HashMap::new(), similar: HashMap::new(), seen: HashMap::new(), sequence: 0 }
    }

    pub(super) fn decide(&mut self, record: &Record, now: Timestamp) -> Decision {
        self.bound();
        let group = group(record);
        if !self.spend(&group.subject, now.as_second()) {
            return Decision::Drop;
        }
        let combined = self.is_one_of_many(&group, &record.message, now.as_second());
        let (message, shared) = if combined {
            (format!("(combined from similar events): {}", record.message), String::new())
        } else {
            (record.message.clone(), record.message.clone())
        };
        let key = (group, shared);
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.count = seen.count.saturating_add(1);
            return Decision::Repeat { name: seen.name.clone(), count: seen.count, message };
        }
        self.sequence += 1;
        let nanos = now.as_nanosecond().wrapping_add(i128::from(self.sequence));
        let name = format!("{}.{nanos:x}", key.0.subject.name);
        self.seen.insert(key, Seen { name: name.clone(), count: 1 });
        Decision::New { name, message }
    }

    /// The event is no longer in the store.
    pub(super) fn forget(&mut self, record: &Record) {
        let group = group(record);
        self.seen.retain(|(known, _), _| *known != group);
    }

    fn spend(&mut self, subject: &Subject, now: i64) -> bool {
        let (tokens, at) = self.budgets.entry(subject.clone()).or_insert((BURST, now));
        #[allow(clippy::cast_precision_loss)]
        let refilled = (*tokens + (now - *at).max(0) as f64 / REFILL_SECS).min(BURST);
        *at = now;
        *tokens = refilled;
        if refilled < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn is_one_of_many(&mut self, group: &Group, message: &str, now: i64) -> bool {
        let similar = self.similar.entry(group.clone()).or_insert_with(|| Similar { messages: Vec::new(), since: now });
        if now - similar.since > SIMILAR_WINDOW_SECS {
            similar.messages.clear();
            similar.since = now;
        }
        if similar.messages.iter().any(|known| known == message) {
            return false;
        }
        if similar.messages.len() >= SIMILAR_MAX as usize {
            return true;
        }
        similar.messages.push(message.to_owned());
        false
    }

    /// When full, all state is dropped instead of growing; the cost is an event that is recorded twice.
    fn bound(&mut self) {
        if self.seen.len() >= MEMORY {
            self.seen.clear();
        }
        if self.similar.len() >= MEMORY {
            self.similar.clear();
        }
        if self.budgets.len() >= MEMORY {
            self.budgets.clear();
        }
    }
}

fn group(record: &Record) -> Group {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    Group {
        subject: Subject {
            component: record.component.to_string(),
            kind: text(&record.object.kind),
            namespace: text(&record.object.namespace),
            name: text(&record.object.name),
            uid: text(&record.object.uid),
            field_path: text(&record.object.field_path),
        },
        warning: record.kind == super::EventKind::Warning,
        reason: record.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::EventKind;
    use super::*;

    fn record(message: &str) -> Record {
        Record {
            object: k8s_openapi::api::core::v1::ObjectReference { name: Some("web".into()), uid: Some("u".into()), ..Default::default() },
            kind: EventKind::Warning,
            reason: "BackOff".into(),
            message: message.into(),
            component: "kubelet".into(),
            host: "n1".into(),
        }
    }

    #[test]
    fn the_same_again_counts_and_a_chatterbox_is_silenced() {
        let mut correlator = Correlator::new();
        let start = Timestamp::from_second(1_000_000).unwrap();
        let Decision::New { name, .. } = correlator.decide(&record("a"), start) else { unreachable!("the first is new") };
        assert_eq!(correlator.decide(&record("a"), start), Decision::Repeat { name, count: 2, message: "a".into() });
        for nth in 0..23 {
            let decision = correlator.decide(&record("a"), start);
            assert_ne!(decision, Decision::Drop, "event {nth} is within the burst");
        }
        assert_eq!(correlator.decide(&record("a"), start), Decision::Drop);
        let later = Timestamp::from_second(1_000_301).unwrap();
        assert!(matches!(correlator.decide(&record("a"), later), Decision::Repeat { count: 26, .. }));
    }

    #[test]
    fn many_different_messages_become_one_event() {
        let mut correlator = Correlator::new();
        let now = Timestamp::from_second(1_000_000).unwrap();
        for nth in 0..10 {
            assert!(matches!(correlator.decide(&record(&format!("m{nth}")), now), Decision::New { .. }));
        }
        let Decision::New { message, .. } = correlator.decide(&record("m10"), now) else { unreachable!("the first combined one is new") };
        assert_eq!(message, "(combined from similar events): m10");
        let again = correlator.decide(&record("m11"), now);
        assert!(matches!(again, Decision::Repeat { count: 2, .. }), "{again:?}");
    }
}
