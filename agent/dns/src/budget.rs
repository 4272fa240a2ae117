//! How much may be under way at once, in all and for one client: one pod must not take the answers of all others.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

/// A bound. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    held: Arc<Mutex<Held>>,
    total: usize,
    per_client: usize,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    clients: HashMap<IpAddr, usize>,
}

/// One share, given back when dropped.
pub(crate) struct Share {
    budget: Budget,
    client: IpAddr,
}

impl Budget {
    pub(crate) fn new(total: usize, per_client: usize) -> Self {
        Self { held: Arc::default(), total, per_client }
    }

    /// A share for this client, unless it or all together have too many.
    pub(crate) fn take(&self, client: IpAddr) -> Option<Share> {
        let mut held = self.held.lock();
        let own = held.clients.get(&client).copied().unwrap_or_default();
        if held.total >= self.total || own >= self.per_client {
            return None;
        }
        held.total += 1;
        held.clients.insert(client, own + 1);
        Some(Share { budget: self.clone(), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.budget.held.lock();
        held.total -= 1;
        let left = held.clients.get(&self.client).copied().unwrap_or(1) - 1;
        match left {
            0 => drop(held.clients.remove(&self.client)),
            left => drop(held.clients.insert(self.client, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_all_and_shares_come_back() {
        let budget = Budget::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let (one, two) = (budget.take(a), budget.take(a));
        assert!(one.is_some() && two.is_some() && budget.take(a).is_none());
        let three = budget.take(b);
        assert!(three.is_some() && budget.take(b).is_none(), "three in all");
        drop(one);
        assert!(budget.take(b).is_some());
        drop((two, three));
        assert!(budget.held.lock().clients.is_empty());
    }
}
