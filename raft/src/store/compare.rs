//! Compares the replicas: the leader takes the digest of a part of the state, asks the others for theirs, and where a
//! majority agrees, a member that differs rebuilds its state (D8).
//!
//! A round costs each member a few thousand keys, however large the store; the parts follow one another through the
//! key space, and the newest changes go with each. Reading is itself a check: what has rotted on disk fails its block's
//! checksum here, before a client asks for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trireme_proto::peer;
use trireme_proto::peer::digest_response::Result as Answered;

use super::core::Core;
use crate::blocking::blocking;
use crate::error::StoreError;
use crate::mvcc::digest::{Answer, PartLimit};
use crate::mvcc::{Fault, FaultKind};
use crate::network::client::Lane;

/// What one round looks at.
const PART: PartLimit = PartLimit { keys: 5000, bytes: 16 << 20, changes: 5000 };
/// How long a replica may take to apply the revision that the leader compares.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How far the leader's comparison has come.
#[derive(Default)]
struct Progress {
    start: Bytes,
    changes_from: i64,
}

/// Runs for as long as the store is open; works while this member leads.
pub(super) async fn compare_replicas(core: Arc<Core>, every: Duration) {
    if every.is_zero() {
        return;
    }
    let mut progress = Progress::default();
    loop {
        tokio::time::sleep(every).await;
        if core.status.borrow().leadership.is_none_or(|led| !led.caught_up) {
            // A member that does not lead only reads through its own state, to find damage on disk.
            let _ = scrub(&core, &mut progress).await;
            continue;
        }
        if let Err(error) = round(&core, &mut progress).await {
            tracing::debug!(%error, "the replicas were not compared");
        }
    }
}

/// The next part of the local state, and its digest. Reading it reveals damage.
async fn scrub(core: &Core, progress: &mut Progress) -> Result<(peer::DigestRequest, peer::Digest), StoreError> {
    let (state, start, changes_from) = (core.state.clone(), progress.start.clone(), progress.changes_from);
    let (part, digest) = blocking(move || state.next_part(&start, changes_from, PART)).await??;
    // An empty end is the end of the key space: the next part is the first one.
    *progress = Progress { start: part.end.clone(), changes_from: part.revision };
    Ok((part, digest))
}

async fn round(core: &Core, progress: &mut Progress) -> Result<(), StoreError> {
    let voters = core.status.borrow().voters.clone();
    let (part, own) = scrub(core, progress).await?;
    let mut asked = Vec::new();
    for (member, _) in core.directory.all().into_iter().filter(|(member, _)| *member != core.node_id) {
        match ask(core, member, &part).await {
            Ok(Some(digest)) => asked.push((member, digest)),
            Ok(None) => {}
            Err(error) => tracing::debug!(member, %error, "no digest from there"),
        }
    }
    let Some(verdict) = judge(core.node_id, own, &asked, &voters) else {
        tracing::error!(revision = part.revision, "the replicas differ, and no majority says which is right; compare them by hand");
        return Ok(());
    };
    for (member, _) in asked.iter().filter(|(_, digest)| *digest != verdict) {
        tracing::error!(member, revision = part.revision, "a replica has another state than the majority; it will rebuild it");
        let request = peer::DivergedRequest { part: Some(part.clone()), expected: Some(verdict) };
        let mut client = core.clients.client(*member, Lane::Bulk)?;
        if let Err(status) = client.diverged(request).await {
            tracing::warn!(member, %status, "the replica could not be told");
        }
    }
    if own != verdict {
        condemn(core, &part);
    }
    Ok(())
}

/// The digest that a majority of the voters has; none where they differ and there is no such majority.
fn judge(own_id: u64, own: peer::Digest, others: &[(u64, peer::Digest)], voters: &[u64]) -> Option<peer::Digest> {
    let all = || std::iter::once((own_id, own)).chain(others.iter().copied());
    if others.iter().all(|(_, digest)| *digest == own) {
        return Some(own);
    }
    let votes = |digest: peer::Digest| all().filter(|(id, of)| voters.contains(id) && *of == digest).count();
    all().map(|(_, digest)| digest).find(|digest| votes(*digest) * 2 > voters.len())
}

