//! A pod's resolver configuration. Answers to <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>.

use std::{net::IpAddr, path::Path};

use k8s_openapi::api::core::v1::Pod;
use trireme_proto::cri;

use crate::{files, options::KubeletOptions, pod::spec};

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// Where systemd-resolved tells the servers that it asks itself, while `/etc/resolv.conf` names its own loopback address.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The node's resolver file as pods can use it. A loopback address of the host leads nowhere from inside a pod.
pub(crate) fn read_host_file(path: &Path) -> String {
    read_host_file_or(path, Path::new(RESOLVED))
}

fn read_host_file_or(path: &Path, behind: &Path) -> String {
    let text = files::read_text(path).unwrap_or_default();
    if !is_loopback_only(&text) {
        return text;
    }
    match files::read_text(behind) {
        Ok(other) if !parse(&other).servers.is_empty() && !is_loopback_only(&other) => other,
        _ => text,
    }
}

/// Whether it names servers, and all of them are this host itself.
fn is_loopback_only(text: &str) -> bool {
    let servers = parse(text).servers;
    !servers.is_empty() && servers.iter().all(|s| s.split('%').next().unwrap_or(s).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

/// Composes the pod's resolver configuration from its policy, the node's resolver file and the pod's own wishes.
pub(crate) fn dns_config(pod: &Pod, options: &KubeletOptions, host_file: &str) -> cri::DnsConfig {
    let pod_spec = spec::pod_spec(pod);
    let host = parse(host_file);
    let host_network = spec::is_host_network(pod);
    let mut config = match pod_spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => cri::DnsConfig::default(),
        "ClusterFirstWithHostNet" if !options.cluster_dns.is_empty() => cluster(pod, options, host),
        "ClusterFirst" if !options.cluster_dns.is_empty() && !host_network => cluster(pod, options, host),
        _ => host,
    };
    if let Some(wishes) = pod_spec.dns_config.as_ref() {
        extend(&mut config.servers, wishes.nameservers.iter().flatten());
        extend(&mut config.searches, wishes.searches.iter().flatten());
        for option in wishes.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            config.options.retain(|known| known.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_string(),
            });
        }
    }
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    config
}

fn cluster(pod: &Pod, options: &KubeletOptions, host: cri::DnsConfig) -> cri::DnsConfig {
    let domain = &options.cluster_domain;
    let mut searches = vec![format!("{}.svc.{domain}", spec::namespace(pod)), format!("svc.{domain}"), domain.clone()];
    extend(&mut searches, host.searches.iter());
    cri::DnsConfig { servers: options.cluster_dns.iter().map(ToString::to_string).collect(), searches, options: vec!["ndots:5".into()] }
}

fn extend<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn parse(file: &str) -> cri::DnsConfig {
    let mut config = cri::DnsConfig::default();
    for line in file.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_string)),
            Some("search" | "domain") => {
                config.searches = words.map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_string()).collect()
            }
            Some("options") => config.options = words.map(str::to_string).collect(),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_09_a_loopback_resolver_of_the_host_is_not_given_to_pods() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, behind) = (dir.path().join("etc"), dir.path().join("behind"));
        let read = |text: &str| {
            std::fs::write(&etc, text).unwrap();
            read_host_file_or(&etc, &behind)
        };
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(read(stub), stub, "there is nothing better");
        std::fs::write(&behind, "nameserver 10.0.2.3\n").unwrap();
        assert_eq!(read(stub), "nameserver 10.0.2.3\n");
        assert_eq!(read("nameserver ::1\n"), "nameserver 10.0.2.3\n");
        for kept in ["nameserver 127.0.0.53\nnameserver 9.9.9.9\n", "nameserver 9.9.9.9\n", "search a.b\n", ""] {
            assert_eq!(read(kept), kept);
        }
    }
}
