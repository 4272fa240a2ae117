//! From a proposed number of replicas to the one that is set: stabilization, rates and bounds. Pure but for what it remembers.
//!
//! Answers to <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#configurable-scaling-behavior>.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Without a behavior, and where its window is not given, a target shrinks to the highest proposal of this time.
const DOWN_WINDOW_SECS: i32 = 300;
/// Nothing older is remembered: the longest window and period that the API takes.
const MEMORY_SECS: i64 = 3600;

/// What is remembered of an autoscaler.
#[derive(Debug, Default)]
pub(super) struct History {
    proposals: Vec<(Timestamp, i32)>,
    grown: Vec<(Timestamp, i32)>,
    shrunk: Vec<(Timestamp, i32)>,
}

/// The bounds of an autoscaler.
pub(super) struct Bounds<'a> {
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
}

/// A condition's reason and message.
pub(super) type Why = (&'static str, &'static str);

/// The number of replicas to set, and how it came about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) replicas: i32,
    /// Of the condition AbleToScale.
    pub(super) stabilized: Why,
    /// Of the condition ScalingLimited, and whether it is true.
    pub(super) limited: (bool, Why),
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: Why =
    ("ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation");
const DOWN_STABILIZED: Why =
    ("ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation");
const IN_RANGE: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_LIMIT: Why = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Why = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

// === impl History ===

