//! Packets in and out: pure functions of bytes, so that they can be fuzzed.

use hickory_proto::op::{Message, MessageType, ResponseCode};

use crate::{
    answer::{MAX_UDP, Outcome, Zone, response_to},
    records::Cluster,
};

const HEADER: usize = 12;
/// Without EDNS an answer over UDP has at most this many bytes.
const PLAIN_UDP: u16 = 512;

/// How a query arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram, with a bounded answer.
    Udp,
    /// A connection.
    Tcp,
}

/// What is done with a packet.
#[derive(Debug)]
pub enum Reply {
    /// No answer: the packet is not a query. An answer to an answer would start a loop between two servers.
    Silence,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Another server has to be asked.
    Ask(Box<Message>, Outcome),
}

/// Parses a packet and answers it from what this node knows.
pub fn reply(raw: &[u8], transport: Transport, zone: &Zone, cluster: &Cluster) -> Reply {
    let question = match Message::from_vec(raw) {
        Ok(question) if question.metadata.message_type == MessageType::Query => question,
        Ok(_) => return Reply::Silence,
        Err(_) => return format_error(raw).map_or(Reply::Silence, Reply::Bytes),
    };
    match zone.answer(&question, cluster) {
        Outcome::Answer(answer) => encode(&answer, &question, transport).map_or(Reply::Silence, Reply::Bytes),
        more => Reply::Ask(Box::new(question), more),
    }
}

/// The bytes of an answer, cut where the client takes no more.
pub fn encode(answer: &Message, question: &Message, transport: Transport) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let limit = match transport {
        Transport::Udp => question.edns.as_ref().map_or(PLAIN_UDP, |e| e.max_payload().clamp(PLAIN_UDP, MAX_UDP)),
        Transport::Tcp => u16::MAX,
    };
    if bytes.len() > usize::from(limit) { answer.truncate().to_vec().ok() } else { Some(bytes) }
}

/// The answer of a server that failed.
pub fn failure(question: &Message) -> Message {
    let mut failure = response_to(question);
    failure.metadata.response_code = ResponseCode::ServFail;
    failure.add_queries(question.queries.iter().cloned());
    failure
}

/// FORMERR for a packet whose header is that of a query and whose rest cannot be parsed.
fn format_error(raw: &[u8]) -> Option<Vec<u8>> {
    let header = raw.get(..HEADER)?;
    // Byte 2: response bit, operation, three flags of which "recursion desired" is copied.
    if header[2] & 0x80 != 0 {
        return None;
    }
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&header[..2]);
    answer[2] = 0x80 | (header[2] & 0x79);
    answer[3] = 0x80 | 1;
    Some(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hickory_proto::{
        op::{Edns, Query},
        rr::{Name, RecordType},
    };

    fn question(name: &str) -> Message {
        let mut question = Message::query();
        question.metadata.id = 7;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        question
    }

    fn bytes(raw: &[u8]) -> Vec<u8> {
        let cluster = Cluster::default();
        cluster.set_complete();
        match reply(raw, Transport::Udp, &Zone::new("cluster.local").unwrap(), &cluster) {
            Reply::Bytes(bytes) => bytes,
            Reply::Silence | Reply::Ask(..) => Vec::new(),
        }
    }

    #[test]
    fn edns_is_answered_to_those_who_speak_it() {
        let mut asked = question("a.default.svc.cluster.local.");
        assert!(Message::from_vec(&bytes(&asked.to_vec().unwrap())).unwrap().edns.is_none());
        asked.set_edns(Edns::new());
        let answer = Message::from_vec(&bytes(&asked.to_vec().unwrap())).unwrap();
        assert_eq!(answer.edns.unwrap().max_payload(), MAX_UDP);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn broken_packets_get_a_format_error_or_silence() {
        let whole = question("a.default.svc.cluster.local.").to_vec().unwrap();
        let cut = bytes(&whole[..20]);
        assert_eq!((cut.len(), &cut[..2], cut[3] & 0x0f), (12, &[0, 7][..], 1));
        assert!(bytes(&whole[..11]).is_empty());
        let mut response = whole.clone();
        response[2] |= 0x80;
        assert!(bytes(&response).is_empty(), "an answer is not answered");
        for position in 0..whole.len() {
            for value in [0, 1, 0x3f, 0xc0, 0xff] {
                let mut broken = whole.clone();
                broken[position] = value;
                drop(bytes(&broken));
            }
        }
    }

    #[test]
    fn zone_transfers_are_refused() {
        let mut asked = Message::query();
        asked.add_query(Query::query(Name::from_ascii("cluster.local.").unwrap(), RecordType::AXFR));
        let answer = Message::from_vec(&bytes(&asked.to_vec().unwrap())).unwrap();
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::Refused, 0));
    }
}
