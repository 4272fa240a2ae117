//! An image, mounted; its faults; and the power cut.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::fuse::Mounted;
use crate::image::Image;
use crate::survivors::{Loss, Survivors};

/// What such mounts are called in the list of mounts.
const NAME: &str = "trireme-unsynced";

/// What the mounted side and the handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) image: Mutex<Image>,
    pub(crate) sync_delay_ms: AtomicU64,
    pub(crate) syncs_fail: AtomicBool,
    pub(crate) syncs: AtomicU64,
}

/// A mounted disk; unmounted, and gone with all that was on it, when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

// === impl Disk ===

impl Disk {
    /// An empty one of so many bytes, mounted at a folder, which must be there.
    ///
    /// # Errors
    /// The folder is missing, or nothing can be mounted here: that takes root and `/dev/fuse`.
    pub fn mount(folder: &Path, capacity: u64) -> io::Result<Disk> {
        sweep();
        let shared = Arc::new(Shared {
            image: Mutex::new(Image::new(capacity)),
            sync_delay_ms: AtomicU64::new(0),
            syncs_fail: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        });
        let mut disk = Disk { folder: folder.to_owned(), shared, session: None };
        disk.attach()?;
        Ok(disk)
    }

    fn attach(&mut self) -> io::Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(NAME.into()), MountOption::DefaultPermissions, MountOption::NoAtime];
        let session = fuser::spawn_mount(Mounted::new(self.shared.clone()), &self.folder, &config);
        self.session = Some(session.map_err(|error| io::Error::new(error.kind(), format!("mount at {}: {error}", self.folder.display())))?);
        Ok(())
    }

    /// A power cut, when all processes that had files open here are dead. The same seed leaves the same of the same changes.
    ///
    /// # Errors
    /// Some process still has a file open, or it cannot be mounted again.
    pub fn cut(&mut self, survivors: Survivors, seed: u64) -> io::Result<Loss> {
        self.detach()?;
        let loss = self.shared.image.lock().lose(survivors, &mut StdRng::seed_from_u64(seed));
        self.attach()?;
        Ok(loss)
    }

    /// Unmounts, which also drops the kernel's cache of the files.
    fn detach(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        match umount2(&self.folder, MntFlags::empty()) {
            Ok(()) => match session.join() {
                // The session reports the unmount with this error if it happens between two requests.
                Err(error) if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) => Ok(()),
                ended => ended,
            },
            Err(error) => {
                self.session = Some(session);
                Err(io::Error::other(format!("unmount {}: {error}", self.folder.display())))
            }
        }
    }

    /// From now on every sync takes this long, and what it makes last is what was there when it began.
    pub fn delay_syncs(&self, delay: Duration) {
        self.shared.sync_delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// From now on every sync fails with EIO, or none.
    pub fn fail_syncs(&self, fail: bool) {
        self.shared.syncs_fail.store(fail, Ordering::SeqCst);
    }

    /// From now on there is space for so many bytes more than there are.
    pub fn leave_free(&self, bytes: u64) {
        let mut image = self.shared.image.lock();
        let capacity = image.used().saturating_add(bytes);
        image.set_capacity(capacity);
    }

    /// Syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::SeqCst)
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shared.image.lock().used()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Processes that still have files here cannot use them any more.
        if self.session.is_some() && self.detach().is_err() {
            let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
        }
    }
}

/// Removes mounts whose process is gone, and which no longer answer: those of tests that were killed.
fn sweep() {
    let Ok(mounts) = std::fs::read("/proc/self/mounts") else { return };
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        if fields.next() != Some(NAME.as_bytes()) {
            continue;
        }
        let Some(folder) = fields.next().map(|bytes| Path::new(OsStr::from_bytes(bytes))) else { continue };
        if std::fs::metadata(folder).is_err_and(|error| error.raw_os_error() == Some(Errno::ENOTCONN as i32)) {
            let _ = umount2(folder, MntFlags::MNT_DETACH);
        }
    }
}
