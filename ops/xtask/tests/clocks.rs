//! The wall clock may jump by an hour, either way. So the store, its watches and its leases never ask it: they go by the monotonic clock,
//! and by the simulation's where there is one. Where the wall clock is noted for people, it is compared with nothing.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// Who may read the wall clock, and only to write down what it says.
const NOTED: &[&str] = &["raft/src/store/command.rs", "raft/src/backup/writer.rs"];

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => sources(&path, into),
            false if path.extension().is_some_and(|extension| extension == "rs") => into.push(path),
            false => {}
        }
    }
}

#[test]
fn the_store_asks_no_wall_clock() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut found = Vec::new();
    for part in ["raft/src", "server/etcd/src"] {
        sources(&repository.join(part), &mut found);
    }
    assert!(found.len() > 80, "{} files: this test looks in the wrong place", found.len());
    let asks = |path: &PathBuf| std::fs::read_to_string(path).unwrap().contains("SystemTime::now");
    let mut who: Vec<String> =
        found.iter().filter(|path| asks(path)).map(|path| path.strip_prefix(&repository).unwrap().display().to_string()).collect();
    who.sort();
    let mut expected = NOTED.to_vec();
    expected.sort_unstable();
    assert_eq!(who, expected, "of the store, only these read the wall clock");
}
