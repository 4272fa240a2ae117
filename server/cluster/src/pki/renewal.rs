//! The certificates that a server shows, and their renewal under running listeners and clients.
//!
//! Each is registered with the consumer that takes over a renewed one: a [`Shown`] certificate that a TLS configuration asks at every
//! handshake, the store's peer identity, the administrator's kubeconfig. A certificate is due for renewal when two thirds of its lifetime
//! are over. The time is passed in as an argument; the server schedules the calls.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use trireme_api::admin::CertificateInfo;

use super::{ClusterKeys, Issued, PkiError, Profile, ServerFiles, authority::certificates};

/// A certificate that is shown to peers, exchangeable while connections are made.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

/// Takes over a renewed certificate.
type Apply = Box<dyn Fn(&Issued) -> Result<(), String> + Send + Sync>;

struct Entry {
    name: String,
    profile: Profile,
    apply: Apply,
}

/// All certificates of one server.
pub struct Certificates {
    files: ServerFiles,
    keys: Arc<ClusterKeys>,
    entries: Mutex<Vec<Arc<Entry>>>,
    /// One renewal at a time: they write the same files.
    renewing: Mutex<()>,
}

// === impl Shown ===

impl Shown {
    /// Shows this one.
    pub fn new(issued: &Issued) -> Result<Arc<Shown>, PkiError> {
        Ok(Arc::new(Shown(RwLock::new(Arc::new(certified(issued)?)))))
    }

