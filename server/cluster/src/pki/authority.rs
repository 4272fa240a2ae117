//! One certificate authority: its certificate, its key, and the act of issuing.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::PkiError;

/// How long an authority lives.
pub const AUTHORITY_DAYS: i64 = 3650;
/// Validity of long-lived certificates begins this long in the past: a member whose clock jumped back one hour must not take its
/// peers' new certificates for certificates of the future.
pub const BACKDATE_SECS: i64 = 3900;
/// The least backdating (upstream's figure), for certificates that live for minutes: renewal is due by a share of the validity.
pub const BACKDATE_LEAST_SECS: i64 = 300;

/// A certificate authority with its private key, both PEM.
#[derive(Clone, Serialize, Deserialize)]
pub struct Authority {
    /// The certificate, PEM. May hold more than one block after a rotation (old ones cross-signed).
    pub certificate_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
}

/// A certificate just made, with the key if we made that too.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS #8 PEM.
    pub key_pem: String,
}

impl Authority {
    /// Makes a new self-signed P-256 authority.
    pub fn generate(common_name: &str, now: Timestamp) -> Result<Authority, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        let mut dn = DistinguishedName::new();
        dn.push(DnType::CommonName, common_name);
        params.distinguished_name = dn;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial()?);
        set_validity(&mut params, now, AUTHORITY_DAYS * 86_400);
        let certificate = params.self_signed(&key)?;
        Ok(Authority { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The certificate's DER form (the first block).
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).map_err(|error| PkiError::malformed("authority certificate", error))
    }

    /// All certificates of the bundle, DER.
    pub fn certificates_der(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        certificates(&self.certificate_pem)
    }

    /// The lower-case hex SHA-256 over the DER of the CA bundle's first certificate: what `K10` pins.
    pub fn fingerprint(&self) -> Result<String, PkiError> {
        Ok(hex::encode(Sha256::digest(self.certificate_der()?)))
    }

    /// Signs `params` for `public_key`.
    pub(super) fn sign(
        &self,
        mut params: CertificateParams,
        public_key: &impl PublicKeyData,
        now: Timestamp,
        ttl_secs: i64,
    ) -> Result<String, PkiError> {
        let key = KeyPair::from_pem(&self.key_pem)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate_der()?, key)?;
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, ttl_secs.min(self.remaining_secs(now)?));
        Ok(params.signed_by(public_key, &issuer)?.pem())
    }

    /// A certificate must not outlive its authority.
    fn remaining_secs(&self, now: Timestamp) -> Result<i64, PkiError> {
        let der = self.certificate_der()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| PkiError::malformed("authority certificate", error))?;
        let remaining = parsed.validity().not_after.timestamp() - now.as_second();
        if remaining <= 0 {
            return Err(PkiError::Refused("the certificate authority has expired".to_owned()));
        }
        Ok(remaining)
    }
}

/// All certificates of a PEM bundle, DER.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| PkiError::malformed("certificate bundle", error))?;
    if found.is_empty() {
        return Err(PkiError::malformed("certificate bundle", "no certificate in it"));
    }
    Ok(found)
}

/// A random positive 127-bit serial number: two certificates for one key must differ.
fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Crypto("no randomness"))?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, ttl_secs: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |secs: i64| epoch + std::time::Duration::from_secs(secs.max(0).unsigned_abs());
    let backdate_secs = (ttl_secs / 10).clamp(BACKDATE_LEAST_SECS, BACKDATE_SECS);
    params.not_before = at(now.as_second() - backdate_secs);
    params.not_after = at(now.as_second() + ttl_secs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_an_hour_behind_takes_what_lives_long_and_nothing_is_renewed_at_birth() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (ttl_secs, an_hour_behind) in [(600, false), (12 * 3600, true), (365 * 86_400, true)] {
            let authority = Authority::generate("test", now).unwrap();
            let key = KeyPair::generate().unwrap();
            let pem = authority.sign(CertificateParams::default(), &key, now, ttl_secs).unwrap();
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
            let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
            assert_eq!(from <= now.as_second() - 3600, an_hour_behind, "{ttl_secs}");
            assert!(from <= now.as_second() - BACKDATE_LEAST_SECS, "{ttl_secs}");
            assert!(from + (until - from) / 3 * 2 > now.as_second(), "{ttl_secs}: renewed as soon as it is made");
        }
    }
}
