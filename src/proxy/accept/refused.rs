//! Records the connections that a jail refuses because their port has no listener.
//!
//! Each destination is recorded once for a jail. The reason and the rule come from the policy. If
//! the policy would allow the destination, the reason is that no rule names the port, and so the
//! jail does not capture the port. The process is unknown: the kernel refused its connection before
//! the gate received the packet.
//!
//! On loopback the command may mean a server of its own that is still starting, or that listens
//! only at the other IP version's loopback address. Such a destination is recorded only if no
//! process in the jail listens at its port within a few seconds.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::gate::Asked;
use crate::jail::{PACKET_SIZE, RefusedConnection};
use crate::metrics::FlowKind;
use crate::name::{Host, Target};
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};

use super::capture::Names;
use super::tenant::Tenancy;

/// Remembered destinations, so that each is recorded once; also the limit of waiting destinations.
const MAX_REMEMBERED: usize = 4096;
/// How long a server on loopback may take to start.
const START_TIME: Duration = Duration::from_secs(5);
/// The interval of the checks whether a server on loopback listens.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Packets read at once, at most.
const MAX_READ: usize = 256;

/// The packet sockets of a jail.
pub(super) struct Packets(Vec<UdpSocket>);

/// Records refused connections.
pub(super) struct Watch {
    tenancy: Arc<Tenancy>,
    names: Arc<Names>,
    known: HashSet<Target>,
    /// Destinations not yet recorded, with the time at which their refusal is final.
    waiting: VecDeque<(Target, Instant)>,
    /// Whether a warning about unrecorded destinations was logged.
    has_warned: bool,
}

impl Packets {
    /// Must be called within the runtime.
    pub(super) fn new(sockets: Vec<std::net::UdpSocket>) -> io::Result<Self> {
        let sockets = sockets.into_iter().map(UdpSocket::from_std);
        sockets.collect::<io::Result<_>>().map(Self)
    }

    /// Waits for packets at the socket with this index; forever if there is no such socket.
    async fn receive(&self, number: usize) -> io::Result<Vec<SocketAddr>> {
        let Some(socket) = self.0.get(number) else {
            return std::future::pending().await;
        };
        socket.async_io(Interest::READABLE, || read(socket)).await
    }

    /// The packets not yet read, at shutdown.
    fn rest(&self) -> Vec<SocketAddr> {
        let rest = self.0.iter().map(|socket| read(socket).unwrap_or_default());
        rest.flatten().collect()
    }
}

/// The destinations of the available packets. Returns `WouldBlock` if there is none.
fn read(socket: &UdpSocket) -> io::Result<Vec<SocketAddr>> {
    let (mut found, mut packet) = (Vec::new(), [0; PACKET_SIZE]);
    for number in 0..MAX_READ {
        match rustix::net::recv(socket, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((_, length)) => {
                let packet = packet.get(..length.min(PACKET_SIZE));
                let refused = packet.and_then(RefusedConnection::parse);
                found.extend(refused.map(|it| it.destination));
            }
            Err(Errno::WOULDBLOCK) if number > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

impl Watch {
    pub(super) fn new(tenancy: Arc<Tenancy>, names: Arc<Names>) -> Self {
        Self {
            tenancy,
            names,
            known: HashSet::new(),
            waiting: VecDeque::new(),
            has_warned: false,
        }
    }

    /// Receives refused connections until shutdown begins, and then records the last ones.
    pub(super) async fn serve(mut self, packets: Packets) {
        let gate = self.tenancy.shared.gate.clone();
        loop {
            let now = gate.clock.instant();
            let due = self.waiting.front().map(|(_, due)| *due);
            let rest = due.map(|due| due.saturating_duration_since(now).min(LOOK_INTERVAL));
            let heard = tokio::select! {
                heard = packets.receive(0) => heard,
                heard = packets.receive(1) => heard,
                () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => Ok(Vec::new()),
                () = gate.draining.cancelled() => break,
            };
            match heard {
                Ok(heard) => heard.into_iter().for_each(|address| self.note(address)),
                // Such a socket fails only together with its network, which ends with the jail.
                Err(error) => {
                    tracing::warn!(%error, "refused connections of the jail are no longer recorded");
                    break;
                }
            }
            self.forget_own().await;
            self.record_due(Some(gate.clock.instant())).await;
        }
        packets.rest().into_iter().for_each(|it| self.note(it));
        self.record_due(None).await;
    }

    fn note(&mut self, destination: SocketAddr) {
        let target = Target {
            host: self.names.host(destination.ip().to_canonical()),
            port: destination.port(),
        };
        if self.known.contains(&target) {
            return;
        }
        if self.waiting.len() >= MAX_REMEMBERED {
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!(
                    "a command in the jail tries too many destinations at once: some refusals are not recorded"
                );
            }
            return;
        }
        if self.known.len() >= MAX_REMEMBERED {
            self.known.clear();
        }
        self.known.insert(target.clone());
        let now = self.tenancy.shared.gate.clock.instant();
        if is_loopback(&target) {
            self.waiting.push_back((target, now + START_TIME));
        } else {
            self.waiting.push_front((target, now));
        }
    }

    /// Removes waiting destinations on loopback at which a server in the jail now listens: the
    /// server belongs to the command, and may end later.
    async fn forget_own(&mut self) {
        let is_waiting = self.waiting.iter().any(|(target, _)| is_loopback(target));
        let Some(family) = self.tenancy.family.as_ref().filter(|_| is_waiting) else {
            return;
        };
        let ports = family.listening().await;
        let known = &mut self.known;
        self.waiting.retain(|(target, _)| {
            let own = is_loopback(target) && ports.contains(&target.port);
            if own {
                known.remove(target);
            }
            !own
        });
    }

    /// Records the destinations that are due; `None`: all of them.
    async fn record_due(&mut self, now: Option<Instant>) {
        while let Some((target, due)) = self.waiting.pop_front() {
            if now.is_some_and(|now| due > now) {
                self.waiting.push_front((target, due));
                return;
            }
            self.record(&target).await;
        }
    }

    async fn record(&self, target: &Target) {
        let tenancy = &self.tenancy;
        let snapshot = tenancy.shared.gate.snapshot.load_full();
        let Some(known) = tenancy.known(&snapshot, &tenancy.channel).await else {
            return;
        };
        let judge = |flow: &mut Flow| judge(flow, &known, target);
        tenancy
            .refuse(&known, FlowKind::Captured, target, judge)
            .await;
    }
}

/// The reason why a target is refused.
fn judge(flow: &mut Flow, known: &Known, target: &Target) -> Refusal {
    // No request for an approval: an approval would not capture the port.
    flow.is_own = true;
    let refusal = match flow.judge(known, target, &Asked::Connect) {
        Err(refusal) if refusal.code != Code::NeedsApproval => refusal,
        Ok(_) | Err(_) => Refusal::because(
            Code::PortDenied,
            "no rule names this port, so the jail does not capture it: write it in `to.ports`",
        ),
    };
    if !is_loopback(target) {
        return refusal;
    }
    refusal.with_detail(
        "nothing in the jail listens at this port; to reach a service of this machine, name it in \
         `[collector.NAME]`, `[mcp.NAME]` or a rule",
    )
}

fn is_loopback(target: &Target) -> bool {
    matches!(target.host, Host::Address(address) if address.is_loopback())
}
