//! What a request costs, in seats.
//!
//! Owns the estimates, made before the request runs: a list costs by the objects that are looked at, a change by the watchers that are told of it. They
//! follow upstream's `pkg/util/flowcontrol/request`, but for one thing: lists are read from the watch cache, which stops at the limit of
//! a page, so a page without selectors costs what it returns.

use std::time::Duration;

use crate::flowcontrol::queues::Work;

/// The most seats of one request.
pub const SEATS_MAX: u32 = 10;
/// Objects of a list for one seat.
const OBJECTS_PER_SEAT: usize = 100;
/// Watchers of a change for one seat.
const WATCHERS_PER_SEAT: usize = 10;
/// How long one seat works on telling its watchers.
const EXTRA: Duration = Duration::from_millis(5);

/// A list of a resource that has so many objects; `page`: at most so many of them are looked at, none: all are.
pub fn list(objects: usize, page: Option<usize>, seats_max: u32) -> Work {
    let looked_at = page.map_or(objects, |page| page.min(objects));
    let seats = u32::try_from(looked_at.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(u32::MAX);
    Work { seats: seats.clamp(1, seats_max.clamp(1, SEATS_MAX)), ..Work::ONE }
}

/// A change that so many watchers are told of.
pub fn change(watchers: usize, seats_max: u32) -> Work {
    let wanted = u32::try_from(watchers.div_ceil(WATCHERS_PER_SEAT)).unwrap_or(u32::MAX);
    let final_seats = wanted.min(seats_max.clamp(1, SEATS_MAX));
    if final_seats == 0 {
        return Work::ONE;
    }
    // Fewer seats work longer.
    let extra = EXTRA.saturating_mul(wanted) / final_seats;
    Work { final_seats, extra: extra.min(Duration::from_secs(1)), ..Work::ONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_costs_by_its_objects() {
        let seats = |objects, page, most| list(objects, page, most).seats;
        assert_eq!([seats(0, None, 10), seats(100, None, 10), seats(101, None, 10), seats(100_000, None, 99)], [1, 1, 2, 10]);
        assert_eq!([seats(1000, Some(500), 10), seats(1000, Some(5000), 10), seats(1000, None, 3)], [5, 10, 3]);
        assert_eq!(seats(1000, None, 0), 1);
    }

    #[test]
    fn a_change_costs_by_its_watchers() {
        assert_eq!(change(0, 10), Work::ONE);
        assert_eq!(change(1, 10), Work { seats: 1, final_seats: 1, extra: EXTRA });
        assert_eq!(change(95, 10), Work { seats: 1, final_seats: 10, extra: EXTRA });
        assert_eq!(change(100, 5), Work { seats: 1, final_seats: 5, extra: 2 * EXTRA }, "fewer seats work longer");
        assert_eq!(change(usize::MAX, 5).extra, Duration::from_secs(1));
    }
}
