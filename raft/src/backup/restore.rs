//! A state made of an archive: a new cluster of one, or a copy that only proves that the archive is good.

use std::io::Read;
use std::path::Path;

use trireme_proto::store::BackupTrailer;

use super::{BackupReader, BackupSummary, Tally};
use crate::bootstrap;
use crate::engine::{Durability, Engine, WriteBatch};
use crate::error::StoreError;
use crate::mvcc::{EntryId, NewCluster, records};
use crate::store::datadir::DataDir;
use crate::store::options::Engines;

/// A restored store.
#[derive(Clone, PartialEq, Debug)]
pub struct Restored {
    /// The cluster that it is now.
    pub cluster: NewCluster,
    /// What came out of the archive.
    pub summary: BackupSummary,
}

/// Makes the folder of a store, a cluster of one, out of an archive. `directory` must be empty or missing; a folder
/// that an error or a crash left behind has no member file and is to be removed.
///
/// # Errors
/// `Corrupt` for a damaged archive, `Invalid` for a folder that is in use, those of the engine.
pub fn restore<R: Read>(archive: BackupReader<R>, engines: &dyn Engines, directory: &Path) -> Result<Restored, StoreError> {
    let (data_dir, member) = DataDir::open(directory)?;
    if member.is_some() {
        return Err(StoreError::Invalid(format!("{} has a store in it; give an empty directory", directory.display())));
    }
    let applied = archive.header().applied.unwrap_or_default();
    let (_, state) = data_dir.state()?;
    let engine = engines.open_state(&state)?;
    let summary = load(archive, engine.as_ref())?;
    let cluster =
        bootstrap::bootstrap_over(engines, &data_dir, engine, EntryId { term: applied.term, index: applied.index }, &mut |_| Ok(()))?;
    Ok(Restored { cluster, summary })
}

/// Restores an archive into `directory`, a new one, compares what is there then with what the archive says, and returns
/// what is in it. The folder is the caller's to remove.
///
/// # Errors
/// `Corrupt` for an archive that cannot be restored.
pub fn verify<R: Read>(archive: BackupReader<R>, engines: &dyn Engines, directory: &Path) -> Result<BackupSummary, StoreError> {
    load(archive, engines.open_state(directory)?.as_ref())
}

/// Writes the archive's records into an empty engine, then reads them back.
fn load<R: Read>(mut archive: BackupReader<R>, engine: &dyn Engine) -> Result<BackupSummary, StoreError> {
    let mut head = WriteBatch::new();
    records::put_head_of(&mut head, archive.header());
    engine.write(head, Durability::Buffered)?;
    while let Some(chunk) = archive.next_records()? {
        let mut batch = WriteBatch::new();
        for record in chunk {
            records::put(&mut batch, record)?;
        }
        engine.write(batch, Durability::Buffered)?;
    }
    engine.flush()?;
    let summary = archive.summary()?;
    let found = tally(engine)?;
    match BackupSummary::new(summary.revision, &found) == summary {
        true => Ok(summary),
        false => Err(StoreError::Corrupt(format!(
            "what was restored is not what the snapshot holds: {} keys for {}, {} leases for {}",
            found.keys, summary.keys, found.leases, summary.leases
        ))),
    }
}

fn tally(engine: &dyn Engine) -> Result<BackupTrailer, StoreError> {
    let view = engine.view();
    let mut tally = Tally::default();
    records::each(view.as_ref(), &mut |record| {
        tally.count(&record);
        Ok(true)
    })?;
    Ok(tally.trailer())
}
