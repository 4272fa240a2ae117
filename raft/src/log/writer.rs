//! The one thread that writes the log: it batches the queued operations, syncs once, then reports to every caller.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::{Shared, record};
use crate::engine::{Durability, Table, WriteBatch};
use crate::error::StoreError;
use crate::mutant;
use crate::types::{LogId, TypeConfig, Vote};

/// Operations that one sync may serve.
const BATCH_OPS: usize = 1024;

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// One write, in the order openraft asked for it.
pub(super) enum Op {
    Append { records: Vec<(u64, Bytes)>, callback: IOFlushed<TypeConfig> },
    Vote { vote: Vote, reply: Reply },
    Truncate { from: u64, reply: Reply },
    Purge { upto: LogId },
    Stop,
}

/// Writes what is queued, round by round.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The first write that failed.
    failed: Option<StoreError>,
    /// The commit mark that was written last.
    noted: Option<LogId>,
    /// Whether that mark is stored under the key of an earlier release.
    noted_by_old: bool,
    /// Where the log ends in the engine when the round has been written.
    end: Option<u64>,
}

/// What one sync serves.
struct Round {
    batch: WriteBatch,
    done: Vec<Done>,
    durability: Durability,
    stop: bool,
}

/// The callbacks to run when a batch is on disk.
enum Done {
    Append(u64, IOFlushed<TypeConfig>),
    Vote(Vote, Reply),
    Truncate(u64, Reply),
}

// === impl Writer ===

impl Writer {
    /// Must be called before anything is queued.
    pub(super) fn new(shared: Arc<Shared>) -> Writer {
        let (noted, noted_by_old, end) = {
            let index = shared.index.read();
            (index.committed, index.has_old_mark, index.end())
        };
        Writer { shared, failed: None, noted, noted_by_old, end }
    }

    /// Runs until the last handle of the log is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Op>) {
        while let Some(first) = queue.blocking_recv() {
            let round = self.gather(first, &mut queue);
            if self.finish(round) {
                return;
            }
        }
    }

    /// The same as a task, where the engine says how long a sync takes. More is queued and committed meanwhile, as it is while a
    /// thread waits for its turn.
    pub(super) async fn run_on_task(mut self, mut queue: mpsc::Receiver<Op>) {
        while let Some(first) = queue.recv().await {
            let round = self.gather(first, &mut queue);
            if round.durability == Durability::Synced {
                tokio::time::sleep(self.shared.engine.sync_delay()).await;
            }
            if self.finish(round) {
                return;
            }
        }
    }

    /// What has queued up.
    fn gather(&mut self, first: Op, queue: &mut mpsc::Receiver<Op>) -> Round {
        let mut round = Round { batch: WriteBatch::new(), done: Vec::new(), durability: Durability::Buffered, stop: false };
        let mut next = Some(first);
        let mut count = 0;
        while let Some(op) = next {
            round.stage(op, &mut self.end);
            count += 1;
            next = if count < BATCH_OPS && !round.stop { queue.try_recv().ok() } else { None };
        }
        round
    }

    /// Writes a round and reports the result to every caller. Returns true if it was the last round.
    fn finish(&mut self, mut round: Round) -> bool {
        self.note_committed(&mut round.batch);
        // The first failed write poisons the log: after a failed fsync the content of the disk is unknown (D10).
        let result = match self.failed.as_ref() {
            Some(error) => Err(error.clone()),
            None if round.batch.is_empty() => Ok(()),
            None => self.shared.engine.write(round.batch, round.durability),
        };
        if let (Err(error), None) = (&result, &self.failed) {
            tracing::error!(%error, "the log cannot be written; this Raft instance ends");
            self.failed = Some(error.clone());
        }
        if mutant::on("sync-failure-ignored") && self.failed.take().is_some() {
            report(&self.shared, round.done, &Ok(()));
            return round.stop;
        }
        report(&self.shared, round.done, &result);
        round.stop
    }

    /// Adds the commit mark to the round's batch if it has moved. The commit index may name an entry that is still queued here, because
    /// a majority of other members has it on disk; the mark is then written with a later round.
    fn note_committed(&mut self, batch: &mut WriteBatch) {
        let committed = self.shared.index.read().committed;
        let Some(mark) = committed.filter(|_| committed != self.noted) else { return };
        if Some(mark.index()) > self.end && !mutant::on("mark-ahead-of-log") {
            return;
        }
        batch.put(Table::LogMeta, record::COMMITTED, record::encode_mark(&mark));
        if std::mem::take(&mut self.noted_by_old) {
            batch.delete(Table::LogMeta, record::OLD_COMMITTED);
        }
        self.noted = committed;
    }
}

// === impl Round ===

impl Round {
    fn stage(&mut self, op: Op, end: &mut Option<u64>) {
        match op {
            Op::Append { records, callback } => {
                let last = records.last().map(|(index, _)| *index);
                for (index, bytes) in records {
                    self.batch.put(Table::Entry, &index.to_be_bytes(), bytes);
                }
                *end = last.or(*end);
                self.done.push(Done::Append(last.unwrap_or(0), callback));
                if !mutant::on("unsynced-append") {
                    self.durability = Durability::Synced;
                }
            }
            Op::Vote { vote, reply } => {
                self.batch.put(Table::LogMeta, record::VOTE, record::encode_vote(&vote));
                self.done.push(Done::Vote(vote, reply));
                if !mutant::on("unsynced-vote") {
                    self.durability = Durability::Synced;
                }
            }
            Op::Truncate { from, reply } => {
                self.batch.delete_range(Table::Entry, &from.to_be_bytes(), None);
                *end = (*end).min(from.checked_sub(1));
                self.done.push(Done::Truncate(from, reply));
                self.durability = Durability::Synced;
            }
            Op::Purge { upto } => {
                // Losing a purge in a crash is harmless: the mark and the removal are lost together. The exception is a purge beyond the
                // end of the log: then only a snapshot explains the gap, and that snapshot may be replaced.
                if Some(upto.index()) > *end {
                    self.durability = Durability::Synced;
                }
                let after = (upto.index() + 1).to_be_bytes();
                self.batch.delete_range(Table::Entry, &[], Some(&after));
                self.batch.put(Table::LogMeta, record::PURGED, record::encode_mark(&upto));
                *end = (*end).max(Some(upto.index()));
            }
            Op::Stop => self.stop = true,
        }
    }
}

fn report(shared: &Shared, done: Vec<Done>, result: &Result<(), StoreError>) {
    if result.is_ok() {
        let mut index = shared.index.write();
        for item in &done {
            match item {
                Done::Append(last, _) => index.written = index.written.max(*last),
                Done::Vote(vote, _) => index.vote = Some(*vote),
                // openraft waits for this before it appends again, so nothing newer is lowered here.
                Done::Truncate(from, _) => index.written = index.written.min(from.saturating_sub(1)),
            }
        }
        shared.synced.store(index.written, Ordering::Relaxed);
        index.shrink();
    }
    for item in done {
        match item {
            Done::Append(_, callback) => callback.io_completed(result.clone().map_err(std::io::Error::from)),
            Done::Vote(_, reply) | Done::Truncate(_, reply) => {
                // The receiver may have been dropped; the write is valid all the same.
                let _ = reply.send(result.clone());
            }
        }
    }
}
