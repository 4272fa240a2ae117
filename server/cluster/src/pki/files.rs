//! Where keys and certificates lie on a server's disk: `server/tls` and `server/cred`, all 0600, folders 0700.
//!
//! A certificate on disk is kept while it is good (same authority, same names, far from its end) and
//! made anew otherwise, so that a changed address or `--tls-san` takes effect on the next start.

use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rcgen::SanType;

use super::{ClusterKeys, Issued, PkiError, Profile, authority::Authority};

const KEYS_FILE: &str = "cluster-keys.json";

/// The folder `<data-dir>/server`.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    root: PathBuf,
}

impl ServerFiles {
    /// Files under `<data-dir>/server`.
    pub fn new(server_dir: impl Into<PathBuf>) -> ServerFiles {
        ServerFiles { root: server_dir.into() }
    }

    /// `server/tls/<name>`.
    pub fn tls(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(name)
    }

    /// `server/cred/<name>`.
    pub fn cred(&self, name: &str) -> PathBuf {
        self.root.join("cred").join(name)
    }

    /// The cluster's keys as this server keeps them, if it has them.
    pub fn read_keys(&self) -> Result<Option<ClusterKeys>, PkiError> {
        match read(&self.cred(KEYS_FILE))? {
            Some(bytes) => ClusterKeys::from_bytes(&bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps the cluster's keys, and the authorities' certificates beside them for people and tools.
    pub fn write_keys(&self, keys: &ClusterKeys) -> Result<(), PkiError> {
        write_private(&self.cred(KEYS_FILE), &keys.to_bytes()?)?;
        for (name, authority) in keys.authorities() {
            write_private(&self.tls(&format!("{name}.crt")), authority.certificate_pem.as_bytes())?;
        }
        Ok(())
    }

    /// The certificate `<name>.crt` with `<name>.key`: the one on disk while it is good, else a new one.
    pub fn ensure(&self, name: &str, profile: &Profile, keys: &ClusterKeys, now: Timestamp) -> Result<Issued, PkiError> {
        match self.issued(name)? {
            Some(kept) if is_good(&kept, profile, profile.authority(keys), now) => Ok(kept),
            _ => self.renew(name, profile, keys, now),
        }
    }

    /// The certificate on disk, whatever it is.
    pub fn issued(&self, name: &str) -> Result<Option<Issued>, PkiError> {
        let (certificate, key) = (read(&self.tls(&format!("{name}.crt")))?, read(&self.tls(&format!("{name}.key")))?);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(certificate.zip(key).map(|(certificate, key)| Issued { certificate_pem: text(certificate), key_pem: text(key) }))
    }

    /// A new certificate, with a new key unless the key is what its holder is known by.
    pub fn renew(&self, name: &str, profile: &Profile, keys: &ClusterKeys, now: Timestamp) -> Result<Issued, PkiError> {
        let key_path = self.tls(&format!("{name}.key"));
        let kept = read(&key_path)?.and_then(|pem| rcgen::KeyPair::from_pem(&String::from_utf8_lossy(&pem)).ok());
        let issued = match kept.filter(|_| profile.keeps_key()) {
            Some(key) => profile.issue_for(keys, &key, now)?,
            None => profile.issue(keys, now)?,
        };
        write_private(&key_path, issued.key_pem.as_bytes())?;
        write_private(&self.tls(&format!("{name}.crt")), issued.certificate_pem.as_bytes())?;
        Ok(issued)
    }
}

/// Whether a certificate from disk can still be used. A damaged one cannot: a new one is made.
fn is_good(kept: &Issued, profile: &Profile, authority: &Authority, now: Timestamp) -> bool {
    let (Ok(key), Ok(wanted), Ok(ca)) = (rcgen::KeyPair::from_pem(&kept.key_pem), profile.wanted_names(), authority.certificate_der())
    else {
        return false;
    };
    let Ok(chain) = super::authority::certificates(&kept.certificate_pem) else {
        return false;
    };
    let (Ok((_, leaf)), Ok((_, ca))) = (x509_parser::parse_x509_certificate(&chain[0]), x509_parser::parse_x509_certificate(&ca)) else {
        return false;
    };
    let names = match leaf.subject_alternative_name() {
        Ok(found) => found.map(|san| san.value.general_names.iter().filter_map(general_name).collect::<Vec<_>>()).unwrap_or_default(),
        Err(_) => return false,
    };
    let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    leaf.verify_signature(Some(ca.public_key())).is_ok()
        && leaf.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
        // Renewed when two thirds of its life are over.
        && until - now.as_second() > (until - from) / 3
        && from <= now.as_second()
        && names.len() == wanted.len()
        && wanted.iter().all(|name| names.contains(name))
}

fn general_name(name: &x509_parser::extensions::GeneralName<'_>) -> Option<SanType> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => (*name).try_into().ok().map(SanType::DnsName),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| SanType::IpAddress(b.into())),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| SanType::IpAddress(b.into())),
            _ => None,
        },
        _ => None,
    }
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> PkiError + '_ {
    move |source| PkiError::Io { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder that this process may not read was not created by it, and is not synced.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// Writes a file that only its owner reads: whole or not at all (synced temporary file, then rename).
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let found = folder.is_dir();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error(folder))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        // A folder that was made for it must be found after a power cut, too.
        folder.ancestors().take(if found { 1 } else { usize::MAX }).try_for_each(sync_folder)
    })();
    if written.is_err() {
        // The half-written file is of no use to anyone; the first error is the one that counts.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(io_error(path))
}
