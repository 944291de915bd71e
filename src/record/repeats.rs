//! Counts repeated refusals and events instead of writing them, so that one caller cannot flood the
//! log.
//!
//! In each window a caller gets a number of whole lines for each combination of target, reason and
//! rule, and three times as many in all. Refusals beyond that number are counted: an opening line
//! is in the log before the first counted refusal is answered, and a closing line with the exact
//! count follows at the end of the window. Refusals of a caller that varies its targets are counted
//! under "various targets". Verified sessions, verified users and addresses have separate tables: a
//! client that uses many addresses fills only the table of addresses.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use jiff::Timestamp;
use std::hash::BuildHasher as _;
use uuid::Uuid;

use crate::identity::network_of;

use super::line::{Event, FlowFacts, SessionFacts};

/// Callers of one table with counts of their own; the others share one count, which names no
/// caller.
const MAX_CALLERS: usize = 256;
/// Combinations of target, reason and rule of one caller with counts of their own; the others share
/// one count.
const MAX_KINDS: usize = 16;
/// Users with counts of their own for one event name: a user may be a name that a caller chose.
const MAX_EVENT_USERS: usize = 8;
/// Sessions with counts of their own for the tool calls of one event name.
const MAX_EVENT_SESSIONS: usize = 64;
/// Maximum number of distinct targets that a shared count reports.
const MAX_TARGETS: usize = 1000;
/// Whole lines of one caller, as a multiple of the lines for one target.
const LINES_PER_CALLER: u32 = 3;

/// The counts of repeated refusals and events.
#[derive(Debug)]
pub(super) struct Repeats {
    window: Duration,
    after: u32,
    hasher: DefaultHashBuilder,
    callers: Mutex<Callers>,
}

/// Callers and their counts.
#[derive(Debug, Default)]
struct Callers {
    addresses: HashMap<Owner, Caller>,
    events: HashMap<Owner, Caller>,
    sessions: HashMap<Owner, Caller>,
    users: HashMap<Owner, Caller>,
}

/// The treatment of one refusal or event.
#[derive(Debug)]
pub(super) enum Noted {
    /// The event is counted, under an opening line that is in the log.
    Counted,
    /// The event is counted, and this opening line has to be in the log first.
    Opens(Box<Count>),
    /// The event gets a line of its own.
    Line,
}

/// One count: the refusals or events that are counted together in one window.
#[derive(Clone, Debug)]
pub(super) struct Count {
    /// The id that joins the opening and the closing line.
    pub(super) id: Uuid,
    /// The number of counted refusals or events.
    pub(super) total: u64,
    /// When the first of them occurred.
    pub(super) since: Timestamp,
    /// When the last of them occurred.
    pub(super) until: Timestamp,
    /// The facts that they have in common.
    pub(super) about: About,
    /// The number of distinct targets, if there are several.
    pub(super) targets: Option<u64>,
    /// Whether the opening line is in the log.
    pub(super) stands: Arc<AtomicBool>,
}

/// The facts that counted refusals or events have in common.
#[derive(Clone, Debug)]
pub(super) enum About {
    /// Events of one name, and of one user or session.
    Events(&'static str, Box<SessionFacts>),
    /// Refusals for one target, reason and rule.
    Refusals(Box<FlowFacts>),
    /// Refusals of one caller, or of several, for various targets.
    Various(Box<FlowFacts>),
}

/// The caller whose refusals are counted together.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Owner {
    Address(IpAddr),
    /// The events of this name and of this user or session; `None`: of all the others.
    Events(&'static str, Option<Arc<str>>),
    Others,
    Session(Arc<str>),
    Unknown,
    User(Arc<str>),
}

#[derive(Debug)]
struct Caller {
    began: Instant,
    lines: u32,
    kinds: HashMap<Key, Kind>,
    various: Option<Various>,
}

/// A target, reason and rule.
#[derive(Debug, Default, Eq, Hash, PartialEq)]
struct Key {
    session: Option<Arc<str>>,
    user: Option<Arc<str>>,
    host: Option<Arc<str>>,
    port: Option<u16>,
    reason: &'static str,
    rule: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Kind {
    lines: u32,
    count: Option<Count>,
}

#[derive(Debug)]
struct Various {
    count: Count,
    targets: HashSet<u64>,
}

impl Repeats {
    /// Counts after `after` lines in a window; a window of zero disables counting.
    pub(super) fn new(window: Duration, after: u32) -> Self {
        Self {
            window,
            after,
            hasher: DefaultHashBuilder::default(),
            callers: Mutex::default(),
        }
    }

