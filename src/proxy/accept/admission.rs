//! Admission of clients: the limit of connected clients, and the choice of the connection to end.
//!
//! A connection *waits* while no request of its client is being answered: the client has not yet
//! sent a whole TLS handshake or request head, or the part of a body that the policy needs, or is
//! between two requests, or reads the last answer. At the limit, the gate ends one waiting
//! connection for the new one: the oldest waiting connection of the network (IPv6: /64) with the
//! most waiting connections. A client that opens connections and sends nothing therefore keeps no
//! other client out.
//!
//! All processes on this host are one network: to find the process at the other end of a TCP
//! connection takes a search of all sockets. Among these processes, the oldest waiting connection
//! is ended.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::gate::Gate;
use crate::identity::network_of;
use crate::metrics::Metrics;
use crate::record::{Event, Recorder};

/// How long a new connection waits to be admitted.
const TURN_TIMEOUT: Duration = Duration::from_millis(100);
/// The minimum waiting time before a connection can be ended: its client's request may be on the
/// way.
const MIN_WAITING_AGE: Duration = Duration::from_millis(20);
/// The pause before a connection that is too young is checked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// The minimum time between two `connections_evicted` lines.
const REPORT_INTERVAL: Duration = Duration::from_mins(1);

/// Clients that may be connected at once, counted from accept until the socket is closed.
pub(in crate::proxy) struct Connections {
    turns: Arc<Semaphore>,
    table: Mutex<Table>,
    /// Notified when a connection was ended to make room.
    evicted: Notify,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Default)]
struct Table {
    /// Grows with every connection that begins to wait.
    step: u64,
    /// The waiting connections of each network, the oldest first.
    waiting: HashMap<IpAddr, BTreeMap<u64, Waiting>>,
    unreported: Option<Evictions>,
}

struct Waiting {
    since: Instant,
    seat: Arc<Seat>,
}

/// Connections that were ended to make room and are not yet recorded.
struct Evictions {
    count: u64,
    /// The network of the last ended connection.
    network: IpAddr,
}

/// The result of an attempt to make room.
enum Eviction {
    Done,
    /// The connection to end has not waited long enough.
    TooYoung,
    /// No connection waits: requests of all of them are being answered.
    AllBusy,
}

/// The admission of one client; released when dropped.
pub(in crate::proxy) struct Turn {
    _turn: OwnedSemaphorePermit,
    seat: Arc<Seat>,
}

/// A connection in the table of connections.
pub(in crate::proxy) struct Seat {
    connections: Arc<Connections>,
    /// Whether its task runs: before, the gate cannot have read any request.
    is_served: AtomicBool,
    task: OnceLock<AbortHandle>,
    state: Mutex<State>,
}

struct State {
    network: IpAddr,
    /// The number of requests being answered.
    busy: usize,
    /// The position among the waiting connections.
    step: u64,
    /// Whether its admission ended; a request may end later than its connection.
    is_over: bool,
}

/// A request being answered: its connection cannot be ended. Finished when dropped.
pub(in crate::proxy) struct Busy(Arc<Seat>);

