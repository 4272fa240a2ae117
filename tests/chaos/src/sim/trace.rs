//! What happened, as one number: two runs of a seed must agree on it.

use parking_lot::Mutex;

/// A running hash, and the last lines that went into it.
#[derive(Default)]
pub struct Trace {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    hash: u64,
    count: u64,
    told: bool,
}

impl Trace {
    /// Prints every line to standard error if `told`.
    #[must_use]
    pub fn new(told: bool) -> Trace {
        Trace { inner: Mutex::new(Inner { hash: 0xcbf2_9ce4_8422_2325, count: 0, told }) }
    }

    /// Notes a line.
    pub fn note(&self, ms: u64, line: &str) {
        let mut inner = self.inner.lock();
        // FNV-1a: no input is chosen to make it collide.
        for byte in ms.to_be_bytes().iter().chain(line.as_bytes()) {
            inner.hash = (inner.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.count += 1;
        if inner.told {
            eprintln!("{ms:>7} {line}");
        }
    }

    /// The hash so far, and of how many lines.
    #[must_use]
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.hash, inner.count)
    }
}
