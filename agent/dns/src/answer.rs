//! The answer to a question: a pure function of the question and the cluster's records.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, PTR, SOA, SRV, TXT},
    },
};

use crate::{
    Error,
    records::{Cluster, HeadlessEndpoint, ServiceRecords},
};

/// Seconds a client may keep an answer; pods come and go.
const TTL_SECS: u32 = 5;
/// Version of the DNS specification, served as `dns-version.<domain>`.
const SPEC_VERSION: &str = "1.1.0";

/// The zone that this server is the authority for.
#[derive(Debug, Clone)]
pub struct Zone {
    domain: Name,
}

/// What to do with a question.
#[derive(Debug)]
pub enum Outcome {
    /// Answer this.
    Answer(Box<Message>),
    /// Ask elsewhere: the name is not ours.
    Forward,
}

/// What a name below the domain stands for.
enum Found {
    /// These records.
    Records(Vec<RData>),
    /// The name exists, but has nothing of the kind that was asked for.
    Nothing,
    /// The name does not exist.
    NoSuchName,
}

impl Zone {
    /// The zone of a cluster domain such as `cluster.local`.
    pub fn new(domain: &str) -> Result<Self, Error> {
        let mut domain = Name::from_ascii(domain).map_err(|_| Error::BadDomain(domain.into()))?;
        domain.set_fqdn(true);
        Ok(Self { domain: domain.to_lowercase() })
    }

