//! The cache of one resource: its objects now, and a window of its latest changes, bounded in bytes.
//!
//! Watchers pull: each remembers the revision up to which it has seen and asks for what follows. Nothing is queued per
//! watcher, so a slow one costs nothing; when it falls out of the window it reads history from the store.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::storage::cache::frames::Frames;
use crate::storage::cache::interest::{Interest, Subscription, Waiters};
use crate::storage::cache::object::{Cached, EventType};

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its revision.
    pub revision: i64,
    /// `Added`, `Modified` or `Deleted` as the store saw it.
    pub event_type: EventType,
    /// The object afterwards; for a deletion the last content with the deletion's revision.
    pub object: Arc<Cached>,
    /// The object before.
    pub previous: Option<Arc<Cached>>,
    /// Its encoded frames, shared by watchers.
    pub frames: Arc<Frames>,
}

/// What a watcher gets when it asks for changes.
#[derive(Debug)]
pub enum Changes {
    /// The changes after the asked revision, and the revision up to which this is all.
    Ready(Vec<Change>, i64),
    /// The window begins later than asked for: the store's history has the rest, up to this revision.
    Behind(i64),
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Arc<str>, Arc<Cached>>,
    window: VecDeque<Change>,
    window_bytes: usize,
    /// Changes after this revision are all in the window.
    window_floor: i64,
    last_change: i64,
    object_bytes: usize,
}

impl State {
    /// Replaces or removes an object. The change; `None` if nothing was there to remove.
    fn apply(&mut self, key: &str, revision: i64, object: Option<Arc<Cached>>) -> Option<Change> {
        let (previous, change) = match object {
            Some(object) => {
                self.object_bytes += object.size();
                let previous = match self.objects.get_mut(key) {
                    Some(slot) => Some(std::mem::replace(slot, object.clone())),
                    None => {
                        self.objects.insert(key.into(), object.clone());
                        None
                    }
                };
                let event_type = if previous.is_some() { EventType::Modified } else { EventType::Added };
                (previous.clone(), Change { revision, event_type, object, previous, frames: Arc::default() })
            }
            None => {
                let previous = self.objects.remove(key)?;
                let object = Arc::new(previous.restamped(revision, EventType::Deleted));
                (
                    Some(previous.clone()),
                    Change { revision, event_type: EventType::Deleted, object, previous: Some(previous), frames: Arc::default() },
                )
            }
        };
        self.object_bytes -= previous.map_or(0, |p| p.size());
        self.last_change = revision;
        Some(change)
    }

    /// Adds a change to the window.
    fn remember(&mut self, change: Change) {
        self.window_bytes += change_size(&change);
        self.window.push_back(change);
    }

    /// Drops the oldest change from the window; false if there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some(dropped) = self.window.pop_front() else { return false };
        self.window_bytes -= change_size(&dropped);
        self.window_floor = dropped.revision;
        true
    }
}

/// The objects of one resource, by `[<namespace>/]<name>`.
#[derive(Debug)]
pub struct ResourceCache {
    state: RwLock<State>,
    window_limit_bytes: usize,
    waiters: Arc<Waiters>,
}

impl ResourceCache {
    /// An empty cache that keeps at most `window_limit_bytes` of changes.
    pub fn new(window_limit_bytes: usize) -> ResourceCache {
        ResourceCache { state: RwLock::default(), window_limit_bytes, waiters: Arc::default() }
    }

    /// Replaces everything by the objects of `revision`.
    pub fn reset(&self, objects: BTreeMap<Arc<str>, Arc<Cached>>, revision: i64) {
        let object_bytes = objects.values().map(|o| o.size()).sum();
        // Not the newest object's revision: objects that were deleted meanwhile are a change too, and users of the cache that compile
        // the objects (RBAC) must notice it.
        let last_change = revision;
        *self.state.write() = State { objects, window_floor: revision, last_change, object_bytes, ..State::default() };
        self.waiters.announce_to_all(revision);
    }

