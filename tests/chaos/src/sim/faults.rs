//! The faults that are injected, and how each is undone.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use trireme_raft::Role;

use super::host::admit;
use super::load::Client;
use super::net::Half;
use super::world::World;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// SIGKILL of one host.
    Kill,
    /// SIGKILL of the leader.
    KillLeader,
    /// Power cut of one host: unsynced data is lost.
    PowerCut,
    /// Power cut of the leader.
    PowerCutLeader,
    /// Power cut of all hosts at once.
    PowerCutAll,
    /// One host is cut off in both directions.
    Partition,
    /// The leader is cut off in both directions.
    PartitionLeader,
    /// One host is not heard, or does not hear, in one direction.
    OneWay,
    /// Two hosts do not reach each other, all others reach both.
    Bridge,
    /// A link that comes and goes.
    Flapping,
    /// SIGSTOP of the leader for longer than an election, then SIGCONT.
    StopLeader,
    /// SIGSTOP of one host, then SIGCONT.
    Stop,
    /// One host answers slowly.
    SlowPeer,
    /// Every sync takes 100 ms, everywhere.
    SlowSyncs,
    /// One sync fails.
    FailedSync,
    /// Streams are reset.
    Resets,
    /// One host's clock runs a tenth too fast or too slow.
    Clock,
    /// The leader hands over.
    HandOver,
    /// A member is replaced by one with an empty disk.
    Replace,
    /// Compacts history up to this moment: watches from before must end as compacted.
    Compact,
    /// One host's disk takes its time, and then its power is lost: others had on disk what this one had not yet.
    PowerCutSlowDisk,
    /// The leader is killed; the member that votes for the next one loses power at once, and the candidate it voted for is cut off.
    PowerCutVoter,
    /// The leader is cut off while the answers to its last appends are under way. They arrive one after another, when another leads.
    LateAnswers,
}

