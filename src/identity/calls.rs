//! Tool calls of agents, as their hooks tell them, and which flow belongs to which: labels.
//!
//! Every command of a session has a span of its own in its username. The first flow of a span binds
//! it to a call: by the command line of its shell where that is on this host (the span begins with
//! the shell's process id), else by which calls are open. Once bound a span keeps its call, so
//! that what a command leaves running in the background stays told apart from what comes later.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::caller::{Caller, Evidence, Trust};
use super::grant::{Process, ToolCall};

/// Sessions whose calls are known.
const MOST_SESSIONS: usize = 4096;
/// Calls of one session, open or over.
const MOST_CALLS: usize = 64;
/// Spans of one session.
const MOST_SPANS: usize = 512;
/// Refusals that one call is told of.
const MOST_REFUSED: usize = 16;
/// Bytes of a command line that are compared.
const LONGEST: usize = 32 * 1024;
/// Shorter texts are in everything.
const SHORTEST: usize = 4;
/// When a call that nobody closed is over: its hook was lost, or a person said no to it.
const OVER: SignedDuration = SignedDuration::from_hours(6);

/// Tool calls by session.
#[derive(Debug, Default)]
pub struct Calls {
    known: Mutex<HashMap<Arc<str>, Agent>>,
}

/// Where the flows of a tool come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// A command: a process with a span of its own.
    Bash,
    /// The process of the agent.
    Main,
    /// An MCP server, or the agent's own connection to one.
    Mcp,
}

impl Place {
    /// By the name of the tool; `None` where it reaches nothing.
    pub fn of_tool(name: &str) -> Option<Self> {
        match name {
            "Bash" | "PowerShell" => Some(Self::Bash),
            "WebFetch" | "WebSearch" => Some(Self::Main),
            name if name.starts_with("mcp__") => Some(Self::Mcp),
            _ => None,
        }
    }
}

/// A flow that was refused during a call. No text of strangers: the host is canonical, the rest are
/// words of closed lists and of the policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// The canonical host and port.
    pub target: Box<str>,
    /// The category.
    pub category: &'static str,
    /// The code of the refusal.
    pub reason: &'static str,
    /// The tier.
    pub tier: Option<Arc<str>>,
    /// The flow, for `tidegate explain`.
    pub flow: uuid::Uuid,
}

/// What is known of one session's calls, the oldest first.
#[derive(Debug, Default)]
struct Agent {
    calls: VecDeque<Entry>,
    /// Spans that belong to a call.
    spans: VecDeque<Span>,
    next: u64,
    /// Whether a shell of it was found among the processes of this host.
    local: bool,
}

#[derive(Debug)]
struct Span {
    name: Arc<str>,
    /// The number of its call.
    number: u64,
    /// The shell whose command line is the call's, where the agent itself started that shell.
    shell: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    call: Arc<ToolCall>,
    place: Place,
    /// The command, without what shells quote with.
    command: Option<Box<str>>,
    began: Timestamp,
    open: bool,
    bound: bool,
    refused: Vec<Refused>,
}

/// The tool call that a flow belongs to.
#[derive(Clone, Debug)]
pub struct Attributed {
    /// The call.
    pub call: Arc<ToolCall>,
    /// Who says that it is this one: `verified` where the agent's own process reported the call and
    /// the flow comes from the shell that the agent started for it, or from the agent itself.
    pub trust: Trust,
}

impl Calls {
    /// A tool is about to be used.
    ///
    /// A report that may come from any process changes nothing of a call that the agent's own
    /// process reported.
    pub fn open(
        &self,
        session: &Arc<str>,
        (call, place): (ToolCall, Place),
        command: Option<&str>,
        now: Timestamp,
    ) {
        let mut known = self.lock();
        if known.len() >= MOST_SESSIONS && !known.contains_key(session) {
            known.retain(|_, agent| agent.calls.iter().any(|entry| !is_over(entry, now)));
            if known.len() >= MOST_SESSIONS {
                return;
            }
        }
        let agent = known.entry(session.clone()).or_default();
        agent.settle(&call, now);
        if !agent.has_room_for(&call) {
            return;
        }
        agent.next += 1;
        agent.calls.push_back(Entry {
            number: agent.next,
            call: Arc::new(call),
            place,
            command: command.map(|text| bare(text).into()),
            began: now,
            open: true,
            bound: false,
            refused: Vec::new(),
        });
    }

