//! Connections in a jail that no listener accepts.
//!
//! A port without a listener refuses at once, without notice to the gate: a port that is not
//! captured, or a service of this machine on 127.0.0.1, which is the jail's own address there. So
//! two packet sockets (packet(7)) inside, one for each version of IP, receive only the kernel's
//! answers to such connections: a classic BPF filter passes only a reset with the sequence number 0
//! (RFC 9293 section 3.10.7.1). No process of the command can forge one, because that needs
//! `CAP_NET_RAW`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Protocols of Ethernet: IPv4 and IPv6.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// The number of TCP in an IP header.
const TCP: u8 = 6;
/// The compared flags: ACK, RST, SYN, FIN; and those of a reset that answers a SYN.
const FLAGS: u32 = 0x17;
const RESET: u32 = 0x14;
/// Maximum bytes of a packet: the IP header with options, and the TCP header.
pub const PACKET_SIZE: usize = 128;
/// The same, for the filter.
const KEPT: u32 = 128;
const _: () = assert!(PACKET_SIZE >= 128, "a packet that is kept fits");
/// Length of the IPv6 header without extensions: the kernel's answers have none.
const IPV6_HEADER: usize = 40;

/// Instructions of the filter (`linux/bpf_common.h`).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD_AT_X: u16 = 0x40;
const LOAD_BYTE_AT_X: u16 = 0x50;
const X_IS_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Makes the sockets, in the network of this process. Without IPv6 there is only one.
pub(super) fn sockets(ipv6: bool) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = vec![socket(IPV4, &filter_v4())?];
    if ipv6 {
        sockets.push(socket(IPV6, &filter_v6())?);
    }
    Ok(sockets)
}

/// Makes a packet socket whose packets begin at the IP header.
fn socket(protocol: u16, filter: &[SockFilter]) -> io::Result<OwnedFd> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
    socket.attach_filter(filter)?;
    Ok(socket.into())
}

fn filter_v4() -> [SockFilter; 12] {
    let on = SockFilter::new;
    [
        on(LOAD_BYTE, 0, 0, 9),
        on(IF_EQUAL, 0, 9, TCP.into()),
        on(LOAD_HALF, 0, 0, 6),
        // Only the first fragment has a TCP header.
        on(IF_BITS, 7, 0, 0x1fff),
        on(X_IS_HEADER_LENGTH, 0, 0, 0),
        on(LOAD_BYTE_AT_X, 0, 0, 13),
        on(AND, 0, 0, FLAGS),
        on(IF_EQUAL, 0, 3, RESET),
        on(LOAD_WORD_AT_X, 0, 0, 4),
        on(IF_EQUAL, 0, 1, 0),
        on(RETURN, 0, 0, KEPT),
        on(RETURN, 0, 0, 0),
    ]
}

fn filter_v6() -> [SockFilter; 9] {
    let on = SockFilter::new;
    [
        on(LOAD_BYTE, 0, 0, 6),
        on(IF_EQUAL, 0, 6, TCP.into()),
        on(LOAD_BYTE, 0, 0, 53),
        on(AND, 0, 0, FLAGS),
        on(IF_EQUAL, 0, 3, RESET),
        on(LOAD_WORD, 0, 0, 44),
        on(IF_EQUAL, 0, 1, 0),
        on(RETURN, 0, 0, KEPT),
        on(RETURN, 0, 0, 0),
    ]
}

/// A refused connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RefusedConnection {
    /// The destination of the connection.
    pub destination: SocketAddr,
    /// The client's end.
    pub client: SocketAddr,
}

impl RefusedConnection {
    /// Parses the kernel's answer that refuses a connection: its sender is the destination of the
    /// connection. `None` for any other packet, because one may have arrived before the filter was
    /// set.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        parse(packet)
    }
}

fn parse(packet: &[u8]) -> Option<RefusedConnection> {
    let bytes = |from: usize, to: usize| packet.get(from..to);
    let first = *packet.first()?;
    let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match first >> 4 {
        4 if *packet.get(9)? == TCP => {
            let address = |at: usize| Some(Ipv4Addr::from(*bytes(at, at + 4)?.first_chunk()?));
            let header = usize::from(first & 0xf) * 4;
            (
                address(12)?.into(),
                address(16)?.into(),
                packet.get(header..)?,
            )
        }
        6 if *packet.get(6)? == TCP => {
            let address = |at: usize| Some(Ipv6Addr::from(*bytes(at, at + 16)?.first_chunk()?));
            (
                address(8)?.into(),
                address(24)?.into(),
                packet.get(IPV6_HEADER..)?,
            )
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..at + 2)?.first_chunk()?));
    let is_reset = u32::from(*tcp.get(13)?) & FLAGS == RESET && tcp.get(4..8)? == [0; 4];
    Some(RefusedConnection {
        destination: SocketAddr::new(from, port(0)?),
        client: SocketAddr::new(to, port(2)?),
    })
    .filter(|_| is_reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the header of a TCP segment from port 8443 to port 40000.
    fn segment(flags: u8, sequence: u32) -> Vec<u8> {
        let mut segment = [8443_u16.to_be_bytes(), 40000_u16.to_be_bytes()].concat();
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 1, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        segment
    }

    fn v4(flags: u8, sequence: u32) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet.extend([192, 0, 2, 7, 127, 0, 0, 1]);
        packet.extend(segment(flags, sequence));
        packet
    }

    #[test]
    fn a_reset_that_answers_a_first_segment_says_who_was_refused() {
        let refused = parse(&v4(0x14, 0)).unwrap();
        assert_eq!(refused.destination, "192.0.2.7:8443".parse().unwrap());
        assert_eq!(refused.client, "127.0.0.1:40000".parse().unwrap());
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        packet.extend(segment(0x14, 0));
        let refused = parse(&packet).unwrap();
        assert_eq!(refused.destination, "[::1]:8443".parse().unwrap());
    }

    #[test]
    fn any_other_packet_is_none() {
        // A broken connection, a SYN, an acknowledged SYN, an acknowledged FIN, and a truncated
        // segment.
        for (flags, sequence) in [(0x14, 7), (0x04, 0), (0x02, 0), (0x12, 0), (0x11, 0)] {
            assert_eq!(parse(&v4(flags, sequence)), None, "{flags:#x} {sequence}");
        }
        let whole = v4(0x14, 0);
        for length in 0..34 {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        let mut udp = whole;
        udp[9] = 17;
        assert_eq!(parse(&udp), None);
    }
}
