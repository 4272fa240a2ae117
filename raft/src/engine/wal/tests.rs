//! The log's engine against a model, and against everything that can happen to its files.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::engine::memory::MemoryEngine;

/// Small enough that a few records fill a segment.
const SMALL: WalOptions = WalOptions { first_segment_bytes: 2048, segment_bytes: 8192 };
/// One segment for a whole test.
const ONE: WalOptions = WalOptions { first_segment_bytes: 8 << 10, segment_bytes: 8 << 10 };

/// Marks and entries of an engine.
type Dump = (Vec<(Vec<u8>, Vec<u8>)>, Vec<(u64, Vec<u8>)>);

fn dump(engine: &dyn Engine) -> Dump {
    dump_of(engine.view().as_ref())
}

fn dump_of(view: &dyn Read) -> Dump {
    let all = |table| {
        let (mut found, mut cursor) = (Vec::new(), view.cursor(table, &[], None).unwrap());
        while let Some((key, value)) = cursor.entry() {
            found.push((key.to_vec(), value.to_vec()));
            cursor.advance().unwrap();
        }
        found
    };
    let entries = all(Table::Entry).into_iter().map(|(key, value)| (u64::from_be_bytes(key.try_into().unwrap()), value));
    (all(Table::LogMeta), entries.collect())
}

fn entry(index: u64, value: impl Into<Bytes>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Table::Entry, &index.to_be_bytes(), value);
    batch
}

fn append(wal: &Wal, index: u64, value: impl Into<Bytes>) {
    wal.write(entry(index, value), Durability::Synced).unwrap();
}

/// A value with runs of zeros longer than a sector, as clients may write them.
fn value(index: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| if at / 700 % 2 == 1 { 0 } else { (at as u64 * 31 + index * 7) as u8 }).collect()
}

