//! End-to-end tests against real clusters and real processes; the tests themselves are in `tests/`.

pub mod process;
pub mod registry;