    /// Takes over one change. Changes come in the order of their revisions.
    pub fn apply(&self, key: &str, revision: i64, object: Option<Arc<Cached>>) {
        self.apply_all(revision, [(key, object)]);
    }

    /// Takes over all changes of one revision, at once for every reader. Returns by how many bytes the window has grown.
    pub fn apply_all<K: AsRef<str>>(&self, revision: i64, changes: impl IntoIterator<Item = (K, Option<Arc<Cached>>)>) -> isize {
        let mut touched: Vec<(K, Change)> = Vec::new();
        let mut state = self.state.write();
        // Asked under the lock: a watcher that joins later reads the window after this change.
        let narrow = self.waiters.some_are_narrow();
        let before = state.window_bytes;
        debug_assert!(revision >= state.last_change, "changes come in order");
        for (key, object) in changes {
            let Some(change) = state.apply(key.as_ref(), revision, object) else { continue };
            if narrow {
                touched.push((key, change.clone()));
            }
            state.remember(change);
        }
        while state.window_bytes > self.window_limit_bytes && state.forget_oldest() {}
        let growth = state.window_bytes as isize - before as isize;
        drop(state);
        let states = touched.iter().flat_map(|(key, change)| {
            let states = change.previous.as_deref().into_iter().chain([&*change.object]);
            states.map(move |object| (key.as_ref(), object))
        });
        self.waiters.announce(revision, states);
        growth
    }

    /// Drops the changes up to `revision` from the window and returns their bytes.
    pub fn forget_until(&self, revision: i64) -> usize {
        let mut state = self.state.write();
        let before = state.window_bytes;
        while state.window.front().is_some_and(|change| change.revision <= revision) && state.forget_oldest() {}
        before - state.window_bytes
    }

    /// Changes after this revision are all in the window.
    pub fn window_floor(&self) -> i64 {
        self.state.read().window_floor
    }

