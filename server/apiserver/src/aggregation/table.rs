//! The APIServices with a server behind them, parsed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use serde_json::Value;
use trireme_api::discovery::compare_versions;
use trireme_api::meta;

use crate::egress::{authority, insecure};

/// The port of an extension server whose APIService names none.
const DEFAULT_PORT: u16 = 443;

/// A group version that an extension server answers.
pub struct Remote {
    /// Name of the APIService.
    pub name: String,
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Port of the Service.
    pub port: u16,
    /// Whether the APIService has the condition `Available`.
    pub is_available: bool,
    /// TLS towards it, or why there is none.
    pub tls: Result<Arc<ClientConfig>, String>,
    priority: (i64, i64),
    /// Which settings the TLS configuration was made of.
    trust: (String, bool),
}

/// All of them.
#[derive(Default)]
pub struct Table {
    remotes: BTreeMap<(String, String), Arc<Remote>>,
}

// === impl Remote ===

impl Remote {
    /// The name that its certificate must have, and that requests to it carry.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Reads an APIService; `None` if no Service is behind it. `before` saves a TLS configuration that stays as it was, with its
    /// sessions.
    fn parse(object: &Value, identity: Option<&Arc<dyn ResolvesClientCert>>, before: &Table) -> Option<Remote> {
        let spec = meta::get(object, &["spec"])?;
        let service = meta::get(spec, &["service"]).filter(|service| service.is_object())?;
        let text = |value: &Value, key: &str| meta::str_at(value, &[key]).to_owned();
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        let trust = (text(spec, "caBundle"), spec["insecureSkipTLSVerify"].as_bool() == Some(true));
        let known = before.find(&group, &version).filter(|known| known.trust == trust);
        let number = |key: &str| spec[key].as_i64().unwrap_or_default();
        Some(Remote {
            name: meta::str_at(object, &["metadata", "name"]).to_owned(),
            namespace: text(service, "namespace"),
            service: text(service, "name"),
            port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_PORT),
            is_available: is_available(object),
            tls: known.map_or_else(|| tls(&trust, identity), |known| known.tls.clone()),
            priority: (number("groupPriorityMinimum"), number("versionPriority")),
            group,
            version,
            trust,
        })
    }
}

fn is_available(object: &Value) -> bool {
    meta::list_at(object, &["status", "conditions"]).iter().any(|one| one["type"] == "Available" && one["status"] == "True")
}

fn tls((bundle, skips): &(String, bool), identity: Option<&Arc<dyn ResolvesClientCert>>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match skips {
        true => builder.dangerous().with_custom_certificate_verifier(insecure::verifier(&provider)),
        false => builder.with_root_certificates(authority::roots(bundle)?),
    };
    Ok(Arc::new(match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.clone()),
        None => builder.with_no_client_auth(),
    }))
}

// === impl Table ===

impl Table {
    /// Of these APIServices; `before` is the table until now.
    pub fn of<'a>(objects: impl Iterator<Item = &'a Value>, identity: Option<&Arc<dyn ResolvesClientCert>>, before: &Table) -> Table {
        let remotes = objects.filter_map(|object| Remote::parse(object, identity, before));
        Table { remotes: remotes.map(|remote| ((remote.group.clone(), remote.version.clone()), Arc::new(remote))).collect() }
    }

    /// The server of a group version.
    pub fn find(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        if self.remotes.is_empty() {
            return None;
        }
        self.remotes.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.remotes.is_empty()
    }

    /// All, in the order of discovery: groups of higher priority first, and in a group versions of higher priority.
    pub fn by_priority(&self) -> Vec<Arc<Remote>> {
        let mut all: Vec<Arc<Remote>> = self.remotes.values().cloned().collect();
        let mut of_group: BTreeMap<&str, i64> = BTreeMap::new();
        for remote in self.remotes.values() {
            let highest = of_group.entry(remote.group.as_str()).or_default();
            *highest = remote.priority.0.max(*highest);
        }
        all.sort_by(|a, b| {
            let group = |one: &Remote| (Reverse(of_group.get(one.group.as_str()).copied().unwrap_or_default()), one.group.clone());
            let version = |one: &Remote| Reverse(one.priority.1);
            group(a).cmp(&group(b)).then(version(a).cmp(&version(b))).then(compare_versions(&a.version, &b.version))
        });
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn service(group: &str, version: &str, group_priority: i64, version_priority: i64) -> Value {
        json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {"group": group, "version": version,
            "groupPriorityMinimum": group_priority, "versionPriority": version_priority, "insecureSkipTLSVerify": true,
            "service": {"namespace": "ns", "name": "server"}},
            "status": {"conditions": [{"type": "Available", "status": "True"}]}})
    }

    #[test]
    fn groups_and_versions_are_ordered_by_priority() {
        let objects = [
            service("low.example.com", "v1", 10, 5),
            service("high.example.com", "v1", 100, 5),
            service("high.example.com", "v2", 2000, 5),
            service("high.example.com", "v1beta1", 100, 50),
            json!({"metadata": {"name": "v1.apps"}, "spec": {"group": "apps", "version": "v1"}}),
        ];
        let table = Table::of(objects.iter(), None, &Table::default());
        let names: Vec<String> = table.by_priority().iter().map(|remote| remote.name.clone()).collect();
        assert_eq!(names, ["v1beta1.high.example.com", "v2.high.example.com", "v1.high.example.com", "v1.low.example.com"]);
        assert!(table.find("apps", "v1").is_none(), "no Service is behind it");
        let found = table.find("low.example.com", "v1").unwrap();
        assert_eq!((found.host().as_str(), found.port, found.is_available), ("server.ns.svc", 443, true));
    }

    #[test]
    fn a_tls_configuration_lasts_as_long_as_its_trust() {
        let mut object = service("a.example.com", "v1", 1, 1);
        let first = Table::of([&object].into_iter(), None, &Table::default());
        let config = |table: &Table| table.find("a.example.com", "v1").unwrap().tls.clone().unwrap();
        object["status"] = json!({});
        let second = Table::of([&object].into_iter(), None, &first);
        assert!(Arc::ptr_eq(&config(&first), &config(&second)));
        object["spec"]["insecureSkipTLSVerify"] = json!(false);
        object["spec"]["caBundle"] = json!("bm8gY2VydGlmaWNhdGU=");
        let third = Table::of([&object].into_iter(), None, &second);
        assert!(!Arc::ptr_eq(&config(&second), &config(&third)));
        object["spec"]["caBundle"] = json!("?");
        assert!(Table::of([&object].into_iter(), None, &third).find("a.example.com", "v1").unwrap().tls.is_err());
    }
}
