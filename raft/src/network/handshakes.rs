//! Bounds the handshakes that run at the same time without letting strangers keep members out.
//!
//! A member finishes its handshake within milliseconds; a peer that only opens connections does not. So a new connection is always
//! accepted, and where there is no place the longest-running handshake is ended: of the same host if it has more than its share, else of
//! all.

use std::collections::VecDeque;

use tokio::task::AbortHandle;

/// Handshakes at the same time.
pub(super) const HANDSHAKES: usize = 64;
/// Handshakes of one host at the same time.
const OF_ONE_HOST: usize = 16;

/// A handshake that can be ended.
pub(super) trait Running {
    /// Whether it is over.
    fn is_over(&self) -> bool;
    /// Ends it.
    fn end(&self);
}

/// The running handshakes, the oldest first. Its owner is the one task that accepts.
pub(super) struct Handshakes<R> {
    running: VecDeque<(String, R)>,
}

// === impl Handshakes ===

impl<R: Running> Handshakes<R> {
    pub(super) fn new() -> Handshakes<R> {
        Handshakes { running: VecDeque::with_capacity(HANDSHAKES) }
    }

    /// Makes room for one more handshake with `from` (`host:port`).
    pub(super) fn make_room(&mut self, from: &str) {
        self.running.retain(|(_, handshake)| !handshake.is_over());
        let host = host(from);
        let own = self.running.iter().filter(|(other, _)| other == host).count();
        let oldest = match own >= OF_ONE_HOST {
            true => self.running.iter().position(|(other, _)| other == host),
            false => (self.running.len() >= HANDSHAKES).then_some(0),
        };
        if let Some((_, handshake)) = oldest.and_then(|at| self.running.remove(at)) {
            handshake.end();
        }
    }

    /// Counts a handshake with `from` that has begun.
    pub(super) fn begun(&mut self, from: &str, handshake: R) {
        self.running.push_back((host(from).to_owned(), handshake));
    }
}

impl Running for AbortHandle {
    fn is_over(&self) -> bool {
        self.is_finished()
    }

    fn end(&self) {
        self.abort();
    }
}

fn host(from: &str) -> &str {
    from.rsplit_once(':').map_or(from, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    impl Running for Rc<Cell<bool>> {
        fn is_over(&self) -> bool {
            self.get()
        }

        fn end(&self) {
            self.set(true);
        }
    }

    fn begin(handshakes: &mut Handshakes<Rc<Cell<bool>>>, from: &str) -> Rc<Cell<bool>> {
        let over = Rc::new(Cell::new(false));
        handshakes.make_room(from);
        handshakes.begun(from, over.clone());
        over
    }

    #[test]
    fn security_17_strangers_that_hold_connections_keep_no_member_out() {
        let mut handshakes = Handshakes::new();
        let one_host: Vec<_> = (0..100).map(|port| begin(&mut handshakes, &format!("10.0.0.1:{port}"))).collect();
        assert_eq!(one_host.iter().filter(|over| !over.get()).count(), OF_ONE_HOST, "a host ends its own oldest ones");
        let member = begin(&mut handshakes, "10.0.0.2:1");
        assert!(!member.get());
        let many: Vec<_> = (0..200).map(|host| begin(&mut handshakes, &format!("10.9.0.{host}:1"))).collect();
        assert_eq!(many.iter().filter(|over| !over.get()).count(), HANDSHAKES, "all together are bounded");
        assert!(!many.last().unwrap().get(), "the newest one is let in");
        assert!(handshakes.running.len() <= HANDSHAKES);
    }

    #[test]
    fn what_is_over_takes_no_place() {
        let mut handshakes = Handshakes::new();
        let first = begin(&mut handshakes, "10.0.0.3:1");
        for port in 0..1000 {
            begin(&mut handshakes, &format!("10.0.0.3:{port}")).set(true);
        }
        assert!(!first.get());
    }
}
