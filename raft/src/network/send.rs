//! Cuts a snapshot directory into messages.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trireme_proto::{peer, store};

use crate::blocking::blocking;
use crate::error::StoreError;
use crate::snapshot::SnapshotDir;

const CHUNK_BYTES: usize = 512 * 1024;
const CHUNKS_IN_FLIGHT: usize = 8;

/// The header, then every file in manifest order. Reads on a blocking thread, a few chunks ahead; a read
/// error ends the stream early, which the receiver notices by the manifest.
pub(crate) fn snapshot_messages(vote: store::Vote, snapshot: SnapshotDir) -> ReceiverStream<peer::SnapshotMessage> {
    use peer::snapshot_message::Part;
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    tokio::spawn(async move {
        let header = peer::SnapshotHeader { vote: Some(vote), manifest: Some(snapshot.manifest().clone()) };
        if sender.send(peer::SnapshotMessage { part: Some(Part::Header(header)) }).await.is_err() {
            return;
        }
        for (index, file) in snapshot.manifest().files.iter().enumerate() {
            match send_file(&sender, index as u32, &snapshot.data().join(&file.path)).await {
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

/// False if the receiver is gone.
async fn send_file(sender: &mpsc::Sender<peer::SnapshotMessage>, index: u32, path: &Path) -> Result<bool, StoreError> {
    use peer::snapshot_message::Part;
    let failed = |error| StoreError::io(path.display(), error);
    let mut file = File::open(path).map_err(failed)?;
    let mut offset = 0;
    loop {
        let read = blocking(move || {
            let mut data = BytesMut::zeroed(CHUNK_BYTES);
            let read = file.read(&mut data)?;
            data.truncate(read);
            Ok((file, crc32c::crc32c(&data), data.freeze()))
        });
        let (again, crc32c, data) = read.await?.map_err(failed)?;
        if data.is_empty() {
            return Ok(true);
        }
        file = again;
        let chunk = peer::SnapshotChunk { file: index, offset, data, crc32c };
        offset += chunk.data.len() as u64;
        if sender.send(peer::SnapshotMessage { part: Some(Part::Chunk(chunk)) }).await.is_err() {
            return Ok(false);
        }
    }
}
