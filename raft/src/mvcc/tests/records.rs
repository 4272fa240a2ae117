//! Fences, proposals, members, feature levels, sealed keys, holders: the commands around the keys.

use trireme_proto::store::{
    ClusterInitCommand, CompactCommand, FeatureLevelCommand, Fence, HoldCommand, MemberAllocateCommand, MemberRecord, MemberRemoveCommand,
    SealedKey, SealedPutCommand,
};

use super::super::{PROPOSAL_WINDOW, WIDE_LEVEL, WIDE_PROPOSAL_WINDOW};
use super::*;

#[test]
fn a_fence_of_another_leadership_refuses_and_changes_nothing() {
    let mut machine = Machine::new(memory());
    machine.term = 7;
    let fenced = |term| Command { fence: Some(Fence { term, node_id: 1 }), ..command(Body::Txn(success([put("a", "1")]))) };
    assert!(matches!(machine.command(&fenced(6)), Err(StoreError::Fenced)));
    assert!(matches!(machine.command(&fenced(8)), Err(StoreError::Fenced)));
    assert_eq!((machine.state.revision(), machine.get("a")), (1, None));
    machine.command(&fenced(7)).unwrap();
    assert_eq!(machine.state.revision(), 2);
}

#[test]
fn a_retried_proposal_is_answered_from_memory_for_a_window() {
    for disk in disks() {
        let mut machine = Machine::new(disk);
        let proposal = Command {
            proposal_id: Bytes::from_static(&[7; 16]),
            expires_at_index: PROPOSAL_WINDOW,
            ..command(Body::Txn(success([put("a", "1")])))
        };
        let first = machine.command(&proposal).unwrap();
        machine.put("a", "2");
        assert_eq!(machine.command(&proposal).unwrap(), first, "the first answer, again");
        machine.crash_and_replay();
        assert_eq!(machine.command(&proposal).unwrap(), first, "also after a restart");
        assert_eq!(machine.get("a").unwrap().value, "2");
        let blanks: Vec<ApplyEntry> = (machine.log.len() as u64 + 1..=PROPOSAL_WINDOW + 1)
            .map(|index| ApplyEntry { id: EntryId { term: 1, index }, body: EntryBody::Blank })
            .collect();
        machine.state.apply_batch(&blanks, machine.now).unwrap();
        machine.log.extend(blanks);
        assert!(matches!(machine.command(&proposal), Err(StoreError::ProposalExpired)));
        assert_eq!(machine.get("a").unwrap().value, "2");
        let timeless = Command { expires_at_index: 0, ..proposal };
        assert_ne!(machine.command(&timeless).unwrap(), first, "it is forgotten");
        assert_eq!(machine.get("a").unwrap().value, "1");
    }
}

/// Blank entries up to `index`.
fn skip_to(machine: &mut Machine, index: u64) {
    let blanks: Vec<ApplyEntry> =
        (machine.log.len() as u64 + 1..=index).map(|index| ApplyEntry { id: EntryId { term: 1, index }, body: EntryBody::Blank }).collect();
    machine.state.apply_batch(&blanks, machine.now).unwrap();
    machine.log.extend(blanks);
}

