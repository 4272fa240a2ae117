//! What operators ask: members, condition, hashes, health, metrics.

use tonic::Code;
use tonic::transport::Channel;
use trireme_etcd::EtcdOptions;
use trireme_proto::etcd;
use trireme_proto::etcd::AlarmType;
use trireme_proto::etcd::alarm_request::AlarmAction;
use trireme_proto::etcd::auth_client::AuthClient;
use trireme_proto::etcd::cluster_client::ClusterClient;
use trireme_proto::etcd::maintenance_client::MaintenanceClient;
use trireme_proto::health::health_client::HealthClient;
use trireme_proto::health::{HealthCheckRequest, HealthCheckResponse};
use trireme_raft::Upkeep;

use crate::server::{Server, bytes, must_refuse};

#[tokio::test(flavor = "multi_thread")]
async fn members_are_listed_and_changes_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let mut cluster = ClusterClient::new(server.channel.clone());
    let list = cluster.member_list(etcd::MemberListRequest { linearizable: true }).await.unwrap().into_inner();
    let [one] = list.members.as_slice() else { panic!("{list:?}") };
    assert_eq!((one.id, one.name.as_str(), one.is_learner), (1, "one", false));
    assert_eq!(one.client_ur_ls, ["https://127.0.0.1:2379"]);
    assert!(one.peer_ur_ls[0].starts_with("https://127.0.0.1:"));
    let text = "etcdserver: member not found";
    must_refuse(cluster.member_remove(etcd::MemberRemoveRequest { id: 9 }).await, Code::NotFound, text);
    must_refuse(cluster.member_promote(etcd::MemberPromoteRequest { id: 9 }).await, Code::NotFound, text);
    let text = "etcdserver: re-configuration failed due to not enough started members";
    must_refuse(cluster.member_remove(etcd::MemberRemoveRequest { id: 1 }).await, Code::FailedPrecondition, text);
    let text = "etcdserver: can only promote a learner member";
    must_refuse(cluster.member_promote(etcd::MemberPromoteRequest { id: 1 }).await, Code::FailedPrecondition, text);
    let wrong = etcd::MemberUpdateRequest { id: 1, peer_ur_ls: vec!["http://a:1".into()] };
    must_refuse(cluster.member_update(wrong).await, Code::InvalidArgument, "etcdserver: given member URLs are invalid");
    let add = etcd::MemberAddRequest { peer_ur_ls: vec!["https://a:1".into()], is_learner: true };
    assert_eq!(cluster.member_add(add).await.unwrap_err().code(), Code::Unimplemented);
    let update = etcd::MemberUpdateRequest { id: 1, peer_ur_ls: vec!["https://127.0.0.1:1".into()] };
    // The founder's own record may come a moment after its first write.
    let moved = async {
        loop {
            match cluster.member_update(update.clone()).await {
                Ok(moved) => return moved.into_inner(),
                Err(error) => assert_eq!(error.message(), "etcdserver: member 1 not found"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let moved = tokio::time::timeout(crate::server::PATIENCE, moved).await.unwrap();
    // A member that has just started says its own address over it.
    assert_eq!((moved.members.len(), moved.members[0].id), (1, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_says_how_it_is() {
    let server = Server::start().await;
    let revision = server.put("a", "1").await;
    let mut maintenance = MaintenanceClient::new(server.channel.clone());
    let status = maintenance.status(etcd::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.is_learner, status.errors.len()), (1, false, 0));
    assert!(status.version.starts_with("3.6.") && status.raft_term > 0 && status.raft_applied_index <= status.raft_index);
    assert!(status.db_size > 0 && status.db_size_in_use > 0);
    assert_eq!(status.db_size_quota, 8 << 30);
    let alarms = maintenance.alarm(etcd::AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty());

    let hash = |server: &Server, revision: i64| {
        let mut maintenance = MaintenanceClient::<Channel>::new(server.channel.clone());
        async move { maintenance.hash_kv(etcd::HashKvRequest { revision }).await.map(tonic::Response::into_inner) }
    };
    let now = hash(&server, 0).await.unwrap();
    assert_eq!((now.hash_revision, now.compact_revision), (revision, 0));
    server.put("a", "2").await;
    assert_eq!(hash(&server, revision).await.unwrap().hash, now.hash);
    assert_ne!(hash(&server, 0).await.unwrap().hash, now.hash);
    let text = "etcdserver: mvcc: required revision is a future revision";
    must_refuse(hash(&server, revision + 9).await, Code::OutOfRange, text);
    assert_ne!(maintenance.hash(etcd::HashRequest {}).await.unwrap().into_inner().hash, 0);
    maintenance.defragment(etcd::DefragmentRequest {}).await.unwrap();
    maintenance.move_leader(etcd::MoveLeaderRequest { target_id: 1 }).await.unwrap();
    let nobody = etcd::MoveLeaderRequest { target_id: 9 };
    must_refuse(maintenance.move_leader(nobody).await, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    assert_eq!(maintenance.downgrade(etcd::DowngradeRequest::default()).await.unwrap_err().code(), Code::Unimplemented);
    server.stop().await;
}

/// etcd's alarm, raised and disarmed without a client.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_beyond_its_quota_raises_its_alarm_and_takes_it_back() {
    let every = std::time::Duration::from_millis(20);
    let upkeep = Upkeep { quota_bytes: 256 << 10, reserve_bytes: 0, low_bytes: Some(0), space_every: every, ..Upkeep::default() };
    let server = Server::over(EtcdOptions::default(), upkeep).await;
    let mut maintenance = MaintenanceClient::new(server.channel.clone());
    let asking = maintenance.clone();
    let list = async |alarm: AlarmType| {
        let request = etcd::AlarmRequest { alarm: alarm as i32, ..Default::default() };
        asking.clone().alarm(request).await.unwrap().into_inner().alarms
    };
    let big = "x".repeat(32 << 10);
    let put = |key: String| etcd::PutRequest { key: key.into(), value: bytes(&big), ..Default::default() };
    let mut written = 0;
    let refused = loop {
        match server.kv().put(put(format!("big/{written}"))).await {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
        assert!(written < 100, "the quota is smaller than that");
    };
    must_refuse(Err::<(), _>(refused), Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    let alarm = etcd::AlarmMember { member_id: 1, alarm: AlarmType::Nospace as i32 };
    assert_eq!(list(AlarmType::None).await, [alarm]);
    assert_eq!(list(AlarmType::Nospace).await, [alarm]);
    assert!(list(AlarmType::Corrupt).await.is_empty());
    let status = maintenance.status(etcd::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.db_size_quota, 256 << 10);
    assert!(status.errors.iter().any(|error| error == "memberID:1 alarm:NOSPACE"), "{:?}", status.errors);
    // Disarming changes nothing while there is no space.
    let disarm = etcd::AlarmRequest { action: AlarmAction::Deactivate as i32, ..Default::default() };
    assert!(maintenance.alarm(disarm).await.unwrap().into_inner().alarms.is_empty());
    assert_eq!(list(AlarmType::None).await, [alarm]);
    let (_, page) = server.page("/metrics").await;
    assert!(page.contains("\netcd_server_quota_backend_bytes 262144\n"), "{page}");

    let delete = etcd::DeleteRangeRequest { key: "big/".into(), range_end: "big0".into(), ..Default::default() };
    server.kv().delete_range(delete).await.unwrap();
    let healed = async {
        while !list(AlarmType::None).await.is_empty() {
            tokio::time::sleep(every).await;
        }
    };
    tokio::time::timeout(crate::server::PATIENCE, healed).await.unwrap();
    server.kv().put(put("big/again".into())).await.unwrap();
    let status = maintenance.status(etcd::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.errors.is_empty(), "{:?}", status.errors);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_an_archive_that_etcds_tools_take_for_whole() {
    let server = Server::start().await;
    for i in 0..20 {
        server.put(&format!("k/{i}"), &"x".repeat(100 << 10)).await;
    }
    let revision = server.store.revision();
    let mut maintenance = MaintenanceClient::new(server.channel.clone());
    let mut pieces = maintenance.snapshot(etcd::SnapshotRequest {}).await.unwrap().into_inner();
    let (mut archive, mut messages, mut remaining) = (Vec::new(), 0, 1);
    while let Some(piece) = pieces.message().await.unwrap() {
        assert_eq!(piece.header.unwrap().revision, revision);
        archive.extend_from_slice(&piece.blob);
        remaining = piece.remaining_bytes;
        messages += 1;
    }
    assert!(messages > 5 && remaining == 0 && archive.len() % 512 == 32, "{messages} {remaining} {}", archive.len());
    let read = |archive: &[u8]| -> Result<u64, trireme_raft::StoreError> {
        let mut reader = trireme_raft::backup::BackupReader::open(archive)?;
        while reader.next_records()?.is_some() {}
        Ok(reader.summary()?.keys)
    };
    assert_eq!(read(&archive).unwrap(), 20);
    // The tail is either right or not there at all.
    let last = archive.len() - 1;
    assert!(read(&archive[..last]).is_err());
    archive[last] ^= 1;
    assert!(read(&archive).is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_users() {
    let server = Server::start().await;
    let mut auth = AuthClient::new(server.channel.clone());
    assert!(!auth.auth_status(etcd::AuthStatusRequest {}).await.unwrap().into_inner().enabled);
    let none = etcd::AuthUnsupportedRequest {};
    must_refuse(auth.authenticate(none).await, Code::FailedPrecondition, "etcdserver: authentication is not enabled");
    assert_eq!(auth.user_add(none).await.unwrap_err().code(), Code::Unimplemented);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_version_and_metrics_are_served_beside_grpc() {
    let server = Server::start().await;
    server.put("a", "1").await;
    let mut health = HealthClient::new(server.channel.clone());
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let serving = HealthCheckResponse { status: 1 };
    assert_eq!(health.check(check("")).await.unwrap().into_inner(), serving);
    assert_eq!(health.check(check("nonsense")).await.unwrap_err().code(), Code::NotFound);
    let mut watched = health.watch(check("etcdserverpb.KV")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap(), serving);
    assert_eq!(server.page("/health").await, (200, "{\"health\":\"true\",\"reason\":\"\"}".to_owned()));
    assert_eq!(server.page("/health?serializable=true").await.0, 200);
    assert_eq!(server.page("/readyz").await, (200, "ok\n".to_owned()));
    let (code, version) = server.page("/version").await;
    assert!(code == 200 && version.starts_with("{\"etcdserver\":\"3.6."), "{version}");
    assert_eq!(server.page("/nothing").await.0, 404);

    let _ = server.kv().put(etcd::PutRequest::default()).await.unwrap_err();
    let (_, page) = server.page("/metrics").await;
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_leader_changes_seen_total 1",
        "etcd_server_proposals_pending 0",
        "etcd_debugging_mvcc_keys_total 1",
        "etcd_mvcc_put_total 1",
        "etcd_debugging_mvcc_watcher_total 0",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    let syncs = page.lines().find_map(|line| line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_count ")).unwrap();
    assert!(syncs.parse::<u64>().unwrap() > 0);
    server.stop().await;
}
