//! Reads one container's log, from a line or a moment on, once or as it grows.

use std::{
    io::SeekFrom,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader},
    sync::mpsc,
};

use super::line;

/// How often a followed file is looked at: kernel events for files would cost one inotify instance for each reader, and a
/// machine has 128.
const FOLLOW: Duration = Duration::from_millis(200);
const BLOCK: u64 = 64 << 10;
/// A runtime splits the output of a container into lines of 16 KiB. A longer line is not the runtime's, and the part beyond this is left
/// out.
const MAX_LINE_BYTES: usize = 256 << 10;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) tail_lines: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<usize>,
    /// Only this stream.
    pub(crate) only_stderr: Option<bool>,
}

/// Formats lines until the limit is reached.
struct Formatter<'a> {
    options: &'a Options,
    written: usize,
    /// The line before was partial, so no time is put before this one.
    continues: bool,
}

impl Formatter<'_> {
    /// Appends a raw line; false when the limit is reached.
    fn push(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = line::parse(raw) else { return true };
        if self.options.only_stderr.is_some_and(|only| only != line.is_stderr) {
            return true;
        }
        if self.options.since.is_some_and(|since| line.timestamp().is_some_and(|at| at < since)) {
            return true;
        }
        let before = out.len();
        if self.options.timestamps && !self.continues {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.is_full {
            out.push(b'\n');
        }
        self.continues = !line.is_full;
        self.written += out.len() - before;
        match self.options.limit_bytes {
            Some(limit) if self.written >= limit => {
                out.truncate(out.len() - (self.written - limit));
                false
            }
            _ => true,
        }
    }
}

