//! How the seats of a server are divided among its priority levels.
//!
//! Owns two functions without state: the nominal division by shares, and the division by demand, in which a level lends what it does
//! not need. <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#prioritylevelconfiguration>, KEP-1040,
//! "Dispatching" and "Borrowing".

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of seats are small")]

/// The most seats a server has: what can be counted exactly, whatever the flags say.
pub const SEATS_MAX: u32 = 1_000_000;
/// Steps of the search for the fair share: each halves the error.
const STEPS: usize = 64;

/// What a level is configured to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whether nothing waits at this level.
    pub is_exempt: bool,
    /// `nominalConcurrencyShares`
    pub shares: u32,
    /// `lendablePercent`
    pub lendable_percent: u32,
    /// `borrowingLimitPercent`; none: it borrows what there is.
    pub borrowing_percent: Option<u32>,
}

/// The seats between which a level's limit moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// What it has if no level lends or borrows.
    pub nominal: u32,
    /// What it keeps of that.
    pub lower: u32,
    /// What it has if it borrows.
    pub upper: u32,
}

/// What a level has asked for lately, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// The most at one moment since the last division.
    pub high: f64,
    /// What it is expected to ask for.
    pub smoothed: f64,
}

/// A level's new limit, and the target that it was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limit {
    /// What it would have if there were enough for all.
    pub target: f64,
    /// Its seats from now on.
    pub seats: u32,
}

/// Divides the seats of a server by shares.
pub fn nominal(levels: &[Share], server_seats: u32) -> Vec<Bounds> {
    let server_seats = server_seats.min(SEATS_MAX);
    let sum: f64 = levels.iter().map(|level| f64::from(level.shares)).sum();
    let bounds = |level: &Share| {
        let nominal = if sum == 0.0 { 0 } else { (f64::from(server_seats) * f64::from(level.shares) / sum).ceil() as u32 };
        let of_nominal = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let borrows = level.borrowing_percent.map_or(server_seats, of_nominal);
        Bounds {
            nominal,
            lower: nominal.saturating_sub(of_nominal(level.lendable_percent)),
            upper: nominal.saturating_add(borrows).min(2 * SEATS_MAX),
        }
    };
    levels.iter().map(bounds).collect()
}

/// Divides the seats by demand. Each level gets at least what it used of its own share and what it does not lend, at most what it may
/// borrow, and between both the same fraction of its target. The second value is that fraction.
pub fn by_demand(levels: &[(Share, Bounds, Demand)]) -> (Vec<Limit>, f64) {
    let least = |(share, bounds, demand): &(Share, Bounds, Demand)| {
        let wanted = if share.is_exempt { demand.high } else { demand.high.min(f64::from(bounds.nominal)) };
        wanted.max(f64::from(bounds.lower))
    };
    let all: f64 = levels.iter().map(|(_, bounds, _)| f64::from(bounds.nominal)).sum();
    // What exempt levels use is not there for others.
    let exempt: f64 = levels.iter().filter(|(share, ..)| share.is_exempt).map(least).sum();
    let remaining = (all - exempt).max(0.0);
    let limited: Vec<Range> = levels
        .iter()
        .filter(|(share, ..)| !share.is_exempt)
        .map(|level| {
            let lowest = least(level);
            // A level without demand still has one seat's weight: its next request must not find none.
            Range { lowest, highest: f64::from(level.1.upper).max(lowest), target: lowest.max(level.2.smoothed).max(1.0) }
        })
        .collect();
    let (fraction, scale) = fair_fraction(&limited, remaining);
    let mut ranges = limited.iter();
    let limits = levels.iter().map(|level| {
        let target = least(level).max(level.2.smoothed);
        let seats = match (level.0.is_exempt, ranges.as_slice().first()) {
            (false, Some(range)) => {
                ranges.next();
                range.at(fraction) * scale
            }
            _ => least(level),
        };
        Limit { target, seats: (seats.round() as u32).max(1) }
    });
    (limits.collect(), fraction)
}

#[derive(Clone, Copy)]
struct Range {
    lowest: f64,
    highest: f64,
    target: f64,
}

impl Range {
    fn at(&self, fraction: f64) -> f64 {
        (self.target * fraction).clamp(self.lowest, self.highest)
    }
}

