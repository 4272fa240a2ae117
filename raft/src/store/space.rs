//! Disk space: how much is free, and which writes are still accepted.
//!
//! A store that fills its disk cannot even delete. So growth is refused while there is still room for everything else:
//!
//! | level | when | refused before append |
//! |---|---|---|
//! | ample | | nothing |
//! | low | less free than `low`, or the state beyond its quota | new keys, and values that grow by more than [`GROWTH_BYTES`] |
//! | full | less free than a quarter of that, or the state a tenth beyond its quota | every put, and leases |
//!
//! Deletes, compaction, revocation and changes of members pass at every level; at *low* so do overwrites, without which
//! Kubernetes can neither delete a pod (it is marked first) nor keep its nodes alive, and which compaction takes back.
//! If other programs fill the disk to the last byte, a reserve file is released piece by piece, so that the engines can go on writing.
//! All of it ends by itself when there is space again: nothing has to be disarmed.
//!
//! The level is this member's own. A leader that runs low hands over to a member that does not (see `upkeep`).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use prost::Message;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tokio::sync::watch;
use trireme_proto::etcd::{self, request_op::Request};
use trireme_proto::store;
use trireme_proto::store::command::Body;

use super::options::Upkeep;
use crate::error::StoreError;
use crate::mvcc::StateMachine;

/// By how much an overwritten value may grow when space is low.
const GROWTH_BYTES: usize = 4096;
/// What a byte of command takes on disk before it is compacted away, at worst: log, table, tables being merged.
const AMPLIFICATION: i64 = 4;
/// The reserve is released in this many pieces.
const RESERVE_PIECES: u64 = 4;

/// How much space there is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum SpaceLevel {
    /// Enough.
    #[default]
    Ample,
    /// New keys are refused.
    Low,
    /// Everything but deletes and upkeep is refused.
    Full,
}

/// The space of one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceStatus {
    /// What follows from the figures below.
    pub level: SpaceLevel,
    /// Free on the disk.
    pub free_bytes: u64,
    /// Growth is refused with less than this free.
    pub low_bytes: u64,
    /// The state on disk.
    pub size_bytes: u64,
    /// What it may take.
    pub quota_bytes: u64,
    /// What is left of the reserve.
    pub reserve_bytes: u64,
}

/// The watch over one member's space.
pub(crate) struct Space {
    directory: PathBuf,
    reserve: PathBuf,
    low_bytes: u64,
    quota_bytes: u64,
    reserve_bytes: u64,
    /// How much may be proposed before the disk is looked at again.
    allowance: AtomicI64,
    status: watch::Sender<SpaceStatus>,
}

/// What is free and what there is in all.
struct Disk {
    free: u64,
    total: u64,
}

// === impl SpaceStatus ===

impl SpaceStatus {
    /// Why writes are refused, in words.
    #[must_use]
    pub fn reason(&self) -> String {
        let mib = |bytes: u64| bytes / (1 << 20);
        match self.size_bytes >= self.quota_bytes {
            true => format!("database space exceeded: {} MiB of a quota of {} MiB", mib(self.size_bytes), mib(self.quota_bytes)),
            false => format!("the disk has {} MiB free, less than the {} MiB kept for upkeep", mib(self.free_bytes), mib(self.low_bytes)),
        }
    }
}

// === impl Space ===

impl Space {
    /// Begins to watch the disk of the store's folder.
    pub(crate) fn new(directory: &Path, upkeep: &Upkeep) -> Space {
        let total = disk(directory).map_or(0, |disk| disk.total);
        let low_bytes = upkeep.low_bytes.unwrap_or_else(|| (total / 50).clamp(16 << 20, 256 << 20));
        Space {
            directory: directory.to_owned(),
            reserve: directory.join(super::datadir::RESERVE),
            low_bytes,
            quota_bytes: upkeep.quota_bytes,
            reserve_bytes: upkeep.reserve_bytes,
            allowance: AtomicI64::new(0),
            status: watch::Sender::default(),
        }
    }

    pub(crate) fn status(&self) -> watch::Receiver<SpaceStatus> {
        self.status.subscribe()
    }

    pub(crate) fn level(&self) -> SpaceLevel {
        self.status.borrow().level
    }

    /// Measures the disk, and releases the reserve file or makes it again.
    pub(crate) fn look(&self, size_bytes: u64) -> SpaceStatus {
        let Ok(found) = disk(&self.directory) else { return *self.status.borrow() };
        let held = std::fs::metadata(&self.reserve).map_or(0, |meta| meta.len());
        let before = self.level();
        let level = self.judge(before, found.free + held, size_bytes);
        let held = self.keep_reserve(level, found.free, held);
        let status = SpaceStatus {
            level,
            free_bytes: found.free,
            low_bytes: self.low_bytes,
            size_bytes,
            quota_bytes: self.quota_bytes,
            reserve_bytes: held,
        };
        let room = found.free.saturating_sub(self.low_bytes).min(self.quota_bytes.saturating_sub(size_bytes));
        self.allowance.store(i64::try_from(room / 2).unwrap_or(i64::MAX), Ordering::Relaxed);
        if level != before {
            match level {
                SpaceLevel::Ample => tracing::info!(free_bytes = found.free, size_bytes, "there is space again: all writes are accepted"),
                SpaceLevel::Low => tracing::warn!(reason = status.reason(), "space is low: what makes the store larger is refused"),
                SpaceLevel::Full => tracing::error!(reason = status.reason(), "no space left: only deletes and compaction are accepted"),
            }
        }
        self.status.send_if_modified(|current| {
            // Free bytes change with every write; subscribers wait for the level.
            let changed = current.level != status.level;
            *current = status;
            changed
        });
        status
    }

