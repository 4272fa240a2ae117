//! The keys that sign service-account tokens (ES256), and the two documents that publish them.
//!
//! Answers to <https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery>.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// One key, ready to sign and verify.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    key_id: String,
}

/// The DER of `SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING` up to the point itself.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

impl SigningKey {
    /// Reads a PKCS #8 document.
    ///
    /// # Errors
    /// It is not a P-256 key.
    pub fn from_pkcs8(document: &[u8]) -> Result<SigningKey, String> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &SystemRandom::new())
            .map_err(|error| format!("service-account key: {error}"))?;
        let mut spki = P256_SPKI_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        let key_id = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&spki));
        Ok(SigningKey { pair, key_id })
    }

    /// `kid`: base64url of the SHA-256 over the public key's SPKI, as upstream.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Signs a JWS signing input (header.payload).
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| "signing failed")?;
        Ok(signature.as_ref().to_vec())
    }

    /// Whether this key signed `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref()).verify(message, signature).is_ok()
    }

    /// The public half as a JSON Web Key.
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        // Invariant: ring gives the uncompressed point, 0x04 ‖ x ‖ y, 65 bytes.
        let (x, y) = point[1..].split_at(32);
        json!({
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": BASE64_URL_SAFE_NO_PAD.encode(x),
            "y": BASE64_URL_SAFE_NO_PAD.encode(y),
        })
    }
}

/// The document behind `/openid/v1/jwks`.
pub fn jwks(keys: &[SigningKey]) -> Value {
    json!({ "keys": keys.iter().map(SigningKey::jwk).collect::<Vec<_>>() })
}

/// The document behind `/.well-known/openid-configuration`.
pub fn openid_configuration(issuer: &str, jwks_uri: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
