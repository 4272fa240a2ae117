//! A join token as a joiner holds it: `K10<sha256 of the CA>::<role>:<secret>`, or the bare secret.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// A parsed token. `Debug` does not show the secret.
#[derive(Clone)]
pub struct JoinToken {
    ca_hash: Option<String>,
    role: Option<String>,
    secret: String,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("ca_hash", &self.ca_hash).field("role", &self.role).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Reads a token's text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let wrong = || Error::Join("the token is malformed: expected K10<64 hex digits>::<role>:<secret>, or the secret alone".into());
        let Some(rest) = text.strip_prefix("K10").filter(|rest| rest.contains("::")) else {
            return match made_by_hand(text) {
                _ if text.is_empty() => Err(wrong()),
                Some((id, secret)) => Ok(Self { ca_hash: None, role: Some(id.into()), secret: secret.into() }),
                None => Ok(Self { ca_hash: None, role: None, secret: text.into() }),
            };
        };
        let (hash, credentials) = rest.split_once("::").ok_or_else(wrong)?;
        let (role, secret) = made_by_hand(credentials).or_else(|| credentials.split_once(':')).ok_or_else(wrong)?;
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) || secret.is_empty() {
            return Err(wrong());
        }
        Ok(Self { ca_hash: Some(hash.to_lowercase()), role: Some(role.into()), secret: secret.into() })
    }

    /// The hash of the authority, if the token pins it.
    pub fn ca_hash(&self) -> Option<&str> {
        self.ca_hash.as_deref()
    }

    /// Whether one of these authorities is the token's; a short token names none and fits any.
    pub fn pins(&self, ca_pem: &str) -> bool {
        use rustls_pki_types::pem::PemObject;
        let Some(expected) = self.ca_hash() else { return true };
        let mut authorities = rustls_pki_types::CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten();
        authorities.any(|der| hex::encode(Sha256::digest(&der)) == expected)
    }

    /// Whether an administrator made it, beside the cluster's own.
    pub fn is_made(&self) -> bool {
        self.role.as_deref().is_some_and(|role| !matches!(role, "server" | "node"))
    }

    /// The bare secret.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The value of the Authorization header. A short token speaks for the role that is asked for.
    pub fn authorization(&self, _role: &str) -> String {
        let user = self.role.as_deref().unwrap_or_default();
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", self.secret)))
    }
}

/// `<id>.<secret>`: a token that an administrator made (`trireme token create`). Its id takes the place of the role.
fn made_by_hand(text: &str) -> Option<(&str, &str)> {
    let fits = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once('.').filter(|(id, secret)| fits(id, 6) && fits(secret, 16))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn full_and_short_tokens_are_understood_and_broken_ones_are_not() {
        let hash = "a".repeat(64);
        let full = JoinToken::parse(&format!("K10{hash}::node:s3cret\n")).unwrap();
        assert_eq!((full.ca_hash(), full.secret()), (Some(hash.as_str()), "s3cret"));
        assert_eq!(JoinToken::parse("s3cret").unwrap().ca_hash(), None);
        for made in ["abcdef.0123456789abcdef".to_owned(), format!("K10{hash}::abcdef.0123456789abcdef")] {
            let made = JoinToken::parse(&made).unwrap();
            let expected = format!("Basic {}", BASE64_STANDARD.encode("abcdef:0123456789abcdef"));
            assert_eq!((made.secret(), made.authorization("node")), ("0123456789abcdef", expected));
        }
        for broken in ["", "K10abc::node:x", &format!("K10{hash}::node:"), &format!("K10{hash}::x")] {
            assert!(JoinToken::parse(broken).is_err(), "{broken}");
        }
        assert!(!format!("{full:?}").contains("s3cret"));
    }
}
