//! The priority levels that there are now, shared by those who classify requests and those who show them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::flowcontrol::level::Level;

/// All levels, and how the seats were last divided.
#[derive(Debug, Default)]
pub struct Levels {
    now: RwLock<Arc<Vec<Arc<Level>>>>,
    /// Bits of a float.
    fraction: AtomicU64,
}

impl Levels {
    /// All of them, by name.
    pub fn all(&self) -> Arc<Vec<Arc<Level>>> {
        self.now.read().clone()
    }

    /// Others from now on.
    pub fn replace(&self, levels: Arc<Vec<Arc<Level>>>) {
        *self.now.write() = levels;
    }

    /// The part of its target that each level has.
    pub fn fraction(&self) -> f64 {
        f64::from_bits(self.fraction.load(Ordering::Relaxed))
    }

    /// Notes that part.
    pub fn set_fraction(&self, fraction: f64) {
        self.fraction.store(fraction.to_bits(), Ordering::Relaxed);
    }
}
