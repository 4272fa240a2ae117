//! The resources that are served: their rows, versions and forms.

pub mod origin;
mod row;
pub mod rows;
pub mod transform;
pub mod unmanaged;
