//! `[mcp.NAME]`: the MCP servers that rules may name.

use std::net::IpAddr;
use std::sync::Arc;

use crate::name::{Host, Path, Target};

use super::pattern::HostPattern;

/// A server, by its index in the text.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct ServerId(u16);

/// A server that rules may name.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: Arc<str>,
    pub(super) target: Target,
    /// The same port, as a list.
    pub(super) ports: [u16; 1],
    pub(super) path: Path,
    /// Whether the server is reached without TLS, on a loopback address of this machine.
    pub(super) is_plain: bool,
    /// `policy/mcp.toml:3`.
    pub(super) location: Box<str>,
}

/// All listed servers.
#[derive(Debug, Default)]
pub(super) struct Servers(pub(super) Vec<Server>);

impl Servers {
    pub(super) fn get(&self, id: ServerId) -> Option<&Server> {
        self.0.get(usize::from(id.0))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Server> {
        self.0.iter()
    }

    pub(super) fn find(&self, name: &str) -> Option<ServerId> {
        let at = self.0.iter().position(|server| *server.name == *name)?;
        u16::try_from(at).ok().map(ServerId)
    }

    /// Returns the first server at the target of a server.
    pub(super) fn site(&self, id: ServerId) -> ServerId {
        self.get(id)
            .and_then(|server| self.at(&server.target))
            .unwrap_or(id)
    }

    /// Returns the first server at a target.
    pub(super) fn at(&self, target: &Target) -> Option<ServerId> {
        self.matching(|server| server.target == *target)
    }

    /// Whether a server without TLS is at a target.
    pub(super) fn is_plain_at(&self, target: &Target) -> bool {
        self.0
            .iter()
            .any(|server| server.is_plain && server.target == *target)
    }

    /// Returns the server with this endpoint; the query is ignored.
    pub(super) fn endpoint(&self, target: &Target, path: &Path) -> Option<ServerId> {
        self.matching(|server| server.target == *target && server.path.path() == path.path())
    }

    /// Returns the server whose endpoint some server reads in this path, in any spelling
    /// ([`Path::readings`]).
    pub(super) fn alike(&self, target: &Target, path: &Path) -> Option<ServerId> {
        let readings = path.readings();
        let shares = |of: &Path| of.readings().iter().any(|it| readings.contains(it));
        self.matching(|server| server.target == *target && shares(&server.path))
    }

    fn matching(&self, matches: impl Fn(&Server) -> bool) -> Option<ServerId> {
        let at = self.0.iter().position(matches)?;
        u16::try_from(at).ok().map(ServerId)
    }
}

impl Server {
    /// Returns the loopback address that an allow for this server grants.
    pub(super) fn loopback(&self) -> Option<IpAddr> {
        match self.target.host {
            Host::Address(address) if self.is_plain => Some(address),
            _ => None,
        }
    }

    /// Returns the host as a pattern of a rule.
    pub(super) fn pattern(&self) -> HostPattern {
        match &self.target.host {
            Host::Name(name) => HostPattern::Exact(name.clone()),
            Host::Address(address) => HostPattern::Network((*address).into()),
        }
    }
}