    /// Adds a refusal at this time.
    pub(super) fn refusal(&self, at: Timestamp, now: Instant, facts: &FlowFacts) -> Noted {
        if self.window.is_zero() {
            return Noted::Line;
        }
        let mut callers = self.lock();
        let (owner, caller) = callers.refused(facts, now);
        let spent = caller.lines >= self.after.saturating_mul(LINES_PER_CALLER);
        let key = Key::of(&owner, facts);
        let target = self.hasher.hash_one((&key.host, key.port));
        let room = caller.kinds.len() < MAX_KINDS;
        let kind = match caller.kinds.get_mut(&key) {
            Some(kind) => kind,
            None if room => caller.kinds.entry(key).or_default(),
            None if spent => {
                let about = || About::Various(common(&owner, facts, false));
                return note_various(&mut caller.various, at, target, about);
            }
            None => {
                caller.lines += 1;
                return Noted::Line;
            }
        };
        if kind.count.is_none() && kind.lines < self.after && !spent {
            kind.lines += 1;
            caller.lines += 1;
            return Noted::Line;
        }
        note(&mut kind.count, at, || {
            About::Refusals(common(&owner, facts, true))
        })
    }

    /// Adds an event; events of the gate itself are never counted.
    pub(super) fn event(&self, at: Timestamp, now: Instant, event: &Event) -> Noted {
        let Some((name, facts)) = by_caller(event).filter(|_| !self.window.is_zero()) else {
            return Noted::Line;
        };
        let mut callers = self.lock();
        let (named, caller) = callers.reported(name, &facts, now);
        let kind = caller.kinds.entry(Key::default()).or_default();
        if kind.lines < self.after.saturating_mul(LINES_PER_CALLER) {
            kind.lines += 1;
            return Noted::Line;
        }
        note(&mut kind.count, at, || {
            About::Events(name, Box::new(if named { facts } else { <_>::default() }))
        })
    }

    /// Takes the counts of the windows that have ended, or of `all`.
    pub(super) fn ended(&self, now: Instant, all: bool) -> Vec<Count> {
        let mut callers = self.lock();
        let window = self.window;
        let mut counts = Vec::new();
        for table in callers.tables() {
            let over =
                table.extract_if(|_, caller| all || now.duration_since(caller.began) >= window);
            counts.extend(over.flat_map(|(_, caller)| caller.counts()));
        }
        counts
    }

