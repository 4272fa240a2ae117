//! The engine of a closed store: it holds nothing and refuses everything. It takes the place of the real engine, so that handles which outlive
//! [`crate::Store::shutdown`] keep no database open.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::{Cursor, Durability, Engine, Read, Table, WriteBatch};
use crate::StoreError;

/// See the module.
pub(crate) struct ClosedEngine;

// === impl ClosedEngine ===

impl Engine for ClosedEngine {
    fn view(&self) -> Box<dyn Read + '_> {
        Box::new(ClosedEngine)
    }

    fn write(&self, _: WriteBatch, _: Durability) -> Result<(), StoreError> {
        Err(StoreError::Shutdown)
    }

    fn flush(&self) -> Result<(), StoreError> {
        Err(StoreError::Shutdown)
    }

    fn checkpoint(&self, _: &Path, _: Table, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Shutdown)
    }

    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        Err(StoreError::Shutdown)
    }

    fn size_bytes(&self) -> u64 {
        0
    }

    fn live_bytes(&self) -> u64 {
        0
    }
}

impl Read for ClosedEngine {
    fn get(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Shutdown)
    }

    fn cursor<'a>(&'a self, _: Table, _: &[u8], _: Option<&[u8]>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        Err(StoreError::Shutdown)
    }

    fn last(&self, _: Table) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        Err(StoreError::Shutdown)
    }
}
