//! Container logs: the CRI's files, read backwards and forwards, followed and rotated.
//!
//! A line is `<RFC 3339 time> <stdout|stderr> <P|F> <text>`; P means that the line goes on in the next one. Answers to
//! <https://kubernetes.io/docs/concepts/cluster-administration/logging/>.

pub(crate) mod line;
pub(crate) mod reader;
pub(crate) mod rotate;

use std::path::Path;

/// The last lines of a log, at most that many bytes, without their times.
pub(crate) async fn tail(path: &Path, lines: usize, max_bytes: usize) -> String {
    let mut out = Vec::new();
    let options = reader::Options { tail_lines: Some(lines), ..Default::default() };
    if reader::read_once(path, &options, &mut out).await.is_err() {
        return String::new();
    }
    let start = out.len().saturating_sub(max_bytes);
    String::from_utf8_lossy(&out[start..]).into_owned()
}
