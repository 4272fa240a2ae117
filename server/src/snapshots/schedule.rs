//! Snapshots by the clock on the wall: when the next one is due, and how many are kept.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Zoned;
use tokio_util::sync::CancellationToken;

use super::{SCHEDULED, Snapshots};

/// A crontab's schedule: five fields, or six with the seconds first, or a name such as `@daily`.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|error| format!("expected a schedule such as \"0 */12 * * *\": {error}"))?;
        Ok(Schedule { cron })
    }
}

impl Schedule {
    /// Saves a snapshot whenever one is due, until cancelled, and keeps the newest `retention` of them. A snapshot that fails is not
    /// retried before the next one is due.
    pub async fn run(self, snapshots: Snapshots, retention: usize, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = self.next() => {}
                () = cancel.cancelled() => return,
            }
            let done = match snapshots.save(SCHEDULED).await {
                Ok(_) => snapshots.prune(&snapshots.scheduled(), retention).map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::error!(%error, "the scheduled snapshot failed");
            }
        }
    }

    /// Returns when the next one is due, local time.
    async fn next(&self) {
        let Ok(due) = self.after(&Zoned::now()) else {
            tracing::error!("the snapshot schedule has no next time");
            return std::future::pending().await;
        };
        // A timer may wake early, or the clock may have been set back; the next one would then be the same again.
        while let Ok(left) = Duration::try_from(Zoned::now().duration_until(&due))
            && !left.is_zero()
        {
            tokio::time::sleep(left).await;
        }
    }

    fn after(&self, now: &Zoned) -> Result<Zoned, String> {
        self.cron.find_next_occurrence(now, false).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn schedules_are_crontabs() {
        let at = |text: &str| format!("{text}[UTC]").parse::<Zoned>().unwrap();
        let next = |schedule: &str, after: &str| schedule.parse::<Schedule>().unwrap().after(&at(after)).unwrap();
        assert_eq!(next("0 */12 * * *", "2026-01-01T03:00:00Z"), at("2026-01-01T12:00:00Z"));
        assert_eq!(next("0 */12 * * *", "2026-01-01T12:00:00Z"), at("2026-01-02T00:00:00Z"));
        assert_eq!(next("*/5 * * * *", "2026-02-28T23:57:30Z"), at("2026-03-01T00:00:00Z"));
        for wrong in ["", "often", "61 * * * *", "* * * *"] {
            assert!(wrong.parse::<Schedule>().unwrap_err().contains("0 */12 * * *"), "{wrong}");
        }
    }
}
