//! The store's folder: its owner, its layout, its lock.
//!
//! ```text
//! <dir>/LOCK        flock held while the store is open
//! <dir>/member      format, cluster id, node id, founding key (JSON, written once)
//! <dir>/log/        log engine
//! <dir>/state/      state engines by generation, and which one is current; may be rebuilt
//! <dir>/snapshot/   snapshots by number; the newest counts
//! <dir>/snapshots/  backups that were saved here; nothing of the store's own
//! <dir>/incoming/   snapshots that are being received or built; emptied at start
//! <dir>/reserve     space kept for bad times
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::snapshot::{remove_if_present, sync_ancestors, sync_dir};

/// Layout of the folder. A newer one is refused, an older one carried over: releases of format 1 kept the log in RocksDB.
const FORMAT: u32 = 2;
const OLDEST_FORMAT: u32 = 1;
const MEMBER: &str = "member";
const LOCK: &str = "LOCK";
/// A file that holds space for bad times; see [`super::space`].
pub(crate) const RESERVE: &str = "reserve";

/// The folder, locked.
pub(crate) struct DataDir {
    path: PathBuf,
    /// Numbers the folders below `incoming/`.
    incoming: AtomicU64,
    _lock: File,
}

/// The identity of the member whose folder this is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MemberFile {
    pub(crate) format: u32,
    #[serde(with = "hex_id")]
    pub(crate) cluster_id: u64,
    pub(crate) node_id: u64,
    /// This member founded the cluster, so it writes the first configuration.
    pub(crate) founder: bool,
    /// The join ticket, hexadecimal; empty for the founder.
    pub(crate) ticket: String,
    /// Has voted or followed: from then on an empty log is a lost one.
    #[serde(default)]
    pub(crate) started: bool,
    /// The cluster has removed it: it never starts again.
    #[serde(default)]
    pub(crate) removed: bool,
    /// Checksum over all of the above; none in files that the first release wrote.
    #[serde(default)]
    pub(crate) crc32c: Option<u32>,
}

impl MemberFile {
    fn crc(&self) -> u32 {
        let MemberFile { format, cluster_id, node_id, founder, ticket, started, removed, crc32c: _ } = self;
        crc32c::crc32c(format!("{format} {cluster_id:x} {node_id} {founder} {ticket} {started} {removed}").as_bytes())
    }
}

mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{id:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

// === impl DataDir ===

impl DataDir {
    /// Folder in which backups are kept, unless told otherwise. Not the store's own: it is left alone.
    pub(crate) const BACKUPS: &'static str = "snapshots";

    /// Creates the folder where it is missing, and locks it.
    ///
    /// # Errors
    /// `Invalid`, in one line, where it cannot be written, is in use, or belongs to another user.
    pub(crate) fn open(path: &Path) -> Result<(DataDir, Option<MemberFile>), StoreError> {
        let unusable = |error: io::Error| StoreError::Invalid(format!("data directory {} cannot be used: {error}", path.display()));
        fs::create_dir_all(path).map_err(unusable)?;
        let strange = fs::read_dir(path).map_err(unusable)?.filter_map(Result::ok).map(|entry| entry.file_name()).find(|name| {
            let known = ["LOCK", "member", "member.new", "log", "state", "snapshot", "incoming", DataDir::BACKUPS, RESERVE];
            !name.to_str().is_some_and(|name| known.contains(&name))
        });
        if let Some(strange) = strange {
            return Err(StoreError::Invalid(format!(
                "data directory {} is not Trireme's: it contains {strange:?}; give an empty directory",
                path.display()
            )));
        }
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(StoreError::Invalid(format!("data directory {} is in use by another process", path.display())));
            }
            Err(fs::TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let dir = DataDir { path: path.to_owned(), incoming: AtomicU64::new(0), _lock: lock };
        let member = dir.read_member()?;
        if member.is_none() && dir.log().exists() {
            return Err(dir.lost(StoreError::Corrupt("there is no member file beside it".into())));
        }
        if member.is_some() && !dir.log().exists() {
            return Err(dir.lost(StoreError::Corrupt("it is gone".into())));
        }
        if let Some(old) = member.as_ref().filter(|member| member.format < FORMAT) {
            // Before the log is touched: an earlier release would take what it cannot find for an empty log.
            dir.store_member(&MemberFile { format: FORMAT, ..old.clone() })?;
        }
        remove_if_present(&path.join("incoming")).map_err(unusable)?;
        fs::create_dir_all(path.join("incoming")).map_err(unusable)?;
        fs::create_dir_all(path.join("snapshot")).map_err(unusable)?;
        Ok((dir, member))
    }

    /// The member of a folder that is not open.
    pub(crate) fn member_in(path: &Path) -> Option<MemberFile> {
        serde_json::from_slice(&fs::read(path.join(MEMBER)).ok()?).ok()
    }

    fn read_member(&self) -> Result<Option<MemberFile>, StoreError> {
        let path = self.path.join(MEMBER);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(path.display(), error)),
        };
        let member: MemberFile =
            serde_json::from_slice(&bytes).map_err(|error| self.lost(StoreError::Corrupt(format!("member file: {error}"))))?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&member.format) {
            return Err(StoreError::Invalid(format!(
                "data directory {} has format {}, this release reads {OLDEST_FORMAT} to {FORMAT}",
                self.path.display(),
                member.format
            )));
        }
        // After the format: how another release counts its checksum is not known here.
        if member.crc32c.is_some_and(|crc| crc != member.crc()) {
            return Err(self.lost(StoreError::Corrupt("the member file fails its checksum".into())));
        }
        Ok(Some(member))
    }

    /// Writes the member file, after making the log's folder, so that the loss of the log can be told from a first start.
    pub(crate) fn write_member(&self, cluster_id: u64, node_id: u64, ticket: Option<&Bytes>) -> Result<MemberFile, StoreError> {
        let member = MemberFile {
            format: FORMAT,
            cluster_id,
            node_id,
            founder: ticket.is_none(),
            ticket: ticket.map(hex::encode).unwrap_or_default(),
            started: false,
            removed: false,
            crc32c: None,
        };
        self.store_member(&member)?;
        // If a power cut lost the folder, this server would count as one that has never been in any cluster.
        sync_ancestors(&self.path).map_err(|error| StoreError::io(self.path.display(), error))?;
        Ok(member)
    }

    /// Notes that the log is not empty any more.
    pub(crate) fn mark_started(&self) -> Result<(), StoreError> {
        match self.read_member()? {
            Some(member) if !member.started => self.store_member(&MemberFile { started: true, ..member }),
            _ => Ok(()),
        }
    }

    /// Notes that the cluster has removed this member.
    pub(crate) fn mark_removed(&self) -> Result<(), StoreError> {
        match self.read_member()? {
            Some(member) if !member.removed => self.store_member(&MemberFile { removed: true, ..member }),
            _ => Ok(()),
        }
    }

    fn store_member(&self, member: &MemberFile) -> Result<(), StoreError> {
        let write = || -> io::Result<()> {
            fs::create_dir_all(self.log())?;
            let new = self.path.join("member.new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&MemberFile { crc32c: Some(member.crc()), ..member.clone() })?)?;
            file.sync_all()?;
            fs::rename(&new, self.path.join(MEMBER))?;
            sync_dir(&self.path)
        };
        write().map_err(|error| StoreError::io(self.path.display(), error))
    }

    /// What a damaged log means: this member must not vote again (design D8). Other errors stay what they are.
    pub(crate) fn lost(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Corrupt(what) => StoreError::MustRejoin(format!(
                "the log in {} cannot be trusted ({what}): this member must not vote again under its id; \
                 it must be removed and rejoin with an empty directory",
                self.path.display()
            )),
            error => error,
        }
    }

    /// Folder of the log engine.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Folder of the current state engine, and its generation. Older generations are removed.
    ///
    /// An engine's folder is never replaced under it: a new state is a new generation.
    pub(crate) fn state(&self) -> Result<(u64, PathBuf), StoreError> {
        let base = self.path.join("state");
        let failed = |error: io::Error| StoreError::io(base.display(), error);
        fs::create_dir_all(&base).map_err(failed)?;
        let named: Option<u64> = match fs::read(base.join("current")) {
            Ok(bytes) => String::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
            Err(error) => return Err(failed(error)),
        };
        let entries = fs::read_dir(&base).map_err(failed)?.filter_map(Result::ok);
        let present: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let current = which_generation(named, &present);
        if named != Some(current) {
            tracing::warn!(?named, current, "the name of the current state is damaged");
            self.set_state_generation(current)?;
        }
        for other in present.into_iter().filter(|generation| *generation != current) {
            remove_if_present(&self.state_generation(other)).map_err(failed)?;
        }
        Ok((current, self.state_generation(current)))
    }

    /// Folder of one generation of the state.
    pub(crate) fn state_generation(&self, generation: u64) -> PathBuf {
        self.path.join("state").join(generation.to_string())
    }

    /// Makes `generation` the one that a restart opens.
    pub(crate) fn set_state_generation(&self, generation: u64) -> Result<(), StoreError> {
        let base = self.path.join("state");
        let write = || -> io::Result<()> {
            let new = base.join("current.new");
            let mut file = File::create(&new)?;
            file.write_all(generation.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, base.join("current"))?;
            sync_dir(&base)
        };
        write().map_err(|error| StoreError::io(base.display(), error))
    }

    /// Folder of the snapshots.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshot")
    }

    /// A fresh name for a snapshot in the making.
    pub(crate) fn incoming_snapshot(&self) -> PathBuf {
        self.path.join("incoming").join(self.incoming.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Whether the disk takes a write and syncs it.
    pub(crate) fn try_sync(&self) -> Result<(), StoreError> {
        let path = self.incoming_snapshot();
        let written = File::create(&path).and_then(|mut file| file.write_all(&[0; 4096]).and_then(|()| file.sync_all()));
        let removed = remove_if_present(&path);
        written.and(removed).map_err(|error| StoreError::io(path.display(), error))
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The generation to open. If the recorded name matches none of the existing generations, the record is damaged, and the oldest
/// generation is opened: it was complete before the next one was begun.
fn which_generation(named: Option<u64>, present: &[u64]) -> u64 {
    match (named, present.iter().min()) {
        (Some(named), _) if present.contains(&named) => named,
        (_, Some(oldest)) => *oldest,
        (named, None) => named.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_name_gives_no_state_up() {
        let cases: [(Option<u64>, &[u64], u64); 7] = [
            (Some(0), &[], 0),
            (Some(3), &[3], 3),
            (Some(3), &[4, 3], 3),
            (Some(7), &[3], 3),
            (None, &[3], 3),
            (None, &[5, 4], 4),
            (None, &[], 0),
        ];
        for (named, present, expected) in cases {
            assert_eq!(which_generation(named, present), expected, "{named:?} of {present:?}");
        }
    }
}
