//! The few mounts the kubelet makes itself: tmpfs for volumes in memory, binds for sub paths. All lie below the pods' directories.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    error::{Error, Result},
    files,
};

/// All mount points of our mount namespace, in mount order.
fn mount_points() -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("read /proc/self/mountinfo"))?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// Mount points write blanks and backslashes in octal.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

/// The mount points at and below a directory.
pub(crate) fn within(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(mount_points()?.into_iter().filter(|point| point.starts_with(directory)).collect())
}

pub(crate) fn is_mount_point(path: &Path) -> Result<bool> {
    Ok(mount_points()?.iter().any(|point| point == path))
}

/// Mounts a tmpfs on `path` unless one is there already.
pub(crate) fn ensure_tmpfs(path: &Path, options: &str) -> Result<()> {
    files::make_directories(path, 0o755)?;
    if is_mount_point(path)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(Error::errno(format!("mount tmpfs on {}", path.display())))
}

/// Binds `source` (often a `/proc/self/fd/N`) on `target`.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(Error::errno(format!("bind on {}", target.display())))
}

/// Takes the newest mount off a mount point. The same file system mounted elsewhere stays mounted.
pub(crate) fn unmount(point: &Path) -> Result<()> {
    match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(e) => Err(Error::errno(format!("unmount {}", point.display()))(e)),
    }
}

/// Unmounts everything below `directory`, the newest mounts first.
pub(crate) fn unmount_below(directory: &Path) -> Result<()> {
    for point in mount_points()?.iter().rev().filter(|point| point.starts_with(directory)) {
        unmount(point)?;
    }
    if let Some(left) = mount_points()?.iter().find(|point| point.starts_with(directory)) {
        return Err(Error::Config(format!("{} is still mounted", left.display())));
    }
    Ok(())
}
