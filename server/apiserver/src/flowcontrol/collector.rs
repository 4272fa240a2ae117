//! What `/metrics` shows of the levels as they are when it is read.
//!
//! Owns the families with the label `priority_level` alone. They are made of the levels' state, so that a request changes nothing for
//! them.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::flowcontrol::demand::TimedHistogram;
use crate::flowcontrol::level::State;
use crate::flowcontrol::levels::Levels;

const PREFIX: &str = "apiserver_flowcontrol_";

/// A number of a level: name and help of its family, and how it is read.
type Number = (&'static str, &'static str, fn(&State) -> f64);
/// A distribution of a level: name and help of its family, a further label, and how it is read.
type Ratio = (&'static str, &'static str, Option<(&'static str, &'static str)>, fn(&mut State) -> &mut TimedHistogram);

const NUMBERS: &[Number] = &[
    ("nominal_limit_seats", "Seats by shares.", |state| f64::from(state.bounds.nominal)),
    ("lower_limit_seats", "Seats that are not lent.", |state| f64::from(state.bounds.lower)),
    ("upper_limit_seats", "Seats with all that may be borrowed.", |state| f64::from(state.bounds.upper)),
    ("current_limit_seats", "Seats now.", |state| f64::from(state.limit.seats)),
    ("target_seats", "Seats that the last division aimed at.", |state| state.limit.target),
    ("demand_seats_average", "Seats that were asked for in the last period, on average.", |state| state.demand.last()[0]),
    ("demand_seats_stdev", "Standard deviation of the seats that were asked for in the last period.", |state| state.demand.last()[1]),
    ("demand_seats_high_watermark", "The most seats that were asked for in the last period.", |state| state.demand.last()[2]),
    ("demand_seats_smoothed", "Seats that are expected to be asked for.", |state| state.demand.last()[3]),
    ("current_r", "The virtual time.", |state| state.queues.virtual_times()[0]),
    ("dispatch_r", "The virtual time when a request last began.", |state| state.queues.virtual_times()[1]),
    ("latest_s", "The virtual start of the request that began last.", |state| state.queues.virtual_times()[2]),
];

const RATIOS: &[Ratio] = &[
    ("demand_seats", "Seats that are asked for, as a part of the nominal limit; weighed by nanoseconds.", None, |state| {
        &mut state.ratios.demand
    }),
    ("priority_level_seat_utilization", "Seats that are taken, as a part of all; weighed by nanoseconds.", EXECUTING, |state| {
        &mut state.ratios.seats
    }),
    ("priority_level_request_utilization", "Requests, as a part of how many there may be; weighed by nanoseconds.", EXECUTING, |state| {
        &mut state.ratios.executing
    }),
    ("priority_level_request_utilization", "", Some(("phase", "waiting")), |state| &mut state.ratios.waiting),
];
const EXECUTING: Option<(&str, &str)> = Some(("phase", "executing"));

/// Shows the levels.
pub struct LevelCollector {
    levels: Arc<Levels>,
    description: Desc,
}

impl LevelCollector {
    /// Of these levels.
    pub fn new(levels: Arc<Levels>) -> LevelCollector {
        let description =
            Desc::new(format!("{PREFIX}levels"), "The priority levels.".to_owned(), vec!["priority_level".to_owned()], [].into());
        LevelCollector { levels, description: description.expect("invariant: static names are valid") }
    }
}

impl Collector for LevelCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let levels = self.levels.all();
        let mut families: Vec<MetricFamily> = NUMBERS.iter().map(|(name, help, _)| family(name, help, MetricType::GAUGE)).collect();
        let mut ratios: Vec<MetricFamily> = Vec::new();
        for (name, help, ..) in RATIOS.iter().filter(|(_, help, ..)| !help.is_empty()) {
            ratios.push(family(name, help, MetricType::HISTOGRAM));
        }
        let mut bounds = ["next_s_bounds", "next_discounted_s_bounds"]
            .map(|name| family(name, "The first and last virtual start of the next requests of all queues.", MetricType::GAUGE));
        for level in levels.iter() {
            level.inspect(|state, now| {
                for (family, (.., read)) in families.iter_mut().zip(NUMBERS) {
                    add(family, gauge(&level.name, None, read(state)));
                }
                for (name, _, label, read) in RATIOS {
                    let metric = histogram(&level.name, *label, read(state), now);
                    if let Some(family) = ratios.iter_mut().find(|family| family.name().ends_with(name)) {
                        add(family, metric);
                    }
                }
                for (bound, value) in starts(state) {
                    bounds.iter_mut().for_each(|family| add(family, gauge(&level.name, Some(("bound", bound)), value)));
                }
            });
        }
        let mut fraction = family("seat_fair_frac", "The part of its target that each level gets.", MetricType::GAUGE);
        let mut only = Metric::default();
        only.set_gauge(value(self.levels.fraction()));
        add(&mut fraction, only);
        families.extend(ratios.into_iter().chain(bounds).chain([fraction]));
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

/// The first and the last virtual start of the queues that are in use; the virtual time if none is.
fn starts(state: &State) -> [(&'static str, f64); 2] {
    let now = state.queues.virtual_times()[0];
    let starts = || state.queues.in_use().map(|(.., start)| start);
    [("min", starts().reduce(f64::min).unwrap_or(now)), ("max", starts().reduce(f64::max).unwrap_or(now))]
}

fn family(name: &str, help: &str, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("{PREFIX}{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family
}

fn add(family: &mut MetricFamily, metric: Metric) {
    family.mut_metric().push(metric);
}

fn labels(level: &str, more: Option<(&str, &str)>) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    // Sorted by name, as the registry expects.
    let mut pairs: Vec<LabelPair> = more.into_iter().map(pair).collect();
    pairs.push(pair(("priority_level", level)));
    pairs
}

fn value(number: f64) -> Gauge {
    let mut gauge = Gauge::default();
    gauge.set_value(number);
    gauge
}

fn gauge(level: &str, more: Option<(&str, &str)>, number: f64) -> Metric {
    let mut metric = Metric::from_label(labels(level, more));
    metric.set_gauge(value(number));
    metric
}

fn histogram(level: &str, more: Option<(&str, &str)>, ratio: &mut TimedHistogram, now: Duration) -> Metric {
    let (buckets, count, sum) = ratio.cumulated(now);
    let bucket = |(bound, count): (f64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.into_iter().map(bucket).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    let mut metric = Metric::from_label(labels(level, more));
    metric.set_histogram(histogram);
    metric
}
