//! A priority level at work: requests take seats of it, wait for them, and give them back.
//!
//! Owns the lock around the level's queues and the clock that they are given. A seat comes back when its [`Seat`] is dropped, wherever the request
//! ends: answered, refused later, or left by its client. A request that waits has a [`Pending`]: its drop leaves the queue, or gives
//! the seats back if they were granted at that moment. Both happen under the same lock, so that no seat is lost between them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::flowcontrol::configuration::LevelSpec;
use crate::flowcontrol::demand::{Integrator, TimedHistogram};
use crate::flowcontrol::metrics::{RequestKind, SchemaMetrics};
use crate::flowcontrol::queues::{Arrival, Queues, Refusal, Slot, Ticket, Work};
use crate::flowcontrol::shares::{Bounds, Demand, Limit};

/// Upper bounds of the ratios in metrics.
const RATIOS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const DEMAND_RATIOS: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];
/// Of one seat that a list or change may take, at least this part of the level must be left to others.
const WIDTH_PART: f64 = 0.15;

type Granted = oneshot::Sender<()>;

/// A level.
#[derive(Debug)]
pub struct Level {
    /// Its name.
    pub name: String,
    epoch: Instant,
    state: Mutex<State>,
}

/// What a level is and has, in one moment.
#[derive(Debug)]
pub struct State {
    /// As configured.
    pub spec: LevelSpec,
    /// Between which its limit moves.
    pub bounds: Bounds,
    /// How its limit was made.
    pub limit: Limit,
    /// Requests and seats.
    pub queues: Queues<Granted>,
    /// The seats that were asked for.
    pub demand: Integrator,
    /// Ratios over time, for the metrics.
    pub ratios: Ratios,
    alarm: Option<Duration>,
}

/// Ratios of what there is to what there may be.
#[derive(Debug)]
pub struct Ratios {
    /// Requests that run, to seats.
    pub executing: TimedHistogram,
    /// Requests that wait, to places in queues.
    pub waiting: TimedHistogram,
    /// Seats that are taken, to seats.
    pub seats: TimedHistogram,
    /// Seats that are asked for, to the nominal seats.
    pub demand: TimedHistogram,
}

/// Seats of a level; dropping it gives them back.
#[derive(Debug)]
pub struct Seat {
    level: Arc<Level>,
    slot: Slot,
    metrics: Arc<SchemaMetrics>,
    kind: RequestKind,
}

/// A request that waits; dropping it leaves the queue.
#[derive(Debug)]
pub struct Pending {
    level: Arc<Level>,
    ticket: Option<Ticket>,
    granted: oneshot::Receiver<()>,
    metrics: Arc<SchemaMetrics>,
    arrived: Duration,
    kind: RequestKind,
}

/// What becomes of a request that asks for seats.
#[derive(Debug)]
pub enum Entry {
    /// It has them.
    Seated(Seat),
    /// It waits for them.
    Waiting(Pending),
    /// It does not get them.
    Refused(Refusal),
}

// === impl Level ===

impl Level {
    /// A level without requests.
    pub fn new(spec: LevelSpec, bounds: Bounds) -> Level {
        let queues = Queues::new(spec.shape, seats(&spec, bounds.nominal));
        let state = State {
            queues,
            limit: Limit { target: f64::from(bounds.nominal), seats: bounds.nominal },
            demand: Integrator::default(),
            ratios: Ratios::new(),
            alarm: None,
            bounds,
            spec,
        };
        Level { name: state.spec.name.clone(), epoch: Instant::now(), state: Mutex::new(state) }
    }

    /// A request of a flow.
    pub fn enter(self: &Arc<Level>, flow: u64, work: Work, kind: RequestKind, metrics: &Arc<SchemaMetrics>) -> Entry {
        let mut waits = None;
        let (arrival, now) = self.change(|state, now| {
            let payload = || {
                let (sender, receiver) = oneshot::channel();
                waits = Some(receiver);
                sender
            };
            (state.queues.arrive(now, flow, work, payload), now)
        });
        match (arrival, waits) {
            (Arrival::Runs(slot), _) => {
                metrics.start(slot.seats(), Duration::ZERO, kind);
                Entry::Seated(Seat { level: self.clone(), slot, metrics: metrics.clone(), kind })
            }
            (Arrival::Waits(ticket, length), Some(granted)) => {
                metrics.enqueue(ticket.seats(), length, kind);
                let pending = Pending { level: self.clone(), ticket: Some(ticket), granted, metrics: metrics.clone(), arrived: now, kind };
                Entry::Waiting(pending)
            }
            (Arrival::Waits(..), None) => Entry::Refused(Refusal::QueueFull),
            (Arrival::Refused(refusal), _) => {
                metrics.refuse(refusal, Duration::ZERO);
                Entry::Refused(refusal)
            }
        }
    }

    /// Another configuration. The limit stays within the new bounds until the seats are divided again.
    pub fn configure(self: &Arc<Level>, spec: LevelSpec, bounds: Bounds) {
        self.change(|state, now| {
            let kept = if state.bounds == bounds { state.limit.seats } else { bounds.nominal };
            (state.spec, state.bounds) = (spec, bounds);
            state.limit.seats = kept;
            let limit = seats(&state.spec, kept);
            // A level that is exempt now lets everything go that waits.
            state.queues.change(now, state.spec.shape, limit);
        });
    }

