//! The user of a request: the identity that authentication determines and that authorization, admission and audit read.
//!
//! Answers to upstream's `user.Info`. Holds no credential.

use std::collections::BTreeMap;

/// The group of every authenticated user.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// The group of requests without credentials.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of all kubelets.
pub const GROUP_NODES: &str = "system:nodes";
/// The group that authorization always allows.
pub const GROUP_MASTERS: &str = "system:masters";
/// The name of requests without credentials.
pub const USER_ANONYMOUS: &str = "system:anonymous";

/// An identity: name, groups and whatever else the authenticator learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The user's name, for example `system:node:worker-1`.
    pub name: String,
    /// A unique id of the user, empty when the authenticator has none.
    pub uid: String,
    /// The groups the user is in.
    pub groups: Vec<String>,
    /// Further facts, such as `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An identity of only a name and groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> UserInfo {
        UserInfo { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..UserInfo::default() }
    }

    /// The identity of a request without credentials.
    pub fn anonymous() -> UserInfo {
        UserInfo::new(USER_ANONYMOUS, &[GROUP_UNAUTHENTICATED])
    }

    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// A part of this process as a client: its identity, and the fence that its writes carry.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity of the caller.
    pub user: UserInfo,
    /// The leadership under which the caller writes; `None` for unfenced callers.
    pub fence: Option<trireme_raft::Fence>,
}
