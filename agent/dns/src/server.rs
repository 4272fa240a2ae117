//! The sockets: UDP and TCP on the cluster DNS address, bounded in concurrent questions.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::{Message, MessageType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    answer::{Outcome, Zone},
    forward::Forwarder,
    records::Cluster,
};

/// Questions under way at once; more are dropped, and the client asks again.
const MAX_IN_FLIGHT: usize = 1024;
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Without EDNS an answer over UDP has at most this many bytes.
const PLAIN_UDP: u16 = 512;
const MAX_UDP: u16 = 4096;

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
    in_flight: Arc<Semaphore>,
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
        in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
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
        let Ok(permit) = resolver.in_flight.clone().try_acquire_owned() else { continue };
        let (socket, resolver, raw) = (socket.clone(), resolver.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = resolver.resolve(&raw, Transport::Udp).await {
                drop(socket.send_to(&answer, client).await);
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let Ok(permit) = resolver.in_flight.clone().try_acquire_owned() else { continue };
        let resolver = resolver.clone();
        tokio::spawn(async move {
            // A peer that hangs up or breaks the protocol loses its connection, nothing more.
            drop(serve_stream(stream, &resolver).await);
            drop(permit);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let length = timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut raw = vec![0; usize::from(length)];
        timeout(TCP_IDLE, stream.read_exact(&mut raw)).await??;
        let Some(answer) = resolver.resolve(&raw, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(|_| std::io::Error::other("answer too long"))?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl Resolver {
    /// `None` for what is no question: it gets no answer, so that two servers never talk in a circle.
    async fn resolve(&self, raw: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = Message::from_vec(raw).ok()?;
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        match self.zone.answer(&question, &self.cluster) {
            Outcome::Forward => Some(self.forwarder.ask(&question, raw).await),
            Outcome::Answer(answer) => encode(&answer, &question, transport),
        }
    }
}

fn encode(answer: &Message, question: &Message, transport: Transport) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let limit = question.edns.as_ref().map_or(PLAIN_UDP, |e| e.max_payload().clamp(PLAIN_UDP, MAX_UDP));
    if transport == Transport::Udp && bytes.len() > usize::from(limit) {
        return answer.truncate().to_vec().ok();
    }
    Some(bytes)
}
