//! Which files of a folder are manifests. Symbolic links are refused: they could lead to any file that root can read.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest manifest.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;
const FILES_MAX: usize = 1000;
const DEPTH_MAX: usize = 4;

/// Tells whether a file has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// A manifest.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its path below the folder.
    pub(super) name: String,
    /// Its state.
    pub(super) stamp: Stamp,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Manifests, by name.
    pub(super) files: Vec<Entry>,
    /// What is not applied, and why.
    pub(super) refused: Vec<(PathBuf, String)>,
}

/// Looks at a folder and those below it. One that does not exist is empty.
pub(super) fn scan(folder: &Path) -> Scanned {
    let mut scanned = Scanned::default();
    walk(folder, folder, 0, &mut scanned);
    scanned.files.sort_by(|left, right| left.name.cmp(&right.name));
    scanned
}

fn walk(root: &Path, folder: &Path, depth: usize, scanned: &mut Scanned) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return scanned.refused.push((folder.to_owned(), error.to_string())),
    };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        // Symbolic links are not followed.
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            if depth < DEPTH_MAX {
                walk(root, &path, depth + 1, scanned);
            } else {
                scanned.refused.push((path, format!("folders are nested more than {DEPTH_MAX} deep")));
            }
            continue;
        }
        if !is_manifest(&path) || has_skip_file(&path) {
            continue;
        }
        let why = if metadata.is_symlink() {
            Some("symbolic links are not followed".to_owned())
        } else if !metadata.is_file() {
            Some("not a file".to_owned())
        } else if metadata.len() > FILE_BYTES_MAX {
            Some(format!("larger than {FILE_BYTES_MAX} bytes"))
        } else if scanned.files.len() >= FILES_MAX {
            Some(format!("more than {FILES_MAX} files"))
        } else {
            None
        };
        match why {
            Some(why) => scanned.refused.push((path, why)),
            None => {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                let stamp = Stamp { modified: metadata.modified().ok(), bytes: metadata.len() };
                scanned.files.push(Entry { path, name, stamp });
            }
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e.to_ascii_lowercase().as_str(), "yaml" | "yml" | "json"))
}

fn has_skip_file(path: &Path) -> bool {
    let mut skip = path.as_os_str().to_owned();
    skip.push(".skip");
    std::fs::symlink_metadata(skip).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn d14_links_and_skipped_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("more")).unwrap();
        for name in ["b.yaml", "a.json", "more/c.yml", "skipped.yaml", "skipped.yaml.skip", "notes.txt", ".hidden.yaml"] {
            std::fs::write(at(name), "{}").unwrap();
        }
        std::os::unix::fs::symlink("/etc/shadow", at("link.yaml")).unwrap();
        let large = std::fs::File::create(at("large.yaml")).unwrap();
        large.set_len(FILE_BYTES_MAX + 1).unwrap();
        let scanned = scan(folder.path());
        assert_eq!(scanned.files.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a.json", "b.yaml", "more/c.yml"]);
        let mut refused: Vec<_> = scanned.refused.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        refused.sort_unstable();
        assert_eq!(refused, ["large.yaml", "link.yaml"]);
        assert!(scan(&at("nothing")).files.is_empty());
    }
}
