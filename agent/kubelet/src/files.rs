//! Files and directories that pods see, with explicit modes: the process's umask must not decide who can read them.

use std::{
    fs::{DirBuilder, OpenOptions, Permissions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::error::{Error, Result};

/// No configuration file of a host is longer.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Makes a directory and its parents; those that did not exist get this mode.
pub(crate) fn make_directories(path: &Path, mode: u32) -> Result<()> {
    let wrap = || Error::io(format!("create {}", path.display()));
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(wrap()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(wrap()(e)),
    }
}

/// Makes an empty file, or leaves the one that is there, and sets its mode.
pub(crate) fn make_file(path: &Path, mode: u32) -> Result<()> {
    let wrap = || Error::io(format!("create {}", path.display()));
    if let Some(parent) = path.parent() {
        make_directories(parent, 0o755)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(mode).open(path).map_err(wrap())?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(wrap())
}

/// Makes a file hold this text. The inode stays, because it may be mounted into containers. They may have written to it: what is
/// there is compared, never read beyond the text's own length.
pub(crate) fn keep_text(path: &Path, text: &str, mode: u32) -> Result<()> {
    let wrap = || Error::io(format!("write {}", path.display()));
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(mode).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let mut file = options.open(path).map_err(wrap())?;
    let metadata = file.metadata().map_err(wrap())?;
    if metadata.permissions().mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode)).map_err(wrap())?;
    }
    if metadata.len() == text.len() as u64 {
        let mut current = vec![0; text.len()];
        if file.read_exact(&mut current).is_ok() && current == text.as_bytes() {
            return Ok(());
        }
    }
    file.set_len(0).map_err(wrap())?;
    std::io::Seek::rewind(&mut file).map_err(wrap())?;
    file.write_all(text.as_bytes()).map_err(wrap())
}

/// Replaces a file: after a crash or a power cut it is the old one or the new one, complete.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let wrap = || Error::io(format!("write {}", path.display()));
    let temporary = path.with_added_extension("new");
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let mut file = options.open(&temporary).map_err(wrap())?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(wrap())?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(wrap())?;
    std::fs::rename(&temporary, path).map_err(wrap())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrap())
}

/// Reads a configuration file of the host.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_TEXT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_10_a_file_that_a_container_made_huge_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc-hosts");
        keep_text(&path, "one\n", 0o644).unwrap();
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        let before = inode();
        // Twelve gigabytes of zeros that take no space: reading them would end the process.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(12 << 30).unwrap();
        keep_text(&path, "two\n", 0o644).unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), inode()), ("two\n", before));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(keep_text(&link, "x", 0o644).is_err(), "a link is not followed");
    }

    #[test]
    fn vm_02_the_umask_decides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let made = (|| -> Result<()> {
            make_directories(&dir.path().join("a/b"), 0o755)?;
            make_file(&dir.path().join("a/f"), 0o666)?;
            keep_text(&dir.path().join("a/t"), "x", 0o644)
        })();
        nix::sys::stat::umask(before);
        made.unwrap();
        for (path, expected) in [("a", 0o755), ("a/b", 0o755), ("a/f", 0o666), ("a/t", 0o644)] {
            assert_eq!(mode(&dir.path().join(path)), expected, "{path}");
        }
    }
}
