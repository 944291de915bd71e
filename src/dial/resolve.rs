//! Names to addresses: fixed answers first, then DNS.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::Semaphore;

use crate::config;
use crate::name::HostName;

/// Concurrent look-ups, at most.
const AT_ONCE: usize = 256;

/// Resolves names; caches by TTL, within bounds.
pub struct Resolver {
    hosts: HashMap<HostName, Vec<IpAddr>>,
    servers: Vec<SocketAddr>,
    /// `None` if the system has no name servers: only fixed answers are used.
    dns: Option<TokioResolver>,
    turns: Semaphore,
}

/// The reason why a name has no address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// No name server is configured.
    #[error("no name server is configured")]
    NoServer,
    /// The name servers failed.
    #[error("the name servers failed")]
    ServerFailed,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
}

impl Resolver {
    /// Builds the resolver from `[dial]`; uses the system's name servers unless others are
    /// configured.
    pub fn new(dial: &config::Dial) -> Self {
        Self {
            hosts: dial.hosts.clone(),
            servers: dial.resolvers.clone(),
            dns: dns(&dial.resolvers),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Whether the resolver was built from the same section.
    pub fn is_for(&self, dial: &config::Dial) -> bool {
        self.hosts == dial.hosts && self.servers == dial.resolvers
    }

    /// The fixed answers for a name.
    pub(super) fn fixed(&self, name: &HostName) -> Option<&[IpAddr]> {
        self.hosts.get(name).map(Vec::as_slice)
    }

    /// Every address of a name.
    pub async fn resolve(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(fixed) = self.fixed(name) {
            return Ok(fixed.to_vec());
        }
        let dns = self.dns.as_ref().ok_or(ResolveError::NoServer)?;
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| ResolveError::ServerFailed)?;
        // The final dot prevents search domains: the decided name is the name looked up.
        let answer = dns
            .lookup_ip(format!("{name}.").as_str())
            .await
            .map_err(|error| {
                if error.is_no_records_found() {
                    ResolveError::NoAddress
                } else {
                    ResolveError::ServerFailed
                }
            })?;
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() {
            Err(ResolveError::NoAddress)
        } else {
            Ok(addresses)
        }
    }
}

fn dns(servers: &[SocketAddr]) -> Option<TokioResolver> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().ok()?
    } else {
        let servers = servers.iter().map(name_server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.attempts = 2;
    options.timeout = Duration::from_secs(2);
    // A long lifetime risks wrong answers; a zero lifetime costs one query for each flow.
    options.positive_min_ttl = Some(Duration::from_secs(1));
    options.positive_max_ttl = Some(Duration::from_mins(5));
    options.negative_max_ttl = Some(Duration::from_secs(30));
    builder.build().ok()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        let connection: &mut ConnectionConfig = connection;
        connection.port = address.port();
    }
    server
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}
