//! The state as a stream of frames, made on a blocking thread from one view.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use trireme_proto::store::{BackupChunk, BackupHeader, BackupNote, BackupRecord, BackupTrailer, FORMAT_BACKUP, backup_frame::Frame};

use super::{BackupSummary, CHUNK_BYTES, MAGIC, Tally, encode, frame};
use crate::engine::{Engine, Read};
use crate::error::StoreError;
use crate::mvcc::records;
use crate::types::{decode_stored_membership, membership_to_proto};

/// Frames made ahead of the consumer: with [`CHUNK_BYTES`], about a mebibyte.
const AHEAD: usize = 4;

/// A backup that is being made. Dropping it ends the work.
pub struct Backup {
    header: BackupHeader,
    pieces: mpsc::Receiver<Result<Bytes, StoreError>>,
    summary: oneshot::Receiver<BackupSummary>,
}

/// The member that makes a backup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// Its release.
    pub(crate) version: String,
    /// Its name.
    pub(crate) member_name: String,
    /// Notes that are stored beside the state.
    pub(crate) notes: Vec<BackupNote>,
}

/// Begins a backup of what `engine` holds now.
pub(crate) async fn stream(engine: Arc<dyn Engine>, origin: Origin) -> Result<Backup, StoreError> {
    let (pieces, receiver) = mpsc::channel(AHEAD);
    let (opened, header) = oneshot::channel();
    let (done, summary) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut opened = Some(opened);
        let mut done = Some(done);
        // False: the consumer is gone.
        let mut sink = |event: Event| match event {
            Event::Header(header) => opened.take().is_some_and(|opened| opened.send(Ok(*header)).is_ok()),
            Event::Piece(bytes) => pieces.blocking_send(Ok(bytes)).is_ok(),
            Event::Done(summary) => done.take().is_some_and(|done| done.send(summary).is_ok()),
        };
        if let Err(error) = write(engine.as_ref(), &origin, &mut sink) {
            match opened.take() {
                Some(opened) => drop(opened.send(Err(error))),
                None => drop(pieces.blocking_send(Err(error))),
            }
        }
    });
    let header = header.await.map_err(|_| StoreError::Io("the backup ended before it began".into()))??;
    Ok(Backup { header, pieces: receiver, summary })
}

enum Event {
    Header(Box<BackupHeader>),
    Piece(Bytes),
    Done(BackupSummary),
}

/// Encodes frames, hashes them, and hands them on.
struct Sink<'a> {
    archive: Sha256,
    take: &'a mut dyn FnMut(Event) -> bool,
}

// === impl Sink ===

impl Sink<'_> {
    fn piece(&mut self, bytes: Bytes) -> bool {
        self.archive.update(&bytes);
        (self.take)(Event::Piece(bytes))
    }

    fn frame(&mut self, content: Frame) -> Result<bool, StoreError> {
        Ok(self.piece(encode(&frame(content))?))
    }
}

/// Hands the archive to `take` in pieces, until it returns false.
fn write(engine: &dyn Engine, origin: &Origin, take: &mut dyn FnMut(Event) -> bool) -> Result<(), StoreError> {
    let view = engine.view();
    let header = describe(view.as_ref(), origin)?;
    let revision = header.revision;
    if !take(Event::Header(Box::new(header.clone()))) {
        return Ok(());
    }
    let mut sink = Sink { archive: Sha256::new(), take };
    if !sink.piece(Bytes::from_static(MAGIC)) || !sink.frame(Frame::Header(header))? {
        return Ok(());
    }
    let mut tally = Tally::default();
    let mut chunk = Chunk::default();
    let complete = records::each(view.as_ref(), &mut |record| {
        tally.count(&record);
        match chunk.push(record) {
            Some(full) => {
                tally.trailer.chunks += 1;
                sink.frame(Frame::Chunk(full))
            }
            None => Ok(true),
        }
    })?;
    if !complete {
        return Ok(());
    }
    if let Some(rest) = chunk.take() {
        tally.trailer.chunks += 1;
        if !sink.frame(Frame::Chunk(rest))? {
            return Ok(());
        }
    }
    let archive_sha256 = Bytes::copy_from_slice(&sink.archive.clone().finalize());
    let trailer = BackupTrailer { archive_sha256, ..tally.trailer() };
    let summary = BackupSummary::new(revision, &trailer);
    if sink.frame(Frame::Trailer(trailer))? {
        (sink.take)(Event::Done(summary));
    }
    Ok(())
}

fn describe(view: &dyn Read, origin: &Origin) -> Result<BackupHeader, StoreError> {
    let head = records::head(view)?;
    let membership = decode_stored_membership(&head.membership)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(BackupHeader {
        format: FORMAT_BACKUP,
        cluster_id: head.cluster_id,
        revision: head.revision,
        applied: head.last_applied,
        feature_level: head.feature_level,
        members: membership_to_proto(membership.membership()).members,
        version: origin.version.clone(),
        member_name: origin.member_name.clone(),
        // For display, and for the order of a list of backups.
        created_unix_ms: now.map_or(0, |now| now.as_millis() as u64),
        sealed: records::sealed(view)?,
        notes: origin.notes.clone(),
        next_member_id: head.next_member_id,
        next_lease_generation: head.next_lease_generation,
        epoch: head.epoch,
        state_format: head.format,
    })
}

/// Records that are collected until they fill a frame.
#[derive(Default)]
struct Chunk {
    records: Vec<BackupRecord>,
    bytes: usize,
}

// === impl Chunk ===

impl Chunk {
    fn push(&mut self, record: BackupRecord) -> Option<BackupChunk> {
        let size = record.encoded_len();
        // A large record has a frame of its own: together with others it might exceed the frame limit.
        let before = if self.bytes + size > CHUNK_BYTES { self.take() } else { None };
        self.bytes += size;
        self.records.push(record);
        before
    }

    fn take(&mut self) -> Option<BackupChunk> {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        (!records.is_empty()).then_some(BackupChunk { records })
    }
}

// === impl Backup ===

impl Backup {
    /// The header: where the state comes from, and its revision.
    #[must_use]
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// The next bytes of the archive; none when it is complete.
    ///
    /// # Errors
    /// Those of the engine. The archive is useless then.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        self.pieces.recv().await
    }

    /// Writes the whole archive to `sink` and returns its summary. The caller makes the archive durable.
    ///
    /// # Errors
    /// `Io` where the sink fails, or those of the engine.
    pub async fn write_to(mut self, sink: &mut (impl AsyncWrite + Unpin)) -> Result<BackupSummary, StoreError> {
        while let Some(piece) = self.next().await {
            sink.write_all(&piece?).await.map_err(|error| super::io_error(&error))?;
        }
        sink.flush().await.map_err(|error| super::io_error(&error))?;
        self.summary.await.map_err(|_| StoreError::Io("the backup ended before its end".into()))
    }
}
