//! Admission of clients: the limit of connected clients, and the choice of the connection to end.
//!
//! A connection *waits* while no request of its client is being answered: the client has not yet
//! sent a whole TLS handshake or request head, or the part of a body that the policy needs, or is
//! between two requests, or reads the last answer. At the limit, the gate ends one waiting
//! connection for the new one: the oldest waiting connection of the network (IPv6: /64) with the
//! most waiting connections. A client that opens connections and sends nothing therefore keeps no
//! other client out.
//!
//! A request on a kept connection usually locks only the state of that connection. The table may be
//! out of date: an entry can belong to a busy connection, or have an older time than its connection.
//! [`Table::end_oldest`] corrects entries until the first is current.
//!
//! All processes on this host are one network: to find the process at the other end of a TCP
//! connection takes a search of all sockets. Among these processes, the oldest waiting connection
//! is ended.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    /// The number of connections that were admitted so far.
    admitted: u64,
    networks: HashMap<IpAddr, Network>,
    unreported: Option<Evictions>,
}

/// The connections of one network.
struct Network {
    /// The number of admitted connections.
    size: usize,
    count: Arc<NetworkCount>,
    /// Connections by the time when they began to wait. It may hold busy connections and old times,
    /// and lacks one that is between [`Seat::end_request`] and [`Table::place`].
    seats: BTreeMap<Place, Arc<Seat>>,
}

/// The number of waiting connections of a network; each of its connections changes it.
struct NetworkCount {
    network: IpAddr,
    /// The number of connections that wait.
    waiting: AtomicUsize,
}

/// The place of a connection among those that wait: since when, and its number.
type Place = (Instant, u64);

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
    number: u64,
    /// Whether its task runs: before, the gate cannot have read any request.
    is_served: AtomicBool,
    task: OnceLock<AbortHandle>,
    state: Mutex<State>,
}

/// Locked after the table where both are needed.
struct State {
    counted: Arc<NetworkCount>,
    /// The number of requests being answered.
    busy: u32,
    /// Since when it waits, or waited last.
    since: Instant,
    /// The time of its place in the table, if it has one: not later than `since`.
    place: Option<Instant>,
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
        let seat = self.table().seat(self, network_of(client));
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
        let (network, task) = match table.end_oldest(self.clock.instant()) {
            Ok(ended) => ended,
            Err(none) => return none,
        };
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
    /// Adds a connection, which waits.
    fn seat(&mut self, connections: &Arc<Connections>, network: IpAddr) -> Arc<Seat> {
        self.admitted += 1;
        let seat = Arc::new(Seat {
            connections: connections.clone(),
            number: self.admitted,
            is_served: AtomicBool::new(false),
            task: OnceLock::new(),
            state: Mutex::new(State {
                counted: self.network(network).count.clone(),
                busy: 0,
                since: connections.clock.instant(),
                place: None,
                is_over: false,
            }),
        });
        self.enter(&seat, &mut seat.state(), network);
        seat
    }

    /// Adds a connection to its network; if it waits, with a place.
    fn enter(&mut self, seat: &Arc<Seat>, state: &mut State, network: IpAddr) {
        let entry = self.network(network);
        entry.size += 1;
        state.counted = entry.count.clone();
        if state.busy == 0 {
            state.counted.waiting.fetch_add(1, Ordering::Relaxed);
            entry.correct(seat, state);
        }
    }

    fn network(&mut self, network: IpAddr) -> &mut Network {
        self.networks.entry(network).or_insert_with(|| Network {
            size: 0,
            count: Arc::new(NetworkCount {
                network,
                waiting: AtomicUsize::new(0),
            }),
            seats: BTreeMap::new(),
        })
    }

    /// Gives a place to a connection that waits and has none.
    fn place(&mut self, seat: &Arc<Seat>) {
        let mut state = seat.state();
        if state.is_over {
            return;
        }
        if let Some(network) = self.networks.get_mut(&state.counted.network) {
            network.correct(seat, &mut state);
        }
    }

    /// Removes a connection from its network: it is over, unless it enters again.
    fn leave(&mut self, seat: &Seat, state: &mut State) {
        if state.is_over {
            return;
        }
        let name = state.counted.network;
        if let Some(network) = self.networks.get_mut(&name) {
            network.leave(seat, state);
            if network.size == 0 {
                self.networks.remove(&name);
            }
        }
    }

