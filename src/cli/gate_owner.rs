//! Checks which user owns the process at the other end of a connection to a gate: a session token
//! is sent to no other user's process.
//!
//! A port of this host is not reserved: when a gate ends, or before it starts, any user can bind
//! its port. On Linux, `/proc` shows the owner of a local port; on other systems a local port is
//! trusted. The owner of a port on another host cannot be checked.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::config;

/// The database of users.
const USERS: &str = "/etc/passwd";

/// Fails if the other end of a connection to a local port is a process of another user.
pub(super) fn require_tcp(stream: &TcpStream, gate_user: Option<&str>) -> io::Result<()> {
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    if !cfg!(target_os = "linux") || !peer.ip().is_loopback() {
        return Ok(());
    }
    // The connection may wait to be accepted: then it has no owner yet, but its listener has.
    let mut owners = crate::identity::listener_users(peer);
    if owners.is_empty() {
        return Err(refused(&format!(
            "{peer} is no port of a process that this user can see"
        )));
    }
    owners.extend(crate::identity::client_user(peer, local));
    owners
        .into_iter()
        .try_for_each(|owner| require(owner, gate_user))
}

/// Fails if the other end of a connection to a socket in the file system is a process of another
/// user.
#[cfg(target_os = "linux")]
pub(super) fn require_unix(stream: &UnixStream, gate_user: Option<&str>) -> io::Result<()> {
    let peer = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?;
    require(peer.uid(), gate_user)
}

/// On other systems the mode of the socket is the only check.
#[cfg(not(target_os = "linux"))]
pub(super) fn require_unix(_stream: &UnixStream, _gate_user: Option<&str>) -> io::Result<()> {
    Ok(())
}

fn require(owner: u32, gate_user: Option<&str>) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let is_named = || gate_user.and_then(number).is_some_and(|user| user == owner);
    if owner == 0 || owner == own || is_named() {
        return Ok(());
    }
    Err(refused(&format!(
        "what answers is a process of user {owner}, neither this user's nor root's: where the gate \
         runs as that user, say --gate-user {owner} or set TIDEGATE_GATE_USER"
    )))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("the session token was not sent: {why}"),
    )
}

/// Returns the number of a user.
fn number(user: &str) -> Option<u32> {
    if let Ok(number) = user.parse() {
        return Some(number);
    }
    let text = config::read(Path::new(USERS)).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let named = fields.next() == Some(user);
        named.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_user_is_trusted_and_one_of_another_user_is_not() {
        let own = rustix::process::geteuid().as_raw();
        assert!(require(own, None).is_ok() && require(0, None).is_ok());
        let other = own.wrapping_add(4242);
        let why = require(other, None).unwrap_err().to_string();
        assert!(
            why.contains("not sent") && why.contains("--gate-user"),
            "{why}"
        );
        assert!(require(other, Some(&other.to_string())).is_ok());
        assert!(require(other, Some("no-such-user")).is_err());
        assert_eq!(number("root"), Some(0));
    }

    #[test]
    fn the_owner_of_a_local_port_is_found_before_and_after_the_connection_is_accepted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(require_tcp(&stream, None).is_ok());
        let accepted = listener.accept().unwrap();
        assert!(require_tcp(&stream, None).is_ok());
        drop(listener);
        let why = require_tcp(&stream, None).unwrap_err().to_string();
        assert!(why.contains("not sent"), "{why}");
        drop(accepted);
    }
}