impl History {
    /// The first proposal is the number that is there.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.proposals.is_empty() {
            self.proposals.push((now, current));
        }
    }

    /// Decides on a proposal, and remembers it.
    pub(super) fn decide(&mut self, current: i32, proposed: i32, bounds: &Bounds<'_>, now: Timestamp) -> Decision {
        self.forget(now);
        let (stable, why) = match bounds.behavior {
            None => (self.highest(proposed, DOWN_WINDOW_SECS, now), DOWN_STABILIZED),
            Some(behavior) => self.stabilize(current, proposed, behavior, now),
        };
        self.proposals.push((now, proposed));
        let stabilized = if stable == proposed { READY } else { why };
        let (replicas, why) = match bounds.behavior {
            None => without_behavior(current, stable, bounds),
            Some(behavior) => self.within_rates(current, stable, bounds, behavior, now),
        };
        Decision { replicas, stabilized, limited: (replicas != stable, why) }
    }

    /// Remembers that a target was scaled.
    pub(super) fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        let (events, change) = if to > from { (&mut self.grown, to - from) } else { (&mut self.shrunk, from - to) };
        events.push((now, change));
    }

    fn forget(&mut self, now: Timestamp) {
        for events in [&mut self.proposals, &mut self.grown, &mut self.shrunk] {
            events.retain(|(at, _)| *at > ago(now, MEMORY_SECS));
        }
    }

    fn since(&self, window_secs: i32, now: Timestamp) -> impl Iterator<Item = i32> + '_ {
        let start = ago(now, i64::from(window_secs));
        self.proposals.iter().filter(move |(at, _)| *at > start).map(|(_, replicas)| *replicas)
    }

    fn highest(&self, proposed: i32, window_secs: i32, now: Timestamp) -> i32 {
        self.since(window_secs, now).fold(proposed, i32::max)
    }

    /// Grows to the lowest proposal of the window for growth, shrinks to the highest of that for shrinking.
    fn stabilize(&self, current: i32, proposed: i32, behavior: &HorizontalPodAutoscalerBehavior, now: Timestamp) -> (i32, Why) {
        let window = |rules: &Option<HPAScalingRules>| rules.as_ref().and_then(|rules| rules.stabilization_window_seconds);
        let lowest = self.since(window(&behavior.scale_up).unwrap_or(0), now).fold(proposed, i32::min);
        let highest = self.highest(proposed, window(&behavior.scale_down).unwrap_or(DOWN_WINDOW_SECS), now);
        let why = if proposed >= current { UP_STABILIZED } else { DOWN_STABILIZED };
        // Not `clamp`: the lowest may be above the highest of a shorter window.
        (current.max(lowest).min(highest), why)
    }

    fn within_rates(
        &self,
        current: i32,
        wanted: i32,
        bounds: &Bounds<'_>,
        behavior: &HorizontalPodAutoscalerBehavior,
        now: Timestamp,
    ) -> (i32, Why) {
        if wanted > current {
            let limit = self.growth_limit(current, behavior.scale_up.as_ref(), now).max(current);
            let (most, why) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
            if wanted > most {
                return (most, why);
            }
        } else if wanted < current {
            let limit = self.shrink_limit(current, behavior.scale_down.as_ref(), now).min(current);
            let (least, why) = if bounds.min < limit { (limit, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
            if wanted < least {
                return (least, why);
            }
        }
        (wanted, IN_RANGE)
    }

    /// The number at the beginning of a period.
    fn at_start(&self, current: i32, period_secs: i32, now: Timestamp) -> i32 {
        let start = ago(now, i64::from(period_secs));
        let sum = |events: &[(Timestamp, i32)]| {
            events.iter().filter(|(at, _)| *at > start).fold(0, |sum: i32, (_, change)| sum.saturating_add(*change))
        };
        current.saturating_sub(sum(&self.grown)).saturating_add(sum(&self.shrunk))
    }

    fn growth_limit(&self, current: i32, rules: Option<&HPAScalingRules>, now: Timestamp) -> i32 {
        let limits = limits(rules, |kind, value, period_secs| {
            let start = self.at_start(current, period_secs, now);
            match kind {
                "Percent" => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32,
                _ => start.saturating_add(value),
            }
        });
        match selected(rules) {
            "Disabled" => current,
            "Min" => limits.into_iter().min().unwrap_or(i32::MAX),
            _ => limits.into_iter().max().unwrap_or(current),
        }
    }

    fn shrink_limit(&self, current: i32, rules: Option<&HPAScalingRules>, now: Timestamp) -> i32 {
        let limits = limits(rules, |kind, value, period_secs| {
            let start = self.at_start(current, period_secs, now);
            match kind {
                "Percent" => (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32,
                _ => start.saturating_sub(value),
            }
        });
        match selected(rules) {
            "Disabled" => current,
            // The policy that allows the least change leaves the most replicas.
            "Min" => limits.into_iter().max().unwrap_or(0),
            _ => limits.into_iter().min().unwrap_or(current),
        }
    }
}

fn limits(rules: Option<&HPAScalingRules>, limit: impl Fn(&str, i32, i32) -> i32) -> Vec<i32> {
    let policies = rules.and_then(|rules| rules.policies.as_ref()).into_iter().flatten();
    policies.map(|policy| limit(&policy.type_, policy.value, policy.period_seconds)).collect()
}

fn selected(rules: Option<&HPAScalingRules>) -> &str {
    rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max")
}

/// Twice the replicas at most, but four are always allowed.
fn without_behavior(current: i32, wanted: i32, bounds: &Bounds<'_>) -> (i32, Why) {
    let limit = current.saturating_mul(2).max(4);
    let (most, why) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
    if wanted < bounds.min {
        (bounds.min, TOO_FEW)
    } else if wanted > most {
        (most, why)
    } else {
        (wanted, IN_RANGE)
    }
}

fn ago(now: Timestamp, secs: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(secs)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + secs).unwrap()
    }

    fn behavior(value: Value) -> HorizontalPodAutoscalerBehavior {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn without_a_behavior_growth_is_bounded_and_shrinking_waits() {
        let bounds = Bounds { min: 2, max: 50, behavior: None };
        let mut history = History::default();
        let decide = |history: &mut History, current, proposed, secs| history.decide(current, proposed, &bounds, at(secs)).replicas;
        assert_eq!(decide(&mut history, 3, 40, 0), 6, "twice as many");
        assert_eq!(decide(&mut history, 6, 1, 10), 12, "the highest proposal of five minutes still stands");
        assert_eq!(decide(&mut history, 12, 1, 299), 24);
        assert_eq!(decide(&mut history, 24, 1, 301), 2, "then the minimum");
        let limited = history.decide(2, 90, &Bounds { min: 1, max: 3, behavior: None }, at(302));
        assert_eq!((limited.replicas, limited.limited), (3, (true, TOO_MANY)));
    }

    #[test]
    fn policies_limit_the_change_of_a_period() {
        let up = behavior(json!({"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 100, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}));
        let bounds = Bounds { min: 1, max: 100, behavior: Some(&up) };
        let mut history = History::default();
        let decision = history.decide(10, 90, &bounds, at(0));
        assert_eq!((decision.replicas, decision.limited), (20, (true, UP_LIMIT)));
        history.scaled(10, 20, at(0));
        assert_eq!(history.decide(20, 90, &bounds, at(30)).replicas, 20, "the period's growth is used up");
        assert_eq!(history.decide(20, 90, &bounds, at(61)).replicas, 40);
        assert_eq!(history.decide(20, 1, &bounds, at(200)).replicas, 18, "a tenth in a minute");
        history.scaled(20, 18, at(200));
        assert_eq!(history.decide(18, 1, &bounds, at(230)).replicas, 18);
        assert_eq!(history.decide(18, 1, &bounds, at(261)).replicas, 16, "16.2 is cut");
    }

    #[test]
    fn selection_may_be_the_least_or_none() {
        let rules = |select: &str| {
            behavior(json!({"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": select,
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 100, "periodSeconds": 60}]}}))
        };
        let decide = |select: &str| {
            let rules = rules(select);
            History::default().decide(10, 90, &Bounds { min: 1, max: 100, behavior: Some(&rules) }, at(0)).replicas
        };
        assert_eq!((decide("Min"), decide("Max"), decide("Disabled")), (11, 20, 10));
    }

    #[test]
    fn windows_hold_back_in_both_directions() {
        let both = behavior(
            json!({"scaleUp": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Pods", "value": 99, "periodSeconds": 15}]},
            "scaleDown": {"stabilizationWindowSeconds": 120, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}),
        );
        let bounds = Bounds { min: 1, max: 100, behavior: Some(&both) };
        let mut history = History::default();
        history.begin(5, at(0));
        let decision = history.decide(5, 20, &bounds, at(30));
        assert_eq!((decision.replicas, decision.stabilized), (5, UP_STABILIZED));
        assert_eq!(history.decide(5, 20, &bounds, at(61)).replicas, 20);
        let decision = history.decide(20, 2, &bounds, at(100));
        assert_eq!((decision.replicas, decision.stabilized), (20, DOWN_STABILIZED));
        assert_eq!(history.decide(20, 2, &bounds, at(182)).replicas, 2);
    }
}
