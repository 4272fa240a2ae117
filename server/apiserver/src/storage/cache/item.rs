//! An object as an item of a protobuf list, encoded when a list first asks for it and shared by those that follow.
//!
//! Owns the bound of the bytes that all objects keep together. Above it, each list encodes its items again. An item is dropped with the
//! version of the object that it encodes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Bytes of items that all objects of the process keep together.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Bytes of items that are kept now.
static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The item of one object.
#[derive(Debug, Default)]
pub struct Item(OnceLock<Bytes>);

// === impl Item ===

impl Item {
    /// The item; made by `make` if there is none.
    pub fn get_or_make<E>(&self, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Bytes, E> {
        if let Some(item) = self.0.get() {
            return Ok(item.clone());
        }
        let item = Bytes::from(make()?.into_boxed_slice());
        let size = item.len();
        if KEPT_BYTES.fetch_add(size, Ordering::Relaxed) + size > KEPT_BYTES_MAX || self.0.set(item.clone()).is_err() {
            KEPT_BYTES.fetch_sub(size, Ordering::Relaxed);
        }
        Ok(item)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if let Some(item) = self.0.get() {
            KEPT_BYTES.fetch_sub(item.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_item_is_made_once_and_what_is_kept_is_bounded() {
        let make = |size: usize| move || Ok::<_, ()>(vec![0; size]);
        let item = Item::default();
        assert!(item.get_or_make(|| Err(())).is_err());
        assert_eq!(item.get_or_make(make(10)).unwrap().len(), 10);
        assert_eq!(item.get_or_make(|| Err(())).unwrap().len(), 10);
        let large = Item::default();
        assert_eq!(large.get_or_make(make(KEPT_BYTES_MAX)).unwrap().len(), KEPT_BYTES_MAX);
        assert!(large.get_or_make(|| Err(())).is_err(), "too much to be kept");
        drop(item);
        assert_eq!(large.get_or_make(make(KEPT_BYTES_MAX)).unwrap().len(), KEPT_BYTES_MAX);
        assert!(large.get_or_make(|| Err(())).is_ok(), "there is room again");
    }
}
