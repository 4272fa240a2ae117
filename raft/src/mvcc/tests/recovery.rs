//! Crashes, snapshots, reset.

use futures::FutureExt as _;
use trireme_proto::store::ClusterInitCommand;

use super::super::{NewCluster, RESET_REVISION_STEP, WatchError, reset_state};
use super::*;

fn everything(machine: &Machine) -> Vec<etcd::RangeResponse> {
    (1..=machine.state.revision()).map(|revision| machine.range("\0", "\0", revision).unwrap()).collect()
}

#[test]
fn what_was_not_flushed_comes_back_from_the_log_once() {
    for disk in disks() {
        let mut machine = Machine::new(disk);
        machine.put("a", "1");
        machine.put("b", "1");
        let durable = machine.state.flush().unwrap();
        assert_eq!(durable, Some(EntryId { term: 1, index: 2 }));
        machine.apply(EntryBody::Membership(bytes("members"))).unwrap();
        machine.delete("a", "");
        machine.put("b", "2");
        let before = (machine.state.info(), everything(&machine));

        machine.disk.crash();
        machine.state = StateMachine::open(machine.disk.engine(), &machine.options, machine.now).unwrap();
        assert_eq!(machine.state.info().last_applied, durable, "the unflushed part is gone, the flushed is not");
        assert_eq!(machine.state.revision(), 3);

        // Raft replays generously: entries from before the flush too.
        let results = machine.state.apply_batch(&machine.log, machine.now).unwrap();
        assert_eq!(results.len(), machine.log.len());
        assert_eq!((machine.state.info(), everything(&machine)), before);
        machine.state.apply_batch(&machine.log, machine.now).unwrap();
        assert_eq!((machine.state.info(), everything(&machine)), before, "and again changes nothing");
    }
}

#[test]
fn a_checkpoint_is_installed_elsewhere_and_watches_go_on() {
    for (disk, other) in disks().into_iter().zip(disks()) {
        let mut machine = Machine::with_ring(disk, 0);
        machine.put("a", "1");
        machine.put("a", "2");
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("snapshot");
        let info = machine.state.checkpoint(&directory).unwrap();
        machine.put("a", "3");

        let follower = StateMachine::open(other.engine(), &machine.options, machine.now).unwrap();
        let mut watch = follower.watch(bytes("a"), Bytes::new(), 2).unwrap();
        assert_eq!(follower.install(machine.disk.open_checkpoint(&directory), machine.now).unwrap(), info);
        let batch = watch.next().now_or_never().unwrap().unwrap();
        assert_eq!((batch.revision, batch.events.len()), (3, 2));
        follower.apply_batch(&machine.log[2..], machine.now).unwrap();
        let batch = watch.next().now_or_never().unwrap().unwrap();
        assert_eq!(batch.events[0].prev_kv.as_ref().unwrap().value, "2");
        assert_eq!(follower.info(), machine.state.info());
    }
}

#[test]
fn a_reset_makes_another_cluster_whose_past_is_compacted() {
    for disk in disks() {
        let mut machine = Machine::new(disk);
        machine.run(Body::ClusterInit(ClusterInitCommand { cluster_id: 5 })).unwrap();
        machine.put("a", "1");
        machine.put("a", "2");
        let mut watch = machine.state.watch(bytes("a"), Bytes::new(), 0).unwrap();
        let engine = machine.disk.engine();
        let made = reset_state(engine.as_ref(), 6).unwrap();
        assert_eq!(made, NewCluster { cluster_id: 6, node_id: 1, revision: 3 + RESET_REVISION_STEP });
        let info = machine.state.install(engine, machine.now).unwrap();
        assert_eq!((info.cluster_id, info.last_applied, info.revision), (6, None, 3 + RESET_REVISION_STEP));
        assert!(matches!(watch.next().now_or_never(), Some(Err(WatchError::Reset))));
        assert_eq!(machine.get("a").unwrap().value, "2");
        assert!(matches!(machine.range("a", "", 3), Err(StoreError::Compacted { .. })));
        assert!(matches!(machine.state.watch(bytes("a"), Bytes::new(), 4), Err(StoreError::Compacted { .. })));
        while machine.state.compact_step(1).unwrap() {}
        machine.log.clear();
        assert_eq!(machine.put("a", "3"), 4 + RESET_REVISION_STEP);
    }
}

#[test]
fn nothing_of_a_batch_is_visible_before_all_of_it() {
    let mut machine = Machine::new(memory());
    let entry = |index, body: EntryBody| ApplyEntry { id: EntryId { term: 1, index }, body };
    let good = command(Body::Txn(success([put("a", "1")]))).encode_to_vec();
    let bad = vec![0xff; 9];
    let batch = [entry(1, EntryBody::Command(good.into())), entry(2, EntryBody::Command(bad.into()))];
    assert!(machine.state.apply_batch(&batch, machine.now).is_err());
    assert_eq!((machine.state.revision(), machine.get("a")), (1, None));
    machine.crash_and_replay();
    assert_eq!(machine.state.info().last_applied, None);
}
