//! The tunnel from a node to a server: what the server dials through it, the node connects to.
//!
//! A server that is no node has no route to pods, and none at all to a node behind NAT. So each agent opens a connection to every server,
//! under its client certificate, and asks for an upgrade; then the roles turn: the server speaks HTTP/2 to the agent, one `CONNECT` for each
//! connection it wants (RFC 9113, section 8.5). Upstream's seam for this is the egress selector of konnectivity; k3s calls its own one the
//! remote dialer.
//!
//! Owns the protocol: both ends, their limits, and how a failed connection is told. Must not: decide which node holds an address (the
//! server's egress does) or which addresses may be reached (the caller of [`serve`] does).

mod dialer;
mod opener;

pub use dialer::{Dialer, TunnelStream};
pub use opener::serve;

use std::time::Duration;

/// The path on the API server that agents ask.
pub const PATH: &str = "/trireme/v1/tunnel";
/// What the connection is upgraded to.
pub const PROTOCOL: &str = "trireme-tunnel-v1";

/// Connections at the same time through one tunnel.
const STREAMS_MAX: u32 = 1024;
/// What may be under way in each direction of one connection, and of all of them.
const STREAM_WINDOW: u32 = 256 * 1024;
const TUNNEL_WINDOW: u32 = 4 * 1024 * 1024;
/// How often an end looks whether the other one is there, and how long it waits for the answer.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The headers of one request or answer.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// The longest reason that one end takes from the other.
const REASON_BYTES_MAX: usize = 1024;
