//! Notices a leader whose process has died, and asks for votes at once.
//!
//! By the clock alone a follower waits until the leader's lease and an election timeout have passed. A killed process can be
//! detected earlier: its kernel closes its connections at once, and answers new ones with a reset. A follower that sees both
//! gives up the lease and starts an election, one follower after the other.
//!
//! Safety does not depend on it. A lease only delays elections: no read and no acknowledgement relies on one
//! (D3). Pre-vote comes first, so a follower that still hears from the leader refuses. A leader that is
//! cut off, frozen or without power resets no connection; it is left to the clock.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;

use super::core::Core;
use crate::network::listener::PeerKey;

/// Pauses before each probe of the port: a dying process may close its connections before its listener.
const PROBE_PAUSES: [Duration; 4] = [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(150)];
/// A live or dead process on a reachable host answers well within this.
const PROBE_LIMIT: Duration = Duration::from_millis(200);
/// How much later each further follower begins: about what an election takes, so that they do not split the votes.
const ELECTION_STEP: Duration = Duration::from_millis(60);
/// Between two attempts: the others may notice a moment later, and refuse until then.
const AGAIN: Duration = Duration::from_millis(25);
const ATTEMPTS: u32 = 20;
/// No member ever has this id: they are allocated from 1 on.
const NO_MEMBER: u64 = 0;

/// Runs for as long as the listener does: `lost` names the peers whose connections ended.
pub(super) async fn watch(core: Arc<Core>, mut lost: mpsc::Receiver<PeerKey>) {
    while let Some(key) = lost.recv().await {
        let Some(leader) = *core.leader.borrow() else { continue };
        if leader != core.node_id && core.directory.is_key_of(leader, &key.0) && refuses(&core, leader).await {
            succeed(&core, leader).await;
        }
    }
}

/// Whether connections to the leader's address are refused.
async fn refuses(core: &Core, leader: u64) -> bool {
    for pause in PROBE_PAUSES {
        tokio::time::sleep(pause).await;
        match tokio::time::timeout(PROBE_LIMIT, core.clients.probe(leader)).await {
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
    tracing::info!(leader, term = vote.leader_id.term, "the leader's process is gone: an election starts before its lease ends");
    // openraft gives up a lease only when the leader transfers leadership; here the transfer names no member.
    if raft.handle_transfer_leader(TransferLeaderRequest::new(vote, NO_MEMBER, None)).await.is_err() {
        return;
    }
    let Some(turn) = voters.iter().position(|id| *id == core.node_id) else { return };
    tokio::time::sleep(ELECTION_STEP * turn as u32).await;
    for _ in 0..ATTEMPTS {
        // Any other vote ends this: another candidate has it, or our own campaign runs and has its own clock.
        if raft.metrics().borrow_watched().vote != vote || raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
