//! DNS packets.

use std::str::FromStr;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use trireme_dns::{
    Cluster,
    answer::Zone,
    packet::{self, Transport},
};

use super::Target;

pub fn targets() -> Vec<Target> {
    vec![Target { name: "dns", what: "DNS packets", corpus, run }]
}

fn corpus() -> Vec<Vec<u8>> {
    let names =
        ["web.default.svc.cluster.local.", "1.0.42.10.in-addr.arpa.", "_http._tcp.web.default.svc.cluster.local.", "example.org.", "."];
    let kinds = [RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::SRV, RecordType::ANY, RecordType::SOA];
    let mut packets = Vec::new();
    for name in names.iter().filter_map(|name| Name::from_str(name).ok()) {
        for kind in kinds {
            let mut message = Message::query();
            message.add_query(Query::query(name.clone(), kind));
            packets.extend(message.to_vec().ok());
        }
    }
    packets
}

fn run(bytes: &[u8]) {
    let Ok(zone) = Zone::new("cluster.local") else { return };
    let cluster = Cluster::default();
    cluster.set_complete();
    for transport in [Transport::Udp, Transport::Tcp] {
        drop(packet::reply(bytes, transport, &zone, &cluster));
    }
}
