//! Cuts a snapshot directory into messages.

use std::fs::File;
use std::io::Read;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trireme_proto::{peer, store};

use crate::snapshot::SnapshotDir;

const CHUNK_BYTES: usize = 512 * 1024;
const CHUNKS_IN_FLIGHT: usize = 8;

/// The header, then every file in manifest order. Reads on a blocking thread, a few chunks ahead; a read
/// error ends the stream early, which the receiver notices by the manifest.
pub(crate) fn snapshot_messages(vote: store::Vote, snapshot: SnapshotDir) -> ReceiverStream<peer::SnapshotMessage> {
    use peer::snapshot_message::Part;
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        let send = |part| sender.blocking_send(peer::SnapshotMessage { part: Some(part) }).is_ok();
        let header = peer::SnapshotHeader { vote: Some(vote), manifest: Some(snapshot.manifest().clone()) };
        if !send(Part::Header(header)) {
            return;
        }
        for (index, file) in snapshot.manifest().files.iter().enumerate() {
            let result = File::open(snapshot.data().join(&file.path)).and_then(|mut open| {
                let mut offset = 0;
                loop {
                    let mut data = BytesMut::zeroed(CHUNK_BYTES);
                    let read = open.read(&mut data)?;
                    data.truncate(read);
                    if read == 0 {
                        return Ok(true);
                    }
                    let crc32c = crc32c::crc32c(&data);
                    let chunk = peer::SnapshotChunk { file: index as u32, offset, data: data.freeze(), crc32c };
                    offset += read as u64;
                    if !send(Part::Chunk(chunk)) {
                        return Ok(false);
                    }
                }
            });
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(file = %file.path, %error, "cannot read a snapshot file");
                    return;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}
