//! Claims and volumes.

pub(crate) mod ephemeral;
pub(crate) mod protection;
pub(crate) mod volume_binder;