    /// Answers one question.
    pub fn answer(&self, question: &Message, cluster: &Cluster) -> Outcome {
        let mut response = Message::response(question.metadata.id, question.metadata.op_code);
        response.metadata.recursion_desired = question.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        let [query] = question.queries.as_slice() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return Outcome::Answer(Box::new(response));
        };
        response.add_query(query.clone());
        let name = query.name().to_lowercase();
        if self.domain.zone_of(&name) {
            self.authoritative(&mut response, query, self.find(&name, query.query_type(), cluster));
            return Outcome::Answer(Box::new(response));
        }
        if let Some(owner) = reverse_address(&name).and_then(|address| cluster.reverse(address)) {
            let found = self.below(&owner).map_or(Found::Nothing, |n| Found::Records(vec![RData::PTR(PTR(n))]));
            self.authoritative(&mut response, query, found);
            return Outcome::Answer(Box::new(response));
        }
        Outcome::Forward
    }

    fn authoritative(&self, response: &mut Message, query: &Query, found: Found) {
        response.metadata.authoritative = true;
        match found {
            Found::Records(records) => {
                for data in records {
                    response.add_answer(Record::from_rdata(query.name().clone(), TTL_SECS, data));
                }
            }
            Found::Nothing => drop(response.add_authority(self.start_of_authority())),
            Found::NoSuchName => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.add_authority(self.start_of_authority());
            }
        }
    }

    fn find(&self, name: &Name, kind: RecordType, cluster: &Cluster) -> Found {
        let depth = usize::from(name.num_labels() - self.domain.num_labels());
        let labels: Vec<String> = name.iter().take(depth).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] if kind == RecordType::SOA => Found::Records(vec![self.start_of_authority().data]),
            [] | ["svc"] | ["pod"] => Found::Nothing,
            ["dns-version"] => only(kind, RecordType::TXT, || RData::TXT(TXT::new(vec![SPEC_VERSION.into()]))),
            [namespace, "svc" | "pod"] => exists_if(cluster.has_namespace(namespace)),
            [address, namespace, "pod"] if cluster.has_namespace(namespace) => {
                dashed(address).map_or(Found::NoSuchName, |ip| only(kind, RecordType::A, || RData::A(A(ip))))
            }
            [rest @ .., service, namespace, "svc"] => match cluster.service(namespace, service) {
                Some(records) => self.service(rest, service, namespace, kind, records),
                None => Found::NoSuchName,
            },
            _ => Found::NoSuchName,
        }
    }

    fn service(&self, rest: &[&str], service: &str, namespace: &str, kind: RecordType, records: ServiceRecords) -> Found {
        match (rest, records) {
            ([], ServiceRecords::External(target)) => external(&target, kind),
            ([], ServiceRecords::ClusterIp(ip, ports)) => match kind {
                RecordType::A => Found::Records(vec![RData::A(A(ip))]),
                RecordType::SRV => found(ports.iter().filter_map(|(_, _, port)| self.srv(*port, service, namespace, None))),
                _ => Found::Nothing,
            },
            ([], ServiceRecords::Headless(endpoints)) => match kind {
                _ if endpoints.is_empty() => Found::NoSuchName,
                RecordType::A => found(endpoints.iter().map(|e| RData::A(A(e.address)))),
                RecordType::SRV => found(
                    endpoints
                        .iter()
                        .flat_map(|e| e.ports.iter().filter_map(|(_, _, port)| self.srv(*port, service, namespace, Some(&e.label)))),
                ),
                _ => Found::Nothing,
            },
            ([port, protocol], records) => self.named_port(port, protocol, service, namespace, kind, &records),
            ([label], ServiceRecords::Headless(endpoints)) => endpoint_named(label, &endpoints, kind),
            _ => Found::NoSuchName,
        }
    }

    fn named_port(&self, port: &str, protocol: &str, service: &str, namespace: &str, kind: RecordType, records: &ServiceRecords) -> Found {
        let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else { return Found::NoSuchName };
        let matches = |p: &&(String, String, u16)| p.0 == port && p.1 == protocol;
        let targets: Vec<RData> = match records {
            ServiceRecords::ClusterIp(_, ports) => {
                ports.iter().filter(matches).filter_map(|p| self.srv(p.2, service, namespace, None)).collect()
            }
            ServiceRecords::Headless(endpoints) => endpoints
                .iter()
                .flat_map(|e| e.ports.iter().filter(matches).filter_map(|p| self.srv(p.2, service, namespace, Some(&e.label))))
                .collect(),
            ServiceRecords::External(_) => Vec::new(),
        };
        match (targets.is_empty(), kind) {
            (true, _) => Found::NoSuchName,
            (false, RecordType::SRV) => Found::Records(targets),
            (false, _) => Found::Nothing,
        }
    }

    fn srv(&self, port: u16, service: &str, namespace: &str, label: Option<&str>) -> Option<RData> {
        let prefix = label.map(|l| format!("{l}.")).unwrap_or_default();
        let target = self.below(&format!("{prefix}{service}.{namespace}.svc"))?;
        Some(RData::SRV(SRV::new(0, 100, port, target)))
    }

    fn below(&self, relative: &str) -> Option<Name> {
        Name::from_ascii(relative).ok()?.append_domain(&self.domain).ok()
    }

    fn start_of_authority(&self) -> Record {
        let host = self.below("ns.dns").unwrap_or_else(|| self.domain.clone());
        let mailbox = self.below("hostmaster").unwrap_or_else(|| self.domain.clone());
        let soa = SOA::new(host, mailbox, 1, 7200, 1800, 86_400, TTL_SECS);
        Record::from_rdata(self.domain.clone(), TTL_SECS, RData::SOA(soa))
    }
}

fn endpoint_named(label: &str, endpoints: &[HeadlessEndpoint], kind: RecordType) -> Found {
    let addresses: Vec<RData> = endpoints.iter().filter(|e| e.label == label).map(|e| RData::A(A(e.address))).collect();
    match (addresses.is_empty(), kind) {
        (true, _) => Found::NoSuchName,
        (false, RecordType::A) => Found::Records(addresses),
        (false, _) => Found::Nothing,
    }
}

fn external(target: &str, kind: RecordType) -> Found {
    match (kind, Name::from_ascii(target)) {
        (RecordType::A | RecordType::AAAA | RecordType::CNAME, Ok(mut name)) => {
            name.set_fqdn(true);
            Found::Records(vec![RData::CNAME(CNAME(name))])
        }
        _ => Found::Nothing,
    }
}

fn found(records: impl Iterator<Item = RData>) -> Found {
    let records: Vec<RData> = records.collect();
    if records.is_empty() { Found::Nothing } else { Found::Records(records) }
}

fn only(asked: RecordType, kind: RecordType, data: impl FnOnce() -> RData) -> Found {
    if asked == kind { Found::Records(vec![data()]) } else { Found::Nothing }
}

fn exists_if(known: bool) -> Found {
    if known { Found::Nothing } else { Found::NoSuchName }
}

