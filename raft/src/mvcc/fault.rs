//! Faults of a state. A state with a fault answers no read until another one is installed.
//!
//! Owns that rule alone. Faults are reported by [`super::StateMachine`] (a read or a write met damage) and by the comparison of
//! replicas (this one differs); the supervisor repairs them by installing a new state.

use std::sync::Arc;

use tokio::sync::watch;

use crate::StoreError;

/// Why a state is not served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// In words, for status and logs.
    pub reason: Arc<str>,
}

/// What is wrong with a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// The engine cannot read or write the state. A snapshot that this member made before is as good as one of another member.
    Damaged,
    /// The state differs from the majority's. Nothing that this member made can be trusted, its snapshots included.
    Diverged,
}

/// The fault of one state, where it has one.
pub(crate) struct Soundness {
    fault: watch::Sender<Option<Fault>>,
}

impl Default for Soundness {
    fn default() -> Soundness {
        Soundness { fault: watch::Sender::new(None) }
    }
}

impl Soundness {
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Fault>> {
        self.fault.subscribe()
    }

    /// An error while there is a fault.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &*self.fault.borrow() {
            None => Ok(()),
            Some(fault) => Err(StoreError::Unavailable(fault.reason.to_string())),
        }
    }

    /// Notes a fault; the first one counts. True if it is new.
    pub(crate) fn condemn(&self, fault: Fault) -> bool {
        self.fault.send_if_modified(|current| {
            let new = current.is_none();
            if new {
                tracing::error!(reason = %fault.reason, "this member's state is not served any more; it will be rebuilt");
                *current = Some(fault);
            }
            new
        })
    }

    /// The state was replaced. Returns the fault that has ended with it.
    pub(crate) fn clear(&self) -> Option<Fault> {
        self.fault.send_replace(None)
    }
}
