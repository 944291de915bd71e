//! The report of the doctor: as text, as JSON, as an exit code, and to the gate.

use std::io;

use serde_json::{Map, Value, json};

use crate::cli::tree::Tree;
use crate::cli::{Answer, admin, print};
use crate::config::AdminAddress;
use crate::metrics::PROBES;

/// The groups, in the order of the text.
const CHECKS: [&str; 8] = [
    "jail",
    "proxy",
    "policy",
    "upstreams",
    "runtimes",
    "no_proxy",
    "reach",
    "sockets",
];

/// The state of a checked item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Correct.
    Fine,
    /// Not tested, or without a result.
    Unknown,
    /// To be fixed.
    Finding,
    /// A way out that bypasses the proxy.
    Open,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Finding => "finding",
            Self::Open => "open",
        }
    }

    fn mark(self) -> char {
        match self {
            Self::Fine => '✓',
            Self::Unknown => '·',
            Self::Finding => '!',
            Self::Open => '✗',
        }
    }
}

/// One checked item.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The group, one of [`CHECKS`].
    pub(super) check: &'static str,
    /// What was checked.
    pub(super) subject: String,
    /// The state.
    pub(super) state: State,
    /// The observation.
    pub(super) text: String,
    /// The fix: a command, or a line to write.
    pub(super) fix: Option<String>,
    /// The probe of the metric that the item counts for.
    pub(super) probe: Option<&'static str>,
}

impl Item {
    fn new(check: &'static str, subject: String, state: State, text: String) -> Self {
        Self {
            check,
            subject,
            state,
            text,
            fix: None,
            probe: None,
        }
    }

    /// An item without a fault.
    pub(super) fn fine(
        check: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, subject.into(), State::Fine, text.into())
    }

    /// An item without a result.
    pub(super) fn unknown(
        check: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, subject.into(), State::Unknown, text.into())
    }

    /// An item to fix.
    pub(super) fn finding(
        check: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, subject.into(), State::Finding, text.into())
    }

    /// An item that is a way out.
    pub(super) fn open(
        check: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, subject.into(), State::Open, text.into())
    }

    /// Whether the item leaves no way out: a broken promise of a jail is one.
    fn holds(&self) -> bool {
        match self.state {
            State::Open => false,
            State::Finding => self.check != "jail",
            State::Fine | State::Unknown => true,
        }
    }

    /// Adds the fix.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds the probe of the metric.
    pub(super) fn probe(mut self, probe: &'static str) -> Self {
        self.probe = Some(probe);
        self
    }
}

/// All items.
#[derive(Debug)]
pub(super) struct Report {
    items: Vec<Item>,
    /// Whether the configuration loads.
    loads: bool,
}

impl Report {
    /// Makes the report of these items.
    pub(super) fn new(items: Vec<Item>, loads: bool) -> Self {
        Self { items, loads }
    }

    fn has(&self, state: State) -> bool {
        self.items.iter().any(|item| item.state == state)
    }

    /// Whether there is no way out, and every promise of a jail holds.
    fn is_contained(&self) -> bool {
        self.items.iter().all(Item::holds)
    }

    /// Returns the exit code; `otherwise` if there is nothing worse than a finding.
    pub(super) fn answer(&self, otherwise: Answer) -> Answer {
        if self.has(State::Open) {
            Answer::NotContained
        } else if !self.loads {
            Answer::Wrong
        } else if otherwise == Answer::Yes && self.has(State::Finding) {
            Answer::No
        } else {
            otherwise
        }
    }

    /// Returns, by probe, whether all of its items stayed inside.
    fn probes(&self) -> Value {
        let of = |probe: &str| {
            let mut states = self
                .items
                .iter()
                .filter(|item| item.probe == Some(probe))
                .map(Item::holds)
                .peekable();
            states.peek()?;
            Some(states.all(|state| state))
        };
        let known = PROBES
            .iter()
            .filter_map(|probe| Some(((*probe).to_owned(), Value::Bool(of(probe)?))));
        Value::Object(known.collect::<Map<_, _>>())
    }

    /// Sends the report to the gate, with a report token.
    pub(super) fn send(&self, address: &AdminAddress, token: &str) -> io::Result<()> {
        let (path, patience) = ("/v1/contained", admin::PATIENCE);
        let recipient = admin::Recipient::Any;
        let bearer = admin::Bearer { token, recipient };
        let (status, body) = admin::post(address, path, Some(bearer), &self.probes(), patience)?;
        if status == 204 {
            return Ok(());
        }
        let said = print::clean(body.trim(), 200);
        Err(io::Error::other(format!("{status} {said}")))
    }

    /// Formats the report as JSON, in a stable order.
    pub(super) fn as_json(&self) -> Value {
        let items = self.items.iter().map(|item| {
            json!({
                "check": item.check,
                "subject": item.subject,
                "state": item.state.word(),
                "text": item.text,
                "fix": item.fix,
            })
        });
        json!({
            "ok": self.answer(Answer::Yes) == Answer::Yes,
            "contained": self.is_contained(),
            "probes": self.probes(),
            "items": items.collect::<Vec<_>>(),
        })
    }

    /// Formats the report as a tree, at most 100 columns wide.
    pub(super) fn draw(&self) -> String {
        let jailed = self.items.iter().any(|item| item.check == "jail");
        let verdict = match self.answer(Answer::Yes) {
            _ if !self.is_contained() => "not contained",
            Answer::Yes if jailed => "contained",
            Answer::Yes => "fine",
            Answer::NotContained => "not contained",
            _ => "contained, with findings",
        };
        let mut tree = Tree::new("doctor", verdict);
        for check in CHECKS {
            let items = self.items.iter().filter(|item| item.check == check);
            tree.stages(check, items.flat_map(lines).collect());
        }
        tree.draw()
    }
}

/// Requests a report token from the control socket.
pub(super) fn token(control: &AdminAddress, lifetime: u32, reports: u32) -> io::Result<String> {
    let asked = json!({ "lifetime": lifetime, "reports": reports });
    let (status, body) = admin::tell(control, "/v1/contained/token", &asked).map_err(|error| {
        let control = admin::show_address(control);
        io::Error::new(error.kind(), format!("control socket {control}: {error}"))
    })?;
    let made = serde_json::from_str::<Value>(&body).unwrap_or_default();
    match made.get("token").and_then(Value::as_str) {
        Some(token) if status == 200 => Ok(token.to_owned()),
        _ => {
            let said = print::clean(body.trim(), 200);
            Err(io::Error::other(format!("{status} {said}")))
        }
    }
}

fn lines(item: &Item) -> Vec<String> {
    let line = format!("{} {}: {}", item.state.mark(), item.subject, item.text);
    // The tree truncates long lines, so they are wrapped at words.
    let fix = item.fix.as_ref().map(|fix| format!("fix: {fix}"));
    let mut all = broken(&line);
    all.extend(
        fix.iter()
            .flat_map(|fix| broken(fix))
            .map(|line| format!("  {line}")),
    );
    all
}

fn broken(text: &str) -> Vec<String> {
    const ROOM: usize = 80;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) if last.chars().count() + 1 + word.chars().count() <= ROOM => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines
}
