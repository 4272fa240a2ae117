//! The audit log: a file of one event a line, rotated by size.
//!
//! A write returns once the kernel has the lines, so that an answer never precedes its event. One thread writes; what has queued up
//! meanwhile goes into one write. Names and limits of rotated files are those of upstream's log backend:
//! `audit-2026-01-31T12-00-00.000.log` beside `audit.log`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot};

/// Events that may wait for the writer.
const QUEUE: usize = 1024;
/// How much of them one write takes.
const WRITE_BYTES: usize = 1 << 20;
/// A failure is told in the process's log this often.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(60);
const TIME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// Where the log is, and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The file; `-` for standard output.
    pub path: PathBuf,
    /// Rotated files older than this many days are removed; 0: none is for its age.
    pub max_age_days: u32,
    /// At most so many rotated files are kept; 0: all.
    pub max_backups: usize,
    /// A file that would become larger than this is rotated.
    pub max_size_mib: u64,
}

/// The log, open.
pub struct Log {
    queue: mpsc::Sender<Pending>,
}

/// An event with its newline, and where the outcome is told.
struct Pending {
    line: Vec<u8>,
    done: oneshot::Sender<Result<(), String>>,
}

struct Writer {
    options: LogOptions,
    target: Target,
    complained: Option<Instant>,
}

enum Target {
    Stdout,
    /// None after a failure: it is opened again for the next event.
    File(Option<(File, u64)>),
}

// === impl Log ===

impl Log {
    /// Opens the file, makes its folder where it is missing, and starts the writer.
    ///
    /// # Errors
    /// Why it cannot be written to.
    pub fn open(options: LogOptions) -> Result<Log, String> {
        let target = match options.path.as_os_str() == "-" {
            true => Target::Stdout,
            false => Target::File(Some(open(&options.path).map_err(|error| format!("{}: {error}", options.path.display()))?)),
        };
        let (queue, pending) = mpsc::channel(QUEUE);
        let writer = Writer { options, target, complained: None };
        std::thread::Builder::new()
            .name("trireme-audit".to_owned())
            .spawn(move || writer.run(pending))
            .map_err(|error| format!("no thread for the audit log: {error}"))?;
        Ok(Log { queue })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// It is not in the file.
    pub async fn write(&self, mut line: Vec<u8>) -> Result<(), String> {
        line.push(b'\n');
        let (done, outcome) = oneshot::channel();
        let ended = || "the writer of the audit log has ended".to_owned();
        self.queue.send(Pending { line, done }).await.map_err(|_| ended())?;
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }
}

// === impl Writer ===

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        while let Some(first) = queue.blocking_recv() {
            let mut lines = first.line;
            let mut waiting = vec![first.done];
            while lines.len() < WRITE_BYTES
                && let Ok(next) = queue.try_recv()
            {
                lines.extend_from_slice(&next.line);
                waiting.push(next.done);
            }
            let outcome = self.write(&lines).map_err(|error| error.to_string());
            if let Err(error) = &outcome {
                self.complain(error, waiting.len());
            }
            for done in waiting {
                // A request that has ended meanwhile waits no longer.
                let _ = done.send(outcome.clone());
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let Target::File(open_file) = &mut self.target else {
            let mut out = io::stdout().lock();
            return out.write_all(lines).and_then(|()| out.flush());
        };
        let (mut file, mut size) = match open_file.take() {
            Some(opened) => opened,
            None => open(&self.options.path)?,
        };
        let added = lines.len() as u64;
        if size > 0 && size + added > self.options.max_size_mib << 20 {
            drop(file);
            rotate(&self.options, Timestamp::now())?;
            (file, size) = open(&self.options.path)?;
        }
        // After a failed write the end of the file is unknown: it is opened again, and a torn line is ended.
        file.write_all(lines)?;
        *open_file = Some((file, size + added));
        Ok(())
    }

    fn complain(&mut self, error: &str, events: usize) {
        if self.complained.is_none_or(|at| at.elapsed() > COMPLAINT_PERIOD) {
            self.complained = Some(Instant::now());
            tracing::error!(error, events, path = %self.options.path.display(), "audit events were not written");
        }
    }
}

/// Opens the file for appending; returns it and its size.
fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut size = file.metadata()?.len();
    if size > 0 && !ends_a_line(&file, size)? {
        file.write_all(b"\n")?;
        size += 1;
    }
    Ok((file, size))
}

