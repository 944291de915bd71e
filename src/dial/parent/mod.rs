//! Parent proxies: the gate reaches a target through another proxy, by a tunnel or by a plain
//! request.
//!
//! The policy has decided before. The operator names each parent. A parent may be at a private
//! address, but never at one of the gate's own listeners. A refusal by a parent is final: the next
//! parent is tried only if a parent cannot be reached.

mod answer;
mod credential;
mod health;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::io::AsyncWriteExt;

use crate::clock::Clock;
use crate::config::{self, Authorization, FallBack, Resolve};
use crate::metrics::Metrics;
use crate::name::{Host, Target};
use crate::policy::{CallerKey, Category, Guard};
use crate::tls::{self, TlsFailure};

use super::{DialError, Dialer, NoDescriptor, NoRoute, Programs, Route, Stream, Upstream};
use credential::Keeper;
use health::Health;

/// A parent of one generation.
#[derive(Debug)]
pub struct Parent {
    written: config::Parent,
    /// `host:port`, the name in records.
    name: Arc<str>,
    tls: Option<tls::Client>,
    health: Arc<Health>,
    credential: Arc<Keeper>,
}

/// The use of a connection through a parent.
#[derive(Clone, Debug)]
pub struct Through {
    /// The parent.
    pub parent: Arc<Parent>,
    /// The gate's credential for the parent.
    pub authorization: Option<Authorization>,
    /// The checked address of the target; `None` if the parent resolves the name.
    pub judged: Option<SocketAddr>,
    /// Whether requests go to the parent itself, in absolute form. Otherwise the connection is a
    /// tunnel to the target.
    pub absolute: bool,
}

/// The settings of a dial besides its route.
#[derive(Clone, Copy, Debug)]
pub struct DialContext<'a> {
    /// The purpose of the connection.
    pub purpose: Purpose<'a>,
    /// The addresses of the gate itself, which it never dials.
    pub guard: &'a Guard,
    /// The metrics of dials through parents.
    pub metrics: &'a Metrics,
    /// The caller whose share of the descriptors is used; `None`: the gate itself.
    pub caller: Option<&'a CallerKey>,
}

/// The purpose of a connection through a parent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose<'a> {
    /// Plain HTTP requests, which the parent forwards itself.
    Request,
    /// A tunnel for any protocol.
    Tunnel {
        /// The `Via` value to send (RFC 9110 section 7.6.3): earlier proxies, then the gate.
        via: &'a str,
    },
}

