//! Leases in time. Time is an argument, so nothing here waits.

use trireme_proto::store::{LeaseGrantCommand, LeaseKeepAliveCommand, LeaseRevokeCommand};

use super::*;

fn grant(machine: &mut Machine, id: i64, ttl_secs: i64) {
    machine.run(Body::LeaseGrant(LeaseGrantCommand { id, ttl_secs })).unwrap();
}

fn put_with_lease(machine: &mut Machine, key: &str, lease: i64) {
    let put = etcd::PutRequest { key: bytes(key), lease, ..Default::default() };
    machine.txn(success([op(etcd::request_op::Request::RequestPut(put))])).unwrap();
}

fn expired(machine: &Machine) -> Vec<i64> {
    machine.state.expired_leases(machine.now).into_iter().map(|lease| lease.id).collect()
}

#[test]
fn an_expired_lease_takes_its_keys_in_one_revision() {
    for disk in disks() {
        let mut machine = Machine::new(disk);
        grant(&mut machine, 1, 10);
        grant(&mut machine, 2, 30);
        for (key, lease) in [("a", 1), ("b", 1), ("c", 2), ("d", 1)] {
            put_with_lease(&mut machine, key, lease);
        }
        put_with_lease(&mut machine, "b", 2); // moves over
        put_with_lease(&mut machine, "d", 0); // lets go
        assert_eq!(machine.state.lease(1, machine.now).unwrap().unwrap().keys, [bytes("a")]);
        assert_eq!(machine.state.lease(2, machine.now).unwrap().unwrap().keys, [bytes("b"), bytes("c")]);
        machine.elapse(9);
        assert!(expired(&machine).is_empty());
        machine.elapse(1);
        assert_eq!(expired(&machine), [1]);
        machine.elapse(20);
        assert_eq!(expired(&machine), [1, 2]);
        let before = machine.state.revision();
        machine.run(Body::LeaseRevoke(LeaseRevokeCommand { id: 2, if_generation: 0 })).unwrap();
        assert_eq!(machine.state.revision(), before + 1);
        assert_eq!(machine.range("a", "z", 0).unwrap().count, 2, "a and d are left");
        assert_eq!(expired(&machine), [1]);
        assert!(machine.state.lease(2, machine.now).unwrap().is_none());
    }
}

#[test]
fn a_keep_alive_beats_the_revoke_that_was_on_its_way() {
    let mut machine = Machine::new(memory());
    grant(&mut machine, 1, 10);
    put_with_lease(&mut machine, "a", 1);
    machine.elapse(11);
    let found = machine.state.expired_leases(machine.now);
    machine.run(Body::LeaseKeepAlive(LeaseKeepAliveCommand { id: 1 })).unwrap();
    let revoke = LeaseRevokeCommand { id: 1, if_generation: found[0].generation };
    assert!(matches!(machine.run(Body::LeaseRevoke(revoke)), Err(StoreError::Conflict(_))));
    assert!(machine.get("a").is_some());
    assert!(expired(&machine).is_empty());
    machine.elapse(10);
    let found = machine.state.expired_leases(machine.now);
    machine.run(Body::LeaseRevoke(LeaseRevokeCommand { id: 1, if_generation: found[0].generation })).unwrap();
    assert!(machine.get("a").is_none());
}

#[test]
fn a_new_leader_restarts_leases_from_the_checkpointed_remainder() {
    for disk in disks() {
        let mut machine = Machine::new(disk);
        grant(&mut machine, 1, 3600);
        grant(&mut machine, 2, 3600);
        machine.elapse(3000);
        let step = Duration::from_secs(300);
        let checkpoints = machine.state.lease_checkpoints(machine.now, step);
        assert_eq!(checkpoints.leases.len(), 2);
        // A keep-alive overtakes the second checkpoint, which must not shorten it then.
        machine.run(Body::LeaseKeepAlive(LeaseKeepAliveCommand { id: 2 })).unwrap();
        machine.run(Body::LeaseCheckpoint(checkpoints)).unwrap();
        machine.state.flush().unwrap();
        machine.crash_and_replay();
        machine.state.restart_leases(machine.now).unwrap();
        let remaining = |machine: &Machine, id| machine.state.lease(id, machine.now).unwrap().unwrap().remaining_secs;
        assert_eq!((remaining(&machine, 1), remaining(&machine, 2)), (600, 3600));
        machine.elapse(600);
        assert_eq!(expired(&machine), [1]);
        assert_eq!(machine.state.next_lease_deadline(), Some(machine.start + Duration::from_secs(3600)));
    }
}

#[test]
fn leases_that_make_no_sense_are_refused() {
    let mut machine = Machine::new(memory());
    grant(&mut machine, 1, 10);
    for (id, ttl_secs) in [(0, 10), (2, 0), (2, -1), (2, i64::MAX)] {
        assert!(matches!(machine.run(Body::LeaseGrant(LeaseGrantCommand { id, ttl_secs })), Err(StoreError::Invalid(_))));
    }
    assert!(matches!(machine.run(Body::LeaseGrant(LeaseGrantCommand { id: 1, ttl_secs: 5 })), Err(StoreError::LeaseExists(1))));
    assert!(matches!(machine.run(Body::LeaseKeepAlive(LeaseKeepAliveCommand { id: 9 })), Err(StoreError::LeaseNotFound(9))));
    assert!(matches!(machine.run(Body::LeaseRevoke(LeaseRevokeCommand { id: 9, if_generation: 0 })), Err(StoreError::LeaseNotFound(9))));
    assert_eq!(machine.state.leases().unwrap(), [1]);
}
