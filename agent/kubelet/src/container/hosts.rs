//! The `/etc/hosts` that all containers of a pod share. Answers to
//! <https://kubernetes.io/docs/tasks/network/customize-hosts-file-for-pods/>.

use std::{fmt::Write, path::Path};

use k8s_openapi::api::core::v1::Pod;

use super::sandbox;
use crate::{error::Result, files, pod::spec};

/// Where the file is mounted.
pub(crate) const MOUNT_PATH: &str = "/etc/hosts";

/// The file's text.
fn content(pod: &Pod, ips: &[String], cluster_domain: &str, host_file: &str) -> String {
    let mut out = String::new();
    if spec::is_host_network(pod) {
        let _ = writeln!(out, "# Kubernetes-managed hosts file (host network).");
        out.push_str(host_file);
    } else {
        out.push_str("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        let (host, domain) = (sandbox::short_hostname(pod), sandbox::domain(pod, cluster_domain));
        for ip in ips {
            let _ = match &domain {
                Some(domain) => writeln!(out, "{ip}\t{host}.{domain}\t{host}"),
                None => writeln!(out, "{ip}\t{host}"),
            };
        }
    }
    let aliases = spec::pod_spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
        }
    }
    out
}

/// Writes the file for a pod whose addresses are known. Containers may change it while they run; the next start puts it right.
pub(crate) fn write(path: &Path, pod: &Pod, ips: &[String], cluster_domain: &str) -> Result<()> {
    let host_file = if spec::is_host_network(pod) { files::read_text(Path::new(MOUNT_PATH)).unwrap_or_default() } else { String::new() };
    files::keep_text(path, &content(pod, ips, cluster_domain, &host_file), 0o644)
}
