//! The decision: total, pure, allocation-free but for its answer.

use std::net::IpAddr;
use std::sync::Arc;

use crate::name::{Path, Target};

use super::compile::Policy;
use super::verdict::{Decision, Reason, TierBasis};

/// A tier, by its place in the order: 0 is the loosest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TierId(pub u8);

/// A group of the policy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct GroupId(pub u8);

/// A set of groups (at most 128 in a policy).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct GroupSet(pub u128);

/// The caller as policy sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Who {
    /// The tier, after the strictest of all evidence was taken.
    pub tier: TierId,
    /// What told the tier.
    pub tier_basis: TierBasis,
    /// The groups.
    pub groups: GroupSet,
    /// The clone URL without scheme, user and `.git`.
    pub repository: Option<Arc<str>>,
}

/// What is attempted.
#[derive(Clone, Copy, Debug)]
pub enum Attempt<'a> {
    /// A tunnel; what happens inside cannot be seen.
    Connect,
    /// A request that can be seen.
    Request {
        /// As on the wire: methods are case-sensitive.
        method: &'a str,
        /// The canonical path and query.
        path: &'a Path,
        /// Whether it asks for another protocol.
        upgrade: bool,
        /// Whether it goes over TLS (port 443 by default).
        tls: bool,
    },
}

/// Everything a decision may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who asks.
    pub who: &'a Who,
    /// Where to.
    pub target: &'a Target,
    /// What for.
    pub attempt: Attempt<'a>,
}

/// What the proxy itself occupies: part of the floor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Guard {
    /// Own listeners; an unspecified address stands for every interface.
    pub listeners: Vec<std::net::SocketAddr>,
    /// Addresses of own interfaces.
    pub interfaces: Vec<IpAddr>,
}

impl Policy {
    /// Decides one flow by its name: the floor, then deny, ask, allow, the tier's default.
    pub fn decide(&self, _query: &Query<'_>) -> Decision {
        todo!()
    }

    /// Judges an address that a name resolved to (or that was asked for literally), for a flow that
    /// `decision` lets pass: the floor's second half. `Err` says why it may not be dialled.
    pub fn judge_address(
        &self,
        _decision: &Decision,
        _address: IpAddr,
        _port: u16,
        _guard: &Guard,
    ) -> Result<(), Reason> {
        todo!()
    }
}
