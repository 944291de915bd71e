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
/// Maximum number of distinct sessions of one need, and of all flows.
const MAX_SESSIONS: usize = 1000;
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
    /// Flows shortly after a page was fetched in the same session.
    pub after_fetch: u64,
    /// The id of the first flow.
    pub flow: String,
    /// The flow in the notation of trials, if possible.
    pub entry: Option<String>,
    /// The category of the destination.
    pub category: String,
    sessions: HashSet<u64>,
}

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
            if self.fetches.len() >= MAX_FETCHES {
                self.fetches.clear();
            }
            self.fetches.insert(session, at.as_second());
        }
        let Some(at) = at.filter(|_| &*line.event == "decision" && scope.has(&line)) else {
            return;
        };
        self.flows += 1;
        let Ok((_, [now, _])) = Judge::new(policy, "").weigh(&line) else {
            self.undetermined += 1;
            return;
        };
        let day = text(line.timestamp.get(..10).unwrap_or_default());
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
        self.need(policy, &line, now, &day, session, after_fetch);
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

    fn need(
        &mut self,
        policy: &Policy,
        line: &Recorded<'_>,
        now: Outcome,
        day: &str,
        session: Option<u64>,
        after_fetch: bool,
    ) {
        let Some(flow) = Flow::of(line, policy) else {
            return;
        };
        let tier = policy.tier_name(who(line, policy).tier).to_string();
        let need = Need {
            tier,
            host: flow.target.host.to_string(),
            port: flow.target.port,
            request: flow.request.as_ref().map(|_| does(line)),
            now,
        };
        if self.by_need.len() >= MAX_NEEDS && !self.by_need.contains_key(&need) {
            self.more += 1;
            return;
        }
        let seen = self.by_need.entry(need).or_insert_with(|| Seen {
            flows: 0,
            days: BTreeMap::new(),
            repositories: BTreeSet::new(),
            unverified: 0,
            after_fetch: 0,
            flow: text(&line.flow),
            entry: flow.written(line, policy),
            category: line.category.as_deref().map(text).unwrap_or_default(),
            sessions: HashSet::new(),
        });
        seen.flows += 1;
        seen.after_fetch += u64::from(after_fetch);
        if seen.days.len() < MAX_DAYS || seen.days.contains_key(day) {
            *seen.days.entry(day.to_owned()).or_default() += 1;
        }
        if seen.sessions.len() < MAX_SESSIONS {
            seen.sessions.extend(session);
        }
        let verified = line
            .repository
            .as_deref()
            .filter(|_| line.is_repository_verified());
        match verified {
            Some(name) if seen.repositories.len() < MAX_NAMES => {
                seen.repositories.insert(text(name));
            }
            _ => seen.unverified += 1,
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
    /// Returns the number of sessions, at most a thousand.
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
        server: of(&line.mcp_server),
        tool: of(&line.mcp_tool),
    }
}
