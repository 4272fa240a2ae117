//! The queues of one priority level: which request runs next, and when.
//!
//! Owns the seats of the level and fair queuing by virtual time. Without I/O and without a clock: `now` comes from the caller, and the
//! payloads of requests that may run are returned. A queue exists only while it has a request that waits or runs, so that a level
//! costs what is in it and not what it is configured for. KEP-1040, "Fair Queuing for Server Requests".
//!
//! # Example
//! Queue A has ten requests of one seat, queue B one. Each costs 3 ms of virtual time, so A's requests end at virtual times 3, 6, 9,
//! ... and B's at 3: B's request is the first or second to run, however many requests A has.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use crate::flowcontrol::shuffle::Hand;

/// What a request is thought to take, until it has ended and it is known.
const ESTIMATE_SECS: f64 = 0.003;
/// How many requests may wait at one level, whatever its configuration: each holds some kilobytes.
const WAITING_MAX: usize = 10_000;

/// What a request takes of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Seats while it is answered.
    pub seats: u32,
    /// Seats after its answer, while its effects are worked on (watchers are told of a change).
    pub final_seats: u32,
    /// How long the effects are worked on.
    pub extra: Duration,
}

/// How a level's queues are made. Without queues, what cannot run at once is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many queues there are.
    pub queues: u32,
    /// How many of them one flow uses.
    pub hand: u32,
    /// How many requests wait in one.
    pub length: u32,
}

/// Why a request does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The level has no queues, and no seats are free.
    NoSeats,
    /// All queues of its flow are full.
    QueueFull,
    /// It waited too long.
    TimedOut,
}

/// The seats of a request that runs; they are given back by [`Queues::finish`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    queue: u32,
    work: Work,
    started: Duration,
}

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    queue: u32,
    number: u64,
    work: Work,
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// It runs.
    Runs(Slot),
    /// It waits; so many wait in its queue.
    Waits(Ticket, usize),
    /// It is refused.
    Refused(Refusal),
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    work: Work,
    payload: T,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    waiting_secs: f64,
    executing: usize,
    /// The virtual time at which its next request begins.
    next_start: f64,
}

/// All queues of a level.
#[derive(Debug)]
pub struct Queues<T> {
    shape: Shape,
    limit: u32,
    /// Invariant: each has a request that waits or runs.
    queues: BTreeMap<u32, Queue<T>>,
    last_served: u32,
    /// Seat seconds that an active queue has had since the level was idle.
    virtual_time: f64,
    /// The virtual time, and the virtual start of its request, when a request last began.
    last_start: [f64; 2],
    updated: Duration,
    seats_in_use: u64,
    seats_waiting: u64,
    executing: usize,
    waiting: usize,
    next_number: u64,
    /// When the effects of which seats end.
    cooling: BinaryHeap<Reverse<(Duration, u32)>>,
}

// === impl Work ===

impl Work {
    /// One seat, and no effects.
    pub const ONE: Work = Work { seats: 1, final_seats: 0, extra: Duration::ZERO };

    /// The seats that it holds from its start to its end.
    pub fn width(&self) -> u32 {
        self.seats.max(self.final_seats).max(1)
    }

    fn secs(&self, answer_secs: f64) -> f64 {
        f64::from(self.seats) * answer_secs + f64::from(self.final_seats) * self.extra.as_secs_f64()
    }
}

// === impl Slot and Ticket ===

impl Slot {
    /// Its seats.
    pub fn seats(&self) -> u32 {
        self.work.width()
    }

    /// The same without effects: nothing was done.
    #[must_use]
    pub fn abandoned(mut self) -> Slot {
        (self.work.seats, self.work.final_seats) = (self.work.width(), 0);
        self
    }

    /// When it began.
    pub fn started(&self) -> Duration {
        self.started
    }
}

impl Ticket {
    /// The request that waited runs from `started` on.
    pub fn slot(&self, started: Duration) -> Slot {
        Slot { queue: self.queue, work: self.work, started }
    }

    /// The seats that it waits for.
    pub fn seats(&self) -> u32 {
        self.work.width()
    }
}

// === impl Queues ===

impl<T> Queues<T> {
    /// Nothing runs and nothing waits.
    pub fn new(shape: Shape, limit: u32) -> Queues<T> {
        Queues {
            shape,
            limit,
            queues: BTreeMap::new(),
            last_served: 0,
            virtual_time: 0.0,
            last_start: [0.0; 2],
            updated: Duration::ZERO,
            seats_in_use: 0,
            seats_waiting: 0,
            executing: 0,
            waiting: 0,
            next_number: 0,
            cooling: BinaryHeap::new(),
        }
    }

