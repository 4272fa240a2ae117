//! Metrics under etcd's names (<https://etcd.io/docs/v3.6/metrics/>), in Prometheus' text format.
//!
//! What the store measures is read from it; what clients ask for is counted here. Metrics of the process itself are the
//! API server's to expose: no series is shown twice.

mod calls;

use std::fmt::Write;
use std::sync::atomic::Ordering;

use trireme_raft::metrics::HistogramReading;
use trireme_raft::{Role, Store};

pub(crate) use calls::{Calls, CallsLayer};

/// A page that grows.
struct Page(String);

// === impl Page ===

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, kind: &str, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }

    /// `labels` as `a="b",`, or empty.
    fn histogram(&mut self, name: &str, labels: &str, reading: &HistogramReading) {
        for (bound, count) in &reading.buckets {
            self.sample(&format!("{name}_bucket"), &format!("{{{labels}le=\"{bound}\"}}"), count);
        }
        self.sample(&format!("{name}_bucket"), &format!("{{{labels}le=\"+Inf\"}}"), reading.count);
        let plain = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        self.sample(&format!("{name}_sum"), &plain, reading.sum_secs);
        self.sample(&format!("{name}_count"), &plain, reading.count);
    }
}

/// The whole page. Reads the disk for the sizes, and at the first time for the number of keys.
pub(crate) fn render(store: &Store, calls: &Calls) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    server(&mut page, store);
    disk(&mut page, store);
    mvcc(&mut page, store);
    peers(&mut page, store);
    calls.render(&mut page);
    page.0
}

fn server(page: &mut Page, store: &Store) {
    let status = store.status().borrow().clone();
    let metrics = store.metrics();
    let flag = |flag: bool| u8::from(flag);
    let id = format!("{{server_id=\"{:x}\"}}", store.node_id());
    page.head("etcd_server_id", "gauge", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.");
    page.sample("etcd_server_id", &id, 1);
    page.head("etcd_server_version", "gauge", "Which version is running. 1 for 'server_version' label with current version.");
    page.sample("etcd_server_version", &format!("{{server_version=\"{}\"}}", crate::VERSION), 1);
    let leader = status.leader.is_some() && status.has_quorum_contact;
    page.one("gauge", "etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", flag(leader));
    let leads = flag(status.role == Role::Leader);
    page.one("gauge", "etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", leads);
    let learns = flag(status.role == Role::Learner);
    page.one("gauge", "etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", learns);
    let changes = metrics.leader_changes.load(Ordering::Relaxed);
    page.one("counter", "etcd_server_leader_changes_seen_total", "The number of leader changes seen.", changes);
    let committed = status.committed_index.max(status.applied_index);
    page.one("gauge", "etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", committed);
    page.one("gauge", "etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", status.applied_index);
    let pending = metrics.proposals_pending.load(Ordering::Relaxed);
    page.one("gauge", "etcd_server_proposals_pending", "The current number of pending proposals to commit.", pending);
    let failed = metrics.proposals_failed.load(Ordering::Relaxed);
    page.one("counter", "etcd_server_proposals_failed_total", "The total number of failed proposals seen.", failed);
}

fn disk(page: &mut Page, store: &Store) {
    let metrics = store.metrics();
    let name = "etcd_disk_wal_fsync_duration_seconds";
    page.head(name, "histogram", "The latency distributions of synced writes of the log.");
    page.histogram(name, "", &metrics.log_sync.read());
    let name = "etcd_disk_backend_commit_duration_seconds";
    page.head(name, "histogram", "The latency distributions of write batches of the state.");
    page.histogram(name, "", &metrics.state_commit.read());
}

fn mvcc(page: &mut Page, store: &Store) {
    let counters = store.counters();
    page.one(
        "gauge",
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        store.size_bytes(),
    );
    let quota = store.space().borrow().quota_bytes;
    page.one("gauge", "etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", quota);
    page.one(
        "gauge",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        store.live_bytes(),
    );
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    page.one("counter", "etcd_mvcc_range_total", "Total number of ranges seen by this member.", count(&counters.ranges));
    page.one("counter", "etcd_mvcc_put_total", "Total number of puts seen by this member.", count(&counters.puts));
    page.one("counter", "etcd_mvcc_delete_total", "Total number of deletes seen by this member.", count(&counters.deletes));
    page.one("counter", "etcd_mvcc_txn_total", "Total number of txns seen by this member.", count(&counters.txns));
    // The page without this number is better than none.
    match store.keys() {
        Ok(keys) => page.one("gauge", "etcd_debugging_mvcc_keys_total", "Total number of keys.", keys),
        Err(error) => tracing::warn!(%error, "the keys cannot be counted"),
    }
    let watchers = counters.watchers.load(Ordering::Relaxed);
    page.one("gauge", "etcd_debugging_mvcc_watcher_total", "Total number of watchers.", watchers);
    let slow = counters.slow_watchers.load(Ordering::Relaxed);
    page.one("gauge", "etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.", slow);
    page.one("counter", "etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", count(&counters.events));
    page.one("gauge", "etcd_debugging_mvcc_current_revision", "The current revision of store.", store.revision());
    page.one("gauge", "etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", store.compact_revision());
}

fn peers(page: &mut Page, store: &Store) {
    let round_trips = store.metrics().round_trips();
    if round_trips.is_empty() {
        return;
    }
    let name = "etcd_network_peer_round_trip_time_seconds";
    page.head(name, "histogram", "Round-Trip-Time histogram between peers.");
    for (member, reading) in round_trips {
        page.histogram(name, &format!("To=\"{member:x}\","), &reading);
    }
}
