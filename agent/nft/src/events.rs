//! The kernel's notifications of changes to nftables (netlink, group `NFNLGRP_NFTABLES`).
//!
//! [`parse`] is pure and reads one datagram. Answers to `include/uapi/linux/netfilter/nf_tables.h`.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt};
use tokio::io::unix::AsyncFd;

use crate::Error;

const NETLINK_HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
/// Attribute 1 of every message but this one names the table.
const NEW_GENERATION: u8 = 15;
const TABLE_ATTRIBUTE: u16 = 1;
/// `1 << (NFNLGRP_NFTABLES - 1)`.
const GROUPS: u32 = 1 << 6;
/// A transaction that loads thousands of services announces each element; what does not fit is reported as lost.
const RECEIVE_BUFFER: usize = 4 << 20;
const MAX_DATAGRAM: usize = 64 << 10;

/// What happened to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Added,
    /// It was removed.
    Removed,
    /// Something in it changed.
    Content,
}

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The table's family (`NFPROTO_*`).
    pub family: u8,
    /// The table's name.
    pub table: String,
    /// What happened.
    pub change: Change,
}

/// The events in one datagram. Stops at the first message that breaks the format.
pub fn parse(datagram: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while let Some((message, after)) = split_message(rest) {
        events.extend(event(message));
        rest = after;
    }
    events
}

/// The first netlink message and what follows it.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let message = bytes.get(..length).filter(|m| m.len() >= NETLINK_HEADER)?;
    let padded = length.checked_next_multiple_of(4)?.min(bytes.len());
    Some((message, &bytes[padded..]))
}

fn event(message: &[u8]) -> Option<Event> {
    let [kind, subsystem] = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?).to_le_bytes();
    if subsystem != SUBSYSTEM || kind == NEW_GENERATION {
        return None;
    }
    let family = *message.get(NETLINK_HEADER)?;
    let attributes = message.get(NETLINK_HEADER + NETFILTER_HEADER..)?;
    let table = attribute(attributes, TABLE_ATTRIBUTE)?;
    let table = String::from_utf8_lossy(table.strip_suffix(&[0]).unwrap_or(table)).into_owned();
    let change = match kind {
        NEW_TABLE => Change::Added,
        DELETE_TABLE => Change::Removed,
        _ => Change::Content,
    };
    Some(Event { family, table, change })
}

fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        // The two upper bits are flags.
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let payload = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(payload);
        }
        attributes = attributes.get(length.checked_next_multiple_of(4)?..)?;
    }
}

/// What came in.
#[derive(Debug)]
pub enum Received {
    /// These.
    Events(Vec<Event>),
    /// More than the socket could hold: anything may have happened.
    Lost,
}

/// A subscription to the changes in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Events {
    socket: AsyncFd<OwnedFd>,
}

impl Events {
    /// Subscribes; must be called on a tokio runtime.
    pub fn open() -> Result<Self, Error> {
        let listen = |e: nix::Error| Error::Listen(e.into());
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter).map_err(listen)?;
        // Needs CAP_NET_ADMIN, as loading rules does. Without it the default size stays.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).map_err(listen)?;
        // Its successor is unsafe code. An OwnedFd keeps its descriptor as long as it lives, which is what it asks for.
        #[allow(deprecated)]
        let socket = AsyncFd::new(socket).map_err(Error::Listen)?;
        Ok(Self { socket })
    }

    /// Waits for the next datagram.
    pub async fn next(&self) -> Result<Received, Error> {
        loop {
            let mut ready = self.socket.readable().await.map_err(Error::Listen)?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(received) => return received.map_err(Error::Listen),
                Err(_would_block) => {}
            }
        }
    }

    /// What has come in by now, without waiting.
    pub fn drain(&self) -> Result<Vec<Received>, Error> {
        let mut all = Vec::new();
        loop {
            match receive(self.socket.get_ref()) {
                Ok(received) => all.push(received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(Error::Listen(error)),
            }
        }
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Received> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => return Ok(Received::Events(parse(&buffer[..length]))),
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::ENOBUFS) => return Ok(Received::Lost),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(kind: u8, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        for (kind, payload) in attributes {
            body.extend(u16::try_from(payload.len() + 4).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*payload);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = u32::try_from(body.len() + 16).unwrap().to_ne_bytes().to_vec();
        message.extend(u16::from_le_bytes([kind, SUBSYSTEM]).to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn each_message_names_its_table() {
        let mut datagram = message(DELETE_TABLE, 2, &[(7, b"x"), (0x8001, b"trireme\0")]);
        datagram.extend(message(6, 2, &[(1, b"filter\0")]));
        datagram.extend(message(NEW_GENERATION, 0, &[(1, &[0, 0, 0, 9])]));
        let expected = [("trireme", Change::Removed), ("filter", Change::Content)];
        let expected = expected.map(|(table, change)| Event { family: 2, table: table.into(), change });
        assert_eq!(parse(&datagram), expected);
    }

    #[test]
    fn broken_datagrams_end_without_harm() {
        let whole = message(NEW_TABLE, 2, &[(1, b"trireme\0")]);
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_empty());
        }
        for position in 0..whole.len() {
            for value in [0, 1, 4, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[position] = value;
                broken.extend(&whole);
                drop(parse(&broken));
            }
        }
    }
}
