//! Limits the memory that the bodies of all requests take.
//!
//! One user cannot take all of it, and nodes and the cluster's own components have a reserve, so that leases are renewed and statuses
//! are reported under any load from other users.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::user::{GROUP_MASTERS, GROUP_NODES, UserInfo};

/// The limit of all bodies together, in bytes.
const SHARED_BYTES: usize = 128 * 1024 * 1024;
/// The additional reserve for nodes and components, in bytes.
const RESERVE_BYTES: usize = 32 * 1024 * 1024;
/// The limit of the bodies of one user, in bytes.
const USER_BYTES: usize = 48 * 1024 * 1024;
/// The same for a node: it sends few bodies at once.
const NODE_BYTES: usize = 8 * 1024 * 1024;
/// Groups that may take from the reserve.
const RESERVED_FOR: [&str; 3] = [GROUP_NODES, GROUP_MASTERS, "system:serviceaccounts:kube-system"];

/// The memory that bodies take. Cheap to clone.
#[derive(Clone, Default)]
pub struct BodyBudget {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    total: usize,
    /// Users with bodies in memory only.
    by_user: HashMap<String, usize>,
}

/// The memory of one body; dropping it gives it back.
pub struct Room {
    budget: BodyBudget,
    user: String,
    user_limit: usize,
    total_limit: usize,
    bytes: usize,
}

impl BodyBudget {
    /// No bytes yet, of this user's budget.
    pub fn room(&self, user: &UserInfo) -> Room {
        let reserved = RESERVED_FOR.iter().any(|group| user.in_group(group));
        Room {
            budget: self.clone(),
            user: user.name.clone(),
            user_limit: if user.in_group(GROUP_NODES) { NODE_BYTES } else { USER_BYTES },
            total_limit: if reserved { SHARED_BYTES + RESERVE_BYTES } else { SHARED_BYTES },
            bytes: 0,
        }
    }
}

impl Room {
    /// Takes so many bytes more; false if they are not to be had.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut state = self.budget.state.lock();
        let total = state.total.saturating_add(bytes);
        let own = state.by_user.get(&self.user).copied().unwrap_or(0).saturating_add(bytes);
        if total > self.total_limit || own > self.user_limit {
            return false;
        }
        state.total = total;
        state.by_user.insert(self.user.clone(), own);
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        state.total = state.total.saturating_sub(self.bytes);
        let left = state.by_user.get(&self.user).copied().unwrap_or(0).saturating_sub(self.bytes);
        if left == 0 {
            state.by_user.remove(&self.user);
        } else {
            state.by_user.insert(self.user.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_05_one_user_leaves_room_for_others_and_all_users_leave_the_reserve() {
        let budget = BodyBudget::default();
        let user = |name: &str, groups: &[&str]| UserInfo::new(name, groups);
        let mut first = budget.room(&user("a", &[]));
        assert!(first.grow(USER_BYTES) && !first.grow(1), "a user's budget ends");
        let mut second = budget.room(&user("b", &[]));
        assert!(second.grow(USER_BYTES));
        let mut third = budget.room(&user("c", &[]));
        assert!(third.grow(SHARED_BYTES - 2 * USER_BYTES) && !third.grow(1), "the shared budget ends");
        let mut node = budget.room(&user("system:node:n", &[GROUP_NODES]));
        assert!(node.grow(NODE_BYTES) && !node.grow(1), "a node has the reserve, and a budget too");
        assert!(budget.room(&user("admin", &[GROUP_MASTERS])).grow(1));
        drop(first);
        assert!(third.grow(1), "what is answered is given back");
        drop((second, third, node));
        let state = budget.state.lock();
        assert_eq!((state.total, state.by_user.len()), (0, 0), "nothing is left behind");
    }
}