    /// Removes the oldest waiting connection of the network with the most; returns its network and
    /// the task to end. `Err` if none can be ended.
    fn end_oldest(&mut self, now: Instant) -> Result<(IpAddr, AbortHandle), Eviction> {
        let waiting = |network: &Network| network.count.waiting.load(Ordering::Relaxed);
        let most = self.networks.iter_mut().max_by_key(|(_, it)| waiting(it));
        let (name, network) = most.ok_or(Eviction::AllBusy)?;
        let name = *name;
        while let Some((place, seat)) = network.first() {
            let mut state = seat.state();
            let is_current = state.busy == 0 && seat.place(&state) == place;
            if !is_current {
                network.correct(&seat, &mut state);
                continue;
            }
            let is_old = now.saturating_duration_since(state.since) >= MIN_WAITING_AGE;
            // Before its task runs, the gate cannot have read any request.
            let is_served = seat.is_served.load(Ordering::Acquire);
            let task = seat.task.get().filter(|_| is_old && is_served);
            let task = task.cloned().ok_or(Eviction::TooYoung)?;
            self.leave(&seat, &mut state);
            return Ok((name, task));
        }
        // A connection that has just begun to wait may have no place yet.
        if self.networks.values().any(|it| waiting(it) > 0) {
            Err(Eviction::TooYoung)
        } else {
            Err(Eviction::AllBusy)
        }
    }
}

impl Network {
    /// The first place, and its connection.
    fn first(&self) -> Option<(Place, Arc<Seat>)> {
        let (place, seat) = self.seats.first_key_value()?;
        Some((*place, seat.clone()))
    }

    /// Gives a connection the place of its time; one that is busy gets none.
    fn correct(&mut self, seat: &Arc<Seat>, state: &mut State) {
        self.forget(seat, state);
        if state.busy == 0 {
            state.place = Some(state.since);
            self.seats.insert(seat.place(state), seat.clone());
        }
    }

    /// Removes the place of a connection.
    fn forget(&mut self, seat: &Seat, state: &mut State) {
        if let Some(since) = state.place.take() {
            self.seats.remove(&(since, seat.number));
        }
    }

