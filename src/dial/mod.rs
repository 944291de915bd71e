//! Reaching a decided target: resolve, judge every address, dial only what was judged.
//!
//! The one place that dials. A name is resolved after its verdict, each answer is judged, and the
//! address connected to is one of those; nothing is resolved twice (no rebinding).

mod alive;
mod descriptors;
mod document;
mod parent;
mod pool;
mod program;
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
use crate::policy::{CallerKey, Category, Decision, Guard, Policy};

pub use alive::{KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, KEEPALIVE_TIME, USER_TIMEOUT, keep_alive};
pub use descriptors::{Descriptors, NoDescriptor, Split, Taken};
pub use document::{Document, DocumentError, Sought, Wanted};
pub use parent::{Errand, Parent, ParentError, Purpose, Through};
pub use pool::{Idle, Pool, PoolKey, TlsKey};
pub use program::{Children, ProgramEnd, ProgramStart, ProgramWitness, Programs};
pub use resolve::{ResolveError, Resolver};
pub use stream::{Socket, Stream, Unasked};

/// Answers that are looked at: more than any honest name has.
const MOST_ANSWERS: usize = 16;

/// How targets are reached in one generation.
#[derive(Debug)]
pub struct Dialer {
    resolver: Arc<Resolver>,
    parents: Vec<Arc<Parent>>,
    /// Connections of this generation that rest between requests.
    pub pool: Pool,
    /// What dials may use; all generations share it.
    pub descriptors: Arc<Descriptors>,
    connect_timeout: Duration,
    dns_timeout: Duration,
    clock: Clock,
}

/// How a target is reached: what its name resolved to, judged, or who is asked to take us there.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it leads.
    pub target: Target,
    /// Every answer, as recorded.
    pub answers: Box<[IpAddr]>,
    /// Those that may be dialled, in order of preference; empty only where a parent looks the name
    /// up.
    pub addresses: Vec<SocketAddr>,
    /// The parents to ask, in order; none: it is dialled itself.
    pub parents: Vec<Arc<Parent>>,
}

impl Route {
    /// Whether the target may be dialled itself where no parent can be reached.
    pub fn falls_back(&self) -> bool {
        !self.parents.is_empty() && self.parents.iter().all(|it| it.may_be_left_out())
    }
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
    /// The parent that it leads through; `address` is that of the parent then.
    pub parent: Option<Through>,
}

impl Upstream {
    /// The address that was judged: see [`judged`].
    pub fn judged(&self) -> Option<SocketAddr> {
        judged(self.address, self.parent.as_ref())
    }
}

/// What was judged of a connection to an address: the address, or the one to which a parent leads;
/// `None` where the parent alone knows it.
pub fn judged(address: SocketAddr, through: Option<&Through>) -> Option<SocketAddr> {
    through.map_or(Some(address), |through| through.judged)
}

/// Why a dial failed.
#[derive(Debug)]
pub enum DialError {
    /// Every address refused or failed; the last error.
    Failed(io::Error),
    /// None answered in time.
    TimedOut,
    /// No parent took us there.
    Parent(ParentError),
}

impl Dialer {
    /// Builds from `[dial]` and `[limits]`. The resolver of an earlier generation, with its cache,
    /// goes on where it was configured the same.
    pub fn new(
        dial: &config::Dial,
        limits: &config::Limits,
        clock: Clock,
        programs: &Programs,
        before: Option<&Self>,
    ) -> Self {
        let resolver = match before {
            Some(before) if before.resolver.is_for(dial) => before.resolver.clone(),
            _ => Arc::new(Resolver::new(dial)),
        };
        Self {
            resolver,
            parents: Parent::all(
                &dial.parents,
                &clock,
                programs,
                before.map_or(&[], |before| &before.parents),
            ),
            pool: Pool::default(),
            descriptors: before.map_or_else(
                || Arc::new(Descriptors::of_process(limits.flows)),
                |before| before.descriptors.clone(),
            ),
            connect_timeout: limits.connect_timeout,
            dns_timeout: limits.dns_timeout,
            clock,
        }
    }

