//! A pod's resolver configuration. Answers to <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>.

use k8s_openapi::api::core::v1::Pod;
use trireme_proto::cri;

use crate::{options::KubeletOptions, pod::spec};

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

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
