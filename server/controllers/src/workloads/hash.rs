//! Hashes that name what is made from a template: ReplicaSets and ControllerRevisions. Stable across restarts and servers.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// No vowels and nothing that looks like another: a hash never spells a word.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const BASIS: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

/// The hash of a template and the number of collisions so far. Not equal to upstream's, which hashes a Go-specific dump.
pub(super) fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut hash = BASIS;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(PRIME);
        }
    };
    // Typed structs serialize in a fixed order, and their maps are sorted.
    feed(&serde_json::to_vec(template).unwrap_or_default());
    if let Some(count) = collision_count {
        feed(&count.to_le_bytes());
    }
    spelled(hash)
}

/// The hash of a ControllerRevision's data and the number of collisions so far, as upstream's history computes it.
pub(super) fn data_hash(data: &Value, collisions: i32) -> String {
    let mut hash = BASIS;
    let text = format!("{data}{collisions}");
    for byte in text.bytes() {
        hash = hash.wrapping_mul(PRIME) ^ u32::from(byte);
    }
    spelled(hash)
}

fn spelled(hash: u32) -> String {
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_collision_gives_another_name() {
        let data = json!({"spec": {"template": {"$patch": "replace"}}});
        assert_eq!(data_hash(&data, 0), data_hash(&data.clone(), 0));
        assert_ne!(data_hash(&data, 0), data_hash(&data, 1));
        assert!(data_hash(&data, 0).bytes().all(|letter| ALPHABET.contains(&letter)));
    }
}
