//! What the gate and the helper's stages say to each other: one JSON text a packet, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::promise::{Missing, Promise};
use super::view::View;

/// The longest packet.
const LONGEST: usize = 128 * 1024;
/// The most descriptors in one: what Linux allows is 253.
pub(super) const MOST: usize = 200;

/// One packet.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Message {
    /// From the first stage: the namespaces stand, but for those that this kernel does not give.
    Namespaces(Vec<Missing>),
    /// To the second stage, with its end of the lifeline.
    Orders(Box<Orders>),
    /// From the second stage, with the sockets: the proxy's, DNS over UDP, over TCP, then those that
    /// hear of refusals, the local ones, and the captured.
    Ready {
        /// How many packet sockets hear of refused connections.
        refused: usize,
        /// How many more listen on loopback alone.
        local: usize,
        /// How many listeners capture.
        captured: usize,
        /// What this kernel does not give.
        missing: Vec<Missing>,
        /// Whether the command gets a session of its own.
        own_session: bool,
    },
    /// From the third stage: it becomes the command when it is told to.
    Waiting,
    /// From a stage: the system forbids it.
    Forbidden { what: String, error: String },
    /// From a stage: a step failed.
    Failed(String),
    /// From the third stage: the command does not begin.
    NoCommand {
        program: PathBuf,
        /// What the system said, by number.
        error: i32,
    },
    /// To the third stage, with the command's standard input: everything listens.
    Go(Walls),
}

/// What the jail is like.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Orders {
    pub(super) ports: Vec<u16>,
    pub(super) proxy_port: u16,
    pub(super) local: Vec<u16>,
    pub(super) view: View,
}

/// What the command is restricted to, beside its namespaces.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Walls {
    /// Where it may write.
    pub(super) writable: Vec<PathBuf>,
    /// What this kernel does not give.
    pub(super) missing: Vec<Promise>,
    /// Whether it gets a session of its own.
    pub(super) own_session: bool,
}

/// A packet that was received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// `None` where the other side has closed.
    pub(super) message: Option<Message>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// The process that sent it, where the socket tells.
    pub(super) sender: Option<Pid>,
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
    let received = receive_from(socket)?;
    Ok((received.message, received.descriptors))
}

/// As [`receive`], with the sender.
pub(super) fn receive_from(socket: impl std::os::fd::AsFd) -> io::Result<Received> {
    let mut text = vec![0; LONGEST];
    let mut space =
        vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let why = "its helper did not answer in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            // It ended with something of ours unread.
            Err(rustix::io::Errno::CONNRESET) => break 0,
            other => break other?.bytes,
        }
    };
    let mut received = Received::default();
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(some) => received.descriptors.extend(some),
            RecvAncillaryMessage::ScmCredentials(sender) => received.sender = Some(sender.pid),
            _ => {}
        }
    }
    let text = text.get(..length).unwrap_or_default();
    if !text.is_empty() {
        received.message = Some(serde_json::from_slice(text)?);
    }
    Ok(received)
}
