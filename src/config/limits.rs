//! `[limits]`: bounds with defaults.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::source::Placed;

use super::value::{self, Size};

/// Bounds with defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Maximum concurrent flows in all (`flows`, 65536).
    pub flows: usize,
    /// Maximum concurrent flows of one caller (`flows-per-caller`, 4096): of a user, or of an
    /// address without one.
    pub flows_per_caller: usize,
    /// Maximum connections with a request per second of one caller (`connection-rate`, 2000).
    pub connection_rate: u32,
    /// Maximum refused flows per second of one caller (`refusal-rate`, 200).
    pub refusal_rate: u32,
    /// Maximum sessions that one caller starts per second (`session-rate`, 20).
    pub session_rate: u32,
    /// Maximum changing calls per second of one caller (`admin-rate`, 100), at the admin listener
    /// or the control socket.
    pub admin_rate: u32,
    /// Time for a request head (`header-timeout`, 10 s), from its first byte.
    pub header_timeout: Duration,
    /// Time that a kept connection may be idle between requests (`keep-alive`, 5 min).
    pub keep_alive: Duration,
    /// Maximum bytes of a request head (`header-size`, 64 KiB).
    pub header_size: usize,
    /// Maximum fields of a request head (`header-count`, 128).
    pub header_count: usize,
    /// Time for a whole `ClientHello` after the 200 (`hello-timeout`, 10 s).
    pub hello_timeout: Duration,
    /// Time for all DNS answers of one lookup (`dns-timeout`, 5 s).
    pub dns_timeout: Duration,
    /// Time for a TCP connection (`connect-timeout`, 10 s).
    pub connect_timeout: Duration,
    /// Time that a tunnel or response may be idle in both directions (`idle`, 1 h).
    pub idle: Duration,
    /// Time for open flows to end at shutdown (`drain`, 30 s).
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 65_536,
            flows_per_caller: 4_096,
            connection_rate: 2_000,
            refusal_rate: 200,
            session_rate: 20,
            admin_rate: 100,
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_mins(5),
            header_size: 64 * 1024,
            header_count: 128,
            hello_timeout: Duration::from_secs(10),
            dns_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            idle: Duration::from_hours(1),
            drain: Duration::from_secs(30),
        }
    }
}

/// The text of `[limits]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    flows: Option<Spanned<i64>>,
    flows_per_caller: Option<Spanned<i64>>,
    connection_rate: Option<Spanned<i64>>,
    refusal_rate: Option<Spanned<i64>>,
    session_rate: Option<Spanned<i64>>,
    admin_rate: Option<Spanned<i64>>,
    header_timeout: Option<Spanned<String>>,
    keep_alive: Option<Spanned<String>>,
    header_size: Option<Spanned<Size>>,
    header_count: Option<Spanned<i64>>,
    hello_timeout: Option<Spanned<String>>,
    dns_timeout: Option<Spanned<String>>,
    connect_timeout: Option<Spanned<String>>,
    idle: Option<Spanned<String>>,
    drain: Option<Spanned<String>>,
}

/// Range of flow limits: no limit can be so high that it has no effect.
const FLOWS: (usize, usize) = (1, 16 << 20);
const RATE: (usize, usize) = (1, 1_000_000);
const HEADER_COUNT: (usize, usize) = (1, 10_000);
const HEADER_SIZE: (u64, u64) = (512, 16 << 20);
const SHORTEST: Duration = Duration::from_millis(1);
const TEN_MINUTES: Duration = Duration::from_mins(10);
const A_DAY: Duration = Duration::from_hours(24);
const A_MONTH: Duration = Duration::from_hours(30 * 24);

/// Reads the limits over the defaults.
pub(super) fn limits(section: Option<&Placed<Section>>, findings: &mut Vec<Diagnostic>) -> Limits {
    let mut limits = Limits::default();
    let Some(section) = section else {
        return limits;
    };
    let written = &section.value;
    let mut number = |into: &mut usize, written: &Option<Spanned<i64>>, bounds| {
        if let Some(number) = written {
            let checked = value::number(*number.get_ref(), bounds, section.at(number), findings);
            *into = checked.unwrap_or(*into);
        }
    };
    number(&mut limits.flows, &written.flows, FLOWS);
    number(
        &mut limits.flows_per_caller,
        &written.flows_per_caller,
        FLOWS,
    );
    number(
        &mut limits.header_count,
        &written.header_count,
        HEADER_COUNT,
    );
    let mut rate = |into: &mut u32, written: &Option<Spanned<i64>>| {
        let mut whole = usize::try_from(*into).unwrap_or(usize::MAX);
        number(&mut whole, written, RATE);
        *into = u32::try_from(whole).unwrap_or(*into);
    };
    rate(&mut limits.connection_rate, &written.connection_rate);
    rate(&mut limits.refusal_rate, &written.refusal_rate);
    rate(&mut limits.session_rate, &written.session_rate);
    rate(&mut limits.admin_rate, &written.admin_rate);
    let mut time = |into: &mut Duration, written: &Option<Spanned<String>>, longest| {
        if let Some(text) = written {
            let (bounds, place) = ((SHORTEST, longest), section.at(text));
            let checked = value::duration(text.get_ref(), bounds, place, findings);
            *into = checked.unwrap_or(*into);
        }
    };
    time(
        &mut limits.header_timeout,
        &written.header_timeout,
        TEN_MINUTES,
    );
    time(&mut limits.keep_alive, &written.keep_alive, A_DAY);
    time(
        &mut limits.hello_timeout,
        &written.hello_timeout,
        TEN_MINUTES,
    );
    time(&mut limits.dns_timeout, &written.dns_timeout, TEN_MINUTES);
    time(
        &mut limits.connect_timeout,
        &written.connect_timeout,
        TEN_MINUTES,
    );
    time(&mut limits.idle, &written.idle, A_MONTH);
    time(&mut limits.drain, &written.drain, A_DAY);
    if let Some(size) = &written.header_size {
        let size = value::size(size.get_ref(), HEADER_SIZE, section.at(size), findings);
        let size = size.and_then(|size| usize::try_from(size).ok());
        limits.header_size = size.unwrap_or(limits.header_size);
    }
    never_reached(section, &limits, findings);
    limits
}

/// Reports a limit per caller above the limit for all, which has no effect.
fn never_reached(section: &Placed<Section>, limits: &Limits, findings: &mut Vec<Diagnostic>) {
    let Some(per_caller) = &section.value.flows_per_caller else {
        return;
    };
    if limits.flows_per_caller > limits.flows {
        let message = "`flows-per-caller` is never reached: `flows` is lower";
        findings.push(
            Diagnostic::warning("never-reached", section.at(per_caller), message)
                .help(format!("write {} or less, or raise `flows`", limits.flows)),
        );
    }
}
