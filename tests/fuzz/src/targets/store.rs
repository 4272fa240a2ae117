//! The store's formats: requests of etcd's API, messages of peers, snapshot archives.

use prost::Message;
use trireme_proto::{etcd, peer, store};
use trireme_raft::backup::{BackupReader, MAGIC};
use trireme_raft::mvcc::check_txn;

use super::Target;

pub fn targets() -> Vec<Target> {
    vec![
        Target { name: "etcd", what: "requests of etcd's API", corpus: requests, run: run_request },
        Target { name: "peer", what: "messages of the peer protocol", corpus: messages, run: run_message },
        Target { name: "archive", what: "snapshot archives", corpus: archives, run: run_archive },
    ]
}

fn requests() -> Vec<Vec<u8>> {
    let put = etcd::PutRequest { key: "k".into(), value: "v".into(), lease: 1, ..Default::default() };
    let op = |request| etcd::RequestOp { request: Some(request) };
    let inner = etcd::TxnRequest { success: vec![op(etcd::request_op::Request::RequestPut(put.clone()))], ..Default::default() };
    let range = etcd::RangeRequest { key: "a".into(), range_end: "z".into(), limit: 10, revision: 5, ..Default::default() };
    let txn = etcd::TxnRequest {
        compare: vec![etcd::Compare { key: "k".into(), ..Default::default() }],
        success: vec![op(etcd::request_op::Request::RequestTxn(inner)), op(etcd::request_op::Request::RequestRange(range.clone()))],
        failure: vec![op(etcd::request_op::Request::RequestPut(put.clone()))],
    };
    vec![put.encode_to_vec(), range.encode_to_vec(), txn.encode_to_vec()]
}

fn run_request(bytes: &[u8]) {
    if let Ok(txn) = etcd::TxnRequest::decode(bytes) {
        let _ = check_txn(&txn);
    }
    let _ = etcd::RangeRequest::decode(bytes);
    let _ = etcd::PutRequest::decode(bytes);
    let _ = etcd::DeleteRangeRequest::decode(bytes);
    let _ = etcd::WatchRequest::decode(bytes);
    let _ = etcd::CompactionRequest::decode(bytes);
}

fn messages() -> Vec<Vec<u8>> {
    let command = store::Command { format: 1, proposal_id: "0123456789abcdef".into(), ..Default::default() };
    vec![
        peer::ProposeRequest { commands: vec![command.encode_to_vec().into()] }.encode_to_vec(),
        peer::AppendRequest::default().encode_to_vec(),
        peer::JoinTicket { cluster_id: 7, node_id: 2, ..Default::default() }.encode_to_vec(),
        command.encode_to_vec(),
    ]
}

fn run_message(bytes: &[u8]) {
    let _ = peer::AppendRequest::decode(bytes);
    let _ = peer::VoteRequest::decode(bytes);
    let _ = peer::SnapshotMessage::decode(bytes);
    let _ = peer::ChangeMemberRequest::decode(bytes);
    let _ = store::Command::decode(bytes);
    if let Ok(request) = peer::ProposeRequest::decode(bytes) {
        for command in request.commands {
            let _ = store::Command::decode(command);
        }
    }
    let _ = trireme_raft::JoinTicket::from_bytes(bytes::Bytes::copy_from_slice(bytes));
}

fn archives() -> Vec<Vec<u8>> {
    use store::backup_frame::Frame;
    let header = store::BackupHeader { format: store::FORMAT_BACKUP, cluster_id: 7, revision: 3, state_format: 1, ..Default::default() };
    let kv = etcd::KeyValue { key: "k".into(), value: "v".into(), create_revision: 2, mod_revision: 2, version: 1, lease: 0 };
    let record = store::BackupRecord { record: Some(store::backup_record::Record::Key(kv)) };
    let frames = [
        Frame::Header(header),
        Frame::Chunk(store::BackupChunk { records: vec![record] }),
        Frame::Trailer(store::BackupTrailer { keys: 1, chunks: 1, ..Default::default() }),
    ];
    let payloads: Vec<Vec<u8>> = frames.into_iter().map(|frame| store::BackupFrame { frame: Some(frame) }.encode_to_vec()).collect();
    let mut archive = MAGIC.to_vec();
    payloads.iter().for_each(|payload| archive.extend(framed(payload)));
    // The whole, and each payload: `run_archive` frames what is not an archive.
    payloads.into_iter().chain([archive]).collect()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, &crc32c::crc32c(payload).to_be_bytes()[..], payload].concat()
}

fn run_archive(bytes: &[u8]) {
    read_archive(bytes);
    if !bytes.starts_with(MAGIC) {
        // Behind the checksums: the input as the first frame, and as the second one after a good header.
        let header = archives().into_iter().next().unwrap_or_default();
        read_archive(&[MAGIC, &framed(bytes)[..]].concat());
        read_archive(&[MAGIC, &framed(&header)[..], &framed(bytes)[..]].concat());
    }
}

fn read_archive(bytes: &[u8]) {
    let Ok(mut reader) = BackupReader::open(bytes) else { return };
    while let Ok(Some(_)) = reader.next_records() {}
    let _ = reader.summary();
}
