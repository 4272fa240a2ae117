//! The wall clock of the controllers. Plans never read it: they are given the time.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Now, in whole seconds, as the API stores it.
pub(crate) fn now() -> Timestamp {
    whole(Timestamp::now())
}

fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Seconds between two times; negative if `since` is later.
pub(crate) fn seconds_since(since: &Time, now: Timestamp) -> i64 {
    now.as_second() - since.0.as_second()
}
