//! Reaches an allowed target: resolves its name, checks every address, and dials only checked
//! addresses.
//!
//! The only module that dials. A name is resolved after its verdict, each answer is checked, and
//! the gate connects to one of these addresses. No name is resolved twice (no rebinding).

mod alive;
mod descriptors;
mod document;
mod parent;
mod pool;
mod program;
mod race;
mod resolve;
mod service;
mod stand_in;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::Clock;
use crate::config;
use crate::name::{Host, HostName, Target};
use crate::policy::{CallerKey, Category, Decision, Guard, Policy};

pub use alive::{KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, KEEPALIVE_TIME, USER_TIMEOUT, keep_alive};
pub use descriptors::{Descriptors, NoDescriptor, Split, Taken};
pub use document::{Document, DocumentError, Posted, Sought, Wanted};
pub use parent::{DialContext, Parent, ParentError, Purpose, Through};
pub use pool::{Idle, Pool, PoolKey, TlsKey};
pub use program::{Children, ProgramEnd, ProgramStart, ProgramWitness, Programs};
pub use resolve::{ResolveError, Resolver};
pub use service::dial_service;
pub use stand_in::StandIn;
pub use stream::{Socket, Stream, Unasked};

/// The answers of a look-up that are used, at most: more than a normal name has.
const MAX_ADDRESSES: usize = 16;

/// Dials the targets of one generation.
#[derive(Debug)]
pub struct Dialer {
    resolver: Arc<Resolver>,
    parents: Vec<Arc<Parent>>,
    /// Idle connections of this generation.
    pub pool: Pool,
    /// The descriptor budget, shared by all generations.
    pub descriptors: Arc<Descriptors>,
    connect_timeout: Duration,
    dns_timeout: Duration,
    clock: Clock,
    /// The origin that is dialled instead of every destination; `None` for a gate with callers.
    stand_in: Option<StandIn>,
}

/// The route to a target: its checked addresses, or the parents to ask.
#[derive(Clone, Debug)]
pub struct Route {
    /// The target.
    pub target: Target,
    /// Every answer of the look-up, for the record.
    pub answers: Box<[IpAddr]>,
    /// The answers that may be dialled, in order of preference; empty only if a parent resolves the
    /// name.
    pub addresses: Vec<SocketAddr>,
    /// The parents to ask, in order; empty if the target is dialled directly.
    pub parents: Vec<Arc<Parent>>,
}

impl Route {
    /// Whether the target may be dialled directly if no parent can be reached.
    pub fn falls_back(&self) -> bool {
        !self.parents.is_empty() && self.parents.iter().all(|it| it.may_be_left_out())
    }
}

/// The reason why there is no route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoRoute {
    /// No answer may be dialled. Contains the answers, for the record.
    Denied(Box<[IpAddr]>),
    /// The name could not be resolved.
    Unresolved(ResolveError),
}

/// An open connection to a checked address.
#[derive(Debug)]
pub struct Upstream {
    /// The connection, with `TCP_NODELAY`.
    pub stream: Stream,
    /// The address that was dialled.
    pub address: SocketAddr,
    /// The duration of the dial.
    pub took: Duration,
    /// The parent of the connection; `address` is then the parent's.
    pub parent: Option<Through>,
}

impl Upstream {
    /// The checked address: see [`judged`].
    pub fn judged(&self) -> Option<SocketAddr> {
        judged(self.address, self.parent.as_ref())
    }
}

/// The address that was checked: that of the connection, or the address to which a parent leads;
/// `None` if the parent resolves the name.
pub fn judged(address: SocketAddr, through: Option<&Through>) -> Option<SocketAddr> {
    through.map_or(Some(address), |through| through.judged)
}

/// The reason why a dial failed.
#[derive(Debug)]
pub enum DialError {
    /// No address accepted a connection. Contains the last error.
    Failed(io::Error),
    /// No address answered in time.
    TimedOut,
    /// No parent opened a tunnel.
    Parent(ParentError),
}

