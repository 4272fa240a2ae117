//! What this agent made on the host, written down *before* it is made.
//!
//! Owns `<data-dir>/agent/journal`: one object a line. Clean-up removes what is written here and nothing else, so that what others
//! had on the host survives.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::Write,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::error::Error;

/// Something on the host that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostObject {
    /// A network link.
    Link(String),
    /// An nftables table of family ip.
    NftTable(String),
    /// An address on a link that was there before: the link, then the address with its prefix length.
    Address(String, String),
    /// The route to the addresses of Services that counts where no other route does.
    ServiceRoute(String),
    /// Rules that let pod traffic through the host's firewall.
    FirewallRules,
    /// A kernel setting that was changed: path below /proc/sys and the value before.
    Sysctl(String, String),
    /// The folder of pods and volumes, where it is not the node's own.
    KubeletRoot(PathBuf),
}

impl fmt::Display for HostObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostObject::Link(name) => write!(f, "link {name}"),
            HostObject::NftTable(name) => write!(f, "nft-table {name}"),
            HostObject::Address(link, address) => write!(f, "address {link} {address}"),
            HostObject::ServiceRoute(network) => write!(f, "service-route {network}"),
            HostObject::FirewallRules => f.write_str("firewall-rules"),
            HostObject::Sysctl(path, before) => write!(f, "sysctl {path} {before}"),
            HostObject::KubeletRoot(path) => write!(f, "kubelet-root {}", path.display()),
        }
    }
}

impl FromStr for HostObject {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        if let Some(path) = line.strip_prefix("kubelet-root ") {
            return Ok(HostObject::KubeletRoot(path.into()));
        }
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("link"), Some(name), None) => Ok(HostObject::Link(name.into())),
            (Some("nft-table"), Some(name), None) => Ok(HostObject::NftTable(name.into())),
            (Some("address"), Some(link), Some(address)) => Ok(HostObject::Address(link.into(), address.into())),
            (Some("service-route"), Some(network), None) => Ok(HostObject::ServiceRoute(network.into())),
            (Some("firewall-rules"), None, None) => Ok(HostObject::FirewallRules),
            (Some("sysctl"), Some(path), Some(before)) => Ok(HostObject::Sysctl(path.into(), before.into())),
            _ => Err(format!("journal line {line:?} is not understood")),
        }
    }
}

/// The journal of one data directory.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    objects: BTreeSet<HostObject>,
}

impl Journal {
    /// Opens or begins the journal at `<agent-dir>/journal`.
    pub fn open(agent_dir: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(agent_dir)?;
        let path = agent_dir.join("journal");
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let objects = text.lines().map(str::parse).collect::<Result<_, String>>().map_err(std::io::Error::other)?;
        Ok(Self { path, objects })
    }

    /// Writes an object down, durably, before the caller makes it. A setting's first recorded value stays.
    pub fn record(&mut self, object: HostObject) -> std::io::Result<()> {
        if self.knows(&object) {
            return Ok(());
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(format!("{object}\n").as_bytes())?;
        file.sync_data()?;
        self.objects.insert(object);
        Ok(())
    }

    /// As [`Journal::record`], with the error that ends a start.
    pub fn note(&mut self, object: HostObject) -> Result<(), Error> {
        self.record(object).map_err(|e| Error::Host(format!("--data-dir: {}: {e}", self.path.display())))
    }

    /// Whether an object (for a setting: its path) is written down.
    pub fn knows(&self, object: &HostObject) -> bool {
        match object {
            HostObject::Sysctl(path, _) => self.objects.iter().any(|o| matches!(o, HostObject::Sysctl(p, _) if p == path)),
            other => self.objects.contains(other),
        }
    }

    /// Everything written down.
    pub fn objects(&self) -> impl Iterator<Item = &HostObject> {
        self.objects.iter()
    }

    /// Forgets everything: after it was removed.
    pub fn clear(&mut self) -> std::io::Result<()> {
        self.objects.clear();
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_recorded_is_known_after_a_restart_and_first_values_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.record(HostObject::Link("cni0".into())).unwrap();
        journal.record(HostObject::Sysctl("net/ipv4/ip_forward".into(), "0".into())).unwrap();
        journal.record(HostObject::Sysctl("net/ipv4/ip_forward".into(), "1".into())).unwrap();
        for object in [
            HostObject::Address("lo".into(), "10.43.0.10/32".into()),
            HostObject::ServiceRoute("10.43.0.0/16".into()),
            HostObject::FirewallRules,
            HostObject::KubeletRoot("/var/lib/my kubelet".into()),
        ] {
            journal.record(object).unwrap();
        }
        let again = Journal::open(folder.path()).unwrap();
        let lines: Vec<String> = again.objects().map(ToString::to_string).collect();
        let expected = [
            "link cni0",
            "address lo 10.43.0.10/32",
            "service-route 10.43.0.0/16",
            "firewall-rules",
            "sysctl net/ipv4/ip_forward 0",
            "kubelet-root /var/lib/my kubelet",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_damaged_journal_is_refused_rather_than_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("journal"), "link cni0\nli").unwrap();
        assert!(Journal::open(folder.path()).is_err());
    }
}
