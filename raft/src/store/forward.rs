//! Carries proposals to the leader, many in one request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use trireme_proto::peer;

use super::core::moved;
use crate::error::StoreError;
use crate::network::client::{Lane, PeerClients, never_sent};

const QUEUE: usize = 4096;
const BATCH_COMMANDS: usize = 256;
const BATCH_BYTES: usize = 2 << 20;
/// Requests on the way at the same time; the batches grow while they are.
const IN_FLIGHT: usize = 8;

/// The way to whoever leads.
#[derive(Clone)]
pub(crate) struct Forwarder {
    queue: mpsc::Sender<Parcel>,
}

/// A proposal on its way.
pub(crate) struct Parcel {
    leader: u64,
    command: Bytes,
    reply: oneshot::Sender<peer::Proposed>,
}

impl Forwarder {
    pub(crate) fn new() -> (Forwarder, mpsc::Receiver<Parcel>) {
        let (queue, parcels) = mpsc::channel(QUEUE);
        (Forwarder { queue }, parcels)
    }

    /// Proposes at `leader`. Whatever goes wrong on the way is an unknown outcome.
    pub(crate) async fn propose(&self, leader: u64, command: Bytes) -> Result<peer::Proposed, StoreError> {
        let (reply, answer) = oneshot::channel();
        let parcel = Parcel { leader, command, reply };
        self.queue.send(parcel).await.map_err(|_| StoreError::Shutdown)?;
        Ok(answer.await.unwrap_or_else(|_| unknown()))
    }
}

/// Runs until the last [`Forwarder`] is gone.
pub(crate) async fn run(
    clients: Arc<PeerClients>,
    mut parcels: mpsc::Receiver<Parcel>,
    leads: watch::Receiver<Option<u64>>,
    limit: Duration,
) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut batch = Vec::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        if parcels.recv_many(&mut batch, BATCH_COMMANDS).await == 0 {
            return;
        }
        let (clients, leads) = (clients.clone(), leads.clone());
        let parcels = std::mem::take(&mut batch);
        tokio::spawn(async move {
            let _slot = slot;
            for (leader, parcels) in by_leader(parcels) {
                for parcels in by_size(parcels) {
                    send(&clients, leader, parcels, leads.clone(), limit).await;
                }
            }
        });
    }
}

async fn send(clients: &PeerClients, leader: u64, parcels: Vec<Parcel>, leads: watch::Receiver<Option<u64>>, limit: Duration) {
    let commands = parcels.iter().map(|parcel| parcel.command.clone()).collect();
    let mut client = match clients.client(leader, Lane::Bulk) {
        Ok(client) => client,
        Err(error) => {
            let refused = peer::Refused { leader_id: 0, reason: error.to_string() };
            answer(parcels, std::iter::repeat(proposed(peer::proposed::Result::Refused(refused))));
            return;
        }
    };
    let request = peer::ProposeRequest { commands };
    let answered = tokio::select! {
        answered = tokio::time::timeout(limit, client.propose(request)) => answered,
        // A frozen leader answers nobody: the way must be free for its successor.
        () = moved(leads, leader) => return answer(parcels, std::iter::repeat(unknown())),
    };
    match answered {
        Ok(Ok(response)) => {
            let results = response.into_inner().proposed.into_iter();
            answer(parcels, results.chain(std::iter::repeat(unknown())));
        }
        Ok(Err(status)) if never_sent(&status) => {
            let refused = peer::Refused { leader_id: 0, reason: status.to_string() };
            answer(parcels, std::iter::repeat(proposed(peer::proposed::Result::Refused(refused))));
        }
        Ok(Err(status)) => {
            tracing::debug!(leader, %status, "forwarded proposals failed");
            answer(parcels, std::iter::repeat(unknown()));
        }
        Err(_) => answer(parcels, std::iter::repeat(unknown())),
    }
}

fn answer(parcels: Vec<Parcel>, results: impl Iterator<Item = peer::Proposed>) {
    for (parcel, result) in parcels.into_iter().zip(results) {
        // Who stopped waiting is not told.
        let _ = parcel.reply.send(result);
    }
}

fn by_leader(parcels: Vec<Parcel>) -> HashMap<u64, Vec<Parcel>> {
    let mut groups: HashMap<u64, Vec<Parcel>> = HashMap::new();
    for parcel in parcels {
        groups.entry(parcel.leader).or_default().push(parcel);
    }
    groups
}

fn by_size(parcels: Vec<Parcel>) -> Vec<Vec<Parcel>> {
    let mut groups: Vec<Vec<Parcel>> = vec![Vec::new()];
    let mut bytes = 0;
    for parcel in parcels {
        bytes += parcel.command.len();
        match groups.last_mut() {
            Some(group) if group.is_empty() || bytes <= BATCH_BYTES => group.push(parcel),
            _ => {
                bytes = parcel.command.len();
                groups.push(vec![parcel]);
            }
        }
    }
    groups
}

pub(crate) fn unknown() -> peer::Proposed {
    proposed(peer::proposed::Result::Unknown(peer::Blank {}))
}

pub(crate) fn proposed(result: peer::proposed::Result) -> peer::Proposed {
    peer::Proposed { result: Some(result) }
}