    /// The parents that are for a target, in order; none: it is dialled itself.
    pub fn parents(&self, target: &Target, category: Category) -> Vec<Arc<Parent>> {
        let fitting = self.parents.iter().filter(|it| it.is_for(target, category));
        fitting.cloned().collect()
    }

    /// Whether a connection of an earlier generation leads to a target as one of this would.
    pub fn still_leads(
        &self,
        target: &Target,
        category: Category,
        through: Option<&Through>,
    ) -> bool {
        let parents = self.parents(target, category);
        match through {
            Some(through) => parents.iter().any(|it| it.is_as(&through.parent)),
            None => parents.iter().all(|it| it.may_be_left_out()),
        }
    }

    /// The parent that would be asked now.
    pub fn first_parent(&self, target: &Target, category: Category) -> Option<Arc<str>> {
        let now = self.clock.instant();
        let mut fitting = self.parents.iter().filter(|it| it.is_for(target, category));
        fitting
            .find(|it| !it.rests(now))
            .map(|it| it.name().clone())
    }

    /// Finds the way to an allowed target: its parents, where it has any. Its host is resolved and
    /// each answer judged, unless its parents do the first.
    pub async fn route(
        &self,
        target: &Target,
        decision: &Decision,
        policy: &Policy,
        guard: &Guard,
    ) -> Result<Route, NoRoute> {
        let parents = self.parents(target, decision.category);
        let named = matches!(target.host, Host::Name(_));
        if named && !parents.is_empty() && parents.iter().all(|it| it.resolves()) {
            return Ok(Route {
                target: target.clone(),
                answers: Box::default(),
                addresses: Vec::new(),
                parents,
            });
        }
        let direct = self.route_direct(target, decision, policy, guard).await?;
        Ok(Route { parents, ..direct })
    }

    /// As [`Self::route`], without parents.
    pub async fn route_direct(
        &self,
        target: &Target,
        decision: &Decision,
        policy: &Policy,
        guard: &Guard,
    ) -> Result<Route, NoRoute> {
        let passes = |address: &IpAddr| policy.lets_dial(decision, *address, target.port, guard);
        let mut route = self.routed(target, passes).await?;
        // In `observe` mode a denied address is dialled only where each address is denied.
        let is_allowed = |address: &SocketAddr| decision.denies(address.ip()).is_none();
        if route.addresses.iter().any(is_allowed) {
            route.addresses.retain(is_allowed);
        }
        Ok(route)
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
        Ok(Route {
            target: target.clone(),
            answers,
            addresses,
            parents: Vec::new(),
        })
    }

    /// Reaches what a route leads to: by its parents, or by itself where it has none.
    pub async fn reach(&self, route: &Route, errand: Errand<'_>) -> Result<Upstream, DialError> {
        if route.parents.is_empty() {
            return self.dial_for(errand.caller, &route.addresses).await;
        }
        self.reach_by_parents(route, errand).await
    }

    /// As [`Self::dial_for`], for the gate itself.
    pub async fn dial(&self, addresses: &[SocketAddr]) -> Result<Upstream, DialError> {
        self.dial_for(None, addresses).await
    }

    /// Takes descriptors for a caller. Where its share is spent, connections that rest for it in
    /// the pool are closed first.
    pub fn descriptors_for(&self, caller: Option<&CallerKey>, count: usize) -> Option<Taken> {
        loop {
            let taken = self.descriptors.take(caller, count);
            let closed = || match caller {
                Some(caller) if self.pool.close_one_of(caller) => true,
                _ => self.descriptors.is_spent() && self.pool.close_one(),
            };
            if taken.is_some() || !closed() {
                return taken;
            }
        }
    }

    /// Connects to the first of the judged addresses that answers (RFC 8305), with descriptors from
    /// the share of the caller.
    pub async fn dial_for(
        &self,
        caller: Option<&CallerKey>,
        addresses: &[SocketAddr],
    ) -> Result<Upstream, DialError> {
        let began = self.clock.instant();
        let race = race::connect(addresses, || self.descriptors_for(caller, 1));
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
                    parent: None,
                })
            }
        }
    }
}
