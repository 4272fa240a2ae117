//! The keys that sign service-account tokens (ES256), as a cluster keeps them.
//!
//! Answers to <https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery>.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde::{Deserialize, Serialize};
use trireme_apiserver::authn::SigningKey;

use super::PkiError;

/// Service-account keys, the active one first; the others only verify.
#[derive(Clone, Serialize, Deserialize)]
pub struct ServiceAccountKeys {
    /// PKCS #8 documents, base64. Never empty.
    pub pkcs8: Vec<String>,
}

impl ServiceAccountKeys {
    /// Makes one new key.
    pub fn generate() -> Result<ServiceAccountKeys, PkiError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| PkiError::Crypto("key generation failed"))?;
        Ok(ServiceAccountKeys { pkcs8: vec![BASE64_STANDARD.encode(document.as_ref())] })
    }

    /// Loads every key, in order.
    pub fn load(&self) -> Result<Vec<SigningKey>, PkiError> {
        if self.pkcs8.is_empty() {
            return Err(PkiError::malformed("service-account keys", "there is none"));
        }
        self.pkcs8
            .iter()
            .map(|encoded| {
                let document = BASE64_STANDARD.decode(encoded).map_err(|error| PkiError::malformed("service-account key", error))?;
                SigningKey::from_pkcs8(&document).map_err(|error| PkiError::malformed("service-account key", error))
            })
            .collect()
    }
}
