//! The next segment, made before it is needed, and the segments that are not needed any more. The work is done by a thread that lives as long as
//! it takes: making a segment writes all of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::segment::{self, Segment};
use crate::StoreError;

/// After a failure the next segment is not tried again for so long, unless it is needed.
const PAUSE: Duration = Duration::from_secs(5);
/// A segment that is made ahead leaves so much of the disk to others.
const LEFT_BYTES: u64 = 16 << 20;

/// See the module.
pub(super) struct Spare {
    folder: PathBuf,
    ready: Option<Segment>,
    /// Oldest first. They go in this order: what a crash leaves has no gap.
    dead: Vec<Arc<Segment>>,
    work: Option<JoinHandle<Result<Option<Segment>, StoreError>>>,
    not_before: Option<Instant>,
}

// === impl Spare ===

impl Spare {
    pub(super) fn new(folder: PathBuf, ready: Option<Segment>) -> Spare {
        Spare { folder, ready, dead: Vec::new(), work: None, not_before: None }
    }

    /// Begins to make segment `id`, unless that has been begun or done.
    pub(super) fn prepare(&mut self, id: u64, file_bytes: u64) {
        if self.work.as_ref().is_some_and(JoinHandle::is_finished) {
            self.collect();
        }
        if self.ready.is_none() && self.not_before.is_none_or(|at| Instant::now() >= at) {
            self.begin(Some((id, file_bytes)));
        }
    }

    /// The empty segment `id` of `file_bytes`, or of as much as the disk has room for, but at least `least`.
    ///
    /// # Errors
    /// `NoSpace` or `Io`: it was not there and cannot be made.
    pub(super) fn take(&mut self, id: u64, file_bytes: u64, least: u64) -> Result<Segment, StoreError> {
        self.collect();
        match self.ready.take() {
            Some(ready) if ready.id == id && ready.file_bytes >= least => return Ok(ready),
            Some(unfit) => remove(&unfit.path)?,
            None => {}
        }
        let mut size = file_bytes.max(least);
        loop {
            match segment::make(&self.folder, id, size) {
                Err(StoreError::NoSpace) if size > least => size = (size / 2).max(least),
                made => return made,
            }
        }
    }

    /// Adds segments without live entries. One of them may become the next spare; the others are removed.
    pub(super) fn add_dead(&mut self, dead: impl Iterator<Item = Arc<Segment>>) {
        self.dead.extend(dead);
        if self.dead.len() > 1 {
            self.begin(None);
        }
    }

    /// Removes every dead segment before it returns.
    pub(super) fn remove_dead(&mut self) {
        self.collect();
        self.begin(None);
        self.collect();
    }

    /// Starts the work, unless some is going on.
    fn begin(&mut self, make: Option<(u64, u64)>) {
        if self.work.is_some() {
            return;
        }
        let (folder, dead) = (self.folder.clone(), std::mem::take(&mut self.dead));
        let work = move || work(&folder, dead, make);
        match std::thread::Builder::new().name("trireme-segment".into()).spawn(work) {
            Ok(handle) => self.work = Some(handle),
            // The segment is made when it is needed, and the dead ones are found when the log is opened.
            Err(error) => tracing::warn!(%error, "no thread for the log's segments"),
        }
    }

    /// Waits for the work that is going on.
    fn collect(&mut self) {
        let Some(work) = self.work.take() else { return };
        match work.join() {
            Ok(Ok(made)) => {
                self.ready = self.ready.take().or(made);
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "the log's next segment is not ready"),
            Err(_) => tracing::warn!("the log's next segment is not ready: its thread panicked"),
        }
        self.not_before = Some(Instant::now() + PAUSE);
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.collect();
    }
}

/// Removes the dead segments, all but one where a segment of its size is to be made.
fn work(folder: &Path, dead: Vec<Arc<Segment>>, make: Option<(u64, u64)>) -> Result<Option<Segment>, StoreError> {
    let mut dead = dead.into_iter();
    // A view may still read from it: then its file is not written again.
    let used = make.and_then(|(_, file_bytes)| {
        let first = dead.next()?;
        match Arc::try_unwrap(first) {
            Ok(segment) if segment.file_bytes == file_bytes => Some(Ok(segment)),
            Ok(segment) => Some(Err(segment.path.clone())),
            Err(shared) => Some(Err(shared.path.clone())),
        }
    });
    let used = match used {
        Some(Ok(segment)) => Some(segment),
        Some(Err(path)) => {
            remove(&path)?;
            None
        }
        None => None,
    };
    let made = make.map(|(id, file_bytes)| make_ahead(folder, id, file_bytes, used)).transpose();
    for segment in dead {
        remove(&segment.path)?;
    }
    made
}

/// Makes a segment unless others would be left without space.
fn make_ahead(folder: &Path, id: u64, file_bytes: u64, used: Option<Segment>) -> Result<Segment, StoreError> {
    if used.is_none() {
        let stat = rustix::fs::statvfs(folder).map_err(|error| StoreError::io(folder.display(), error))?;
        if stat.f_frsize * stat.f_bavail < file_bytes + LEFT_BYTES {
            return Err(StoreError::NoSpace);
        }
    }
    segment::make_from(folder, id, file_bytes, used)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    crate::snapshot::remove_if_present(path).map_err(|error| StoreError::io(path.display(), error))
}
