//! The user that a trusted front proxy names in its headers.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy>.

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::user::UserInfo;

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Reads the headers; `None` when they name no user. Only to be called for a verified front proxy.
pub fn user(headers: &HeaderMap) -> Option<UserInfo> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let name = text(USER).filter(|name| !name.is_empty())?;
    Some(UserInfo { name, uid: text(UID).unwrap_or_default(), groups: values(headers, GROUP), extra: extra(headers, EXTRA) })
}

/// All values of a header.
pub(super) fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

/// Headers of the form `<prefix><percent-encoded key>: value`, keys lower-case.
pub(super) fn extra(headers: &HeaderMap, prefix: &str) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(prefix) {
            extra.insert(unescape(key).to_ascii_lowercase(), values(headers, name.as_str()));
        }
    }
    extra
}

/// Undoes percent-encoding; what is not encoded properly stays as it is.
fn unescape(key: &str) -> String {
    let bytes = key.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%').then(|| key.get(at + 1..at + 3)).flatten().and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match decoded {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}
