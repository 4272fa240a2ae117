//! The public keys of an issuer (JSON Web Keys, RFC 7517), and the signatures that they verify (RFC 7518).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;
use trireme_api::meta;

/// The signature algorithms that can be verified.
pub const ALGORITHMS: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"];

/// The keys of a set that can verify signatures.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The curve and the uncompressed point.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
}

// === impl Keys ===

impl Keys {
    /// Reads a key set. Keys of other kinds, and those for encryption, are left out.
    ///
    /// # Errors
    /// It is not a key set.
    pub fn parse(document: &[u8]) -> Result<Keys, String> {
        let document: Value = serde_json::from_slice(document).map_err(|error| format!("the key set is not JSON: {error}"))?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or("the key set has no keys")?;
        Ok(Keys(keys.iter().filter_map(Key::parse).collect()))
    }

    /// Whether one of the keys signed `message` with `algorithm`. With an id only the keys of that id count.
    pub fn verify(&self, id: Option<&str>, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().filter(|key| id.is_none_or(|id| key.id == id)).any(|key| key.verify(algorithm, message, signature))
    }
}

// === impl Key ===

impl Key {
    fn parse(key: &Value) -> Option<Key> {
        let text = |field: &str| meta::str_at(key, &[field]);
        let bytes = |field: &str| BASE64_URL_SAFE_NO_PAD.decode(text(field).trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty());
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let material = match text("kty") {
            "RSA" => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
            "EC" => {
                let length: usize = match text("crv") {
                    "P-256" => 32,
                    "P-384" => 48,
                    _ => return None,
                };
                let mut point = vec![4];
                for coordinate in [bytes("x")?, bytes("y")?] {
                    point.resize(point.len() + length.checked_sub(coordinate.len())?, 0);
                    point.extend_from_slice(&coordinate);
                }
                Material::Ec { curve: text("crv").to_owned(), point }
            }
            _ => return None,
        };
        Some(Key { id: text("kid").to_owned(), material })
    }

    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Material::Ec { curve, point } => {
                let algorithm = match (algorithm, curve.as_str()) {
                    ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// RFC 7515, appendix A.2.
    const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_\
        YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9k\
        G4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const SIGNED: &str =
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQ\
        jbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv\
        hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    #[test]
    fn an_rsa_signature_is_verified_by_its_key_and_algorithm_alone() {
        let signature = BASE64_URL_SAFE_NO_PAD.decode(SIGNATURE).unwrap();
        let set = |key: Value| Keys::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap();
        let key = json!({"kty": "RSA", "kid": "k", "n": N, "e": "AQAB"});
        let keys = set(key.clone());
        assert!(
            keys.verify(Some("k"), "RS256", SIGNED.as_bytes(), &signature) && keys.verify(None, "RS256", SIGNED.as_bytes(), &signature)
        );
        assert!(!keys.verify(Some("other"), "RS256", SIGNED.as_bytes(), &signature));
        for algorithm in ["RS384", "PS256", "ES256", "none", ""] {
            assert!(!keys.verify(None, algorithm, SIGNED.as_bytes(), &signature), "{algorithm}");
        }
        assert!(!keys.verify(None, "RS256", &SIGNED.as_bytes()[1..], &signature) && !keys.verify(None, "RS256", SIGNED.as_bytes(), b""));
        let mut for_encryption = key;
        for_encryption["use"] = json!("enc");
        assert!(!set(for_encryption).verify(None, "RS256", SIGNED.as_bytes(), &signature));
    }

    #[test]
    fn what_is_no_key_is_left_out() {
        for key in [
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": ""}),
            json!({"kty": "EC", "crv": "P-256", "x": "A".repeat(44), "y": "A".repeat(88)}),
            json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}),
            json!({"kty": "oct", "k": "AA"}),
            json!({"kty": "RSA", "n": "!", "e": "AQAB"}),
            json!(1),
        ] {
            assert!(Keys::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap().0.is_empty());
        }
        for document in ["", "[]", "{}", r#"{"keys": 1}"#] {
            assert!(Keys::parse(document.as_bytes()).is_err());
        }
    }
}
