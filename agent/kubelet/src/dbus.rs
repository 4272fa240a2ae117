//! The part of D-Bus that a caller of systemd needs: connect, authenticate as our user, call a method, read its reply.
//!
//! Blocking, one call after the other, no signals. Must not be used on a thread that others wait for. Answers to
//! <https://dbus.freedesktop.org/doc/dbus-specification.html>.

mod body;
mod message;

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

pub(crate) use body::Body;
use message::{Header, Kind};

/// A service manager that does not answer within this is treated as absent.
const TIMEOUT: Duration = Duration::from_secs(25);
/// Longer lines are no part of the authentication.
const MAX_LINE_BYTES: usize = 512;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The connection broke, or the other side does not keep to the protocol.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side answered with an error.
    #[error("{name}: {message}")]
    Refused {
        /// The error's name, `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// What it says.
        message: String,
    },
}

impl CallError {
    /// Whether the other side answered with the error of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, CallError::Refused { name: found, .. } if found == name)
    }
}

/// A connection to one peer, without a bus between.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    /// Connects and authenticates.
    pub(crate) fn open(path: &Path) -> io::Result<Connection> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        // The user's number in decimal, each digit in hexadecimal.
        let uid: String = nix::unistd::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        // In one piece, and no call before the answer: systemd does not look at a call that arrives in one read with `BEGIN` until
        // something else arrives.
        stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
        let answer = read_line(&mut stream)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("authentication refused: {answer}")));
        }
        Ok(Connection { stream, serial: 0 })
    }

    /// Calls a method; returns the body of its reply.
    pub(crate) fn call(&mut self, destination: &str, path: &str, interface: &str, member: &str, body: &Body) -> Result<Vec<u8>, CallError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let serial = self.serial;
        self.stream.write_all(&message::call(serial, destination, path, interface, member, body))?;
        loop {
            let (header, body) = self.receive()?;
            if header.reply_to != Some(serial) {
                continue;
            }
            return match header.kind {
                Kind::Return => Ok(body),
                Kind::Error => Err(CallError::Refused {
                    name: header.error_name.unwrap_or_default(),
                    message: if header.signature.starts_with('s') { body::first_string(&body).unwrap_or_default() } else { String::new() },
                }),
                Kind::Other => continue,
            };
        }
    }

    fn receive(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let mut fixed = [0; message::FIXED_LEN];
        self.stream.read_exact(&mut fixed)?;
        let lengths = message::lengths(&fixed)?;
        let mut fields = vec![0; lengths.fields];
        self.stream.read_exact(&mut fields)?;
        let mut body = vec![0; lengths.body];
        self.stream.read_exact(&mut body)?;
        Ok((Header::parse(&fixed, &fields)?, body))
    }
}

fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the authentication is too long"));
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_string())
}

/// Whether systemd is taking this host down. A host without systemd is not asked.
pub(crate) fn host_is_stopping() -> bool {
    let socket = Path::new("/run/systemd/private");
    match system_state(socket) {
        Ok(state) => state == "stopping",
        Err(error) => {
            if socket.exists() {
                tracing::warn!(%error, "systemd does not say whether the host is shutting down: pods run on");
            }
            false
        }
    }
}

fn system_state(socket: &Path) -> Result<String, CallError> {
    let mut body = Body::default();
    body.string("org.freedesktop.systemd1.Manager");
    body.string("SystemState");
    let mut connection = Connection::open(socket)?;
    let reply =
        connection.call("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.DBus.Properties", "Get", &body)?;
    Ok(body::first_variant_string(&reply).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speaks the other side of the protocol for one call, with fixed bytes.
    #[test]
    fn d13_a_call_is_authenticated_sent_and_answered() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("bus");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // As systemd does: what comes in one read with `BEGIN` is not looked at before something else comes.
            let mut first = [0; 512];
            let length = stream.read(&mut first).unwrap();
            let first = String::from_utf8_lossy(&first[..length]).into_owned();
            assert!(first.starts_with("\0AUTH EXTERNAL 3") && first.ends_with("\r\nBEGIN\r\n"), "{first:?}");
            stream.set_nonblocking(true).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "nothing follows before the answer");
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
            let mut connection = Connection { stream, serial: 0 };
            for answer in [message::error_reply(1, "org.freedesktop.systemd1.NoSuchUnit", "no such unit"), message::return_reply(2)] {
                let (header, body) = connection.receive().unwrap();
                assert_eq!((header.signature.as_str(), body::first_string(&body).as_deref()), ("s", Some("x.slice")));
                connection.stream.write_all(&answer).unwrap();
            }
        });
        let mut connection = Connection::open(&socket).unwrap();
        let mut body = Body::default();
        body.string("x.slice");
        let mut call = || connection.call("a.b", "/a/b", "a.b.C", "StopUnit", &body);
        let refused = call().unwrap_err();
        assert!(refused.is("org.freedesktop.systemd1.NoSuchUnit"), "{refused}");
        assert_eq!(refused.to_string(), "org.freedesktop.systemd1.NoSuchUnit: no such unit");
        assert!(call().unwrap().is_empty());
        peer.join().unwrap();
    }
}
