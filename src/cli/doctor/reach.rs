//! Tests whether any target is reachable without the proxy.
//!
//! Only a target that answers counts as reached. A refusal may come from a filter or from the
//! target, so the default targets are ones that answer. An address of this machine itself (in the
//! jail, every address) leads to the gate, not out.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::cli::admin;

use super::Targets;
use super::report::Item;

const PATIENCE: Duration = Duration::from_secs(2);
/// The DNS query for the address of `example.com`, with the id 0x7464.
const QUERY: &[u8] = b"\x74\x64\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
    \x07example\x03com\x00\x00\x01\x00\x01";

/// The result of an attempt.
enum Outcome {
    Reached,
    /// The address belongs to this machine.
    Stays,
    Not(io::Error),
}

type Attempt = fn(SocketAddr) -> io::Result<Outcome>;

/// Tries all targets concurrently.
pub(super) fn look(targets: &Targets) -> Vec<Item> {
    let mut all: Vec<(&'static str, SocketAddr, Attempt)> = Vec::new();
    let mut add = |probe, targets: &[SocketAddr], attempt: Attempt| {
        all.extend(targets.iter().map(|target| (probe, *target, attempt)));
    };
    add("tcp", &targets.tcp, tcp);
    add("udp", &targets.udp, quic);
    add("dns", &targets.dns, dns);
    add("ipv6", &targets.ipv6, tcp);
    add("metadata", &targets.metadata, tcp);
    thread::scope(|scope| {
        let tried: Vec<_> = all
            .iter()
            .map(|(probe, target, attempt)| scope.spawn(|| item(probe, *target, *attempt)))
            .collect();
        let ended = tried.into_iter().filter_map(|tried| tried.join().ok());
        ended.collect()
    })
}

fn item(probe: &'static str, target: SocketAddr, attempt: Attempt) -> Item {
    let subject = format!("{probe} {target}");
    match attempt(target).unwrap_or_else(Outcome::Not) {
        Outcome::Reached => {
            Item::open("reach", subject, "reached without the proxy").fix(fix(probe))
        }
        Outcome::Stays => Item::fine("reach", subject, "stays on this machine"),
        Outcome::Not(error) => {
            let error = admin::spoken(error, PATIENCE);
            Item::fine("reach", subject, format!("contained: {error}"))
        }
    }
    .probe(probe)
}

fn fix(probe: &str) -> &'static str {
    match probe {
        "metadata" => "block the route: ip route add blackhole 169.254.169.254/32",
        "dns" => "run the agent in `tidegate exec --jail`, or let only the gate's user ask port 53",
        "ipv6" => "filter ip6 as ip (nft: table inet), or sysctl net.ipv6.conf.all.disable_ipv6=1",
        _ => {
            "run the agent in `tidegate exec --jail`, on a network without a route \
             (deploy/compose.yaml), or behind a firewall rule for its user"
        }
    }
}

/// Whether a connected socket leads only to this machine, although the target is not loopback.
fn stays(local: SocketAddr, target: SocketAddr) -> bool {
    !target.ip().is_loopback() && (local.ip() == target.ip() || local.ip().is_loopback())
}

fn tcp(target: SocketAddr) -> io::Result<Outcome> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    if stays(stream.local_addr()?, target) {
        return Ok(Outcome::Stays);
    }
    Ok(Outcome::Reached)
}

/// Returns a connected datagram socket; `None` if the address belongs to this machine.
fn datagram(target: SocketAddr) -> io::Result<Option<UdpSocket>> {
    let any = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok((!stays(socket.local_addr()?, target)).then_some(socket))
}

/// Sends a long header of an unused version: a QUIC server answers with its versions (RFC 9000,
/// 6.1).
fn quic(target: SocketAddr) -> io::Result<Outcome> {
    let Some(socket) = datagram(target)? else {
        return Ok(Outcome::Stays);
    };
    let mut packet = b"\xc0\x1a\x2a\x3a\x4a\x08tidegate\x08tidegate".to_vec();
    packet.resize(1200, 0);
    socket.send(&packet)?;
    let mut answer = [0; 1500];
    socket.recv(&mut answer)?;
    Ok(Outcome::Reached)
}

fn dns(target: SocketAddr) -> io::Result<Outcome> {
    match dns_by_datagram(target) {
        Err(_) | Ok(Outcome::Not(_)) => dns_by_stream(target),
        done => done,
    }
}

fn dns_by_datagram(target: SocketAddr) -> io::Result<Outcome> {
    let Some(socket) = datagram(target)? else {
        return Ok(Outcome::Stays);
    };
    socket.send(QUERY)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    Ok(judged(answer.get(..length).unwrap_or_default()))
}

fn dns_by_stream(target: SocketAddr) -> io::Result<Outcome> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    if stays(stream.local_addr()?, target) {
        return Ok(Outcome::Stays);
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[0, u8::try_from(QUERY.len()).unwrap_or_default()])?;
    stream.write_all(QUERY)?;
    let mut answer = [0; 14];
    stream.read_exact(&mut answer)?;
    Ok(judged(answer.get(2..).unwrap_or_default()))
}

/// A resolver that refuses or fails is no way out; one that answers is, even with "no such name".
fn judged(answer: &[u8]) -> Outcome {
    match answer {
        [0x74, 0x64, flags, more, ..] if flags & 0x80 != 0 && matches!(more & 0xf, 0 | 3) => {
            Outcome::Reached
        }
        _ => Outcome::Not(io::Error::other("the resolver does not resolve names")),
    }
}
