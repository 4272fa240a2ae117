//! The network between hosts: streams as TCP gives them, over links that can be slow, cut in one direction or both,
//! or lose a host without a word.
//!
//! A cut link delivers nothing and loses nothing, like TCP that retransmits; a caller's own time limit ends its wait.
//! A host that was killed closes its streams, one that lost power is silent until it is back and resets them then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use trireme_raft::{Accept, Transport, Wire};

use super::trace::Trace;

/// What may be under way in one direction of a stream.
const WINDOW_BYTES: usize = 256 << 10;
/// Streams that wait to be accepted.
const BACKLOG: usize = 64;

/// All links.
pub struct Net {
    state: Mutex<State>,
    trace: Arc<Trace>,
}

struct State {
    now_ms: u64,
    rng: StdRng,
    pipes: Vec<Arc<Mutex<Pipe>>>,
    listeners: BTreeMap<usize, mpsc::Sender<(SimWire, usize)>>,
    /// From, to.
    cut: BTreeSet<(usize, usize)>,
    /// The same for one half of what goes there.
    held: BTreeSet<(usize, usize, Half)>,
    /// Lost power: neither answer nor refuse.
    dark: BTreeSet<usize>,
    /// Milliseconds added to whatever a host sends.
    slow: BTreeMap<usize, u64>,
}

/// What goes one way between two hosts: on the streams that the sender opened, or on those that it accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Half {
    /// What it asks.
    Requests,
    /// What it answers.
    Answers,
}

/// One direction of a stream.
struct Pipe {
    from: usize,
    to: usize,
    half: Half,
    under_way: VecDeque<(u64, Bytes)>,
    under_way_bytes: usize,
    arrived: BytesMut,
    last_due: u64,
    /// The sender has closed it, to be noticed then.
    closed_at: Option<u64>,
    reset: bool,
    /// Its host lost power: nothing comes or goes until it is back.
    void: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct SimWire {
    net: Arc<Net>,
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
}

/// A host's access to the network.
pub struct SimTransport {
    net: Arc<Net>,
    host: usize,
}

struct SimAccept(mpsc::Receiver<(SimWire, usize)>);

/// Where a host listens for peers.
#[must_use]
pub fn address(host: usize) -> String {
    format!("h{host}:2380")
}

fn host_of(address: &str) -> Option<usize> {
    address.strip_prefix('h')?.strip_suffix(":2380")?.parse().ok()
}

// === impl Net ===

impl Net {
    /// A network without faults.
    #[must_use]
    pub fn new(seed: u64, trace: Arc<Trace>) -> Arc<Net> {
        let state = State {
            now_ms: 0,
            rng: StdRng::seed_from_u64(seed),
            pipes: Vec::new(),
            listeners: BTreeMap::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            dark: BTreeSet::new(),
            slow: BTreeMap::new(),
        };
        Arc::new(Net { state: Mutex::new(state), trace })
    }

    /// Time goes on: what is due arrives.
    pub fn deliver(&self, now_ms: u64) {
        let mut wake = Vec::new();
        // Dropped after the lock: dropping a waker may drop its task, and with it the other end of a stream, which takes the lock.
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            state.now_ms = now_ms;
            let State { pipes, cut, held, .. } = &mut *state;
            pipes.retain(|shared| {
                let mut pipe = shared.lock();
                if pipe.void || cut.contains(&(pipe.from, pipe.to)) || held.contains(&(pipe.from, pipe.to, pipe.half)) {
                    return true;
                }
                let mut any = false;
                while pipe.under_way.front().is_some_and(|(due, _)| *due <= now_ms) {
                    let Some((_, bytes)) = pipe.under_way.pop_front() else { break };
                    pipe.under_way_bytes -= bytes.len();
                    pipe.arrived.extend_from_slice(&bytes);
                    any = true;
                }
                let closed = pipe.under_way.is_empty() && pipe.closed_at.is_some_and(|at| at <= now_ms);
                if any {
                    self.trace.note(now_ms, &format!("net {}>{}", pipe.from, pipe.to));
                }
                if any || closed {
                    wake.extend(pipe.reader.take());
                    wake.extend(pipe.writer.take());
                }
                let over = closed || pipe.reset;
                if over {
                    gone.push(shared.clone());
                }
                !over
            });
        }
        wake.into_iter().for_each(Waker::wake);
    }

