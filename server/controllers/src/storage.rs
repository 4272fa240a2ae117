//! Claims and volumes.

pub(crate) mod attach_detach;
pub(crate) mod ephemeral;
pub(crate) mod expansion;
pub(crate) mod protection;
pub(crate) mod volume_binder;
