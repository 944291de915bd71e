//! Makes every address local with two routes and an interface, by rtnetlink (rtnetlink(7)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NEW_LINK: u16 = 16;
const NEW_ROUTE: u16 = 24;
const ERROR: u16 = 2;
/// Flags of a request with an acknowledgement, and of one that also creates an object.
const ACKNOWLEDGED: u16 = 0x1 | 0x4;
const CREATE: u16 = ACKNOWLEDGED | 0x400;
/// Loopback is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
const UP: u32 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// Fields of a route: table of local addresses, written by an administrator, scope of this host,
/// local.
const TABLE_LOCAL: u8 = 255;
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_HOST: u8 = 254;
const TYPE_LOCAL: u8 = 2;
const OUT_INTERFACE: u16 = 4;

/// Starts the loopback interface and routes every address to it. Returns whether IPv6 is available.
pub(super) fn everything_is_local() -> io::Result<bool> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    ask(&socket, NEW_LINK, ACKNOWLEDGED, &link_up())?;
    ask(&socket, NEW_ROUTE, CREATE, &all_local(IPV4))?;
    match ask(&socket, NEW_ROUTE, CREATE, &all_local(IPV6)) {
        Ok(()) => Ok(true),
        // A kernel without IPv6 has no way out over IPv6 either.
        Err(error)
            if [Some(95), Some(97), Some(19)].contains(&error.raw_os_error())
                || !std::path::Path::new("/proc/net/if_inet6").exists() =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags.
fn link_up() -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body
}

/// `struct rtmsg` of a route to every address, and its interface.
fn all_local(family: u8) -> Vec<u8> {
    let mut body = vec![family, 0, 0, 0, TABLE_LOCAL, PROTOCOL_STATIC, SCOPE_HOST];
    body.push(TYPE_LOCAL);
    body.extend(0_u32.to_ne_bytes());
    body.extend(8_u16.to_ne_bytes());
    body.extend(OUT_INTERFACE.to_ne_bytes());
    body.extend(LOOPBACK.to_ne_bytes());
    body
}

/// Sends a request and waits for its acknowledgement.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port: only one request is open, and the kernel identifies the sender.
    message.extend([0; 8]);
    message.extend(body);
    send(socket, &message, SendFlags::empty())?;
    let mut answer = [0_u8; 1024];
    let (_, length) = recv(socket, &mut answer[..], RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let number = |at: usize| answer.get(at..at + 4)?.first_chunk::<4>().copied();
    let kind = answer.get(4..6).and_then(|kind| kind.first_chunk::<2>());
    if kind.copied().map(u16::from_ne_bytes) != Some(ERROR) {
        return Err(io::Error::other("an answer that is no acknowledgement"));
    }
    match number(16).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