    /// A tool was used, as a report of that `trust` says; what was refused meanwhile and not told
    /// before. A report that may come from any process does not end a call that the agent's own
    /// process reported.
    pub fn close(&self, session: &str, id: &str, trust: Trust) -> Vec<Refused> {
        let mut known = self.lock();
        let entry = known.get_mut(session).and_then(|agent| agent.entry(id));
        let entry = entry.filter(|entry| trust == Trust::Verified || !entry.is_verified());
        entry.map_or_else(Vec::new, |entry| {
            entry.open = false;
            std::mem::take(&mut entry.refused)
        })
    }

    /// The call that a flow belongs to; `agent` is the process of an agent that this process
    /// started.
    pub fn of(&self, caller: &Caller, here: bool, agent: Option<u32>) -> Option<Attributed> {
        // Who only names a session has no part in its calls.
        let shown = match caller.evidence {
            Evidence::Listener => caller.trust == Trust::Verified,
            evidence => evidence == Evidence::Token,
        };
        let session = caller.session.as_ref().filter(|_| shown)?;
        let span = caller.labels.span_id.as_ref();
        let process = caller.process.as_deref();
        match caller.channel.as_deref() {
            Some("bash") => self.of_span(session, span?, process, here, agent),
            Some("mcp") => self.only(session, &[Place::Mcp], false),
            Some("main") | None => {
                let by_agent = process.is_some_and(|process| Some(process.pid) == agent);
                self.only(session, &[Place::Main, Place::Mcp], by_agent)
            }
            Some(_) => None,
        }
    }

    /// A flow of that call was refused.
    pub fn refused(&self, session: &str, call: &ToolCall, refused: Refused) {
        let mut known = self.lock();
        let Some(id) = call.id.as_deref() else {
            return;
        };
        if let Some(entry) = known.get_mut(session).and_then(|agent| agent.entry(id))
            && entry.refused.len() < MOST_REFUSED
            && !entry.refused.iter().any(|it| it.target == refused.target)
        {
            entry.refused.push(refused);
        }
    }

    /// Forgets the calls of a session that ended.
    pub fn forget(&self, session: &str) {
        self.lock().remove(session);
    }

    fn of_span(
        &self,
        session: &str,
        span: &Arc<str>,
        process: Option<&Process>,
        here: bool,
        agent: Option<u32>,
    ) -> Option<Attributed> {
        let own = process.and_then(|process| shell_above(process, span, agent));
        if let Some(bound) = self.lock().get(session)?.bound(span, own) {
            return Some(bound);
        }
        // Read without the lock: the kernel may take its time.
        let shell = match own {
            Some(own) => command_line(own),
            None if here => shell_of(span),
            None => None,
        };
        let shell = shell.as_deref().map(bare);
        let command = process.map(|process| bare(&process.command));
        let mut known = self.lock();
        let agent = known.get_mut(session)?;
        agent.bind(span, shell.as_deref(), command.as_deref(), own);
        agent.bound(span, own)
    }

