//! Carries proposals to the leader, many in one request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use trireme_proto::peer;

use super::status::leader_changed;
use crate::error::StoreError;
use crate::network::client::{Lane, PeerClients, never_sent};

const QUEUE: usize = 4096;
const BATCH_COMMANDS: usize = 256;
const BATCH_BYTES: usize = 2 << 20;
/// Requests on the way at the same time; the batches grow while they are.
const IN_FLIGHT: usize = 8;

/// Sends proposals to the leader.
#[derive(Clone)]
pub(crate) struct Forwarder {
    queue: mpsc::Sender<PendingProposal>,
}

/// A proposal that waits to be sent.
pub(crate) struct PendingProposal {
    leader: u64,
    command: Bytes,
    reply: oneshot::Sender<peer::Proposed>,
}

impl Forwarder {
    pub(crate) fn new() -> (Forwarder, mpsc::Receiver<PendingProposal>) {
        let (queue, proposals) = mpsc::channel(QUEUE);
        (Forwarder { queue }, proposals)
    }

    /// Proposes at `leader`. Whatever goes wrong on the way is an unknown outcome.
    pub(crate) async fn propose(&self, leader: u64, command: Bytes) -> Result<peer::Proposed, StoreError> {
        let (reply, answer) = oneshot::channel();
        let proposal = PendingProposal { leader, command, reply };
        self.queue.send(proposal).await.map_err(|_| StoreError::Shutdown)?;
        Ok(answer.await.unwrap_or_else(|_| unknown()))
    }
}

/// Runs until the last [`Forwarder`] is gone.
pub(crate) async fn run(
    clients: Arc<PeerClients>,
    mut proposals: mpsc::Receiver<PendingProposal>,
    leads: watch::Receiver<Option<u64>>,
    limit: Duration,
) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut batch = Vec::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        if proposals.recv_many(&mut batch, BATCH_COMMANDS).await == 0 {
            return;
        }
        let (clients, leads) = (clients.clone(), leads.clone());
        let proposals = std::mem::take(&mut batch);
        tokio::spawn(async move {
            let _slot = slot;
            for (leader, proposals) in by_leader(proposals) {
                for proposals in by_size(proposals) {
                    send(&clients, leader, proposals, leads.clone(), limit).await;
                }
            }
        });
    }
}

async fn send(clients: &PeerClients, leader: u64, proposals: Vec<PendingProposal>, leads: watch::Receiver<Option<u64>>, limit: Duration) {
    let commands = proposals.iter().map(|proposal| proposal.command.clone()).collect();
    let mut client = match clients.client(leader, Lane::Bulk) {
        Ok(client) => client,
        Err(error) => {
            let refused = peer::Refused { leader_id: 0, reason: error.to_string() };
            answer(proposals, std::iter::repeat(proposed(peer::proposed::Result::Refused(refused))));
            return;
        }
    };
    let request = peer::ProposeRequest { commands };
    let answered = tokio::select! {
        answered = tokio::time::timeout(limit, client.propose(request)) => answered,
        // A frozen leader never answers: the slot must be free for proposals to its successor.
        () = leader_changed(leads, leader) => return answer(proposals, std::iter::repeat(unknown())),
    };
    match answered {
        Ok(Ok(response)) => {
            let results = response.into_inner().proposed.into_iter();
            answer(proposals, results.chain(std::iter::repeat(unknown())));
        }
        Ok(Err(status)) if never_sent(&status) => {
            let refused = peer::Refused { leader_id: 0, reason: status.to_string() };
            answer(proposals, std::iter::repeat(proposed(peer::proposed::Result::Refused(refused))));
        }
        Ok(Err(status)) => {
            tracing::debug!(leader, %status, "forwarded proposals failed");
            answer(proposals, std::iter::repeat(unknown()));
        }
        Err(_) => answer(proposals, std::iter::repeat(unknown())),
    }
}

fn answer(proposals: Vec<PendingProposal>, results: impl Iterator<Item = peer::Proposed>) {
    for (proposal, result) in proposals.into_iter().zip(results) {
        // A send fails where the proposer stopped waiting.
        let _ = proposal.reply.send(result);
    }
}

fn by_leader(proposals: Vec<PendingProposal>) -> HashMap<u64, Vec<PendingProposal>> {
    let mut groups: HashMap<u64, Vec<PendingProposal>> = HashMap::new();
    for proposal in proposals {
        groups.entry(proposal.leader).or_default().push(proposal);
    }
    groups
}

fn by_size(proposals: Vec<PendingProposal>) -> Vec<Vec<PendingProposal>> {
    let mut groups: Vec<Vec<PendingProposal>> = vec![Vec::new()];
    let mut bytes = 0;
    for proposal in proposals {
        bytes += proposal.command.len();
        match groups.last_mut() {
            Some(group) if group.is_empty() || bytes <= BATCH_BYTES => group.push(proposal),
            _ => {
                bytes = proposal.command.len();
                groups.push(vec![proposal]);
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