    /// A request of the flow with this hash. `payload` is made only if it waits, and is returned when it runs.
    pub fn arrive(&mut self, now: Duration, flow: u64, work: Work, payload: impl FnOnce() -> T) -> Arrival {
        self.advance(now);
        let hand = Hand::deal(flow, self.shape.queues.max(1), self.shape.hand);
        let queue = self.least_loaded(hand);
        if self.waiting == 0 && self.fits(work) {
            return Arrival::Runs(self.start(now, queue, work));
        }
        if self.shape.queues == 0 {
            return Arrival::Refused(Refusal::NoSeats);
        }
        let length = self.queues.get(&queue).map_or(0, |queue| queue.waiting.len());
        if length >= self.shape.length as usize || self.waiting >= WAITING_MAX {
            return Arrival::Refused(Refusal::QueueFull);
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let entry = self.queue(queue);
        entry.waiting.push_back(Waiting { number, work, payload: payload() });
        entry.waiting_secs += work.secs(ESTIMATE_SECS);
        self.waiting += 1;
        self.seats_waiting += u64::from(work.width());
        Arrival::Waits(Ticket { queue, number, work }, length + 1)
    }

    /// A request has ended: its seats are free, at once or when its effects have ended.
    pub fn finish(&mut self, now: Duration, slot: Slot) {
        self.advance(now);
        let took = now.saturating_sub(slot.started).as_secs_f64();
        let seats = slot.work.width();
        if slot.work.final_seats > 0 && !slot.work.extra.is_zero() {
            self.cooling.push(Reverse((now + slot.work.extra, seats)));
        } else {
            self.free(seats);
        }
        self.executing = self.executing.saturating_sub(1);
        if let Some(queue) = self.queues.get_mut(&slot.queue) {
            // The estimate was charged when it began.
            queue.next_start += f64::from(slot.work.seats) * (took - ESTIMATE_SECS);
            queue.executing = queue.executing.saturating_sub(1);
        }
        self.forget_if_idle(slot.queue);
    }

    /// A request does not want to wait any more. True if it left its queue; false if it runs already, and must be finished.
    pub fn cancel(&mut self, now: Duration, ticket: Ticket) -> bool {
        self.advance(now);
        let Some(queue) = self.queues.get_mut(&ticket.queue) else { return false };
        let Some(at) = queue.waiting.iter().position(|one| one.number == ticket.number) else { return false };
        queue.waiting.remove(at);
        queue.waiting_secs -= ticket.work.secs(ESTIMATE_SECS);
        self.waiting -= 1;
        self.seats_waiting -= u64::from(ticket.work.width());
        self.forget_if_idle(ticket.queue);
        true
    }

    /// The payload of the next request that may run, which runs from now on. Asked until there is none, after every change.
    pub fn next(&mut self, now: Duration) -> Option<T> {
        self.advance(now);
        if self.waiting == 0 {
            return None;
        }
        let index = self.earliest_finish()?;
        let queue = self.queues.get_mut(&index)?;
        let work = queue.waiting.front()?.work;
        // A wide request that is next waits for all its seats: narrow ones that overtook it could starve it.
        if !self.fits(work) {
            return None;
        }
        let queue = self.queues.get_mut(&index)?;
        let next = queue.waiting.pop_front()?;
        queue.waiting_secs -= work.secs(ESTIMATE_SECS);
        self.waiting -= 1;
        self.seats_waiting -= u64::from(work.width());
        self.start(now, index, work);
        self.last_served = index;
        Some(next.payload)
    }

    /// When seats become free though no request ends. `None` if nobody waits for them.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.waiting == 0 { None } else { self.cooling.peek().map(|Reverse((until, _))| *until) }
    }

    /// Changes how many seats and which queues there are. Requests that wait stay where they are.
    pub fn change(&mut self, now: Duration, shape: Shape, limit: u32) {
        self.advance(now);
        (self.shape, self.limit) = (shape, limit);
    }

    /// The seats.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Seats that are taken.
    pub fn seats_in_use(&self) -> u64 {
        self.seats_in_use
    }

    /// Seats that are taken or waited for.
    pub fn seats_demanded(&self) -> u64 {
        self.seats_in_use + self.seats_waiting
    }

