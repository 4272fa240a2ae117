//! The world: its hosts, and time. Everything that happens, happens in [`World::step`].

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use trireme_raft::Store;

use super::board::Board;
use super::host::{Common, Seat, program, seats};
use super::net::Net;
use super::recorder::Recorder;
use super::trace::Trace;

/// A world and what it was made with.
pub struct World {
    /// Shared by all hosts.
    pub common: Common,
    /// Decides what happens.
    pub rng: StdRng,
    hosts: Vec<Host>,
    now_ms: u64,
    _base: tempfile::TempDir,
}

struct Host {
    seat: Seat,
    runtime: Option<Runtime>,
    /// Stopped by SIGSTOP, for so many milliseconds so far.
    stopped_ms: Option<u64>,
    /// Its clock runs so many times as fast, in thousandths.
    speed: u64,
    /// Thousandths of a millisecond that it has coming.
    owed: u64,
    /// To be started at this time.
    up_at: Option<u64>,
}

// === impl World ===

impl World {
    /// Hosts that are off.
    ///
    /// # Errors
    /// Where temporary folders or keys cannot be made.
    pub fn new(seed: u64, hosts: usize, pace_ms: u64, trace: Arc<Trace>) -> anyhow::Result<World> {
        // In memory where there is such a folder: what matters of a disk is simulated.
        let memory = std::path::Path::new("/dev/shm");
        let base = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let mut rng = StdRng::seed_from_u64(seed);
        let snapshot_every = *[60, 200, 5000].get(rng.random_range(0..3)).unwrap_or(&200);
        let common = Common {
            seed,
            hosts,
            pace_ms,
            snapshot_every,
            net: Net::new(rng.random(), trace.clone()),
            board: Board::new(hosts),
            recorder: Recorder::new(trace),
        };
        // Hardly anything, some, and more than a run writes.
        let ring_bytes = *[2 << 10, 30 << 10, 4 << 20].get(rng.random_range(0..3)).unwrap_or(&2048);
        let host = |seat| Host { seat, runtime: None, stopped_ms: None, speed: 1000, owed: 0, up_at: None };
        let hosts = seats(hosts, base.path(), ring_bytes)?.into_iter().map(host).collect();
        Ok(World { common, rng, hosts, now_ms: 0, _base: base })
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// How many hosts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// One millisecond for all hosts, in an order that the seed decides.
    pub fn step(&mut self) {
        self.now_ms += 1;
        self.common.recorder.set_now(self.now_ms);
        for host in 0..self.hosts.len() {
            if self.hosts[host].up_at.is_some_and(|at| at <= self.now_ms) {
                self.start(host);
            }
        }
        self.common.net.deliver(self.now_ms);
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.shuffle(&mut self.rng);
        for index in order {
            let host = &mut self.hosts[index];
            let Some(runtime) = &host.runtime else { continue };
            if let Some(stopped_ms) = &mut host.stopped_ms {
                *stopped_ms += 1;
                continue;
            }
            host.owed += host.speed;
            let whole = Duration::from_millis(host.owed / 1000);
            host.owed %= 1000;
            if !whole.is_zero() {
                runtime.block_on(async { tokio::time::sleep(whole).await });
            }
        }
    }

    /// So many of them.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    /// Until a condition holds; false if it does not within `limit_ms`.
    pub fn run_until(&mut self, limit_ms: u64, mut condition: impl FnMut(&mut World) -> bool) -> bool {
        for _ in 0..limit_ms {
            if condition(self) {
                return true;
            }
            self.step();
        }
        condition(self)
    }

    /// Runs something on a host and returns its result; none if the host goes down or it takes longer than `limit_ms`.
    pub fn ask<T: Send + 'static>(&mut self, host: usize, limit_ms: u64, what: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let task: JoinHandle<T> = self.hosts[host].runtime.as_ref()?.spawn(what);
        self.run_until(limit_ms, |_| task.is_finished());
        let runtime = self.hosts[host].runtime.as_ref()?;
        if task.is_finished() { runtime.block_on(task).ok() } else { None }
    }

    /// Starts something on a host and leaves it alone.
    pub fn spawn(&self, host: usize, what: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.hosts[host].runtime {
            runtime.spawn(what);
        }
    }

