//! The devices of a running kubelet: the plugins that are connected, what they offer, and what was given.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use trireme_proto::deviceplugin::ListAndWatchResponse;

use super::{
    checkpoint::Checkpoint,
    inventory::{Inventory, Told, Totals},
    ledger::Ledger,
    plugin::Plugin,
};
use crate::{
    clock::blocking,
    error::{Error, Result},
};

/// After a start of the agent plugins take a moment to notice: so long a pod that asks for their devices is not refused.
const SETTLING: Duration = Duration::from_secs(10);

/// Called with a pod's UID when the health of one of its devices has changed.
pub(crate) type OnChange = Arc<dyn Fn(&str) + Send + Sync>;

/// A plugin that has registered since this agent started.
pub(super) struct Connection {
    pub(super) plugin: Plugin,
    /// Tells it from earlier ones of the same resource.
    number: u64,
    /// The socket in `plugins_registry`, if it came by that.
    registered_by: Option<PathBuf>,
    /// The plugin has gone.
    pub(super) is_stopped: bool,
    follows: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.follows.abort();
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) inventory: Inventory,
    pub(super) ledger: Ledger,
    /// By resource.
    pub(super) connections: BTreeMap<String, Connection>,
    next_number: u64,
}

impl State {
    /// Whether a resource is one of plugins, and not one that somebody else counts.
    pub(super) fn manages(&self, resource: &str) -> bool {
        self.inventory.knows(resource) || self.ledger.has(resource)
    }
}

/// Which devices there are, and who has them.
pub(crate) struct Devices {
    pub(super) folder: PathBuf,
    pub(super) state: Mutex<State>,
    /// Of the file there is one writer at a time.
    writing: Mutex<()>,
    /// Told when the node's status has to be written anew.
    pub(crate) changed: Notify,
    on_change: OnChange,
    cancel: CancellationToken,
    pub(super) settled_at: Instant,
    /// No earlier kubelet has left anything.
    is_new: AtomicBool,
}

impl Devices {
    /// Takes over what an earlier agent left on disk below the kubelet's root.
    pub(crate) fn new(root: &Path, on_change: OnChange, cancel: CancellationToken) -> Arc<Devices> {
        let folder = root.join("device-plugins");
        let known = Checkpoint::read(&folder);
        let is_new = known.is_none();
        let Checkpoint { ledger, registered } = known.unwrap_or_default();
        let now = Instant::now();
        let inventory = Inventory::restored(registered.into_keys(), now);
        Arc::new(Devices {
            folder,
            state: Mutex::new(State { inventory, ledger, ..State::default() }),
            writing: Mutex::default(),
            changed: Notify::new(),
            on_change,
            cancel,
            settled_at: now + SETTLING,
            is_new: AtomicBool::new(is_new),
        })
    }

    // === Plugins come and go

    /// Connects to a plugin that has registered, in place of an earlier one of the same resource.
    pub(crate) async fn connect(self: &Arc<Self>, resource: &str, socket: PathBuf, registered_by: Option<PathBuf>) -> Result<()> {
        if !self.state.lock().inventory.has_room_for(resource) {
            return Err(Error::Config(format!("device plugin of {resource} is not taken: this node has plugins of too many resources")));
        }
        let plugin =
            Plugin::meet(socket).await.map_err(|why| Error::Config(format!("device plugin of {resource} cannot be reached: {why}")))?;
        let earlier = {
            let mut state = self.state.lock();
            state.next_number += 1;
            let number = state.next_number;
            let (me, name, followed) = (self.clone(), resource.to_owned(), plugin.clone());
            let cancel = self.cancel.clone();
            let follows = tokio::spawn(async move {
                cancel.run_until_cancelled(me.follow(name, number, followed)).await;
            });
            let connection = Connection { plugin, number, registered_by, is_stopped: false, follows };
            state.connections.insert(resource.to_owned(), connection)
        };
        drop(earlier);
        tracing::info!(resource, "device plugin registered");
        Ok(())
    }

    /// The registration socket of a plugin is gone, and so is the plugin.
    pub(crate) fn forget(&self, registered_by: &Path) {
        let gone: Vec<(String, u64)> = {
            let state = self.state.lock();
            let came_by = state.connections.iter().filter(|(_, c)| c.registered_by.as_deref() == Some(registered_by));
            came_by.map(|(resource, connection)| (resource.clone(), connection.number)).collect()
        };
        for (resource, number) in gone {
            self.stopped(&resource, number);
        }
    }

