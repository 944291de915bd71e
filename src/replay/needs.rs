//! The needs of an observing tier or rule: flows that the policy does not allow.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use jiff::Timestamp;

use crate::policy::{Policy, Verdict};

use super::flow::{Flow, who};
use super::judge::{Judge, Outcome};
use super::recorded::{Recorded, Text, kept as text};

/// Maximum number of separate needs; flows of further ones are only counted.
const MAX_NEEDS: usize = 5000;
/// Maximum number of distinct sessions of one need.
const MAX_SESSIONS: usize = 1000;
/// Maximum number of distinct sessions of all flows.
const MAX_ALL_SESSIONS: usize = 100_000;
/// Maximum number of names of repositories, branches and jobs.
const MAX_NAMES: usize = 500;
/// Maximum number of distinct days.
const MAX_DAYS: usize = 1000;
/// Maximum number of sessions whose last fetch is stored.
const MAX_FETCHES: usize = 10_000;
/// How long after the fetch of a page a flow may be caused by that page, in seconds.
const AFTER_FETCH: i64 = 60;

/// Flows of one kind of caller to one destination that the policy decides in the same way.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Need {
    /// The caller's tier.
    pub tier: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The request; `None` in a tunnel.
    pub request: Option<Does>,
    /// The policy's decision.
    pub now: Outcome,
}

/// The facts of a request.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Does {
    /// The service whose protocol the request uses.
    pub service: Option<String>,
    /// The operation in that service.
    pub operation: Option<String>,
    /// `read`, `write`, `call`.
    pub action: Option<String>,
    /// The repository at the destination.
    pub repository: Option<String>,
    /// The ref that is pushed.
    pub reference: Option<String>,
    /// The package, of a write.
    pub package: Option<String>,
    /// The listed MCP server.
    pub server: Option<String>,
    /// The tool of MCP.
    pub tool: Option<String>,
}

/// The flows of a need.
#[derive(Debug)]
pub struct Seen {
    /// The number of flows.
    pub flows: u64,
    /// The number of flows on each day.
    pub days: BTreeMap<String, u64>,
    /// The repositories with evidence.
    pub repositories: BTreeSet<String>,
    /// Flows without evidence of a repository.
    pub unverified: u64,
    /// The groups that each caller had; `None` before the first flow.
    pub groups: Option<BTreeSet<String>>,
    /// Flows shortly after a page was fetched in the same session.
    pub after_fetch: u64,
    /// Flows of the tool that fetches pages.
    pub fetches: u64,
    /// The client program of the first flow, as it names itself.
    pub user_agent: Option<String>,
    /// The id of the first flow.
    pub flow: String,
    /// The flow in the notation of trials, if possible.
    pub entry: Option<String>,
    /// The category of the destination.
    pub category: String,
    sessions: HashSet<Session>,
}

/// The hash that stands for a session.
///
/// A session with a token, a certificate or a process is counted by its root: its children have ids
/// of their own choice. All other flows of one user on one day count as one session, because such a
/// caller chooses its session id.
type Session = u64;

/// The days of each name, up to a maximum, and its number of flows.
pub type Names = BTreeMap<String, (BTreeSet<String>, u64)>;

/// All needs in some files of records.
#[derive(Debug, Default)]
pub struct Needs {
    /// Examined flows.
    pub flows: u64,
    /// Flows that pass under the current policy.
    pub covered: u64,
    /// Flows that cannot be judged.
    pub undetermined: u64,
    /// Flows of needs beyond the maximum.
    pub more: u64,
    /// Lines that are not records.
    pub unreadable: u64,
    /// Flows of each day, and how many of them pass.
    pub days: BTreeMap<String, (u64, u64)>,
    /// The repositories of all flows.
    pub repositories: Names,
    /// Their branches, as `repository branch`.
    pub branches: Names,
    /// Jobs of CI, as `pipeline task`.
    pub jobs: Names,
    /// The tiers that observe, according to the records.
    pub observing: BTreeSet<String>,
    by_need: HashMap<Need, Seen>,
    /// The last day of each session.
    sessions: HashMap<Session, String>,
    /// Sessions with a flow that was not judged, or that belongs to no need.
    unknown: HashSet<Session>,
    fetches: HashMap<u64, i64>,
    hasher: DefaultHashBuilder,
}

/// The lines to examine.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only flows of this tier.
    pub tier: Option<String>,
    /// Only flows that this rule, list or default decided.
    pub rule: Option<String>,
    /// Whether to include refused flows, besides observed ones.
    pub refused: bool,
}

