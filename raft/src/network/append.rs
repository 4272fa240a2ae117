//! The leader's end of an append stream, kept open between the requests that openraft makes of it.
//!
//! openraft asks for a stream for each heartbeat and for each run of replication. Opening one costs headers, tasks and
//! buffers at both ends, ten times a second for every follower of an idle cluster; a message on an open stream costs
//! little. Responses come in the order of the requests, so a stream on which no response is pending can be used again.
//!
//! # Which request an answer is credited to
//!
//! openraft keeps the requests in flight by their last log ids. An answer removes every one that ends at or before the position it
//! confirms, and the leader's clock is set to the time of the last that was removed (`InflightAppendQueue::drain_acked`). A request
//! that carries nothing but a commit index ends where the append before it does, so an answer to the append would count as one to a request
//! that was made after it: a ReadIndex that began in between would be confirmed by an answer that was sent before. Therefore
//!
//! - such a request is asked for when the appends in flight are answered, or with the entries that follow ([`COMMIT_WAIT`], [`IDLE_WAIT`]);
//! - where one is in flight behind an append all the same, the answer to the append is kept back, and the answer to the last of them
//!   counts for both ([`Exchange::is_ambiguous`]).

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, Timeout};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft::{EntryPayload, RPCTypes};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};
use tokio_stream::wrappers::ReceiverStream;
use trireme_proto::{peer, store};

use super::interest::Interest;
use super::rpc::{Client, Rpc, malformed, rpc_error};
use crate::error::StoreError;
use crate::metrics::Histogram;
use crate::mutant;
use crate::types::{Entry, LogId, TypeConfig, entry_to_proto, log_id_from_proto, log_id_to_proto, vote_from_proto, vote_to_proto};

/// Requests in flight on one stream. A slow follower delays only its own stream.
const WINDOW: usize = 64;
/// Bytes in flight, not counting the last request: a follower that is far behind receives pieces of megabytes, and neither end buffers
/// more than a few of them.
const WINDOW_BYTES: usize = 4 << 20;
/// How long a commit index without entries waits at most for the answers to the appends in flight. Longer than a sync and a way between
/// servers of one site take; a follower whose disk is slower than that need not wait for it to apply what the others have on disk.
const COMMIT_WAIT: Duration = Duration::from_millis(10);
/// How long it waits while nothing is in flight: most often the next entries take it along, which saves half of the messages. Not for a member
/// that waits for it, and not while a read does.
const IDLE_WAIT: Duration = Duration::from_millis(2);
/// How long entries wait for the answer to the append in flight: those that come meanwhile form one request. Over a slow link, or to a slow disk,
/// they follow before that answer.
const BATCH_WAIT: Duration = Duration::from_millis(5);

/// An open stream on which no append awaits its response.
pub(super) struct AppendPipe {
    requests: mpsc::Sender<peer::AppendRequest>,
    answers: tonic::Streaming<peer::AppendResponse>,
    /// The member it was opened to.
    record: store::MemberRecord,
    /// Round trips of heartbeats that were sent with nothing else in flight: they measure the network, not the disk.
    round_trip: Arc<Histogram>,
}

/// One use of a stream, which returns to its slot unless an error occurred.
pub(super) struct Exchange<'s, S> {
    slot: &'s mut Option<AppendPipe>,
    pipe: AppendPipe,
    /// None when it has ended.
    input: Option<S>,
    /// The requests in flight, and the sum of their sizes.
    owed: VecDeque<Owed>,
    owed_bytes: usize,
    /// Where the last request ends.
    asked_to: Option<LogId>,
    /// Until then a commit index without entries is held back; afterwards any request is taken from openraft.
    hold_until: Instant,
    /// The same while nothing is in flight.
    idle_until: Instant,
    /// Until then nothing follows the append that is in flight.
    batch_until: Instant,
    waiting: Waiting,
    /// Where this member's log ends.
    log_end: watch::Receiver<Option<u64>>,
    /// Time limit of an answer, counted from the answer before it, or from the request if no other was in flight.
    limit: Duration,
    due: Instant,
    /// When a heartbeat was sent on its own.
    alone_since: Option<Instant>,
    /// Ours and theirs, for errors.
    ends: (u64, u64),
}

/// Who waits for a request that carries nothing but a commit index, or not even that.
pub(super) struct Waiting {
    /// Whether the follower waits for commit indexes.
    pub(super) interest: Arc<Interest>,
    /// Whether a read of the leader waits for its followers.
    pub(super) reading: watch::Receiver<bool>,
}

/// A request that awaits its answer.
struct Owed {
    bytes: usize,
    /// Its last entry, or the one that it follows.
    last: Option<LogId>,
}

