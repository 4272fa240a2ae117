//! A real server on loopback, and a resolver outside that knows one name.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use tokio_util::sync::CancellationToken;
use trireme_client::Event;
use trireme_dns::{Cluster, DnsOptions, forward::Forwarder};

const OURS: &str = "127.63.0.1:5300";
const OUTSIDE: &str = "127.63.0.2:53";

fn question(name: &str) -> Message {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    question
}

/// Knows `example.org`, and nothing else.
async fn outside() {
    let socket = UdpSocket::bind(OUTSIDE).await.unwrap();
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = Message::from_vec(&buffer[..length]).unwrap();
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        let query = asked.queries[0].clone();
        match query.name().to_ascii().as_str() {
            "example.org." => drop(answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A([192, 0, 2, 7].into()))))),
            _ => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer.add_query(query);
        socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    }
}

async fn udp(name: &str) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name).to_vec().unwrap(), OURS).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(30), socket.recv(&mut buffer)).await.unwrap().unwrap();
    shown(&buffer[..length])
}

fn shown(bytes: &[u8]) -> String {
    let answer = Message::from_vec(bytes).unwrap();
    let data: Vec<String> = answer.answers.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
    format!("{}: {}", answer.metadata.response_code, data.join(", "))
}

async fn tcp(stream: &mut TcpStream, name: &str) -> String {
    let raw = question(name).to_vec().unwrap();
    stream.write_all(&[&u16::try_from(raw.len()).unwrap().to_be_bytes()[..], &raw].concat()).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    shown(&answer)
}

#[tokio::test]
async fn d10_an_external_name_comes_with_its_addresses_and_idle_connections_starve_nobody() {
    tokio::spawn(outside());
    let folder = std::env::temp_dir().join(format!("trireme-dns-test-{}", std::process::id()));
    std::fs::write(&folder, format!("nameserver {}\n", OUTSIDE.parse::<SocketAddr>().unwrap().ip())).unwrap();
    let cluster = Arc::new(Cluster::default());
    for (name, target) in [("out", "example.org"), ("gone", "missing.example.org")] {
        let service = json!({"metadata": {"namespace": "default", "name": name}, "spec": {"type": "ExternalName", "externalName": target}});
        cluster.on_service(&Event::Added(Arc::new(serde_json::from_value(service).unwrap())));
    }
    cluster.set_complete();
    let options =
        DnsOptions { address: OURS.parse().unwrap(), domain: "cluster.local".into(), forwarder: Forwarder::from_resolv_conf(&folder, &[]) };
    tokio::spawn(trireme_dns::serve(options, cluster, CancellationToken::new()));
    let connect = async || {
        loop {
            match TcpStream::connect(OURS).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let mut stream = tokio::time::timeout(Duration::from_secs(30), connect()).await.unwrap();

    let expected = "No Error: out.default.svc.cluster.local. example.org., example.org. 192.0.2.7";
    assert_eq!(udp("out.default.svc.cluster.local.").await, expected);
    assert_eq!(tcp(&mut stream, "out.default.svc.cluster.local.").await, expected);
    assert!(udp("gone.default.svc.cluster.local.").await.starts_with("Non-Existent Domain: gone.default.svc.cluster.local. missing"));
    assert_eq!(udp("example.org.").await, "No Error: example.org. 192.0.2.7");

    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(OURS).await.unwrap());
    }
    assert_eq!(udp("out.default.svc.cluster.local.").await, expected, "600 idle connections");
    std::fs::remove_file(folder).unwrap();
}