fn ends_a_line(file: &File, size: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    file.read_exact_at(&mut last, size - 1)?;
    Ok(last == *b"\n")
}

/// Gives the file the name of a backup, and removes backups that are too many or too old.
fn rotate(options: &LogOptions, now: Timestamp) -> io::Result<()> {
    let (stem, extension) = parts(&options.path);
    let name = format!("{stem}-{}{extension}", now.to_zoned(TimeZone::UTC).strftime(TIME_FORMAT));
    fs::rename(&options.path, options.path.with_file_name(name))?;
    let mut backups = backups(&options.path)?;
    backups.sort_unstable_by(|a, b| b.cmp(a));
    let oldest = match options.max_age_days {
        0 => Timestamp::MIN,
        days => now.checked_sub(jiff::SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MIN),
    };
    let most = if options.max_backups == 0 { usize::MAX } else { options.max_backups };
    for (index, (at, path)) in backups.into_iter().enumerate() {
        if index >= most || at < oldest {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// `audit` and `.log`.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = text(path.extension());
    (text(path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
}

/// The rotated files of a log, with the times in their names.
fn backups(path: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let (stem, extension) = parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let time = name.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.strip_suffix(extension.as_str()));
        let time = time.and_then(|time| jiff::civil::DateTime::strptime(TIME_FORMAT, time).ok());
        if let Some(at) = time.and_then(|time| time.to_zoned(TimeZone::UTC).ok()) {
            found.push((at.timestamp(), entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: PathBuf) -> LogOptions {
        LogOptions { path, max_age_days: 0, max_backups: 2, max_size_mib: 1 }
    }

    #[tokio::test]
    async fn what_is_written_is_there_and_old_files_go() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("logs/audit.log");
        let log = Log::open(options(path.clone())).unwrap();
        fs::write(path.with_file_name("audit-other.log"), "").unwrap();
        let line = vec![b'x'; 600 << 10];
        for _ in 0..5 {
            log.write(line.clone()).await.unwrap();
            assert_eq!(fs::read(&path).unwrap().len(), line.len() + 1, "each file takes one line");
        }
        assert_eq!(backups(&path).unwrap().len(), 2, "of four, the two newest are kept");
        assert!(path.with_file_name("audit-other.log").exists(), "other files stay");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn backups_go_by_age() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.log");
        for name in ["audit.log", "audit-2026-01-01T00-00-00.000.log", "audit-2026-01-09T00-00-00.000.log"] {
            fs::write(home.path().join(name), "x").unwrap();
        }
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        rotate(&LogOptions { max_age_days: 2, ..options(path.clone()) }, now).unwrap();
        let mut left: Vec<String> = backups(&path).unwrap().into_iter().map(|(at, _)| at.to_string()).collect();
        left.sort();
        assert_eq!(left, ["2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z"]);
    }

    #[tokio::test]
    async fn a_torn_line_is_ended_and_a_failure_is_told() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.log");
        fs::write(&path, "torn").unwrap();
        let log = Log::open(options(path.clone())).unwrap();
        log.write(b"whole".to_vec()).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "torn\nwhole\n");
        assert!(Log::open(options(home.path().join("audit.log/below"))).is_err());
        if Path::new("/dev/full").exists() {
            let full = Log::open(options(PathBuf::from("/dev/full"))).unwrap();
            assert!(full.write(b"lost".to_vec()).await.unwrap_err().contains("No space left"));
        }
    }
}