    /// Requests that run, and requests that wait.
    pub fn requests(&self) -> (usize, usize) {
        (self.executing, self.waiting)
    }

    /// The virtual time now; and that, with the virtual start of its request, when a request last began.
    pub fn virtual_times(&self) -> [f64; 3] {
        [self.virtual_time, self.last_start[0], self.last_start[1]]
    }

    /// Each queue that is in use: its number, requests that wait and run, and its next virtual start.
    pub fn in_use(&self) -> impl Iterator<Item = (u32, usize, usize, f64)> {
        self.queues.iter().map(|(index, queue)| (*index, queue.waiting.len(), queue.executing, queue.next_start))
    }

    /// Each request that waits: its queue, its place in it, and its seats.
    pub fn waiting(&self) -> impl Iterator<Item = (u32, usize, u32)> {
        let of = |(index, queue): (&u32, &Queue<T>)| {
            let index = *index;
            queue.waiting.iter().enumerate().map(|(at, one)| (index, at, one.work.width())).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of)
    }

    /// Lets the virtual time pass: as many seats as are asked for, at most all, shared by the active queues.
    fn advance(&mut self, now: Duration) {
        while self.cooling.peek().is_some_and(|Reverse((until, _))| *until <= now) {
            if let Some(Reverse((_, seats))) = self.cooling.pop() {
                self.free(seats);
            }
        }
        let passed = now.saturating_sub(self.updated).as_secs_f64();
        self.updated = self.updated.max(now);
        if self.queues.is_empty() {
            // Nobody compares with it: it begins anew, and stays small enough to be exact.
            self.virtual_time = 0.0;
            return;
        }
        let asked = self.seats_demanded().min(u64::from(self.limit));
        #[allow(clippy::cast_precision_loss, reason = "seats and queues are few")]
        let rate = asked as f64 / self.queues.len() as f64;
        self.virtual_time += rate * passed;
    }

    fn fits(&self, work: Work) -> bool {
        // A request that is wider than the level runs alone.
        self.seats_in_use == 0 || self.seats_in_use.saturating_add(u64::from(work.width())) <= u64::from(self.limit)
    }

    /// The queue of a hand with the least work that waits, of those the first.
    fn least_loaded(&self, hand: Hand) -> u32 {
        let load = |card: &u32| self.queues.get(card).map_or(0.0, |queue| queue.waiting_secs);
        hand.cards().iter().copied().min_by(|a, b| load(a).total_cmp(&load(b))).unwrap_or(0)
    }

    fn queue(&mut self, index: u32) -> &mut Queue<T> {
        let next_start = self.virtual_time;
        self.queues.entry(index).or_insert_with(|| Queue { waiting: VecDeque::new(), waiting_secs: 0.0, executing: 0, next_start })
    }

    fn start(&mut self, now: Duration, index: u32, work: Work) -> Slot {
        let queue = self.queue(index);
        let begins = queue.next_start;
        queue.next_start += work.secs(ESTIMATE_SECS);
        queue.executing += 1;
        self.last_start = [self.virtual_time, begins];
        self.executing += 1;
        self.seats_in_use += u64::from(work.width());
        Slot { queue: index, work, started: now }
    }

    /// The queue whose first request ends first in virtual time; of equal ones that after the last served.
    fn earliest_finish(&self) -> Option<u32> {
        let after = self.queues.range((Bound::Excluded(self.last_served), Bound::Unbounded));
        let until = self.queues.range(..=self.last_served);
        let mut best: Option<(u32, f64)> = None;
        for (index, queue) in after.chain(until) {
            let Some(first) = queue.waiting.front() else { continue };
            let end = queue.next_start + first.work.secs(ESTIMATE_SECS);
            if best.is_none_or(|(_, earliest)| end < earliest) {
                best = Some((*index, end));
            }
        }
        best.map(|(index, _)| index)
    }

    fn free(&mut self, seats: u32) {
        debug_assert!(self.seats_in_use >= u64::from(seats), "no seat is given back twice");
        self.seats_in_use = self.seats_in_use.saturating_sub(u64::from(seats));
    }

    fn forget_if_idle(&mut self, index: u32) {
        if self.queues.get(&index).is_some_and(|queue| queue.executing == 0 && queue.waiting.is_empty()) {
            self.queues.remove(&index);
        }
    }
}

#[cfg(test)]
mod tests;
