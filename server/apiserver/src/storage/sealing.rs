//! The envelope around a stored object, and the encryption of Secrets inside it.
//!
//! Every value under `/registry/` is a [`StoredValue`]. Payloads of kinds that are transformed at rest are sealed with
//! AES-256-GCM; the key path is the associated data, so a value copied to another name does not open. Answers to
//! upstream's `apiserver/pkg/storage/value/encrypt`.

use bytes::{Bytes, BytesMut};
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use trireme_proto::store::{FORMAT_STORED_VALUE, StoredValue};

/// Why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The bytes are no envelope.
    #[error("value of {key} is no stored object: {cause}")]
    Malformed {
        /// The key of the value.
        key: String,
        /// The error of the decoder.
        cause: prost::DecodeError,
    },
    /// The envelope is from a newer release.
    #[error("value of {key} has format {format}, this release knows {FORMAT_STORED_VALUE}")]
    Format {
        /// The key of the value.
        key: String,
        /// Its format.
        format: u32,
    },
    /// No such encryption key here.
    #[error("value of {key} is sealed under the unknown key {key_id:?}")]
    UnknownKey {
        /// The key of the value.
        key: String,
        /// The key that is missing.
        key_id: String,
    },
    /// The seal is broken.
    #[error("value of {key} does not open under key {key_id:?}")]
    Broken {
        /// The key of the value.
        key: String,
        /// The key that was tried.
        key_id: String,
    },
    /// The system gave no random bytes, or the payload is too long.
    #[error("value of {key} cannot be sealed")]
    CannotSeal {
        /// The key of the value.
        key: String,
    },
}

/// The encryption keys of the cluster. The first one seals, all of them open.
pub struct Keyring {
    keys: Vec<(String, LessSafeKey)>,
    random: SystemRandom,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl Keyring {
    /// A keyring of 32-byte keys, each with its id; the first one seals.
    pub fn new(keys: impl IntoIterator<Item = (String, [u8; 32])>) -> Keyring {
        let keys = keys
            .into_iter()
            .map(|(id, bytes)| {
                let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("invariant: AES-256 takes 32 bytes");
                (id, LessSafeKey::new(key))
            })
            .collect();
        Keyring { keys, random: SystemRandom::new() }
    }

    /// Whether it can seal.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Wraps `payload` for `key`; sealed if `secret`.
    pub fn seal(&self, key: &str, kind: &str, payload: Vec<u8>, secret: bool) -> Result<Bytes, SealingError> {
        let cannot = || SealingError::CannotSeal { key: key.to_owned() };
        let (key_id, payload) = if secret {
            let (id, aead) = self.keys.first().ok_or_else(cannot)?;
            let mut nonce = [0; NONCE_LEN];
            self.random.fill(&mut nonce).map_err(|_| cannot())?;
            let mut sealed = BytesMut::with_capacity(NONCE_LEN + payload.len() + AES_256_GCM.tag_len());
            let mut body = payload;
            let tag = aead
                .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key.as_bytes()), &mut body)
                .map_err(|_| cannot())?;
            sealed.extend_from_slice(&nonce);
            sealed.extend_from_slice(&body);
            sealed.extend_from_slice(tag.as_ref());
            (id.clone(), sealed.freeze())
        } else {
            (String::new(), Bytes::from(payload))
        };
        let value = StoredValue { format: FORMAT_STORED_VALUE, kind: kind.to_owned(), key_id, payload };
        Ok(value.encode_to_vec().into())
    }

    /// Unwraps the value of `key`: the payload without resourceVersion.
    pub fn open(&self, key: &str, value: Bytes) -> Result<Bytes, SealingError> {
        let value = StoredValue::decode(value).map_err(|cause| SealingError::Malformed { key: key.to_owned(), cause })?;
        if value.format != FORMAT_STORED_VALUE {
            return Err(SealingError::Format { key: key.to_owned(), format: value.format });
        }
        if value.key_id.is_empty() {
            return Ok(value.payload);
        }
        let broken = || SealingError::Broken { key: key.to_owned(), key_id: value.key_id.clone() };
        let (_, aead) = self
            .keys
            .iter()
            .find(|(id, _)| *id == value.key_id)
            .ok_or_else(|| SealingError::UnknownKey { key: key.to_owned(), key_id: value.key_id.clone() })?;
        let (nonce, body) = value.payload.split_at_checked(NONCE_LEN).ok_or_else(broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut body = body.to_vec();
        let length = aead.open_in_place(nonce, Aad::from(key.as_bytes()), &mut body).map_err(|_| broken())?.len();
        body.truncate(length);
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_open_only_under_their_own_name() {
        let ring = Keyring::new([("new".to_owned(), [1; 32]), ("old".to_owned(), [2; 32])]);
        let old = Keyring::new([("old".to_owned(), [2; 32])]);
        let payload = b"{\"data\":\"hunter2\"}".to_vec();
        let sealed = old.seal("/registry/core/secrets/a/b", "v1/Secret", payload.clone(), true).unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(ring.open("/registry/core/secrets/a/b", sealed.clone()).unwrap(), payload);
        assert!(matches!(ring.open("/registry/core/secrets/a/c", sealed), Err(SealingError::Broken { .. })));
        let new = ring.seal("/k", "v1/Secret", payload.clone(), true).unwrap();
        assert!(matches!(old.open("/k", new), Err(SealingError::UnknownKey { .. })));
        let plain = ring.seal("/k", "v1/Pod", payload.clone(), false).unwrap();
        assert_eq!(old.open("/k", plain).unwrap(), payload);
    }
}
