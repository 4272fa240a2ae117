//! A mounted disk under real system calls: what a power cut takes, what it leaves, and the faults.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use trireme_unsynced::{Disk, Survivors};

const CAPACITY: u64 = 4 << 20;

fn disk() -> (TempDir, Disk) {
    let folder = tempfile::Builder::new().prefix("trireme-unsynced-").tempdir().unwrap();
    let disk = Disk::mount(folder.path(), CAPACITY).unwrap();
    (folder, disk)
}

fn sync_folder(folder: &Path) {
    File::open(folder).unwrap().sync_all().unwrap();
}

/// A file that lasts.
fn lasting(path: &Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    sync_folder(path.parent().unwrap());
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_synced_stays_and_what_is_not_is_gone() {
    let (folder, mut disk) = disk();
    let at = |name: &str| folder.path().join(name);
    lasting(&at("kept"), b"first");
    let mut file = OpenOptions::new().append(true).open(at("kept")).unwrap();
    file.write_all(b", second").unwrap();
    file.sync_data().unwrap();
    file.write_all(b", third").unwrap();
    // Its content is synced, its name is not.
    let mut nameless = File::create(at("nameless")).unwrap();
    nameless.write_all(b"x").unwrap();
    nameless.sync_all().unwrap();
    // Its name is synced, its content is not.
    fs::write(at("hollow"), b"content").unwrap();
    sync_folder(folder.path());
    fs::remove_file(at("nameless")).unwrap();
    fs::rename(at("kept"), at("moved")).unwrap();
    fs::create_dir(at("inner")).unwrap();
    assert_eq!(fs::read(at("moved")).unwrap(), b"first, second, third", "a process sees everything");

    assert!(disk.cut(Survivors::Nothing, 1).is_err(), "a file is still open");
    drop((file, nameless));
    let loss = disk.cut(Survivors::Nothing, 1).unwrap();
    assert_eq!((loss.bytes, loss.files), (7 + 7, 2), "{loss}");
    assert_eq!(names(folder.path()), ["hollow", "kept", "nameless"]);
    assert_eq!(fs::read(at("kept")).unwrap(), b"first, second");
    assert_eq!(fs::read(at("hollow")).unwrap(), b"");
    assert_eq!(fs::read(at("nameless")).unwrap(), b"x", "it was removed, but not for good; by then its name had been synced");
}

#[test]
fn a_name_without_its_folder_s_sync_is_gone_with_its_synced_content() {
    let (folder, mut disk) = disk();
    let mut file = File::create(folder.path().join("f")).unwrap();
    file.write_all(b"x").unwrap();
    file.sync_all().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    lasting(&folder.path().join("d/g"), b"y");
    drop(file);
    disk.cut(Survivors::Nothing, 1).unwrap();
    assert!(names(folder.path()).is_empty(), "also what was synced in a folder whose own name was not");
    assert_eq!(disk.used(), 0);
}

#[test]
fn a_rename_lasts_whole_or_not_at_all() {
    let (folder, mut disk) = disk();
    let at = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        fs::create_dir(at(name)).unwrap();
    }
    sync_folder(folder.path());
    lasting(&at("a/one"), b"1");
    lasting(&at("b/two"), b"2");
    // Renamed over another file, into another folder, and synced; then renamed back without a sync.
    fs::rename(at("a/one"), at("b/two")).unwrap();
    sync_folder(&at("a"));
    disk.cut(Survivors::Nothing, 1).unwrap();
    assert_eq!((names(&at("a")).len(), fs::read(at("b/two")).unwrap()), (0, b"1".to_vec()), "either folder's sync is enough for both");
    fs::rename(at("b/two"), at("a/one")).unwrap();
    disk.cut(Survivors::Nothing, 1).unwrap();
    assert_eq!((names(&at("a")).len(), fs::read(at("b/two")).unwrap()), (0, b"1".to_vec()));
    // The classic mistake: a new file renamed over an old one without a sync of its content.
    fs::write(at("b/new"), b"3").unwrap();
    fs::rename(at("b/new"), at("b/two")).unwrap();
    sync_folder(&at("b"));
    disk.cut(Survivors::Nothing, 1).unwrap();
    assert_eq!((names(&at("b")), fs::read(at("b/two")).unwrap()), (vec!["two".to_owned()], Vec::new()));
}