    fn leave(&mut self, seat: &Seat, state: &mut State) {
        state.is_over = true;
        if state.busy == 0 {
            state.counted.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.forget(seat, state);
        self.size -= 1;
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
        connections
            .table()
            .leave(&self.seat, &mut self.seat.state());
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
        let mut table = self.connections.table();
        let mut state = self.state();
        if state.is_over {
            return;
        }
        table.leave(self, &mut state);
        state.is_over = false;
        table.enter(self, &mut state, network_of(client));
    }

    /// Begins a request: the connection cannot be ended during it. `None` if the connection was
    /// ended.
    pub(in crate::proxy) fn begin_request(self: &Arc<Self>) -> Option<Busy> {
        let mut state = self.state();
        if state.busy == 0 {
            if state.is_over {
                return None;
            }
            state.counted.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        state.busy += 1;
        drop(state);
        Some(Busy(self.clone()))
    }

    /// Gives up the place of a connection that will be busy for long: an idle tunnel needs no memory
    /// for it.
    fn release_place(&self) {
        let mut table = self.connections.table();
        let mut state = self.state();
        if let Some(network) = table.networks.get_mut(&state.counted.network) {
            network.forget(self, &mut state);
        }
    }

    /// Ends a request; without another one the connection waits again.
    fn end_request(self: &Arc<Self>) {
        let mut state = self.state();
        state.busy -= 1;
        if state.busy > 0 || state.is_over {
            return;
        }
        state.counted.waiting.fetch_add(1, Ordering::Relaxed);
        state.since = self.connections.clock.instant();
        let has_place = state.place.is_some();
        drop(state);
        if !has_place {
            self.connections.table().place(self);
        }
    }

    /// The place that belongs to its time.
    fn place(&self, state: &State) -> Place {
        (state.since, self.number)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    /// Releases what only a waiting connection needs: the request may last for days.
    pub(in crate::proxy) fn release_place(&self) {
        self.0.release_place();
    }

    /// Ends the protection of the request; its connection waits again.
    pub(in crate::proxy) fn into_seat(self) -> Arc<Seat> {
        self.0.clone()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What happens to a connection, by its number.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin(usize),
        End(usize),
        Evict,
        Leave(usize),
        Move(usize, u8),
        Rest(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let seat = 0..8_usize;
        let step = prop_oneof![
            4 => seat.clone().prop_map(Step::Begin),
            4 => seat.clone().prop_map(Step::End),
            2 => Just(Step::Evict),
            1 => seat.clone().prop_map(Step::Leave),
            1 => seat.clone().prop_map(Step::Rest),
            1 => (seat, 0..3_u8).prop_map(|(seat, network)| Step::Move(seat, network)),
        ];
        prop::collection::vec(step, 0..60)
    }

    fn network(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// A connection as the rule in words has it.
    struct Plain {
        network: u8,
        busy: Vec<Busy>,
        waits_since: u64,
        gone: bool,
    }

    impl Plain {
        fn waits(&self) -> bool {
            self.busy.is_empty() && !self.gone
        }
    }

    /// The connections that may be ended: the oldest of each network with the most.
    fn candidates(all: &[Plain]) -> Vec<usize> {
        let of = |network| {
            all.iter()
                .filter(move |it| it.waits() && it.network == network)
        };
        let most = (0..3).map(|network| of(network).count()).max().unwrap_or(0);
        let oldest = (0..3).filter(|network| most > 0 && of(*network).count() == most);
        oldest
            .filter_map(|network| of(network).map(|it| it.waits_since).min())
            .filter_map(|since| {
                all.iter()
                    .position(|it| it.waits() && it.waits_since == since)
            })
            .collect()
    }

    fn play(steps: Vec<Step>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let connections = Arc::new(Connections {
            turns: Arc::new(Semaphore::new(8)),
            table: Mutex::default(),
            evicted: Notify::new(),
            clock: Clock::system(),
            metrics: Metrics::new(&[]),
        });
        let mut time = 0;
        let mut next = || {
            time += 1;
            time
        };
        let mut plain = Vec::new();
        let mut turns = Vec::new();
        for at in 0..8 {
            let turn = runtime
                .block_on(connections.admit(network(at % 3)))
                .expect("room");
            turn.seat
                .set_task(runtime.spawn(std::future::pending::<()>()).abort_handle());
            turn.seat.set_served();
            turns.push(Some(turn));
            plain.push(Plain {
                network: at % 3,
                busy: Vec::new(),
                waits_since: next(),
                gone: false,
            });
        }
        let seats: Vec<_> = turns.iter().flatten().map(Turn::seat).collect();
        for step in steps {
            match step {
                Step::Begin(at) => {
                    let begun = seats[at].begin_request();
                    let ended = plain[at].gone && plain[at].busy.is_empty();
                    assert_eq!(begun.is_none(), ended, "{at}");
                    plain[at].busy.extend(begun);
                }
                Step::End(at) => {
                    if plain[at].busy.pop().is_some() && plain[at].waits() {
                        plain[at].waits_since = next();
                    }
                }
                Step::Leave(at) => {
                    plain[at].gone = true;
                    turns[at] = None;
                }
                Step::Move(at, to) => {
                    seats[at].set_client(network(to));
                    if !plain[at].gone {
                        plain[at].network = to;
                    }
                }
                Step::Rest(at) => plain[at].busy.iter().for_each(Busy::release_place),
                Step::Evict => {
                    let later = connections.clock.instant() + Duration::from_secs(1);
                    let ended = connections.table().end_oldest(later).ok();
                    let expected = candidates(&plain);
                    let gone: Vec<_> = (0..8)
                        .filter(|at| !plain[*at].gone && seats[*at].state().is_over)
                        .collect();
                    assert_eq!(ended.is_some(), !expected.is_empty());
                    assert_eq!(gone.len(), usize::from(ended.is_some()));
                    for at in gone {
                        assert!(expected.contains(&at), "{at} in {expected:?}");
                        plain[at].gone = true;
                    }
                }
            }
        }
        drop(plain);
        drop(turns);
        assert!(connections.table().networks.is_empty());
    }

    proptest! {
        #[test]
        fn the_oldest_waiting_connection_of_the_largest_network_is_ended(steps in steps()) {
            play(steps);
        }
    }
}
