//! The drivers that are registered on this node.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::driver::Driver;

/// After a start of the agent drivers take a moment to be found again: so long a missing one is waited for.
const SETTLING: Duration = Duration::from_secs(10);

/// A driver, and the registration socket that it came by.
#[derive(Clone)]
struct Entry {
    registered_by: PathBuf,
    driver: Driver,
}

/// By name.
pub(super) struct Drivers {
    known: watch::Sender<HashMap<String, Entry>>,
    settled_at: Instant,
}

impl Drivers {
    pub(super) fn new() -> Drivers {
        Drivers { known: watch::Sender::default(), settled_at: Instant::now() + SETTLING }
    }

    pub(super) fn get(&self, name: &str) -> Option<Driver> {
        self.known.borrow().get(name).map(|entry| entry.driver.clone())
    }

    /// A driver by name, in upstream's words if there is none.
    pub(super) async fn find(&self, name: &str) -> Result<Driver, String> {
        let mut known = self.known.subscribe();
        let appears = known.wait_for(|known| known.contains_key(name));
        let _ = tokio::time::timeout_at(self.settled_at, appears).await;
        self.get(name).ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }

    pub(super) fn add(&self, name: &str, registered_by: PathBuf, driver: Driver) {
        self.known.send_modify(|known| {
            known.insert(name.to_owned(), Entry { registered_by, driver });
        });
    }

    /// Takes out what came by this socket; returns the names. A newer driver that registered by another socket stays.
    pub(super) fn remove(&self, registered_by: &Path) -> Vec<String> {
        let mut gone = Vec::new();
        self.known.send_modify(|known| {
            known.retain(|name, entry| {
                let stays = entry.registered_by != registered_by;
                if !stays {
                    gone.push(name.clone());
                }
                stays
            });
        });
        gone
    }
}
