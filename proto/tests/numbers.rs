//! Field numbers, pinned as bytes. A failure here means that an existing data directory or an etcd client would be
//! misread: never change an expectation, take a new field number instead.

use bytes::Bytes;
use prost::Message;
use trireme_proto::{cri, deviceplugin, election, etcd, podresources, store};

fn check(message: &(impl Message + std::fmt::Debug), expected: &str) {
    let encoded: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(encoded, expected, "{message:?}");
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn etcd_records_have_etcds_numbers() {
    let kv = etcd::KeyValue { key: bytes("k"), create_revision: 1, mod_revision: 2, version: 3, value: bytes("v"), lease: 4 };
    check(&kv, "0a016b1001180220032a01763004");
    let event = etcd::Event { r#type: 1, kv: Some(etcd::KeyValue::default()), prev_kv: Some(etcd::KeyValue::default()) };
    check(&event, "080112001a00");
    let compare = etcd::Compare {
        result: 3,
        target: 4,
        key: bytes("k"),
        range_end: bytes("l"),
        target_union: Some(etcd::compare::TargetUnion::Lease(5)),
    };
    check(&compare, "080310041a016b40058204016c");
    let put = etcd::PutRequest { key: bytes("k"), value: bytes("v"), lease: 1, prev_kv: true, ignore_value: true, ignore_lease: true };
    check(&put, "0a016b1201761801200128013001");
    let range = etcd::RangeRequest {
        key: bytes("k"),
        range_end: bytes("l"),
        limit: 3,
        revision: 4,
        sort_order: 1,
        sort_target: 2,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 10,
        max_mod_revision: 11,
        min_create_revision: 12,
        max_create_revision: 13,
    };
    check(&range, "0a016b12016c1803200428013002380140014801500a580b600c680d");
    let watch = etcd::WatchResponse { watch_id: 2, compact_revision: 5, events: vec![etcd::Event::default()], ..Default::default() };
    check(&watch, "100228055a00");
    let lease = etcd::LeaseTimeToLiveResponse { header: None, id: 2, ttl: 3, granted_ttl: 4, keys: vec![bytes("k")] };
    check(&lease, "1002180320042a016b");
    let member = etcd::Member { id: 1, name: "n".into(), peer_ur_ls: vec!["p".into()], client_ur_ls: vec!["c".into()], is_learner: true };
    check(&member, "080112016e1a01702201632801");
    let status = etcd::StatusResponse {
        version: "v".into(),
        db_size: 3,
        leader: 4,
        raft_index: 5,
        raft_term: 6,
        raft_applied_index: 7,
        errors: vec!["e".into()],
        db_size_in_use: 9,
        is_learner: true,
        storage_version: "s".into(),
        db_size_quota: 12,
        ..Default::default()
    };
    check(&status, "12017618032004280530063807420165480950015a0173600c");
    let hash = etcd::HashKvResponse { header: None, hash: 2, compact_revision: 3, hash_revision: 4 };
    check(&hash, "100218032004");
    let leader = election::LeaderKey { name: bytes("n"), key: bytes("k"), rev: 3, lease: 4 };
    check(&leader, "0a016e12016b18032004");
}

#[test]
fn our_own_durable_records_keep_their_numbers() {
    let entry = store::LogEntry {
        format: 1,
        id: Some(store::LogId { term: 2, index: 3 }),
        kind: store::EntryKind::Command as i32,
        payload: bytes("p"),
        crc32c: 4,
    };
    check(&entry, "080112040802180318022201702d04000000");
    check(&store::Vote { format: 1, term: 2, node_id: 3, committed: true, crc32c: 4 }, "08011002180320012d04000000");
    let bodies: [(store::command::Body, &str); 3] = [
        (store::command::Body::Noop(store::NoopCommand {}), "820100"),
        (store::command::Body::Txn(etcd::TxnRequest::default()), "8a0100"),
        (store::command::Body::ClusterInit(store::ClusterInitCommand { cluster_id: 1 }), "f201020801"),
    ];
    for (body, expected) in bodies {
        let command = store::Command {
            format: 1,
            proposal_id: bytes("i"),
            expires_at_index: 3,
            fence: Some(store::Fence { term: 1, node_id: 2 }),
            proposer_unix_ms: 5,
            feature_level: 6,
            body: Some(body),
        };
        check(&command, &format!("0801120169180322040801100228053006{expected}"));
    }
    let version = store::KeyVersion { create_revision: 1, mod_revision: 2, version: 3, lease: 4, until: 5 };
    check(&version, "08011002180320042805");
    check(&store::ChangeRecord { key: bytes("k"), deleted: true, previous_revision: 3 }, "0a016b10011803");
    let value = store::StoredValue { format: 1, kind: "k".into(), key_id: "i".into(), payload: bytes("p") };
    check(&value, "080112016b1a0169220170");
    let head = store::StateHead {
        format: 1,
        revision: 2,
        compact_revision: 3,
        compacted_to: 4,
        last_applied: Some(store::LogId { term: 1, index: 2 }),
        membership: bytes("m"),
        feature_level: 7,
        cluster_id: 8,
        next_member_id: 9,
        next_lease_generation: 10,
        epoch: 11,
        log_synced: Some(12),
    };
    check(&head, "08011002180320042a040801180232016d380740084809500a580b80010c");
    let proposal = store::ProposalRecord { result: None, revision: 3, index: 4, proposal_id: bytes("i") };
    check(&proposal, "180320042a0169");
}

#[test]
fn backups_keep_their_numbers() {
    let header = store::BackupHeader {
        format: 1,
        cluster_id: 2,
        revision: 3,
        applied: Some(store::LogId { term: 1, index: 2 }),
        feature_level: 5,
        members: vec![store::MemberRecord { id: 1, ..Default::default() }],
        version: "v".into(),
        member_name: "m".into(),
        created_unix_ms: 9,
        sealed: vec![store::SealedEntry { name: "s".into(), record: Some(store::SealedRecord::default()) }],
        notes: vec![store::BackupNote { name: "n".into(), value: bytes("v") }],
        next_member_id: 12,
        next_lease_generation: 13,
        epoch: 14,
        state_format: 15,
    };
    check(&header, "0801100218032204080118022805320208013a017642016d480952050a017312005a060a016e120176600c680d700e780f");
    let trailer = store::BackupTrailer { keys: 1, leases: 2, sealed: 3, chunks: 4, records_sha256: bytes("r"), archive_sha256: bytes("a") };
    check(&trailer, "08011002180320042a0172320161");
    let kv = etcd::KeyValue { key: bytes("k"), ..Default::default() };
    let record = store::BackupRecord { record: Some(store::backup_record::Record::Key(kv)) };
    let chunk = store::BackupFrame { frame: Some(store::backup_frame::Frame::Chunk(store::BackupChunk { records: vec![record] })) };
    check(&chunk, "12070a050a030a016b");
}

#[test]
fn device_plugins_and_readers_of_pod_resources_are_understood() {
    let text = |text: &str| text.to_owned();
    let options = deviceplugin::DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
    let register =
        deviceplugin::RegisterRequest { version: text("v"), endpoint: text("e"), resource_name: text("r"), options: Some(options) };
    check(&register, "0a01761201651a0172220408011001");
    let topology = deviceplugin::TopologyInfo { nodes: vec![deviceplugin::NumaNode { id: 1 }] };
    let device = deviceplugin::Device { id: text("d"), health: text("h"), topology: Some(topology) };
    check(&deviceplugin::ListAndWatchResponse { devices: vec![device] }, "0a0c0a01641201681a040a020801");
    let wish = deviceplugin::ContainerPreferredAllocationRequest {
        available_device_ids: vec![text("a")],
        must_include_device_ids: vec![text("m")],
        allocation_size: 3,
    };
    check(&wish, "0a016112016d1803");
    let answer = deviceplugin::ContainerAllocateResponse {
        envs: [(text("k"), text("v"))].into(),
        mounts: vec![deviceplugin::Mount { container_path: text("c"), host_path: text("h"), read_only: true }],
        devices: vec![deviceplugin::DeviceSpec { container_path: text("c"), host_path: text("h"), permissions: text("p") }],
        annotations: [(text("k"), text("v"))].into(),
        cdi_devices: vec![deviceplugin::CdiDevice { name: text("n") }],
    };
    check(&answer, "0a060a016b12017612080a016312016818011a090a01631201681a017022060a016b1201762a030a016e");
    let resources = podresources::ContainerResources {
        name: text("n"),
        devices: vec![podresources::ContainerDevices {
            resource_name: text("r"),
            device_ids: vec![text("d")],
            topology: Some(podresources::TopologyInfo { nodes: vec![podresources::NumaNode { id: 1 }] }),
        }],
        cpu_ids: vec![1],
        memory: vec![podresources::ContainerMemory { memory_type: text("m"), size: 2, topology: None }],
        dynamic_resources: vec![podresources::DynamicResource { claim_name: text("c"), ..Default::default() }],
    };
    check(&resources, "0a016e120c0a01721201641a040a0208011a010122050a016d10022a03120163");
    let config = cri::ContainerConfig { cdi_devices: vec![cri::CdiDevice { name: text("n") }], ..Default::default() };
    check(&config, "8a01030a016e");
}