#[test]
fn the_wide_level_remembers_proposals_longer_and_those_from_before_as_long_as_ever() {
    const RAISED: u64 = 5000;
    let proposal = |id: u8, at: u64, window: u64| Command {
        proposal_id: Bytes::copy_from_slice(&[id; 16]),
        expires_at_index: at - 1 + window - 1,
        ..command(Body::Txn(success([put("a", &id.to_string())])))
    };
    for disk in disks() {
        let mut machine = Machine::new(disk);
        allocate(&mut machine, member("one", 1, WIDE_LEVEL)).unwrap();
        skip_to(&mut machine, RAISED - 3);
        let narrow = [proposal(1, RAISED - 2, PROPOSAL_WINDOW), proposal(2, RAISED - 1, PROPOSAL_WINDOW)];
        let first = narrow.each_ref().map(|proposal| machine.command(proposal).unwrap());
        assert_eq!(machine.state.feature_level(), 0);
        machine.run(Body::FeatureLevelRaise(FeatureLevelCommand { level: WIDE_LEVEL })).unwrap();
        assert_eq!((machine.log.len() as u64, machine.state.feature_level()), (RAISED, WIDE_LEVEL));
        let wide = proposal(3, RAISED + 1, WIDE_PROPOSAL_WINDOW);
        let wide_first = machine.command(&wide).unwrap();

        // The last entry in which the first of them is remembered.
        skip_to(&mut machine, RAISED - 2 + PROPOSAL_WINDOW - 2);
        let revision = machine.state.revision();
        assert_eq!(machine.command(&narrow[0]).unwrap(), first[0]);
        machine.state.flush().unwrap();
        machine.crash_and_replay();
        assert_eq!(machine.state.revision(), revision, "it was applied again");
        // A new one, whose place in the narrow ring would have been that of the first.
        let next = proposal(10, machine.log.len() as u64 + 1, WIDE_PROPOSAL_WINDOW);
        let next_first = machine.command(&next).unwrap();
        for forgotten in &narrow {
            assert!(matches!(machine.command(forgotten), Err(StoreError::ProposalExpired)));
        }
        assert_eq!(machine.command(&next).unwrap(), next_first);
        assert_eq!(machine.command(&wide).unwrap(), wide_first);
        skip_to(&mut machine, RAISED + WIDE_PROPOSAL_WINDOW - 1);
        machine.state.flush().unwrap();
        machine.crash_and_replay();
        assert_eq!(machine.command(&wide).unwrap(), wide_first, "in the last entry of its window");
        assert!(matches!(machine.command(&wide), Err(StoreError::ProposalExpired)));
        assert_eq!(machine.get("a").unwrap().value, "10");
    }
}

#[test]
fn a_refused_proposal_may_be_tried_again() {
    let mut machine = Machine::new(memory());
    let put = etcd::PutRequest { key: bytes("a"), lease: 5, ..Default::default() };
    let txn = success([op(etcd::request_op::Request::RequestPut(put))]);
    let proposal = Command { proposal_id: Bytes::from_static(&[1; 16]), ..command(Body::Txn(txn)) };
    assert!(matches!(machine.command(&proposal), Err(StoreError::LeaseNotFound(5))));
    machine.run(Body::LeaseGrant(trireme_proto::store::LeaseGrantCommand { id: 5, ttl_secs: 10 })).unwrap();
    machine.command(&proposal).unwrap();
}

#[test]
fn an_unknown_command_halts_apply_for_good() {
    let unknown = [
        Command { body: None, ..command(Body::Noop(Default::default())) },
        Command { format: FORMAT_COMMAND + 1, ..command(Body::Noop(Default::default())) },
        Command { feature_level: 99, ..command(Body::Noop(Default::default())) },
    ];
    for unknown in unknown {
        let mut machine = Machine::new(memory());
        machine.put("a", "1");
        let before = machine.state.info();
        assert!(matches!(machine.command(&unknown), Err(StoreError::Halted(_))), "{unknown:?}");
        assert_eq!(machine.state.info(), before);
        let next = Command { ..command(Body::Txn(success([put("a", "2")]))) };
        assert!(machine.command(&next).is_err(), "nothing is applied after it");
        assert_eq!(machine.get("a").unwrap().value, "1", "reads go on");
    }
}

#[test]
fn a_gap_in_the_log_is_refused() {
    let mut machine = Machine::new(memory());
    machine.put("a", "1");
    machine.log.push(ApplyEntry { id: EntryId { term: 1, index: 2 }, body: EntryBody::Blank });
    assert!(matches!(machine.apply(EntryBody::Blank), Err(StoreError::Halted(_))));
}

fn member(name: &str, spki: u8, feature_level: u32) -> MemberRecord {
    MemberRecord { name: name.to_owned(), spki: Bytes::from(vec![spki; 32]), feature_level, ..Default::default() }
}

