//! The bugs that are planted (`raft/src/mutant.rs` says how), where something like each was once real, and the kind of
//! luck it takes to see it.

/// A bug.
pub struct Mutant {
    /// Its name in the store.
    pub name: &'static str,
    /// Where something like it was once real.
    pub like: &'static str,
    /// Faults that bring it out.
    pub faults: &'static [&'static str],
}

/// All of them.
pub const ALL: &[Mutant] = &[
    Mutant { name: "unsynced-vote", like: "raft, section 5.1: a vote that is forgotten is given twice", faults: &["PowerCutVoter"] },
    Mutant { name: "unsynced-append", like: "etcd #14370: acknowledged before it was on disk", faults: &["PowerCutAll"] },
    Mutant {
        name: "sync-failure-ignored",
        like: "fsync's failure is reported once (PostgreSQL, 2018)",
        faults: &["FailedSync", "PowerCutAll"],
    },
    Mutant {
        name: "head-apart-from-data",
        like: "etcd #13766: the consistent index saved apart from the data",
        faults: &["PowerCut", "PowerCutAll"],
    },
    Mutant {
        name: "stale-read",
        like: "etcd 0.4 (Jepsen, 2014): a leader reads without asking whether it still leads",
        faults: &["StopLeader", "PartitionLeader"],
    },
    Mutant {
        name: "read-before-apply",
        like: "raft dissertation, section 6.4, step 4 left out",
        faults: &["SlowPeer", "Stop", "SlowSyncs"],
    },
    Mutant { name: "compaction-unnoticed", like: "etcd #18089: a watch loses an event to compaction", faults: &["Compact"] },
    Mutant { name: "ring-overflow", like: "a slow watcher skipped when its buffer is full", faults: &["SlowPeer", "Flapping"] },
    Mutant {
        name: "snapshot-unnoticed",
        like: "watches that do not see what a snapshot brought",
        faults: &["Partition", "Stop", "Replace"],
    },
    Mutant {
        name: "latest-outlives-state",
        like: "a cache that is not emptied when a snapshot takes the place of what it was filled from",
        faults: &["Partition", "Stop", "Replace"],
    },
    Mutant { name: "previous-forgotten", like: "an event from history without the value before", faults: &["Kill", "PowerCut"] },
    Mutant {
        name: "fence-ignored",
        like: "a deposed leader's controllers go on writing",
        faults: &["StopLeader", "HandOver", "PartitionLeader"],
    },
    Mutant {
        name: "lease-time-forgotten",
        like: "etcd's lease checkpoints: remaining time lost on a change of leader",
        faults: &["KillLeader", "HandOver"],
    },
    Mutant {
        name: "proposals-forgotten",
        like: "a retried proposal applied twice",
        faults: &["KillLeader", "PowerCutLeader", "PartitionLeader", "Resets"],
    },
    Mutant {
        name: "membership-not-kept",
        like: "openraft #1808 and its kind: the configuration lost with the log that carried it",
        faults: &["PowerCutAll", "Kill"],
    },
    Mutant {
        name: "log-position-forgotten",
        like: "raft, section 5.3: what is committed is applied, the member's own disk having it or not",
        faults: &["PowerCutSlowDisk"],
    },
    Mutant {
        name: "truncates-too-much",
        like: "raft, section 5.3: a committed entry cut off with the conflicting ones",
        faults: &["PartitionLeader", "Kill"],
    },
    Mutant {
        name: "mark-ahead-of-log",
        like: "etcd's raft: \"tocommit is out of range\", a commit index ahead of the log that a member starts on",
        faults: &["PowerCutSlowDisk"],
    },
    Mutant {
        name: "late-acknowledgement-counted",
        like: "openraft: an answer to one request taken for the answer to the next (docs/openraft.md)",
        faults: &["LateAnswers"],
    },
];
