//! Questions for names that are not ours: passed on to the node's own resolvers, in order.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::packet::Transport;

const TRY_FOR: Duration = Duration::from_secs(2);
const MAX_RESOLVERS: usize = 3;
/// The largest resolv.conf that is read.
const MAX_FILE: u64 = 64 << 10;

/// The resolvers to ask. Clones share them.
#[derive(Debug, Clone)]
pub struct Forwarder {
    path: PathBuf,
    own: Vec<IpAddr>,
    known: Arc<Mutex<Known>>,
}

/// What the file said when it was last changed.
#[derive(Debug, Default)]
struct Known {
    changed: Option<SystemTime>,
    resolvers: Vec<SocketAddr>,
}

impl Forwarder {
    /// The nameservers of a resolv.conf, without `own` (asking ourselves would go in a circle). Changes of the file are followed.
    pub fn from_resolv_conf(path: &Path, own: &[IpAddr]) -> Self {
        Self { path: path.to_owned(), own: own.to_vec(), known: Arc::default() }
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        let changed = std::fs::metadata(&self.path).and_then(|m| m.modified()).ok();
        let mut known = self.known.lock();
        if changed.is_none() || changed != known.changed {
            let text = read_bounded(&self.path).unwrap_or_default();
            *known = Known { changed, resolvers: parse(&text, &self.own) };
        }
        known.resolvers.clone()
    }

    /// Asks until one answers. A truncated answer is asked for again over TCP, unless the client will do that itself.
    pub(crate) async fn ask(&self, question: &[u8], id: u16, transport: Transport) -> Option<Vec<u8>> {
        for resolver in self.resolvers() {
            match timeout(TRY_FOR, ask_one(resolver, question, id, transport)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "resolver failed"),
                Err(_) => tracing::debug!(%resolver, "resolver did not answer in time"),
            }
        }
        None
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|ip| !own.contains(ip)).take(MAX_RESOLVERS).map(|ip| SocketAddr::new(ip, 53)).collect()
}

async fn ask_one(resolver: SocketAddr, question: &[u8], id: u16, transport: Transport) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel drops datagrams from any other address.
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
        return if truncated && transport == Transport::Tcp { ask_over_tcp(resolver, question).await } else { Ok(answer.to_vec()) };
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
