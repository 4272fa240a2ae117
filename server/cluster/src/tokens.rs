//! Join tokens: `K10<sha256 of the server CA>::server:<secret>`, `K10<...>::<id>.<secret>` for those that an administrator made,
//! and the short forms without the hash.
//!
//! Owns their text form, making them, keeping them in `server/token` and `server/node-token` (0600), and
//! comparing them in constant time. Must not do: decide what a token is good for beyond its role.
//! The words are those of k3s: <https://docs.k3s.io/cli/token>.

mod live;
mod record;

use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::pki::{PkiError, files::write_private, seal};
pub use live::{Admitted, LiveTokens, LiveTokensError, open_server_secret};
pub use record::{TokenRecord, TokenText};

const PREFIX: &str = "K10";
/// The shortest secret that a person may choose.
pub const SECRET_LEN_MIN: usize = 16;

/// What a token lets its bearer do. A server token also admits agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRole {
    /// Join as a server: unseals the cluster's keys.
    Server,
    /// Join as an agent.
    Node,
}

impl TokenRole {
    /// The word before the secret.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenRole::Server => "server",
            TokenRole::Node => "node",
        }
    }
}

/// A parsed join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Lower-case hex SHA-256 of the server CA's DER, when the token pins it.
    pub ca_hash: Option<String>,
    /// The role named in the token; the short form may name none.
    pub role: Option<TokenRole>,
    /// The secret part.
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("ca_hash", &self.ca_hash).field("role", &self.role).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(hash) = &self.ca_hash {
            write!(f, "{PREFIX}{hash}::")?;
        }
        if let Some(role) = self.role {
            write!(f, "{}:", role.as_str())?;
        }
        f.write_str(&self.secret)
    }
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing in it.
    #[error("the token is empty")]
    Empty,
    /// Begins with K10 but goes on wrongly.
    #[error("the token begins with K10 but is not of the form K10<sha256 of the CA, hex>::server:<secret>")]
    Malformed,
}

impl std::str::FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        let (ca_hash, rest) = match text.strip_prefix(PREFIX) {
            Some(after) => {
                let (hash, rest) = after.split_once("::").ok_or(TokenError::Malformed)?;
                let hex = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
                if !hex {
                    return Err(TokenError::Malformed);
                }
                (Some(hash.to_ascii_lowercase()), rest)
            }
            None => (None, text),
        };
        let (role, secret) = if let Some(secret) = rest.strip_prefix("server:") {
            (Some(TokenRole::Server), secret)
        } else if let Some(secret) = rest.strip_prefix("node:") {
            (Some(TokenRole::Node), secret)
        } else if ca_hash.is_some() && TokenText::parse(rest).is_none() {
            return Err(TokenError::Malformed);
        } else {
            (None, rest)
        };
        if secret.is_empty() {
            return Err(TokenError::Empty);
        }
        Ok(Token { ca_hash, role, secret: secret.to_owned() })
    }
}

/// The two secrets of a cluster.
#[derive(Clone)]
pub struct JoinTokens {
    server_secret: String,
    node_secret: String,
}

impl JoinTokens {
    /// Tokens with these secrets (`--token` gives the server's).
    pub fn new(server_secret: impl Into<String>, node_secret: impl Into<String>) -> JoinTokens {
        JoinTokens { server_secret: server_secret.into(), node_secret: node_secret.into() }
    }

    /// Derives the node secret from the server secret by a memory-hard function, so that the holder of a node secret cannot search for
    /// the server secret. Every server of the cluster with this CA derives the same one. Takes tens of milliseconds.
    ///
    /// # Errors
    /// The key derivation failed.
    pub fn derive(server_secret: impl Into<String>, ca_fingerprint: &str) -> Result<JoinTokens, PkiError> {
        let server_secret = server_secret.into();
        let salt = format!("trireme node token/{ca_fingerprint}");
        let node_secret = hex::encode(seal::stretch(&server_secret, salt.as_bytes())?);
        Ok(JoinTokens { server_secret, node_secret })
    }

    /// The server secret: what the cluster keys are sealed under.
    pub fn server_secret(&self) -> &str {
        &self.server_secret
    }

    /// The node secret.
    pub fn node_secret(&self) -> &str {
        &self.node_secret
    }

