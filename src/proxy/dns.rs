//! The jail's name server: it resolves nothing.
//!
//! A name that the policy could allow gets an address that stands for it; any other does not exist.
//! So nothing is asked outside before a verdict, and a name is no way to carry anything out.

mod message;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hashbrown::HashSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::gate::{Asked, Snapshot};
use crate::identity::Channel;
use crate::metrics::FlowKind;
use crate::name::{Host, HostName, Path, Target};
use crate::policy::{Attempt, Query, Reason, Verdict};

use super::Shared;
use super::capture::{Names, v4, v6};
use super::flow::{Flow, Known};
use message::{Answer, Kind, Question};

/// The longest question over UDP that is read.
const LONGEST: usize = 1500;
/// How long a client over TCP may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long accepting rests when the machine cannot.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Refused names that are remembered, so that a client that asks again leaves one record.
const REMEMBERED: usize = 4096;

/// What answers.
pub(super) struct Stub {
    shared: Arc<Shared>,
    names: Arc<Names>,
    /// The ports that are captured: a name that may be reached at none of them is not told.
    ports: Vec<u16>,
    channel: Arc<Channel>,
    refused: Mutex<HashSet<HostName>>,
}

impl Stub {
    pub(super) fn new(shared: Arc<Shared>, names: Arc<Names>, ports: Vec<u16>) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        let mut channel = Channel::plain(nowhere, nowhere);
        let tenant = shared.tenants.first().and_then(Option::as_ref);
        channel.grant = tenant.map(|tenant| tenant.grant.clone());
        Self {
            shared,
            names,
            ports,
            channel: Arc::new(channel),
            refused: Mutex::default(),
        }
    }

    /// The answer to a message; none where it is no question.
    async fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let question = Question::parse(message)?;
        let answer = match &question.name {
            Some(name) if question.is_internet => self.tell(name, question.kind).await,
            _ => Answer::NoSuchName,
        };
        Some(question.answer(&answer))
    }

    async fn tell(&self, name: &HostName, kind: Kind) -> Answer {
        let snapshot = self.shared.gate.snapshot.load_full();
        let Some(known) = self.known(&snapshot).await else {
            return Answer::Failed;
        };
        if !self.could_pass(&snapshot, &known, name) {
            return self.refuse(known, name).await;
        }
        match (kind, self.names.place(name)) {
            (_, None) => Answer::Failed,
            (Kind::A, Some(place)) => Answer::A(v4(place)),
            (Kind::Aaaa, Some(place)) => Answer::Aaaa(v6(place)),
            (Kind::Other, Some(_)) => Answer::Nothing,
        }
    }

    async fn known(&self, snapshot: &Snapshot) -> Option<Known> {
        let listener = self.shared.listeners.first().unwrap_or(&self.shared.nobody);
        let listener = snapshot.listener(listener);
        let presented = snapshot.identity.present(&listener, &self.channel, None);
        let presented = presented.await.ok()?;
        let caller = Arc::new(snapshot.caller(&presented)?);
        Some(Known {
            presented,
            caller,
            epoch: 0,
        })
    }

    /// Whether a connection to some captured port, or a request over it, could be let through.
    fn could_pass(&self, snapshot: &Snapshot, known: &Known, name: &HostName) -> bool {
        let Ok(path) = Path::parse(b"/") else {
            return false;
        };
        let request = Attempt::Request {
            method: "GET",
            path: &path,
            upgrade: false,
            tls: false,
        };
        self.ports.iter().any(|port| {
            let target = Target {
                host: Host::Name(name.clone()),
                port: *port,
            };
            let attempt = if *port == 80 {
                request
            } else {
                Attempt::Connect
            };
            let decision = snapshot.policy.decide(&Query {
                who: &known.caller.who,
                target: &target,
                attempt,
            });
            // Another path or method might pass.
            decision.verdict != Verdict::Deny || decision.reason == Reason::ActionDenied
        })
    }

    /// Puts a refused name on record, once.
    async fn refuse(&self, known: Known, name: &HostName) -> Answer {
        if !self.is_new(name) {
            return Answer::NoSuchName;
        }
        let begun = Flow::begin(&self.shared.gate, FlowKind::Dns, Ipv4Addr::LOCALHOST.into());
        let Ok(mut flow) = begun.await else {
            return Answer::Failed;
        };
        let target = Target {
            host: Host::Name(name.clone()),
            port: 443,
        };
        flow.aim(target.clone());
        flow.identified(&known.caller);
        if let Err(refusal) = flow.judge(&known, &target, &Asked::Connect) {
            flow.refuse(&refusal);
        } else {
            // Allowed at a port that is not captured.
            flow.refuse(&super::Refusal::because(
                super::Code::PortDenied,
                "no port of it is captured in this jail",
            ));
        }
        flow.facts.status = None;
        Answer::NoSuchName
    }

    fn is_new(&self, name: &HostName) -> bool {
        let mut refused = self
            .refused
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if refused.len() >= REMEMBERED {
            refused.clear();
        }
        refused.insert(name.clone())
    }
}

/// Answers questions over UDP, one after another: a client that asks faster is heard later.
pub(super) async fn serve(stub: Arc<Stub>, socket: UdpSocket) {
    let mut buffer = vec![0; LONGEST];
    let draining = stub.shared.gate.draining.clone();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = draining.cancelled() => return,
        };
        let Ok((length, peer)) = received else {
            continue;
        };
        let message = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = stub.answer(message).await {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

/// Answers questions over TCP.
pub(super) async fn serve_tcp(stub: Arc<Stub>, listener: TcpListener) {
    let gate = stub.shared.gate.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gate.draining.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(BACK_OFF).await;
            continue;
        };
        let Ok(turn) = stub.shared.connections.clone().try_acquire_owned() else {
            continue;
        };
        let stub = stub.clone();
        let draining = gate.draining.clone();
        gate.tasks.spawn(async move {
            tokio::select! {
                () = converse(&stub, stream) => {}
                () = draining.cancelled() => {}
            }
            drop(turn);
        });
    }
}

async fn converse(stub: &Stub, mut stream: TcpStream) {
    let mut next = async || tokio::time::timeout(PATIENCE, one_over_tcp(stub, &mut stream)).await;
    while let Ok(Some(())) = next().await {}
}

/// One question, after its length (RFC 1035 section 4.2.2).
async fn one_over_tcp(stub: &Stub, stream: &mut TcpStream) -> Option<()> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.ok()?;
    let answer = stub.answer(&message).await?;
    stream
        .write_u16(u16::try_from(answer.len()).ok()?)
        .await
        .ok()?;
    stream.write_all(&answer).await.ok()
}
