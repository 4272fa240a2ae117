//! Bootstrap tokens: `<id>.<secret>`, each kept in a Secret `bootstrap-token-<id>` of kube-system.
//!
//! Off unless `enable-bootstrap-token-auth` is given, as upstream. Must not tell a bearer why a token is refused.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use trireme_api::meta;

use crate::storage::lookup::ObjectReader;
use crate::user::UserInfo;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 16;
/// Of a group that a token adds: the common beginning and this many more.
const GROUP_BYTES_MAX: usize = 257;

/// Id and secret, if a bearer token has the form of a bootstrap token.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == ID_BYTES && secret.len() == SECRET_BYTES && is_plain(id) && is_plain(secret)).then_some((id, secret))
}

/// The user of a token.
///
/// # Errors
/// Why it is not good; for logs.
pub(super) fn user(reader: &dyn ObjectReader, id: &str, secret: &str, now: Timestamp) -> Result<UserInfo, String> {
    let name = format!("bootstrap-token-{id}");
    let found = reader.get("", "secrets", NAMESPACE, &name).ok_or_else(|| format!("secret {NAMESPACE}/{name} does not exist"))?;
    check(&found.object, id, secret, now).map_err(|why| format!("secret {NAMESPACE}/{name}: {why}"))?;
    let mut groups = vec![GROUP.to_owned()];
    for group in value(&found.object, "auth-extra-groups").unwrap_or_default().split(',').filter(|group| !group.is_empty()) {
        if !is_group(group) {
            return Err(format!("secret {NAMESPACE}/{name}: {group:?} is no group of bootstrap tokens"));
        }
        groups.push(group.to_owned());
    }
    Ok(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

fn check(object: &Value, id: &str, secret: &str, now: Timestamp) -> Result<(), String> {
    if object["type"] != TYPE {
        return Err(format!("is not of type {TYPE}"));
    }
    if meta::deletion_timestamp(object).is_some() {
        return Err("is being deleted".into());
    }
    // Of equal length whatever was sent: how long the comparison takes says nothing.
    let hash = |text: &str| <[u8; 32]>::from(Sha256::digest(text));
    let (held, sent) = (hash(&value(object, "token-secret").unwrap_or_default()), hash(secret));
    let differing = held.iter().zip(sent).fold(0, |differing, (a, b)| differing | (a ^ b));
    if differing != 0 || value(object, "token-id").as_deref() != Some(id) {
        return Err("does not hold this token".into());
    }
    if let Some(end) = value(object, "expiration").filter(|end| !end.is_empty()) {
        // A time that cannot be read counts as over.
        if end.parse::<Timestamp>().ok().is_none_or(|end| end <= now) {
            return Err(format!("ended at {end}"));
        }
    }
    if value(object, "usage-bootstrap-authentication").as_deref() != Some("true") {
        return Err("is not for authentication".into());
    }
    Ok(())
}

fn value(object: &Value, key: &str) -> Option<String> {
    String::from_utf8(BASE64_STANDARD.decode(object["data"][key].as_str()?).ok()?).ok()
}

/// `system:bootstrappers:` and lower-case letters, digits, colons and dashes, the last one a letter or digit.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let is_end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() < GROUP_BYTES_MAX
        && rest.bytes().all(|byte| is_end(byte) || byte == b':' || byte == b'-')
        && rest.bytes().last().is_some_and(is_end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const ID: &str = "abcdef";
    const SECRET: &str = "0123456789abcdef";

    fn secret(change: impl FnOnce(&mut Value)) -> Value {
        let text = |text: &str| json!(BASE64_STANDARD.encode(text));
        let mut object = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": TYPE, "data": {
            "token-id": text(ID), "token-secret": text(SECRET), "usage-bootstrap-authentication": text("true"),
            "expiration": text("2030-01-01T00:00:00Z")}});
        change(&mut object);
        object
    }

    #[test]
    fn tokens_have_one_form() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some((ID, SECRET)));
        for other in ["abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdeF", "abcdefg.0123456789abcdef", "a.b.c"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_good_until_its_end_and_for_its_use() {
        let now = "2029-01-01T00:00:00Z".parse().unwrap();
        let judge = |change: fn(&mut Value)| check(&secret(change), ID, SECRET, now);
        assert_eq!(judge(|_| {}), Ok(()));
        assert_eq!(judge(|object| drop(object["data"].as_object_mut().unwrap().remove("expiration"))), Ok(()));
        for change in [
            (|object: &mut Value| object["type"] = json!("Opaque")) as fn(&mut Value),
            |object| object["data"]["token-secret"] = json!(BASE64_STANDARD.encode("0123456789abcdeg")),
            |object| object["data"]["token-id"] = json!(BASE64_STANDARD.encode("abcdeg")),
            |object| object["data"]["expiration"] = json!(BASE64_STANDARD.encode("2028-01-01T00:00:00Z")),
            |object| object["data"]["expiration"] = json!(BASE64_STANDARD.encode("never")),
            |object| object["data"]["usage-bootstrap-authentication"] = json!(BASE64_STANDARD.encode("false")),
            |object| object["metadata"]["deletionTimestamp"] = json!("2028-01-01T00:00:00Z"),
            |object| object["data"] = json!({}),
        ] {
            assert!(judge(change).is_err());
        }
    }

    #[test]
    fn only_groups_of_bootstrappers_are_added() {
        assert!(is_group("system:bootstrappers:kubeadm:default-node-token"));
        for other in
            ["system:masters", "system:bootstrappers", "system:bootstrappers:", "system:bootstrappers:a-", "system:bootstrappers:A"]
        {
            assert!(!is_group(other), "{other}");
        }
    }
}
