//! The socket on which batches are sent.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt};

use super::batch::Batch;

/// A batch is sent as one datagram.
const SEND_BUFFER: usize = 1 << 20;
const MAX_DATAGRAM: usize = 64 << 10;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
const HEADER: usize = 16;

/// What the kernel says to a batch that it does not take.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The statement that it names, counted from 0; none if it is about the whole.
    pub(crate) statement: Option<usize>,
    pub(crate) source: io::Error,
}

/// A socket to nftables in the network namespace of the thread that opened it.
#[derive(Debug, Clone)]
pub(crate) struct Socket(Arc<OwnedFd>);

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        // Needs CAP_NET_ADMIN, as changing rules does.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER);
        Ok(Self(Arc::new(socket)))
    }

    /// Applies a batch as a whole, or nothing of it. The kernel does it while it is sent.
    pub(crate) async fn apply(&self, batch: Batch) -> Result<(), Refusal> {
        let socket = self.0.clone();
        // Another program's large transaction may hold the kernel's lock for seconds.
        let applied = tokio::task::spawn_blocking(move || apply(&socket, &batch)).await;
        applied.unwrap_or_else(|error| Err(whole(io::Error::other(error))))
    }
}

fn whole(source: io::Error) -> Refusal {
    Refusal { statement: None, source }
}

fn apply(socket: &OwnedFd, batch: &Batch) -> Result<(), Refusal> {
    let descriptor = socket.as_raw_fd();
    // Answers to a batch before this one that was not waited for.
    while read(descriptor).map_err(whole)?.is_some() {}
    match send(descriptor, &batch.bytes, MsgFlags::empty()) {
        Ok(sent) if sent == batch.bytes.len() => {}
        Ok(_) => return Err(whole(io::Error::from(io::ErrorKind::WriteZero))),
        Err(error) => return Err(whole(error.into())),
    }
    // All answers are there by now: the kernel handles the batch before the call returns.
    let mut is_acknowledged = false;
    while let Some(datagram) = read(descriptor).map_err(whole)? {
        for (sequence, error) in answers(&datagram) {
            if error != 0 {
                let statement = (1..=batch.statements).contains(&sequence).then(|| sequence as usize - 1);
                return Err(Refusal { statement, source: io::Error::from_raw_os_error(error) });
            }
            is_acknowledged |= sequence == batch.statements;
        }
    }
    match is_acknowledged {
        true => Ok(()),
        false => Err(whole(io::Error::other("the kernel does not answer"))),
    }
}

/// The next datagram, if there is one.
fn read(descriptor: i32) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match recv(descriptor, &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sequence number and `errno` (0: acknowledged) of each answer in a datagram.
fn answers(datagram: &[u8]) -> Vec<(u32, i32)> {
    let word = |at: usize| datagram.get(at..at + 4).and_then(|b| b.try_into().ok());
    let mut answers = Vec::new();
    let mut at = 0;
    while let (Some(length), Some(sequence)) = (word(at).map(u32::from_ne_bytes), word(at + 8).map(u32::from_ne_bytes)) {
        let kind = datagram.get(at + 4..at + 6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
        if let (Some(ERROR), Some(error)) = (kind, word(at + HEADER).map(i32::from_ne_bytes)) {
            answers.push((sequence, error.saturating_neg()));
        }
        let Some(next) = (length as usize).checked_next_multiple_of(4).filter(|l| *l >= HEADER) else { break };
        at += next;
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_broken_ones_end_the_datagram() {
        let answer = |sequence: u32, error: i32| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend(ERROR.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(error.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        let mut datagram = answer(3, -17);
        datagram.extend(answer(4, 0));
        assert_eq!(answers(&datagram), [(3, 17), (4, 0)]);
        for cut in 0..datagram.len() {
            drop(answers(&datagram[..cut]));
        }
        datagram[..4].copy_from_slice(&[0; 4]);
        assert_eq!(answers(&datagram), [(3, 17)]);
    }
}
