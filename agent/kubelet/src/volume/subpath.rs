//! subPath: a part of a volume, mounted so that links inside the volume cannot lead out of it.
//!
//! The path is opened by the kernel beneath the volume's root (openat2 with RESOLVE_BENEATH) and what was opened, not its name, is
//! bound: a container that swaps a directory for a link between check and use gains nothing.

use std::{
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, mkdirat},
};

use super::mounts;
use crate::{
    error::{Error, Result},
    files,
};

/// No target of ours has more mounts than this.
const MAX_STACKED: usize = 16;

/// Binds `volume/sub_path` on `target`; makes missing directories if `create`.
pub(crate) fn bind(volume: &Path, sub_path: &str, target: &Path, create: bool) -> Result<()> {
    let relative = Path::new(sub_path);
    if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::Config(format!("subPath {sub_path:?} must be relative and must not contain '..'")));
    }
    let root = open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(Error::errno(format!("open {}", volume.display())))?;
    let opened = match resolve(&root, relative) {
        Err(nix::Error::ENOENT) if create => {
            make_directories(&root, relative)?;
            resolve(&root, relative)
        }
        other => other,
    };
    let opened = opened.map_err(|e| Error::Config(format!("failed to prepare subPath for volumeMount {sub_path:?}: {}", e.desc())))?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    // A bind is kept while it shows the file that the path names now. A file that was replaced since then is bound anew.
    for _ in 0..MAX_STACKED {
        if !mounts::is_mount_point(target)? {
            break;
        }
        if identity(&source)? == identity(target)? {
            return Ok(());
        }
        mounts::unmount(target)?;
    }
    make_target(&source, target)?;
    mounts::bind(&source, target)
}

fn resolve(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

fn make_directories(root: &OwnedFd, path: &Path) -> Result<()> {
    let mut done = PathBuf::new();
    for component in path.components() {
        done.push(component);
        match resolve(root, &done) {
            Ok(_) => {}
            Err(nix::Error::ENOENT) => {
                let parent = match done.parent().filter(|p| !p.as_os_str().is_empty()) {
                    Some(parent) => resolve(root, parent).map_err(Error::errno(format!("open subPath {}", parent.display())))?,
                    None => root.try_clone().map_err(Error::io("clone a descriptor"))?,
                };
                let name = Path::new(done.file_name().unwrap_or_default());
                mkdirat(&parent, name, Mode::from_bits_truncate(0o750))
                    .map_err(Error::errno(format!("create subPath {}", done.display())))?;
                // The mode of the volume's own root would be the right one for others; the umask must not narrow it further.
                let made = resolve(root, &done).map_err(Error::errno(format!("open subPath {}", done.display())))?;
                copy_owner(root, &made)?;
            }
            Err(e) => return Err(Error::errno(format!("open subPath {}", done.display()))(e)),
        }
    }
    Ok(())
}

/// A directory made for a sub path is as open as the volume it is in.
fn copy_owner(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let path = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let metadata = std::fs::metadata(path(from)).map_err(Error::io("stat the volume"))?;
    std::fs::set_permissions(path(to), metadata.permissions()).map_err(Error::io("chmod the subPath"))
}

/// Device and inode.
fn identity(path: &Path) -> Result<(u64, u64)> {
    let metadata = std::fs::metadata(path).map_err(Error::io(format!("stat {}", path.display())))?;
    Ok((metadata.dev(), metadata.ino()))
}

fn make_target(source: &Path, target: &Path) -> Result<()> {
    let wrap = || Error::io(format!("create {}", target.display()));
    let is_dir = std::fs::metadata(source).map_err(wrap())?.is_dir();
    if is_dir { files::make_directories(target, 0o755) } else { files::make_file(target, 0o644) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_the_volume_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("in")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("../..", volume.join("in/up")).unwrap();
        std::os::unix::fs::symlink("in", volume.join("fine")).unwrap();
        let root = open(&volume, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for bad in ["out/passwd", "in/up", "in/up/x"] {
            assert!(resolve(&root, Path::new(bad)).is_err(), "{bad}");
            assert!(bind(&volume, bad, &dir.path().join("t"), true).is_err(), "{bad}");
        }
        assert!(resolve(&root, Path::new("fine")).is_ok());
        make_directories(&root, Path::new("a/b")).unwrap();
        assert!(volume.join("a/b").is_dir());
    }

    #[test]
    fn case_28_a_file_that_was_replaced_is_bound_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, target) = (dir.path().join("v"), dir.path().join("target/0"));
        std::fs::create_dir_all(&volume).unwrap();
        let read = || std::fs::read_to_string(&target).unwrap();
        let write = |text: &str| {
            std::fs::write(volume.join("next"), text).unwrap();
            std::fs::rename(volume.join("next"), volume.join("app.ini")).unwrap();
        };
        write("one");
        bind(&volume, "app.ini", &target, false).unwrap();
        bind(&volume, "app.ini", &target, false).unwrap();
        let mounted = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().matches(&*target.to_string_lossy()).count();
        assert_eq!((read().as_str(), mounted()), ("one", 1));
        write("two");
        assert_eq!(read(), "one", "a running container keeps what it was started with");
        bind(&volume, "app.ini", &target, false).unwrap();
        assert_eq!((read().as_str(), mounted()), ("two", 1));
        mounts::unmount_below(dir.path()).unwrap();
    }
}
