//! Notices a leader whose process has died, and asks for votes at once.
//!
//! By the clock alone a follower waits for the leader's lease and an election timeout to pass. A killed process says
//! more than silence does: its kernel closes its connections at once, and answers new ones with a reset. Who sees both
//! gives up the lease here and goes for an election, one follower after the other.
//!
//! Safety does not hang on it. A lease only keeps followers loyal: no read and no acknowledgement trusts one (design
//! D3). Pre-vote comes first, so that a follower that is still in touch with the leader says no. A leader that is
//! cut off, frozen or without power refuses nothing; that is left to the clock.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;

use super::core::Core;
use crate::network::listener::PeerKey;

/// Pauses before each knock at the port: a dying process closes its sockets in an order of its own.
const KNOCKS: [Duration; 4] = [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(150)];
/// A live or dead process on a reachable host answers well within this.
const KNOCK_LIMIT: Duration = Duration::from_millis(200);
/// How much later each further follower begins: about what an election takes, so that they do not split the votes.
const TURN: Duration = Duration::from_millis(60);
/// Between two attempts: the others may notice a moment later, and refuse until then.
const AGAIN: Duration = Duration::from_millis(25);
const ATTEMPTS: u32 = 20;
/// No member ever has this id: they are allocated from 1 on.
const NOBODY: u64 = 0;

/// Runs for as long as the listener does: `lost` names the peers whose connections ended.
pub(super) async fn watch(core: Arc<Core>, mut lost: mpsc::Receiver<PeerKey>) {
    while let Some(key) = lost.recv().await {
        let Some(leader) = *core.leader.borrow() else { continue };
        if leader != core.node_id && core.directory.is_key_of(leader, &key.0) && refuses(&core, leader).await {
            succeed(&core, leader).await;
        }
    }
}

/// Whether nobody listens where the leader ought to.
async fn refuses(core: &Core, leader: u64) -> bool {
    for pause in KNOCKS {
        tokio::time::sleep(pause).await;
        match tokio::time::timeout(KNOCK_LIMIT, core.clients.knock(leader)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
            _ if *core.leader.borrow() != Some(leader) => return false,
            _ => {}
        }
    }
    false
}

async fn succeed(core: &Core, leader: u64) {
    let Ok(raft) = core.raft() else { return };
    let (vote, voters) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.vote, metrics.membership_config.voter_ids().filter(|id| *id != leader).collect::<Vec<u64>>())
    };
    if !vote.committed || vote.leader_id.voted_for != leader {
        return;
    }
    tracing::info!(leader, term = vote.leader_id.term, "the leader's process is gone: no use in waiting for its lease to end");
    // openraft has one way to give up a lease: a leader's word that it hands over. To nobody, here.
    if raft.handle_transfer_leader(TransferLeaderRequest::new(vote, NOBODY, None)).await.is_err() {
        return;
    }
    let Some(turn) = voters.iter().position(|id| *id == core.node_id) else { return };
    tokio::time::sleep(TURN * turn as u32).await;
    for _ in 0..ATTEMPTS {
        // Any other vote ends this: another candidate has it, or our own campaign runs and has its own clock.
        if raft.metrics().borrow_watched().vote != vote || raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
