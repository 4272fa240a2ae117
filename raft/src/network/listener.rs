//! Accepts peers: TCP, the TLS handshake with a deadline, and the check that the key is a member's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::directory::PeerDirectory;
use super::handshakes::{HANDSHAKES, Handshakes};
use super::refusals::Refusals;
use super::tls::spki_sha256;
use super::transport::{Accept, Wire};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The key at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct PeerKey(pub(crate) Bytes);

/// An authenticated connection. Its end is reported, however it comes.
pub(crate) struct PeerStream {
    tls: TlsStream<Box<dyn Wire>>,
    key: PeerKey,
    lost: mpsc::Sender<PeerKey>,
}

/// Accepts until cancelled; connections of known members come out of the returned channel. When one ends, its key
/// goes into `lost`.
pub(crate) fn accept_peers(
    mut listener: Box<dyn Accept>,
    config: ServerConfig,
    directory: Arc<PeerDirectory>,
    lost: mpsc::Sender<PeerKey>,
    cancel: CancellationToken,
) -> mpsc::Receiver<io::Result<PeerStream>> {
    let (sender, receiver) = mpsc::channel(HANDSHAKES);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let refusals = Arc::new(Refusals::default());
    tokio::spawn(async move {
        let mut handshakes = Handshakes::new();
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (wire, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: give others time to close some.
                    tracing::warn!(%error, "cannot accept a peer connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, directory, sender, lost) = (acceptor.clone(), directory.clone(), sender.clone(), lost.clone());
            let refusals = refusals.clone();
            handshakes.make_room(&from);
            let host = from.clone();
            let handshake = tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(acceptor, wire, &from, &directory, &refusals, lost)).await {
                    Ok(Ok(stream)) => {
                        // The server may be gone; then so is the connection.
                        let _ = sender.send(Ok(stream)).await;
                    }
                    // Bytes that are not the handshake of a member are logged. A connection that ends without any is a probe of the port and is not.
                    Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData && refusals.is_news(&from, Instant::now()) => {
                        tracing::warn!(%from, %error, "a connection to the peer port is refused: no member of this cluster (told once a minute)");
                    }
                    Ok(Err(error)) => tracing::debug!(%from, %error, "peer refused"),
                    Err(_) => tracing::debug!(%from, "peer handshake timed out"),
                }
            });
            handshakes.begun(&host, handshake.abort_handle());
        }
    });
    receiver
}

async fn handshake(
    acceptor: TlsAcceptor,
    wire: Box<dyn Wire>,
    from: &str,
    directory: &PeerDirectory,
    refusals: &Refusals,
    lost: mpsc::Sender<PeerKey>,
) -> io::Result<PeerStream> {
    let tls = acceptor.accept(wire).await?;
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("no client certificate"))?;
    let key = spki_sha256(certificate).map_err(io::Error::other)?;
    if !directory.knows_key(&key) && refusals.is_news(from, Instant::now()) {
        // The connection is accepted, since every call on it is checked against membership and refused with a reason. A removed member, or
        // one from before a reset, would otherwise see only a connection that fails.
        tracing::warn!(%from, key = hex::encode(&key), "a certified key that is not in the membership: its calls are refused");
    }
    Ok(PeerStream { tls, key: PeerKey(key), lost })
}

// === impl PeerStream ===

impl Drop for PeerStream {
    fn drop(&mut self) {
        // Only a hint that an elected leader may be gone: if the queue is full, losing it costs the time of an election timeout.
        let _ = self.lost.try_send(self.key.clone());
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerKey;

    fn connect_info(&self) -> PeerKey {
        self.key.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