    /// Ends a period; what was asked for in it.
    pub fn end_period(&self) -> Demand {
        let now = self.epoch.elapsed();
        self.state.lock().demand.end_period(now)
    }

    /// Sets the limit that the division by demand has made.
    pub fn set_limit(self: &Arc<Level>, limit: Limit) {
        self.change(|state, now| {
            state.limit = limit;
            let seats = seats(&state.spec, limit.seats);
            state.queues.change(now, state.spec.shape, seats);
        });
    }

    /// The most seats that one request may take.
    pub fn width_max(&self) -> u32 {
        let state = self.state.lock();
        if state.spec.share.is_exempt {
            return u32::MAX;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a number of seats")]
        let width = (f64::from(state.bounds.nominal) * WIDTH_PART).ceil() as u32;
        width.max(1)
    }

    /// Reads the level as it is now.
    pub fn inspect<R>(&self, read: impl FnOnce(&mut State, Duration) -> R) -> R {
        let now = self.epoch.elapsed();
        read(&mut self.state.lock(), now)
    }

    /// Changes the level, and wakes the requests that may run afterwards.
    fn change<R>(self: &Arc<Level>, change: impl FnOnce(&mut State, Duration) -> R) -> R {
        let mut woken: Vec<Granted> = Vec::new();
        let mut alarm = None;
        let outcome = {
            let mut state = self.state.lock();
            // Read under the lock: times that the queues see never go back.
            let now = self.epoch.elapsed();
            let outcome = change(&mut state, now);
            while let Some(next) = state.queues.next(now) {
                woken.push(next);
            }
            state.measure(now);
            if let Some(at) = state.queues.wake_at().filter(|at| state.alarm.is_none_or(|set| *at < set)) {
                state.alarm = Some(at);
                alarm = Some(at);
            }
            outcome
        };
        for granted in woken {
            // Who does not listen any more gives the seats back by itself.
            let _ = granted.send(());
        }
        if let Some(at) = alarm {
            self.wake_at(at);
        }
        outcome
    }

    /// Looks again when seats become free though no request ends.
    fn wake_at(self: &Arc<Level>, at: Duration) {
        let level = Arc::downgrade(self);
        let at = self.epoch + at;
        // Without a runtime the process ends, and nobody waits.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Some(level) = level.upgrade() {
                level.change(|state, _| state.alarm = None);
            }
        });
    }
}

/// How many seats requests may take.
fn seats(spec: &LevelSpec, limit: u32) -> u32 {
    if spec.share.is_exempt { u32::MAX } else { limit.max(1) }
}

// === impl State ===

impl State {
    #[allow(clippy::cast_precision_loss, reason = "numbers of seats and requests")]
    fn measure(&mut self, now: Duration) {
        let (executing, waiting) = self.queues.requests();
        let seats = f64::from(self.limit.seats.max(1));
        let places = f64::from(self.spec.shape.queues) * f64::from(self.spec.shape.length);
        let demanded = self.queues.seats_demanded() as f64;
        self.demand.set(now, demanded);
        self.ratios.executing.set(now, executing as f64 / seats);
        self.ratios.waiting.set(now, waiting as f64 / places.max(1.0));
        self.ratios.seats.set(now, self.queues.seats_in_use() as f64 / seats);
        self.ratios.demand.set(now, demanded / f64::from(self.bounds.nominal.max(1)));
    }
}

impl Ratios {
    fn new() -> Ratios {
        let ratio = || TimedHistogram::new(RATIOS);
        Ratios { executing: ratio(), waiting: ratio(), seats: ratio(), demand: TimedHistogram::new(DEMAND_RATIOS) }
    }
}

// === impl Seat ===

impl Seat {
    fn new(pending: &Pending, slot: Slot) -> Seat {
        Seat { level: pending.level.clone(), slot, metrics: pending.metrics.clone(), kind: pending.kind }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let took = self.level.change(|state, now| {
            state.queues.finish(now, self.slot);
            now.saturating_sub(self.slot.started())
        });
        self.metrics.finish(self.slot.seats(), took, self.kind);
    }
}

// === impl Pending ===

impl Pending {
    /// Waits for the seats, at most so long.
    pub async fn wait(mut self, longest: Duration) -> Result<Seat, Refusal> {
        let granted = tokio::time::timeout(longest, &mut self.granted).await;
        let Some(ticket) = self.ticket else { return Err(Refusal::TimedOut) };
        // At the end of its time the request may just have got them.
        let left = match granted {
            Ok(_) => false,
            Err(_) => self.level.change(|state, now| state.queues.cancel(now, ticket)),
        };
        self.ticket = None;
        let now = self.level.epoch.elapsed();
        let waited = now.saturating_sub(self.arrived);
        self.metrics.dequeue(ticket.seats(), self.kind);
        if left {
            self.metrics.refuse(Refusal::TimedOut, waited);
            return Err(Refusal::TimedOut);
        }
        self.metrics.start(ticket.seats(), waited, self.kind);
        Ok(Seat::new(&self, ticket.slot(now)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.level.change(|state, now| {
            if !state.queues.cancel(now, ticket) {
                state.queues.finish(now, ticket.slot(now).abandoned());
            }
        });
        self.metrics.dequeue(ticket.seats(), self.kind);
        self.metrics.cancel(self.level.epoch.elapsed().saturating_sub(self.arrived));
    }
}

#[cfg(test)]
mod tests;