/// All kinds.
pub const ALL: &[Kind] = &[
    Kind::Kill,
    Kind::KillLeader,
    Kind::PowerCut,
    Kind::PowerCutLeader,
    Kind::PowerCutAll,
    Kind::Partition,
    Kind::PartitionLeader,
    Kind::OneWay,
    Kind::Bridge,
    Kind::Flapping,
    Kind::StopLeader,
    Kind::Stop,
    Kind::SlowPeer,
    Kind::SlowSyncs,
    Kind::FailedSync,
    Kind::Resets,
    Kind::Clock,
    Kind::HandOver,
    Kind::Replace,
    Kind::Compact,
    Kind::PowerCutSlowDisk,
    Kind::PowerCutVoter,
    Kind::LateAnswers,
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What must be undone, and when.
struct Undo {
    at_ms: u64,
    what: Box<dyn FnOnce(&mut World)>,
}

/// Makes faults happen.
#[derive(Default)]
pub struct Nemesis {
    undo: Vec<Undo>,
    /// Terms that members knew when the fault that waits for a vote began.
    votes: Option<Vec<(usize, u64)>>,
    /// What happened, for the report.
    pub done: Vec<Kind>,
}

// === impl Nemesis ===

impl Nemesis {
    /// Undoes what is due.
    pub fn tend(&mut self, world: &mut World) {
        let now_ms = world.now_ms();
        let (due, later) = std::mem::take(&mut self.undo).into_iter().partition(|undo| undo.at_ms <= now_ms);
        self.undo = later;
        let due: Vec<Undo> = due;
        due.into_iter().for_each(|undo| (undo.what)(world));
        self.catch_voter(world);
    }

    fn catch_voter(&mut self, world: &mut World) {
        let Some(before) = &self.votes else { return };
        let term_of = |(host, store): (usize, trireme_raft::Store)| (host, store.status().borrow().term);
        let now: Vec<(usize, u64)> = world.common.board.stores().into_iter().map(term_of).collect();
        let raised: Vec<usize> =
            now.iter().filter(|(host, term)| before.iter().any(|(old, was)| old == host && term > was)).map(|(host, _)| *host).collect();
        // The candidate's own vote is the first; the other one's makes it the leader.
        let role = |host: usize| world.common.board.store(host).map(|store| store.status().borrow().role);
        let voter = raised.iter().copied().find(|host| matches!(role(*host), Some(Role::Follower)));
        if let Some(voter) = voter {
            self.votes = None;
            let chosen = (0..world.len()).find(|host| *host != voter && raised.contains(host));
            let down_ms = world.rng.random_range(1..100);
            // Time for the answer to leave, and hardly any for what the new leader sends.
            let delay_ms = world.rng.random_range(1..6);
            self.later(world, delay_ms, move |world| {
                world.lose_power(voter, down_ms);
                if let Some(chosen) = chosen {
                    for peer in (0..world.len()).filter(|peer| *peer != chosen) {
                        world.common.net.cut(chosen, peer, true);
                        world.common.net.cut(peer, chosen, true);
                    }
                }
            });
            self.later(world, 4000, |world| world.common.net.mend());
        }
    }

    /// Puts everything right. Hosts that are off come back by themselves.
    pub fn heal(&mut self, world: &mut World) {
        self.votes = None;
        std::mem::take(&mut self.undo).into_iter().for_each(|undo| (undo.what)(world));
        world.common.net.mend();
        for host in 0..world.len() {
            world.wake(host);
            world.set_speed(host, 1000);
            world.seat(host).disk.slow_down(0);
            if !world.is_up(host) {
                world.start(host);
            }
        }
    }

    fn later(&mut self, world: &World, ms: u64, what: impl FnOnce(&mut World) + 'static) {
        self.undo.push(Undo { at_ms: world.now_ms() + ms, what: Box::new(what) });
    }

    /// Makes one happen.
    pub fn strike(&mut self, world: &mut World, kind: Kind) {
        let hosts = world.len();
        let any = world.rng.random_range(0..hosts);
        let other = (any + world.rng.random_range(1..hosts)) % hosts;
        let leader = world.leader();
        let down_ms = world.rng.random_range(100..3000);
        let while_ms = world.rng.random_range(500..4000);
        world.common.recorder.note(&format!("fault {kind}: leader {leader:?}"));
        let up: Vec<usize> = (0..hosts).filter(|host| world.is_up(*host)).collect();
        match (kind, leader) {
            (Kind::Kill, _) if world.is_up(any) => world.kill(any, down_ms),
            (Kind::KillLeader, Some(leader)) => world.kill(leader, down_ms),
            (Kind::PowerCut, _) if world.is_up(any) => world.lose_power(any, down_ms),
            (Kind::PowerCutLeader, Some(leader)) => world.lose_power(leader, down_ms),
            (Kind::PowerCutAll, _) => {
                for host in up {
                    let after = world.rng.random_range(0..500);
                    world.lose_power(host, down_ms + after);
                }
            }
            (Kind::Partition, _) => self.cut_off(world, any, while_ms),
            (Kind::PartitionLeader, Some(leader)) => self.cut_off(world, leader, while_ms),
            (Kind::OneWay, _) => {
                let deaf = world.rng.random_bool(0.5);
                for peer in (0..hosts).filter(|peer| *peer != any) {
                    let (from, to) = if deaf { (peer, any) } else { (any, peer) };
                    world.common.net.cut(from, to, true);
                    self.later(world, while_ms, move |world| world.common.net.cut(from, to, false));
                }
            }
            (Kind::Bridge, _) => self.cut_link(world, any, other, while_ms),
            (Kind::Flapping, _) => {
                self.cut_link(world, any, other, 150);
                for round in 1..8 {
                    let cut = round % 2 == 0;
                    self.later(world, round * 200, move |world| {
                        world.common.net.cut(any, other, cut);
                        world.common.net.cut(other, any, cut);
                    });
                }
                self.later(world, 1800, move |world| {
                    world.common.net.cut(any, other, false);
                    world.common.net.cut(other, any, false);
                });
            }
            (Kind::StopLeader, Some(leader)) => self.stop(world, leader, 1000 + while_ms),
            (Kind::Stop, _) if world.is_up(any) => self.stop(world, any, while_ms),
            (Kind::SlowPeer, _) => {
                let ms = *[30, 150, 600].choose(&mut world.rng).unwrap_or(&30);
                world.common.net.slow(any, ms);
                self.later(world, while_ms, move |world| world.common.net.slow(any, 0));
            }
            (Kind::SlowSyncs, _) => {
                (0..hosts).for_each(|host| world.seat(host).disk.slow_down(100));
                self.later(world, while_ms, move |world| (0..hosts).for_each(|host| world.seat(host).disk.slow_down(0)));
            }
            (Kind::FailedSync, _) => world.seat(any).disk.fail_next_sync(),
            (Kind::Resets, _) => world.common.net.reset(any, 0.5),
            (Kind::Clock, _) => {
                let speed = *[900, 1100].choose(&mut world.rng).unwrap_or(&900);
                world.set_speed(any, speed);
                self.later(world, while_ms, move |world| world.set_speed(any, 1000));
            }
            (Kind::HandOver, Some(leader)) => {
                let to = world.common.board.store(other).map(|store| store.node_id());
                if let (Some(store), Some(to)) = (world.common.board.store(leader), to) {
                    world.spawn(leader, async move {
                        let _ = store.transfer_leader(to).await;
                    });
                }
            }
            (Kind::Replace, Some(leader)) if is_whole(world, leader) && up.iter().all(|host| !world.is_stopped(*host)) => {
                let host = if any == leader { other } else { any };
                // The disk is lost with it; the run asks for a place for the new one.
                world.kill(host, 1);
                world.replace(host, 50);
            }
            (Kind::Compact, Some(leader)) => {
                if let Some(store) = world.common.board.store(leader) {
                    world.spawn(leader, async move {
                        let _ = store.compact(store.revision()).await;
                    });
                }
            }
            (Kind::PowerCutSlowDisk, _) if world.is_up(any) => {
                let slow_ms = *[100, 400, 1000].choose(&mut world.rng).unwrap_or(&400);
                world.seat(any).disk.slow_down(slow_ms);
                self.later(world, while_ms, move |world| {
                    world.lose_power(any, down_ms);
                    world.seat(any).disk.slow_down(0);
                });
            }
            (Kind::PowerCutVoter, Some(leader)) => {
                world.kill(leader, 900);
                let term_of = |(host, store): (usize, trireme_raft::Store)| (host, store.status().borrow().term);
                self.votes = Some(world.common.board.stores().into_iter().map(term_of).collect());
            }
            (Kind::LateAnswers, Some(leader)) => self.answer_late(world, leader),
            _ => return,
        }
        self.done.push(kind);
    }

    fn answer_late(&mut self, world: &mut World, leader: usize) {
        let mut followers: Vec<usize> = (0..world.len()).filter(|host| *host != leader).collect();
        followers.shuffle(&mut world.rng);
        let net = world.common.net.clone();
        followers.iter().for_each(|follower| net.hold(*follower, leader, Half::Answers, true));
        // Long enough for every client to wait for an answer: what the leader sent last stays the last.
        for follower in followers.clone() {
            self.later(world, 300, move |world| {
                world.common.net.hold(leader, follower, Half::Requests, true);
                world.common.net.hold(leader, follower, Half::Answers, true);
                world.common.net.hold(follower, leader, Half::Requests, true);
            });
        }
        // After the election of another, and before the leader gives its appends up.
        let mut at_ms = world.rng.random_range(1500..1850);
        self.later(world, at_ms, move |world| {
            let Some(store) = world.common.board.store(leader) else { return };
            let (common, name) = (world.common.clone(), format!("late@h{leader}.{}", world.now_ms()));
            let rng = StdRng::seed_from_u64(common.seed ^ world.now_ms());
            let mut reader = Client::new(name, store, common.board.clone(), common.recorder.clone(), rng, common.pace_ms);
            world.spawn(leader, async move { drop(reader.read("k/r").await) });
        });
        for follower in followers {
            at_ms += world.rng.random_range(2..12);
            self.later(world, at_ms, move |world| world.common.net.hold(follower, leader, Half::Answers, false));
        }
        self.later(world, 3000, |world| world.common.net.mend());
    }

    fn cut_link(&mut self, world: &mut World, one: usize, other: usize, while_ms: u64) {
        for (from, to) in [(one, other), (other, one)] {
            world.common.net.cut(from, to, true);
            self.later(world, while_ms, move |world| world.common.net.cut(from, to, false));
        }
    }

    fn cut_off(&mut self, world: &mut World, host: usize, while_ms: u64) {
        for peer in (0..world.len()).filter(|peer| *peer != host) {
            self.cut_link(world, host, peer, while_ms);
        }
    }

    fn stop(&mut self, world: &mut World, host: usize, while_ms: u64) {
        world.stop(host);
        self.later(world, while_ms, move |world| world.wake(host));
    }
}

/// Asks any member that is up to admit `host`.
pub fn ask_for_place(world: &World, host: usize) {
    let common = world.common.clone();
    let seat = world.seat(host);
    let through = common.board.stores().into_iter().find(|(other, _)| *other != host && !world.is_stopped(*other));
    if let Some((through, store)) = through {
        world.spawn(through, async move {
            admit(store, seat, common).await;
        });
    }
}

/// Whether every host is a voter, as the leader has it. Replacing a host while another one is being replaced would lose the quorum,
/// for good.
fn is_whole(world: &World, leader: usize) -> bool {
    let stores = world.common.board.stores();
    let Some((_, leading)) = stores.iter().find(|(host, _)| *host == leader) else { return false };
    let status = leading.status().borrow().clone();
    let all_vote = stores.iter().all(|(_, store)| status.voters.contains(&store.node_id()));
    stores.len() == world.len() && status.voters.len() == world.len() && !status.changing_members && all_vote
}
