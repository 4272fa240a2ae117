//! Leases.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trireme_proto::etcd;
use trireme_proto::etcd::lease_client::LeaseClient;

use crate::server::{PATIENCE, Server, bytes, must_refuse};

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_granted_kept_alive_listed_and_revoked() {
    let server = Server::start().await;
    let mut leases = LeaseClient::new(server.channel.clone());
    let granted = leases.lease_grant(etcd::LeaseGrantRequest { ttl: 100, id: 7 }).await.unwrap().into_inner();
    assert_eq!((granted.id, granted.ttl), (7, 100));
    must_refuse(
        leases.lease_grant(etcd::LeaseGrantRequest { ttl: 100, id: 7 }).await,
        Code::FailedPrecondition,
        "etcdserver: lease already exists",
    );
    let far = etcd::LeaseGrantRequest { ttl: 9_000_000_001, id: 0 };
    must_refuse(leases.lease_grant(far).await, Code::OutOfRange, "etcdserver: too large lease TTL");
    let short = leases.lease_grant(etcd::LeaseGrantRequest { ttl: 0, id: 0 }).await.unwrap().into_inner();
    assert!(short.id != 0 && short.ttl == 2);
    leases.lease_revoke(etcd::LeaseRevokeRequest { id: short.id }).await.unwrap();

    let put = etcd::PutRequest { key: bytes("a"), value: bytes("v"), lease: 7, ..Default::default() };
    server.kv().put(put).await.unwrap();
    let left = leases.lease_time_to_live(etcd::LeaseTimeToLiveRequest { id: 7, keys: true }).await.unwrap().into_inner();
    assert!(left.granted_ttl == 100 && (1..=100).contains(&left.ttl) && left.keys == [bytes("a")], "{left:?}");
    let all = leases.lease_leases(etcd::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(all.leases, [etcd::LeaseStatus { id: 7 }]);

    let (requests, stream) = mpsc::channel(4);
    let mut answers = leases.lease_keep_alive(ReceiverStream::new(stream)).await.unwrap().into_inner();
    for (id, ttl) in [(7, 100), (99, 0), (7, 100)] {
        requests.send(etcd::LeaseKeepAliveRequest { id }).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    leases.lease_revoke(etcd::LeaseRevokeRequest { id: 7 }).await.unwrap();
    assert_eq!(server.get("a").await, None);
    let gone = leases.lease_time_to_live(etcd::LeaseTimeToLiveRequest { id: 7, keys: true }).await.unwrap().into_inner();
    assert_eq!((gone.ttl, gone.granted_ttl), (-1, 0));
    must_refuse(leases.lease_revoke(etcd::LeaseRevokeRequest { id: 7 }).await, Code::NotFound, "etcdserver: requested lease not found");
    server.stop().await;
}
