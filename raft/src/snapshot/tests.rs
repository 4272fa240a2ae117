//! Which files of a snapshot are read again when the next one is made.

use super::*;

fn fill(path: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(path.join(DATA)).unwrap();
    for (name, content) in files {
        fs::write(path.join(DATA).join(name), content).unwrap();
    }
}

fn link(from: &Path, to: &Path, name: &str) {
    fs::create_dir_all(to.join(DATA)).unwrap();
    fs::hard_link(from.join(DATA).join(name), to.join(DATA).join(name)).unwrap();
}

fn file<'a>(snapshot: &'a SnapshotDir, name: &str) -> &'a store::SnapshotFile {
    snapshot.manifest().files.iter().find(|file| file.path == name).unwrap()
}

#[test]
fn table_files_that_the_snapshot_before_has_are_not_read_again_and_all_others_are() {
    let home = tempfile::tempdir().unwrap();
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    fill(&first, &[("1.sst", "kept"), ("2.sst", "old table"), ("CURRENT", "one"), ("3.sst", "merged away")]);
    let before = SnapshotDir::seal(&first, store::SnapshotManifest::default(), None).unwrap();

    link(&first, &second, "1.sst");
    link(&first, &second, "CURRENT");
    // Another file of the same name and size: a state that was replaced numbers its tables anew.
    fill(&second, &[("2.sst", "new table"), ("4.sst", "kept")]);
    fs::write(second.join(DATA).join("CURRENT"), "two").unwrap();
    let after = SnapshotDir::seal(&second, store::SnapshotManifest::default(), Some(&before)).unwrap();
    assert_eq!(file(&after, "1.sst"), file(&before, "1.sst"));
    assert_ne!(file(&after, "2.sst"), file(&before, "2.sst"));
    assert_ne!(file(&after, "CURRENT"), file(&before, "CURRENT"));
    SnapshotDir::open(&second).unwrap();

    // Had it been read again, what has rotted since would be sealed as sound.
    let third = home.path().join("third");
    link(&second, &third, "1.sst");
    fs::write(second.join(DATA).join("1.sst"), "rots").unwrap();
    let rotten = SnapshotDir::seal(&third, store::SnapshotManifest::default(), Some(&after)).unwrap();
    assert_eq!(file(&rotten, "1.sst"), file(&before, "1.sst"));
    assert!(matches!(SnapshotDir::open(&third), Err(StoreError::Corrupt(_))));
}