    /// `free` counts what the reserve holds: releasing it must not look like a recovery.
    fn judge(&self, before: SpaceLevel, free: u64, size: u64) -> SpaceLevel {
        let free = free.saturating_sub(self.reserve_bytes);
        let (low, quota) = (self.low_bytes, self.quota_bytes);
        // A level is left only with a margin, so that it does not change with each write.
        let (low, quota) = match before {
            SpaceLevel::Ample => (low, quota),
            SpaceLevel::Low | SpaceLevel::Full => (low + low / 4, quota - quota / 20),
        };
        if free < low / 4 || size >= quota.saturating_add(quota / 10) {
            SpaceLevel::Full
        } else if free < low || size >= quota {
            SpaceLevel::Low
        } else {
            SpaceLevel::Ample
        }
    }

    /// Returns what the reserve holds afterwards.
    fn keep_reserve(&self, level: SpaceLevel, free: u64, held: u64) -> u64 {
        let result = if held > 0 && free < self.low_bytes / 4 {
            shrink(&self.reserve, held.saturating_sub(self.reserve_bytes.div_ceil(RESERVE_PIECES)))
        } else if held < self.reserve_bytes && level == SpaceLevel::Ample {
            allocate(&self.reserve, self.reserve_bytes)
        } else {
            Ok(held)
        };
        result.unwrap_or_else(|error| {
            tracing::debug!(%error, path = %self.reserve.display(), "the reserve is not as it should be");
            held
        })
    }

    /// Whether an encoded command may be appended; the reason where it may not.
    pub(crate) fn admit(&self, command: &Bytes, state: &StateMachine) -> Result<(), String> {
        let cost = i64::try_from(command.len()).unwrap_or(i64::MAX).saturating_mul(AMPLIFICATION);
        if self.allowance.fetch_sub(cost, Ordering::Relaxed) < cost {
            self.look(state.size_bytes());
        }
        let level = self.level();
        if level == SpaceLevel::Ample {
            return Ok(());
        }
        // A command that cannot be decoded is not refused here.
        let Ok(store::Command { body: Some(body), .. }) = store::Command::decode(command.clone()) else { return Ok(()) };
        let grows = match &body {
            Body::Txn(txn) => puts(txn).any(|put| level == SpaceLevel::Full || enlarges(put, state)),
            Body::LeaseGrant(_) | Body::SealedPut(_) => level == SpaceLevel::Full,
            _ => false,
        };
        if grows { Err(self.status.borrow().reason()) } else { Ok(()) }
    }
}

/// Every put of a transaction, on either branch and nested.
fn puts(txn: &etcd::TxnRequest) -> Box<dyn Iterator<Item = &etcd::PutRequest> + '_> {
    let requests = txn.success.iter().chain(&txn.failure).filter_map(|op| op.request.as_ref());
    Box::new(requests.flat_map(|request| match request {
        Request::RequestPut(put) => Box::new(std::iter::once(put)) as Box<dyn Iterator<Item = &etcd::PutRequest> + '_>,
        Request::RequestTxn(txn) => puts(txn),
        Request::RequestRange(_) | Request::RequestDeleteRange(_) => Box::new(std::iter::empty()),
    }))
}

/// Whether a put makes the state larger by more than compaction will take back.
fn enlarges(put: &etcd::PutRequest, state: &StateMachine) -> bool {
    if put.ignore_value {
        return false;
    }
    let request = etcd::RangeRequest { key: put.key.clone(), ..Default::default() };
    match state.range(&request).map(|found| found.kvs.into_iter().next()) {
        Ok(Some(kv)) => put.value.len() > kv.value.len() + GROWTH_BYTES,
        Ok(None) | Err(_) => true,
    }
}

fn disk(path: &Path) -> Result<Disk, StoreError> {
    let stat = rustix::fs::statvfs(path).map_err(|error| StoreError::io(path.display(), error))?;
    Ok(Disk { free: stat.f_frsize * stat.f_bavail, total: stat.f_frsize * stat.f_blocks })
}

fn shrink(path: &Path, length: u64) -> io::Result<u64> {
    match length {
        0 => std::fs::remove_file(path)?,
        length => File::options().write(true).open(path)?.set_len(length)?,
    }
    Ok(length)
}

fn allocate(path: &Path, length: u64) -> io::Result<u64> {
    let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
    let allocated = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length) {
        // Not every file system supports this; there the blocks are written.
        Err(Errno::OPNOTSUPP | Errno::INVAL) => write_zeros(&mut file, length),
        result => result.map_err(io::Error::from),
    };
    if allocated.is_err() {
        drop(file);
        std::fs::remove_file(path)?;
    }
    allocated.map(|()| length)
}

fn write_zeros(file: &mut File, length: u64) -> io::Result<()> {
    let block = [0; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let piece = left.min(block.len() as u64);
        file.write_all(&block[..piece as usize])?;
        left -= piece;
    }
    Ok(())
}
