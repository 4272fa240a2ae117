//! Small samples, and objects and bytes made at random.
#![allow(clippy::unwrap_used)]
