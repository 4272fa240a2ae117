//! Who asks, as extension servers are told: headers that they believe because of the certificate of the connection.
//!
//! Answers to <https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/#original-request-username-and-group>.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::parameters::escape;
use crate::user::UserInfo;

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";
/// What the name of a header may have beside letters and digits, except `%`.
const HEADER_NAME: &[u8] = b"!#$&'*+-.^_`|~";

/// Replaces whatever such headers a request has by those of the user.
///
/// # Errors
/// What cannot be written into a header.
pub fn set(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), String> {
    let stale: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in stale {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} cannot be sent in a header"));
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", escape(key, HEADER_NAME));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{key:?} cannot be the name of a header"))?;
        for one in values {
            headers.append(name.clone(), value(one)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::authn::front_proxy;

    #[test]
    fn a_user_arrives_as_it_was_and_no_client_can_name_another() {
        let mut user = UserInfo::new("jane", &["a", "b"]);
        user.uid = "u-1".to_owned();
        user.extra.insert("example.com/scope%".to_owned(), vec!["x".to_owned(), "y".to_owned()]);
        let mut headers = HeaderMap::new();
        for (name, text) in
            [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("x-remote-extra-more", "z"), ("accept", "*/*")]
        {
            headers.append(name, HeaderValue::from_static(text));
        }
        set(&mut headers, &user).unwrap();
        assert_eq!(front_proxy::user(&headers), Some(user));
        assert_eq!(headers.get("accept").unwrap(), "*/*");
        assert!(set(&mut headers, &UserInfo::new("a\nb", &[])).is_err());
    }
}
