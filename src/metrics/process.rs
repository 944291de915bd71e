//! Metrics of the process, read from `/proc/self` at each scrape. A value that cannot be read keeps
//! its last state.

use std::fs::{self, File};
use std::io::Read as _;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Registry};
use rustix::process::{Resource, getrlimit};

/// Ticks per second in `/proc`: fixed at 100 for user space on every supported architecture.
const TICKS: f64 = 100.0;

/// Reads `/proc/self`.
#[derive(Clone, Debug)]
pub(super) struct Process {
    cpu: Counter,
    max_fds: Gauge,
    open_fds: Gauge,
    resident: Gauge,
    start: Gauge,
    threads: Gauge,
}

impl Process {
    /// Makes and registers the process's metrics.
    pub(super) fn register(registry: &Registry) {
        let registered = Self::new().and_then(|process| registry.register(Box::new(process)));
        if let Err(error) = registered {
            tracing::error!(%error, "process metrics are not available");
        }
    }

    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "CPU time used, user and system.",
            )?,
            max_fds: Gauge::new("process_max_fds", "Most file descriptors that may be open.")?,
            open_fds: Gauge::new("process_open_fds", "Open file descriptors.")?,
            resident: Gauge::new("process_resident_memory_bytes", "Resident memory.")?,
            start: Gauge::new(
                "process_start_time_seconds",
                "Start, in seconds since 1970.",
            )?,
            threads: Gauge::new("process_threads", "Threads.")?,
        })
    }

    fn read(&self) {
        self.read_stat();
        self.read_status();
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // Without the descriptor of this read.
            self.open_fds.set(number(open.count().saturating_sub(1)));
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.max_fds
                .set(number(usize::try_from(most).unwrap_or(usize::MAX)));
        }
    }

    /// Reads the times in ticks: used in user and kernel mode, and the start of the process after
    /// boot.
    fn read_stat(&self) {
        let Some(text) = text("/proc/self/stat") else {
            return;
        };
        // The name in parentheses may contain any character; the fields follow it.
        let fields: Vec<_> = text
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
        if let (Some(user), Some(system)) = (field(11), field(12)) {
            let more = (user + system) / TICKS - self.cpu.get();
            self.cpu.inc_by(more.max(0.0));
        }
        if let (Some(after), Some(boot)) = (field(19), boot()) {
            self.start.set(boot + after / TICKS);
        }
    }

    fn read_status(&self) {
        let Some(text) = text("/proc/self/status") else {
            return;
        };
        let field = |name: &str| value(&text, name);
        if let Some(kilobytes) = field("VmRSS:") {
            self.resident.set(kilobytes * 1024.0);
        }
        if let Some(threads) = field("Threads:") {
            self.threads.set(threads);
        }
    }

    fn parts(&self) -> [&dyn Collector; 6] {
        [
            &self.cpu,
            &self.max_fds,
            &self.open_fds,
            &self.resident,
            &self.start,
            &self.threads,
        ]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.parts()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

/// Returns when the machine booted, in seconds since 1970.
fn boot() -> Option<f64> {
    value(&text("/proc/stat")?, "btime")
}

/// Returns the number after a name at the start of a line.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn text(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge has no more precision than this"
)]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_seen() {
        let process = Process::new().expect("valid names");
        process.read();
        assert!(process.resident.get() > 1_000_000.0);
        assert!(process.threads.get() >= 1.0);
        assert!(process.open_fds.get() >= 3.0);
        assert!(process.max_fds.get() >= process.open_fds.get());
        assert!(process.start.get() > 1_600_000_000.0);
    }

    #[test]
    fn cpu_time_never_falls() {
        let process = Process::new().expect("valid names");
        process.cpu.inc_by(1e9);
        process.read();
        assert!(process.cpu.get() >= 1e9);
    }
}
