//! The folders of this node's local volumes: direct children of one folder, each one volume's data.
//!
//! Must not touch anything else: a name is one component, a link is not a folder, and a mount below it belongs to another owner.

use std::{
    fs::{DirBuilder, Permissions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use super::mounts;
use crate::{
    error::{Error, Result},
    files,
};

/// Users of the host see no names, and reach a folder only if they know its name.
const BASE_MODE: u32 = 0o701;
/// Any user of any container writes there; the folder's name is not guessable, and its parent is not listed.
const FOLDER_MODE: u32 = 0o777;

/// The child of this name, if it can only be a child.
fn child(base: &Path, name: &str) -> Result<PathBuf> {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name);
    if plain && !name.contains('\0') { Ok(base.join(name)) } else { Err(Error::Config(format!("{name:?} is not the name of a folder"))) }
}

/// Makes a volume's folder, or leaves the one that is there.
pub(crate) fn make(base: &Path, name: &str) -> Result<()> {
    let path = child(base, name)?;
    files::make_directories(base, BASE_MODE)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(&path) {
        Ok(()) => {
            std::fs::set_permissions(&path, Permissions::from_mode(FOLDER_MODE)).map_err(Error::io(format!("chmod {}", path.display())))
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => is_folder(&path).map(drop),
        Err(e) => Err(Error::io(format!("create {}", path.display()))(e)),
    }
}

/// Removes a volume's folder and what is in it. One that is gone is removed.
pub(crate) fn remove(base: &Path, name: &str) -> Result<()> {
    let path = child(base, name)?;
    if !is_folder(&path)? {
        return Ok(());
    }
    let real = path.canonicalize().map_err(Error::io(format!("find {}", path.display())))?;
    if let Some(point) = mounts::within(&real)?.first() {
        return Err(Error::Config(format!("{} is mounted: unmount it, the folder is not removed before", point.display())));
    }
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(format!("remove {}", path.display()))(e)),
        _ => Ok(()),
    }
}

/// True for a folder, false for nothing.
fn is_folder(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(Error::Config(format!("{} is not a folder", path.display()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(format!("look at {}", path.display()))(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_for_everybody_and_removed_with_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("a/storage");
        make(&base, "pvc-1").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&base), mode(&base.join("pvc-1"))), (0o701, 0o777));
        std::fs::create_dir(base.join("pvc-1/sub")).unwrap();
        std::fs::write(base.join("pvc-1/sub/file"), "x").unwrap();
        make(&base, "pvc-1").unwrap();
        assert!(base.join("pvc-1/sub/file").exists(), "what is there stays");
        remove(&base, "pvc-1").unwrap();
        assert!(!base.join("pvc-1").exists());
        remove(&base, "pvc-1").unwrap();
        remove(&dir.path().join("never"), "pvc-1").unwrap();
    }

    #[test]
    fn nothing_but_a_direct_child_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("storage");
        std::fs::create_dir_all(base.join("kept/inner")).unwrap();
        std::fs::create_dir_all(dir.path().join("outside/data")).unwrap();
        for bad in ["", ".", "..", "../outside", "kept/inner", "/", "/etc", "kept/..", "./kept", "kept/", "kept//", "a\0b"] {
            assert!(matches!(remove(&base, bad), Err(Error::Config(_))), "{bad:?}");
            assert!(matches!(make(&base, bad), Err(Error::Config(_))), "{bad:?}");
        }
        assert!(base.join("kept/inner").exists() && dir.path().join("outside/data").exists());
        std::fs::write(base.join("file"), "x").unwrap();
        assert!(remove(&base, "file").is_err());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("storage");
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(base.join("pvc-1/deep")).unwrap();
        std::fs::create_dir_all(outside.join("data")).unwrap();
        for link in ["link", "pvc-1/link", "pvc-1/deep/link"] {
            std::os::unix::fs::symlink(&outside, base.join(link)).unwrap();
        }
        assert!(remove(&base, "link").is_err(), "a link is no folder");
        assert!(make(&base, "link").is_err(), "nor does it become one");
        remove(&base, "pvc-1").unwrap();
        assert!(!base.join("pvc-1").exists() && outside.join("data").exists());
    }
}