impl Connections {
    /// Room for `max` connected clients.
    pub(in crate::proxy) fn new(max: usize, gate: &Gate) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(max)),
            table: Mutex::default(),
            evicted: Notify::new(),
            clock: gate.clock.clone(),
            metrics: gate.metrics.clone(),
        }
    }

    /// Admits a client, if necessary in place of another one. `None` if no room was found within
    /// [`TURN_TIMEOUT`]: the client has to be rejected.
    pub(in crate::proxy) async fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Turn> {
        let turn = match self.turns.clone().try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => timeout(TURN_TIMEOUT, self.make_room()).await.ok()??,
        };
        self.metrics.connected_clients(1);
        let state = State {
            network: network_of(client),
            busy: 0,
            step: 0,
            is_over: false,
        };
        let seat = Arc::new(Seat {
            connections: self.clone(),
            is_served: AtomicBool::new(false),
            task: OnceLock::new(),
            state: Mutex::new(state),
        });
        seat.begin_waiting(&mut seat.state());
        Some(Turn { _turn: turn, seat })
    }

    /// Ends a waiting connection and takes its slot.
    async fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let turn = self.turns.clone().acquire_owned();
            match self.evict() {
                Eviction::Done => return turn.await.ok(),
                Eviction::AllBusy => return None,
                Eviction::TooYoung => {}
            }
            if let Ok(turn) = timeout(RETRY_INTERVAL, turn).await {
                return turn.ok();
            }
        }
    }

    /// Ends the oldest waiting connection of the network with the most.
    fn evict(&self) -> Eviction {
        let mut table = self.table();
        let largest = table.waiting.iter().max_by_key(|(_, seats)| seats.len());
        let oldest = largest.and_then(|(network, seats)| {
            let (step, oldest) = seats.first_key_value()?;
            Some((*network, *step, oldest))
        });
        let Some((network, step, oldest)) = oldest else {
            return Eviction::AllBusy;
        };
        let Some(task) = oldest.task_to_end(self.clock.instant()).cloned() else {
            return Eviction::TooYoung;
        };
        table.remove(network, step);
        let count = table.unreported.as_ref().map_or(0, |before| before.count);
        table.unreported = Some(Evictions {
            count: count + 1,
            network,
        });
        drop(table);
        task.abort();
        self.metrics.connection_evicted();
        self.evicted.notify_one();
        Eviction::Done
    }

    /// Records the connections that were ended: the first at once, then at most one line a minute
    /// with their count.
    pub(in crate::proxy) async fn report_evictions(self: Arc<Self>, gate: Arc<Gate>) {
        let draining = &gate.draining;
        while !draining.is_cancelled() {
            let _ = draining.run_until_cancelled(self.evicted.notified()).await;
            self.record_evictions(&gate.recorder);
            let _ = draining.run_until_cancelled(sleep(REPORT_INTERVAL)).await;
        }
        self.record_evictions(&gate.recorder);
    }

    fn record_evictions(&self, recorder: &Recorder) {
        let Some(Evictions { count, network }) = self.table().unreported.take() else {
            return;
        };
        recorder.event(&Event::ConnectionsEvicted { count, network });
        tracing::warn!(
            count,
            %network,
            "ended waiting connections to make room for new ones: all turns were taken"
        );
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Removes a waiting connection; `false` if it had been ended before.
    fn remove(&mut self, network: IpAddr, step: u64) -> bool {
        let Some(seats) = self.waiting.get_mut(&network) else {
            return false;
        };
        let removed = seats.remove(&step).is_some();
        if seats.is_empty() {
            self.waiting.remove(&network);
        }
        removed
    }
}

impl Waiting {
    /// The task to end; `None` if the client has not had time to send a request.
    fn task_to_end(&self, now: Instant) -> Option<&AbortHandle> {
        let is_old = now.saturating_duration_since(self.since) >= MIN_WAITING_AGE;
        let is_served = self.seat.is_served.load(Ordering::Acquire);
        self.seat.task.get().filter(|_| is_old && is_served)
    }
}

impl Turn {
    /// The connection of this admission, for its task.
    pub(in crate::proxy) fn seat(&self) -> Arc<Seat> {
        self.seat.clone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let connections = &self.seat.connections;
        let mut state = self.seat.state();
        state.is_over = true;
        connections.table().remove(state.network, state.step);
        connections.metrics.connected_clients(-1);
    }
}

impl Seat {
    /// Sets the task that serves the connection: ending the connection aborts that task.
    pub(in crate::proxy) fn set_task(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Marks the task of the connection as running.
    pub(in crate::proxy) fn set_served(&self) {
        self.is_served.store(true, Ordering::Release);
    }

    /// Counts the connection for another client, named by a balancer.
    pub(in crate::proxy) fn set_client(self: &Arc<Self>, client: IpAddr) {
        let mut state = self.state();
        let is_waiting = self.connections.table().remove(state.network, state.step);
        state.network = network_of(client);
        if is_waiting {
            self.begin_waiting(&mut state);
        }
    }

    /// Begins a request: the connection cannot be ended during it. `None` if the connection was
    /// ended.
    pub(in crate::proxy) fn begin_request(self: &Arc<Self>) -> Option<Busy> {
        let mut state = self.state();
        if state.busy == 0 && !self.connections.table().remove(state.network, state.step) {
            return None;
        }
        state.busy += 1;
        Some(Busy(self.clone()))
    }

    fn begin_waiting(self: &Arc<Self>, state: &mut State) {
        let waiting = Waiting {
            since: self.connections.clock.instant(),
            seat: self.clone(),
        };
        let mut table = self.connections.table();
        table.step += 1;
        state.step = table.step;
        let step = table.step;
        let seats = table.waiting.entry(state.network).or_default();
        seats.insert(step, waiting);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    /// Ends the protection of the request; its connection waits again.
    pub(in crate::proxy) fn into_seat(self) -> Arc<Seat> {
        self.0.clone()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.busy -= 1;
        if state.busy == 0 && !state.is_over {
            self.0.begin_waiting(&mut state);
        }
    }
}
