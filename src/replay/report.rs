//! Sums up the results of all flows in some files of records, in bounded memory.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::io;
use std::path::Path;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::judge::{Effect, Judged, Judging, NotJudged, Outcome, Undetermined};
use super::lines::{self, Line};
use super::recorded::{Recorded, kept as text};

/// Maximum number of groups of changed flows; flows of further groups are counted.
const MAX_GROUPS: usize = 1000;
/// Maximum number of distinct sessions of one group.
const MAX_SESSIONS: usize = 1000;
/// Maximum number of named repositories of one group.
const MAX_REPOSITORIES: usize = 20;

/// The results of recorded flows under a policy.
#[derive(Debug, Default)]
pub struct Report {
    /// Examined flows.
    pub flows: u64,
    /// Flows whose verdict is the same.
    pub same: u64,
    /// Those of them with another rule or reason.
    pub by_other_rule: u64,
    /// Flows whose verdict changes.
    pub changed: u64,
    /// Flows whose verdict depends on unrecorded facts.
    pub undetermined: BTreeMap<Undetermined, u64>,
    /// Flows that no policy decided.
    pub not_judged: BTreeMap<NotJudged, u64>,
    /// Flows that this policy decided, according to the record: none of them changes.
    pub own: Own,
    /// Lines that are not records.
    pub unreadable: u64,
    /// Lines of records other than decisions.
    pub others: u64,
    /// The recorded times of the first and the last decision.
    pub times: Option<(String, String)>,
    /// Changed flows of groups beyond the maximum.
    pub more: u64,
    /// The beginning of the period, in the time format of records. Empty: all flows are judged.
    pub since: String,
    /// Lines of flows before that time.
    pub earlier: u64,
    groups: HashMap<Change, Group>,
    hasher: DefaultHashBuilder,
}

/// Flows whose record names the policy that judges them again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Own {
    /// The number of flows.
    pub flows: u64,
    /// Flows whose verdict changes.
    pub changed: u64,
    /// Flows with another rule or reason.
    pub by_other_rule: u64,
    /// Flows whose verdict depends on unrecorded facts.
    pub undetermined: u64,
}

/// The key of a group of flows.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Change {
    /// The outcome before.
    pub was: Effect,
    /// The outcome now.
    pub now: Effect,
    /// The host and port.
    pub target: String,
    /// The rule that decided, its location, and the reason.
    pub was_by: [String; 3],
    /// The rule that decides now, its location, and the reason.
    pub now_by: [String; 3],
}

/// Flows whose verdict changes in the same way.
#[derive(Debug, Default)]
pub struct Group {
    /// The number of flows.
    pub flows: u64,
    /// The id of the first flow.
    pub first: String,
    /// The times of the first and the last flow.
    pub times: (String, String),
    /// Repositories, with their numbers of flows.
    pub repositories: BTreeMap<String, u64>,
    /// Flows of further repositories, and without one.
    pub elsewhere: u64,
    /// Some sessions by name.
    pub some_sessions: Vec<String>,
    sessions: HashSet<u64>,
}

impl Report {
    /// Returns a report on the flows since a time.
    pub fn since(time: Timestamp) -> Self {
        Self {
            since: format!("{time:.6}"),
            ..Self::default()
        }
    }