    async fn follow(self: Arc<Self>, resource: String, number: u64, plugin: Plugin) {
        let ended = async {
            let mut stream = plugin.list_and_watch().await.map_err(|why| why.to_string())?;
            while let Some(list) = stream.message().await.map_err(|status| status.message().to_owned())? {
                self.told(&resource, number, list);
            }
            Ok::<(), String>(())
        };
        let why = ended.await.err().unwrap_or_else(|| "its stream ended".into());
        tracing::warn!(resource, why, "device plugin is gone; its devices stay with the containers that have them");
        self.stopped(&resource, number);
    }

    fn told(&self, resource: &str, number: u64, list: ListAndWatchResponse) {
        let Told { devices, problem } = Told::of(list);
        if let Some(problem) = problem {
            tracing::warn!(resource, problem, "device plugin");
        }
        let users = {
            let mut state = self.state.lock();
            if state.connections.get(resource).is_none_or(|connection| connection.number != number) {
                return;
            }
            let changed: BTreeSet<String> = state.inventory.set(resource, devices).into_iter().collect();
            if changed.is_empty() { BTreeSet::new() } else { users(&state.ledger, resource, &changed) }
        };
        if let Err(error) = self.save() {
            tracing::warn!(%error, "devices are not written down");
        }
        self.changed.notify_one();
        users.iter().for_each(|uid| (self.on_change)(uid));
    }

    fn stopped(&self, resource: &str, number: u64) {
        let mut state = self.state.lock();
        let Some(connection) = state.connections.get_mut(resource).filter(|connection| connection.number == number) else { return };
        connection.is_stopped = true;
        connection.follows.abort();
        state.inventory.stop(resource, Instant::now());
        drop(state);
        self.changed.notify_one();
    }

    // === What others ask

    /// What the node's status is to say. Resources whose plugins stay away are forgotten here.
    pub(crate) fn totals(&self) -> Totals {
        let mut state = self.state.lock();
        let any_gone = state.inventory.expire(Instant::now());
        if any_gone {
            let State { connections, inventory, .. } = &mut *state;
            connections.retain(|resource, connection| !connection.is_stopped || inventory.knows(resource));
        }
        let by_resource = state.inventory.amounts();
        drop(state);
        if any_gone && let Err(error) = self.save() {
            tracing::warn!(%error, "devices are not written down");
        }
        Totals { by_resource, is_new: self.is_new.load(Ordering::Acquire) }
    }

    /// The node's status says what [`Devices::totals`] said.
    pub(crate) fn reported(&self) {
        if self.is_new.load(Ordering::Acquire) && self.save().is_ok() {
            self.is_new.store(false, Ordering::Release);
        }
    }

    /// Frees the devices of a pod that has ended. A checkpoint that cannot be written is no error: at its next start the agent frees the
    /// devices of all pods that are gone.
    pub(crate) fn release(&self, uid: &str) {
        let had_devices = self.state.lock().ledger.release(uid);
        if had_devices && let Err(error) = self.save() {
            tracing::warn!(%error, uid, "the end of a pod with devices is not written down");
        }
    }

    /// Takes back what pods have that are not on this node any more.
    pub(crate) fn release_others(&self, is_here: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.state.lock().ledger.uids().filter(|uid| !is_here(uid)).cloned().collect();
        gone.iter().for_each(|uid| self.release(uid));
    }

    /// Writes down who has what.
    pub(super) fn save(&self) -> Result<()> {
        let _writing = self.writing.lock();
        let checkpoint = {
            let state = self.state.lock();
            Checkpoint { ledger: state.ledger.clone(), registered: state.inventory.registered() }
        };
        blocking(|| Checkpoint::write(&self.folder, &checkpoint.encode()?))
    }
}

/// The pods that have any of these devices.
fn users(ledger: &Ledger, resource: &str, ids: &BTreeSet<String>) -> BTreeSet<String> {
    let holders = ledger.holders(resource).filter(|(_, _, grant)| grant.devices.keys().any(|id| ids.contains(id)));
    holders.map(|(uid, _, _)| uid.to_owned()).collect()
}