    /// The one open call of these places, where there is exactly one.
    fn only(&self, session: &str, places: &[Place], by_agent: bool) -> Option<Attributed> {
        let known = self.lock();
        let calls = &known.get(session)?.calls;
        let open = |verified: bool| {
            calls.iter().filter(move |it| {
                it.open && places.contains(&it.place) && it.is_verified() == verified
            })
        };
        // Reports of any process do not hide a call that the agent reported.
        let verified = open(true).next().is_some();
        let mut open = open(verified);
        let first = open.next()?;
        open.next().is_none().then(|| Attributed {
            call: first.call.clone(),
            trust: trust_of(first, by_agent),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Agent>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A report of the agent's own process, for a flow that is shown to be of that call.
fn trust_of(entry: &Entry, shown: bool) -> Trust {
    if shown && entry.is_verified() {
        Trust::Verified
    } else {
        Trust::Asserted
    }
}

impl Entry {
    /// Whether the agent's own process reported it.
    fn is_verified(&self) -> bool {
        self.call.trust == Trust::Verified
    }
}

impl Agent {
    /// Calls that were never closed: of an earlier prompt of the same agent, or too old.
    fn settle(&mut self, next: &ToolCall, now: Timestamp) {
        for entry in &mut self.calls {
            let same = entry.call.agent == next.agent && next.agent.is_none();
            let may = next.trust == Trust::Verified || !entry.is_verified();
            let earlier = may && same && next.prompt.is_some() && entry.call.prompt != next.prompt;
            entry.open &= !earlier && !is_over(entry, now);
        }
    }

    /// Whether a new report is taken; makes room for it.
    fn has_room_for(&mut self, next: &ToolCall) -> bool {
        let verified = next.trust == Trust::Verified;
        let before = next.id.as_deref().and_then(|id| self.entry(id));
        match before.map(|entry| (entry.is_verified(), entry.open)) {
            // The agent's own report takes the place of a made-up one.
            Some((false, _)) if verified => self.calls.retain(|it| it.call.id != next.id),
            Some((true, _)) if !verified => return false,
            Some((_, true)) => return false,
            _ => {}
        }
        if self.calls.len() >= MOST_CALLS {
            let oldest = self.calls.iter().position(|it| !it.is_verified());
            match oldest {
                Some(at) => drop(self.calls.remove(at)),
                None if verified => drop(self.calls.pop_front()),
                None => return false,
            }
        }
        true
    }

    fn entry(&mut self, id: &str) -> Option<&mut Entry> {
        let mut entries = self.calls.iter_mut();
        entries.rfind(|entry| entry.call.id.as_deref() == Some(id))
    }

    /// The call of a span that was bound; `own` is the shell of the flow that asks, where it is one
    /// that the agent started.
    fn bound(&self, name: &str, own: Option<u32>) -> Option<Attributed> {
        let span = self.spans.iter().rfind(|span| *span.name == *name)?;
        let entry = self
            .calls
            .iter()
            .find(|entry| entry.number == span.number)?;
        Some(Attributed {
            call: entry.call.clone(),
            trust: trust_of(entry, own.is_some() && own == span.shell),
        })
    }

    fn bind(
        &mut self,
        name: &Arc<str>,
        shell: Option<&str>,
        command: Option<&str>,
        own: Option<u32>,
    ) {
        // Another flow of it may have been quicker.
        if self.bound(name, None).is_some() {
            return;
        }
        let by_shell = shell.and_then(|text| self.said(text));
        self.local |= by_shell.is_some();
        let said = by_shell.or_else(|| command.and_then(|text| self.said(text)));
        // The shell of a call that is open lives: one that does not left something behind.
        let left = (self.local && shell.is_none()).then(|| self.last(|it| !it.open && !it.bound));
        let Some(number) = said
            .or(left.flatten())
            .or_else(|| self.last(|it| it.open && !it.bound))
            .or_else(|| self.last(|it| it.open))
            .or_else(|| self.last(|it| !it.bound))
        else {
            return;
        };
        let Some(entry) = self.calls.iter_mut().find(|entry| entry.number == number) else {
            return;
        };
        entry.bound = true;
        if self.spans.len() >= MOST_SPANS {
            self.spans.pop_front();
        }
        self.spans.push_back(Span {
            name: name.clone(),
            number,
            shell: own.filter(|_| by_shell.is_some()),
        });
    }

    /// The call whose command is in this command line, or has this command line in it: of those that
    /// the agent reported, else of the others.
    fn said(&self, text: &str) -> Option<u64> {
        let says = |it: &Entry| {
            let command = it.command.as_deref().unwrap_or_default();
            holds(text, command) || holds(command, text)
        };
        [true, false].into_iter().find_map(|verified| {
            let says = |it: &Entry| it.is_verified() == verified && says(it);
            self.last(|it| it.open && !it.bound && says(it))
                .or_else(|| self.last(|it| it.open && says(it)))
                .or_else(|| self.last(says))
        })
    }

    /// The latest command for which that holds: of those that the agent reported, else of the others.
    fn last(&self, holds: impl Fn(&Entry) -> bool) -> Option<u64> {
        [true, false].into_iter().find_map(|verified| {
            let mut calls = self.calls.iter();
            let found = calls.rfind(|entry| {
                entry.place == Place::Bash && entry.is_verified() == verified && holds(entry)
            });
            found.map(|entry| entry.number)
        })
    }
}

/// The shell that a flow's span names, where it is above the flow's process and the agent itself
/// started it: as this host numbers it.
fn shell_above(process: &Process, span: &str, agent: Option<u32>) -> Option<u32> {
    let named = shell_number(span)?;
    let at = process.lineage.iter().position(|it| it.inner == named)?;
    let (shell, parent) = (process.lineage.get(at)?, process.lineage.get(at + 1)?);
    (Some(parent.outer) == agent).then_some(shell.outer)
}

fn is_over(entry: &Entry, now: Timestamp) -> bool {
    now.duration_since(entry.began) > OVER
}

fn holds(whole: &str, part: &str) -> bool {
    part.len() >= SHORTEST && whole.contains(part)
}

/// A command line without blanks and what shells quote with: however it was quoted on the way, it
/// reads the same.
fn bare(text: &str) -> String {
    let plain =
        |letter: &char| !letter.is_whitespace() && !matches!(letter, '\'' | '"' | '\\' | '\0');
    text.chars().take(LONGEST).filter(plain).collect()
}

/// The command line of the shell whose process id a span begins with.
fn shell_of(span: &str) -> Option<String> {
    command_line(shell_number(span)?)
}

/// The process id that a span begins with.
fn shell_number(span: &str) -> Option<u32> {
    u32::from_str_radix(span.get(..8)?, 16).ok()
}

fn command_line(pid: u32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut line = Vec::new();
    file.take(LONGEST as u64).read_to_end(&mut line).ok()?;
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";

    fn call(id: &str, prompt: &str) -> (ToolCall, Place) {
        let call = ToolCall {
            id: Some(id.into()),
            prompt: Some(prompt.into()),
            tool: Some("Bash".into()),
            ..ToolCall::default()
        };
        (call, Place::Bash)
    }

    fn calls(list: &[(&str, &str)]) -> Calls {
        let calls = Calls::default();
        for (id, command) in list {
            calls.open(
                &SESSION.into(),
                call(id, "p"),
                Some(command),
                Timestamp::UNIX_EPOCH,
            );
        }
        calls
    }

    fn of(calls: &Calls, span: &str, process: Option<&str>) -> Option<String> {
        let process = process.map(|command| Process {
            command: command.into(),
            ..Process::default()
        });
        let found = calls.of_span(SESSION, &span.into(), process.as_ref(), false, None)?;
        assert_eq!(found.trust, Trust::Asserted);
        found.call.id.as_ref().map(ToString::to_string)
    }

    #[test]
    fn a_span_keeps_the_call_that_it_began_in() {
        let calls = calls(&[("one", "curl a.example")]);
        assert_eq!(of(&calls, "a", None).as_deref(), Some("one"));
        calls.close(SESSION, "one", Trust::Asserted);
        calls.open(
            &SESSION.into(),
            call("two", "p"),
            None,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(of(&calls, "a", None).as_deref(), Some("one"));
        assert_eq!(of(&calls, "b", None).as_deref(), Some("two"));
    }

    #[test]
    fn parallel_calls_are_told_apart_by_their_command() {
        let calls = calls(&[("one", "curl 'http://a.example/x y'"), ("two", "npm test")]);
        let process = Some("curl http://a.example/x y");
        assert_eq!(of(&calls, "a", process).as_deref(), Some("one"));
        assert_eq!(of(&calls, "b", None).as_deref(), Some("two"));
    }

    #[test]
    fn a_call_that_was_never_closed_ends_with_its_prompt() {
        let calls = calls(&[("one", "curl a.example")]);
        let now = Timestamp::UNIX_EPOCH;
        calls.open(&SESSION.into(), call("two", "next"), None, now);
        assert_eq!(of(&calls, "a", None).as_deref(), Some("two"));
        assert_eq!(of(&calls, "b", None).as_deref(), Some("two"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let calls = Calls::default();
        for at in 0..MOST_CALLS * 2 {
            let id = at.to_string();
            calls.open(&SESSION.into(), call(&id, "p"), None, Timestamp::UNIX_EPOCH);
        }
        for at in 0..MOST_SPANS * 2 {
            of(&calls, &at.to_string(), None);
        }
        let known = calls.lock();
        let agent = &known[SESSION];
        assert_eq!(
            (agent.calls.len(), agent.spans.len()),
            (MOST_CALLS, MOST_SPANS)
        );
    }

    #[test]
    fn another_session_has_none_of_it() {
        let calls = calls(&[("one", "curl a.example")]);
        assert!(
            calls
                .of_span("another", &"a".into(), None, false, None)
                .is_none()
        );
        assert!(calls.close("another", "one", Trust::Asserted).is_empty());
        assert!(calls.only(SESSION, &[Place::Main], true).is_none());
    }

    fn report(id: &str, prompt: &str, trust: Trust, place: Place) -> (ToolCall, Place) {
        let (call, _) = call(id, prompt);
        (ToolCall { trust, ..call }, place)
    }

    fn reported(calls: &Calls, id: &str, prompt: &str, trust: Trust, command: &str) {
        let report = report(id, prompt, trust, Place::Bash);
        calls.open(
            &SESSION.into(),
            report,
            Some(command),
            Timestamp::UNIX_EPOCH,
        );
    }

    #[test]
    fn a_made_up_report_ends_no_call_of_the_agent() {
        let calls = Calls::default();
        reported(&calls, "one", "p", Trust::Verified, "curl a.example");
        let refused = Refused {
            target: "b.example:443".into(),
            category: "unknown",
            reason: "not_allowed",
            tier: None,
            flow: uuid::Uuid::nil(),
        };
        let (call, _) = call("one", "p");
        calls.refused(SESSION, &call, refused.clone());
        assert_eq!(calls.close(SESSION, "one", Trust::Asserted), []);
        // Of another prompt: would end what was never closed.
        reported(&calls, "made-up", "q", Trust::Asserted, "curl z.example");
        assert_eq!(of(&calls, "a", None).as_deref(), Some("one"));
        assert_eq!(calls.close(SESSION, "one", Trust::Verified), [refused]);
    }

    #[test]
    fn a_made_up_report_takes_no_call_s_place() {
        let calls = Calls::default();
        reported(&calls, "one", "p", Trust::Verified, "curl a.example");
        reported(&calls, "one", "p", Trust::Asserted, "curl z.example");
        reported(&calls, "two", "p", Trust::Asserted, "curl a.example");
        for at in 0..MOST_CALLS * 2 {
            let id = format!("flood-{at}");
            reported(&calls, &id, "p", Trust::Asserted, "curl a.example");
        }
        let found = of(&calls, "a", Some("curl a.example"));
        assert_eq!(found.as_deref(), Some("one"));
        let known = calls.lock();
        let agent = &known[SESSION];
        assert_eq!(agent.calls.len(), MOST_CALLS);
        let of_one = |it: &&Entry| it.call.id.as_deref() == Some("one");
        assert_eq!(agent.calls.iter().filter(of_one).count(), 1);
    }

    #[test]
    fn the_agent_s_own_report_takes_the_place_of_a_made_up_one() {
        let calls = Calls::default();
        reported(&calls, "one", "p", Trust::Asserted, "curl z.example");
        reported(&calls, "one", "p", Trust::Verified, "curl a.example");
        let known = calls.lock();
        let calls = &known[SESSION].calls;
        assert_eq!(calls.len(), 1);
        assert!(calls[0].is_verified());
    }

    #[test]
    fn a_made_up_call_does_not_hide_the_only_one() {
        let calls = Calls::default();
        for (id, trust) in [("one", Trust::Verified), ("two", Trust::Asserted)] {
            let report = report(id, "p", trust, Place::Main);
            calls.open(&SESSION.into(), report, None, Timestamp::UNIX_EPOCH);
        }
        let of = |by_agent| calls.only(SESSION, &[Place::Main], by_agent).unwrap();
        assert_eq!(of(true).call.id.as_deref(), Some("one"));
        assert_eq!(of(true).trust, Trust::Verified);
        assert_eq!(of(false).trust, Trust::Asserted);
    }

    #[test]
    fn only_a_flow_below_the_agent_s_own_shell_is_verified() {
        let calls = Calls::default();
        let own = std::process::id();
        let line = command_line(own).unwrap();
        reported(&calls, "one", "p", Trust::Verified, &line);
        let pids = |outer| super::super::grant::Pids {
            outer,
            inner: outer,
        };
        let process = |lineage: &[u32]| Process {
            lineage: lineage.iter().copied().map(pids).collect(),
            ..Process::default()
        };
        let span: Arc<str> = format!("{own:08x}00000000").into();
        let trust = |lineage: &[u32], agent| {
            let process = process(lineage);
            let found = calls.of_span(SESSION, &span, Some(&process), true, agent);
            found.unwrap().trust
        };
        assert_eq!(trust(&[7, own, 1], Some(1)), Trust::Verified);
        assert_eq!(trust(&[own, 1], Some(1)), Trust::Verified);
        // A process that takes the span of another shell, one below no shell of the agent, and one
        // below a shell that a command of the agent started.
        assert_eq!(trust(&[7, 8, 1], Some(1)), Trust::Asserted);
        assert_eq!(trust(&[7], Some(1)), Trust::Asserted);
        assert_eq!(trust(&[7, own, 9, 1], Some(1)), Trust::Asserted);
        assert_eq!(trust(&[7, own, 1], None), Trust::Asserted);
    }
}