enum Step {
    /// Look again at what may be done.
    Again,
    Asked(Option<AppendEntriesRequest<TypeConfig>>),
    Answered(Result<Option<peer::AppendResponse>, tonic::Status>),
    Late,
}

// === impl Waiting ===

impl Waiting {
    fn is_urgent(&self) -> bool {
        self.interest.is_recent() || *self.reading.borrow()
    }
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
    pub(super) fn new(
        slot: &'s mut Option<AppendPipe>,
        pipe: AppendPipe,
        input: S,
        limit: Duration,
        ends: (u64, u64),
        log_end: watch::Receiver<Option<u64>>,
        waiting: Waiting,
    ) -> Exchange<'s, S> {
        Exchange {
            slot,
            pipe,
            input: Some(input),
            owed: VecDeque::new(),
            owed_bytes: 0,
            asked_to: None,
            hold_until: Instant::now(),
            idle_until: Instant::now(),
            batch_until: Instant::now(),
            waiting,
            log_end,
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
                    self.asked_to = rpc.entries.last().map_or(rpc.prev_log_id, |entry| Some(entry.log_id));
                    self.hold_until = now + COMMIT_WAIT;
                    if bytes > 0 {
                        self.batch_until = now + BATCH_WAIT;
                    }
                    self.owed.push_back(Owed { bytes, last: self.asked_to });
                    self.owed_bytes += bytes;
                    // The queue has room, because it holds a whole window of requests. A broken stream shows in its answers.
                    let _ = self.pipe.requests.try_send(append_to_proto(&rpc));
                }
                Step::Asked(None) => self.input = None,
                Step::Answered(Ok(Some(answer))) => {
                    self.owed_bytes -= self.owed.pop_front().map_or(0, |owed| owed.bytes);
                    let now = Instant::now();
                    self.due = now + self.limit;
                    self.idle_until = now + IDLE_WAIT;
                    if let Some(sent) = self.alone_since.take() {
                        self.pipe.round_trip.observe(sent.elapsed());
                    }
                    let result = append_result(answer).map_err(malformed);
                    if !matches!(&result, Ok(Ok(matching)) if self.is_ambiguous(*matching)) {
                        return Some(result);
                    }
                }
                Step::Again => {}
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

    /// Whether openraft would credit an answer that confirms `matching` to a request that is still in flight.
    fn is_ambiguous(&self, matching: Option<LogId>) -> bool {
        self.owed.front().is_some_and(|next| next.last <= matching) && !mutant::on("late-acknowledgement-counted")
    }

    /// Until when what openraft has next waits, if it may be a commit index without entries. The first request of a stream does not wait.
    fn holds_until(&self) -> Option<Instant> {
        let until = match self.owed.is_empty() {
            true if self.waiting.is_urgent() => return None,
            true => self.idle_until,
            false => self.hold_until,
        };
        let is_at_end = *self.log_end.borrow() <= self.asked_to.map(|id| id.index());
        let waits = is_at_end && Instant::now() < until;
        (waits && !mutant::on("late-acknowledgement-counted")).then_some(until)
    }

    /// Whether another request may be sent, but for the append in flight that it should wait for.
    fn has_room(&self) -> bool {
        self.owed.len() < WINDOW && self.owed_bytes < WINDOW_BYTES
    }

    /// Until when what openraft has next waits for the answer to an append.
    fn batches_until(&self) -> Option<Instant> {
        let is_owed = self.owed.iter().any(|owed| owed.bytes > 0);
        (is_owed && Instant::now() < self.batch_until).then_some(self.batch_until)
    }

    async fn step(&mut self) -> Step {
        let (wanted, owes) = (self.input.is_some() && self.has_room(), !self.owed.is_empty());
        let (batched, held) = (self.batches_until(), self.holds_until());
        let (waits, until) = (batched.or(held).is_some(), batched.or(held).unwrap_or(self.due));
        let Exchange { input, pipe, log_end, waiting, .. } = self;
        tokio::select! {
            biased;
            // Polled also while no answer is pending: a lost connection shows here first.
            answer = pipe.answers.message() => Step::Answered(answer),
            rpc = async { match input { Some(input) => input.next().await, None => None } }, if wanted && !waits => Step::Asked(rpc),
            Ok(()) = log_end.changed(), if wanted && held.is_some() && batched.is_none() => Step::Again,
            Ok(()) = waiting.reading.changed(), if wanted && held.is_some() && batched.is_none() => Step::Again,
            () = tokio::time::sleep_until(until), if wanted && waits => Step::Again,
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