/// Where the last `lines` lines of a file begin. A line that goes on is one line with what follows it.
async fn tail_start(file: &mut File, lines: usize) -> std::io::Result<u64> {
    let size = file.metadata().await?.len();
    if lines == 0 {
        return Ok(size);
    }
    let (mut end, mut found) = (size, 0);
    let mut block = vec![0_u8; BLOCK as usize];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let length = (end - start) as usize;
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut block[..length]).await?;
        for at in (0..length).rev() {
            if block[at] != b'\n' || start + at as u64 + 1 == size {
                continue;
            }
            // The line before this newline decides: if it is partial, it belongs to what follows.
            let line_start = block[..at].iter().rposition(|b| *b == b'\n').map(|p| p + 1);
            let partial = line_start.is_some_and(|s| line::parse(&block[s..at]).is_some_and(|l| !l.is_full));
            if !partial {
                found += 1;
                if found == lines {
                    return Ok(start + at as u64 + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// Appends a line, or the part of it that is there, to `raw`; returns how many bytes were taken from the reader.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), raw: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut taken = 0;
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(taken);
        }
        let end = available.iter().position(|b| *b == b'\n').map(|at| at + 1);
        let length = end.unwrap_or(available.len());
        let room = MAX_LINE_BYTES.saturating_sub(raw.len());
        raw.extend_from_slice(&available[..length.min(room)]);
        if end.is_some() && length > room {
            raw.push(b'\n');
        }
        taken += length;
        reader.consume(length);
        if end.is_some() {
            return Ok(taken);
        }
    }
}

/// Reads the end of the log as it is now, bounded in lines and bytes.
pub(crate) async fn read_end(path: &Path, lines: usize, max_bytes: usize) -> std::io::Result<Vec<u8>> {
    let options = Options { tail_lines: Some(lines), ..Options::default() };
    let mut out = Vec::new();
    read(path, &options, &mut out, Some(max_bytes)).await?;
    out.drain(..out.len().saturating_sub(max_bytes));
    Ok(out)
}

/// Reads what is there now into `out`.
#[cfg(test)]
async fn read_once(path: &Path, options: &Options, out: &mut Vec<u8>) -> std::io::Result<()> {
    read(path, options, out, None).await
}

/// With `keep`, little more than the last so many bytes are held at any time: lines that go on and on are one line.
async fn read(path: &Path, options: &Options, out: &mut Vec<u8>, keep: Option<usize>) -> std::io::Result<()> {
    let mut file = File::open(path).await?;
    if let Some(lines) = options.tail_lines {
        let start = tail_start(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let mut formatter = Formatter { options, written: 0, continues: false };
    let mut lines = BufReader::new(file);
    let mut raw = Vec::new();
    while read_line(&mut lines, &mut raw).await? > 0 {
        let more = formatter.push(raw.strip_suffix(b"\n").unwrap_or(&raw), out);
        raw.clear();
        if let Some(keep) = keep.filter(|keep| out.len() > keep.saturating_mul(2)) {
            out.drain(..out.len() - keep);
        }
        if !more {
            break;
        }
    }
    Ok(())
}

/// Sends what is there, and with `follow` what comes, until the container has ended (and its file is read to the end), the limit
/// is reached or the reader goes away. Rotation is followed: the file of that name is opened anew when the old one is at its end.
pub(crate) async fn stream<F, Fut>(
    path: PathBuf,
    options: Options,
    follow: bool,
    is_running: F,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()>
where
    F: Fn() -> Fut + Send,
    Fut: Future<Output = bool> + Send,
{
    use std::os::unix::fs::MetadataExt;
    let mut file = File::open(&path).await?;
    let mut inode = file.metadata().await?.ino();
    let start = match options.tail_lines {
        Some(lines) => tail_start(&mut file, lines).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let mut formatter = Formatter { options: &options, written: 0, continues: false };
    let mut lines = BufReader::new(file);
    let mut raw = Vec::new();
    let mut out = Vec::new();
    let mut idle = 0_u32;
    loop {
        let read = read_line(&mut lines, &mut raw).await?;
        if read > 0 && raw.ends_with(b"\n") {
            let more = formatter.push(&raw[..raw.len() - 1], &mut out);
            raw.clear();
            if !more || out.len() >= BLOCK as usize {
                let full = Bytes::from(std::mem::take(&mut out));
                if sender.send(Ok(full)).await.is_err() || !more {
                    return Ok(());
                }
            }
            continue;
        }
        if !out.is_empty() && sender.send(Ok(Bytes::from(std::mem::take(&mut out)))).await.is_err() {
            return Ok(());
        }
        if !follow {
            return Ok(());
        }
        if read > 0 {
            idle = 0;
        }
        if let Ok(metadata) = tokio::fs::metadata(&path).await
            && metadata.ino() != inode
            && read == 0
        {
            inode = metadata.ino();
            lines = BufReader::new(File::open(&path).await?);
            raw.clear();
            continue;
        }
        // Asked once a second. After a negative answer the file is read once more, for what was written before the answer.
        if idle % 5 == 4 && !is_running().await {
            if read_line(&mut lines, &mut raw).await? == 0 {
                return Ok(());
            }
            if raw.ends_with(b"\n") {
                formatter.push(&raw[..raw.len() - 1], &mut out);
                raw.clear();
            }
            continue;
        }
        idle += 1;
        tokio::select! {
            () = tokio::time::sleep(FOLLOW) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, options: Options) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        read_once(&path, &options, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    #[tokio::test]
    async fn tail_since_limit_and_timestamps() {
        assert_eq!(read(LOG, Options::default()).await, "one\ntwo\nthree\n");
        for (lines, expected) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (9, "one\ntwo\nthree\n")] {
            assert_eq!(read(LOG, Options { tail_lines: Some(lines), ..Default::default() }).await, expected, "{lines}");
        }
        assert_eq!(read(LOG, Options { since: Some("2026-01-01T00:00:02Z".parse().unwrap()), ..Default::default() }).await, "two\nthree\n");
        assert_eq!(read(LOG, Options { limit_bytes: Some(5), ..Default::default() }).await, "one\nt");
        assert_eq!(
            read(LOG, Options { timestamps: true, tail_lines: Some(2), ..Default::default() }).await,
            "2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n"
        );
    }

    #[tokio::test]
    async fn security_10_one_endless_line_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let part = format!("2026-01-01T00:00:01Z stdout P {}\n", "x".repeat(16 << 10));
        std::fs::write(&path, part.repeat(600) + "2026-01-01T00:00:01Z stdout F end\n").unwrap();
        let text = read_end(&path, 80, 2048).await.unwrap();
        assert!(text.len() == 2048 && text.ends_with(b"xxend\n") && text.capacity() < 64 << 10, "{} {}", text.len(), text.capacity());
        // A file without a newline is no log of a runtime's.
        std::fs::write(&path, vec![b'y'; 2 << 20]).unwrap();
        let mut raw = Vec::new();
        let mut reader = BufReader::new(File::open(&path).await.unwrap());
        assert_eq!(read_line(&mut reader, &mut raw).await.unwrap(), 2 << 20);
        assert_eq!(raw.len(), MAX_LINE_BYTES);
    }

    #[tokio::test]
    async fn a_tail_longer_than_a_block() {
        let long: String = (0..5000).map(|i| format!("2026-01-01T00:00:01Z stdout F line {i:04} {}\n", "x".repeat(40))).collect();
        let text = read(&long, Options { tail_lines: Some(3000), ..Default::default() }).await;
        assert_eq!(text.lines().count(), 3000);
        assert!(text.starts_with("line 2000 "));
    }
}
