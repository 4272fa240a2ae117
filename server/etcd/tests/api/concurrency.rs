//! Locks and elections.

use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;
use trireme_proto::election::election_client::ElectionClient;
use trireme_proto::election::{CampaignRequest, CampaignResponse, LeaderRequest, ProclaimRequest, ResignRequest};
use trireme_proto::lock::lock_client::LockClient;
use trireme_proto::lock::{LockRequest, LockResponse, UnlockRequest};

use crate::server::{PATIENCE, Server, bytes, prefix};

type Answer<T> = JoinHandle<Result<tonic::Response<T>, Status>>;

async fn lease(server: &Server) -> i64 {
    server.store.lease_grant(600, 0).await.unwrap().id
}

/// Waits until `n` clients stand in this line.
async fn in_line(server: &Server, name: &str, n: i64) {
    let there = async {
        while server.range(prefix(&format!("{name}/"))).await.count != n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap();
}

fn lock(server: &Server, lease: i64) -> Answer<LockResponse> {
    let mut client = LockClient::new(server.channel.clone());
    tokio::spawn(async move { client.lock(LockRequest { name: bytes("l"), lease }).await })
}

fn campaign(client: &ElectionClient<Channel>, lease: i64, value: &'static str) -> Answer<CampaignResponse> {
    let mut client = client.clone();
    tokio::spawn(async move { client.campaign(CampaignRequest { name: bytes("e"), lease, value: bytes(value) }).await })
}

async fn soon<T>(answer: Answer<T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_from_one_to_the_next_in_order() {
    let server = Server::start().await;
    let (first, second) = (lease(&server).await, lease(&server).await);
    let held = soon(lock(&server, first)).await;
    assert_eq!(held.key, format!("l/{first:x}").into_bytes());
    // The same lease again is the same owner.
    assert_eq!(soon(lock(&server, first)).await.key, held.key);
    let waiting = lock(&server, second);
    in_line(&server, "l", 2).await;
    let third = lock(&server, 0);
    in_line(&server, "l", 3).await;
    assert!(!waiting.is_finished() && !third.is_finished());
    LockClient::new(server.channel.clone()).unlock(UnlockRequest { key: held.key }).await.unwrap();
    assert_eq!(soon(waiting).await.key, format!("l/{second:x}").into_bytes());
    assert!(!third.is_finished());
    // A lease that ends lets go, too.
    server.store.lease_revoke(second).await.unwrap();
    soon(third).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_waiting_leaves_the_line() {
    let server = Server::start().await;
    let (first, second) = (lease(&server).await, lease(&server).await);
    soon(lock(&server, first)).await;
    let waiting = lock(&server, second);
    in_line(&server, "l", 2).await;
    waiting.abort();
    in_line(&server, "l", 1).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_elected_proclaim_are_observed_and_resign() {
    let server = Server::start().await;
    let mut client = ElectionClient::new(server.channel.clone());
    let nobody = client.leader(LeaderRequest { name: bytes("e") }).await.unwrap_err();
    assert_eq!(nobody.message(), "election: no leader");
    let mut observed = client.observe(LeaderRequest { name: bytes("e") }).await.unwrap().into_inner();
    let (first, second) = (lease(&server).await, lease(&server).await);
    let led = soon(campaign(&client, first, "one")).await.leader.unwrap();
    let waiting = campaign(&client, second, "two");
    in_line(&server, "e", 2).await;
    let proclaim = |leader: &trireme_proto::election::LeaderKey, value: &str| {
        let request = ProclaimRequest { leader: Some(leader.clone()), value: bytes(value) };
        let mut client = client.clone();
        async move { client.proclaim(request).await }
    };
    proclaim(&led, "one again").await.unwrap();
    let leader = client.clone().leader(LeaderRequest { name: bytes("e") }).await.unwrap().into_inner().kv.unwrap();
    assert_eq!((leader.key, leader.value), (led.key.clone(), bytes("one again")));
    assert!(!waiting.is_finished());
    client.clone().resign(ResignRequest { leader: Some(led.clone()) }).await.unwrap();
    soon(waiting).await;
    assert_eq!(proclaim(&led, "too late").await.unwrap_err().message(), "election: not leader");
    let mut values = Vec::new();
    while values.last().map(String::as_str) != Some("two") {
        let answer = tokio::time::timeout(PATIENCE, observed.message()).await.unwrap().unwrap().unwrap();
        values.push(String::from_utf8(answer.kv.unwrap().value.to_vec()).unwrap());
    }
    // The observer may come to the first leader after it has proclaimed, but sees leaders in order.
    assert!(values == ["one", "one again", "two"] || values == ["one again", "two"], "{values:?}");
    server.stop().await;
}
