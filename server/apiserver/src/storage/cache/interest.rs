//! Which watchers wait for which changes of a resource, so that a change wakes only watchers that may see it: a kubelet that watches
//! its own pods sleeps while other nodes' pods change.
//!
//! Each group of watchers with one interest shares a channel. The channel holds an upper bound of the last revision that touched the
//! interest. Revisions are announced in order, before the cache as a whole is said to have passed them, so a watcher that reads the
//! passed revision first and the bound afterwards misses nothing.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::storage::cache::object::Cached;

/// Nothing is known yet of the revisions that touched an interest.
const UNKNOWN: i64 = i64::MAX;

/// The objects that a watcher can possibly see, by the narrowest criterion that changes are indexed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Every object of the resource.
    Everything,
    /// The objects of a namespace.
    Namespace(Box<str>),
    /// The object with this key, relative to its resource.
    Object(Box<str>),
    /// The objects with a value in the indexed field of this number.
    Field(usize, Box<str>),
}

type Channel = watch::Sender<i64>;

/// The channels of one resource.
#[derive(Debug)]
pub struct Waiters {
    everything: Channel,
    narrow: Mutex<Narrow>,
}

#[derive(Debug, Default)]
struct Narrow {
    namespaces: HashMap<Box<str>, Channel>,
    objects: HashMap<Box<str>, Channel>,
    fields: HashMap<usize, HashMap<Box<str>, Channel>>,
}

impl Narrow {
    fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.objects.is_empty() && self.fields.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Channel> {
        self.namespaces.values().chain(self.objects.values()).chain(self.fields.values().flat_map(HashMap::values))
    }

    fn announce(&self, revision: i64, key: &str, object: &Cached) {
        let announce = |channel: Option<&Channel>| channel.map(|channel| channel.send_replace(revision));
        announce(self.objects.get(key));
        announce(self.namespaces.get(&*object.namespace));
        for (field, values) in &self.fields {
            announce(object.fields.get(*field).and_then(|value| values.get(value)));
        }
    }

    fn remove(&mut self, interest: &Interest) {
        let leave = |channels: &mut HashMap<Box<str>, Channel>, key: &str| {
            if channels.get(key).is_some_and(|channel| channel.receiver_count() == 0) {
                channels.remove(key);
            }
        };
        match interest {
            Interest::Everything => {}
            Interest::Namespace(name) => leave(&mut self.namespaces, name),
            Interest::Object(key) => leave(&mut self.objects, key),
            Interest::Field(field, value) => {
                if let Some(values) = self.fields.get_mut(field) {
                    leave(values, value);
                    if values.is_empty() {
                        self.fields.remove(field);
                    }
                }
            }
        }
    }
}

impl Default for Waiters {
    fn default() -> Waiters {
        Waiters { everything: watch::channel(UNKNOWN).0, narrow: Mutex::default() }
    }
}

impl Waiters {
    /// Waits with others of the same interest.
    pub fn join(self: &Arc<Self>, interest: Interest) -> Subscription {
        let new = || watch::channel(UNKNOWN).0;
        let changed = {
            let mut narrow = self.narrow.lock();
            match &interest {
                Interest::Everything => self.everything.subscribe(),
                Interest::Namespace(name) => narrow.namespaces.entry(name.clone()).or_insert_with(new).subscribe(),
                Interest::Object(key) => narrow.objects.entry(key.clone()).or_insert_with(new).subscribe(),
                Interest::Field(field, value) => {
                    narrow.fields.entry(*field).or_default().entry(value.clone()).or_insert_with(new).subscribe()
                }
            }
        };
        Subscription { changed: Some(changed), waiters: self.clone(), interest }
    }

    /// Whether anybody waits for less than everything.
    pub fn some_are_narrow(&self) -> bool {
        !self.narrow.lock().is_empty()
    }

    /// How many wait for changes of an object. Those who wait for a field are not counted: its value is not known.
    pub fn interested(&self, namespace: &str, name: &str) -> usize {
        let narrow = self.narrow.lock();
        let waiting = |channel: Option<&Channel>| channel.map_or(0, Channel::receiver_count);
        let of_object = match namespace.is_empty() {
            _ if narrow.objects.is_empty() || name.is_empty() => 0,
            true => waiting(narrow.objects.get(name)),
            false => waiting(narrow.objects.get(format!("{namespace}/{name}").as_str())),
        };
        self.everything.receiver_count() + waiting(narrow.namespaces.get(namespace)) + of_object
    }

