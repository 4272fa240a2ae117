//! Store metrics without an equivalent in etcd: the number of voters, how many of them answer, how far each lags.
//!
//! Read on each scrape. Only the leader knows the state of the others, so followers show nothing about them.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};
use trireme_raft::Store;
use trireme_raft::metrics::DamageCounters;

use super::ALIVE_WITHIN;

const VALID: &str = "invariant: static names are valid";

/// Reads the store's status.
pub struct StoreCollector {
    store: Store,
    voters: IntGauge,
    contact: IntGauge,
    alive: IntGauge,
    lag: IntGaugeVec,
    damage: IntCounterVec,
    rebuilds: IntCounterVec,
}

impl StoreCollector {
    /// Of this store.
    pub fn new(store: Store) -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect(VALID);
        Self {
            store,
            voters: gauge("trireme_store_voters", "Members whose votes count."),
            contact: gauge("trireme_store_quorum_contact", "Whether this server is in contact with a quorum of its cluster."),
            alive: gauge("trireme_store_voters_alive", "Voters that the leader hears of, itself included. Shown by the leader alone."),
            lag: IntGaugeVec::new(
                Opts::new("trireme_store_member_lag_entries", "Entries of the log that a member lacks. Shown by the leader alone."),
                &["member_id"],
            )
            .expect(VALID),
            damage: IntCounterVec::new(
                Opts::new("trireme_store_damage_total", "How often a part of this server's store was found to be not what was written."),
                &["part"],
            )
            .expect(VALID),
            rebuilds: IntCounterVec::new(
                Opts::new("trireme_store_rebuilds_total", "How often this server's state was made again, and what of."),
                &["from"],
            )
            .expect(VALID),
        }
    }
}

impl StoreCollector {
    /// The store counts; on each scrape every counter here is set to the store's value.
    fn damage(&self) -> Vec<MetricFamily> {
        let DamageCounters { state, diverged, snapshot, log, rebuilt, reseeded } = &self.store.metrics().damage;
        let show = |family: &IntCounterVec, label: &str, count: &AtomicU64| {
            let counter = family.with_label_values(&[label]);
            counter.reset();
            counter.inc_by(count.load(Ordering::Relaxed));
        };
        for (part, count) in [("state", state), ("replica", diverged), ("snapshot", snapshot), ("log", log)] {
            show(&self.damage, part, count);
        }
        for (from, count) in [("own-snapshot", rebuilt), ("other-member", reseeded)] {
            show(&self.rebuilds, from, count);
        }
        self.damage.collect().into_iter().chain(self.rebuilds.collect()).collect()
    }
}

impl Collector for StoreCollector {
    fn desc(&self) -> Vec<&Desc> {
        let families: [&dyn Collector; 6] = [&self.voters, &self.contact, &self.alive, &self.lag, &self.damage, &self.rebuilds];
        families.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.store.status().borrow().clone();
        self.voters.set(status.voters.len() as i64);
        self.contact.set(i64::from(status.has_quorum_contact));
        let mut families: Vec<MetricFamily> = self.voters.collect().into_iter().chain(self.contact.collect()).collect();
        families.extend(self.damage());
        if status.leadership.is_some() {
            let alive = self.store.alive(ALIVE_WITHIN);
            self.alive.set(status.voters.iter().filter(|voter| alive.contains(voter)).count() as i64);
            self.lag.reset();
            for (member, lag) in self.store.lags() {
                self.lag.with_label_values(&[&member.to_string()]).set(i64::try_from(lag).unwrap_or(i64::MAX));
            }
            families.extend(self.alive.collect().into_iter().chain(self.lag.collect()));
        }
        families
    }
}
