//! A leader is cut off while the answers to its last append are under way, and another takes over and writes. Then the answers arrive, one
//! after the other. A read that began in between must not be confirmed by them: they were sent before it began (raft dissertation, section 6.4).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use trireme_chaos::history::Transaction;
use trireme_chaos::sim::net::Half;
use trireme_chaos::sim::run::found;
use trireme_chaos::sim::trace::Trace;
use trireme_chaos::sim::world::World;
use trireme_proto::etcd;
use trireme_raft::Store;

fn put(value: &str) -> etcd::TxnRequest {
    let transaction = Transaction { puts: vec![("k/late".to_owned(), value.to_owned())], ..Transaction::default() };
    trireme_chaos::sim::load::request(&transaction)
}

/// `apart_ms`: between the first follower's answer and the second's.
fn late(apart_ms: u64) {
    let mut world = World::new(12, 3, 1000, Arc::new(Trace::new(false))).unwrap();
    assert!(found(&mut world));
    let old = world.leader().unwrap();
    let followers: Vec<usize> = (0..3).filter(|host| *host != old).collect();
    world.run(200);

    let hold = |world: &World, from: usize, to: usize, half: Half, held: bool| world.common.net.hold(from, to, half, held);
    for follower in &followers {
        hold(&world, *follower, old, Half::Answers, true);
    }
    let store = world.common.board.store(old).unwrap();
    world.spawn(old, async move { drop(store.txn(put("of the old leader"), None).await) });
    world.run(50);
    for follower in &followers {
        hold(&world, *follower, old, Half::Requests, true);
        hold(&world, old, *follower, Half::Requests, true);
        hold(&world, old, *follower, Half::Answers, true);
    }
    let next = |world: &World| {
        let led = |(host, store): (usize, Store)| {
            let leads = store.status().borrow().leadership.is_some_and(|led| led.caught_up);
            (leads && host != old).then_some(host)
        };
        world.common.board.stores().into_iter().find_map(led)
    };
    assert!(world.run_until(1800, |world| next(world).is_some()), "nobody was elected before the old leader gave its append up");
    let new = next(&world).unwrap();
    let store = world.common.board.store(new).unwrap();
    let written = world.ask(new, 1000, async move { store.txn(put("of the new leader"), None).await });
    let written = written.unwrap().unwrap().header.unwrap().revision;
    assert!(world.common.board.store(old).unwrap().status().borrow().leadership.is_some(), "it does not think that it leads any more");

    let store = world.common.board.store(old).unwrap();
    let (confirmed, mut read) = tokio::sync::oneshot::channel();
    world.spawn(old, async move { drop(confirmed.send(store.barrier().await)) });
    world.run(5);
    let committed = |world: &World| world.common.board.store(old).unwrap().status().borrow().committed_index;
    let before = committed(&world);
    hold(&world, followers[0], old, Half::Answers, false);
    world.run(apart_ms);
    hold(&world, followers[1], old, Half::Answers, false);
    world.run(100);
    let seen = read.try_recv().ok().and_then(Result::ok);
    assert!(seen.is_none_or(|revision| revision >= written), "a read saw revision {seen:?} after {written} had been acknowledged");
    assert!(committed(&world) > before, "the answers did not arrive");
}

#[test]
fn answers_that_arrive_late_and_apart_confirm_no_read_that_began_after_they_were_sent() {
    for apart_ms in [1, 4, 30, 60] {
        late(apart_ms);
    }
}
