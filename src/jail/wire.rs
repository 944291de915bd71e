//! What the gate and the helper say to each other: one JSON text a packet, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// The longest packet.
const LONGEST: usize = 64 * 1024;
/// The most descriptors in one: what Linux allows is 253.
pub(super) const MOST: usize = 200;

/// One packet.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Message {
    /// To the helper, with the command's standard input.
    Orders(Orders),
    /// From the helper, with the sockets: the proxy's, DNS over UDP, over TCP, then the local ones,
    /// then the captured.
    Ready {
        /// How many more listen on loopback alone.
        local: usize,
        /// How many listeners capture.
        captured: usize,
    },
    /// From the helper: the system forbids it.
    Forbidden { what: String, error: String },
    /// From the helper: a step failed.
    Failed(String),
    /// From the helper: the command does not begin.
    NoCommand {
        program: PathBuf,
        /// What the system said, by number.
        error: i32,
    },
    /// To the helper: everything listens.
    Go,
}

/// What the jail is like.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Orders {
    pub(super) ports: Vec<u16>,
    pub(super) proxy_port: u16,
    pub(super) local: Vec<u16>,
    pub(super) hide: Vec<PathBuf>,
}

/// Sends a packet.
pub(super) fn send(
    socket: impl std::os::fd::AsFd,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > LONGEST || descriptors.len() > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&text)], &mut control, flags)?;
    Ok(())
}

/// Receives a packet; none where the other side has closed.
pub(super) fn receive(
    socket: impl std::os::fd::AsFd,
) -> io::Result<(Option<Message>, Vec<OwnedFd>)> {
    let mut text = vec![0; LONGEST];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            // It ended with something of ours unread.
            Err(rustix::io::Errno::CONNRESET) => break 0,
            other => break other?.bytes,
        }
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = part {
            descriptors.extend(some);
        }
    }
    let text = text.get(..received).unwrap_or_default();
    let message = (!text.is_empty()).then(|| serde_json::from_slice(text));
    Ok((message.transpose()?, descriptors))
}
