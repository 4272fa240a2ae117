//! The sockets: UDP and TCP on the cluster DNS address.
//!
//! Names of the cluster are answered where they are read: no client can delay that for others. What has to be asked elsewhere, and
//! connections, are bounded, in all and for one client.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::{Message, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    answer::{MAX_UDP, Outcome, Zone},
    budget::Budget,
    forward::Forwarder,
    packet::{self, Reply, Transport},
    records::Cluster,
};

/// Questions for other resolvers under way at once; more are dropped, and the client asks again.
const MAX_FORWARDED: usize = 1024;
const MAX_FORWARDED_PER_CLIENT: usize = 256;
const MAX_CONNECTIONS: usize = 512;
const MAX_CONNECTIONS_PER_CLIENT: usize = 64;
/// How long a connection may wait for its next question, and a client may take to read an answer.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Records that another resolver may add to an answer of ours.
const MAX_FOLLOWED: usize = 64;

/// What the DNS server is told at start.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// Where to listen: the cluster DNS address, port 53.
    pub address: SocketAddr,
    /// The cluster domain.
    pub domain: String,
    /// Where other names are asked for.
    pub forwarder: Forwarder,
}

struct Resolver {
    zone: Zone,
    cluster: Arc<Cluster>,
    forwarder: Forwarder,
    forwarded: Budget,
    connections: Budget,
}

/// Answers until cancelled.
pub async fn serve(options: DnsOptions, cluster: Arc<Cluster>, cancel: CancellationToken) -> Result<(), Error> {
    let address = options.address;
    let refused = |source| Error::Listen { address, source };
    let udp = UdpSocket::bind(address).await.map_err(refused)?;
    let tcp = TcpListener::bind(address).await.map_err(refused)?;
    let resolver = Arc::new(Resolver {
        zone: Zone::new(&options.domain)?,
        cluster,
        forwarder: options.forwarder,
        forwarded: Budget::new(MAX_FORWARDED, MAX_FORWARDED_PER_CLIENT),
        connections: Budget::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_CLIENT),
    });
    tracing::info!(%address, domain = options.domain, "cluster DNS answers");
    tokio::select! {
        () = serve_udp(Arc::new(udp), resolver.clone()) => {}
        () = serve_tcp(tcp, resolver) => {}
        () = cancel.cancelled() => {}
    }
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut buffer = vec![0; usize::from(MAX_UDP)];
    loop {
        // An ICMP error of an earlier answer shows up here; it concerns that client only.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let raw = &buffer[..length];
        match packet::reply(raw, Transport::Udp, &resolver.zone, &resolver.cluster) {
            Reply::Silence => {}
            // A full send buffer loses the answer, as the network may.
            Reply::Bytes(answer) => drop(socket.try_send_to(&answer, client)),
            Reply::Ask(question, outcome) => {
                let Some(share) = resolver.forwarded.take(client.ip()) else { continue };
                let (socket, resolver, raw) = (socket.clone(), resolver.clone(), raw.to_vec());
                tokio::spawn(async move {
                    if let Some(answer) = resolver.ask(&question, outcome, &raw, Transport::Udp).await {
                        drop(socket.send_to(&answer, client).await);
                    }
                    drop(share);
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    loop {
        let Ok((stream, client)) = listener.accept().await else { continue };
        let Some(share) = resolver.connections.take(client.ip()) else { continue };
        let resolver = resolver.clone();
        tokio::spawn(async move {
            // A peer that hangs up or breaks the protocol loses its connection, nothing more.
            drop(serve_stream(stream, &resolver).await);
            drop(share);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let length = timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut raw = vec![0; usize::from(length)];
        timeout(TCP_IDLE, stream.read_exact(&mut raw)).await??;
        let answer = match packet::reply(&raw, Transport::Tcp, &resolver.zone, &resolver.cluster) {
            Reply::Silence => None,
            Reply::Bytes(answer) => Some(answer),
            Reply::Ask(question, outcome) => resolver.ask(&question, outcome, &raw, Transport::Tcp).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(|_| std::io::Error::other("answer too long"))?;
        let frame = [&length.to_be_bytes()[..], &answer].concat();
        timeout(TCP_IDLE, stream.write_all(&frame)).await??;
    }
}

impl Resolver {
    async fn ask(&self, question: &Message, outcome: Outcome, raw: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match outcome {
            Outcome::Answer(answer) => packet::encode(&answer, question, transport),
            Outcome::Forward => match self.forwarder.ask(raw, question.metadata.id, transport).await {
                Some(answer) => Some(answer),
                None => packet::encode(&packet::failure(question), question, transport),
            },
            Outcome::Follow(mut answer, next) => {
                let mut inquiry = Message::query();
                inquiry.metadata.recursion_desired = true;
                inquiry.add_query(next);
                let found = match inquiry.to_vec() {
                    // Over TCP where it is long: all of it is wanted.
                    Ok(raw) => self.forwarder.ask(&raw, inquiry.metadata.id, Transport::Tcp).await,
                    Err(_) => None,
                };
                match found.and_then(|bytes| Message::from_vec(&bytes).ok()) {
                    Some(found) => {
                        answer.metadata.response_code = found.metadata.response_code;
                        answer.add_answers(found.answers.into_iter().take(MAX_FOLLOWED));
                    }
                    None => answer.metadata.response_code = ResponseCode::ServFail,
                }
                packet::encode(&answer, question, transport)
            }
        }
    }
}