impl Dialer {
    /// Builds the dialer from `[dial]` and `[limits]`. Keeps the resolver of the earlier
    /// generation, with its cache, if its configuration is the same.
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
            // A later generation never leads further than the one before.
            stand_in: before.and_then(|before| before.stand_in),
        }
    }

    /// The same dialer, which connects to the stand-in instead of any destination, looks no name up
    /// and asks no parent.
    #[must_use]
    pub fn leading_to(self, stand_in: StandIn) -> Self {
        Self {
            parents: Vec::new(),
            stand_in: Some(stand_in),
            ..self
        }
    }

    /// The parents of a target, in order; empty if the target is dialled directly.
    pub fn parents(&self, target: &Target, category: Category) -> Vec<Arc<Parent>> {
        let fitting = self.parents.iter().filter(|it| it.is_for(target, category));
        fitting.cloned().collect()
    }

    /// Whether the route of an earlier generation's connection is still configured for this target.
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

    /// The parent that is asked first at present.
    pub fn first_parent(&self, target: &Target, category: Category) -> Option<Arc<str>> {
        if self.parents.is_empty() {
            return None;
        }
        let now = self.clock.instant();
        let mut fitting = self.parents.iter().filter(|it| it.is_for(target, category));
        fitting
            .find(|it| !it.rests(now))
            .map(|it| it.name().clone())
    }

    /// Finds the route to an allowed target, with its parents. Resolves the host and checks each
    /// answer, unless all parents resolve names.
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

    /// Like [`Self::route`], without parents.
    pub async fn route_direct(
        &self,
        target: &Target,
        decision: &Decision,
        policy: &Policy,
        guard: &Guard,
    ) -> Result<Route, NoRoute> {
        let passes = |address: &IpAddr| policy.lets_dial(decision, *address, target.port, guard);
        let mut route = self.routed(target, passes).await?;
        // In `observe` mode denied addresses are dialled only if every address is denied.
        let is_allowed = |address: &SocketAddr| decision.denies(address.ip()).is_none();
        if route.addresses.iter().any(is_allowed) {
            route.addresses.retain(is_allowed);
        }
        Ok(route)
    }

    /// Resolves a host for the gate's own requests; private addresses pass only if `named` contains
    /// them.
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
            Host::Name(name) => self.look_up(name).await.map_err(NoRoute::Unresolved)?,
        };
        let answers: Box<[IpAddr]> = answers.into_iter().take(MAX_ADDRESSES).collect();
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

    async fn look_up(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        if self.stand_in.is_some() {
            let fixed = self.resolver.fixed(name);
            return Ok(fixed.map_or_else(StandIn::answers, <[IpAddr]>::to_vec));
        }
        let lookup = tokio::time::timeout(self.dns_timeout, self.resolver.resolve(name));
        lookup.await.unwrap_or(Err(ResolveError::TimedOut))
    }

    /// Connects to the target of a route: by its parents, or directly if it has none.
    pub async fn reach(
        &self,
        route: &Route,
        context: DialContext<'_>,
    ) -> Result<Upstream, DialError> {
        if route.parents.is_empty() {
            return self.dial_for(context.caller, &route.addresses).await;
        }
        self.reach_by_parents(route, context).await
    }

    /// Like [`Self::dial_for`], for the gate itself.
    pub async fn dial(&self, addresses: &[SocketAddr]) -> Result<Upstream, DialError> {
        self.dial_for(None, addresses).await
    }

    /// Takes descriptors for a caller. If its share is used up, closes its idle connections in the
    /// pool first.
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

    /// Connects to the first of the checked addresses that answers (RFC 8305), with descriptors
    /// from the caller's share.
    pub async fn dial_for(
        &self,
        caller: Option<&CallerKey>,
        addresses: &[SocketAddr],
    ) -> Result<Upstream, DialError> {
        let began = self.clock.instant();
        let origin = self.stand_in.map(|it| it.origin());
        let dialled = origin.as_ref().map_or(addresses, std::slice::from_ref);
        let race = race::connect(dialled, || self.descriptors_for(caller, 1));
        match tokio::time::timeout(self.connect_timeout, race).await {
            Err(_) => Err(DialError::TimedOut),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(DialError::TimedOut),
            Ok(Err(error)) => Err(DialError::Failed(error)),
            Ok(Ok((stream, address))) => {
                // Small messages in both directions are the rule: no Nagle.
                let _ = stream.set_nodelay(true);
                // The address for later checks and records is that of the destination, not of the stand-in.
                let stood_for = addresses.first().filter(|_| origin.is_some());
                Ok(Upstream {
                    stream: Stream::Tcp(stream),
                    address: stood_for.copied().unwrap_or(address),
                    took: began.elapsed(),
                    parent: None,
                })
            }
        }
    }
}
