//! The folder of manifests: what lies in it, and when that changes.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::io::unix::AsyncFd;

/// Files that are read; the others are named in the log.
const FILES_MAX: usize = 500;
/// Bytes of one manifest: upstream's bound for one that it fetches.
const BYTES_MAX: u64 = 10 << 20;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manifest {
    Text(Vec<u8>),
    Unreadable(String),
}

/// A folder that is watched.
pub(super) struct Folder {
    path: PathBuf,
    /// None where the kernel gives no more watches.
    events: Option<AsyncFd<Watch>>,
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Folder {
    /// Makes it if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        let events =
            watch(path).inspect_err(|error| tracing::error!("changes of {} are seen at the next start only: {error}", path.display())).ok();
        Ok(Folder { path: path.to_owned(), events })
    }

    /// All files by name. Hidden ones are passed over: editors and tools write there first.
    pub(super) fn read(&self) -> BTreeMap<String, Manifest> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.'));
        let mut names: Vec<String> = names.filter(|name| self.path.join(name).is_file()).collect();
        names.sort();
        if names.len() > FILES_MAX {
            tracing::error!("{}: more than {FILES_MAX} manifests, those from {} on are passed over", self.path.display(), names[FILES_MAX]);
            names.truncate(FILES_MAX);
        }
        names.into_iter().map(|name| (name.clone(), read(&self.path.join(name)))).collect()
    }

    /// Waits until something in it changes.
    pub(super) async fn changed(&self) {
        let Some(events) = &self.events else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
            match ready.get_inner().0.read_events() {
                Ok(events) if !events.is_empty() => return,
                Ok(_) => {}
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => {
                    tracing::error!("{}: watching failed: {error}", self.path.display());
                    return std::future::pending().await;
                }
            }
        }
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let kinds = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_CREATE;
    inotify.add_watch(path, kinds)?;
    // Its successor is `unsafe`: the caller guarantees that the descriptor outlives it. Here the descriptor is owned, and private.
    #[allow(deprecated)]
    AsyncFd::new(Watch(inotify))
}

/// A file may be replaced by a pipe or a device between two looks: opening it must not block.
fn read(path: &Path) -> Manifest {
    let bytes = || {
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(io::Error::other(format!("larger than {BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    bytes().map_or_else(|error| Manifest::Unreadable(error.to_string()), Manifest::Text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_is_written_moved_and_removed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("manifests")).unwrap();
        let file = dir.path().join("manifests/a.yaml");
        assert!(folder.read().is_empty());
        fs::write(dir.path().join("a"), "one").unwrap();
        fs::rename(dir.path().join("a"), &file).unwrap();
        folder.changed().await;
        assert_eq!(folder.read(), [("a.yaml".to_owned(), Manifest::Text(b"one".to_vec()))].into());
        fs::write(dir.path().join("manifests/.swap"), "half").unwrap();
        fs::create_dir(dir.path().join("manifests/folder")).unwrap();
        assert_eq!(folder.read().len(), 1);
        fs::remove_file(&file).unwrap();
        folder.changed().await;
        assert!(folder.read().is_empty());
    }

    #[test]
    fn a_file_that_is_too_large_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder { path: dir.path().to_owned(), events: None };
        fs::File::create(dir.path().join("big")).unwrap().set_len(BYTES_MAX + 1).unwrap();
        assert_eq!(folder.read()["big"], Manifest::Unreadable(format!("larger than {BYTES_MAX} bytes")));
    }
}
