//! Cron schedules: five fields, the `@` names, `@every`. No I/O.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax>.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// No schedule is rarer than a 29 February on a certain weekday.
const DAYS_MAX: usize = 40 * 366;
/// The shortest time between two runs of `@every`, and the longest.
const EVERY_SECS: std::ops::RangeInclusive<i64> = 1..=366 * 24 * 3600;

/// When a CronJob runs.
#[derive(Clone, Debug)]
pub(super) enum Schedule {
    Fields(Box<Fields>, TimeZone),
    Every(i64),
}

/// A bit for each value.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days of the month and days of the week are both restricted: then either is enough.
    either_day: bool,
}

impl Schedule {
    /// Reads a schedule, to be understood in this time zone.
    pub(super) fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("@every ") {
            let every: SignedDuration = rest.trim().parse().map_err(|error| format!("{rest:?} is no duration: {error}"))?;
            let seconds = every.as_secs();
            return if EVERY_SECS.contains(&seconds) { Ok(Self::Every(seconds)) } else { Err(format!("{rest:?} is out of range")) };
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        Ok(Self::Fields(Box::new(Fields::parse(fields)?), zone))
    }

    /// The first run after a time.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            Self::Fields(fields, zone) => {
                let mut day = zone.to_datetime(after).date();
                for _ in 0..DAYS_MAX {
                    if fields.has_day(day) {
                        let found = fields.times().filter_map(|time| at(zone, day, time)).find(|time| *time > after);
                        if found.is_some() {
                            return found;
                        }
                    }
                    day = day.checked_add(1.day()).ok()?;
                }
                None
            }
        }
    }

    /// The last run after `since` and not after `now`.
    pub(super) fn latest(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => {
                let runs = now.as_second().saturating_sub(since.as_second()) / seconds;
                (runs > 0).then(|| Timestamp::from_second(since.as_second() + runs * seconds).ok()).flatten()
            }
            Self::Fields(fields, zone) => {
                let first = zone.to_datetime(since).date();
                let mut day = zone.to_datetime(now).date();
                for _ in 0..DAYS_MAX {
                    if day < first {
                        return None;
                    }
                    if fields.has_day(day) {
                        let times: Vec<Time> = fields.times().collect();
                        let found = times.into_iter().rev().filter_map(|time| at(zone, day, time)).find(|time| *time <= now);
                        if let Some(found) = found {
                            return (found > since).then_some(found);
                        }
                    }
                    day = day.checked_sub(1.day()).ok()?;
                }
                None
            }
        }
    }
}

/// The moment of a time of day; one that a change of clocks skips happens right after the change.
fn at(zone: &TimeZone, day: Date, time: Time) -> Option<Timestamp> {
    zone.to_ambiguous_timestamp(day.to_datetime(time)).compatible().ok()
}

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {text:?}", parts.len()));
        };
        let open = |field: &str| field.starts_with('*') || field.starts_with('?');
        let weekday_bits = bits(weekdays, 0, 7, &WEEKDAYS, 0)?;
        Ok(Self {
            minutes: bits(minutes, 0, 59, &[], 0)?,
            hours: bits(hours, 0, 23, &[], 0)?,
            days: bits(days, 1, 31, &[], 0)?,
            months: bits(months, 1, 12, &MONTHS, 1)?,
            // Sunday is 0 and 7.
            weekdays: (weekday_bits | (weekday_bits >> 7)) & 0x7f,
            either_day: !open(days) && !open(weekdays),
        })
    }

    fn has_day(&self, day: Date) -> bool {
        let has = |bits: u64, value: i8| u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0);
        let (of_month, of_week) = (has(self.days, day.day()), has(self.weekdays, day.weekday().to_sunday_zero_offset()));
        has(self.months, day.month()) && if self.either_day { of_month || of_week } else { of_month && of_week }
    }

    /// The times of a day, in order.
    fn times(&self) -> impl Iterator<Item = Time> + '_ {
        let in_bits = |bits: u64, end: i8| (0..end).filter(move |value| bits & (1 << u32::from(value.unsigned_abs())) != 0);
        in_bits(self.hours, 24).flat_map(move |hour| in_bits(self.minutes, 60).map(move |minute| Time::constant(hour, minute, 0, 0)))
    }
}

/// The values that a field names: `*`, `a`, `a-b`, each with `/step`, in a list.
fn bits(field: &str, least: u32, most: u32, names: &[&str], first_name: u32) -> Result<u64, String> {
    let number = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name)).and_then(|at| u32::try_from(at).ok());
        let value = match named {
            Some(at) => at + first_name,
            None => text.parse().map_err(|_| format!("failed to parse int from {text:?}"))?,
        };
        if (least..=most).contains(&value) { Ok(value) } else { Err(format!("{value} is not between {least} and {most}: {field:?}")) }
    };
    let mut all = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| format!("failed to parse step {step:?}"))?)),
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                // A start with a step goes on to the end.
                None => (number(range)?, if step.is_some() { most } else { number(range)? }),
            },
        };
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(format!("step of range must be a positive number: {part:?}"));
        }
        if first > last {
            return Err(format!("beginning of range beyond end of range: {part:?}"));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        all |= (first..=last).step_by(step).fold(0_u64, |bits, value| bits | (1 << value));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(schedule: &str, after: &str) -> String {
        Schedule::parse(schedule, TimeZone::UTC).unwrap().next(time(after)).map_or("never".to_owned(), |at| at.to_string())
    }

    #[test]
    fn runs_follow_the_schedule() {
        let cases = [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("59 23 31 12 *", "2026-01-01T00:00:00Z", "2026-12-31T23:59:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 12 * * MON-FRI", "2026-01-02T12:00:00Z", "2026-01-05T12:00:00Z"),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("5/20 * * jan *", "2026-01-01T00:30:00Z", "2026-01-01T00:45:00Z"),
            ("@hourly", "2026-01-01T00:30:00Z", "2026-01-01T01:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:30:00Z", "2026-01-01T02:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
        ];
        for (schedule, after, wanted) in cases {
            assert_eq!(next(schedule, after), wanted, "{schedule}");
        }
        for bad in ["* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "x * * * *", "@every 0s", "* * * * 8"] {
            assert!(Schedule::parse(bad, TimeZone::UTC).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_latest_missed_run_is_found() {
        let schedule = Schedule::parse("*/10 * * * *", TimeZone::UTC).unwrap();
        let latest = |since: &str, now: &str| schedule.latest(time(since), time(now)).map(|at| at.to_string());
        assert_eq!(latest("2025-01-01T00:00:00Z", "2026-01-01T00:25:00Z").as_deref(), Some("2026-01-01T00:20:00Z"));
        assert_eq!(latest("2026-01-01T00:20:00Z", "2026-01-01T00:29:59Z"), None, "that one has run");
        assert_eq!(latest("2026-01-01T00:20:00Z", "2026-01-01T00:30:00Z").as_deref(), Some("2026-01-01T00:30:00Z"));
        let every = Schedule::parse("@every 60s", TimeZone::UTC).unwrap();
        assert_eq!(every.latest(time("2026-01-01T00:00:30Z"), time("2026-01-01T00:02:45Z")), Some(time("2026-01-01T00:02:30Z")));
    }

    #[test]
    fn a_time_zone_moves_the_day() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let schedule = Schedule::parse("30 1 * * *", berlin).unwrap();
        assert_eq!(schedule.next(time("2026-07-01T00:00:00Z")), Some(time("2026-07-01T23:30:00Z")));
        assert_eq!(schedule.next(time("2026-01-01T00:00:00Z")), Some(time("2026-01-01T00:30:00Z")));
    }
}
