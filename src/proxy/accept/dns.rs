//! The name server of a jail: it sends no query to the outside.
//!
//! A name that the policy could allow gets a placeholder address; any other name does not exist. No
//! query leaves the machine before a verdict, so that names cannot carry data out.

mod datagrams;
mod message;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::gate::{Asked, Delay, RATE_LIMIT_DELAY, Snapshot};
use crate::identity::{Channel, Refused};
use crate::metrics::FlowKind;
use crate::name::{Host, HostName, Path, Target};
use crate::policy::{Attempt, Query, Reason, Verdict};
use crate::proxy::Shared;
use crate::proxy::attribution;
use crate::proxy::flow::Known;
use crate::proxy::refusal::{Code, Refusal};

use super::admission::Seat;
use super::canonical;
use super::capture::{Names, v4, v6};
use super::tenant::{Outcome, Tenancy};
pub(in crate::proxy) use datagrams::Datagrams;
use message::{Answer, Kind, Question};

/// Bytes of a question over UDP, at most.
const MAX_MESSAGE_BYTES: usize = 1500;
/// How long a client over TCP may be idle.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after a failed accept.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Refused names that are remembered, so that a repeated query is recorded once.
const REMEMBERED: usize = 4096;

/// The client of a query, and its transport.
#[derive(Clone, Copy)]
enum Asker {
    Datagram(SocketAddr),
    Stream(SocketAddr, SocketAddr),
}

/// The answer about a name, and its delay.
struct Told {
    answer: Answer,
    /// Set if the caller is over its rate of refusals: the slot of a delayed answer.
    delay: Option<Delay>,
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        let delay = None;
        Self { answer, delay }
    }
}

/// The reply to a query.
struct Reply {
    message: Vec<u8>,
    delay: Option<Delay>,
}

/// Answers the queries of a jail.
pub(super) struct Stub {
    shared: Arc<Shared>,
    names: Arc<Names>,
    /// The captured ports: a name that can be reached at none of them does not exist.
    ports: Vec<u16>,
    /// The session of the jail's processes.
    tenancy: Arc<Tenancy>,
    /// Names whose refusal is recorded, with the report for agents.
    refused: Mutex<HashMap<HostName, Refused>>,
}

impl Stub {
    pub(in crate::proxy) fn new(tenancy: Arc<Tenancy>, names: Arc<Names>, ports: Vec<u16>) -> Self {
        Self {
            shared: tenancy.shared.clone(),
            names,
            ports,
            tenancy,
            refused: Mutex::default(),
        }
    }

    /// The answer to a message; `None` if the message is no question.
    async fn answer(&self, message: &[u8], asker: Asker) -> Option<Reply> {
        let question = Question::parse(message)?;
        let told = match &question.name {
            Some(name) if question.is_internet => self.tell(name, question.kind, asker).await,
            _ => Answer::NoSuchName.into(),
        };
        Some(Reply {
            message: question.answer(&told.answer),
            delay: told.delay,
        })
    }

    /// Waits before a delayed answer is sent, and releases its slot.
    async fn hold_back(&self, delay: Option<Delay>) {
        let Some(_delay) = delay else { return };
        tokio::select! {
            () = tokio::time::sleep(RATE_LIMIT_DELAY) => {}
            () = self.shared.gate.draining.cancelled() => {}
        }
    }

    async fn tell(&self, name: &HostName, kind: Kind, asker: Asker) -> Told {
        let snapshot = self.shared.gate.snapshot.load_full();
        let Some(known) = self.tenancy.known(&snapshot, &self.tenancy.channel).await else {
            return Answer::Failed.into();
        };
        let own = crate::proxy::request::internal::is_own_name(name) && self.ports.contains(&80);
        if !own && !self.could_pass(&snapshot, &known, name) {
            return self.refuse(&snapshot, name, asker).await;
        }
        let answer = match (kind, self.names.place(name)) {
            (_, None) => Answer::Failed,
            (Kind::A, Some(place)) => Answer::A(v4(place)),
            (Kind::Aaaa, Some(place)) => Answer::Aaaa(v6(place)),
            (Kind::Other, Some(_)) => Answer::Nothing,
        };
        answer.into()
    }

