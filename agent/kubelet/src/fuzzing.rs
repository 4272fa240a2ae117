//! The decoders of bytes from containers, runtimes and clients, for random input. Only with the feature `fuzzing`; nothing else uses it.

use std::path::Path;

use crate::logs::reader;
use crate::server;

/// Reads a log file in the ways that clients ask for.
///
/// # Panics
/// If more bytes come out than were asked for.
pub async fn log_file(path: &Path) {
    for options in [
        reader::Options::default(),
        reader::Options { timestamps: true, tail_lines: Some(2), ..reader::Options::default() },
        reader::Options { only_stderr: Some(true), since: "2026-01-01T00:00:02Z".parse().ok(), ..reader::Options::default() },
        reader::Options { limit_bytes: Some(7), tail_lines: Some(0), ..reader::Options::default() },
        reader::Options { limit_bytes: Some(7), ..reader::Options::default() },
    ] {
        let limit = options.limit_bytes;
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        let read = reader::stream(path.to_owned(), options, false, || async { false }, sender);
        let take = async {
            let mut length = 0;
            while let Some(piece) = receiver.recv().await {
                length += piece.map_or(0, |bytes| bytes.len());
            }
            length
        };
        let (_, length) = tokio::join!(read, take);
        assert!(limit.is_none_or(|limit| length <= limit), "{length} bytes instead of {limit:?}");
    }
    let end = reader::read_end(path, 3, 64).await;
    assert!(end.is_ok_and(|text| text.len() <= 64));
}

/// Reads the frames that a runtime sends.
pub async fn spdy(bytes: &[u8]) {
    server::fuzzing::spdy(bytes).await;
}

/// Reads the frames that a client sends, and what they mean in each form.
pub async fn websocket(bytes: &[u8]) {
    server::fuzzing::websocket(bytes).await;
}
