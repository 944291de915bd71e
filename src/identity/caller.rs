//! The caller of a flow, and its evidence.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{Listener, SecretHash};
use crate::policy::{CallerKey, Who};
use crate::vcs::Head;

use super::certificate::Certificate;
use super::grant::{Grant, Process, Work};
use super::process::Kin;
use super::{Labels, RepositorySaid};

/// The caller of a flow, and its evidence.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user, e.g. `ana@acme.example`; `None` if no user was identified.
    pub subject: Option<Arc<str>>,
    /// The caller, as the policy evaluates it.
    pub who: Who,
    /// The repository and its evidence: without evidence it can only make the tier stricter.
    pub repository: Option<RepositorySaid>,
    /// The name of its tier.
    pub tier: Arc<str>,
    /// The names of its groups.
    pub groups: Arc<[Arc<str>]>,
    /// The session: from verified evidence, else from the label.
    pub session: Option<Arc<str>>,
    /// The parent session, which has the evidence, if this session is a child.
    pub root: Option<Arc<str>>,
    /// The channel: from verified evidence, else from the label.
    pub channel: Option<Arc<str>>,
    /// The labels in the username.
    pub labels: Labels,
    /// The evidence for the caller.
    pub evidence: Evidence,
    /// The trust in the session.
    pub trust: Trust,
    /// The work of the session.
    pub work: Arc<Work>,
    /// The checked-out branch and commit, if the gate can read them.
    pub head: Option<Arc<Head>>,
    /// The client process, if known.
    pub process: Option<Arc<Process>>,
    /// Other grounds of the tier.
    pub grounds: Option<Arc<TierGrounds>>,
    /// The caller as the shadow policy evaluates it, if there is one.
    pub beside: Option<Arc<Who>>,
}

/// The grounds of a tier that the other fields do not contain; recorded so that a flow can be
/// decided again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TierGrounds {
    /// `tidegate.tier.given`: the strictest tier that the listener names or the session was narrowed
    /// to, where the caller has another.
    pub given: Option<Arc<str>>,
    /// `tidegate.tier.issued`: the tier that an issuer's token gives to the repository.
    pub issued: Option<Arc<str>>,
    /// `tidegate.repository.verified`: the repository with evidence, if the caller claims to work
    /// on another.
    pub verified: Option<Arc<str>>,
    /// `tidegate.repository.claimed`: the repositories that the caller only claims, other than the
    /// recorded one.
    pub claimed: Option<Box<[Arc<str>]>>,
    /// `tidegate.repository.hinted`: repositories that count only if the policy lists them.
    pub hinted: Box<[Arc<str>]>,
}

/// The evidence for a caller or its session, the strongest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// A session token.
    Token,
    /// A token of a CI provider or another issuer (`OpenID` Connect).
    Oidc,
    /// A client certificate.
    Certificate,
    /// A listener that belongs to this caller.
    Listener,
    /// The process of an agent, registered by its own hook.
    Process,
    /// A username, with the right secret or only as a label.
    Username,
    /// No evidence.
    None,
}

impl Evidence {
    /// `tidegate.session.evidence`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Listener => "listener",
            Self::None => "none",
            Self::Oidc => "oidc",
            Self::Process => "process",
            Self::Token => "token",
            Self::Username => "username",
        }
    }
}

/// The trust in a statement about a caller: its session, its repository, its tool call.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Trust {
    /// The caller claims it without evidence.
    #[default]
    Asserted,
    /// There is no statement.
    None,
    /// Evidence supports it.
    Verified,
}

impl Trust {
    /// `tidegate.session.trust`, `tidegate.repository.trust`, `tidegate.call.trust`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asserted => "asserted",
            Self::None => "none",
            Self::Verified => "verified",
        }
    }
}

/// The evidence of a connection, the same for each request on it.
#[derive(Clone, Debug)]
pub struct Channel {
    /// The client.
    pub peer: SocketAddr,
    /// The local address of the connection.
    pub local: SocketAddr,
    /// The verified client certificate.
    pub certificate: Option<Arc<Certificate>>,
    /// The session of this listener.
    pub grant: Option<Arc<Grant>>,
    /// The session of the agent whose process is the client, if its hook registered it.
    pub agent_session: Option<Arc<str>>,
    /// Whether the client process belongs to the listener's session.
    pub kin: Kin,
    /// The client process, if it is on this host and was searched for.
    pub process: Option<Arc<Process>>,
}

impl Channel {
    /// A connection without evidence except its addresses.
    pub fn plain(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            local,
            certificate: None,
            grant: None,
            agent_session: None,
            kin: Kin::Any,
            process: None,
        }
    }
}

/// The evidence of a caller, kept so that an open flow can be identified again under a new policy.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The listener.
    pub listener: Arc<Listener>,
    /// The connection.
    pub channel: Arc<Channel>,
    /// The verified credential.
    pub proof: Proof,
    /// The labels.
    pub labels: Labels,
}

/// The verified credential of a caller.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A session token, or a token of an issuer.
    Grant(Arc<Grant>),
    /// No credential, or only labels.
    None,
    /// The user, and the hash that its secret matched: after a change of the hash the user has to
    /// present the new secret.
    User(Arc<str>, SecretHash),
}

impl Presented {
    /// The grants of the caller, the strongest first.
    pub(super) fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        let shown = match &self.proof {
            Proof::Grant(grant) => Some(grant),
            Proof::None | Proof::User(..) => None,
        };
        shown.into_iter().chain(&self.channel.grant)
    }

    /// The time at which the evidence has to be verified again. A token of an issuer: always,
    /// because the issuer may withdraw its keys.
    pub fn until(&self) -> Option<Timestamp> {
        let certificate = self.channel.certificate.as_ref();
        let until = |grant: &Arc<Grant>| match grant.evidence {
            Evidence::Oidc => Some(Timestamp::MIN),
            _ => grant.expires,
        };
        self.grants()
            .filter_map(until)
            .chain(certificate.and_then(|certificate| certificate.expires))
            .min()
    }
}

/// The address by which a client is counted: a client can use any address of this host, and any of
/// its IPv6 network (/64).
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if six.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(six) => IpAddr::V6((u128::from(six) >> 64 << 64).into()),
        IpAddr::V4(four) if four.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(four) => four.into(),
    }
}

impl Caller {
    /// Whether the session has evidence; a username only names one.
    pub fn is_shown(&self) -> bool {
        match self.evidence {
            Evidence::Listener => self.trust == Trust::Verified,
            evidence => matches!(evidence, Evidence::Process | Evidence::Token),
        }
    }

    /// The key for limits of this caller, for a client at `address`.
    pub fn key(&self, address: IpAddr) -> CallerKey {
        // A child counts as its root session: otherwise children would evade the limit.
        let verified = self
            .session
            .as_ref()
            .filter(|_| self.trust == Trust::Verified);
        match (self.root.as_ref().or(verified), &self.subject) {
            (Some(session), _) => CallerKey::Session(session.clone()),
            (None, Some(subject)) => CallerKey::Subject(subject.clone()),
            (None, None) => CallerKey::Address(network_of(address)),
        }
    }
}
