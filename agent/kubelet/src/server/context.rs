//! What the handlers of the kubelet API share.

use std::sync::Arc;

use super::{auth::Auth, removals::Removals};
use crate::{core::Core, pods::Pods};

/// The kubelet as its API sees it.
pub(crate) struct Api {
    pub(super) core: Arc<Core>,
    pub(super) pods: Arc<Pods>,
    pub(super) auth: Auth,
    pub(super) removals: Removals,
}
