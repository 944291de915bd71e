//! `[dial]`: how targets are reached.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::name::HostName;

/// How targets are reached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dial {
    /// Fixed answers, before DNS; guarded like any other answer.
    pub hosts: HashMap<HostName, Vec<IpAddr>>,
    /// Name servers instead of the system's (`resolvers = ["10.0.0.53:53"]`; port 53 if not said).
    pub resolvers: Vec<SocketAddr>,
}