    /// Wakes the watchers that may see the changes of one revision. `touched`: the changed keys, with their states before and after.
    pub fn announce<'a>(&self, revision: i64, touched: impl IntoIterator<Item = (&'a str, &'a Cached)>) {
        {
            let narrow = self.narrow.lock();
            for (key, object) in touched {
                narrow.announce(revision, key, object);
            }
        }
        self.everything.send_replace(revision);
    }

    /// Wakes all watchers: all objects were replaced.
    pub fn announce_to_all(&self, revision: i64) {
        for channel in self.narrow.lock().all() {
            channel.send_replace(revision);
        }
        self.everything.send_replace(revision);
    }
}

/// The registration of one waiting watcher.
#[derive(Debug)]
pub struct Subscription {
    /// Present until the drop.
    changed: Option<watch::Receiver<i64>>,
    waiters: Arc<Waiters>,
    interest: Interest,
}

impl Subscription {
    /// Whether something that concerns this watcher may have changed after `position`; what comes from now on wakes again.
    pub fn may_have_changed(&mut self, position: i64) -> bool {
        self.changed.as_mut().is_none_or(|changed| *changed.borrow_and_update() > position)
    }

    /// Waits for the next change; false when there will be no more changes.
    pub async fn changed(&mut self) -> bool {
        match &mut self.changed {
            Some(changed) => changed.changed().await.is_ok(),
            None => false,
        }
    }

    /// Whether a change waits to be seen.
    #[cfg(test)]
    pub fn has_changed(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| changed.has_changed().unwrap_or(false))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut narrow = self.waiters.narrow.lock();
        self.changed = None;
        narrow.remove(&self.interest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::cache::EventType;

    fn pod(name: &str, node: &str) -> Cached {
        let payload = format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        Cached::new(payload.as_bytes(), 1, EventType::Added, "ns", name, Box::new([]), Box::new([node.into()])).unwrap()
    }

    fn waiters() -> (Arc<Waiters>, Vec<Subscription>) {
        let waiters = Arc::new(Waiters::default());
        let interests = [
            Interest::Everything,
            Interest::Namespace("ns".into()),
            Interest::Namespace("other".into()),
            Interest::Object("ns/a".into()),
            Interest::Object("ns/b".into()),
            Interest::Field(0, "n1".into()),
            Interest::Field(0, "n2".into()),
        ];
        let mut all: Vec<_> = interests.into_iter().map(|interest| waiters.join(interest)).collect();
        assert!(all.iter_mut().all(|s| s.may_have_changed(100)), "nothing is known of the past");
        (waiters, all)
    }

    fn woken(all: &[Subscription]) -> Vec<bool> {
        all.iter().map(Subscription::has_changed).collect()
    }

    #[test]
    fn a_change_wakes_whom_it_concerns() {
        let (waiters, mut all) = waiters();
        waiters.announce(7, [("ns/a", &pod("a", "n1"))]);
        assert_eq!(woken(&all), [true, true, false, true, false, true, false]);
        assert!(all[5].may_have_changed(6));
        assert!(!all[5].may_have_changed(7));
        waiters.announce_to_all(9);
        assert!(woken(&all).into_iter().all(|woken| woken));
    }

    #[test]
    fn an_object_that_moves_wakes_where_it_was_and_where_it_is() {
        let (waiters, all) = waiters();
        waiters.announce(7, [("ns/c", &pod("c", "n1")), ("ns/c", &pod("c", "n2"))]);
        assert_eq!(woken(&all), [true, true, false, false, false, true, true]);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_forgotten() {
        let (waiters, mut all) = waiters();
        let second = waiters.join(Interest::Field(0, "n1".into()));
        all.clear();
        assert!(waiters.some_are_narrow(), "one still waits");
        drop(second);
        assert!(!waiters.some_are_narrow());
    }
}
