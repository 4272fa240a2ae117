//! Which tolerations others make superfluous.
//!
//! Answers to upstream's `pkg/util/tolerations`.

use serde_json::Value;
use trireme_api::meta;

/// Both lists, without tolerations that another one covers.
pub fn merge(own: Vec<Value>, more: &[Value]) -> Vec<Value> {
    let all: Vec<Value> = own.into_iter().chain(more.iter().cloned()).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let covered = merged.iter().any(|other| covers(other, one))
            || all[index + 1..].iter().any(|other| !is_same(other, one) && covers(other, one));
        if !covered {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether `wide` tolerates everything that `narrow` does.
pub fn covers(wide: &Value, narrow: &Value) -> bool {
    if is_same(wide, narrow) {
        return true;
    }
    let operator = text(wide, "operator");
    if text(narrow, "key") != text(wide, "key") && !(text(wide, "key").is_empty() && operator == "Exists") {
        return false;
    }
    if text(narrow, "effect") != text(wide, "effect") && !text(wide, "effect").is_empty() {
        return false;
    }
    if text(wide, "effect") == "NoExecute"
        && let Some(limit) = seconds(wide)
        && seconds(narrow).is_none_or(|secs| secs > limit)
    {
        return false;
    }
    match operator {
        "" | "Equal" => text(narrow, "operator") == "Equal" && text(narrow, "value") == text(wide, "value"),
        "Exists" => true,
        _ => false,
    }
}

/// Whether two tolerations say the same, however their empty fields are written.
fn is_same(left: &Value, right: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|field| text(left, field) == text(right, field)) && seconds(left) == seconds(right)
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    meta::str_at(of, &[field])
}

fn seconds(of: &Value) -> Option<i64> {
    meta::i64_at(of, &["tolerationSeconds"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_wider_one_stays() {
        let equal = |key: &str, value: &str, effect: &str| json!({"key": key, "operator": "Equal", "value": value, "effect": effect});
        let exists = |key: &str, effect: &str| json!({"key": key, "operator": "Exists", "effect": effect});
        for (own, more, wanted) in [
            (vec![equal("k", "v", "NoSchedule")], vec![exists("k", "NoSchedule")], vec![exists("k", "NoSchedule")]),
            (vec![exists("k", "")], vec![equal("k", "v", "NoSchedule")], vec![exists("k", "")]),
            (
                vec![exists("k", "NoSchedule")],
                vec![json!({"key": "k", "operator": "Exists", "effect": "NoSchedule", "value": ""})],
                vec![exists("k", "NoSchedule")],
            ),
            (vec![exists("", "")], vec![equal("k", "v", "NoExecute")], vec![exists("", "")]),
            (vec![equal("k", "v", "A")], vec![equal("k", "w", "A")], vec![equal("k", "v", "A"), equal("k", "w", "A")]),
        ] {
            assert_eq!(merge(own, &more), wanted);
        }
        let for_secs = |secs: i64| json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": secs});
        assert!(covers(&for_secs(5), &for_secs(4)) && !covers(&for_secs(4), &for_secs(5)));
        assert!(!covers(&for_secs(4), &exists("k", "NoExecute")) && covers(&exists("k", "NoExecute"), &for_secs(4)));
    }
}
