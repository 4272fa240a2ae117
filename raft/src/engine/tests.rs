//! What [`Engine`] promises, asked of every engine of this build.

use std::sync::Arc;

use super::memory::MemoryEngine;
use super::*;

fn engines() -> Vec<(Arc<dyn Engine>, Option<tempfile::TempDir>)> {
    vec![
        (Arc::new(MemoryEngine::new()), None),
        #[cfg(feature = "rocksdb")]
        {
            let home = tempfile::tempdir().unwrap();
            let options = rocks::RocksOptions::default();
            let engine = rocks::RocksEngine::open(home.path(), rocks::Role::State, &options).unwrap();
            (Arc::new(engine), Some(home))
        },
    ]
}

fn all(read: &dyn Read, table: Table, start: &[u8], end: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut cursor = read.cursor(table, start, end).unwrap();
    while let Some((key, value)) = cursor.entry() {
        found.push((key.to_vec(), value.to_vec()));
        cursor.advance().unwrap();
    }
    found
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    expected.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

#[test]
fn tables_are_apart_and_batches_apply_in_order() {
    for (engine, _home) in engines() {
        let mut batch = WriteBatch::new();
        for key in ["a", "b", "c", "d"] {
            batch.put(Table::Live, key.as_bytes(), key);
        }
        batch.put(Table::Head, b"z", "head");
        batch.put(Table::Past, b"", "past");
        batch.delete_range(Table::Live, b"b", Some(b"d"));
        batch.put(Table::Live, b"c", "again");
        engine.write(batch, Durability::Buffered).unwrap();
        let view = engine.view();
        assert_eq!(all(view.as_ref(), Table::Live, b"", None), pairs(&[("a", "a"), ("c", "again"), ("d", "d")]));
        assert_eq!(all(view.as_ref(), Table::Live, b"b", Some(b"d")), pairs(&[("c", "again")]));
        assert_eq!(all(view.as_ref(), Table::Live, b"d", Some(b"b")), pairs(&[]));
        assert_eq!(view.get(Table::Past, b"").unwrap().unwrap(), "past");
        assert_eq!(view.get(Table::Live, b"b").unwrap(), None);
        assert_eq!(view.last(Table::Live).unwrap().unwrap().0, b"d");
        assert_eq!(view.last(Table::Entry).unwrap(), None);
        let mut cursor = view.cursor(Table::Live, b"", None).unwrap();
        cursor.seek(b"b").unwrap();
        assert_eq!(cursor.entry().unwrap().0, b"c");
        cursor.seek(b"e").unwrap();
        assert!(cursor.entry().is_none());
        cursor.advance().unwrap();
        assert!(cursor.entry().is_none());

        let mut batch = WriteBatch::new();
        batch.delete_range(Table::Live, b"", None);
        engine.write(batch, Durability::Synced).unwrap();
        assert_eq!(all(view.as_ref(), Table::Live, b"", None).len(), 3, "a view does not change");
        assert!(all(engine.view().as_ref(), Table::Live, b"", None).is_empty());
        assert!(engine.view().get(Table::Head, b"z").unwrap().is_some());
    }
}

fn open_copy(directory: &Path) -> Arc<dyn Engine> {
    #[cfg(feature = "rocksdb")]
    if directory.join("CURRENT").exists() {
        let options = rocks::RocksOptions::default();
        return Arc::new(rocks::RocksEngine::open(directory, rocks::Role::State, &options).unwrap());
    }
    Arc::new(MemoryEngine::open_checkpoint(directory).unwrap())
}

#[test]
fn a_copy_made_while_writes_go_on_is_of_one_moment_and_says_of_which() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    for (engine, _home) in engines() {
        let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let copies = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let next = written.load(Ordering::SeqCst) + 1;
                    let mut batch = WriteBatch::new();
                    batch.put(Table::Live, &next.to_be_bytes(), vec![0; 100]);
                    batch.put(Table::Head, &[], next.to_be_bytes().to_vec());
                    engine.write(batch, Durability::Buffered).unwrap();
                    written.store(next, Ordering::SeqCst);
                }
            });
            while written.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            for copy in 0..4 {
                let directory = copies.path().join(copy.to_string());
                let before = written.load(Ordering::SeqCst);
                let head = engine.checkpoint(&directory, Table::Head, &[]).unwrap().unwrap();
                let at = u64::from_be_bytes(head.as_ref().try_into().unwrap());
                assert!(at >= before, "the copy of {at} lacks what was written before it, up to {before}");
                assert!(!directory.join("LOG").exists(), "something was left behind in the copy");
                let copy = open_copy(&directory);
                let view = copy.view();
                assert_eq!(view.get(Table::Head, &[]).unwrap(), Some(head));
                assert_eq!(all(view.as_ref(), Table::Live, &[], None).len() as u64, at);
            }
            stop.store(true, Ordering::SeqCst);
        });
    }
}

