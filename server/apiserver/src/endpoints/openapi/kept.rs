//! OpenAPI documents, compressed: each is made once for all clients that ask for it.
//!
//! Owns how many bytes are kept. A name contains the hash of the document's sources, so a document never goes stale; when there is no
//! room, the least recently requested documents are dropped.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

/// All documents of the built-in API take less than a tenth of it.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Compressed documents by name, the one that was asked for last at the end.
#[derive(Default)]
pub struct KeptDocuments(Mutex<VecDeque<(String, Bytes)>>);

// === impl KeptDocuments ===

impl KeptDocuments {
    /// The document in gzip; `make` gives it plain if it is not here.
    pub fn get(&self, name: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(found) = self.find(name) {
            return found;
        }
        let compressed = compress(&make());
        let mut documents = self.0.lock();
        documents.retain(|(known, _)| known != name);
        documents.push_back((name.to_owned(), compressed.clone()));
        let mut total: usize = documents.iter().map(|(_, document)| document.len()).sum();
        while total > KEPT_BYTES_MAX
            && let Some((_, dropped)) = documents.pop_front()
        {
            total -= dropped.len();
        }
        compressed
    }

    fn find(&self, name: &str) -> Option<Bytes> {
        let mut documents = self.0.lock();
        let at = documents.iter().position(|(known, _)| known == name)?;
        let entry = documents.remove(at)?;
        let found = entry.1.clone();
        documents.push_back(entry);
        Some(found)
    }
}

fn compress(document: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let written = encoder.write_all(document);
    debug_assert!(written.is_ok());
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_54_documents_are_compressed_once_and_within_a_bound() {
        let kept = KeptDocuments::default();
        let noise = |seed: u64| -> Bytes {
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            (0..3_000_000).map(|_| next()).collect::<Vec<u8>>().into()
        };
        let first = kept.get("a", || noise(1));
        assert_eq!(kept.get("a", || panic!("made twice")), first);
        kept.get("b", || noise(2));
        assert_eq!(kept.get("a", || panic!("made twice")), first);
        kept.get("c", || noise(3));
        assert!(kept.find("b").is_none(), "the one that nobody asked for went");
        assert!(kept.find("a").is_some() && kept.find("c").is_some());
    }
}
