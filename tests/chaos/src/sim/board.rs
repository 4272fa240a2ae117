//! What everything in a world shares beside network, disks and history: stores, tickets, and where watchers are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use trireme_raft::{JoinTicket, Store};

/// Where a watcher is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The host it watches at.
    pub host: usize,
    /// The revision it needs next.
    pub next: i64,
    /// What it watches.
    pub prefix: &'static str,
    /// Whether it moves from host to host.
    pub wanders: bool,
    /// Whether a host runs it now.
    pub running: bool,
}

/// Shared by all hosts of a world.
#[derive(Default)]
pub struct Board {
    stores: Mutex<BTreeMap<usize, Store>>,
    tickets: Mutex<BTreeMap<usize, JoinTicket>>,
    watchers: Mutex<BTreeMap<String, Place>>,
    loaded: AtomicBool,
}

// === impl Board ===

impl Board {
    /// An empty one, with watchers at each of `hosts` hosts.
    #[must_use]
    pub fn new(hosts: usize) -> Arc<Board> {
        let board = Board::default();
        {
            let mut watchers = board.watchers.lock();
            for host in 0..hosts {
                let place = |prefix, wanders| Place { host, next: 1, prefix, wanders, running: false };
                watchers.insert(format!("resident{host}"), place("k/", false));
                watchers.insert(format!("wanderer{host}"), place("k/", true));
                watchers.insert(format!("picker{host}"), place("k/r1", true));
            }
        }
        Arc::new(board)
    }

    /// A host's store, while it runs.
    #[must_use]
    pub fn store(&self, host: usize) -> Option<Store> {
        self.stores.lock().get(&host).cloned()
    }

    /// All stores that run.
    #[must_use]
    pub fn stores(&self) -> Vec<(usize, Store)> {
        self.stores.lock().iter().map(|(host, store)| (*host, store.clone())).collect()
    }

    /// A store runs.
    pub fn put_store(&self, host: usize, store: Store) {
        self.stores.lock().insert(host, store);
    }

    /// A host is gone: its store, and its watchers' hold.
    pub fn lose(&self, host: usize, hosts: usize) {
        self.stores.lock().remove(&host);
        for place in self.watchers.lock().values_mut().filter(|place| place.host == host) {
            place.running = false;
            if place.wanders {
                place.host = (host + 1) % hosts;
            }
        }
    }

    /// The ticket of a host that may join.
    #[must_use]
    pub fn ticket(&self, host: usize) -> Option<JoinTicket> {
        self.tickets.lock().get(&host).cloned()
    }

    /// A host may join.
    pub fn put_ticket(&self, host: usize, ticket: Option<JoinTicket>) {
        match ticket {
            Some(ticket) => drop(self.tickets.lock().insert(host, ticket)),
            None => drop(self.tickets.lock().remove(&host)),
        }
    }

    /// A watcher that waits to be run at this host.
    #[must_use]
    pub fn take_watcher(&self, host: usize) -> Option<(String, Place)> {
        let mut watchers = self.watchers.lock();
        let (name, place) = watchers.iter_mut().find(|(_, place)| place.host == host && !place.running)?;
        place.running = true;
        Some((name.clone(), place.clone()))
    }

    /// A watcher has come this far.
    pub fn reached(&self, watcher: &str, next: i64) {
        if let Some(place) = self.watchers.lock().get_mut(watcher) {
            place.next = next;
        }
    }

    /// A watcher has stopped, and goes on at `host`.
    pub fn leave_watcher(&self, watcher: &str, host: usize) {
        if let Some(place) = self.watchers.lock().get_mut(watcher) {
            place.running = false;
            place.host = host;
        }
    }

    /// Up to which revision every watcher has come.
    #[must_use]
    pub fn slowest_watcher(&self) -> i64 {
        self.watchers.lock().values().map(|place| place.next - 1).min().unwrap_or(0)
    }

    /// Whether clients may work.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Relaxed)
    }

    /// Lets clients work, or stops them.
    pub fn load(&self, on: bool) {
        self.loaded.store(on, Ordering::Relaxed);
    }
}
