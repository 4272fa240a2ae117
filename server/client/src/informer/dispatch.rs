//! The order in which handlers hear of events.
//!
//! A change is applied to the store and queued for the handlers of that moment under one lock; the handlers run outside of it,
//! one delivery at a time, on whichever thread queued first. So every handler sees one sequence, without a gap and without a
//! repetition between the objects that were there when it was registered and the events after; and a handler may read the
//! informer, register handlers and drop subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Event;

type Call<T> = Box<dyn Fn(&Event<T>) + Send + Sync>;

/// A registered handler.
pub(super) struct Handler<T> {
    call: Call<T>,
    ended: AtomicBool,
}

impl<T> Handler<T> {
    fn hear(&self, event: &Event<T>) {
        if !self.ended.load(Ordering::Acquire) {
            (self.call)(event);
        }
    }
}

type Handlers<T> = Arc<[Arc<Handler<T>>]>;

enum Delivery<T> {
    /// Events for everyone who was registered when they happened.
    Events(Handlers<T>, Vec<Event<T>>),
    /// The objects that were there when a handler was registered.
    Replay(Arc<Handler<T>>, Vec<Arc<T>>),
}

impl<T> Delivery<T> {
    fn run(self) {
        match self {
            Delivery::Events(handlers, events) => {
                for event in events {
                    handlers.iter().for_each(|handler| handler.hear(&event));
                }
            }
            Delivery::Replay(handler, objects) => objects.into_iter().for_each(|object| handler.hear(&Event::Added(object))),
        }
    }
}

struct State<T> {
    handlers: Handlers<T>,
    pending: VecDeque<Delivery<T>>,
    /// Some thread delivers: it will take what is pending.
    delivering: bool,
}

pub(super) struct Dispatch<T> {
    state: Mutex<State<T>>,
}

impl<T> Default for Dispatch<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { handlers: Arc::from(Vec::new()), pending: VecDeque::new(), delivering: false }) }
    }
}

impl<T> Dispatch<T> {
    /// Applies a change and has its events delivered.
    pub(super) fn change(&self, apply: impl FnOnce() -> Vec<Event<T>>) {
        {
            let mut state = self.state.lock();
            let events = apply();
            if events.is_empty() || state.handlers.is_empty() {
                return;
            }
            let handlers = Arc::clone(&state.handlers);
            state.pending.push_back(Delivery::Events(handlers, events));
        }
        self.deliver();
    }

    /// Registers a handler, which first hears of the objects that `present` returns.
    pub(super) fn register(&self, call: Call<T>, present: impl FnOnce() -> Vec<Arc<T>>) -> Arc<Handler<T>> {
        let handler = Arc::new(Handler { call, ended: AtomicBool::new(false) });
        {
            let mut state = self.state.lock();
            state.handlers = state.handlers.iter().cloned().chain([Arc::clone(&handler)]).collect();
            state.pending.push_back(Delivery::Replay(Arc::clone(&handler), present()));
        }
        self.deliver();
        handler
    }

    /// The handler hears of nothing any more.
    pub(super) fn unregister(&self, handler: &Arc<Handler<T>>) {
        handler.ended.store(true, Ordering::Release);
        let mut state = self.state.lock();
        state.handlers = state.handlers.iter().filter(|known| !Arc::ptr_eq(known, handler)).cloned().collect();
    }

    fn deliver(&self) {
        if std::mem::replace(&mut self.state.lock().delivering, true) {
            return;
        }
        // A handler that panics must not silence the informer.
        let _turn = Turn(self);
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.pending.pop_front();
                // Together with the look: an event queued after this check is delivered by its sender.
                state.delivering = next.is_some();
                next
            };
            match next {
                Some(delivery) => delivery.run(),
                None => return,
            }
        }
    }
}

struct Turn<'a, T>(&'a Dispatch<T>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().delivering = false;
        }
    }
}
