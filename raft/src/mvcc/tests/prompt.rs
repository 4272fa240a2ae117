//! Applying on a thread that must not wait: the batch is applied at once, or nothing has happened.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::engine::{Durability, Read, Table, WriteBatch};

/// An engine whose writes would have to wait, while it says so.
struct Stalled {
    inner: Arc<MemoryEngine>,
    stalls: AtomicBool,
    /// Held while a copy is made of it.
    copying: Mutex<()>,
    copies: AtomicBool,
}

impl Stalled {
    fn new() -> Stalled {
        let inner = Arc::new(MemoryEngine::new());
        Stalled { inner, stalls: AtomicBool::new(false), copying: Mutex::new(()), copies: AtomicBool::new(false) }
    }
}

impl Engine for Stalled {
    fn view(&self) -> Box<dyn Read + '_> {
        self.inner.view()
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        match durability {
            Durability::Prompt if self.stalls.load(Ordering::Relaxed) => Err(StoreError::Busy),
            durability => self.inner.write(batch, durability),
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.copies.store(true, Ordering::SeqCst);
        let _copying = self.copying.lock();
        self.inner.checkpoint(directory, table, key)
    }

    fn sync_delay(&self) -> Duration {
        self.inner.sync_delay()
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.inner.reclaim()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn live_bytes(&self) -> u64 {
        self.inner.live_bytes()
    }
}

fn put(index: u64, value: &str) -> ApplyEntry {
    let txn = success([super::put("a", value)]);
    ApplyEntry { id: EntryId { term: 1, index }, body: EntryBody::Command(command(Body::Txn(txn)).encode_to_vec().into()) }
}

fn value(state: &StateMachine) -> Bytes {
    let request = etcd::RangeRequest { key: bytes("a"), ..Default::default() };
    state.range(&request).unwrap().kvs.remove(0).value
}

#[test]
fn what_would_wait_is_refused_and_applied_once_later() {
    let now = Instant::now();
    let engine = Arc::new(Stalled::new());
    let state = StateMachine::open(engine.clone(), &MvccOptions::default(), now).unwrap();
    state.apply_promptly(&[put(1, "1")], now).unwrap();
    let before = state.info();

    engine.stalls.store(true, Ordering::Relaxed);
    assert!(matches!(state.apply_promptly(&[put(2, "2")], now), Err(StoreError::Busy)), "the engine would have to wait");
    assert_eq!((state.info(), value(&state)), (before.clone(), bytes("1")), "nothing has happened");

    let held = state.writer.lock();
    engine.stalls.store(false, Ordering::Relaxed);
    assert!(matches!(state.apply_promptly(&[put(2, "2")], now), Err(StoreError::Busy)), "somebody else writes");
    drop(held);
    assert_eq!((state.info(), value(&state)), (before, bytes("1")));

    // As the machine does it: a batch that could not be applied at once is applied on a thread that may wait.
    engine.stalls.store(true, Ordering::Relaxed);
    state.apply_batch(&[put(2, "2")], now).unwrap();
    assert_eq!((state.revision(), value(&state)), (3, bytes("2")));
}

#[test]
fn applies_go_on_while_a_copy_is_made_and_the_copy_says_what_it_holds() {
    let now = Instant::now();
    let engine = Arc::new(Stalled::new());
    let state = StateMachine::open(engine.clone(), &MvccOptions::default(), now).unwrap();
    state.apply_promptly(&[put(1, "1")], now).unwrap();
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("copy");
    let held = engine.copying.lock();
    let info = std::thread::scope(|scope| {
        let copying = scope.spawn(|| state.checkpoint(&directory).unwrap());
        while !engine.copies.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let applied = state.apply_promptly(&[put(2, "2")], now);
        drop(held);
        applied.unwrap();
        copying.join().unwrap()
    });
    assert_eq!(info.last_applied, Some(EntryId { term: 1, index: 2 }), "what was written before the copy was made is in it");
    let copy = StateMachine::open(Arc::new(MemoryEngine::open_checkpoint(&directory).unwrap()), &MvccOptions::default(), now).unwrap();
    assert_eq!((copy.info(), value(&copy)), (info, bytes("2")));
}
