//! See the module documentation to come.
