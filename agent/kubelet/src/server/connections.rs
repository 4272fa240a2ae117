//! Bounds the connections to the kubelet API whose peers have not been authenticated yet.
//!
//! A peer is unverified until its client certificate has been checked; pods, which reach this port too, never get further. The number
//! of unverified connections is bounded for each address and in all, and room is made by closing the oldest one of the address that holds
//! the most: so a pod that opens connections closes its own, and a server's handshake always gets a place. Verified peers have a budget
//! of their own.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How many connections may be open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Unverified ones of one address.
    pub(crate) unverified_per_peer: usize,
    /// Unverified ones of all addresses.
    pub(crate) unverified: usize,
    /// Those whose certificate is checked.
    pub(crate) verified: usize,
}

/// The connections that are open.
pub(crate) struct Connections {
    budget: Budget,
    unverified: Mutex<Unverified>,
    verified: AtomicUsize,
}

#[derive(Default)]
struct Unverified {
    by_peer: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
    total: usize,
    next_id: u64,
}

/// The place of one connection; given back when it is dropped.
pub(crate) struct Place {
    all: Arc<Connections>,
    peer: IpAddr,
    id: u64,
    is_verified: bool,
    closed: CancellationToken,
}

impl Connections {
    pub(crate) fn new(budget: Budget) -> Arc<Connections> {
        Arc::new(Connections { budget, unverified: Mutex::default(), verified: AtomicUsize::new(0) })
    }

    /// A place for a new connection. Others may be closed for it.
    pub(crate) fn admit(self: &Arc<Connections>, peer: IpAddr) -> Place {
        let closed = CancellationToken::new();
        let mut state = self.unverified.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.by_peer.entry(peer).or_default().push_back((id, closed.clone()));
        state.total += 1;
        if state.by_peer.get(&peer).map_or(0, VecDeque::len) > self.budget.unverified_per_peer {
            state.close_oldest(peer);
        }
        if state.total > self.budget.unverified
            && let Some(largest) = state.by_peer.iter().max_by_key(|(_, open)| open.len()).map(|(peer, _)| *peer)
        {
            state.close_oldest(largest);
        }
        Place { all: self.clone(), peer, id, is_verified: false, closed }
    }
}

impl Unverified {
    fn close_oldest(&mut self, peer: IpAddr) {
        if let Some((_, token)) = self.by_peer.get_mut(&peer).and_then(VecDeque::pop_front) {
            token.cancel();
            self.total -= 1;
        }
        self.forget_empty(peer);
    }

    fn remove(&mut self, peer: IpAddr, id: u64) {
        if let Some(open) = self.by_peer.get_mut(&peer) {
            let before = open.len();
            open.retain(|(other, _)| *other != id);
            self.total -= before - open.len();
        }
        self.forget_empty(peer);
    }

    fn forget_empty(&mut self, peer: IpAddr) {
        if self.by_peer.get(&peer).is_some_and(VecDeque::is_empty) {
            self.by_peer.remove(&peer);
        }
    }
}

impl Place {
    /// Fires when the connection has to make room.
    pub(crate) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// The peer's certificate is checked: it no longer counts among the unverified, and is not closed for others. False when there are
    /// too many verified ones.
    pub(crate) fn verify(&mut self) -> bool {
        let taken = self.all.verified.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < self.all.budget.verified).then(|| n + 1));
        if taken.is_ok() {
            self.all.unverified.lock().remove(self.peer, self.id);
            self.is_verified = true;
        }
        taken.is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_verified {
            self.all.verified.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.all.unverified.lock().remove(self.peer, self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 42, 0, last].into()
    }

    #[test]
    fn security_17_whoever_opens_too_many_closes_its_own() {
        let all = Connections::new(Budget { unverified_per_peer: 3, unverified: 5, verified: 1 });
        let greedy: Vec<Place> = (0..4).map(|_| all.admit(ip(1))).collect();
        let closed = |places: &[Place]| places.iter().map(|p| p.closed.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(closed(&greedy), [true, false, false, false]);
        let other: Vec<Place> = (0..2).map(|_| all.admit(ip(2))).collect();
        let mut server = all.admit(ip(3));
        assert_eq!(closed(&greedy), [true, true, false, false], "the largest makes room");
        assert!(!other.iter().any(|p| p.closed.is_cancelled()) && !server.closed.is_cancelled());
        assert!(server.verify());
        let more: Vec<Place> = (4..20).map(|n| all.admit(ip(n))).collect();
        assert!(!server.closed.is_cancelled() && more.iter().any(|p| p.closed.is_cancelled()));
        assert!(!all.admit(ip(3)).verify(), "verified ones have a budget too");
        drop(server);
        assert!(all.admit(ip(3)).verify());
        drop((greedy, other, more));
        let state = all.unverified.lock();
        assert_eq!((state.total, state.by_peer.len(), all.verified.load(Ordering::Acquire)), (0, 0, 0));
    }
}