async fn ask(core: &Core, member: u64, part: &peer::DigestRequest) -> Result<Option<peer::Digest>, StoreError> {
    let failed = |what: String| StoreError::NoLeader(format!("member {member}: {what}"));
    let mut client = core.clients.client(member, Lane::Bulk)?;
    let call = tokio::time::timeout(CATCH_UP + core.timing.rpc, client.digest(part.clone())).await;
    let response = call.map_err(|_| failed("no answer".into()))?.map_err(|status| failed(status.message().to_owned()))?;
    match response.into_inner().result {
        Some(Answered::Digest(digest)) => Ok(Some(digest)),
        Some(Answered::CannotSay(reason)) => {
            tracing::debug!(member, reason, "the member cannot say");
            Ok(None)
        }
        None => Ok(None),
    }
}

fn condemn(core: &Core, part: &peer::DigestRequest) {
    let reason = format!("at revision {} it is not what the majority has", part.revision);
    core.state.condemn(Fault { kind: FaultKind::Diverged, reason: reason.into() });
}

impl Core {
    /// Answers for a part, as soon as it is applied here.
    pub(crate) async fn digest_here(&self, part: peer::DigestRequest) -> Result<peer::DigestResponse, StoreError> {
        // The timeout is ignored: `digest` answers that it cannot say if the revision has not been applied.
        let _ = tokio::time::timeout(CATCH_UP, self.state.wait_revision(part.revision)).await;
        let state = self.state.clone();
        let result = match blocking(move || state.digest(&part)).await? {
            Ok(Answer::Digest(digest)) => Answered::Digest(digest),
            Ok(Answer::CannotSay(reason)) => Answered::CannotSay(reason),
            Err(error) => Answered::CannotSay(error.to_string()),
        };
        Ok(peer::DigestResponse { result: Some(result) })
    }

    /// Computes the digest again, and gives the state up if it differs.
    pub(crate) async fn diverged_here(&self, from: u64, request: peer::DivergedRequest) -> Result<(), StoreError> {
        let leader = self.status.borrow().leader.as_ref().map(|leader| leader.node_id);
        if leader != Some(from) {
            return Err(StoreError::Invalid(format!("member {from} does not lead")));
        }
        let Some((part, expected)) = request.part.zip(request.expected) else {
            return Err(StoreError::Invalid("incomplete".into()));
        };
        match self.digest_here(part.clone()).await?.result {
            Some(Answered::Digest(own)) if own != expected => condemn(self, &part),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(keys_crc32c: u32) -> peer::Digest {
        peer::Digest { keys_crc32c, ..peer::Digest::default() }
    }

    #[test]
    fn a_majority_of_the_voters_is_right() {
        let (a, b, c) = (digest(1), digest(2), digest(3));
        type Case<'a> = (&'a [(u64, peer::Digest)], &'a [u64], Option<peer::Digest>);
        let cases: [Case<'_>; 7] = [
            (&[(2, a), (3, a)], &[1, 2, 3], Some(a)),
            (&[(2, a), (3, b)], &[1, 2, 3], Some(a)),
            (&[(2, b), (3, b)], &[1, 2, 3], Some(b)),
            (&[(2, b), (3, c)], &[1, 2, 3], None),
            (&[(2, b)], &[1, 2, 3], None),
            // A learner has no say.
            (&[(2, b), (3, b)], &[1, 2], None),
            (&[(2, b)], &[1], Some(a)),
        ];
        for (others, voters, expected) in cases {
            assert_eq!(judge(1, a, others, voters), expected, "{others:?} of {voters:?}");
        }
    }
}
