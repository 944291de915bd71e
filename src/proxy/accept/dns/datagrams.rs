//! Datagrams in a jail, where every address is local: the gate reads the destination of each query
//! and answers from that address. A client accepts an answer only from the server that it asked.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A UDP socket bound to every address.
pub(in crate::proxy) struct Datagrams(UdpSocket);

/// The source and the destination of a datagram.
pub(super) struct Way {
    peer: SockaddrStorage,
    asked: Asked,
}

enum Asked {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Datagrams {
    /// Must be called within the runtime; the socket must be non-blocking.
    pub(in crate::proxy) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        if socket.local_addr()?.is_ipv6() {
            // Without this option, IPv6 sends nothing from an address that only a route makes
            // local.
            SockRef::from(&socket).set_freebind_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        Ok(Self(UdpSocket::from_std(socket)?))
    }

    /// Receives a datagram into `buffer`; returns its length.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Way)> {
        let receive = || self.take(buffer);
        self.0.async_io(Interest::READABLE, receive).await
    }

    fn take(&self, buffer: &mut [u8]) -> io::Result<(usize, Way)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut told = nix::cmsg_space!(in_pktinfo, in6_pktinfo);
        let flags = MsgFlags::empty();
        let received = recvmsg(self.0.as_raw_fd(), &mut parts, Some(&mut told), flags)?;
        let asked = received.cmsgs()?.find_map(|told| match told {
            ControlMessageOwned::Ipv4PacketInfo(asked) => Some(Asked::V4(asked)),
            ControlMessageOwned::Ipv6PacketInfo(asked) => Some(Asked::V6(asked)),
            _ => None,
        });
        let way = received.address.zip(asked);
        let (peer, asked) = way.ok_or(io::ErrorKind::InvalidData)?;
        Ok((received.bytes, Way { peer, asked }))
    }

    /// Sends an answer to the source of a query, from the destination of that query.
    pub(super) async fn answer(&self, bytes: &[u8], way: &Way) -> io::Result<()> {
        let from = [match &way.asked {
            Asked::V4(asked) => ControlMessage::Ipv4PacketInfo(asked),
            Asked::V6(asked) => ControlMessage::Ipv6PacketInfo(asked),
        }];
        let (parts, flags) = ([IoSlice::new(bytes)], MsgFlags::empty());
        let send = || {
            Ok(sendmsg(
                self.0.as_raw_fd(),
                &parts,
                &from,
                flags,
                Some(&way.peer),
            )?)
        };
        self.0.async_io(Interest::WRITABLE, send).await?;
        Ok(())
    }
}

impl Way {
    /// The sender.
    pub(super) fn client(&self) -> Option<SocketAddr> {
        let four = self.peer.as_sockaddr_in();
        let four = four.map(|client| SocketAddr::V4((*client).into()));
        let six = self.peer.as_sockaddr_in6();
        four.or_else(|| Some(SocketAddr::V6((*six?).into())))
    }
}
