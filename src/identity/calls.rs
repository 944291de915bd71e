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
use super::grant::ToolCall;

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
    /// The number of the call that each span belongs to.
    spans: VecDeque<(Arc<str>, u64)>,
    next: u64,
    /// Whether a shell of it was found among the processes of this host.
    local: bool,
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

impl Calls {
    /// A tool is about to be used.
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
        if agent.calls.len() >= MOST_CALLS {
            agent.calls.pop_front();
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

    /// A tool was used; what was refused meanwhile and not told before.
    pub fn close(&self, session: &str, id: &str) -> Vec<Refused> {
        let mut known = self.lock();
        let entry = known.get_mut(session).and_then(|agent| agent.entry(id));
        entry.map_or_else(Vec::new, |entry| {
            entry.open = false;
            std::mem::take(&mut entry.refused)
        })
    }

    /// The call that a flow belongs to.
    pub fn of(&self, caller: &Caller, here: bool) -> Option<Arc<ToolCall>> {
        // Who only names a session has no part in its calls.
        let shown = match caller.evidence {
            Evidence::Listener => caller.trust == Trust::Verified,
            evidence => evidence == Evidence::Token,
        };
        let session = caller.session.as_ref().filter(|_| shown)?;
        let span = caller.labels.span_id.as_ref();
        let process = caller.process.as_ref().map(|process| &*process.command);
        match caller.channel.as_deref() {
            Some("bash") => self.of_span(session, span?, process, here),
            Some("mcp") => self.only(session, &[Place::Mcp]),
            Some("main") | None => self.only(session, &[Place::Main, Place::Mcp]),
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
        process: Option<&str>,
        here: bool,
    ) -> Option<Arc<ToolCall>> {
        if let Some(bound) = self.lock().get(session)?.bound(span) {
            return Some(bound);
        }
        // Read without the lock: the kernel may take its time.
        let shell = here.then(|| shell_of(span)).flatten();
        let texts: Vec<String> = shell
            .iter()
            .map(String::as_str)
            .chain(process)
            .map(bare)
            .collect();
        self.lock()
            .get_mut(session)?
            .bind(span, &texts, shell.is_some())
    }

    /// The one open call of these places, where there is exactly one.
    fn only(&self, session: &str, places: &[Place]) -> Option<Arc<ToolCall>> {
        let known = self.lock();
        let calls = &known.get(session)?.calls;
        let mut open = calls
            .iter()
            .filter(|it| it.open && places.contains(&it.place));
        let first = open.next()?;
        open.next().is_none().then(|| first.call.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Agent>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Calls that were never closed: of an earlier prompt of the same agent, or too old.
    fn settle(&mut self, next: &ToolCall, now: Timestamp) {
        for entry in &mut self.calls {
            let same = entry.call.agent == next.agent && next.agent.is_none();
            let earlier = same && next.prompt.is_some() && entry.call.prompt != next.prompt;
            entry.open &= !earlier && !is_over(entry, now);
        }
    }

    fn entry(&mut self, id: &str) -> Option<&mut Entry> {
        let mut entries = self.calls.iter_mut();
        entries.rfind(|entry| entry.call.id.as_deref() == Some(id))
    }

    fn bound(&self, span: &str) -> Option<Arc<ToolCall>> {
        let (_, number) = self.spans.iter().rfind(|(known, _)| **known == *span)?;
        let entry = self.calls.iter().find(|entry| entry.number == *number)?;
        Some(entry.call.clone())
    }

    fn bind(&mut self, span: &Arc<str>, texts: &[String], shell: bool) -> Option<Arc<ToolCall>> {
        // Somebody else may have been quicker.
        if let Some(bound) = self.bound(span) {
            return Some(bound);
        }
        let said = self.said(texts);
        self.local |= said.is_some() && shell;
        // The shell of a call that is open lives: one that does not left something behind.
        let left = (self.local && !shell).then(|| self.last(|it| !it.open && !it.bound));
        let number = said
            .or(left.flatten())
            .or_else(|| self.last(|it| it.open && !it.bound))
            .or_else(|| self.last(|it| it.open))
            .or_else(|| self.last(|it| !it.bound))?;
        let entry = self.calls.iter_mut().find(|entry| entry.number == number)?;
        entry.bound = true;
        if self.spans.len() >= MOST_SPANS {
            self.spans.pop_front();
        }
        self.spans.push_back((span.clone(), number));
        Some(entry.call.clone())
    }

    /// The call whose command is in one of these command lines, or has one of them in it.
    fn said(&self, texts: &[String]) -> Option<u64> {
        texts.iter().find_map(|text| {
            let says = |it: &Entry| {
                let command = it.command.as_deref().unwrap_or_default();
                holds(text, command) || holds(command, text)
            };
            self.last(|it| it.open && !it.bound && says(it))
                .or_else(|| self.last(|it| it.open && says(it)))
                .or_else(|| self.last(says))
        })
    }

    /// The latest command for which that holds.
    fn last(&self, holds: impl Fn(&Entry) -> bool) -> Option<u64> {
        let mut calls = self.calls.iter();
        let found = calls.rfind(|entry| entry.place == Place::Bash && holds(entry));
        found.map(|entry| entry.number)
    }
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
    let pid = u32::from_str_radix(span.get(..8)?, 16).ok()?;
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
        let call = calls.of_span(SESSION, &span.into(), process, false)?;
        call.id.as_ref().map(ToString::to_string)
    }

    #[test]
    fn a_span_keeps_the_call_that_it_began_in() {
        let calls = calls(&[("one", "curl a.example")]);
        assert_eq!(of(&calls, "a", None).as_deref(), Some("one"));
        calls.close(SESSION, "one");
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
        assert!(calls.of_span("another", &"a".into(), None, false).is_none());
        assert!(calls.close("another", "one").is_empty());
        assert!(calls.only(SESSION, &[Place::Main]).is_none());
    }
}
