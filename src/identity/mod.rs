//! Who is asking: from the listener's configuration and from `Proxy-Authorization`.
//!
//! Tier, groups and repository come only from verified evidence or from the listener. What a
//! caller says of itself besides (session, channel, trace in the username) is a label: recorded as
//! `asserted`, never a grant.

mod basic;
mod label;

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{self, IdentityDemand, Listener, SecretHash};
use crate::policy::{Facts, Policy, Who};

pub use basic::Credentials;
pub use label::Labels;

/// Who is asking, and what showed it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `ana@acme.example`; `None` where nobody was identified.
    pub subject: Option<Arc<str>>,
    /// The caller as policy sees it.
    pub who: Who,
    /// The name of its tier.
    pub tier: Arc<str>,
    /// The names of its groups.
    pub groups: Arc<[Arc<str>]>,
    /// What it says of itself.
    pub labels: Labels,
    /// What showed who it is: `username`, `listener`, `none`.
    pub evidence: Evidence,
}

/// What showed who a caller or its session is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// The listener is this caller's own.
    Listener,
    /// Nothing.
    None,
    /// A username, with the right secret.
    Username,
}

impl Evidence {
    /// `tidegate.session.evidence`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::None => "none",
            Self::Username => "username",
        }
    }
}

impl Caller {
    /// `tidegate.session.trust`: a session that only a label names is asserted.
    pub fn trust(&self) -> &'static str {
        match (self.evidence, &self.labels.session) {
            (Evidence::None, None) => "none",
            (_, Some(_)) => "asserted",
            (Evidence::Listener | Evidence::Username, None) => "verified",
        }
    }
}

/// What a caller presented, kept so that an open flow can be identified again under a new policy.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The listener's part.
    pub listener: Arc<Listener>,
    /// The user whose secret was right, where there was one, and the hash it was held against: a
    /// user whose secret changes has to show the new one.
    pub user: Option<(Arc<str>, SecretHash)>,
    /// What it says of itself.
    pub labels: Labels,
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// The credential is malformed, unknown or wrong; which of them is not said.
    #[error("the proxy credential is not valid")]
    Invalid,
    /// The listener requires a credential.
    #[error("this listener requires a proxy credential")]
    Required,
}

/// Tells callers apart, for one generation.
#[derive(Debug)]
pub struct Identity {
    credentials: Arc<Credentials>,
}

impl Identity {
    /// Builds from `[identity]`; `credentials` may be that of an earlier generation, whose cache of
    /// verified secrets is then kept.
    pub fn new(config: &config::Identity, before: Option<&Self>) -> Self {
        let credentials = match before {
            Some(before) if before.credentials.same_users(config) => before.credentials.clone(),
            _ => Arc::new(Credentials::new(config)),
        };
        Self { credentials }
    }

    /// Verifies what a caller presents. A credential that is presented must be right, whether or
    /// not the listener requires one.
    pub async fn present(
        &self,
        listener: &Arc<Listener>,
        authorization: Option<&[u8]>,
    ) -> Result<Presented, IdentityError> {
        match authorization {
            None if listener.identity == IdentityDemand::Required => Err(IdentityError::Required),
            None => Ok(Presented {
                listener: listener.clone(),
                user: None,
                labels: Labels::default(),
            }),
            Some(value) => self.credential(listener, value).await,
        }
    }

    async fn credential(
        &self,
        listener: &Arc<Listener>,
        value: &[u8],
    ) -> Result<Presented, IdentityError> {
        let (username, secret) = basic::decode(value).ok_or(IdentityError::Invalid)?;
        let (user, labels) = label::split(&username);
        // Without any user to know, a username can only be a label: agents put their session there.
        if self.credentials.is_empty() && listener.identity == IdentityDemand::Optional {
            return Ok(Presented {
                listener: listener.clone(),
                user: None,
                labels,
            });
        }
        let user = self
            .credentials
            .verify(user, secret)
            .await
            .ok_or(IdentityError::Invalid)?;
        Ok(Presented {
            listener: listener.clone(),
            user: Some(user),
            labels,
        })
    }

    /// Makes a caller of what was presented, as this generation's policy sees it. `None` where the
    /// user is no longer known.
    pub fn caller(&self, presented: &Presented, policy: &Policy) -> Option<Caller> {
        let listener = &presented.listener;
        let user = match &presented.user {
            Some((name, secret)) => Some(
                self.credentials
                    .user(name)
                    .filter(|user| user.secret == *secret)?,
            ),
            None => None,
        };
        let subject = user.map(|user| &user.name).or(listener.user.as_ref());
        let groups: Vec<Arc<str>> = listener
            .groups
            .iter()
            .chain(user.map(|user| user.groups.as_slice()).unwrap_or_default())
            .cloned()
            .collect();
        let who = policy.who(&Facts {
            subject: subject.map_or("", |subject| subject),
            claims: &[],
            sans: &[],
            groups: &groups,
            repository: user
                .and_then(|user| user.repository.as_ref())
                .or(listener.repository.as_ref()),
            listener_tier: listener.tier.as_deref(),
        });
        Some(Caller {
            subject: subject.cloned(),
            tier: policy.tier_name(who.tier).clone(),
            groups: policy.group_names(who.groups).cloned().collect(),
            who,
            labels: presented.labels.clone(),
            evidence: evidence(presented),
        })
    }
}

fn evidence(presented: &Presented) -> Evidence {
    let listener = &presented.listener;
    if presented.user.is_some() || presented.labels.session.is_some() {
        Evidence::Username
    } else if listener.user.is_some() || listener.repository.is_some() || listener.tier.is_some() {
        Evidence::Listener
    } else {
        Evidence::None
    }
}

/// What the limit on flows of one caller counts by: the user, or the address without one.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum CallerKey {
    /// Nobody was identified.
    Address(IpAddr),
    /// A user.
    Subject(Arc<str>),
}

impl Caller {
    /// The key for limits, for a client at `address`.
    pub fn key(&self, address: IpAddr) -> CallerKey {
        match &self.subject {
            Some(subject) => CallerKey::Subject(subject.clone()),
            None => CallerKey::Address(address),
        }
    }
}
