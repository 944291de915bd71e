//! What is measured, and the figures as they are kept.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One way of using a proxy.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Dial, CONNECT, one request with an answer of 2 bytes, close
    Connect,
    /// A plain-HTTP request on a kept connection
    Http,
    /// A request in a kept tunnel
    Tunnel,
    /// Bytes from the origin through 4 tunnels
    Bulk,
    /// Tunnels that carried one request and rest
    Idle,
    /// One at a time, 50 a second: new tunnel, kept tunnel, plain HTTP
    Latency,
    /// Inspected: CONNECT, TLS handshake, one request, close
    TlsConnect,
    /// Inspected: a request on a kept connection
    TlsHttp,
    /// Inspected: bytes from the origin through 4 connections
    TlsBulk,
}

impl Mode {
    /// Its name on the command line and in figures.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |it| it.get_name().to_owned())
    }
}

/// A figure of a mode: what it is, and whether more is better.
pub struct Figure {
    pub mode: Mode,
    pub key: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub more_is_better: bool,
}

const fn figure(
    mode: Mode,
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    more_is_better: bool,
) -> Figure {
    Figure {
        mode,
        key,
        title,
        unit,
        more_is_better,
    }
}

/// The figures that the table and the picture show.
pub const SHOWN: [Figure; 12] = [
    figure(
        Mode::Connect,
        "per_cpu_s",
        "New tunnels",
        "per CPU-second",
        true,
    ),
    figure(
        Mode::Http,
        "per_cpu_s",
        "Plain HTTP requests",
        "per CPU-second",
        true,
    ),
    figure(
        Mode::Tunnel,
        "per_cpu_s",
        "Requests in open tunnels",
        "per CPU-second",
        true,
    ),
    figure(
        Mode::Bulk,
        "cpu_s_per_gib",
        "Bulk",
        "CPU-seconds per GiB",
        false,
    ),
    figure(
        Mode::Idle,
        "bytes_per_tunnel",
        "Idle tunnel",
        "bytes of memory",
        false,
    ),
    figure(
        Mode::Idle,
        "kept_bytes_per_tunnel",
        "Kept after it closed",
        "bytes of memory",
        false,
    ),
    figure(
        Mode::Latency,
        "new_us",
        "New tunnel, at rest",
        "µs, median",
        false,
    ),
    figure(
        Mode::Latency,
        "kept_us",
        "In a tunnel, at rest",
        "µs, median",
        false,
    ),
    figure(
        Mode::Latency,
        "http_us",
        "Plain HTTP, at rest",
        "µs, median",
        false,
    ),
    figure(
        Mode::TlsConnect,
        "per_cpu_s",
        "Inspected: new connections",
        "per CPU-second",
        true,
    ),
    figure(
        Mode::TlsHttp,
        "per_cpu_s",
        "Inspected: requests",
        "per CPU-second",
        true,
    ),
    figure(
        Mode::TlsBulk,
        "cpu_s_per_gib",
        "Inspected: bulk",
        "CPU-seconds per GiB",
        false,
    ),
];

/// One run of one peer.
#[derive(Clone, Deserialize, Serialize)]
pub struct Run {
    pub mode: Mode,
    pub peer: String,
    pub round: u32,
    pub figures: BTreeMap<String, f64>,
}

/// What was measured on.
#[derive(Clone, Deserialize, Serialize)]
pub struct Machine {
    pub date: String,
    pub processor: String,
    pub processors: usize,
    pub kernel: String,
    /// The 1-minute load average when the suite began and when it ended: other work disturbs.
    pub load: Vec<f64>,
    pub rounds: u32,
    pub seconds: f64,
    /// Each peer with what it says of its version.
    pub versions: BTreeMap<String, String>,
    /// SHA-256 of each configuration that was used, as `sha256sum` prints it.
    pub configurations: BTreeMap<String, String>,
}

/// All that a suite measured.
#[derive(Deserialize, Serialize)]
pub struct Results {
    pub machine: Machine,
    pub runs: Vec<Run>,
}

/// The middle, the least and the greatest of some rounds.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Results {
    /// The spread of one figure of one peer; `None` where it was not measured.
    pub fn spread(&self, peer: &str, figure: &Figure) -> Option<Spread> {
        let mut values: Vec<f64> = self
            .runs
            .iter()
            .filter(|run| run.peer == peer && run.mode == figure.mode)
            .filter_map(|run| run.figures.get(figure.key).copied())
            .collect();
        values.sort_by(f64::total_cmp);
        Some(Spread {
            median: *values.get(values.len() / 2)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }

    /// The peers in the order in which they were first measured.
    pub fn peers(&self) -> Vec<&str> {
        let mut peers: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !peers.contains(&run.peer.as_str()) {
                peers.push(&run.peer);
            }
        }
        peers
    }

    /// What the ratios of a mode are to: the yardstick without policy, log or deadlines.
    pub fn base(mode: Mode) -> &'static str {
        match mode {
            Mode::TlsConnect | Mode::TlsHttp | Mode::TlsBulk => "relay-tls",
            _ => "relay",
        }
    }
}