/// The reason why no parent opened a connection.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// The answer of the parent is malformed.
    #[error("the parent cannot be understood: {0}")]
    Garbled(&'static str),
    /// The credential cannot be read.
    #[error("there is no credential for the parent: {0}")]
    Credential(&'static str),
    /// The caller's share of the descriptors is used up.
    #[error("this caller has used up its share of the upstream connections")]
    NoDescriptor,
    /// The parent's address is one of the gate's own listeners, or denied by the floor.
    #[error("the parent is this proxy itself, or at an address that is never dialled")]
    Own,
    /// The parent refused.
    #[error("the parent refused: {status}{}", after_space(word.as_deref()))]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The reason, in one word.
        word: Option<Box<str>>,
    },
    /// No parent could be reached a moment ago, so none was tried.
    #[error("no parent could be reached a moment ago")]
    Resting,
    /// The parent did not answer in time.
    #[error("the parent does not answer in time")]
    Silent,
    /// TLS with the parent failed.
    #[error("TLS with the parent failed: {0}")]
    Tls(&'static str),
    /// The connection to the parent failed.
    #[error("the parent cannot be reached: {0}")]
    Unreachable(&'static str),
}

fn after_space(word: Option<&str>) -> String {
    word.map_or_else(String::new, |word| format!(" {word}"))
}

impl ParentError {
    /// A word of `tidegate_parent_dials_total{result}`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Garbled(_) => "garbled",
            Self::Credential(_) | Self::Refused { status: 407, .. } => "credential",
            Self::NoDescriptor => "descriptors",
            Self::Own => "own",
            Self::Refused { .. } => "refused",
            Self::Resting => "resting",
            Self::Silent => "silent",
            Self::Tls(_) => "tls",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// Whether the parent itself is at fault, not the target or the gate. A time-out is not its
    /// fault: otherwise a caller with a target that never answers could make a parent unavailable
    /// to all callers.
    fn is_ill_health(&self) -> bool {
        matches!(self, Self::Garbled(_) | Self::Tls(_) | Self::Unreachable(_))
    }

    /// Whether no parent was reached, so that a target may be dialled directly if this is
    /// configured.
    pub fn leaves_out(&self) -> bool {
        matches!(self, Self::Resting) || self.is_ill_health()
    }

    /// Whether another parent may be tried.
    fn may_go_on(&self) -> bool {
        self.is_ill_health() || matches!(self, Self::Silent | Self::Own)
    }

    fn no_tls(failure: TlsFailure) -> Self {
        Self::Tls(match failure.word {
            "client_certificate_required" => "it wants a client certificate: name a `client-cert`",
            _ => failure.sentence,
        })
    }

    /// The error of a stream that broke off.
    fn broke(error: &io::Error) -> Self {
        match TlsFailure::in_error(error) {
            Some(failure) => Self::no_tls(failure),
            None => Self::Garbled("it broke off before it answered"),
        }
    }
}

impl Through {
    /// `host:port` of the parent, the name in records.
    pub fn name(&self) -> &Arc<str> {
        &self.parent.name
    }

    /// Whether there is another credential, after the parent rejected this one for a plain request.
    pub async fn has_other_credential(&self) -> bool {
        let Some(refused) = &self.authorization else {
            return false;
        };
        self.parent.credential.other_than(refused).await.is_some()
    }
}

impl Parent {
    /// The configured parents; those with the same configuration keep their state from `before`.
    pub(super) fn all(
        written: &[config::Parent],
        clock: &Clock,
        programs: &Programs,
        before: &[Arc<Self>],
    ) -> Vec<Arc<Self>> {
        let one = |written: &config::Parent| {
            let before = before.iter().find(|it| it.written == *written);
            Arc::new(Self::new(written.clone(), clock, programs, before))
        };
        written.iter().map(one).collect()
    }

    fn new(
        written: config::Parent,
        clock: &Clock,
        programs: &Programs,
        before: Option<&Arc<Self>>,
    ) -> Self {
        // Errors in the certificates were reported when the configuration was loaded.
        let tls = tls::Client::of_parent(&written).ok();
        let name = written.target.to_string();
        let fresh = || {
            let source = written.credential.clone();
            Arc::new(Keeper::new(source, &name, programs.clone(), clock.clone()))
        };
        Self {
            tls: tls.filter(|_| written.tls),
            health: before.map_or_else(Arc::default, |before| before.health.clone()),
            credential: before.map_or_else(fresh, |before| before.credential.clone()),
            name: name.into(),
            written,
        }
    }

    /// `host:port`, the name in records.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether both have the same configuration.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.written == other.written
    }

    /// Whether the parent is configured for this target and category.
    pub(super) fn is_for(&self, target: &Target, category: Category) -> bool {
        self.written.is_for(target, category)
    }

    /// Whether the parent resolves names.
    pub fn resolves(&self) -> bool {
        self.written.resolve == Resolve::Parent
    }

    /// Whether a target may be dialled directly if this parent cannot be reached.
    pub(super) fn may_be_left_out(&self) -> bool {
        self.written.fall_back == FallBack::Direct
    }

    pub(super) fn rests(&self, now: Instant) -> bool {
        self.health.rests(now)
    }
}

impl Dialer {
    /// Connects to the target of a route through its parents, in order.
    pub(super) async fn reach_by_parents(
        &self,
        route: &Route,
        context: DialContext<'_>,
    ) -> Result<Upstream, DialError> {
        let reached = self.by_parents(route, context).await;
        let result = reached.as_ref().map_or_else(ParentError::word, |_| "ok");
        context.metrics.parent_dial(result);
        reached.map_err(DialError::Parent)
    }

    async fn by_parents(
        &self,
        route: &Route,
        context: DialContext<'_>,
    ) -> Result<Upstream, ParentError> {
        let began = self.clock.instant();
        let awake = route.parents.iter().filter(|it| !it.rests(began));
        let awake: Vec<_> = awake.collect();
        let mut last = ParentError::Resting;
        for (at, parent) in awake.iter().enumerate() {
            // The remaining time is shared by the remaining parents.
            let spent = self.clock.instant().saturating_duration_since(began);
            let left = self.connect_timeout.saturating_sub(spent);
            let others = u32::try_from(awake.len() - at).unwrap_or(u32::MAX);
            let attempt = Attempt {
                dialer: self,
                parent,
                route,
                context,
                began: self.clock.instant(),
                longest: left / others.max(1),
            };
            match attempt.run().await {
                Ok(upstream) => {
                    parent.health.answered();
                    return Ok(upstream);
                }
                Err(error) => {
                    attempt.learn_from(&error);
                    if !error.may_go_on() {
                        return Err(error);
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }
}

/// One attempt to reach a target through one parent.
struct Attempt<'a> {
    dialer: &'a Dialer,
    parent: &'a Arc<Parent>,
    route: &'a Route,
    context: DialContext<'a>,
    began: Instant,
    longest: Duration,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Upstream, ParentError> {
        let authorization = self.parent.credential.get().await?;
        match self.once(authorization.clone()).await {
            Err(ParentError::Refused { status: 407, word }) => {
                let refused = ParentError::Refused { status: 407, word };
                let refusing = authorization.as_ref().ok_or(refused);
                let refusing = refusing.map(|it| self.parent.credential.other_than(it))?;
                match refusing.await {
                    Some(other) => self.once(Some(other)).await,
                    None => Err(ParentError::Refused {
                        status: 407,
                        word: None,
                    }),
                }
            }
            ended => ended,
        }
    }

    async fn once(&self, authorization: Option<Authorization>) -> Result<Upstream, ParentError> {
        let out_of_reach = ParentError::Unreachable("it takes too long");
        let (mut stream, address) = self.in_time(self.connect(), out_of_reach).await?;
        let Purpose::Tunnel { via } = self.context.purpose else {
            return Ok(self.reached(stream, address, authorization, true));
        };
        let asked = self.ask(&mut stream, via, authorization.as_ref());
        self.in_time(asked, ParentError::Silent).await?;
        Ok(self.reached(stream, address, authorization, false))
    }

    async fn in_time<T>(
        &self,
        doing: impl Future<Output = Result<T, ParentError>>,
        late: ParentError,
    ) -> Result<T, ParentError> {
        let spent = self.dialer.clock.instant();
        let spent = spent.saturating_duration_since(self.began);
        let left = self.longest.saturating_sub(spent);
        tokio::time::timeout(left, doing).await.unwrap_or(Err(late))
    }

    fn reached(
        &self,
        stream: Stream,
        address: SocketAddr,
        authorization: Option<Authorization>,
        absolute: bool,
    ) -> Upstream {
        Upstream {
            stream,
            address,
            took: self
                .dialer
                .clock
                .instant()
                .saturating_duration_since(self.began),
            parent: Some(Through {
                parent: self.parent.clone(),
                authorization,
                judged: self.judged(),
                absolute,
            }),
        }
    }

    /// Connects to the parent, with TLS if configured.
    async fn connect(&self) -> Result<(Stream, SocketAddr), ParentError> {
        let config::Parent { target, tls, .. } = &self.parent.written;
        let found = self
            .dialer
            .route_own(target, &everywhere(), self.context.guard)
            .await;
        let found = found.map_err(|error| match error {
            NoRoute::Denied(_) => ParentError::Own,
            NoRoute::Unresolved(_) => ParentError::Unreachable("its name cannot be resolved"),
        })?;
        let dialling = self.dialer.dial_for(self.context.caller, &found.addresses);
        let dialled = dialling.await;
        let Upstream {
            stream, address, ..
        } = dialled.map_err(|error| match error {
            DialError::Failed(error) if NoDescriptor::is_in(&error) => ParentError::NoDescriptor,
            error => ParentError::Unreachable(why(&error)),
        })?;
        if !tls {
            return Ok((stream, address));
        }
        let client = self.parent.tls.as_ref();
        let client = client.ok_or(ParentError::Tls("its certificates cannot be used"))?;
        let Stream::Tcp(socket) = stream else {
            return Err(ParentError::Unreachable("it is no socket"));
        };
        let entered = client.enter_host(&target.host, socket).await;
        let entered = entered.map_err(ParentError::no_tls)?;
        Ok((Stream::Tls(Box::new(entered)), address))
    }

    /// Requests a tunnel (RFC 9110 section 9.3.6).
    async fn ask(
        &self,
        stream: &mut Stream,
        via: &str,
        authorization: Option<&Authorization>,
    ) -> Result<(), ParentError> {
        let target = self.tunnel_target();
        let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nVia: {via}\r\n");
        if let Some(authorization) = authorization {
            head.push_str("Proxy-Authorization: ");
            head.push_str(authorization.as_str());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let said = async {
            stream.write_all(head.as_bytes()).await?;
            stream.flush().await
        };
        said.await.map_err(|error| ParentError::broke(&error))?;
        let answer = answer::read(stream).await?;
        if answer.is_open() {
            return Ok(());
        }
        Err(ParentError::Refused {
            status: answer.status,
            word: answer.word,
        })
    }

    /// The target of the tunnel: a checked address if the gate resolves names.
    fn tunnel_target(&self) -> String {
        let target = &self.route.target;
        match self.judged() {
            Some(address) if matches!(target.host, Host::Name(_)) => address.to_string(),
            _ => target.to_string(),
        }
    }

    /// The checked address for the parent. IPv4 is preferred: the parent may have no IPv6.
    fn judged(&self) -> Option<SocketAddr> {
        let Route {
            target, addresses, ..
        } = self.route;
        if matches!(target.host, Host::Name(_)) && self.parent.resolves() {
            return None;
        }
        let four = addresses.iter().find(|address| address.is_ipv4());
        four.or(addresses.first()).copied()
    }

    fn learn_from(&self, error: &ParentError) {
        let Self { parent, .. } = self;
        if error.is_ill_health() {
            parent.health.failed(self.dialer.clock.instant());
            tracing::warn!(parent = %parent.name, %error, "a parent proxy is passed over for a while");
        } else if matches!(error, ParentError::Refused { .. }) {
            parent.health.answered();
        }
    }
}

fn why(error: &DialError) -> &'static str {
    match error {
        DialError::Failed(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "it refuses connections"
        }
        DialError::TimedOut => "it takes too long",
        DialError::Failed(_) | DialError::Parent(_) => "the connection failed",
    }
}

/// The private networks allowed for parents: all, except for the floor.
fn everywhere() -> [IpNet; 2] {
    [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    ]
}