#[test]
fn the_memory_double_forgets_exactly_what_was_not_synced() {
    let engine = MemoryEngine::new();
    let put = |engine: &MemoryEngine, key: &str, durability| {
        let mut batch = WriteBatch::new();
        batch.put(Table::Live, key.as_bytes(), "");
        engine.write(batch, durability).unwrap();
    };
    put(&engine, "a", Durability::Synced);
    put(&engine, "b", Durability::Buffered);
    assert_eq!(all(engine.crash().view().as_ref(), Table::Live, b"", None), pairs(&[("a", "")]));
    put(&engine, "c", Durability::Synced);
    put(&engine, "d", Durability::Buffered);
    let crashed = engine.crash();
    assert_eq!(all(crashed.view().as_ref(), Table::Live, b"", None).len(), 3, "an earlier write is never lost before a later one");
    assert_eq!(engine.sync_count(), 2);
    engine.flush().unwrap();
    assert_eq!(all(engine.crash().view().as_ref(), Table::Live, b"", None).len(), 4);
}

#[cfg(feature = "rocksdb")]
mod log_role {
    use super::rocks::{RocksEngine, RocksOptions, Role};
    use super::*;

    fn open(path: &Path) -> Result<RocksEngine, StoreError> {
        RocksEngine::open(path, Role::Log, &RocksOptions::default())
    }

    /// Writes entries, one batch each, and returns a copy of the files as a power cut would leave them.
    fn written(entries: u8) -> (tempfile::TempDir, std::path::PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let engine = open(&home.path().join("log")).unwrap();
        for entry in 0..entries {
            let mut batch = WriteBatch::new();
            batch.put(Table::Entry, &[entry], vec![entry; 500]);
            engine.write(batch, Durability::Synced).unwrap();
        }
        let copy = home.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        let mut wal = None;
        for file in std::fs::read_dir(home.path().join("log")).unwrap() {
            let file = file.unwrap();
            let to = copy.join(file.file_name());
            std::fs::copy(file.path(), &to).unwrap();
            if to.extension().is_some_and(|extension| extension == "log") {
                wal = Some(to);
            }
        }
        (home, wal.unwrap())
    }

    fn entries(path: &Path) -> usize {
        all(open(path).unwrap().view().as_ref(), Table::Entry, b"", None).len()
    }

    #[test]
    fn synced_writes_survive_and_a_torn_last_write_is_dropped() {
        let (home, wal) = written(20);
        let copy = home.path().join("copy");
        let length = std::fs::metadata(&wal).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(length - 100).unwrap();
        assert_eq!(entries(&copy), 19);
        let (home, _wal) = written(20);
        assert_eq!(entries(&home.path().join("copy")), 20);
    }

    #[test]
    fn damage_before_the_last_record_is_never_passed_over() {
        let (home, wal) = written(20);
        let mut bytes = std::fs::read(&wal).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&wal, bytes).unwrap();
        let opened = open(&home.path().join("copy"));
        assert!(matches!(opened, Err(StoreError::Corrupt(_))), "opened, or another error: {:?}", opened.err());
    }
}