/// A flow that needs a rule.
struct Observed<'l, 'a> {
    line: &'l Recorded<'a>,
    now: Outcome,
    day: &'l str,
    session: Option<Session>,
    after_fetch: bool,
    /// Whether the tool that fetches pages made the flow.
    fetches: bool,
}

impl Scope {
    fn has(&self, line: &Recorded<'_>) -> bool {
        let is = |wanted: &Option<String>, of: &Option<Text<'_>>| {
            wanted.as_deref().is_none_or(|it| of.as_deref() == Some(it))
        };
        is(&self.tier, &line.tier) && is(&self.rule, &line.rule)
    }
}

impl Needs {
    /// Adds a line.
    pub fn add_line(&mut self, policy: &Policy, scope: &Scope, line: &[u8]) {
        let Ok(line) = Recorded::read(line) else {
            self.unreadable += u64::from(!line.is_empty());
            return;
        };
        let session = line.session.as_deref().map(|it| self.hasher.hash_one(it));
        let at = line.timestamp.parse::<Timestamp>().ok();
        let fetches = matches!(&*line.event, "tool_call_started" | "decision")
            && line.tool.as_deref() == Some("WebFetch");
        if let (true, Some(session), Some(at)) = (fetches, session, at) {
            self.note_fetch(session, at.as_second());
        }
        let Some(at) = at.filter(|_| &*line.event == "decision" && scope.has(&line)) else {
            return;
        };
        self.flows += 1;
        let day = text(line.timestamp.get(..10).unwrap_or_default());
        let counted = self.count_session(&line, &day);
        let Ok((_, [now, _])) = Judge::new(policy, "").weigh(&line) else {
            self.undetermined += 1;
            self.unknown.extend(counted);
            return;
        };
        let passes = now.effect.enforced() == Verdict::Allow;
        if self.days.len() < MAX_DAYS || self.days.contains_key(&day) {
            let of_day = self.days.entry(day.clone()).or_default();
            of_day.0 += 1;
            of_day.1 += u64::from(passes);
        }
        self.note_names(&line, &day);
        if line.would.is_some() {
            self.observing.extend(line.tier.as_deref().map(text));
        }
        if passes {
            self.covered += 1;
            return;
        }
        if line.would.is_none() && !scope.refused {
            return;
        }
        let last_fetch = session.and_then(|session| self.fetches.get(&session));
        let is_near = |last: &i64| (0..=AFTER_FETCH).contains(&(at.as_second() - last));
        let after_fetch = last_fetch.is_some_and(is_near);
        let flow = Observed {
            line: &line,
            now,
            day: &day,
            session: counted,
            after_fetch,
            fetches,
        };
        self.need(policy, flow);
    }

    /// Returns the number of sessions with flows since a day, and how many of them have only flows
    /// that pass, or whose need is settled.
    pub fn sessions_since(&self, day: &str, is_settled: impl Fn(&Need) -> bool) -> (usize, usize) {
        let mut blocked = self.unknown.clone();
        for (need, seen) in &self.by_need {
            if !is_settled(need) {
                blocked.extend(&seen.sessions);
            }
        }
        let recent = self
            .sessions
            .iter()
            .filter(|(_, last)| last.as_str() >= day);
        recent.fold((0, 0), |(all, pass), (session, _)| {
            (all + 1, pass + usize::from(!blocked.contains(session)))
        })
    }

    /// Counts the session of a line. Returns `None` if there are too many sessions.
    fn count_session(&mut self, line: &Recorded<'_>, day: &str) -> Option<Session> {
        let evidence = line.session_evidence.as_deref();
        let has_evidence = matches!(evidence, Some("certificate" | "oidc" | "process" | "token"));
        let root = line.session_root.as_deref().or(line.session.as_deref());
        let user = line.user.as_deref().unwrap_or_default();
        let session = match root.filter(|_| has_evidence) {
            Some(root) => self.hasher.hash_one(("session", root)),
            None => self.hasher.hash_one((user, day)),
        };
        if self.sessions.len() >= MAX_ALL_SESSIONS && !self.sessions.contains_key(&session) {
            return None;
        }
        let last = self.sessions.entry(session).or_default();
        if last.as_str() < day {
            day.clone_into(last);
        }
        Some(session)
    }

    /// Notes when a session fetched a page. If there are too many sessions, those with a fetch older than
    /// [`AFTER_FETCH`] are removed first.
    fn note_fetch(&mut self, session: u64, at: i64) {
        if self.fetches.len() >= MAX_FETCHES {
            self.fetches.retain(|_, last| at - *last <= AFTER_FETCH);
        }
        if self.fetches.len() < MAX_FETCHES || self.fetches.contains_key(&session) {
            self.fetches.insert(session, at);
        }
    }

