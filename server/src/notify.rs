//! Tells systemd how the start goes (`Type=notify`): a datagram to the socket named by `NOTIFY_SOCKET`. Without one, nothing.
//!
//! Answers to sd_notify(3).

use std::os::{
    linux::net::SocketAddrExt,
    unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
};

/// Says that this process does its work now.
pub fn ready() {
    say("READY=1");
}

/// Says that it begins to stop.
pub fn stopping() {
    say("STOPPING=1");
}

fn say(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // A leading @ stands for the null byte of an abstract address.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "the service manager was not told");
    }
}
