//! Reaching a decided target: resolve, judge every address, dial only what was judged.
//!
//! The one place that dials. A name is resolved after its verdict, each answer is judged, and the
//! address connected to is one of those; nothing is resolved twice (no rebinding).

mod document;
mod pool;
mod race;
mod resolve;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::Clock;
use crate::config;
use crate::name::{Host, Target};
use crate::policy::{Decision, Guard, Policy};

pub use document::{Document, DocumentError, Wanted};
pub use pool::{Idle, Pool, PoolKey, TlsKey};
pub use resolve::{ResolveError, Resolver};
pub use stream::Stream;

/// Answers that are looked at: more than any honest name has.
const MOST_ANSWERS: usize = 16;

/// How targets are reached in one generation.
#[derive(Debug)]
pub struct Dialer {
    resolver: Arc<Resolver>,
    /// Connections of this generation that rest between requests.
    pub pool: Pool,
    connect_timeout: Duration,
    dns_timeout: Duration,
    clock: Clock,
}

/// What a name resolved to, judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Every answer, as recorded.
    pub answers: Box<[IpAddr]>,
    /// Those that may be dialled, in order of preference; never empty.
    pub addresses: Vec<SocketAddr>,
}

/// Why there is no route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoRoute {
    /// No answer may be dialled; the answers, for the record.
    Denied(Box<[IpAddr]>),
    /// The name could not be resolved.
    Unresolved(ResolveError),
}

/// An open connection to a judged address.
#[derive(Debug)]
pub struct Upstream {
    /// The connection, without Nagle's delay.
    pub stream: Stream,
    /// The address that was dialled.
    pub address: SocketAddr,
    /// What connecting took.
    pub took: Duration,
}

/// Why a dial failed.
#[derive(Debug)]
pub enum DialError {
    /// Every address refused or failed; the last error.
    Failed(io::Error),
    /// None answered in time.
    TimedOut,
}

impl Dialer {
    /// Builds from `[dial]` and `[limits]`. The resolver of an earlier generation, with its cache,
    /// goes on where it was configured the same.
    pub fn new(
        dial: &config::Dial,
        limits: &config::Limits,
        clock: Clock,
        before: Option<&Self>,
    ) -> Self {
        let resolver = match before {
            Some(before) if before.resolver.is_for(dial) => before.resolver.clone(),
            _ => Arc::new(Resolver::new(dial)),
        };
        Self {
            resolver,
            pool: Pool::default(),
            connect_timeout: limits.connect_timeout,
            dns_timeout: limits.dns_timeout,
            clock,
        }
    }

    /// Resolves the host of an allowed target and judges each answer.
    pub async fn route(
        &self,
        target: &Target,
        decision: &Decision,
        policy: &Policy,
        guard: &Guard,
    ) -> Result<Route, NoRoute> {
        let passes = |address: &IpAddr| {
            policy
                .judge_address(decision, *address, target.port, guard)
                .is_ok()
        };
        self.routed(target, passes).await
    }

    /// Resolves a host that the gate itself asks for something; private addresses pass where they
    /// are in `named`.
    async fn route_own(
        &self,
        target: &Target,
        named: &[IpNet],
        guard: &Guard,
    ) -> Result<Route, NoRoute> {
        let passes = |address: &IpAddr| guard.lets_dial(*address, target.port, named);
        self.routed(target, passes).await
    }

    async fn routed(
        &self,
        target: &Target,
        passes: impl Fn(&IpAddr) -> bool,
    ) -> Result<Route, NoRoute> {
        let answers = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let lookup = tokio::time::timeout(self.dns_timeout, self.resolver.resolve(name));
                let answers = lookup.await.unwrap_or(Err(ResolveError::TimedOut));
                answers.map_err(NoRoute::Unresolved)?
            }
        };
        let answers: Box<[IpAddr]> = answers.into_iter().take(MOST_ANSWERS).collect();
        let addresses: Vec<SocketAddr> = race::interleave(answers.iter().copied().filter(passes))
            .map(|address| SocketAddr::new(address, target.port))
            .collect();
        if addresses.is_empty() {
            return Err(NoRoute::Denied(answers));
        }
        Ok(Route { answers, addresses })
    }

    /// Connects to the first of the judged addresses that answers (RFC 8305).
    pub async fn dial(&self, addresses: &[SocketAddr]) -> Result<Upstream, DialError> {
        let began = self.clock.instant();
        let race = race::connect(addresses);
        match tokio::time::timeout(self.connect_timeout, race).await {
            Err(_) => Err(DialError::TimedOut),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(DialError::TimedOut),
            Ok(Err(error)) => Err(DialError::Failed(error)),
            Ok(Ok((stream, address))) => {
                // Small messages in both directions are the rule here: no Nagle.
                let _ = stream.set_nodelay(true);
                Ok(Upstream {
                    stream: Stream::Tcp(stream),
                    address,
                    took: began.elapsed(),
                })
            }
        }
    }
}
