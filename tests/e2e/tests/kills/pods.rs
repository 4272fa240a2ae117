//! What runs on the nodes, counted in containerd: by pod UID, container and attempt.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::ensure;
use trireme_harness::{Containers, Host, Listing};
use trireme_proto::cri::{ContainerState, PodSandboxState};

const POD_UID: &str = "io.kubernetes.pod.uid";
const PERIOD: Duration = Duration::from_millis(300);

/// Every sandbox and container ever seen, by what must be unique about it.
#[derive(Debug, Clone, Default)]
pub struct Census {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    nodes: BTreeMap<String, String>,
    sandboxes: BTreeMap<(String, u32), String>,
    containers: BTreeMap<(String, String, u32), String>,
    samples: usize,
}

/// Running containers of one node: (pod UID, container) to id and attempt.
pub type Running = BTreeMap<(String, String), (String, u32)>;

impl Census {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Samples, sandboxes and containers seen.
    pub fn counts(&self) -> (usize, usize, usize) {
        let seen = self.lock();
        (seen.samples, seen.sandboxes.len(), seen.containers.len())
    }

    /// Watches a node for ever; only a doubled pod ends it.
    pub async fn follow(self, host: Host) -> anyhow::Result<()> {
        let containers = Containers::of(&host);
        loop {
            if let Ok(listing) = containers.list().await {
                self.take(host.name(), &listing)?;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn take(&self, node: &str, listing: &Listing) -> anyhow::Result<()> {
        let mut seen = self.lock();
        seen.samples += 1;
        let mut ready = BTreeMap::new();
        for sandbox in &listing.sandboxes {
            let metadata = sandbox.metadata.clone().unwrap_or_default();
            let at = seen.nodes.entry(metadata.uid.clone()).or_insert_with(|| node.to_owned());
            ensure!(at == node, "pod {} is on {at} and on {node}", metadata.name);
            let id = seen.sandboxes.entry((metadata.uid.clone(), metadata.attempt)).or_insert_with(|| sandbox.id.clone());
            ensure!(
                *id == sandbox.id,
                "{node}: sandboxes {id} and {} are both attempt {} of pod {}",
                sandbox.id,
                metadata.attempt,
                metadata.name
            );
            if sandbox.state == PodSandboxState::SandboxReady as i32
                && let Some(other) = ready.insert(metadata.uid, sandbox.id.clone())
            {
                anyhow::bail!("{node}: pod {} has two running sandboxes, {other} and {}", metadata.name, sandbox.id);
            }
        }
        // One that was created and never started may be made anew under its number.
        for container in listing.containers.iter().filter(|container| container.state != ContainerState::ContainerCreated as i32) {
            let metadata = container.metadata.clone().unwrap_or_default();
            let uid = container.labels.get(POD_UID).cloned().unwrap_or_default();
            let id = seen.containers.entry((uid.clone(), metadata.name.clone(), metadata.attempt)).or_insert_with(|| container.id.clone());
            ensure!(
                *id == container.id,
                "{node}: containers {id} and {} are both attempt {} of {} in pod {uid}",
                container.id,
                metadata.attempt,
                metadata.name
            );
        }
        running(listing).map(drop)
    }
}

/// What runs; two running containers of one name in one pod are an error.
pub fn running(listing: &Listing) -> anyhow::Result<Running> {
    let mut running = Running::new();
    for container in listing.containers.iter().filter(|container| container.state == ContainerState::ContainerRunning as i32) {
        let metadata = container.metadata.clone().unwrap_or_default();
        let uid = container.labels.get(POD_UID).cloned().unwrap_or_default();
        let other = running.insert((uid.clone(), metadata.name.clone()), (container.id.clone(), metadata.attempt));
        ensure!(other.is_none(), "{} runs twice in pod {uid}: {other:?} and {}", metadata.name, container.id);
    }
    Ok(running)
}