    /// Cuts or mends the link from one host to another.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        let mut state = self.state.lock();
        if cut {
            state.cut.insert((from, to));
        } else {
            state.cut.remove(&(from, to));
        }
    }

    /// Holds one half of what goes from one host to another under way, or lets it arrive.
    pub fn hold(&self, from: usize, to: usize, half: Half, held: bool) {
        let mut state = self.state.lock();
        if held {
            state.held.insert((from, to, half));
        } else {
            state.held.remove(&(from, to, half));
        }
    }

    /// Mends everything.
    pub fn mend(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.held.clear();
        state.slow.clear();
    }

    /// Delays whatever a host sends.
    pub fn slow(&self, host: usize, ms: u64) {
        self.state.lock().slow.insert(host, ms);
    }

    /// Resets all streams of a host, or some of them.
    pub fn reset(&self, host: usize, share: f64) {
        let mut wake = Vec::new();
        {
            let mut state = self.state.lock();
            let State { pipes, rng, .. } = &mut *state;
            for pipe in pipes.iter() {
                let mut pipe = pipe.lock();
                if (pipe.from == host || pipe.to == host) && rng.random_bool(share) {
                    pipe.reset = true;
                    pipe.void = false;
                    wake.extend(pipe.reader.take());
                    wake.extend(pipe.writer.take());
                }
            }
        }
        wake.into_iter().for_each(Waker::wake);
    }

    /// A host loses power. Call before its programs are dropped.
    pub fn darken(&self, host: usize) {
        let mut state = self.state.lock();
        state.dark.insert(host);
        state.listeners.remove(&host);
        for pipe in &state.pipes {
            let mut pipe = pipe.lock();
            if pipe.from == host || pipe.to == host {
                pipe.void = true;
            }
        }
    }

    /// A host is on again: its streams from before are reset.
    pub fn lighten(&self, host: usize) {
        self.state.lock().dark.remove(&host);
        self.reset(host, 1.0);
    }

    fn latency(state: &mut State, from: usize) -> u64 {
        let jitter = if state.rng.random_bool(0.02) { state.rng.random_range(5..30) } else { state.rng.random_range(1..3) };
        jitter + state.slow.get(&from).copied().unwrap_or(0)
    }

    fn open(self: &Arc<Self>, from: usize, to: usize) -> io::Result<SimWire> {
        let mut state = self.state.lock();
        let listener = state.listeners.get(&to).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        let pipe = |from, to, half| {
            Arc::new(Mutex::new(Pipe {
                from,
                to,
                half,
                under_way: VecDeque::new(),
                under_way_bytes: 0,
                arrived: BytesMut::new(),
                last_due: 0,
                closed_at: None,
                reset: false,
                void: false,
                reader: None,
                writer: None,
            }))
        };
        let (there, back) = (pipe(from, to, Half::Requests), pipe(to, from, Half::Answers));
        state.pipes.extend([there.clone(), back.clone()]);
        drop(state);
        let server = SimWire { net: self.clone(), incoming: there.clone(), outgoing: back.clone() };
        listener.try_send((server, from)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(SimWire { net: self.clone(), incoming: back, outgoing: there })
    }

    fn reachable(&self, from: usize, to: usize) -> bool {
        let state = self.state.lock();
        !state.dark.contains(&to) && !state.cut.contains(&(from, to)) && !state.cut.contains(&(to, from))
    }
}

// === impl SimTransport ===

impl SimTransport {
    /// For a host.
    #[must_use]
    pub fn new(net: Arc<Net>, host: usize) -> Arc<SimTransport> {
        Arc::new(SimTransport { net, host })
    }
}

impl Transport for SimTransport {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        let (net, from) = (self.net.clone(), self.host);
        async move {
            let to = host_of(&address).ok_or(io::ErrorKind::AddrNotAvailable)?;
            let round_trip = {
                let mut state = net.state.lock();
                Net::latency(&mut state, from) + Net::latency(&mut state, to)
            };
            tokio::time::sleep(Duration::from_millis(round_trip)).await;
            while !net.reachable(from, to) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(Box::new(net.open(from, to)?) as Box<dyn Wire>)
        }
        .boxed()
    }

    fn listen(&self) -> io::Result<Box<dyn Accept>> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.net.state.lock().listeners.insert(self.host, sender);
        Ok(Box::new(SimAccept(receiver)))
    }
}

impl Accept for SimAccept {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Wire>, String)>> {
        async move {
            let (wire, from) = self.0.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            Ok((Box::new(wire) as Box<dyn Wire>, format!("h{from}")))
        }
        .boxed()
    }
}

// === impl SimWire ===

impl AsyncRead for SimWire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let now_ms = self.net.state.lock().now_ms;
        let mut pipe = self.incoming.lock();
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if !pipe.arrived.is_empty() {
            let count = pipe.arrived.len().min(buf.remaining());
            buf.put_slice(&pipe.arrived[..count]);
            pipe.arrived.advance(count);
            let writer = pipe.writer.take();
            drop(pipe);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.under_way.is_empty() && pipe.closed_at.is_some_and(|at| at <= now_ms) {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SimWire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.net.state.lock();
        let mut pipe = self.outgoing.lock();
        if pipe.reset || pipe.closed_at.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.under_way_bytes + pipe.arrived.len() >= WINDOW_BYTES {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let due = (state.now_ms + Net::latency(&mut state, pipe.from)).max(pipe.last_due);
        pipe.last_due = due;
        pipe.under_way_bytes += bytes.len();
        pipe.under_way.push_back((due, Bytes::copy_from_slice(bytes)));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now_ms = self.net.state.lock().now_ms;
        self.outgoing.lock().closed_at.get_or_insert(now_ms + 1);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimWire {
    fn drop(&mut self) {
        let now_ms = self.net.state.lock().now_ms;
        let mut wake = Vec::new();
        {
            let mut outgoing = self.outgoing.lock();
            outgoing.closed_at.get_or_insert(now_ms + 1);
        }
        {
            // The reader is gone: the other side's next write fails.
            let mut incoming = self.incoming.lock();
            incoming.closed_at.get_or_insert(now_ms);
            wake.extend(incoming.writer.take());
        }
        wake.into_iter().for_each(Waker::wake);
    }
}
