//! Questions for names that are not ours: passed on to the node's own resolvers, in order.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use hickory_proto::op::{Message, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const TRY_FOR: Duration = Duration::from_secs(2);
const MAX_RESOLVERS: usize = 3;

/// The resolvers to ask.
#[derive(Debug, Clone, Default)]
pub struct Forwarder {
    resolvers: Vec<SocketAddr>,
}

impl Forwarder {
    /// The nameservers of a resolv.conf, without `own` (asking ourselves would go in a circle).
    pub fn from_resolv_conf(path: &Path, own: &[IpAddr]) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self { resolvers: parse(&text, own) }
    }

    /// Asks until one answers; SERVFAIL if none does. A truncated answer is asked for again over TCP.
    pub async fn ask(&self, question: &Message, raw: &[u8]) -> Vec<u8> {
        for resolver in &self.resolvers {
            match timeout(TRY_FOR, ask_one(*resolver, raw, question.metadata.id)).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "resolver failed"),
                Err(_) => tracing::debug!(%resolver, "resolver did not answer in time"),
            }
        }
        let mut failure = Message::response(question.metadata.id, question.metadata.op_code);
        failure.metadata.response_code = ResponseCode::ServFail;
        failure.metadata.recursion_desired = question.metadata.recursion_desired;
        failure.metadata.recursion_available = true;
        failure.add_queries(question.queries.iter().cloned());
        failure.to_vec().unwrap_or_default()
    }
}

fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|ip| !own.contains(ip)).take(MAX_RESOLVERS).map(|ip| SocketAddr::new(ip, 53)).collect()
}

async fn ask_one(resolver: SocketAddr, question: &[u8], id: u16) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected: answers from anybody else never reach us.
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        if length < 12 || answer[..2] != id.to_be_bytes() {
            continue;
        }
        let truncated = answer[2] & 0x02 != 0;
        return if truncated { ask_over_tcp(resolver, question).await } else { Ok(answer.to_vec()) };
    }
}

async fn ask_over_tcp(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(|_| std::io::Error::other("question too long"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_is_never_a_resolver() {
        let own: IpAddr = [10, 43, 0, 10].into();
        let text = "# made by hand\nsearch lan\nnameserver 10.43.0.10\n nameserver 192.0.2.1\nnameserver junk\n";
        assert_eq!(parse(text, &[own]), [SocketAddr::from(([192, 0, 2, 1], 53))]);
    }
}
