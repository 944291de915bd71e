//! Refusals and events that repeat are counted instead of written, so that one caller cannot drown
//! the log.
//!
//! In each window a caller gets a number of whole lines for each target, reason and rule, and three
//! times as many in all. What comes on top is counted: an opening line stands in the log before the
//! first refusal that is only counted is answered, and a closing line with the exact count follows
//! at the end of the window. A caller that varies its targets is counted under "various targets".

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use jiff::Timestamp;
use std::hash::BuildHasher as _;
use uuid::Uuid;

use super::line::{FlowFacts, SessionFacts};

/// Callers that are told apart; the others share one count.
const MAX_CALLERS: usize = 256;
/// Targets, reasons and rules of one caller that are told apart; the others share one count.
const MAX_KINDS: usize = 16;
/// Users whose events are told apart: a user may be a name that a caller chose.
const MAX_EVENT_OWNERS: usize = 8;
/// Distinct targets that a shared count tells; more are told as this many.
const MAX_TARGETS: usize = 1000;
/// Whole lines of one caller, as a multiple of those for one target.
const LINES_PER_CALLER: u32 = 3;

/// Counts what repeats.
#[derive(Debug)]
pub(super) struct Repeats {
    window: Duration,
    after: u32,
    hasher: DefaultHashBuilder,
    callers: Mutex<HashMap<Owner, Caller>>,
}

/// What becomes of one refusal or event.
#[derive(Debug)]
pub(super) enum Noted {
    /// It is counted, under an opening line that stands in the log.
    Counted,
    /// It is counted, and this opening line has to stand in the log first.
    Opens(Box<Count>),
    /// It gets a line of its own.
    Line,
}

/// What is counted together in one window.
#[derive(Clone, Debug)]
pub(super) struct Count {
    /// Joins the opening and the closing line.
    pub(super) id: Uuid,
    /// How many were counted.
    pub(super) total: u64,
    /// When the first of them came.
    pub(super) since: Timestamp,
    /// When the last of them came.
    pub(super) until: Timestamp,
    /// What they have in common.
    pub(super) about: About,
    /// How many distinct targets, where there are several.
    pub(super) targets: Option<u64>,
    /// Whether the opening line stands in the log.
    pub(super) stands: Arc<AtomicBool>,
}

/// What counted refusals or events have in common.
#[derive(Clone, Debug)]
pub(super) enum About {
    /// Events of one name and one user.
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
    host: Option<Box<str>>,
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
    /// Counts after so many lines in a window; a window of zero counts nothing.
    pub(super) fn new(window: Duration, after: u32) -> Self {
        Self {
            window,
            after,
            hasher: DefaultHashBuilder::default(),
            callers: Mutex::default(),
        }
    }

    /// Notes a refusal that comes at this time.
    pub(super) fn refusal(&self, at: Timestamp, now: Instant, facts: &FlowFacts) -> Noted {
        if self.window.is_zero() {
            return Noted::Line;
        }
        let mut callers = self.lock();
        let caller = caller(&mut callers, owner(facts), now);
        let spent = caller.lines >= self.after.saturating_mul(LINES_PER_CALLER);
        let key = Key::of(facts);
        let target = self.hasher.hash_one((&key.host, key.port));
        let room = caller.kinds.len() < MAX_KINDS;
        let kind = match caller.kinds.get_mut(&key) {
            Some(kind) => kind,
            None if room => caller.kinds.entry(key).or_default(),
            None if spent => return note_various(&mut caller.various, at, facts, target),
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
        note(&mut kind.count, at, || About::Refusals(common(facts, true)))
    }

    /// Notes an event of a session.
    pub(super) fn event(
        &self,
        at: Timestamp,
        now: Instant,
        name: &'static str,
        facts: &SessionFacts,
    ) -> Noted {
        if self.window.is_zero() {
            return Noted::Line;
        }
        let mut callers = self.lock();
        let own = Owner::Events(name, facts.user.clone());
        let is_event = |owner: &&Owner| matches!(owner, Owner::Events(..));
        let full = callers.keys().filter(is_event).count() >= MAX_EVENT_OWNERS;
        let owner = if full && !callers.contains_key(&own) {
            Owner::Events(name, None)
        } else {
            own
        };
        let caller = caller(&mut callers, owner, now);
        let kind = caller.kinds.entry(Key::default()).or_default();
        if kind.lines < self.after.saturating_mul(LINES_PER_CALLER) {
            kind.lines += 1;
            return Noted::Line;
        }
        note(&mut kind.count, at, || {
            About::Events(
                name,
                Box::new(SessionFacts {
                    user: facts.user.clone(),
                    ..SessionFacts::default()
                }),
            )
        })
    }

    /// Takes the counts of the windows that have ended, or of `all`.
    pub(super) fn ended(&self, now: Instant, all: bool) -> Vec<Count> {
        let mut callers = self.lock();
        let window = self.window;
        let over =
            callers.extract_if(|_, caller| all || now.duration_since(caller.began) >= window);
        over.flat_map(|(_, caller)| caller.counts()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn caller(callers: &mut HashMap<Owner, Caller>, owner: Owner, now: Instant) -> &mut Caller {
    let owner = if callers.len() < MAX_CALLERS || callers.contains_key(&owner) {
        owner
    } else {
        Owner::Others
    };
    callers.entry(owner).or_insert_with(|| Caller {
        began: now,
        lines: 0,
        kinds: HashMap::new(),
        various: None,
    })
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
    facts: &FlowFacts,
    target: u64,
) -> Noted {
    let (noted, various) = match various {
        None => {
            let various = various.insert(Various {
                count: Count::first(at, About::Various(common(facts, false))),
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

    /// Counts one more, where the opening line stands in the log.
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
    fn of(facts: &FlowFacts) -> Self {
        Self {
            session: facts.session.clone(),
            user: facts.user.clone(),
            host: facts.server_address.clone(),
            port: facts.server_port,
            reason: facts.reason,
            rule: facts.rule.clone(),
        }
    }
}

/// The caller of a refusal. A session or user that the caller itself chose does not make it another
/// caller: then its address says who it is.
fn owner(facts: &FlowFacts) -> Owner {
    let session = facts.root.as_ref().or(facts.session.as_ref());
    match (facts.trust, session, &facts.user, facts.client_address) {
        ("verified", Some(session), _, _) => Owner::Session(session.clone()),
        ("verified", None, Some(user), _) => Owner::User(user.clone()),
        (_, _, _, Some(address)) => Owner::Address(network(address)),
        _ => Owner::Unknown,
    }
}

/// An IPv6 client has a whole /64 to choose addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// What counted refusals have in common: the caller, and with `target` the target and the verdict.
fn common(facts: &FlowFacts, target: bool) -> Box<FlowFacts> {
    // Various targets may be those of several sessions and users, where these are only asserted.
    let same = target || facts.trust == "verified";
    let caller = FlowFacts {
        session: facts.session.clone().filter(|_| target),
        root: facts.root.clone().filter(|_| same),
        evidence: facts.evidence,
        trust: facts.trust,
        user: facts.user.clone().filter(|_| same),
        groups: facts.groups.clone().filter(|_| same),
        repository: facts.repository.clone().filter(|_| same),
        client_address: facts.client_address,
        ..FlowFacts::default()
    };
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
