//! The bundle sealed under the server token: Argon2id derives the key, ChaCha20-Poly1305 seals.
//!
//! The parameters are stored beside the ciphertext and are bounded on reading, so that a hostile bundle
//! cannot make a joining server allocate without limit. RFC 9106; OWASP's 19 MiB / 2 passes / 1 lane.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use trireme_proto::store;
use zeroize::Zeroizing;

use super::{ClusterKeys, PkiError};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const SALT_LEN: usize = 16;
const KDF: &str = "argon2id";

/// The name under which the store keeps the bundle.
pub const SEALED_NAME: &str = "cluster-keys";

fn decode(text: &str) -> Result<Vec<u8>, PkiError> {
    BASE64_STANDARD.decode(text).map_err(|error| PkiError::malformed("sealed bundle", error))
}

/// 16 bytes from a secret, by Argon2id with the parameters of the seal.
pub fn stretch(secret: &str, salt: &[u8]) -> Result<[u8; 16], PkiError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(16)).map_err(|error| PkiError::malformed("key derivation", error))?;
    let mut memory = vec![Block::default(); params.block_count()];
    let mut out = [0_u8; 16];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(secret.as_bytes(), salt, &mut out, &mut memory)
        .map_err(|error| PkiError::malformed("key derivation", error))?;
    Ok(out)
}

/// The sealed [`ClusterKeys`]: safe to replicate, useless without the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedBundle {
    /// Format of this document.
    pub format: u32,
    /// Argon2id memory, KiB.
    pub memory_kib: u32,
    /// Argon2id passes.
    pub passes: u32,
    /// Argon2id lanes.
    pub lanes: u32,
    /// Salt, base64.
    pub salt: String,
    /// Nonce, base64.
    pub nonce: String,
    /// Ciphertext and tag, base64.
    pub ciphertext: String,
}

impl SealedBundle {
    const FORMAT: u32 = 1;

    /// Seals `keys` under the secret part of the server token.
    pub fn seal(keys: &ClusterKeys, secret: &str) -> Result<SealedBundle, PkiError> {
        let random = SystemRandom::new();
        let mut salt = [0_u8; SALT_LEN];
        let mut nonce = [0_u8; NONCE_LEN];
        random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(|_| PkiError::Crypto("no randomness"))?;
        let mut sealed = SealedBundle {
            format: SealedBundle::FORMAT,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: BASE64_STANDARD.encode(salt),
            nonce: BASE64_STANDARD.encode(nonce),
            ciphertext: String::new(),
        };
        let key = sealed.derive(secret, &salt)?;
        let mut buffer = keys.to_bytes()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(sealed.associated_data()), &mut *buffer)
            .map_err(|_| PkiError::Crypto("sealing failed"))?;
        sealed.ciphertext = BASE64_STANDARD.encode(&*buffer);
        Ok(sealed)
    }

    /// Opens the bundle with the secret part of the server token.
    pub fn unseal(&self, secret: &str) -> Result<ClusterKeys, PkiError> {
        if self.format != SealedBundle::FORMAT {
            return Err(PkiError::malformed("sealed bundle", format!("format {} is not known to this version", self.format)));
        }
        let salt = decode(&self.salt)?;
        let nonce: [u8; NONCE_LEN] =
            decode(&self.nonce)?.try_into().map_err(|_| PkiError::malformed("sealed bundle", "nonce of a wrong length"))?;
        let mut buffer = Zeroizing::new(decode(&self.ciphertext)?);
        let key = self.derive(secret, &salt)?;
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(self.associated_data()), &mut buffer)
            .map_err(|_| PkiError::Unseal)?;
        ClusterKeys::from_bytes(plain)
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PkiError> {
        serde_json::to_vec(self).map_err(|error| PkiError::malformed("sealed bundle", error))
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<SealedBundle, PkiError> {
        serde_json::from_slice(bytes).map_err(|error| PkiError::malformed("sealed bundle", error))
    }

    /// The form in which the replicated store keeps it.
    pub fn to_stored(&self) -> Result<store::SealedKey, PkiError> {
        Ok(store::SealedKey {
            format: self.format,
            kdf: KDF.to_owned(),
            kdf_memory_kib: self.memory_kib,
            kdf_iterations: self.passes,
            kdf_lanes: self.lanes,
            salt: decode(&self.salt)?.into(),
            nonce: decode(&self.nonce)?.into(),
            ciphertext: decode(&self.ciphertext)?.into(),
        })
    }

    /// Reads the form in which the replicated store keeps it.
    pub fn from_stored(stored: &store::SealedKey) -> Result<SealedBundle, PkiError> {
        if stored.kdf != KDF {
            return Err(PkiError::malformed("sealed bundle", format!("unknown key derivation {:?}", stored.kdf)));
        }
        Ok(SealedBundle {
            format: stored.format,
            memory_kib: stored.kdf_memory_kib,
            passes: stored.kdf_iterations,
            lanes: stored.kdf_lanes,
            salt: BASE64_STANDARD.encode(&stored.salt),
            nonce: BASE64_STANDARD.encode(&stored.nonce),
            ciphertext: BASE64_STANDARD.encode(&stored.ciphertext),
        })
    }

    fn associated_data(&self) -> Vec<u8> {
        format!("trireme-sealed-bundle/{}/{}/{}/{}/{}", self.format, self.memory_kib, self.passes, self.lanes, self.salt).into_bytes()
    }

    /// The memory is an allocation of its own and is returned to the system right after.
    fn derive(&self, secret: &str, salt: &[u8]) -> Result<LessSafeKey, PkiError> {
        if self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX || self.lanes != LANES {
            return Err(PkiError::malformed("sealed bundle", "key derivation parameters out of bounds"));
        }
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(|error| PkiError::malformed("sealed bundle", error))?;
        let mut memory = vec![Block::default(); params.block_count()];
        let mut key = Zeroizing::new([0_u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(secret.as_bytes(), salt, &mut *key, &mut memory)
            .map_err(|error| PkiError::malformed("sealed bundle", error))?;
        UnboundKey::new(&CHACHA20_POLY1305, &*key).map(LessSafeKey::new).map_err(|_| PkiError::Crypto("key of a wrong length"))
    }
}