    /// Shows another one from the next handshake on.
    pub fn swap(&self, issued: &Issued) -> Result<(), PkiError> {
        *self.0.write() = Arc::new(certified(issued)?);
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(issued: &Issued) -> Result<CertifiedKey, PkiError> {
    let chain: Vec<CertificateDer<'static>> = certificates(&issued.certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).map_err(|e| PkiError::malformed("private key", e))?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|e| PkiError::malformed("certificate", e))
}

// === impl Certificates ===

impl Certificates {
    /// Starts without certificates. They are stored in `files` and signed with `keys`.
    pub fn new(files: ServerFiles, keys: Arc<ClusterKeys>) -> Certificates {
        Certificates { files, keys, entries: Mutex::default(), renewing: Mutex::default() }
    }

    /// The certificate `<name>`, from the files while it is good, and `apply` for those that follow it.
    pub fn add(
        &self,
        name: &str,
        profile: Profile,
        now: Timestamp,
        apply: impl Fn(&Issued) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Issued, PkiError> {
        let issued = self.files.ensure(name, &profile, &self.keys, now)?;
        let entry = Entry { name: name.to_owned(), profile, apply: Box::new(apply) };
        let mut entries = self.entries.lock();
        entries.retain(|known| known.name != name);
        entries.push(Arc::new(entry));
        Ok(issued)
    }

    /// The same for one that a TLS configuration shows.
    pub fn show(&self, name: &str, profile: Profile, now: Timestamp) -> Result<Arc<Shown>, PkiError> {
        let issued = self.files.ensure(name, &profile, &self.keys, now)?;
        let shown = Shown::new(&issued)?;
        let swapped = shown.clone();
        self.add(name, profile, now, move |issued| swapped.swap(issued).map_err(|e| e.to_string()))?;
        Ok(shown)
    }

    /// All of them, and the authorities.
    pub fn list(&self) -> Result<Vec<CertificateInfo>, PkiError> {
        let entries = self.entries.lock().clone();
        let mut list = Vec::new();
        for entry in entries {
            if let Some(issued) = self.files.issued(&entry.name)? {
                list.push(describe(&entry.name, &issued.certificate_pem)?);
            }
        }
        for (name, authority) in self.keys.authorities() {
            list.push(describe(name, &authority.certificate_pem)?);
        }
        Ok(list)
    }

    /// Renews the certificates that are due, or all of them. If one fails, it stays as it is, and the others are renewed nevertheless.
    pub fn renew(&self, all: bool, now: Timestamp) -> Result<usize, String> {
        let _alone = self.renewing.lock();
        let entries = self.entries.lock().clone();
        let (mut renewed, mut failures) = (0, Vec::new());
        for entry in entries {
            match self.renew_one(&entry, all, now) {
                Ok(false) => {}
                Ok(true) => renewed += 1,
                Err(reason) => failures.push(format!("{}: {reason}", entry.name)),
            }
        }
        if failures.is_empty() { Ok(renewed) } else { Err(failures.join("; ")) }
    }

    fn renew_one(&self, entry: &Entry, anyway: bool, now: Timestamp) -> Result<bool, String> {
        let kept = self.files.issued(&entry.name).map_err(|e| e.to_string())?;
        let due = kept.is_none_or(|kept| describe(&entry.name, &kept.certificate_pem).map_or(0, |info| due_at(&info)) <= now.as_second());
        if !due && !anyway {
            return Ok(false);
        }
        let issued = self.files.renew(&entry.name, &entry.profile, &self.keys, now).map_err(|e| e.to_string())?;
        (entry.apply)(&issued)?;
        tracing::info!(certificate = entry.name, "renewed");
        Ok(true)
    }

    /// When the next one is due, seconds since the epoch.
    pub fn next_due(&self) -> i64 {
        let entries = self.entries.lock().clone();
        let due = entries.iter().filter_map(|entry| {
            let issued = self.files.issued(&entry.name).ok()??;
            describe(&entry.name, &issued.certificate_pem).ok().map(|info| due_at(&info))
        });
        due.min().unwrap_or(i64::MAX)
    }
}

/// When two thirds of its life are over.
pub fn due_at(info: &CertificateInfo) -> i64 {
    info.not_before + (info.not_after - info.not_before) / 3 * 2
}

/// What a certificate says of itself (the first of a bundle).
pub fn describe(name: &str, pem: &str) -> Result<CertificateInfo, PkiError> {
    let chain = certificates(pem)?;
    let first = chain.first().ok_or_else(|| PkiError::malformed("certificate", "none"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|e| PkiError::malformed("certificate", e))?;
    Ok(CertificateInfo {
        name: name.to_owned(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_renewed_and_taken_over_and_a_peer_keeps_its_key() {
        let at = |days: i64| Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(ClusterKeys::generate(at(0)).unwrap());
        let files = ServerFiles::new(folder.path());
        let certificates = Certificates::new(files.clone(), keys);
        let taken: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = taken.clone();
        let peer = |address: &str| Profile::Peer { member_name: "s1".into(), addresses: vec![address.into()] };
        let first = certificates.add("peer", peer("10.0.0.1"), at(0), |_| Ok(())).unwrap();
        certificates
            .add("admin", Profile::Admin, at(200), move |issued| {
                into.lock().push(issued.certificate_pem.clone());
                Ok(())
            })
            .unwrap();
        assert_eq!(certificates.renew(false, at(240)), Ok(0));
        assert!(certificates.next_due() <= at(244).as_second() && certificates.next_due() > at(242).as_second());
        assert_eq!(certificates.renew(false, at(244)), Ok(1));
        let second = files.issued("peer").unwrap().unwrap();
        assert_ne!(first.certificate_pem, second.certificate_pem);
        assert_eq!(first.key_pem, second.key_pem, "a member is its key");
        // An address that changed makes a new certificate for the same key, too.
        let moved = certificates.add("peer", peer("10.0.0.2"), at(244), |_| Ok(())).unwrap();
        assert!(moved.key_pem == first.key_pem && moved.certificate_pem != second.certificate_pem);
        assert_eq!(certificates.renew(true, at(245)), Ok(2));
        assert_eq!(taken.lock().len(), 1);
        assert_eq!(files.issued("admin").unwrap().unwrap().certificate_pem, taken.lock()[0]);
        let list = certificates.list().unwrap();
        let admin = list.iter().find(|info| info.name == "admin").unwrap();
        assert_eq!((admin.subject.as_str(), admin.not_after), ("O=system:masters, CN=system:admin", at(245 + 365).as_second()));
        assert!(list.iter().any(|info| info.name == "peer-ca"));
    }
}
