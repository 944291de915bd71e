//! Who is asking, and what showed it.

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

/// Who is asking, and what showed it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `ana@acme.example`; `None` where no user was identified.
    pub subject: Option<Arc<str>>,
    /// The caller as policy sees it.
    pub who: Who,
    /// Its repository and the evidence for it: without evidence it can only make the tier stricter.
    pub repository: Option<RepositorySaid>,
    /// The name of its tier.
    pub tier: Arc<str>,
    /// The names of its groups.
    pub groups: Arc<[Arc<str>]>,
    /// Its session: from verified evidence, else as it says itself.
    pub session: Option<Arc<str>>,
    /// The session that it is a child of, where it is one: that one has the evidence.
    pub root: Option<Arc<str>>,
    /// Its channel, likewise.
    pub channel: Option<Arc<str>>,
    /// What it says of itself.
    pub labels: Labels,
    /// What showed who it is.
    pub evidence: Evidence,
    /// How far its session is trusted.
    pub trust: Trust,
    /// What it works on.
    pub work: Arc<Work>,
    /// What is checked out where it works, where the gate can read it.
    pub head: Option<Arc<Head>>,
    /// The process that asks, where it is known.
    pub process: Option<Arc<Process>>,
    /// What else its tier came from.
    pub grounds: Option<Arc<TierGrounds>>,
    /// The caller as the shadow policy sees it, where there is one.
    pub beside: Option<Arc<Who>>,
}

/// The grounds of a caller's tier which its other fields do not show, on record so that a flow can
/// be judged again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TierGrounds {
    /// `tidegate.tier.given`: the strictest tier that the listener names or the session was narrowed
    /// to, where the caller has another.
    pub given: Option<Arc<str>>,
    /// `tidegate.tier.issued`: the tier that an issuer's token gives to the repository.
    pub issued: Option<Arc<str>>,
    /// `tidegate.repository.verified`: the repository that evidence shows, where the caller says
    /// that it works on another.
    pub verified: Option<Arc<str>>,
    /// `tidegate.repository.claimed`: the repositories that the caller only claims, where these are
    /// others than the one on record.
    pub claimed: Option<Box<[Arc<str>]>>,
    /// `tidegate.repository.hinted`: the repositories that count only where the policy lists them.
    pub hinted: Box<[Arc<str>]>,
}

/// What showed who a caller or its session is, the strongest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// A session token.
    Token,
    /// A token of a CI provider or another issuer (`OpenID` Connect).
    Oidc,
    /// A client certificate.
    Certificate,
    /// The listener is this caller's own.
    Listener,
    /// The process of an agent that its own hook registered.
    Process,
    /// A username: with the right secret, or only a label.
    Username,
    /// Nothing.
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

/// How far a statement about a caller is trusted: its session, its repository, its tool call.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Trust {
    /// The caller claims it without evidence.
    #[default]
    Asserted,
    /// Nothing is known.
    None,
    /// Evidence shows it.
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
    /// Where it connected.
    pub local: SocketAddr,
    /// The certificate that it proved to have.
    pub certificate: Option<Arc<Certificate>>,
    /// The session that this listener belongs to.
    pub grant: Option<Arc<Grant>>,
    /// The session of the agent whose process the client is, where its hook registered it.
    pub agent_session: Option<Arc<str>>,
    /// Whether the client is one that the listener is for.
    pub kin: Kin,
    /// The process, where it is on this host and was looked for.
    pub process: Option<Arc<Process>>,
}

impl Channel {
    /// A connection that shows nothing but its addresses.
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

/// What a caller presented, kept so that an open flow can be identified again under a new policy.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The listener's part.
    pub listener: Arc<Listener>,
    /// The connection's part.
    pub channel: Arc<Channel>,
    /// What was proved on it.
    pub proof: Proof,
    /// What it says of itself.
    pub labels: Labels,
}

/// What a caller proved with the credential that it presented.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A session token, or a token of an issuer.
    Grant(Arc<Grant>),
    /// It presented none, or only labels.
    None,
    /// The user whose secret was right, and the hash it was held against: a user whose secret
    /// changes has to show the new one.
    User(Arc<str>, SecretHash),
}

impl Presented {
    /// The grants that speak for the caller, the strongest first.
    pub(super) fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        let shown = match &self.proof {
            Proof::Grant(grant) => Some(grant),
            Proof::None | Proof::User(..) => None,
        };
        shown.into_iter().chain(&self.channel.grant)
    }

    /// From when on it has to be looked at anew. An issuer may withdraw its keys: always.
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

/// The address that stands for a client: a client can choose any address of this host, and any of
/// its IPv6 network (/64), as its own.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if six.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(six) => IpAddr::V6((u128::from(six) >> 64 << 64).into()),
        IpAddr::V4(four) if four.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(four) => four.into(),
    }
}

impl Caller {
    /// Whether evidence shows its session; a username only names one.
    pub fn is_shown(&self) -> bool {
        match self.evidence {
            Evidence::Listener => self.trust == Trust::Verified,
            evidence => matches!(evidence, Evidence::Process | Evidence::Token),
        }
    }

    /// The key for limits, for a client at `address`.
    pub fn key(&self, address: IpAddr) -> CallerKey {
        // Children count as where they come from: they would be a way round the limit.
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
