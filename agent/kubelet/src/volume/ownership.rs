//! Gives the files of a volume to the pod's group. Answers to
//! <https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#set-the-security-context-for-a-pod> (fsGroup).
//!
//! Other pods may change the volume meanwhile: each entry is opened without following links, and what was opened is changed.

use std::{
    ffi::OsStr,
    fs::Permissions,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open, openat},
    sys::stat::Mode,
};

use crate::error::{Error, Result};

/// Each level holds a descriptor.
const MAX_DEPTH: usize = 128;
/// The group reads and writes files, enters directories, and owns what is made in them.
const FILE_BITS: u32 = 0o660;
const DIRECTORY_BITS: u32 = 0o2770;

/// Hands a volume over. With `only_if_root_differs` (fsGroupChangePolicy OnRootMismatch), one whose root is the group's is left alone.
pub(crate) fn give(root: &Path, group: u32, only_if_root_differs: bool) -> Result<()> {
    let opened = open(root, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(Error::errno(format!("open {}", root.display())))?;
    let metadata = std::fs::metadata(by_descriptor(&opened)).map_err(Error::io(format!("look at {}", root.display())))?;
    if only_if_root_differs && metadata.gid() == group && metadata.mode() & DIRECTORY_BITS == DIRECTORY_BITS {
        return Ok(());
    }
    directory(opened, root, group, 0)
}

fn by_descriptor(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Changes the content first: a root that belongs to the group means that all of the content does.
fn directory(opened: OwnedFd, path: &Path, group: u32, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::Config(format!("fsGroup: {} is more than {MAX_DEPTH} directories deep", path.display())));
    }
    let wrap = || Error::io(format!("list {}", path.display()));
    for entry in std::fs::read_dir(by_descriptor(&opened)).map_err(wrap())? {
        one(&opened, &entry.map_err(wrap())?.file_name(), path, group, depth)?;
    }
    change(&opened, path, group, DIRECTORY_BITS)
}

fn one(parent: &OwnedFd, name: &OsStr, path: &Path, group: u32, depth: usize) -> Result<()> {
    let path = path.join(name);
    let wrap = || Error::errno(format!("open {}", path.display()));
    let entry = match openat(parent.as_fd(), name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(entry) => entry,
        Err(nix::Error::ENOENT) => return Ok(()),
        Err(e) => return Err(wrap()(e)),
    };
    let kind = nix::sys::stat::fstat(&entry).map_err(wrap())?.st_mode & libc::S_IFMT;
    match kind {
        libc::S_IFLNK => Ok(()),
        libc::S_IFDIR => {
            match openat(parent.as_fd(), name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(opened) => directory(opened, &path, group, depth + 1),
                Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) => Ok(()),
                Err(e) => Err(wrap()(e)),
            }
        }
        _ => change(&entry, &path, group, FILE_BITS),
    }
}

fn change(opened: &OwnedFd, path: &Path, group: u32, bits: u32) -> Result<()> {
    let through = by_descriptor(opened);
    let wrap = || Error::io(format!("hand over {}", path.display()));
    let metadata = std::fs::metadata(&through).map_err(wrap())?;
    if metadata.gid() != group {
        chown(&through, None, Some(group)).map_err(wrap())?;
    }
    // A change of the group takes the setgid bit off files.
    let mode = metadata.mode() & 0o7777;
    std::fs::set_permissions(&through, Permissions::from_mode(mode | bits)).map_err(wrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_become_the_groups_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
        std::fs::create_dir_all(volume.join("sub/deep")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        for file in [volume.join("sub/deep/f"), outside.join("f")] {
            std::fs::write(&file, "x").unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, volume.join("sub/link")).unwrap();
        let of = |path: PathBuf| std::fs::metadata(path).map(|m| (m.gid(), m.mode() & 0o7777)).unwrap();
        let before = (of(outside.clone()), of(outside.join("f")));
        give(&volume, 4242, false).unwrap();
        for path in ["", "sub", "sub/deep"] {
            let (group, mode) = of(volume.join(path));
            assert_eq!((group, mode & DIRECTORY_BITS), (4242, DIRECTORY_BITS), "{path}");
        }
        assert_eq!(of(volume.join("sub/deep/f")), (4242, 0o660));
        assert_eq!((of(outside.clone()), of(outside.join("f"))), before);

        // With the policy, a root that belongs to the group means that nothing is changed.
        std::fs::set_permissions(volume.join("sub/deep/f"), Permissions::from_mode(0o600)).unwrap();
        give(&volume, 4242, true).unwrap();
        assert_eq!(of(volume.join("sub/deep/f")).1, 0o600);
        give(&volume, 4243, true).unwrap();
        assert_eq!(of(volume.join("sub/deep/f")), (4243, 0o660));
    }

    #[test]
    fn a_volume_that_is_too_deep_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_path_buf();
        for _ in 0..=MAX_DEPTH {
            path.push("d");
        }
        std::fs::create_dir_all(&path).unwrap();
        assert!(matches!(give(dir.path(), 4242, false), Err(Error::Config(_))));
    }
}
