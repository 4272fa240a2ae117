//! The leader's end of an append stream, kept open between the requests that openraft makes of it.
//!
//! openraft asks for a stream for each heartbeat and for each stretch of replication. To open one costs headers, tasks and
//! buffers at both ends, ten times a second for every follower of an idle cluster; a message on an open one costs next to
//! nothing. Requests and answers are in the same order, so a stream with nothing owed on it is as good as new.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, Timeout};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft::{EntryPayload, RPCTypes};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tokio_stream::wrappers::ReceiverStream;
use trireme_proto::{peer, store};

use super::client::{Client, Rpc, malformed, rpc_error};
use crate::error::StoreError;
use crate::metrics::Histogram;
use crate::types::{Entry, TypeConfig, entry_to_proto, log_id_from_proto, log_id_to_proto, vote_from_proto, vote_to_proto};

/// Requests that may be under way. A follower that falls behind holds up its own stream, and nobody else's.
const WINDOW: usize = 64;
/// And what their entries hold, but for the last one: a follower that lacks much gets it in pieces of megabytes, of which neither end
/// keeps more than a few.
const WINDOW_BYTES: usize = 4 << 20;

/// An open stream on which nothing is owed.
pub(super) struct AppendPipe {
    requests: mpsc::Sender<peer::AppendRequest>,
    answers: tonic::Streaming<peer::AppendResponse>,
    /// Whom it was opened to.
    record: store::MemberRecord,
    /// Of heartbeats that nothing else is on the way with: they tell of the network, not of the disk.
    round_trip: Arc<Histogram>,
}

/// One use of a pipe, which goes back into its slot if all went well.
pub(super) struct Exchange<'s, S> {
    slot: &'s mut Option<AppendPipe>,
    pipe: AppendPipe,
    /// None when it has ended.
    input: Option<S>,
    /// The sizes of the requests sent and not answered, and their sum.
    owed: VecDeque<usize>,
    owed_bytes: usize,
    /// For an answer, from the one before or from the request that had to wait for none.
    limit: Duration,
    due: Instant,
    /// When a heartbeat was sent on its own.
    alone_since: Option<Instant>,
    /// Ours and theirs, for errors.
    ends: (u64, u64),
}

enum Step {
    Asked(Option<AppendEntriesRequest<TypeConfig>>),
    Answered(Result<Option<peer::AppendResponse>, tonic::Status>),
    Late,
}

// === impl AppendPipe ===

impl AppendPipe {
    pub(super) async fn open(
        mut client: Client,
        record: store::MemberRecord,
        round_trip: Arc<Histogram>,
    ) -> Result<AppendPipe, tonic::Status> {
        let (requests, outgoing) = mpsc::channel(WINDOW);
        let answers = client.append(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(AppendPipe { requests, answers, record, round_trip })
    }

    /// Whether it still leads to this member.
    pub(super) fn leads_to(&self, record: &store::MemberRecord) -> bool {
        self.record == *record && !self.requests.is_closed()
    }
}

// === impl Exchange ===

impl<'s, S> Exchange<'s, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    pub(super) fn new(slot: &'s mut Option<AppendPipe>, pipe: AppendPipe, input: S, limit: Duration, ends: (u64, u64)) -> Exchange<'s, S> {
        Exchange {
            slot,
            pipe,
            input: Some(input),
            owed: VecDeque::new(),
            owed_bytes: 0,
            limit,
            due: Instant::now(),
            alone_since: None,
            ends,
        }
    }

    /// The answers, in order. An error, a conflict or a higher vote is the last one.
    pub(super) fn answers(self) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, Rpc>> + Send + 's {
        futures::stream::unfold(Some(self), |exchange| async move {
            let mut exchange = exchange?;
            let answer = exchange.next().await;
            match answer {
                None => {
                    let Exchange { slot, pipe, .. } = exchange;
                    *slot = Some(pipe);
                    None
                }
                Some(answer @ Ok(Ok(_))) => Some((answer, Some(exchange))),
                Some(last) => Some((last, None)),
            }
        })
    }

    /// The next answer; none when all that was asked is answered.
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, Rpc>> {
        loop {
            if self.input.is_none() && self.owed.is_empty() {
                return None;
            }
            match self.step().await {
                Step::Asked(Some(rpc)) => {
                    let now = Instant::now();
                    self.alone_since = (self.owed.is_empty() && rpc.entries.is_empty()).then_some(now);
                    if self.owed.is_empty() {
                        self.due = now + self.limit;
                    }
                    let bytes = rpc.entries.iter().map(entry_bytes).sum();
                    self.owed.push_back(bytes);
                    self.owed_bytes += bytes;
                    // There is room: no more than a window is owed. A broken stream shows in its answers.
                    let _ = self.pipe.requests.try_send(append_to_proto(&rpc));
                }
                Step::Asked(None) => self.input = None,
                Step::Answered(Ok(Some(answer))) => {
                    self.owed_bytes -= self.owed.pop_front().unwrap_or(0);
                    self.due = Instant::now() + self.limit;
                    if let Some(sent) = self.alone_since.take() {
                        self.pipe.round_trip.observe(sent.elapsed());
                    }
                    return Some(append_result(answer).map_err(malformed));
                }
                Step::Answered(Ok(None)) => {
                    return Some(Err(RPCError::Network(NetworkError::from_string("the follower ended the append stream"))));
                }
                Step::Answered(Err(status)) => return Some(Err(rpc_error(&status))),
                Step::Late => {
                    let ((id, target), timeout) = (self.ends, self.limit);
                    return Some(Err(RPCError::Timeout(Timeout { action: RPCTypes::AppendEntries, id, target, timeout })));
                }
            }
        }
    }

    async fn step(&mut self) -> Step {
        let room = self.owed.len() < WINDOW && self.owed_bytes < WINDOW_BYTES;
        let (may_ask, owes) = (self.input.is_some() && room, !self.owed.is_empty());
        let input = &mut self.input;
        tokio::select! {
            biased;
            // Also while nothing is owed: a lost connection shows here first.
            answer = self.pipe.answers.message() => Step::Answered(answer),
            rpc = async { match input { Some(input) => input.next().await, None => None } }, if may_ask => Step::Asked(rpc),
            () = tokio::time::sleep_until(self.due), if owes => Step::Late,
        }
    }
}

/// What an entry carries.
fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

fn append_to_proto(rpc: &AppendEntriesRequest<TypeConfig>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_to_proto(&rpc.vote)),
        prev_log_id: rpc.prev_log_id.as_ref().map(log_id_to_proto),
        entries: rpc.entries.iter().map(entry_to_proto).collect(),
        leader_commit: rpc.leader_commit.as_ref().map(log_id_to_proto),
    }
}

fn append_result(response: peer::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, StoreError> {
    use peer::append_response::Result as Answer;
    Ok(match response.result {
        Some(Answer::Accepted(accepted)) => Ok(accepted.last_log_id.as_ref().map(log_id_from_proto)),
        Some(Answer::Conflict(at)) => Err(StreamAppendError::Conflict(log_id_from_proto(&at))),
        Some(Answer::HigherVote(vote)) => Err(StreamAppendError::HigherVote(vote_from_proto(&vote)?)),
        None => return Err(StoreError::Invalid("append answer without a result".into())),
    })
}
