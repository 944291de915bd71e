//! Connections to a service of the operator that the configuration names: the database of a ledger.

use std::io;

use tokio::net::TcpStream;

use crate::name::Host;

use super::{MAX_ADDRESSES, Resolver, keep_alive};

/// Connects to the first address of a host that answers. The operator chose the host and no caller
/// can, so every address may be dialled. The caller of this function has the deadline.
#[expect(clippy::disallowed_methods, reason = "this is the place that dials")]
pub async fn dial_service(resolver: &Resolver, host: &Host, port: u16) -> io::Result<TcpStream> {
    let addresses = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => resolver.resolve(name).await.map_err(io::Error::other)?,
    };
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                keep_alive(&stream);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