    /// Judges the flows of a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn add_file(&mut self, judge: &impl Judging, path: &Path) -> io::Result<()> {
        lines::each(path, |line| match line {
            Line::Whole(line) => self.add_line(judge, line),
            Line::TooLong => self.unreadable += 1,
        })
    }

    /// Judges the flow of a line, if it has one.
    pub fn add_line(&mut self, judge: &impl Judging, line: &[u8]) {
        if is_close(line) {
            self.others += 1;
            return;
        }
        let Ok(line) = Recorded::read(line) else {
            self.unreadable += u64::from(!line.is_empty());
            return;
        };
        let ended = line.repeat_state.as_deref() == Some("ended");
        match (&*line.event, ended) {
            ("decision" | "refusals_repeated", _) if *line.timestamp < *self.since => {
                self.earlier += 1;
            }
            ("decision", _) => {
                let judged = judge.judge(&line);
                if let Some(own) = judge.own(&line, &judged) {
                    self.own.count(1, &own);
                }
                self.count(&line, 1, judged);
            }
            ("refusals_repeated", true) if line.is_tunnel() && line.host.is_some() => {
                let judged = judge.judge(&line);
                self.count(&line, line.repeat_count, judged);
            }
            ("refusals_repeated", true) => {
                let judged = Judged::NotJudged(NotJudged::Counted);
                self.count(&line, line.repeat_count, judged);
            }
            ("", _) => self.unreadable += 1,
            _ => self.others += 1,
        }
    }

    /// Rewrites the locations of rules: those of the first and of the second policy.
    pub fn rename_places(&mut self, names: [&dyn Fn(&str) -> String; 2]) {
        let [was, now] = names;
        let groups = std::mem::take(&mut self.groups).into_iter();
        self.groups = groups
            .map(|(mut change, group)| {
                change.was_by[1] = was(&change.was_by[1]);
                change.now_by[1] = now(&change.now_by[1]);
                (change, group)
            })
            .collect();
    }

    /// Returns the groups of changed flows: by the change, the largest first.
    pub fn groups(&self) -> Vec<(&Change, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|(one, of_one), (other, of_other)| {
            let effects = (one.was, one.now).cmp(&(other.was, other.now));
            let sizes = of_other.flows.cmp(&of_one.flows);
            effects.then(sizes).then_with(|| one.cmp(other))
        });
        groups
    }

    /// Returns the report as data.
    pub fn as_json(&self) -> Value {
        let words = |(word, flows): (&'static str, u64)| (word.to_owned(), Value::from(flows));
        let undetermined = self.undetermined.iter().map(|(it, n)| (it.as_str(), *n));
        let not_judged = self.not_judged.iter().map(|(it, n)| (it.as_str(), *n));
        let groups = self.groups();
        let groups = groups
            .into_iter()
            .map(|(change, group)| group.as_json(change));
        json!({
            "flows": self.flows,
            "first": self.times.as_ref().map(|times| &times.0),
            "last": self.times.as_ref().map(|times| &times.1),
            "same": self.same,
            "by_other_rule": self.by_other_rule,
            "changed": self.changed,
            "earlier": self.earlier,
            "undetermined": undetermined.map(words).collect::<serde_json::Map<_, _>>(),
            "not_judged": not_judged.map(words).collect::<serde_json::Map<_, _>>(),
            "own": {
                "flows": self.own.flows,
                "changed": self.own.changed,
                "by_other_rule": self.own.by_other_rule,
                "undetermined": self.own.undetermined,
            },
            "lines": { "unreadable": self.unreadable, "others": self.others },
            "changes": groups.collect::<Vec<_>>(),
            "changed_elsewhere": self.more,
        })
    }

    fn count(&mut self, line: &Recorded<'_>, flows: u64, judged: Judged) {
        // A line may contain any number.
        let add = |sum: &mut u64| *sum = sum.saturating_add(flows);
        add(&mut self.flows);
        let at = text(&line.timestamp);
        match &mut self.times {
            Some((first, last)) => {
                if at < *first {
                    *first = at;
                } else if at > *last {
                    *last = at;
                }
            }
            none => *none = Some((at.clone(), at)),
        }
        match judged {
            Judged::Same { by_other_rule } => {
                add(&mut self.same);
                if by_other_rule {
                    add(&mut self.by_other_rule);
                }
            }
            Judged::Undetermined(why) => add(self.undetermined.entry(why).or_default()),
            Judged::NotJudged(why) => add(self.not_judged.entry(why).or_default()),
            Judged::Changed { was, now } => {
                add(&mut self.changed);
                self.change(line, flows, &was, &now);
            }
        }
    }

    fn change(&mut self, line: &Recorded<'_>, flows: u64, was: &Outcome, now: &Outcome) {
        let by = |it: &Outcome| [&it.rule, &it.location, &it.reason].map(|it| text(it));
        let host = line.host.as_deref().unwrap_or_default();
        let change = Change {
            was: was.effect,
            now: now.effect,
            target: format!("{}:{}", text(host), line.port.unwrap_or_default()),
            was_by: by(was),
            now_by: by(now),
        };
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&change) {
            self.more = self.more.saturating_add(flows);
            return;
        }
        let session = line.session.as_deref();
        let hash = session.map(|session| self.hasher.hash_one(session));
        let group = self.groups.entry(change).or_default();
        group.add(line, flows, hash);
    }
}

