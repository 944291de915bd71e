//! `[limits]`: bounds that hold by default.

use std::time::Duration;

/// Bounds that hold by default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Flows at once in all (`flows`, 65536).
    pub flows: usize,
    /// Flows at once of one caller (`flows-per-caller`, 4096): a user, or an address without one.
    pub flows_per_caller: usize,
    /// Time for a request head (`header-timeout`, 10 s), counted from its first byte.
    pub header_timeout: Duration,
    /// Time a kept connection may rest between requests (`keep-alive`, 5 min).
    pub keep_alive: Duration,
    /// Bytes of a request head (`header-size`, 64 KiB).
    pub header_size: usize,
    /// Fields of a request head (`header-count`, 128).
    pub header_count: usize,
    /// Time for a whole ClientHello after the 200 (`hello-timeout`, 10 s).
    pub hello_timeout: Duration,
    /// Time for all answers of DNS (`dns-timeout`, 5 s).
    pub dns_timeout: Duration,
    /// Time for a TCP connection (`connect-timeout`, 10 s).
    pub connect_timeout: Duration,
    /// Time a tunnel or response may rest without a byte either way (`idle`, 1 h).
    pub idle: Duration,
    /// Time for open flows to end at shutdown (`drain`, 30 s).
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 65_536,
            flows_per_caller: 4_096,
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(300),
            header_size: 64 * 1024,
            header_count: 128,
            hello_timeout: Duration::from_secs(10),
            dns_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(3600),
            drain: Duration::from_secs(30),
        }
    }
}
