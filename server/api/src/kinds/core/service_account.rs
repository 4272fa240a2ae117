//! ServiceAccounts.

use crate::resource::Kind;

/// An identity for pods.
pub(crate) struct ServiceAccount;

impl Kind for ServiceAccount {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
