//! The messages between the gate and the helper's stages: one JSON text a packet, with descriptors.

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

/// Maximum length of a packet, in bytes.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// Maximum number of descriptors in a packet: Linux allows 253.
pub(super) const MAX_DESCRIPTORS: usize = 200;

/// One packet.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Message {
    /// From the first stage: the namespaces are made, except the missing ones.
    Namespaces(Vec<Missing>),
    /// To the second stage, with its end of the lifeline.
    Orders(Box<Orders>),
    /// From the second stage, with the sockets: the proxy's, DNS over UDP, over TCP, then the
    /// packet sockets for refused connections, the local ones, and the capturing ones.
    Ready {
        /// The number of packet sockets for refused connections.
        refused: usize,
        /// The number of further listeners on loopback alone.
        local: usize,
        /// The number of capturing listeners.
        captured: usize,
        /// The promises that this kernel does not support.
        missing: Vec<Missing>,
        /// Whether the command gets a separate session.
        own_session: bool,
    },
    /// From the third stage: it waits for `Go` to execute the command.
    Waiting,
    /// From a stage: the system forbids it.
    Forbidden { what: String, error: String },
    /// From a stage: a step failed.
    Failed(String),
    /// From the third stage: the command cannot be executed.
    NoCommand {
        program: PathBuf,
        /// The error number of the system.
        error: i32,
    },
    /// To the third stage, with the command's standard input: the gate serves every socket.
    Go(Walls),
}

/// The settings of the jail.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Orders {
    pub(super) ports: Vec<u16>,
    pub(super) proxy_port: u16,
    pub(super) local: Vec<u16>,
    pub(super) view: View,
}

/// The restrictions of the command, besides its namespaces.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Walls {
    /// The folders in which it may write.
    pub(super) writable: Vec<PathBuf>,
    /// The promises that this kernel does not support.
    pub(super) missing: Vec<Promise>,
    /// Whether the command gets a separate session.
    pub(super) own_session: bool,
}

/// A packet that was received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// `None` if the other side has closed.
    pub(super) message: Option<Message>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// The sending process, if the socket reports it.
    pub(super) sender: Option<Pid>,
}

/// Sends a packet.
pub(super) fn send(
    socket: impl std::os::fd::AsFd,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MAX_MESSAGE_BYTES || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&text)], &mut control, flags)?;
    Ok(())
}

/// Receives a packet; without a message if the other side has closed.
pub(super) fn receive(
    socket: impl std::os::fd::AsFd,
) -> io::Result<(Option<Message>, Vec<OwnedFd>)> {
    let received = receive_from(socket)?;
    Ok((received.message, received.descriptors))
}

/// Like [`receive`], with the sender.
pub(super) fn receive_from(socket: impl std::os::fd::AsFd) -> io::Result<Received> {
    let mut text = vec![0; MAX_MESSAGE_BYTES];
    let mut space = vec![
        MaybeUninit::uninit();
        rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))
    ];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let why = "its helper did not answer in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            // The other end closed with unread data from this side.
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
