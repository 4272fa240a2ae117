//! Timestamps and durations as the API writes them.
//!
//! `metav1.Time` has whole seconds, `metav1.MicroTime` six digits, both in UTC; upstream's parser accepts any RFC 3339
//! offset and fraction. The clock itself is outside of this crate.

use std::time::Duration;

pub use jiff::Timestamp;

/// Parses a duration as Go's `time.ParseDuration` does, from nanoseconds to hours. `None` if it is malformed, negative or too large.
pub fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    Some(total)
}

/// Parses RFC 3339 as strictly as Go's `time.RFC3339` layout: date, `T`, time with seconds, offset.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20
        && bytes[..19].iter().enumerate().all(|(i, b)| match i {
            4 | 7 => *b == b'-',
            10 => *b == b'T',
            13 | 16 => *b == b':',
            _ => b.is_ascii_digit(),
        });
    if !shape || bytes[17] == b'6' {
        return None;
    }
    let rest = &text[19..];
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    let offset = zone.as_bytes();
    let zone_ok = zone == "Z"
        || (offset.len() == 6
            && matches!(offset[0], b'+' | b'-')
            && offset[3] == b':'
            && [1, 2, 4, 5].iter().all(|i| offset[*i].is_ascii_digit()));
    if zone_ok { text.parse().ok() } else { None }
}

/// `2006-01-02T15:04:05Z`, as `metav1.Time`.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2006-01-02T15:04:05.000000Z`, as `metav1.MicroTime`.
pub fn format_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The age of something that happened at `since` in the words of `kubectl get` (upstream's
/// `duration.HumanDuration`); `<invalid>` for the future, `<unknown>` for an absent or malformed time.
pub fn age(since: &str, now: Timestamp) -> String {
    match parse(since) {
        Some(since) => human_duration_secs(now.as_second() - since.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in the words of `kubectl get`.
pub fn human_duration(duration: Duration) -> String {
    human_duration_secs(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

fn human_duration_secs(seconds: i64) -> String {
    const DAYS_OF_YEAR: i64 = 365;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let pair = |high: i64, high_unit: char, low: i64, low_unit: char| {
        if low == 0 { format!("{high}{high_unit}") } else { format!("{high}{high_unit}{low}{low_unit}") }
    };
    // Machines' clocks differ: up to two seconds in the future are now.
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, 'd', hours % 24, 'h'),
        _ if days < DAYS_OF_YEAR * 2 => format!("{days}d"),
        _ if days < DAYS_OF_YEAR * 8 => pair(days / DAYS_OF_YEAR, 'y', days % DAYS_OF_YEAR, 'd'),
        _ => format!("{}y", days / DAYS_OF_YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_go_parses() {
        let cases = [
            ("2024-02-29T23:59:59Z", Some("2024-02-29T23:59:59Z")),
            ("2024-01-01T01:00:00+02:00", Some("2023-12-31T23:00:00Z")),
            ("2024-01-01T01:00:00.987654321Z", Some("2024-01-01T01:00:00Z")),
            ("2023-02-29T00:00:00Z", None),
            ("2024-01-01 01:00:00Z", None),
            ("2024-01-01T01:00:00", None),
            ("2024-01-01T01:00Z", None),
            ("2024-01-01T01:00:00.Z", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).map(format).as_deref(), want, "{text}");
        }
        let micro = parse("2024-01-01T01:00:00.5Z").map(format_micro);
        assert_eq!(micro.as_deref(), Some("2024-01-01T01:00:00.500000Z"));
    }

    #[test]
    fn ages_read_as_in_kubectl() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (8 * HOUR - 1, "7h59m"),
            (8 * HOUR, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (8 * DAY - 1, "7d23h"),
            (8 * DAY, "8d"),
            (730 * DAY - 1, "729d"),
            (731 * DAY, "2y1d"),
            (365 * 8 * DAY, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration_secs(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        let secs = |text| go_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(secs("1m30s"), Some(90.0));
        assert_eq!((secs("500ms"), secs("1.5h"), secs("0"), secs("0s")), (Some(0.5), Some(5400.0), Some(0.0), Some(0.0)));
        for bad in ["", "5", "s", "-1s", "1d", "1s2", "99999999999999999999999h", "1..2s", "é"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