#[test]
fn a_seed_says_what_survives() {
    let run = |survivors, seed| {
        let (folder, mut disk) = disk();
        lasting(&folder.path().join("f"), b"synced");
        let mut file = OpenOptions::new().append(true).open(folder.path().join("f")).unwrap();
        for byte in 0..20 {
            file.write_all(&[byte; 1000]).unwrap();
        }
        drop(file);
        let loss = disk.cut(survivors, seed).unwrap();
        (loss, fs::read(folder.path().join("f")).unwrap())
    };
    let whole: Vec<u8> = b"synced".iter().copied().chain((0..20).flat_map(|byte| [byte; 1000])).collect();
    assert_eq!(run(Survivors::Nothing, 1).1, b"synced");
    assert_eq!(run(Survivors::Everything, 1).1, whole);
    let mut torn = 0;
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let (loss, left) = run(Survivors::Beginnings, seed);
        assert!(whole.starts_with(&left) && left.len() >= 6, "{loss}");
        assert_eq!((loss.clone(), left.clone()), run(Survivors::Beginnings, seed), "the same seed, the same loss");
        torn += loss.torn;
        lengths.insert(left.len());
    }
    assert!(torn > 3 && lengths.len() > 5, "{torn} torn; {lengths:?}");
    let holes = (0..10).filter(|seed| {
        let (_, left) = run(Survivors::Pages, *seed);
        assert!(left.iter().zip(&whole).enumerate().all(|(at, (left, whole))| left == whole || (*left == 0 && at >= 6)));
        !whole.starts_with(&left)
    });
    assert!(holes.count() > 3, "later pages survive earlier ones");
}

#[test]
fn a_file_system_s_other_duties() {
    let (folder, mut disk) = disk();
    let at = |name: &str| folder.path().join(name);
    lasting(&at("f"), b"0123456789");
    fs::hard_link(at("f"), at("g")).unwrap();
    std::os::unix::fs::symlink("f", at("l")).unwrap();
    assert_eq!(fs::read(at("l")).unwrap(), b"0123456789");
    let file = OpenOptions::new().read(true).write(true).open(at("g")).unwrap();
    file.write_all_at(b"xx", 20).unwrap();
    file.set_len(21).unwrap();
    assert_eq!(fs::read(at("f")).unwrap(), b"0123456789\0\0\0\0\0\0\0\0\0\0x");
    fs::remove_file(at("f")).unwrap();
    fs::remove_file(at("g")).unwrap();
    let mut text = String::new();
    (&file).seek(SeekFrom::Start(0)).unwrap();
    (&file).take(3).read_to_string(&mut text).unwrap();
    assert_eq!(text, "012", "open, though it has no name");
    drop(file);
    for number in 0..500 {
        fs::create_dir_all(at("many")).unwrap();
        File::create(at("many").join(number.to_string())).unwrap();
    }
    assert_eq!(names(&at("many")).len(), 500);
    assert_eq!(fs::remove_dir(at("many")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    fs::remove_dir_all(at("many")).unwrap();
    // Written past every cache: there at once.
    let mut direct = OpenOptions::new().create(true).write(true).custom_flags(libc::O_DSYNC).open(at("direct")).unwrap();
    sync_folder(folder.path());
    direct.write_all(b"now").unwrap();
    drop(direct);
    disk.cut(Survivors::Nothing, 1).unwrap();
    assert_eq!((names(folder.path()), fs::read(at("direct")).unwrap()), (vec!["direct".to_owned(), "l".to_owned()], b"now".to_vec()));
}

#[test]
fn slow_and_failing_syncs_and_no_space() {
    let (folder, mut disk) = disk();
    let at = |name: &str| folder.path().join(name);
    lasting(&at("f"), b"1");
    let mut file = OpenOptions::new().append(true).open(at("f")).unwrap();
    disk.delay_syncs(Duration::from_millis(300));
    file.write_all(b"2").unwrap();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        let before = disk.syncs();
        let syncing = scope.spawn(|| file.sync_data());
        while disk.syncs() == before {
            std::thread::yield_now();
        }
        // The disk goes on meanwhile (Linux itself lets writes to the same file wait).
        fs::write(at("other"), b"3").unwrap();
        assert!(!syncing.is_finished());
        syncing.join().unwrap().unwrap();
    });
    assert!(began.elapsed() >= Duration::from_millis(300));
    disk.delay_syncs(Duration::ZERO);
    drop(file);
    disk.cut(Survivors::Nothing, 1).unwrap();
    assert_eq!(fs::read(at("f")).unwrap(), b"12");

    let mut file = OpenOptions::new().append(true).open(at("f")).unwrap();
    disk.fail_syncs(true);
    file.write_all(b"3").unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
    disk.fail_syncs(false);
    file.write_all(b"4").unwrap();
    file.sync_data().unwrap();
    drop(file);
    disk.cut(Survivors::Everything, 1).unwrap();
    assert_eq!(fs::read(at("f")).unwrap(), b"12\x004", "what a failed sync was to save does not come with the next");

    disk.leave_free(10_000);
    let mut file = OpenOptions::new().append(true).open(at("f")).unwrap();
    file.write_all(&[5; 9000]).unwrap();
    assert_eq!(file.write_all(&[5; 9000]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.leave_free(1 << 20);
    file.write_all(&[5; 9000]).unwrap();
}