    /// Returns the counts whose opening lines are in the log and whose windows have not ended.
    pub(super) fn standing(&self) -> Vec<Uuid> {
        let mut callers = self.lock();
        let tables = callers.tables().into_iter();
        let counts = tables.flat_map(|table| table.values().flat_map(Caller::open_counts));
        let standing = counts.filter(|count| count.stands.load(Ordering::Acquire));
        standing.map(|count| count.id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callers {
    /// Returns the caller of a refusal. A session or user that the caller itself chose is no
    /// separate caller: then the address identifies the caller. If the table of verified sessions
    /// is full, the user identifies the caller.
    fn refused(&mut self, facts: &FlowFacts, now: Instant) -> (Owner, &mut Caller) {
        let verified = facts.trust == "verified";
        let session = facts.root.as_ref().or(facts.session.as_ref());
        let session = session.filter(|_| verified).cloned().map(Owner::Session);
        let user = facts.user.clone().filter(|_| verified).map(Owner::User);
        let (table, owner) = match (session, user) {
            (Some(session), None) => (&mut self.sessions, session),
            (Some(session), _) if has_room(&self.sessions, &session) => {
                (&mut self.sessions, session)
            }
            (_, Some(user)) => (&mut self.users, user),
            (None, None) => {
                let address = facts.client_address.map(network_of);
                let owner = address.map_or(Owner::Unknown, Owner::Address);
                (&mut self.addresses, owner)
            }
        };
        let owner = if has_room(table, &owner) {
            owner
        } else {
            Owner::Others
        };
        let caller = table.entry(owner.clone());
        (owner, caller.or_insert_with(|| Caller::new(now)))
    }

    /// Returns the caller of an event, and whether the counts name that caller.
    fn reported(
        &mut self,
        name: &'static str,
        facts: &SessionFacts,
        now: Instant,
    ) -> (bool, &mut Caller) {
        let max = match facts.session {
            Some(_) => MAX_EVENT_SESSIONS,
            None => MAX_EVENT_USERS,
        };
        let id = facts.session.as_ref().or(facts.user.as_ref());
        let own = Owner::Events(name, id.cloned());
        let is_same_event =
            |owner: &&Owner| matches!(owner, Owner::Events(same, Some(_)) if *same == name);
        let named = self.events.contains_key(&own)
            || self.events.keys().filter(is_same_event).count() < max;
        let owner = if named {
            own
        } else {
            Owner::Events(name, None)
        };
        let named = named && id.is_some();
        let caller = self.events.entry(owner);
        (named, caller.or_insert_with(|| Caller::new(now)))
    }

    fn tables(&mut self) -> [&mut HashMap<Owner, Caller>; 4] {
        [
            &mut self.addresses,
            &mut self.events,
            &mut self.sessions,
            &mut self.users,
        ]
    }
}

fn has_room(table: &HashMap<Owner, Caller>, owner: &Owner) -> bool {
    table.len() < MAX_CALLERS || table.contains_key(owner)
}

/// Returns the name of an event that a caller causes, and the key of the caller: for a tool call
/// the session, otherwise the user, because a user can start any number of sessions.
fn by_caller(event: &Event) -> Option<(&'static str, SessionFacts)> {
    let (name, session, user) = match event {
        Event::SessionEnded(facts) => ("session_ended", None, &facts.user),
        Event::SessionRefused(facts) => ("session_refused", None, &facts.user),
        Event::SessionStarted(facts) => ("session_started", None, &facts.user),
        Event::ToolCallEnded(facts) => ("tool_call_ended", facts.session.clone(), &None),
        Event::ToolCallStarted(facts) => ("tool_call_started", facts.session.clone(), &None),
        _ => return None,
    };
    let facts = SessionFacts {
        session,
        user: user.clone(),
        ..SessionFacts::default()
    };
    Some((name, facts))
}

fn note(count: &mut Option<Count>, at: Timestamp, about: impl FnOnce() -> About) -> Noted {
    match count {
        None => Noted::Opens(Box::new(count.insert(Count::first(at, about())).opening())),
        Some(count) => count.add(at),
    }
}

fn note_various(
    various: &mut Option<Various>,
    at: Timestamp,
    target: u64,
    about: impl FnOnce() -> About,
) -> Noted {
    let (noted, various) = match various {
        None => {
            let various = various.insert(Various {
                count: Count::first(at, about()),
                targets: HashSet::new(),
            });
            (Noted::Opens(Box::new(various.count.opening())), various)
        }
        Some(various) => (various.count.add(at), various),
    };
    if !matches!(noted, Noted::Line) && various.targets.len() < MAX_TARGETS {
        various.targets.insert(target);
    }
    noted
}

impl Caller {
    fn new(began: Instant) -> Self {
        Self {
            began,
            lines: 0,
            kinds: HashMap::new(),
            various: None,
        }
    }

    fn open_counts(&self) -> impl Iterator<Item = &Count> {
        let various = self.various.as_ref().map(|various| &various.count);
        let kinds = self.kinds.values().filter_map(|kind| kind.count.as_ref());
        kinds.chain(various)
    }

    fn counts(self) -> impl Iterator<Item = Count> {
        let various = self.various.map(|various| Count {
            targets: Some(u64::try_from(various.targets.len()).unwrap_or(u64::MAX)),
            ..various.count
        });
        let kinds = self.kinds.into_values().filter_map(|kind| kind.count);
        kinds.chain(various)
    }
}

impl Count {
    fn first(at: Timestamp, about: About) -> Self {
        Self {
            id: Uuid::now_v7(),
            total: 1,
            since: at,
            until: at,
            about,
            targets: None,
            stands: Arc::default(),
        }
    }

    fn opening(&self) -> Self {
        Self {
            total: 0,
            ..self.clone()
        }
    }

    /// Counts one more, if the opening line is in the log.
    fn add(&mut self, at: Timestamp) -> Noted {
        if !self.stands.load(Ordering::Acquire) {
            return Noted::Line;
        }
        self.total += 1;
        self.until = self.until.max(at);
        Noted::Counted
    }
}

impl Key {
    fn of(owner: &Owner, facts: &FlowFacts) -> Self {
        // The shared count of the other callers names no caller.
        let named = *owner != Owner::Others;
        Self {
            session: facts.session.clone().filter(|_| named),
            user: facts.user.clone().filter(|_| named),
            host: facts.server_address.clone(),
            port: facts.server_port,
            reason: facts.reason,
            rule: facts.rule.clone(),
        }
    }
}

/// Returns the common facts of counted refusals: the caller, and with `target` the target and the
/// verdict.
fn common(owner: &Owner, facts: &FlowFacts, target: bool) -> Box<FlowFacts> {
    let caller = common_caller(owner, facts, target);
    if !target {
        return Box::new(caller);
    }
    Box::new(FlowFacts {
        outcome: facts.outcome,
        mode: facts.mode,
        would: facts.would,
        reason: facts.reason,
        rule: facts.rule.clone(),
        rule_location: facts.rule_location.clone(),
        policy_digest: facts.policy_digest.clone(),
        policy_generation: facts.policy_generation,
        category: facts.category,
        category_basis: facts.category_basis,
        tier: facts.tier.clone(),
        tier_basis: facts.tier_basis,
        server_address: facts.server_address.clone(),
        server_port: facts.server_port,
        protocol: facts.protocol,
        ..caller
    })
}

/// Returns the common facts of the callers of counted refusals. Refusals for various targets may
/// come from several sessions and users, if these are only asserted, and from several sessions of
/// one user.
fn common_caller(owner: &Owner, facts: &FlowFacts, target: bool) -> FlowFacts {
    if *owner == Owner::Others {
        return FlowFacts {
            evidence: "none",
            trust: "none",
            ..FlowFacts::default()
        };
    }
    let one_user = target || facts.trust == "verified";
    let one_session = target || matches!(owner, Owner::Session(_));
    FlowFacts {
        session: facts.session.clone().filter(|_| target),
        root: facts.root.clone().filter(|_| one_session),
        evidence: facts.evidence,
        trust: facts.trust,
        user: facts.user.clone().filter(|_| one_user),
        groups: facts.groups.clone().filter(|_| one_user),
        repository: facts.repository.clone().filter(|_| one_session),
        client_address: facts.client_address.map(network_of),
        ..FlowFacts::default()
    }
}