    /// Returns the needs, those with most flows first.
    pub fn all(&self) -> Vec<(&Need, &Seen)> {
        let mut all: Vec<_> = self.by_need.iter().collect();
        all.sort_by(|(one, of_one), (other, of_other)| {
            of_other
                .flows
                .cmp(&of_one.flows)
                .then_with(|| one.cmp(other))
        });
        all
    }

    fn need(&mut self, policy: &Policy, flow: Observed<'_, '_>) {
        let Observed { line, day, .. } = flow;
        let Some(recorded) = Flow::of(line, policy) else {
            self.unknown.extend(flow.session);
            return;
        };
        let tier = policy.tier_name(who(line, policy).tier).to_string();
        let need = Need {
            tier,
            host: recorded.target.host.to_string(),
            port: recorded.target.port,
            request: recorded.request.as_ref().map(|_| does(line)),
            now: flow.now,
        };
        if self.by_need.len() >= MAX_NEEDS && !self.by_need.contains_key(&need) {
            self.more += 1;
            self.unknown.extend(flow.session);
            return;
        }
        let seen = self
            .by_need
            .entry(need)
            .or_insert_with(|| Seen::new(line, recorded.written(line, policy)));
        seen.flows += 1;
        seen.after_fetch += u64::from(flow.after_fetch);
        seen.fetches += u64::from(flow.fetches);
        if seen.days.len() < MAX_DAYS || seen.days.contains_key(day) {
            *seen.days.entry(day.to_owned()).or_default() += 1;
        }
        seen.note_caller(line);
        match flow.session {
            Some(session) if seen.sessions.len() < MAX_SESSIONS => {
                seen.sessions.insert(session);
            }
            session => self
                .unknown
                .extend(session.filter(|it| !seen.sessions.contains(it))),
        }
    }

    fn note_names(&mut self, line: &Recorded<'_>, day: &str) {
        let repository = line.repository.as_deref();
        let pair = |one: Option<&str>, other: &Option<Text<'_>>| {
            let (one, other) = one.zip(other.as_deref())?;
            Some(format!("{} {}", text(one), text(other)))
        };
        let named = [
            (&mut self.repositories, repository.map(text)),
            (&mut self.branches, pair(repository, &line.branch)),
            (&mut self.jobs, pair(line.pipeline.as_deref(), &line.task)),
        ];
        for (names, name) in named {
            let Some(name) = name else { continue };
            if names.len() < MAX_NAMES || names.contains_key(&name) {
                let (days, flows) = names.entry(name).or_default();
                *flows += 1;
                if days.len() < MAX_DAYS {
                    days.insert(day.to_owned());
                }
            }
        }
    }
}

impl Seen {
    fn new(line: &Recorded<'_>, entry: Option<String>) -> Self {
        Self {
            flows: 0,
            days: BTreeMap::new(),
            repositories: BTreeSet::new(),
            unverified: 0,
            groups: None,
            after_fetch: 0,
            fetches: 0,
            user_agent: line.user_agent.as_deref().map(text),
            flow: text(&line.flow),
            entry,
            category: line.category.as_deref().map(text).unwrap_or_default(),
            sessions: HashSet::new(),
        }
    }

    /// Adds the evidence about the caller of a flow.
    fn note_caller(&mut self, line: &Recorded<'_>) {
        let groups = line.groups.iter().take(MAX_NAMES).map(|it| text(it));
        let groups: BTreeSet<String> = groups.collect();
        self.groups = Some(match self.groups.take() {
            None => groups,
            Some(known) => known.intersection(&groups).cloned().collect(),
        });
        let verified = line.repository.as_deref();
        let verified = verified.filter(|_| line.is_repository_verified());
        match verified {
            Some(name) if self.repositories.len() < MAX_NAMES => {
                self.repositories.insert(text(name));
            }
            _ => self.unverified += 1,
        }
    }

    /// Returns the number of sessions, at most a thousand. A session without evidence of the session
    /// is counted by its user and day.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

fn does(line: &Recorded<'_>) -> Does {
    let of = |field: &Option<Text<'_>>| field.as_deref().map(text);
    Does {
        service: of(&line.service),
        operation: of(&line.operation),
        action: of(&line.action).filter(|action| action != "any"),
        repository: of(&line.destination_repository),
        reference: of(&line.destination_ref),
        package: of(&line.package).filter(|_| line.action.as_deref() == Some("write")),
        server: of(&line.mcp_server),
        tool: of(&line.mcp_tool),
    }
}