/// The fraction of all targets at which nothing remains, and by how much everything shrinks if even the lowest limits are too much.
fn fair_fraction(ranges: &[Range], remaining: f64) -> (f64, f64) {
    let sum = |fraction: f64| ranges.iter().map(|range| range.at(fraction)).sum::<f64>();
    let lowest = sum(0.0);
    if lowest >= remaining {
        let scale = if lowest > 0.0 { remaining / lowest } else { 1.0 };
        return (0.0, scale);
    }
    let (mut low, mut high) = (0.0, f64::from(2 * SEATS_MAX));
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if sum(middle) <= remaining { low = middle } else { high = middle }
    }
    (low, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(shares: u32, lendable_percent: u32, borrowing_percent: Option<u32>) -> Share {
        Share { is_exempt: false, shares, lendable_percent, borrowing_percent }
    }

    const EXEMPT: Share = Share { is_exempt: true, shares: 0, lendable_percent: 0, borrowing_percent: None };

    fn divide(shares: &[Share], demands: &[f64], seats: u32) -> Vec<u32> {
        let bounds = nominal(shares, seats);
        let demand = |seats: f64| Demand { high: seats, smoothed: seats };
        let levels: Vec<_> =
            shares.iter().zip(bounds).zip(demands).map(|((share, bounds), seats)| (*share, bounds, demand(*seats))).collect();
        by_demand(&levels).0.iter().map(|limit| limit.seats).collect()
    }

    #[test]
    fn the_default_levels_get_upstreams_seats() {
        // catch-all, exempt, global-default, leader-election, node-high, system, workload-high, workload-low
        let shares = [
            share(5, 0, None),
            EXEMPT,
            share(20, 50, None),
            share(10, 0, None),
            share(40, 25, None),
            share(30, 33, None),
            share(40, 50, None),
            share(100, 90, None),
        ];
        let bounds = nominal(&shares, 600);
        let seats: Vec<_> = bounds.iter().map(|bounds| (bounds.nominal, bounds.lower)).collect();
        assert_eq!(seats, [(13, 13), (0, 0), (49, 24), (25, 25), (98, 73), (74, 50), (98, 49), (245, 24)]);
        assert_eq!(bounds[0].upper, 613, "without a limit a level borrows what there is");
    }

    #[test]
    fn an_idle_level_lends_what_it_may_and_gets_it_back() {
        let shares = [share(1, 50, None), share(1, 0, None), share(1, 50, Some(10))];
        assert_eq!(divide(&shares, &[0.0, 500.0, 0.0], 300), [50, 200, 50], "half of two idle levels is lent");
        assert_eq!(divide(&shares, &[100.0, 500.0, 100.0], 300), [100, 100, 100], "nobody lends what he uses");
        let limited = divide(&shares, &[0.0, 0.0, 500.0], 300);
        assert_eq!(limited[2], 110, "a limit on borrowing: {limited:?}");
    }

    #[test]
    fn what_exempt_requests_use_is_taken_from_all() {
        let limits = divide(&[EXEMPT, share(1, 100, None), share(1, 0, None)], &[50.0, 100.0, 100.0], 200);
        assert_eq!(limits, [50, 75, 75]);
    }

    /// For many configurations and demands: everything is divided, and every level is within its bounds.
    #[test]
    fn nothing_is_lost_and_nobody_leaves_his_bounds() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for round in 0..2000 {
            let shares: Vec<Share> = (0..=random(7))
                .map(|_| share(random(100) as u32, random(101) as u32, (random(2) == 0).then(|| random(300) as u32)))
                .collect();
            let demands: Vec<f64> = shares.iter().map(|_| random(1000) as f64).collect();
            let seats = 1 + random(1000) as u32;
            let bounds = nominal(&shares, seats);
            let limits = divide(&shares, &demands, seats);
            for (limit, bounds) in limits.iter().zip(&bounds) {
                assert!(*limit <= bounds.upper.max(1) && *limit >= bounds.lower.max(1), "round {round}: {limit} of {bounds:?}");
            }
            let (all, divided): (u32, u32) = (bounds.iter().map(|bounds| bounds.nominal).sum(), limits.iter().sum());
            let everybody_is_full = limits.iter().zip(&bounds).all(|(limit, bounds)| limit + 1 >= bounds.upper);
            let slack = shares.len() as u32;
            assert!(divided <= all + slack && (everybody_is_full || divided + slack >= all), "round {round}: {limits:?} of {bounds:?}");
        }
    }
}