fn allocate(machine: &mut Machine, record: MemberRecord) -> Result<u64, StoreError> {
    match machine.run(Body::MemberAllocate(MemberAllocateCommand { record: Some(record) }))?.result {
        Some(Outcome::Member(member)) => Ok(member.id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn member_ids_come_from_the_log_and_are_never_reused() {
    let mut machine = Machine::new(memory());
    assert_eq!(allocate(&mut machine, member("one", 1, 1)).unwrap(), 1);
    assert_eq!(allocate(&mut machine, member("two", 2, 1)).unwrap(), 2);
    assert_eq!(allocate(&mut machine, member("two", 2, 1)).unwrap(), 2, "who asks again is the same");
    assert!(matches!(allocate(&mut machine, member("two", 3, 1)), Err(StoreError::Conflict(_))));
    assert!(matches!(allocate(&mut machine, member("three", 2, 1)), Err(StoreError::Conflict(_))));
    machine.run(Body::MemberRemove(MemberRemoveCommand { id: 2 })).unwrap();
    assert_eq!(allocate(&mut machine, member("two", 3, 1)).unwrap(), 3);
    machine.crash_and_replay();
    let ids: Vec<u64> = machine.state.members().unwrap().iter().map(|member| member.id).collect();
    assert_eq!(ids, [1, 3]);
}

#[test]
fn the_feature_level_waits_for_the_last_member() {
    let mut machine = Machine::new(memory());
    allocate(&mut machine, member("one", 1, 1)).unwrap();
    let old = allocate(&mut machine, member("two", 2, 0)).unwrap();
    let raise = || Body::FeatureLevelRaise(FeatureLevelCommand { level: 1 });
    assert!(matches!(machine.run(raise()), Err(StoreError::Invalid(_))));
    machine.run(Body::MemberRemove(MemberRemoveCommand { id: old })).unwrap();
    machine.run(raise()).unwrap();
    assert_eq!(machine.state.info().feature_level, 1);
    assert!(matches!(allocate(&mut machine, member("three", 3, 0)), Err(StoreError::Invalid(_))));
    assert!(matches!(machine.run(Body::FeatureLevelRaise(FeatureLevelCommand { level: 0 })), Err(StoreError::Invalid(_))));
}

#[test]
fn sealed_keys_change_by_version_and_the_cluster_is_named_once() {
    let mut machine = Machine::new(memory());
    let put = |text: &str, if_version| {
        let key = SealedKey { ciphertext: bytes(text), ..Default::default() };
        Body::SealedPut(SealedPutCommand { name: "ca".into(), key: Some(key), if_version })
    };
    machine.run(put("one", 0)).unwrap();
    assert!(matches!(machine.run(put("two", 0)), Err(StoreError::Conflict(_))));
    machine.run(put("two", 1)).unwrap();
    let record = machine.state.sealed("ca").unwrap().unwrap();
    assert_eq!((record.version, record.key.unwrap().ciphertext), (2, bytes("two")));
    assert!(machine.state.sealed("other").unwrap().is_none());

    machine.run(Body::ClusterInit(ClusterInitCommand { cluster_id: 5 })).unwrap();
    machine.run(Body::ClusterInit(ClusterInitCommand { cluster_id: 5 })).unwrap();
    assert!(matches!(machine.run(Body::ClusterInit(ClusterInitCommand { cluster_id: 6 })), Err(StoreError::Conflict(_))));
    assert_eq!(machine.state.info().cluster_id, 5);
}

#[test]
fn the_floor_is_the_minimum_over_holders() {
    let mut machine = Machine::new(memory());
    for value in 0..10 {
        machine.put("a", &value.to_string());
    }
    let compact = |revision| Body::Compact(CompactCommand { revision, holder: String::new() });
    let hold = |revision, lease| Body::Hold(HoldCommand { holder: "backup".into(), revision, lease });
    machine.run(hold(4, 0)).unwrap();
    assert_eq!(machine.state.compact_revision(), 0, "nobody has asked for a compaction");
    machine.run(compact(8)).unwrap();
    assert_eq!(machine.state.compact_revision(), 4);
    machine.run(hold(6, 0)).unwrap();
    assert_eq!(machine.state.compact_revision(), 6);
    assert!(matches!(machine.run(hold(5, 0)), Err(StoreError::Compacted { compact_revision: 6 })));
    machine.run(hold(0, 0)).unwrap();
    assert_eq!(machine.state.compact_revision(), 8);
    assert!(matches!(machine.run(compact(8)), Err(StoreError::Compacted { .. })));
    assert!(matches!(machine.run(compact(99)), Err(StoreError::FutureRevision { .. })));
    // A holder goes with its lease.
    machine.run(Body::LeaseGrant(trireme_proto::store::LeaseGrantCommand { id: 5, ttl_secs: 10 })).unwrap();
    machine.run(hold(9, 5)).unwrap();
    machine.run(compact(11)).unwrap();
    assert_eq!(machine.state.compact_revision(), 9);
    machine.run(Body::LeaseRevoke(trireme_proto::store::LeaseRevokeCommand { id: 5, if_generation: 0 })).unwrap();
    assert_eq!(machine.state.compact_revision(), 11);
    assert!(matches!(machine.range("a", "", 10), Err(StoreError::Compacted { compact_revision: 11 })));
}
