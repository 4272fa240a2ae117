//! A leader that is cut off and stopped between its check that it leads and the append, while another takes over and
//! writes: when it goes on, nothing of what it meant to write is written (design D4).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use trireme_chaos::history::Transaction;
use trireme_chaos::sim::run::found;
use trireme_chaos::sim::trace::Trace;
use trireme_chaos::sim::world::World;
use trireme_proto::etcd;
use trireme_raft::{Fence, Store, StoreError};

const KEY: &str = "k/fenced";

fn put(value: &str) -> etcd::TxnRequest {
    let transaction = Transaction { puts: vec![(KEY.to_owned(), value.to_owned())], ..Transaction::default() };
    trireme_chaos::sim::load::request(&transaction)
}

fn value(store: &Store) -> String {
    let request = etcd::RangeRequest { key: KEY.into(), ..Default::default() };
    let response = store.range(&request).unwrap();
    response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).unwrap_or_default()
}

fn fence(store: &Store) -> Option<Fence> {
    store.status().borrow().leadership.filter(|led| led.caught_up).map(|led| led.fence)
}

fn isolate(world: &World, host: usize, cut: bool) {
    for peer in (0..world.len()).filter(|peer| *peer != host) {
        world.common.net.cut(host, peer, cut);
        world.common.net.cut(peer, host, cut);
    }
}

/// `ahead`: whether the write is on its way into the log when the leader is stopped, or not asked for yet.
fn deposed(ahead: bool) {
    let mut world = World::new(11, 3, 1000, Arc::new(Trace::new(false))).unwrap();
    assert!(found(&mut world));
    let old = world.leader().unwrap();
    let store = world.common.board.store(old).unwrap();
    assert!(world.run_until(10_000, |_| fence(&store).is_some()));
    // The check: it leads.
    let old_fence = fence(&store).unwrap();
    isolate(&world, old, true);
    let (result, mut answer) = tokio::sync::oneshot::channel();
    let late = async move {
        let _ = result.send(store.txn(put("of the deposed"), Some(old_fence)).await);
    };
    let mut late = Some(late);
    if ahead {
        world.seat(old).disk.slow_down(400);
        world.spawn(old, late.take().unwrap());
        world.run(3);
    }
    world.stop(old);

    let next = |world: &World| {
        let led = |(host, store): (usize, Store)| fence(&store).filter(|_| host != old).map(|fence| (host, fence));
        world.common.board.stores().into_iter().find_map(led)
    };
    assert!(world.run_until(30_000, |world| next(world).is_some()));
    let (new, new_fence) = next(&world).unwrap();
    assert!(new_fence.term > old_fence.term);
    let store = world.common.board.store(new).unwrap();
    let written = world.ask(new, 10_000, async move { store.txn(put("of the new leader"), Some(new_fence)).await });
    let written = written.unwrap().unwrap().header.unwrap().revision;

    world.wake(old);
    if let Some(late) = late {
        world.spawn(old, late);
    }
    world.run(100);
    world.seat(old).disk.slow_down(0);
    isolate(&world, old, false);
    let mut outcome = None;
    assert!(world.run_until(30_000, |_| {
        outcome = outcome.take().or_else(|| answer.try_recv().ok());
        outcome.is_some()
    }));
    let outcome = outcome.unwrap();
    assert!(matches!(outcome, Err(StoreError::Fenced | StoreError::NoLeader(_) | StoreError::OutcomeUnknown { .. })), "{outcome:?}");
    let all_see = |world: &mut World| world.common.board.stores().iter().all(|(_, store)| store.revision() >= written);
    assert!(world.run_until(30_000, all_see));
    for (host, store) in world.common.board.stores() {
        assert_eq!((value(&store).as_str(), store.revision()), ("of the new leader", written), "h{host}");
    }
}

#[test]
fn a_leader_stopped_before_it_proposes_writes_nothing() {
    deposed(false);
}

#[test]
fn a_leader_stopped_before_its_append_is_synced_writes_nothing() {
    deposed(true);
}
