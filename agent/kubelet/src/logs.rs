//! Container logs: the CRI's files, read backwards and forwards, followed and rotated.
//!
//! A line is `<RFC 3339 time> <stdout|stderr> <P|F> <text>`; P means that the line goes on in the next one. Answers to
//! <https://kubernetes.io/docs/concepts/cluster-administration/logging/>.

pub(crate) mod line;
pub(crate) mod reader;
pub(crate) mod rotate;

use std::path::Path;

/// The end of a log: at most so many lines and bytes, without their times.
pub(crate) async fn tail(path: &Path, lines: usize, max_bytes: usize) -> String {
    let text = reader::read_end(path, lines, max_bytes).await.unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}