    /// Whether a connection to a captured port, or a request over it, could pass.
    fn could_pass(&self, snapshot: &Snapshot, known: &Known, name: &HostName) -> bool {
        let Ok(path) = Path::parse(b"/") else {
            return false;
        };
        let request = Attempt::Request {
            method: "GET",
            path: &path,
            upgrade: false,
            tls: false,
            request_facts: None,
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
            let decision = snapshot.decide(&Query {
                who: &known.caller.who,
                target: &target,
                attempt,
            });
            // A request with another path, method, tool or credential could pass.
            let of_request = matches!(
                decision.reason,
                Reason::ActionDenied | Reason::CredentialDenied | Reason::McpToolDenied
            );
            decision.verdict != Verdict::Deny || of_request
        })
    }

    /// The channel of a query, with its process; used for refused queries only, because the search
    /// is slow.
    async fn channel_of(&self, asker: Asker) -> Arc<Channel> {
        let tenancy = &self.tenancy;
        let Some(family) = &tenancy.family else {
            return tenancy.channel.clone();
        };
        let (_, process) = match asker {
            Asker::Datagram(client) => family.asker(client).await,
            Asker::Stream(client, local) => family.owner(client, local).await,
        };
        Arc::new(Channel {
            process,
            ..Channel::clone(&tenancy.channel)
        })
    }

    /// Records a refused name, once.
    async fn refuse(&self, snapshot: &Snapshot, name: &HostName, asker: Asker) -> Told {
        let refused = self.recorded().get(name).cloned();
        if let Some(refused) = refused {
            self.tell_again(snapshot, name, asker, refused).await;
            return Answer::NoSuchName.into();
        }
        let channel = self.channel_of(asker).await;
        let Some(known) = self.tenancy.known(snapshot, &channel).await else {
            return Answer::Failed.into();
        };
        let target = at_https(name);
        let refuse = self.tenancy.refuse(&known, FlowKind::Dns, &target, |flow| {
            let judged = flow.judge(&known, &target, &Asked::Connect);
            judged.err().unwrap_or_else(|| {
                // The name is allowed at a port that is not captured.
                let detail = "no port of it is captured in this jail";
                Refusal::because(Code::PortDenied, detail)
            })
        });
        match refuse.await {
            Outcome::Recorded(refused) => {
                self.remember(name, *refused);
                Answer::NoSuchName.into()
            }
            Outcome::Limited(delay) => Told {
                answer: Answer::Failed,
                delay,
            },
            Outcome::NotRecorded => Answer::Failed.into(),
        }
    }

    /// Reports a refusal to an agent, after it was recorded for another of the agent's calls.
    async fn tell_again(
        &self,
        snapshot: &Snapshot,
        name: &HostName,
        asker: Asker,
        refused: Refused,
    ) {
        let sessions = snapshot.identity.sessions();
        let root = self
            .tenancy
            .channel
            .grant
            .as_ref()
            .and_then(|grant| grant.root.as_ref());
        if !root.is_some_and(|root| sessions.calls().has(root)) {
            return;
        }
        let channel = self.channel_of(asker).await;
        if let Some(known) = self.tenancy.known(snapshot, &channel).await {
            attribution::tell_again(sessions, &known.caller, &at_https(name), refused);
        }
    }

    fn remember(&self, name: &HostName, refused: Refused) {
        let mut recorded = self.recorded();
        if recorded.len() >= REMEMBERED {
            recorded.clear();
        }
        recorded.insert(name.clone(), refused);
    }

    fn recorded(&self) -> MutexGuard<'_, HashMap<HostName, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The recorded target of a refused name: port 443.
fn at_https(name: &HostName) -> Target {
    Target {
        host: Host::Name(name.clone()),
        port: 443,
    }
}

/// Answers questions over UDP, one after another. A refusal over the caller's rate is recorded at
/// once; its answer is delayed in a task of its own, so that it delays no other answer. A caller
/// has a few slots for delayed answers ([`Delay`]); further answers are sent immediately.
pub(in crate::proxy) async fn serve(stub: Arc<Stub>, socket: Datagrams) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let draining = stub.shared.gate.draining.clone();
    loop {
        let received = tokio::select! {
            received = socket.receive(&mut buffer) => received,
            () = draining.cancelled() => return,
        };
        let Ok((length, way)) = received else {
            continue;
        };
        let message = buffer.get(..length).unwrap_or_default();
        let Some(client) = way.client() else {
            continue;
        };
        let Some(reply) = stub.answer(message, Asker::Datagram(client)).await else {
            continue;
        };
        if reply.delay.is_none() {
            let _ = socket.answer(&reply.message, &way).await;
            continue;
        }
        let (stub, socket) = (stub.clone(), socket.clone());
        let tasks = stub.shared.gate.tasks.clone();
        tasks.spawn(async move {
            stub.hold_back(reply.delay).await;
            let _ = socket.answer(&reply.message, &way).await;
        });
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
        let Ok((stream, client)) = accepted else {
            tokio::time::sleep(BACK_OFF).await;
            continue;
        };
        let Some(turn) = stub.shared.connections.admit(client.ip()).await else {
            gate.metrics.flow_unstarted();
            continue;
        };
        let local = stream.local_addr().unwrap_or(client);
        let asker = Asker::Stream(canonical(client), canonical(local));
        let (stub, seat) = (stub.clone(), turn.seat());
        let draining = gate.draining.clone();
        let task = gate.tasks.spawn(async move {
            let seat = turn.seat();
            seat.set_served();
            tokio::select! {
                () = converse(&stub, &seat, stream, asker) => {}
                () = draining.cancelled() => {}
            }
            drop(turn);
        });
        seat.set_task(task.abort_handle());
    }
}

async fn converse(stub: &Stub, seat: &Arc<Seat>, mut stream: TcpStream, asker: Asker) {
    let mut next = async || {
        let one = one_over_tcp(stub, seat, &mut stream, asker);
        tokio::time::timeout(PATIENCE, one).await
    };
    while let Ok(Some(())) = next().await {}
}

/// Answers one question, which follows its length (RFC 1035 section 4.2.2).
async fn one_over_tcp(
    stub: &Stub,
    seat: &Arc<Seat>,
    stream: &mut TcpStream,
    asker: Asker,
) -> Option<()> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.ok()?;
    let _busy = seat.begin_request()?;
    let reply = stub.answer(&message, asker).await?;
    stub.hold_back(reply.delay).await;
    let answer = reply.message;
    stream
        .write_u16(u16::try_from(answer.len()).ok()?)
        .await
        .ok()?;
    stream.write_all(&answer).await.ok()
}
