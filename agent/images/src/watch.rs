//! The folder, and what appears in it: by inotify, never by looking again.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::io::unix::AsyncFd;

use crate::is_tarball;

/// A folder that is looked after.
pub(crate) struct Folder {
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
    /// Makes it if it is missing. What appears from now on is told by [`Folder::changed`].
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let events = watch(path).inspect_err(|error| {
            tracing::error!("image tarballs that appear in {} are seen at the next start only: {error}", path.display())
        });
        Ok(Self { path: path.to_owned(), events: events.ok() })
    }

    /// All tarballs, in the order of their names.
    pub(crate) fn scan(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_file() && concerns_us(path)).collect()
    }

    /// Waits for tarballs to appear or change.
    pub(crate) async fn changed(&self) -> BTreeSet<PathBuf> {
        let Some(events) = &self.events else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
            let events = match ready.get_inner().0.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(error) => {
                    tracing::error!("image tarballs in {}: watching failed: {error}", self.path.display());
                    return std::future::pending().await;
                }
            };
            if events.iter().any(|e| e.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)) {
                return self.scan();
            }
            let written = |mask: AddWatchFlags| mask.intersects(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO);
            let changed = events.into_iter().filter_map(|event| {
                let path = self.path.join(event.name?);
                let complete = written(event.mask) || is_link(&path);
                (complete && path.is_file() && concerns_us(&path)).then_some(path)
            });
            let changed: BTreeSet<PathBuf> = changed.collect();
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    // A file is complete when its writer closes it or moves it here; a link is from the beginning.
    inotify.add_watch(path, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE)?;
    // Its successor is `unsafe`: the caller guarantees that the descriptor outlives it. Here the descriptor is owned, and private.
    #[allow(deprecated)]
    AsyncFd::new(Watch(inotify))
}

/// Whether a file is a tarball. Other files are logged, so that their owner sees why they are not imported.
fn concerns_us(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    if !is_tarball(path) && !hidden {
        tracing::warn!("{} is passed over: image tarballs are named .tar, .tar.gz or .tgz", path.display());
    }
    is_tarball(path)
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink() || m.nlink() > 1)
}
