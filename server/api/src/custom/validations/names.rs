//! Names of fields as expressions write them.
//!
//! Upstream: `apiserver/pkg/cel/escaping.go`.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>

use crate::cel::RESERVED_WORDS;

/// The identifier of a field; None: expressions cannot name it.
pub fn escape(name: &str) -> Option<String> {
    let first = |sign: char| sign.is_ascii_alphabetic() || matches!(sign, '_' | '.' | '-' | '/');
    if !name.starts_with(first) || !name.chars().all(|sign| first(sign) || sign.is_ascii_digit()) {
        return None;
    }
    if RESERVED_WORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    Some(name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        for (name, identifier) in [
            ("plain", Some("plain")),
            ("_x1", Some("_x1")),
            ("namespace", Some("__namespace__")),
            ("x-prop", Some("x__dash__prop")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("redact__d", Some("redact__underscores__d")),
            ("1a", None),
            ("a b", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(escape(name).as_deref(), identifier, "{name}");
        }
    }
}