impl Own {
    fn count(&mut self, flows: u64, judged: &Judged) {
        let add = |sum: &mut u64| *sum = sum.saturating_add(flows);
        add(&mut self.flows);
        match judged {
            Judged::Changed { .. } => add(&mut self.changed),
            Judged::Undetermined(_) => add(&mut self.undetermined),
            Judged::Same {
                by_other_rule: true,
            } => add(&mut self.by_other_rule),
            Judged::Same { .. } | Judged::NotJudged(_) => {}
        }
    }
}

impl Group {
    /// Returns the number of sessions, at most `MAX_SESSIONS`.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there may be more sessions than the maximum.
    pub fn has_more_sessions(&self) -> bool {
        self.sessions.len() >= MAX_SESSIONS
    }

    fn add(&mut self, line: &Recorded<'_>, flows: u64, session: Option<u64>) {
        let at = text(&line.timestamp);
        if self.flows == 0 {
            self.first = text(&line.flow);
            self.times = (at.clone(), at.clone());
        }
        if at < self.times.0 {
            self.times.0.clone_from(&at);
            self.first = text(&line.flow);
        }
        if at > self.times.1 {
            self.times.1 = at;
        }
        self.flows = self.flows.saturating_add(flows);
        if let Some(hash) = session.filter(|_| !self.has_more_sessions())
            && self.sessions.insert(hash)
            && self.some_sessions.len() < 3
        {
            self.some_sessions.extend(line.session.as_deref().map(text));
        }
        let Some(repository) = line.repository.as_deref().map(text) else {
            self.elsewhere = self.elsewhere.saturating_add(flows);
            return;
        };
        let room = self.repositories.len() < MAX_REPOSITORIES;
        if let Some(known) = self.repositories.get_mut(&repository) {
            *known = known.saturating_add(flows);
        } else if room {
            self.repositories.insert(repository, flows);
        } else {
            self.elsewhere = self.elsewhere.saturating_add(flows);
        }
    }

    fn as_json(&self, change: &Change) -> Value {
        let side = |effect: Effect, [rule, location, reason]: &[String; 3]| {
            json!({
                "verdict": effect.verdict,
                "would": effect.would,
                "inspected": effect.inspected,
                "rule": rule,
                "location": location,
                "reason": reason,
            })
        };
        json!({
            "target": change.target,
            "was": side(change.was, &change.was_by),
            "now": side(change.now, &change.now_by),
            "flows": self.flows,
            "flow": self.first,
            "first": self.times.0,
            "last": self.times.1,
            "sessions": self.sessions(),
            "more_sessions": self.has_more_sessions(),
            "some_sessions": self.some_sessions,
            "repositories": self.repositories,
            "elsewhere": self.elsewhere,
        })
    }
}

/// Whether a line is a `close`, by its beginning as the gate writes it: half of all lines.
fn is_close(line: &[u8]) -> bool {
    const NAME: &[u8] = br#","event.name":"close","#;
    let time = br#"{"timestamp":"2026-01-01T00:00:00.000000Z""#.len();
    line.get(time..).is_some_and(|rest| rest.starts_with(NAME))
}
