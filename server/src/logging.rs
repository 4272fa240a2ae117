//! Log lines on standard error. Where that is the systemd journal, each line carries its priority (`sd-daemon(3)`) and leaves the time to the journal.

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging at a level (`info`) or with a filter (`info,trireme_raft=debug`).
pub fn start(level: &str) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(quiet_libraries(level))
        .map_err(|e| format!("invalid value '{level}' for '--log-level <LEVEL>': {e}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match is_journal() {
        true => lines.with_ansi(false).event_format(JournalLines::new()).try_init(),
        false => lines.with_ansi(std::io::stderr().is_terminal()).with_target(true).try_init(),
    };
    started.map_err(|e| e.to_string())
}

/// Whether standard error is the journal's stream: `JOURNAL_STREAM` names it by device and inode, and is inherited by processes whose
/// standard error is something else.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|own| named == format!("{}:{}", own.dev(), own.ino()))
}

/// Lines as the journal reads them: a priority in angle brackets before each, no time, no colours.
struct JournalLines {
    line: Format<Full, ()>,
}

// === impl JournalLines ===

impl JournalLines {
    fn new() -> JournalLines {
        JournalLines { line: Format::default().without_time().with_ansi(false).with_target(true) }
    }
}

impl<S, N> FormatEvent<S, N> for JournalLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        self.line.format_event(context, Writer::new(&mut text), event)?;
        // A text from outside may hold line breaks: what follows one must not choose its own priority.
        text.lines().try_for_each(|line| writeln!(writer, "<{}>{line}", priority(*event.metadata().level())))
    }
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// A bare level is about Trireme; libraries below it speak up only when something is wrong.
fn quiet_libraries(level: &str) -> String {
    let (bare, more) = level.find(',').map_or((level, ""), |at| level.split_at(at));
    match bare {
        "error" | "warn" | "info" => format!(
            "{bare},openraft=warn,hyper=warn,h2=warn,rustls=warn,tonic=warn,tower=warn,netlink_packet_route=error,netlink_proto=warn{more}"
        ),
        "debug" => format!(
            "debug,openraft=info,hyper=info,h2=info,rustls=info,tonic=info,tower=info,netlink_packet_route=error,netlink_proto=warn{more}"
        ),
        _ => level.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn vm_10_each_line_in_the_journal_has_its_priority_and_no_time() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(JournalLines::new())
            .finish();
        tracing::subscriber::with_default(lines, || {
            tracing::error!("one");
            tracing::warn!(node = "a", "two");
            tracing::info!("three\n<0>forged");
            tracing::debug!("four");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let seen: Vec<&str> = text.lines().map(|line| line.split_inclusive('>').next().unwrap_or_default()).collect();
        assert_eq!(seen, ["<3>", "<4>", "<6>", "<6>", "<7>"], "{text}");
        assert!(text.contains("trireme::logging::tests: two node=\"a\""), "{text}");
        assert!(!text.contains("20"), "the journal has the time itself: {text}");
        assert!(!text.contains("\n<0>"), "{text}");
    }
}
