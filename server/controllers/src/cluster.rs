//! Controllers of everything: namespace deletion and garbage collection, over all resources that the API serves; and the definitions
//! of those that users add.

pub(crate) mod custom_resources;
pub(crate) mod discovery;
pub(crate) mod garbage;
pub(crate) mod namespace;
