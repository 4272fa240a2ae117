//! One line of a CRI log file.

use jiff::Timestamp;

/// A parsed line; `text` without its newline when the line is partial.
#[derive(Debug, PartialEq)]
pub(crate) struct Line<'a> {
    /// As written, for `--timestamps`.
    pub(crate) time: &'a str,
    pub(crate) is_stderr: bool,
    /// The text ends here; otherwise it goes on in the next line of this stream.
    pub(crate) is_full: bool,
    pub(crate) text: &'a [u8],
}

impl Line<'_> {
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Parses a line without its final newline.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let is_stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let tag = parts.next()?;
    let is_full = tag.split(|b| *b == b':').next() != Some(b"P");
    Some(Line { time, is_stderr, is_full, text: parts.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_partial_lines_and_rubbish() {
        let line = parse(b"2026-01-02T03:04:05.678901234Z stdout F hello  world").unwrap();
        assert_eq!((line.is_stderr, line.is_full, line.text), (false, true, &b"hello  world"[..]));
        assert_eq!(line.timestamp().unwrap().subsec_nanosecond(), 678_901_234);
        let line = parse(b"2026-01-02T03:04:05Z stderr P abc").unwrap();
        assert_eq!((line.is_stderr, line.is_full), (true, false));
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().text, b"");
        assert_eq!(parse(b"nonsense"), None);
    }
}