fn segments(home: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(home.join(SEGMENTS)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn reopened(home: &Path, options: WalOptions) -> Result<Dump, StoreError> {
    Wal::open(home, options).map(|wal| dump(&wal))
}

// === a model ===

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    /// Cuts off so many entries, and appends others in the same batch.
    CutEnd(u64, Vec<usize>),
    /// Purges so many entries, or beyond the end.
    CutStart(u64, bool),
    Mark(u8, Option<u8>),
    View,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let sizes = || prop::collection::vec(prop_oneof![4 => 0..300_usize, 1 => 300..3000_usize], 1..6);
    let step = prop_oneof![
        6 => sizes().prop_map(Step::Append),
        2 => (0..8_u64, sizes()).prop_map(|(cut, sizes)| Step::CutEnd(cut, sizes)),
        3 => (0..12_u64, any::<bool>()).prop_map(|(cut, beyond)| Step::CutStart(cut, beyond)),
        2 => (0..4_u8, any::<Option<u8>>()).prop_map(|(key, value)| Step::Mark(key, value)),
        1 => Just(Step::View),
        2 => Just(Step::Crash),
    ];
    prop::collection::vec((step, any::<bool>()), 1..60)
}

/// The batch of a step for a log that ends before `next`.
fn batch_of(step: &Step, first: u64, next: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let mut add = |from: u64, sizes: &[usize]| {
        for (index, size) in (from..).zip(sizes) {
            batch.put(Table::Entry, &index.to_be_bytes(), value(index + *size as u64, *size));
        }
    };
    match step {
        Step::Append(sizes) => add(next, sizes),
        Step::CutEnd(cut, sizes) => {
            let from = next.saturating_sub(*cut).max(first);
            // What the batch itself cuts off again.
            add(next, &sizes[..1]);
            batch.delete_range(Table::Entry, &from.to_be_bytes(), None);
            for (index, size) in (from..).zip(sizes) {
                batch.put(Table::Entry, &index.to_be_bytes(), value(index, *size));
            }
        }
        Step::CutStart(cut, beyond) => {
            let to = if *beyond { next + cut } else { (first + cut).min(next) };
            batch.delete_range(Table::Entry, &[], Some(&to.to_be_bytes()));
            batch.put(Table::LogMeta, b"purged", to.to_be_bytes().to_vec());
            // After a purge beyond the end the log goes on there.
            if *beyond {
                batch.put(Table::Entry, &to.to_be_bytes(), vec![7; 10]);
            }
        }
        Step::Mark(key, Some(value)) => batch.put(Table::LogMeta, &[*key], vec![*value; 40]),
        Step::Mark(key, None) => batch.delete(Table::LogMeta, &[*key]),
        Step::View | Step::Crash => {}
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_what_the_double_holds(steps in steps()) {
        let home = TempDir::new().unwrap();
        let mut wal = Wal::open(home.path(), SMALL).unwrap();
        let mut model = MemoryEngine::new();
        for (step, is_synced) in steps {
            let entries = dump(&model).1;
            let next = entries.last().map_or_else(|| next_of(&model), |(last, _)| last + 1);
            let batch = batch_of(&step, entries.first().map_or(next, |(first, _)| *first), next);
            match step {
                Step::View => {
                    let (view, expected) = (wal.view(), dump(&model));
                    // It stays as it is while its segments go and are used again.
                    for index in next..next + 40 {
                        append(&wal, index, vec![9; 900]);
                        model.write(entry(index, vec![9; 900]), Durability::Synced).unwrap();
                        let mut purge = WriteBatch::new();
                        purge.delete_range(Table::Entry, &[], Some(&(index + 1).to_be_bytes()));
                        purge.put(Table::LogMeta, b"purged", (index + 1).to_be_bytes().to_vec());
                        wal.write(purge.clone(), Durability::Buffered).unwrap();
                        model.write(purge, Durability::Buffered).unwrap();
                    }
                    prop_assert_eq!(dump_of(view.as_ref()), expected);
                }
                Step::Crash => {
                    drop(wal);
                    wal = Wal::open(home.path(), SMALL).unwrap();
                    model = model.crash();
                }
                _ => {
                    // Entries are always synced.
                    let has_entries = matches!(step, Step::Append(_) | Step::CutEnd(..) | Step::CutStart(_, true));
                    let durability = if is_synced || has_entries { Durability::Synced } else { Durability::Buffered };
                    wal.write(batch.clone(), durability).unwrap();
                    model.write(batch, durability).unwrap();
                }
            }
            prop_assert_eq!(dump(&wal), dump(&model));
            for (index, expected) in dump(&model).1.iter().step_by(3) {
                prop_assert_eq!(wal.view().get(Table::Entry, &index.to_be_bytes()).unwrap().unwrap(), expected);
            }
            let last = model.view().last(Table::Entry).unwrap();
            prop_assert_eq!(wal.view().last(Table::Entry).unwrap(), last);
        }
    }
}

/// Where a log without entries goes on.
fn next_of(model: &MemoryEngine) -> u64 {
    let purged = model.view().get(Table::LogMeta, b"purged").unwrap();
    purged.map_or(0, |mark| u64::from_be_bytes(mark.as_ref().try_into().unwrap()))
}

// === what happens to files ===

/// A log of one segment whose last record is of `length` bytes: its file before and after that record, and what it holds then.
fn before_and_after(length: usize) -> (TempDir, Vec<u8>, Vec<u8>, [Dump; 2]) {
    let home = TempDir::new().unwrap();
    let wal = Wal::open(home.path(), ONE).unwrap();
    let mut marks = WriteBatch::new();
    marks.put(Table::LogMeta, b"vote", vec![1; 20]);
    wal.write(marks, Durability::Synced).unwrap();
    for index in 0..5 {
        append(&wal, index, value(index, 333));
    }
    let (path, first) = (segments(home.path()).remove(0), dump(&wal));
    let before = fs::read(&path).unwrap();
    append(&wal, 5, value(5, length));
    let after = fs::read(&path).unwrap();
    let second = dump(&wal);
    (home, before, after, [first, second])
}

/// Writes the file, and checks that the log is as it was before or after the last record, and goes on.
fn assert_torn(home: &Path, file: &[u8], allowed: &[&Dump], what: &str) {
    fs::write(&segments(home)[0], file).unwrap();
    let wal = Wal::open(home, ONE).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = dump(&wal);
    assert!(allowed.contains(&&found), "{what}: {:?}", found.1.iter().map(|(index, value)| (*index, value.len())).collect::<Vec<_>>());
    let next = found.1.len() as u64;
    append(&wal, next, value(99, 40));
    drop(wal);
    let again = reopened(home, ONE).unwrap_or_else(|error| panic!("{what}, and written: {error}"));
    assert_eq!(again.1.len() as u64, next + 1, "{what}");
}

#[test]
fn a_record_that_is_cut_at_any_byte_is_dropped_or_whole() {
    for length in [0, 100, 2000] {
        let (home, before, after, [first, second]) = before_and_after(length);
        let changed = before.iter().zip(&after).rposition(|(a, b)| a != b).unwrap() + 1;
        let begin = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
        for cut in begin..=changed {
            let mut file = before.clone();
            file[begin..cut].copy_from_slice(&after[begin..cut]);
            // Whole, where what was cut off is zeros, or only says that this was the end.
            let allowed: &[&Dump] = if cut < changed - length.max(20) / 2 { &[&first] } else { &[&first, &second] };
            assert_torn(home.path(), &file, allowed, &format!("{length} bytes, cut at {cut} of {begin} to {changed}"));
        }
    }
}

#[test]
fn a_record_of_which_any_sectors_are_missing_is_dropped_or_whole() {
    let (home, before, after, [first, second]) = before_and_after(3000);
    let begin = before.iter().zip(&after).position(|(a, b)| a != b).unwrap() / layout::SECTOR;
    let end = before.iter().zip(&after).rposition(|(a, b)| a != b).unwrap() / layout::SECTOR;
    for written in 0_u32..1 << (end - begin + 1) {
        let mut file = before.clone();
        for sector in (begin..=end).filter(|sector| written >> (sector - begin) & 1 == 1) {
            let bytes = sector * layout::SECTOR..(sector + 1) * layout::SECTOR;
            file[bytes.clone()].copy_from_slice(&after[bytes]);
        }
        // A sector of zeros may be missing.
        let payload = |file: &[u8]| layout::decode(&file[layout::SECTOR..]).0;
        let expected = if payload(&file) == payload(&after) { &second } else { &first };
        assert_torn(home.path(), &file, &[expected], &format!("sectors {written:b}"));
    }
}

#[test]
fn a_flipped_bit_never_takes_a_record_away() {
    let (home, _, after, [_, second]) = before_and_after(1600);
    let path = segments(home.path()).remove(0);
    let used = after.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refused = 0;
    // One bit of each byte.
    for bit in (0..used + 600).map(|byte| byte * 8 + byte * 5 % 8) {
        let mut file = after.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &file).unwrap();
        match reopened(home.path(), ONE) {
            Ok(found) => assert_eq!(found, second, "bit {bit} of {}", used * 8),
            Err(StoreError::Corrupt(_)) => refused += 1,
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    assert!(refused > used * 7 / 8, "{refused} of {used} were refused");
}

/// Several segments, of which the first hold entries that are still needed.
fn several() -> (TempDir, Dump) {
    let home = TempDir::new().unwrap();
    let wal = Wal::open(home.path(), SMALL).unwrap();
    for index in 0..30 {
        append(&wal, index, value(index, 700));
    }
    let held = dump(&wal);
    (home, held)
}

#[test]
fn what_is_missing_between_segments_is_damage() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 6] = [
        ("a segment is gone", |home| fs::remove_file(&segments(home)[1]).unwrap()),
        ("the segment with the last record is empty", |home| {
            let path = &segments(home)[1];
            let length = fs::metadata(path).unwrap().len();
            let mut file = fs::read(path).unwrap();
            file[layout::SECTOR..].fill(0);
            assert_eq!(file.len() as u64, length);
            fs::write(path, file).unwrap();
        }),
        ("a segment's last record is gone", |home| {
            let path = &segments(home)[0];
            let mut file = fs::read(path).unwrap();
            let end = file.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            file[end - 300..end].fill(0);
            fs::write(path, file).unwrap();
        }),
        ("a segment was cut short", |home| {
            let path = &segments(home)[1];
            let length = fs::metadata(path).unwrap().len();
            fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
        }),
        ("a segment was copied over another", |home| {
            let _ = fs::copy(&segments(home)[2], &segments(home)[1]).unwrap();
        }),
        ("all segments are gone", |home| segments(home).iter().for_each(|path| fs::remove_file(path).unwrap())),
    ];
    for (what, damage) in cases {
        let (home, held) = several();
        assert_eq!(reopened(home.path(), SMALL).unwrap(), held);
        damage(home.path());
        let opened = reopened(home.path(), SMALL);
        assert!(matches!(opened, Err(StoreError::Corrupt(_))), "{what}: {:?}", opened.map(|dump| dump.1.len()));
    }
}

#[test]
fn segments_without_entries_go_and_their_space_is_used_again() {
    let home = TempDir::new().unwrap();
    let wal = Wal::open(home.path(), SMALL).unwrap();
    for index in 0..400 {
        let mut batch = entry(index, value(index, 700));
        if index % 10 == 9 {
            batch.delete_range(Table::Entry, &[], Some(&(index - 5).to_be_bytes()));
        }
        wal.write(batch, Durability::Synced).unwrap();
    }
    wal.reclaim().unwrap();
    assert!(segments(home.path()).len() <= 4, "{:?}", segments(home.path()));
    assert!(wal.live_bytes() <= wal.size_bytes() && wal.size_bytes() <= 3 * SMALL.segment_bytes);
    let held = dump(&wal);
    assert_eq!((held.1[0].0, held.1.len()), (394, 6));
    drop(wal);
    assert_eq!(reopened(home.path(), SMALL).unwrap(), held);
}

#[test]
fn a_spare_that_was_not_complete_is_made_again() {
    let (home, held) = several();
    let last = segments(home.path()).pop().unwrap();
    fs::write(last.with_extension("wal.new"), [1; 700]).unwrap();
    assert_eq!(reopened(home.path(), SMALL).unwrap(), held);
    assert!(segments(home.path()).iter().all(|path| path.extension().unwrap() == "wal"));
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let home = TempDir::new().unwrap();
    let wal = Wal::open(home.path(), SMALL).unwrap();
    for index in 0..6 {
        append(&wal, index, value(index, if index % 2 == 0 { 100 } else { 50_000 }));
    }
    let held = dump(&wal);
    assert_eq!(held.1[5].1, value(5, 50_000));
    drop(wal);
    assert_eq!(reopened(home.path(), SMALL).unwrap(), held);
}

#[test]
fn writes_that_no_log_makes_are_refused() {
    let home = TempDir::new().unwrap();
    let wal = Wal::open(home.path(), SMALL).unwrap();
    append(&wal, 3, "a");
    append(&wal, 4, "b");
    append(&wal, 5, "c");
    let mut other_table = WriteBatch::new();
    other_table.put(Table::Live, b"key", "value");
    let mut middle = WriteBatch::new();
    middle.delete(Table::Entry, &4_u64.to_be_bytes());
    let mut range = WriteBatch::new();
    range.delete_range(Table::Entry, &4_u64.to_be_bytes(), Some(&5_u64.to_be_bytes()));
    for batch in [other_table, middle, range, entry(7, "after a hole"), entry(5, "again")] {
        let what = format!("{batch:?}");
        wal.write(batch, Durability::Synced).expect_err(&what);
    }
    append(&wal, 6, "d");
    assert_eq!(dump(&wal).1.len(), 4);
}

#[cfg(feature = "rocksdb")]
mod old_format {
    use super::*;
    use crate::engine::rocks::{RocksEngine, RocksOptions, Role};

    fn old_log(home: &Path) -> Dump {
        let engine = RocksEngine::open(home, Role::Log, &RocksOptions::default()).unwrap();
        let mut marks = WriteBatch::new();
        marks.put(Table::LogMeta, b"vote", "vote");
        marks.put(Table::LogMeta, b"purged", "mark");
        engine.write(marks, Durability::Synced).unwrap();
        for index in 100..400 {
            engine.write(entry(index, value(index, 9000)), Durability::Synced).unwrap();
        }
        dump(&engine)
    }

    #[test]
    fn a_log_in_rocksdb_is_carried_over_once() {
        let home = TempDir::new().unwrap();
        let held = old_log(home.path());
        // An attempt that was interrupted.
        fs::create_dir_all(home.path().join("segments.new")).unwrap();
        fs::write(home.path().join("segments.new/0000000000000001.wal"), "half").unwrap();
        let wal = Wal::open(home.path(), WalOptions::default()).unwrap();
        assert_eq!(dump(&wal), held);
        append(&wal, 400, "new");
        drop(wal);
        let names: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["segments"]);
        assert_eq!(reopened(home.path(), WalOptions::default()).unwrap().1.len(), held.1.len() + 1);
    }

    #[test]
    fn old_files_beside_complete_segments_do_not_count() {
        let home = TempDir::new().unwrap();
        old_log(home.path());
        let wal = Wal::open(home.path(), WalOptions::default()).unwrap();
        append(&wal, 400, "new");
        let held = dump(&wal);
        drop(wal);
        old_log(home.path());
        assert_eq!(reopened(home.path(), WalOptions::default()).unwrap(), held);
    }

    #[test]
    fn a_damaged_log_in_rocksdb_is_refused() {
        let home = TempDir::new().unwrap();
        old_log(home.path());
        fs::remove_file(home.path().join("CURRENT")).unwrap();
        assert!(matches!(Wal::open(home.path(), WalOptions::default()), Err(StoreError::Corrupt(_))));
        assert!(!home.path().join(SEGMENTS).exists());
    }
}
