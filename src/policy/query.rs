//! One query to the policy: the caller, the destination and the attempt.

use std::sync::Arc;

use crate::name::{Path, Target};

use super::facts::RequestFacts;
use super::verdict::TierBasis;
use super::within::Within;

/// A tier, by its index in the order: 0 is the loosest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TierId(pub u8);

/// A group of the policy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct GroupId(pub u8);

/// A set of groups (at most 128 in a policy).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct GroupSet(pub u128);

/// The caller in the form that the policy uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Who {
    /// The tier: the strictest that any evidence gives.
    pub tier: TierId,
    /// The evidence for the tier.
    pub tier_basis: TierBasis,
    /// The groups.
    pub groups: GroupSet,
    /// The verified user name, e.g. `ana@acme.example`.
    pub subject: Option<Arc<str>>,
    /// The verified repository: its clone URL without scheme, user and `.git`.
    pub repository: Option<Arc<str>>,
    /// Repositories that the caller only claims. They match a deny or an ask, never an allow.
    pub claimed: Vec<Arc<str>>,
    /// Whether refusals are enforced although the tier observes: the session was narrowed to it
    /// from a tier that enforces.
    pub enforced: bool,
    /// The most that the session may reach, if its evidence limits it.
    pub within: Option<Arc<Within>>,
    /// The session in the caller's token.
    pub session: Option<SessionEvidence>,
}

/// The session of a caller, from its token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionEvidence {
    /// The id of the session.
    pub id: Arc<str>,
    /// The root session, if the session is a child.
    pub root: Option<Arc<str>>,
    /// Whether evidence showed who started the session; otherwise the session only asserts it.
    pub verified: bool,
}

/// The attempt.
#[derive(Clone, Copy, Debug)]
pub enum Attempt<'a> {
    /// A tunnel. The requests inside are not seen yet, or never.
    Connect,
    /// A request in plain HTTP, or inside an inspected tunnel.
    Request {
        /// As sent: methods are case-sensitive.
        method: &'a str,
        /// The canonical path and query.
        path: &'a Path,
        /// Whether the request asks for another protocol (`Upgrade`).
        upgrade: bool,
        /// Whether the request goes over TLS (port 443 by default).
        tls: bool,
        /// The request facts; `None`: the policy reads them from the head.
        request_facts: Option<&'a RequestFacts>,
    },
}

/// All inputs of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The caller.
    pub who: &'a Who,
    /// The destination.
    pub target: &'a Target,
    /// The attempt.
    pub attempt: Attempt<'a>,
}

impl TierId {
    pub(super) fn bit(self) -> u16 {
        1_u16.checked_shl(u32::from(self.0)).unwrap_or_default()
    }
}

impl GroupId {
    pub(super) fn bit(self) -> u128 {
        1_u128.checked_shl(u32::from(self.0)).unwrap_or_default()
    }
}

impl GroupSet {
    /// Adds a group.
    pub fn insert(&mut self, group: GroupId) {
        self.0 |= group.bit();
    }

    /// Whether a group is in the set.
    pub fn contains(self, group: GroupId) -> bool {
        self.0 & group.bit() != 0
    }

    pub(super) fn ids(self) -> impl Iterator<Item = GroupId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = u8::try_from(left.trailing_zeros()).ok();
            let first = first.filter(|_| left != 0)?;
            left &= left - 1;
            Some(GroupId(first))
        })
    }
}

impl Attempt<'_> {
    /// Returns the default port: 80 for plain HTTP, otherwise 443.
    pub(super) fn default_port(&self) -> u16 {
        match self {
            Self::Request { tls: false, .. } => 80,
            Self::Connect | Self::Request { .. } => 443,
        }
    }
}