    /// What a presented user and password admit to. The user may be empty (short form).
    pub fn verify(&self, user: &str, password: &str) -> Option<TokenRole> {
        if password.is_empty() {
            return None;
        }
        let server = constant_time_eq(password, &self.server_secret);
        let node = constant_time_eq(password, &self.node_secret);
        match user {
            "server" if server => Some(TokenRole::Server),
            "node" if node => Some(TokenRole::Node),
            "" if server => Some(TokenRole::Server),
            "" if node => Some(TokenRole::Node),
            _ => None,
        }
    }

    /// The full token of a role, pinned to this CA.
    pub fn full(&self, role: TokenRole, ca_fingerprint: &str) -> Token {
        Token {
            ca_hash: Some(ca_fingerprint.to_owned()),
            role: Some(role),
            secret: match role {
                TokenRole::Server => self.server_secret.clone(),
                TokenRole::Node => self.node_secret.clone(),
            },
        }
    }

    /// Writes `server/token` and `server/node-token`.
    pub fn write(&self, server_dir: &Path, ca_fingerprint: &str) -> Result<(), PkiError> {
        for (name, role) in [("token", TokenRole::Server), ("node-token", TokenRole::Node)] {
            let text = format!("{}\n", self.full(role, ca_fingerprint));
            write_private(&server_dir.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}

/// User and password of an `Authorization: Basic` header.
pub fn credentials(header: &str) -> Option<(String, String)> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let encoded = header.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Whether a secret that a person chose is long enough not to be guessed: what it protects can be attacked offline.
pub fn is_long_enough(secret: &str) -> bool {
    secret.len() >= SECRET_LEN_MIN
}

/// 128 random bits, hex: short enough to paste, far beyond guessing.
pub fn random_secret() -> Result<String, PkiError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Crypto("no randomness"))?;
    Ok(hex::encode(bytes))
}

/// Compares two secrets without telling by its time where they differ, nor how long ours is.
pub fn constant_time_eq(left: &str, right: &str) -> bool {
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    left.iter().zip(right.iter()).fold(0_u8, |acc, (l, r)| acc | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_parse_and_print_back() {
        let hash = "ab".repeat(32);
        let made = format!("K10{hash}::abcdef.0123456789abcdef");
        for good in [format!("K10{hash}::server:s"), format!("K10{hash}::node:s:x"), made, "server:abc".into(), "abc".into()] {
            let token: Token = good.parse().unwrap();
            assert_eq!(token.to_string(), good);
        }
        for (bad, error) in [
            (String::new(), TokenError::Empty),
            (format!("K10{hash}::server:"), TokenError::Empty),
            (format!("K10{hash}::s"), TokenError::Malformed),
            ("K10abc::server:s".into(), TokenError::Malformed),
            (format!("K10{hash}"), TokenError::Malformed),
        ] {
            assert_eq!(bad.parse::<Token>(), Err(error), "{bad}");
        }
    }

    /// A node's secret must not be a quick function of the servers': its holder would find a chosen one by trying.
    #[test]
    fn security_23_the_node_secret_is_derived_slowly_and_per_cluster() {
        let quick = hex::encode(&Sha256::digest("trireme node token\0hunter2-hunter2-hunter2")[..16]);
        let one = JoinTokens::derive("hunter2-hunter2-hunter2", "aa").unwrap();
        assert_ne!(one.node_secret(), quick);
        assert_eq!(one.node_secret(), JoinTokens::derive("hunter2-hunter2-hunter2", "aa").unwrap().node_secret());
        assert_ne!(one.node_secret(), JoinTokens::derive("hunter2-hunter2-hunter2", "bb").unwrap().node_secret());
        assert!(!is_long_enough("hunter2") && is_long_enough("0123456789abcdef"));
    }

    #[test]
    fn each_secret_admits_to_its_own_role() {
        let tokens = JoinTokens::new("ss", "nn");
        let cases = [
            ("server", "ss", Some(TokenRole::Server)),
            ("", "ss", Some(TokenRole::Server)),
            ("node", "nn", Some(TokenRole::Node)),
            ("", "nn", Some(TokenRole::Node)),
            ("server", "nn", None),
            ("node", "ss", None),
            ("admin", "ss", None),
            ("", "", None),
        ];
        for (user, password, expected) in cases {
            assert_eq!(tokens.verify(user, password), expected, "{user}:{password}");
        }
        assert_eq!(credentials("Basic c2VydmVyOnNz"), Some(("server".into(), "ss".into())));
        assert_eq!(credentials("Bearer c2VydmVyOnNz"), None);
        assert_eq!(credentials("Basic %%%"), None);
    }
}