    /// The bytes of the changes in the window.
    pub fn window_bytes(&self) -> usize {
        self.state.read().window_bytes
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Cached>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The objects whose keys begin with `prefix` and satisfy `keep`, in key order, and the revision at which this holds.
    /// `ingested` is the revision that the whole cache had passed before the call.
    pub fn list(&self, prefix: &str, ingested: i64, mut keep: impl FnMut(&Cached) -> bool) -> (Vec<Arc<Cached>>, i64) {
        let state = self.state.read();
        let found = scan(&state.objects, prefix, "").map(|(_, o)| o).filter(|o| keep(o)).cloned().collect();
        (found, ingested.max(state.last_change))
    }

    /// Like `list`, at most `limit` objects. Also says whether more follow, with how many keys remain under the prefix after the last one returned.
    pub fn page(&self, prefix: &str, limit: usize, ingested: i64, keep: impl FnMut(&Cached) -> bool) -> Page {
        let state = self.state.read();
        Page::of(scan(&state.objects, prefix, ""), limit, ingested.max(state.last_change), keep)
    }

    /// The page that begins with the key `from` of a list at `revision`, at most `limit` objects (0: all). None where the window does
    /// not reach back to that revision. The caller has seen that the whole cache has passed it.
    pub fn page_at(&self, prefix: &str, from: &str, limit: usize, revision: i64, keep: impl FnMut(&Cached) -> bool) -> Option<Page> {
        let state = self.state.read();
        if revision < state.window_floor {
            return None;
        }
        // What changed since, as it was then: the state before the first change.
        let mut then: BTreeMap<String, Option<&Arc<Cached>>> = BTreeMap::new();
        for change in state.window.range(state.window.partition_point(|change| change.revision <= revision)..) {
            let key = key_of(&change.object);
            if key.starts_with(prefix) && *key >= *from {
                then.entry(key).or_insert(change.previous.as_ref());
            }
        }
        let mut unchanged = scan(&state.objects, prefix, from).filter(|(key, _)| !then.contains_key(*key)).peekable();
        let mut changed = then.iter().filter_map(|(key, object)| Some((key.as_str(), (*object)?))).peekable();
        let merged = std::iter::from_fn(|| match (unchanged.peek(), changed.peek()) {
            (Some((one, _)), Some((other, _))) if one < other => unchanged.next(),
            (Some(_), None) => unchanged.next(),
            _ => changed.next(),
        });
        Some(Page::of(merged, if limit == 0 { usize::MAX } else { limit }, revision, keep))
    }

    /// At most `limit` changes after `after`.
    pub fn changes(&self, after: i64, ingested: i64, limit: usize) -> Changes {
        let state = self.state.read();
        if after < state.window_floor {
            return Changes::Behind(state.window_floor);
        }
        let start = state.window.partition_point(|c| c.revision <= after);
        // An expiring lease deletes several objects in one revision: a revision is never cut in two.
        let mut found: Vec<Change> = Vec::new();
        for change in state.window.range(start..) {
            if found.len() >= limit && found.last().is_some_and(|last| last.revision != change.revision) {
                break;
            }
            found.push(change.clone());
        }
        let covered = match found.last() {
            Some(last) if found.len() >= limit => last.revision,
            _ => ingested.max(state.last_change).max(after),
        };
        Changes::Ready(found, covered)
    }

    /// Registers a watcher, which is woken by changes that match `interest`.
    pub fn subscribe(&self, interest: Interest) -> Subscription {
        self.waiters.join(interest)
    }

    /// How many watchers may see a change of this object; of a namespace's or of all objects where name or both are empty.
    pub fn watchers(&self, namespace: &str, name: &str) -> usize {
        self.waiters.interested(namespace, name)
    }

    /// Revision of the latest change.
    pub fn last_change(&self) -> i64 {
        self.state.read().last_change
    }

    /// How many objects there are, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.objects.len(), state.object_bytes)
    }
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Arc<Cached>>,
    /// The key of the last object.
    pub last_key: Option<Arc<str>>,
    /// How many keys follow under the prefix, selected or not.
    pub remaining: usize,
    /// The revision at which the page holds.
    pub revision: i64,
}

impl Page {
    /// The first `limit` of `objects` that satisfy `keep`.
    fn of<'a>(
        mut objects: impl Iterator<Item = (&'a str, &'a Arc<Cached>)>,
        limit: usize,
        revision: i64,
        mut keep: impl FnMut(&Cached) -> bool,
    ) -> Page {
        let mut found = Vec::new();
        let mut last_key = None;
        while found.len() < limit {
            let Some((key, object)) = objects.next() else { break };
            if keep(object) {
                found.push(object.clone());
                last_key = Some(key);
            }
        }
        let remaining = if found.len() < limit { 0 } else { objects.count() };
        Page { objects: found, last_key: last_key.map(Arc::from), remaining, revision }
    }
}

/// The key of an object within its resource.
fn key_of(object: &Cached) -> String {
    if object.namespace.is_empty() { object.name.to_string() } else { format!("{}/{}", object.namespace, object.name) }
}

fn change_size(change: &Change) -> usize {
    change.object.size() + change.previous.as_ref().map_or(0, |p| p.size())
}

