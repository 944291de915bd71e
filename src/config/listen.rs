//! `[listen]` and `[[listener]]`: where callers and operators connect.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Where callers and operators connect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    /// Every http:// proxy listener: `listen.proxy`, then each `[[listener]]`.
    pub proxy: Vec<Listener>,
    /// Health, metrics, API; `None`: no admin listener. Never reachable through the proxy.
    pub admin: Option<AdminAddress>,
}

/// One http:// proxy listener and what it says of its callers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The address to bind.
    pub address: SocketAddr,
    /// The loosest tier its callers may have.
    pub tier: Option<Arc<str>>,
    /// Who calls here, where it is always the same.
    pub user: Option<Arc<str>>,
    /// The groups of its callers.
    pub groups: Vec<Arc<str>>,
    /// The repository of its callers.
    pub repository: Option<Arc<str>>,
    /// Whether a caller has to say who it is.
    pub identity: IdentityDemand,
}

/// Whether a caller has to say who it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IdentityDemand {
    /// It may; what it says must then be right.
    #[default]
    Optional,
    /// It must: 407 otherwise.
    Required,
}

/// The admin listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdminAddress {
    /// TCP; keep it on loopback.
    Tcp(SocketAddr),
    /// `unix:PATH`, mode 0600.
    Unix(PathBuf),
}