    /// What survives a host's restart.
    #[must_use]
    pub fn seat(&self, host: usize) -> Seat {
        self.hosts[host].seat.clone()
    }

    /// Whether a host is up, stopped or not.
    #[must_use]
    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].runtime.is_some()
    }

    /// Whether a host is stopped.
    #[must_use]
    pub fn is_stopped(&self, host: usize) -> bool {
        self.hosts[host].stopped_ms.is_some()
    }

    /// Switches a host on.
    pub fn start(&mut self, host: usize) {
        let (common, now_ms) = (self.common.clone(), self.now_ms);
        let host = &mut self.hosts[host];
        host.up_at = None;
        if host.runtime.is_some() {
            return;
        }
        let Ok(runtime) = Builder::new_current_thread().enable_time().start_paused(true).build() else { return };
        common.recorder.note(&format!("h{} starts, life {}", host.seat.host, host.seat.life));
        common.net.lighten(host.seat.host);
        let ended = {
            let recorder = common.recorder.clone();
            let running = runtime.spawn(program(host.seat.clone(), common));
            async move {
                if let Err(error) = running.await
                    && error.is_panic()
                {
                    recorder.fail(format!("a program panicked at {now_ms} or later: {error}"));
                }
            }
        };
        runtime.spawn(ended);
        host.seat.life += 1;
        (host.stopped_ms, host.owed) = (None, 0);
        host.runtime = Some(runtime);
    }

    /// Its process is killed; what the kernel holds stays.
    pub fn kill(&mut self, host: usize, down_ms: u64) {
        self.common.recorder.note(&format!("h{host} is killed for {down_ms} ms"));
        self.stop_programs(host, down_ms);
    }

    /// Its power is lost, and with it what was not synced.
    pub fn lose_power(&mut self, host: usize, down_ms: u64) {
        self.common.recorder.note(&format!("h{host} loses power for {down_ms} ms"));
        self.common.net.darken(host);
        self.stop_programs(host, down_ms);
        self.hosts[host].seat.disk.lose_power(&mut self.rng);
    }

    fn stop_programs(&mut self, host: usize, down_ms: u64) {
        let hosts = self.hosts.len();
        self.common.board.lose(host, hosts);
        let up_at = self.now_ms + down_ms.max(1);
        let host = &mut self.hosts[host];
        host.stopped_ms = None;
        host.runtime = None;
        host.up_at = Some(up_at);
    }

    /// SIGSTOP.
    pub fn stop(&mut self, host: usize) {
        self.common.recorder.note(&format!("h{host} is stopped"));
        self.hosts[host].stopped_ms.get_or_insert(0);
    }

    /// SIGCONT: its clock has gone on.
    pub fn wake(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        let Some(stopped_ms) = host.stopped_ms.take() else { return };
        self.common.recorder.note(&format!("h{} goes on after {stopped_ms} ms", host.seat.host));
        if let Some(runtime) = &host.runtime {
            runtime.block_on(async { tokio::time::advance(Duration::from_millis(stopped_ms)).await });
        }
    }

    /// Lets a host's clock run fast or slow, in thousandths.
    pub fn set_speed(&mut self, host: usize, thousandths: u64) {
        self.hosts[host].speed = thousandths;
    }

    /// A host with an empty disk and folder in place of one that is off; it joins when it gets a ticket.
    pub fn replace(&mut self, host: usize, after_ms: u64) {
        self.common.recorder.note(&format!("h{host} is replaced"));
        self.common.board.put_ticket(host, None);
        let up_at = self.now_ms + after_ms;
        let host = &mut self.hosts[host];
        host.seat.disk.replace();
        host.seat.founder = false;
        let life = host.seat.life;
        host.seat.folder.set_file_name(format!("h{}-{life}", host.seat.host));
        host.up_at = Some(up_at);
    }

    /// The host whose member leads with the highest term, as far as members say.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let led = |(host, store): (usize, Store)| store.status().borrow().leadership.map(|led| (led.fence.term, host));
        self.common.board.stores().into_iter().filter_map(led).max().map(|(_, host)| host)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in 0..self.hosts.len() {
            let hosts = self.hosts.len();
            self.common.board.lose(host, hosts);
            self.hosts[host].runtime = None;
        }
    }
}