fn scan<'a>(
    objects: &'a BTreeMap<Arc<str>, Arc<Cached>>,
    prefix: &'a str,
    from: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Arc<Cached>)> {
    let start = if from > prefix { from } else { prefix };
    let following = objects.range::<str, _>((Bound::Included(start), Bound::Unbounded));
    following.map(|(key, object)| (&**key, object)).take_while(move |(key, _)| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, revision: i64) -> Arc<Cached> {
        let payload = format!(r#"{{"kind":"X","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        Arc::new(Cached::new(payload.as_bytes(), revision, EventType::Added, "", name, Box::new([]), Box::new([])).unwrap())
    }

    #[test]
    fn window_is_bounded_and_says_what_it_lost() {
        let cache = ResourceCache::new(4000);
        cache.reset(BTreeMap::new(), 10);
        for revision in 11..=40 {
            cache.apply("a", revision, Some(object("a", revision)));
        }
        cache.apply("a", 41, None);
        assert!(matches!(cache.changes(10, 41, 100), Changes::Behind(floor) if floor > 10 && floor < 41));
        let Changes::Ready(changes, covered) = cache.changes(39, 45, 100) else { panic!("in the window") };
        assert_eq!(covered, 45);
        assert_eq!(changes.iter().map(|c| (c.revision, c.event_type.as_str())).collect::<Vec<_>>(), [(40, "MODIFIED"), (41, "DELETED")]);
        assert_eq!(changes[1].object.revision, 41);
        let Changes::Ready(changes, covered) = cache.changes(39, 45, 1) else { panic!("in the window") };
        assert_eq!((changes.len(), covered), (1, 40));
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn pages_count_what_remains() {
        let cache = ResourceCache::new(4000);
        for (revision, name) in ["n/a", "n/b", "n/c", "m/a"].iter().enumerate() {
            cache.apply(name, revision as i64 + 1, Some(object(name, revision as i64 + 1)));
        }
        let page = cache.page("n/", 2, 9, |_| true);
        assert_eq!((page.objects.len(), page.remaining, page.last_key.as_deref(), page.revision), (2, 1, Some("n/b"), 9));
        let page = cache.page("n/", 3, 2, |_| true);
        assert_eq!((page.remaining, page.revision), (0, 4));
    }

    fn namespaced(name: &str, revision: i64) -> Option<Arc<Cached>> {
        let payload = format!(r#"{{"kind":"X","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        let object = Cached::new(payload.as_bytes(), revision, EventType::Added, "n", name, Box::new([]), Box::new([]));
        Some(Arc::new(object.unwrap()))
    }

    /// Names with revisions of all pages of a list at a revision.
    fn pages_at(cache: &ResourceCache, revision: i64, limit: usize) -> Option<Vec<(String, i64)>> {
        let (mut all, mut from) = (Vec::new(), String::new());
        loop {
            let page = cache.page_at("n/", &from, limit, revision, |_| true)?;
            assert_eq!(page.revision, revision);
            all.extend(page.objects.iter().map(|object| (object.name.to_string(), object.revision)));
            if page.remaining == 0 {
                return Some(all);
            }
            from = format!("{}\0", page.last_key.unwrap());
        }
    }

    #[test]
    fn a_list_goes_on_at_its_revision_whatever_changes_meanwhile() {
        let cache = ResourceCache::new(1 << 20);
        cache.reset(BTreeMap::new(), 1);
        let mut states: Vec<BTreeMap<String, i64>> = vec![BTreeMap::new(); 2];
        let (mut now, mut seed) = (BTreeMap::new(), 7_u64);
        for revision in 2..200 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = format!("o{}", (seed >> 33) % 9);
            if (seed >> 60) < 5 && now.remove(&name).is_some() {
                cache.apply(&format!("n/{name}"), revision, None);
            } else {
                cache.apply(&format!("n/{name}"), revision, namespaced(&name, revision));
                now.insert(name, revision);
            }
            states.push(now.clone());
        }
        for (revision, state) in states.iter().enumerate().skip(1) {
            let expected: Vec<(String, i64)> = state.clone().into_iter().collect();
            for limit in [0, 1, 2, 100] {
                assert_eq!(pages_at(&cache, revision as i64, limit).unwrap(), expected, "revision {revision}, limit {limit}");
            }
        }
        cache.forget_until(100);
        assert!(pages_at(&cache, 99, 3).is_none(), "the window no longer reaches back");
        assert!(pages_at(&cache, 100, 3).is_some());
    }
}
