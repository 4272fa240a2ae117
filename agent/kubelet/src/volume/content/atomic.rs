//! Writes a set of files so that a reader sees either all of the old ones or all of the new ones.
//!
//! The files are in a directory `..<time>`; `..data` is a link to it, swapped by rename; what users see are links `name -> ..data/name`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path},
};

use jiff::Timestamp;

use crate::{
    error::{Error, Result},
    files,
};

/// Content and mode of one file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
}

/// Files by relative path.
pub(crate) type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `directory` hold exactly `payload`. Does nothing when it does already.
pub(crate) fn write(directory: &Path, payload: &Payload, group: Option<i64>, now: Timestamp) -> Result<()> {
    for path in payload.keys() {
        validate(path)?;
    }
    let wrap = |what: &str| Error::io(format!("{what} in {}", directory.display()));
    files::make_directories(directory, 0o755)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).map_err(wrap("set the mode"))?;
    if is_current(directory, payload, group) {
        return Ok(());
    }
    let fresh_name = format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond());
    let fresh = directory.join(&fresh_name);
    files::make_directories(&fresh, 0o755)?;
    for (path, file) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            files::make_directories(parent, 0o755)?;
        }
        write_file(&target, file, group).map_err(wrap("write a file"))?;
    }
    let old = std::fs::read_link(directory.join(DATA)).ok();
    let next = directory.join(NEXT);
    let _ = std::fs::remove_file(&next);
    symlink(&fresh_name, &next).map_err(wrap("link the version"))?;
    std::fs::rename(&next, directory.join(DATA)).map_err(wrap("switch to the version"))?;
    link_names(directory, payload).map_err(wrap("link the files"))?;
    if let Some(old) = old.filter(|old| *old != Path::new(&fresh_name)) {
        let _ = std::fs::remove_dir_all(directory.join(old));
    }
    Ok(())
}

/// The file is private until it has its group and mode: it may be a secret, in a directory that all may enter.
fn write_file(target: &Path, file: &File, group: Option<i64>) -> std::io::Result<()> {
    let mut open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    open.write_all(&file.data)?;
    if let Some(group) = group {
        std::os::unix::fs::fchown(&open, None, u32::try_from(group).ok())?;
    }
    open.set_permissions(std::fs::Permissions::from_mode(effective_mode(file.mode, group)))
}

/// The group of the pod's volumes can read what its owner can read.
fn effective_mode(mode: u32, group: Option<i64>) -> u32 {
    if group.is_some() { mode | (mode & 0o400) >> 3 } else { mode }
}

fn validate(path: &str) -> Result<()> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if plain && !path.is_empty() && !path.starts_with("..") {
        Ok(())
    } else {
        Err(Error::Config(format!("invalid path {path:?}: must be relative, without '..'")))
    }
}

fn is_current(directory: &Path, payload: &Payload, group: Option<i64>) -> bool {
    let current = directory.join(DATA);
    let same = |path: &String, file: &File| {
        let path = current.join(path);
        std::fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o7777 == effective_mode(file.mode, group))
            && std::fs::read(&path).is_ok_and(|data| data == file.data)
    };
    current.is_dir()
        && count_files(&current) == payload.len()
        && payload.iter().all(|(path, file)| same(path, file))
        && tops(payload).iter().all(|name| directory.join(name).is_symlink())
}

fn count_files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return usize::MAX };
    entries.flatten().map(|e| if e.path().is_dir() { count_files(&e.path()) } else { 1 }).sum()
}

fn tops(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

fn link_names(directory: &Path, payload: &Payload) -> std::io::Result<()> {
    let wanted = tops(payload);
    for name in &wanted {
        let link = directory.join(name);
        if !link.is_symlink() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in std::fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_version_replaces_the_old_one_at_once_and_wholly() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| File { data: text.into(), mode: 0o644 };
        let at = |s| Timestamp::from_second(s).unwrap();
        write(dir.path(), &Payload::from([("a".into(), file("1")), ("d/b".into(), file("2"))]), None, at(1)).unwrap();
        let first = std::fs::read_link(dir.path().join("..data")).unwrap();
        write(dir.path(), &Payload::from([("a".into(), file("1")), ("d/b".into(), file("2"))]), None, at(2)).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join("..data")).unwrap(), first, "nothing changed");
        write(dir.path(), &Payload::from([("a".into(), file("3"))]), None, at(3)).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "one version, ..data and a: {names:?}");
        assert!(write(dir.path(), &Payload::from([("../x".into(), file("3"))]), None, at(4)).is_err());
    }

    #[test]
    fn vm_02_folders_of_a_volume_are_open_to_all_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volumes/v");
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let file = File { data: "x".into(), mode: 0o644 };
        let written = write(&volume, &Payload::from([("d/e/b".into(), file)]), None, Timestamp::UNIX_EPOCH);
        nix::sys::stat::umask(before);
        written.unwrap();
        let mode = |path: &str| std::fs::metadata(volume.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["", "..data/", "d", "d/e", "d/e/b"].map(mode), [0o755, 0o755, 0o755, 0o755, 0o644]);
    }
}
