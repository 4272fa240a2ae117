//! The values of objects that requests look up again and again: a namespace with each create in it, a service account with each pod.
//!
//! Owns a fixed number of places. A value is used as long as the cache shows the very state that it was parsed from.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::storage::cache::Cached;

const PLACES: usize = 64;
/// Larger objects are parsed each time: the places keep at most 64 of this size.
const OBJECT_BYTES_MAX: usize = 16 << 10;

type Place = Mutex<Option<(Arc<Cached>, Arc<Value>)>>;

/// Parsed objects.
pub struct Parsed {
    places: Box<[Place]>,
    hasher: RandomState,
}

// === impl Parsed ===

impl Default for Parsed {
    fn default() -> Parsed {
        Parsed { places: (0..PLACES).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Parsed {
    /// The value of a cached object.
    pub fn value(&self, object: &Arc<Cached>) -> Result<Arc<Value>, serde_json::Error> {
        if object.size() > OBJECT_BYTES_MAX {
            return parse(object);
        }
        let hash = self.hasher.hash_one((&object.namespace, &object.name));
        let place = &self.places[hash as usize % PLACES];
        if let Some((of, value)) = &*place.lock()
            && Arc::ptr_eq(of, object)
        {
            return Ok(value.clone());
        }
        let value = parse(object)?;
        *place.lock() = Some((object.clone(), value.clone()));
        Ok(value)
    }
}

fn parse(object: &Cached) -> Result<Arc<Value>, serde_json::Error> {
    serde_json::from_slice(&object.json()).map(Arc::new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::cache::EventType;

    fn object(name: &str, content: &str) -> Arc<Cached> {
        let payload = format!(r#"{{"kind":"X","apiVersion":"v1","metadata":{{"name":"{name}"}},"data":"{content}"}}"#);
        Arc::new(Cached::new(payload.as_bytes(), 1, EventType::Added, "", name, Box::new([]), Box::new([])).unwrap())
    }

    #[test]
    fn a_state_is_parsed_once_and_another_state_is_another_value() {
        let parsed = Parsed::default();
        let (old, new) = (object("a", "old"), object("a", "new"));
        let value = parsed.value(&old).unwrap();
        assert!(Arc::ptr_eq(&value, &parsed.value(&old).unwrap()));
        assert_eq!(parsed.value(&new).unwrap()["data"], "new");
        assert_eq!(parsed.value(&old).unwrap()["data"], "old");
        let large = object("b", &"x".repeat(OBJECT_BYTES_MAX));
        assert!(!Arc::ptr_eq(&parsed.value(&large).unwrap(), &parsed.value(&large).unwrap()));
        for n in 0..10 * PLACES {
            assert_eq!(parsed.value(&object(&format!("o{n}"), "x")).unwrap()["metadata"]["name"], format!("o{n}"));
        }
    }
}
