//! Peers: the protocol of `proto/peer.proto` over mutual TLS 1.3, both ends of it.
//!
//! Owns connections, handshakes, deadlines and the translation to openraft's network traits. Must not decide
//! anything: the permitted peers come from membership ([`directory`]), answers from the store.
//! The join handshake is not here: a stranger talks to the HTTPS API and gets a ticket (design section 3).

mod append;
pub(crate) mod client;
pub(crate) mod directory;
mod handshakes;
mod interest;
pub(crate) mod listener;
pub(crate) mod receive;
mod refusals;
mod rpc;
pub(crate) mod send;
pub(crate) mod service;
pub mod tls;
pub mod transport;

/// Metadata header with the hexadecimal cluster id.
pub(crate) const CLUSTER_HEADER: &str = "trireme-cluster";
/// Metadata header with the sender's node id.
pub(crate) const FROM_HEADER: &str = "trireme-from";
/// Metadata header with the receiver's node id.
pub(crate) const TO_HEADER: &str = "trireme-to";
/// Header of a refusal: the sender's id was a member's and is none any more. The value is that id.
pub(crate) const REMOVED_HEADER: &str = "trireme-removed";
/// Larger messages are refused. Append batches are cut well below it.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;
