//! A token that an administrator made: what is kept of it, and whether it is still good. Pure.
//!
//! Its text is kubeadm's: six characters that name it, a dot, sixteen secret ones that are not kept
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trireme_api::admin::{TokenInfo, TokenUsage};

use super::{TokenRole, constant_time_eq};
use crate::pki::PkiError;

const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// What the store keeps of a token: never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// SHA-256 of the secret, hex. The secret is random, so the hash cannot be reversed by guessing.
    pub hash: String,
    /// The roles that it grants.
    pub usages: Vec<TokenUsage>,
    /// A description for administrators.
    pub description: String,
    /// When it was made, seconds since the epoch.
    pub created: i64,
    /// When it ends, seconds since the epoch; never if absent.
    pub expires: Option<i64>,
}

/// A token's text, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    /// Its name.
    pub id: String,
    /// The secret part.
    pub secret: String,
}

// === impl TokenText ===

impl TokenText {
    /// A new one.
    pub fn generate() -> Result<TokenText, PkiError> {
        Ok(TokenText { id: random_text(ID_LEN)?, secret: random_text(SECRET_LEN)? })
    }

    /// Reads `<id>.<secret>`.
    pub fn parse(text: &str) -> Option<TokenText> {
        let (id, secret) = text.split_once('.')?;
        let fits = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| ALPHABET.contains(&b));
        (fits(id, ID_LEN) && fits(secret, SECRET_LEN)).then(|| TokenText { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The hash of the secret, which is stored in place of it.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(&self.secret))
    }
}

impl std::fmt::Display for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

// === impl TokenRecord ===

impl TokenRecord {
    /// The role that this secret grants now, if any.
    pub fn admits(&self, text: &TokenText, now: Timestamp) -> Option<TokenRole> {
        if !constant_time_eq(&text.hash(), &self.hash) || self.is_expired(now) {
            return None;
        }
        match self.usages.as_slice() {
            usages if usages.contains(&TokenUsage::Server) => Some(TokenRole::Server),
            usages if usages.contains(&TokenUsage::Agent) => Some(TokenRole::Node),
            _ => None,
        }
    }

    /// Whether it has expired.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now.as_second())
    }

    /// What an administrator sees of it.
    pub fn info(&self, id: &str) -> TokenInfo {
        TokenInfo {
            id: id.to_owned(),
            usages: self.usages.clone(),
            description: self.description.clone(),
            created: Some(self.created),
            expires: self.expires,
        }
    }
}

/// Each character is as likely as any other: bytes that would favour some are thrown away.
fn random_text(length: usize) -> Result<String, PkiError> {
    let random = SystemRandom::new();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut byte = [0_u8; 1];
        random.fill(&mut byte).map_err(|_| PkiError::Crypto("no randomness"))?;
        let even = 256 - 256 % ALPHABET.len();
        if usize::from(byte[0]) < even {
            text.push(char::from(ALPHABET[usize::from(byte[0]) % ALPHABET.len()]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_admits_its_holder_for_its_time_and_no_other() {
        let at = |secs: i64| Timestamp::from_second(1_800_000_000 + secs).unwrap();
        let text = TokenText::generate().unwrap();
        assert!(TokenText::parse(&text.to_string()) == Some(text.clone()));
        let record = |usages: &[TokenUsage], expires: Option<i64>| TokenRecord {
            hash: text.hash(),
            usages: usages.to_vec(),
            description: String::new(),
            created: at(0).as_second(),
            expires: expires.map(|secs| at(secs).as_second()),
        };
        let other = TokenText { secret: "0".repeat(16), ..text.clone() };
        let (agent, server) = ([TokenUsage::Agent], [TokenUsage::Agent, TokenUsage::Server]);
        assert_eq!(record(&agent, Some(60)).admits(&text, at(59)), Some(TokenRole::Node));
        assert_eq!(record(&agent, Some(60)).admits(&text, at(60)), None);
        assert_eq!(record(&agent, None).admits(&text, at(1_000_000)), Some(TokenRole::Node));
        assert_eq!(record(&server, None).admits(&text, at(0)), Some(TokenRole::Server));
        assert_eq!(record(&[], None).admits(&text, at(0)), None);
        assert_eq!(record(&server, None).admits(&other, at(0)), None);
        for bad in ["", "abcdef", "abcdef.", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdeg.x"] {
            assert!(TokenText::parse(bad).is_none(), "{bad}");
        }
    }
}
