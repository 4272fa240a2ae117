//! The answer to a question: a pure function of the question and the cluster's records.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, CNAME, PTR, SOA, SRV, TXT},
    },
};

use crate::{
    Error,
    records::{Cluster, HeadlessEndpoint, ServiceRecords},
};

/// Seconds a client may keep an answer; pods come and go.
const TTL_SECS: u32 = 5;
/// The longest chain of names that stand for other names.
const MAX_ALIASES: usize = 8;
/// What this server takes over UDP.
pub(crate) const MAX_UDP: u16 = 4096;
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
    /// The name stands for one that is not ours: add what that one stands for, then answer this. A stub resolver such as glibc's asks
    /// no second question.
    Follow(Box<Message>, Query),
    /// Ask elsewhere: the name is not ours.
    Forward,
}

/// What a name below the domain stands for.
enum Found {
    /// These records.
    Records(Vec<RData>),
    /// Another name.
    Alias(Name),
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

    /// Whether a name is below the cluster domain.
    pub fn contains(&self, name: &Name) -> bool {
        self.domain.zone_of(&name.to_lowercase())
    }

    /// Answers one question.
    pub fn answer(&self, question: &Message, cluster: &Cluster) -> Outcome {
        let mut response = response_to(question);
        if let Some(code) = refusal(question) {
            response.metadata.response_code = code;
            return Outcome::Answer(Box::new(response));
        }
        let [query] = question.queries.as_slice() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return Outcome::Answer(Box::new(response));
        };
        response.add_query(query.clone());
        let name = query.name().to_lowercase();
        if self.domain.zone_of(&name) {
            return self.answer_ours(response, query, name, cluster);
        }
        if let Some(owner) = reverse_address(&name).and_then(|address| cluster.reverse(address)) {
            let found = self.below(&owner).map_or(Found::Nothing, |n| Found::Records(vec![RData::PTR(PTR(n))]));
            self.authoritative(&mut response, query.name(), found);
            return Outcome::Answer(Box::new(response));
        }
        Outcome::Forward
    }

    /// A name of ours, and what it leads to.
    fn answer_ours(&self, mut response: Message, query: &Query, mut name: Name, cluster: &Cluster) -> Outcome {
        if !cluster.is_complete() {
            // A name that is not known yet is not answered as missing: resolvers cache such an answer.
            response.metadata.response_code = ResponseCode::ServFail;
            return Outcome::Answer(Box::new(response));
        }
        let kind = query.query_type();
        // The owner of the first answer is spelled as the client spelled it.
        let mut owner = query.name().clone();
        for _ in 0..MAX_ALIASES {
            let target = match self.find(&name, kind, cluster) {
                Found::Alias(target) => target,
                found => {
                    self.authoritative(&mut response, &owner, found);
                    return Outcome::Answer(Box::new(response));
                }
            };
            response.metadata.authoritative = true;
            response.add_answer(Record::from_rdata(owner, TTL_SECS, RData::CNAME(CNAME(target.clone()))));
            if kind == RecordType::CNAME {
                return Outcome::Answer(Box::new(response));
            }
            if !self.contains(&target) {
                return Outcome::Follow(Box::new(response), Query::query(target, kind));
            }
            name = target.to_lowercase();
            owner = target;
        }
        // Names that lead in a circle.
        response.metadata.response_code = ResponseCode::ServFail;
        Outcome::Answer(Box::new(response))
    }

    fn authoritative(&self, response: &mut Message, owner: &Name, found: Found) {
        response.metadata.authoritative = true;
        match found {
            Found::Records(records) => {
                for data in records {
                    response.add_answer(Record::from_rdata(owner.clone(), TTL_SECS, data));
                }
            }
            // Followed by the caller.
            Found::Alias(target) => drop(response.add_answer(Record::from_rdata(owner.clone(), TTL_SECS, RData::CNAME(CNAME(target))))),
            Found::Nothing => drop(response.add_authority(self.start_of_authority())),
            Found::NoSuchName => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.add_authority(self.start_of_authority());
            }
        }
    }

    fn find(&self, name: &Name, kind: RecordType, cluster: &Cluster) -> Found {
        let depth = name.iter().count().saturating_sub(self.domain.iter().count());
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

/// The head of an answer. EDNS is used if the client uses it.
pub(crate) fn response_to(question: &Message) -> Message {
    let mut response = Message::response(question.metadata.id, question.metadata.op_code);
    response.metadata.recursion_desired = question.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        response.set_edns(edns);
    }
    response
}

/// Why a question is not answered at all.
fn refusal(question: &Message) -> Option<ResponseCode> {
    let Some(query) = question.queries.first() else { return Some(ResponseCode::FormErr) };
    if question.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    // Transfers of whole zones, and classes other than the internet's.
    let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    (is_transfer || query.query_class() != DNSClass::IN).then_some(ResponseCode::Refused)
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
            Found::Alias(name)
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
        service("alias", json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}));
        service("loop", json!({"type": "ExternalName", "externalName": "loop.default.svc.cluster.local"}));
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
        cluster.set_complete();
        cluster
    }

    /// Asks and prints: the response code, then each answer's data.
    fn ask(cluster: &Cluster, name: &str, kind: RecordType) -> String {
        let mut question = Message::query();
        question.metadata.op_code = OpCode::Query;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match Zone::new("cluster.local").unwrap().answer(&question, cluster) {
            Outcome::Forward => "forward".into(),
            Outcome::Follow(m, next) => format!("{} and follow {} {}", m.answers.len(), next.name(), next.query_type()),
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
            ("out.default.svc.cluster.local.", RecordType::A, "1 and follow example.org. A"),
            ("out.default.svc.cluster.local.", RecordType::AAAA, "1 and follow example.org. AAAA"),
            ("out.default.svc.cluster.local.", RecordType::CNAME, "No Error example.org."),
            ("alias.default.svc.cluster.local.", RecordType::A, "No Error web.default.svc.cluster.local. 10.43.0.9"),
            ("*.cluster.local.", RecordType::A, none),
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
    fn d10_names_that_lead_in_a_circle_end() {
        assert!(ask(&cluster(), "loop.default.svc.cluster.local.", RecordType::A).starts_with("Server Failure"));
    }

    #[test]
    fn names_are_not_said_to_be_missing_before_the_cluster_is_known() {
        assert_eq!(ask(&Cluster::default(), "web.default.svc.cluster.local.", RecordType::A), "Server Failure");
        assert_eq!(ask(&Cluster::default(), "example.org.", RecordType::A), "forward");
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
