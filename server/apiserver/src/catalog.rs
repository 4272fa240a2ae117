//! What is served: the rows of resources, their versions and forms.

pub mod origin;
mod row;
pub mod rows;
pub mod transform;
