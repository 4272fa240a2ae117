//! Both ends over a connection in memory, with real sockets behind the agent's end.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trireme_tunnel::{Dialer, serve};

/// A tunnel whose agent opens what `allowed` says.
async fn tunnel(allowed: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> (Dialer, JoinHandle<()>, CancellationToken) {
    let (server, agent) = tokio::io::duplex(64 * 1024);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move { serve(agent, Arc::new(allowed), stop).await });
    let (dialer, carried) = Dialer::start(server).await.unwrap();
    (dialer, tokio::spawn(carried), cancel)
}

/// Sends back what it gets, and ends when the other side does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_direction_ends_by_itself() {
    let address = echo().await;
    let (dialer, ..) = tunnel(|_| true).await;
    let connections: Vec<_> = (0..20u8)
        .map(|n| {
            let dialer = dialer.clone();
            tokio::spawn(async move {
                let mut stream = dialer.dial(address).await.unwrap();
                let sent = vec![n; 300_000];
                let (mut from, mut to) = tokio::io::split(&mut stream);
                let write = async {
                    to.write_all(&sent).await.unwrap();
                    to.shutdown().await.unwrap();
                };
                let mut got = Vec::new();
                let (_, read) = tokio::join!(write, from.read_to_end(&mut got));
                read.unwrap();
                assert_eq!(got, sent);
            })
        })
        .collect();
    for connection in connections {
        connection.await.unwrap();
    }
}

#[tokio::test]
async fn what_the_node_does_not_allow_and_what_refuses_are_told_apart() {
    let open = echo().await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (dialer, ..) = tunnel(move |address| address == open || address == closed).await;
    assert!(dialer.dial(open).await.is_ok());
    let refused = dialer.dial(closed).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(refused.to_string(), format!("dial tcp {closed}: connect: connection refused"));
    let denied = dialer.dial("127.0.0.1:22".parse().unwrap()).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_tunnel_that_ends_takes_its_connections_along() {
    let address = echo().await;
    let (dialer, carried, cancel) = tunnel(|_| true).await;
    let mut stream = dialer.dial(address).await.unwrap();
    cancel.cancel();
    carried.await.unwrap();
    assert!(dialer.is_closed());
    let ended = stream.read(&mut [0; 1]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(dialer.dial(address).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// The other end stands still without closing anything: only a ping shows it.
#[tokio::test(start_paused = true)]
async fn a_half_open_tunnel_is_noticed() {
    let (server, agent) = tokio::io::duplex(64 * 1024);
    let (agent_read, mut agent_write) = tokio::io::split(agent);
    // An HTTP/2 server's preface, and silence after it.
    agent_write.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let (dialer, carried) = Dialer::start(server).await.unwrap();
    carried.await;
    assert!(dialer.is_closed());
    drop((agent_read, agent_write));
}
