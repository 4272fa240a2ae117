//! The process itself: CPU, memory, files, as the Prometheus clients of other languages name them.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

const PAGE_BYTES: f64 = 4096.0;
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self` on each scrape. A process registers it once, at the endpoint that stands for the whole process.
pub struct ProcessCollector {
    cpu: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    resident: Gauge,
    virtual_memory: Gauge,
    start_time: Gauge,
}

impl Default for ProcessCollector {
    fn default() -> Self {
        Self::new()
    }
}

impl ProcessCollector {
    /// Reads nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let gauge = |name, help| Gauge::new(name, help).expect("invariant: static names are valid");
        Self {
            cpu: Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
                .expect("invariant: static names are valid"),
            open_fds: gauge("process_open_fds", "Number of open file descriptors."),
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors."),
            resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            start_time: gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
        }
    }

    fn read(&self) {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let stat = text("/proc/self/stat");
        // The name of the program, in brackets, may contain anything; after it come numbers.
        let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        let field = |n: usize| fields.get(n).copied().unwrap_or(0.0);
        self.cpu.inc_by(((field(11) + field(12)) / TICKS_PER_SECOND - self.cpu.get()).max(0.0));
        self.virtual_memory.set(field(20));
        self.resident.set(field(21) * PAGE_BYTES);
        let booted = text("/proc/stat").lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        self.start_time.set(booted.unwrap_or(0.0) + field(19) / TICKS_PER_SECOND);
        let limits = text("/proc/self/limits");
        let files = limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<f64>().ok());
        self.max_fds.set(files.unwrap_or(0.0));
        self.open_fds.set(std::fs::read_dir("/proc/self/fd").map_or(0.0, |files| files.count() as f64));
    }

    fn gauges(&self) -> [&Gauge; 5] {
        [&self.open_fds, &self.max_fds, &self.resident, &self.virtual_memory, &self.start_time]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.cpu.desc().into_iter().chain(self.gauges().into_iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.cpu.collect().into_iter().chain(self.gauges().into_iter().flat_map(Collector::collect)).collect()
    }
}