/// `10-42-0-7` as an address.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// The address that a name under `in-addr.arpa` asks about.
fn reverse_address(name: &Name) -> Option<Ipv4Addr> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let [d, c, b, a, b"in-addr", b"arpa"] = labels.as_slice() else { return None };
    let octet = |label: &[u8]| std::str::from_utf8(label).ok()?.parse::<u8>().ok();
    Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use hickory_proto::op::OpCode;
    use serde_json::{Value, json};
    use trireme_client::Event;

    fn cluster() -> Cluster {
        let cluster = Cluster::default();
        let service = |name: &str, spec: Value| {
            let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
            cluster.on_service(&Event::Added(Arc::new(serde_json::from_value(object).unwrap())));
        };
        service("web", json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}));
        service("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}));
        service("out", json!({"type": "ExternalName", "externalName": "example.org"}));
        let slice = json!({
            "metadata": {"namespace": "default", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.42.0.6"], "conditions": {"ready": true}},
                {"addresses": ["10.42.0.7"], "conditions": {"ready": false}},
            ],
        });
        cluster.on_slice(&Event::Added(Arc::new(serde_json::from_value(slice).unwrap())));
        cluster
    }

    /// Asks and prints: the response code, then each answer's data.
    fn ask(cluster: &Cluster, name: &str, kind: RecordType) -> String {
        let mut question = Message::query();
        question.metadata.op_code = OpCode::Query;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match Zone::new("cluster.local").unwrap().answer(&question, cluster) {
            Outcome::Forward => "forward".into(),
            Outcome::Answer(m) => {
                let data: Vec<String> = m.answers.iter().map(|r| r.data.to_string()).collect();
                format!("{} {}", m.metadata.response_code, data.join(" ")).trim().to_owned()
            }
        }
    }

    #[test]
    fn names_stand_for_what_the_specification_says() {
        let cluster = cluster();
        let none = "Non-Existent Domain";
        let cases = [
            ("web.default.svc.cluster.local.", RecordType::A, "No Error 10.43.0.9"),
            ("WEB.default.svc.cluster.local.", RecordType::A, "No Error 10.43.0.9"),
            ("web.default.svc.cluster.local.", RecordType::AAAA, "No Error"),
            ("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV, "No Error 0 100 80 web.default.svc.cluster.local."),
            ("_http._udp.web.default.svc.cluster.local.", RecordType::SRV, none),
            ("db.default.svc.cluster.local.", RecordType::A, "No Error 10.42.0.5 10.42.0.6"),
            ("db-0.db.default.svc.cluster.local.", RecordType::A, "No Error 10.42.0.5"),
            ("10-42-0-6.db.default.svc.cluster.local.", RecordType::A, "No Error 10.42.0.6"),
            ("10-42-0-7.db.default.svc.cluster.local.", RecordType::A, none),
            ("out.default.svc.cluster.local.", RecordType::A, "No Error example.org."),
            ("none.default.svc.cluster.local.", RecordType::A, none),
            ("10-42-0-9.default.pod.cluster.local.", RecordType::A, "No Error 10.42.0.9"),
            ("dns-version.cluster.local.", RecordType::TXT, "No Error 1.1.0"),
            ("9.0.43.10.in-addr.arpa.", RecordType::PTR, "No Error web.default.svc.cluster.local."),
            ("5.0.42.10.in-addr.arpa.", RecordType::PTR, "No Error db-0.db.default.svc.cluster.local."),
            ("1.1.1.1.in-addr.arpa.", RecordType::PTR, "forward"),
            ("example.org.", RecordType::A, "forward"),
        ];
        for (name, kind, expected) in cases {
            assert_eq!(ask(&cluster, name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn a_deleted_service_has_no_name() {
        let cluster = cluster();
        let gone = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"clusterIP": "10.43.0.9"}});
        cluster.on_service(&Event::Deleted(Arc::new(serde_json::from_value(gone).unwrap())));
        assert_eq!(ask(&cluster, "web.default.svc.cluster.local.", RecordType::A), "Non-Existent Domain");
        assert_eq!(ask(&cluster, "9.0.43.10.in-addr.arpa.", RecordType::PTR), "forward");
    }
}
