//! Rows of built-in resources.
