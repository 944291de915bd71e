//! The tool calls of agents, as reported by their hooks, with the refusals of each call: labels.
//!
//! The calls of a session and of all its descendants are kept together. [`attribution`] finds the
//! call of a flow.

mod attribution;
mod command_text;
mod web_address;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::caller::Trust;
use super::grant::ToolCall;

pub use attribution::{Attributed, Attribution, CallBasis, FlowClues};
pub use web_address::WebAddress;

use attribution::{Server, Shell, Span};
use command_text::kept;

/// Sessions with calls, at most.
const MAX_SESSIONS: usize = 4096;
/// Calls of one session, open or ended, at most.
const MAX_CALLS: usize = 64;
/// Spans, and shells, of one session, at most.
const MAX_SPANS: usize = 512;
/// Different refusals kept for one call, and for the background of one session, at most.
const MAX_REFUSED: usize = 64;
/// The time after which a call without an end report is over: its hook was lost, or a person
/// declined it.
const CALL_LIFETIME: SignedDuration = SignedDuration::from_hours(6);

/// The tool calls of each session.
#[derive(Debug, Default)]
pub struct Calls {
    books: Mutex<Books>,
}

/// The books of calls.
#[derive(Debug, Default)]
struct Books {
    of: HashMap<Arc<str>, Book>,
    /// Later sessions of an agent that no launcher started, each with the session whose book it
    /// shares: a command may still use the variables of the earlier session.
    shared: HashMap<Arc<str>, Arc<str>>,
}

impl Books {
    /// The session whose book `session` uses.
    fn owner<'a>(&'a self, session: &'a str) -> &'a str {
        self.shared.get(session).map_or(session, |owner| owner)
    }

    fn get(&self, session: &str) -> Option<&Book> {
        self.of.get(self.owner(session))
    }

    fn get_mut(&mut self, session: &str) -> Option<&mut Book> {
        let owner = self.shared.get(session).map_or(session, |owner| owner);
        self.of.get_mut(owner)
    }
}

/// The origin of a tool's flows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// A command: a shell that the agent starts, and its descendants.
    Bash,
    /// The agent's process, which fetches one URL.
    Page,
    /// An MCP server that the agent started, or the agent's own connection to one.
    Mcp,
    /// The provider of the model: this host makes no flow.
    Provider,
}

impl Place {
    /// The origin for a tool name; `None` if the tool reaches no network.
    pub fn of_tool(name: &str) -> Option<Self> {
        match name {
            "Bash" | "PowerShell" | "bash" | "run_shell_command" => Some(Self::Bash),
            "WebFetch" | "webfetch" | "web_fetch" => Some(Self::Page),
            "WebSearch" | "google_web_search" => Some(Self::Provider),
            name if name.starts_with("mcp__") => Some(Self::Mcp),
            _ => None,
        }
    }
}

/// A tool call that starts.
#[derive(Clone, Debug)]
pub struct NewCall<'a> {
    /// The call.
    pub call: ToolCall,
    /// The origin of its flows.
    pub place: Place,
    /// The command of a shell tool.
    pub command: Option<&'a str>,
    /// The page that the tool fetches.
    pub page: Option<WebAddress>,
    /// The start of the hook that reported the call, in the kernel's ticks since boot: the shell of
    /// the call starts later.
    pub not_before: Option<u64>,
}

/// A tool call that ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedCall<'a> {
    /// The [`ToolCall::key`].
    pub key: &'a str,
    /// The trust in the report.
    pub trust: Trust,
    /// Whether the model reads the answer to the report: otherwise the refusals are reported later.
    pub is_read: bool,
    /// The start of the hook that reported the end, in the kernel's ticks since boot: the shell of
    /// the call started earlier.
    pub not_after: Option<u64>,
}

/// A flow that was refused during a call. It contains no text of third parties: the host is
/// canonical, the rest are words of closed lists and of the policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// The attempt: `CONNECT docs.rs:443`.
    pub attempt: Box<str>,
    /// The category.
    pub category: &'static str,
    /// The code of the refusal.
    pub reason: &'static str,
    /// The tier.
    pub tier: Option<Arc<str>>,
    /// The command that explains the refusal.
    pub explain: Box<str>,
    /// The number of refusals.
    pub count: u32,
}

/// The calls of one session, the oldest first.
#[derive(Debug, Default)]
struct Book {
    calls: VecDeque<Entry>,
    /// Spans of these calls.
    spans: VecDeque<Span>,
    /// Shells of these calls.
    shells: VecDeque<Shell>,
    /// Processes of MCP servers that the agent started.
    servers: VecDeque<Server>,
    next: u64,
    /// Whether a shell of the session was found on this host.
    local: bool,
    /// Refusals of processes that commands left in the background, of no known call.
    left: Vec<Refused>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    call: Arc<ToolCall>,
    place: Place,
    /// The command, without the shell's quoting characters.
    command: Option<Box<str>>,
    /// The command as reviewers read it: at most 200 characters, with secrets masked.
    shown: Option<Box<str>>,
    page: Option<WebAddress>,
    not_before: Option<u64>,
    not_after: Option<u64>,
    began: Timestamp,
    open: bool,
    bound: bool,
    refused: Vec<Refused>,
}

impl Calls {
    /// Adds a call that starts. `session` is the root session of the agent.
    ///
    /// A report that may come from any process does not change a call that the agent's own process
    /// reported.
    pub fn open(&self, session: &Arc<str>, new: NewCall<'_>, now: Timestamp) {
        let mut books = self.lock();
        let owner = books.shared.get(session).unwrap_or(session).clone();
        let books = &mut books.of;
        if books.len() >= MAX_SESSIONS && !books.contains_key(&owner) {
            books.retain(|_, book| book.calls.iter().any(|entry| !is_over(entry, now)));
            if books.len() >= MAX_SESSIONS {
                return;
            }
        }
        books.entry(owner).or_default().open(new, now);
    }

    /// Keeps the calls of `session` together with those of `earlier`, a session of the same agent
    /// process. A session that has calls already keeps them apart.
    pub fn share(&self, session: &Arc<str>, earlier: &Arc<str>) {
        let mut books = self.lock();
        let owner = books.shared.get(earlier).unwrap_or(earlier).clone();
        let is_known = books.of.contains_key(session) || books.shared.contains_key(session);
        let is_owner = books.shared.values().any(|owner| owner == session);
        if owner != *session && !is_known && !is_owner && books.shared.len() < MAX_SESSIONS {
            books.shared.insert(session.clone(), owner);
        }
    }

    /// Ends a call; returns the refusals of the call that were not reported before. A report that
    /// may come from any process does not end a call that the agent's own process reported.
    pub fn close(&self, session: &str, ended: &EndedCall<'_>) -> Vec<Refused> {
        let mut books = self.lock();
        let entry = books
            .get_mut(session)
            .and_then(|book| book.entry(ended.key));
        let entry = entry.filter(|entry| ended.trust == Trust::Verified || !entry.is_verified());
        entry.map_or_else(Vec::new, |entry| {
            entry.open = false;
            entry.not_after = entry.not_after.or(ended.not_after);
            if ended.is_read {
                std::mem::take(&mut entry.refused)
            } else {
                Vec::new()
            }
        })
    }

    /// Returns the refusals of ended calls, and of processes left in the background, that were not
    /// reported before. `trust` is that of the answered report: refusals of a call with a verified
    /// report go only to the agent itself, and so do those of processes in the background if the
    /// agent itself reported a call.
    pub fn untold(&self, session: &str, trust: Trust) -> Vec<Refused> {
        let mut books = self.lock();
        let Some(book) = books.get_mut(session) else {
            return Vec::new();
        };
        let is_agent = trust == Trust::Verified || !book.calls.iter().any(Entry::is_verified);
        let left = if is_agent {
            std::mem::take(&mut book.left)
        } else {
            Vec::new()
        };
        let ended = book.calls.iter_mut().filter(|it| {
            let may = trust == Trust::Verified || !it.is_verified();
            !it.open && may
        });
        ended
            .flat_map(|entry| std::mem::take(&mut entry.refused))
            .chain(left)
            .collect()
    }

    /// Whether hooks of the session reported calls.
    pub fn has(&self, session: &str) -> bool {
        self.lock().get(session).is_some()
    }

    /// The reported call with this id.
    pub fn named(&self, session: &str, id: &str) -> Option<Arc<ToolCall>> {
        let mut books = self.lock();
        let entry = books.get_mut(session)?.entry(id)?;
        (entry.call.id.as_deref() == Some(id)).then(|| entry.call.clone())
    }

    /// The reported command of a call: at most 200 characters, with secrets masked.
    pub fn command_of(&self, session: &str, id: &str) -> Option<Box<str>> {
        let mut books = self.lock();
        let entry = books.get_mut(session)?.entry(id)?;
        entry.shown.clone()
    }

    /// Adds a refusal to a call.
    pub fn refused(&self, session: &str, call: &ToolCall, refused: Refused) {
        let mut books = self.lock();
        let Some(key) = call.key() else {
            return;
        };
        let Some(entry) = books.get_mut(session).and_then(|book| book.entry(key)) else {
            return;
        };
        keep(&mut entry.refused, refused);
    }

    /// Adds a refusal of a process that a command left in the background.
    pub fn refused_in_background(&self, session: &str, refused: Refused) {
        if let Some(book) = self.lock().get_mut(session) {
            keep(&mut book.left, refused);
        }
    }

    /// Removes the calls of a session that ended.
    pub fn forget(&self, session: &str) {
        let mut books = self.lock();
        let owner: Arc<str> = books.owner(session).into();
        books.of.remove(&owner);
        books.shared.retain(|_, of| *of != owner);
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Whether the agent's own process reported the call.
    fn is_verified(&self) -> bool {
        self.call.trust == Trust::Verified
    }

    /// Whether a shell that started at this time may belong to the call.
    fn may_have_started(&self, shell: u64) -> bool {
        let began = self.not_before.is_none_or(|hook| hook <= shell);
        began && self.not_after.is_none_or(|hook| shell <= hook)
    }
}

impl Book {
    fn open(&mut self, new: NewCall<'_>, now: Timestamp) {
        self.settle(&new, now);
        if !self.has_room_for(&new.call) {
            return;
        }
        self.next += 1;
        self.calls.push_back(Entry {
            number: self.next,
            call: Arc::new(new.call),
            place: new.place,
            command: new.command.map(|text| kept(text).into()),
            shown: new.command.map(super::process::masked_script),
            page: new.page,
            not_before: new.not_before,
            not_after: None,
            began: now,
            open: true,
            bound: false,
            refused: Vec::new(),
        });
    }

    /// Closes calls without an end report: of an earlier prompt of the same agent, or too old.
    fn settle(&mut self, new: &NewCall<'_>, now: Timestamp) {
        let next = &new.call;
        for entry in &mut self.calls {
            let same = entry.call.agent == next.agent && next.agent.is_none();
            let may = next.trust == Trust::Verified || !entry.is_verified();
            let earlier = may && same && next.prompt.is_some() && entry.call.prompt != next.prompt;
            if earlier && entry.not_after.is_none() {
                entry.not_after = new.not_before;
            }
            entry.open &= !earlier && !is_over(entry, now);
        }
    }

    /// Whether a new report is accepted; makes room for it.
    fn has_room_for(&mut self, next: &ToolCall) -> bool {
        let verified = next.trust == Trust::Verified;
        let before = next.key().and_then(|key| self.entry(key));
        match before.map(|entry| (entry.is_verified(), entry.open)) {
            // The agent's own report replaces a report of another process.
            Some((false, _)) if verified => self.calls.retain(|it| it.call.key() != next.key()),
            Some((true, _)) if !verified => return false,
            Some((_, true)) => return false,
            _ => {}
        }
        if self.calls.len() >= MAX_CALLS {
            let oldest = self.calls.iter().position(|it| !it.is_verified());
            match oldest {
                Some(at) => drop(self.calls.remove(at)),
                None if verified => drop(self.calls.pop_front()),
                None => return false,
            }
        }
        true
    }

    fn entry(&mut self, key: &str) -> Option<&mut Entry> {
        let mut entries = self.calls.iter_mut();
        entries.rfind(|entry| entry.call.key() == Some(key))
    }
}

/// Adds a refusal to a list, or counts it there.
fn keep(list: &mut Vec<Refused>, refused: Refused) {
    let same = |it: &&mut Refused| it.attempt == refused.attempt && it.reason == refused.reason;
    if let Some(known) = list.iter_mut().find(same) {
        known.count = known.count.saturating_add(1);
    } else if list.len() < MAX_REFUSED {
        list.push(refused);
    }
}

fn is_over(entry: &Entry, now: Timestamp) -> bool {
    now.duration_since(entry.began) > CALL_LIFETIME
}

#[cfg(test)]
mod tests {
    use super::super::grant::{Pids, Process};
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

    fn open(calls: &Calls, (call, place): (ToolCall, Place), command: Option<&str>) {
        let new = NewCall {
            call,
            place,
            command,
            page: None,
            not_before: None,
        };
        calls.open(&SESSION.into(), new, Timestamp::UNIX_EPOCH);
    }

    fn ended(key: &str, trust: Trust) -> EndedCall<'_> {
        EndedCall {
            key,
            trust,
            is_read: true,
            not_after: None,
        }
    }

    fn close(calls: &Calls, key: &str, trust: Trust) -> Vec<Refused> {
        calls.close(SESSION, &ended(key, trust))
    }

    fn calls(list: &[(&str, &str)]) -> Calls {
        let calls = Calls::default();
        for (id, command) in list {
            open(&calls, call(id, "p"), Some(command));
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
        close(&calls, "one", Trust::Asserted);
        open(&calls, call("two", "p"), None);
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
        open(&calls, call("two", "next"), None);
        assert_eq!(of(&calls, "a", None).as_deref(), Some("two"));
        assert_eq!(of(&calls, "b", None).as_deref(), Some("two"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let calls = Calls::default();
        for at in 0..MAX_CALLS * 2 {
            let id = at.to_string();
            open(
                &calls,
                call(&id, "p"),
                Some(&format!("curl host-{at}.example")),
            );
        }
        for at in 0..MAX_SPANS * 2 {
            let call = MAX_CALLS * 2 - 1 - at % MAX_CALLS;
            of(
                &calls,
                &at.to_string(),
                Some(&format!("curl host-{call}.example")),
            );
        }
        let books = calls.lock();
        let book = &books.of[SESSION];
        assert_eq!((book.calls.len(), book.spans.len()), (MAX_CALLS, MAX_SPANS));
    }

    #[test]
    fn another_session_has_none_of_it() {
        let calls = calls(&[("one", "curl a.example")]);
        assert!(
            calls
                .of_span("another", &"a".into(), None, false, None)
                .is_none()
        );
        assert!(
            calls
                .close("another", &ended("one", Trust::Asserted))
                .is_empty()
        );
        assert!(calls.of_page(SESSION, "a.example", true).is_none());
    }

    fn refused(attempt: &str) -> Refused {
        Refused {
            attempt: attempt.into(),
            category: "unknown",
            reason: "not_allowed",
            tier: None,
            explain: "tidegate explain 0".into(),
            count: 1,
        }
    }

    fn open_page(calls: &Calls, id: &str, trust: Trust, url: &str) {
        let (call, place) = report(id, "p", trust, Place::Page);
        let new = NewCall {
            call,
            place,
            command: None,
            page: WebAddress::parse(url),
            not_before: None,
        };
        calls.open(&SESSION.into(), new, Timestamp::UNIX_EPOCH);
    }

    fn report(id: &str, prompt: &str, trust: Trust, place: Place) -> (ToolCall, Place) {
        let (call, _) = call(id, prompt);
        (ToolCall { trust, ..call }, place)
    }

    fn reported(calls: &Calls, id: &str, prompt: &str, trust: Trust, command: &str) {
        let report = report(id, prompt, trust, Place::Bash);
        open(calls, report, Some(command));
    }

    #[test]
    fn what_the_model_does_not_read_is_told_later() {
        let calls = calls(&[("one", "curl a.example")]);
        let (call, _) = call("one", "p");
        calls.refused(SESSION, &call, refused("connection to b.example:443"));
        let unread = EndedCall {
            is_read: false,
            ..ended("one", Trust::Asserted)
        };
        assert_eq!(calls.close(SESSION, &unread), []);
        assert_eq!(calls.untold(SESSION, Trust::Asserted).len(), 1);
        assert_eq!(calls.untold(SESSION, Trust::Asserted), []);
    }

    #[test]
    fn a_made_up_report_ends_no_call_of_the_agent() {
        let calls = Calls::default();
        reported(&calls, "one", "p", Trust::Verified, "curl a.example");
        let refused = refused("connection to b.example:443");
        let (call, _) = call("one", "p");
        calls.refused(SESSION, &call, refused.clone());
        assert_eq!(close(&calls, "one", Trust::Asserted), []);
        // A made-up report of another prompt would end calls that were never closed.
        reported(&calls, "made-up", "q", Trust::Asserted, "curl z.example");
        assert_eq!(of(&calls, "a", None).as_deref(), Some("one"));
        assert_eq!(close(&calls, "one", Trust::Verified), [refused]);
    }

    #[test]
    fn a_made_up_report_takes_no_call_s_place() {
        let calls = Calls::default();
        reported(&calls, "one", "p", Trust::Verified, "curl a.example");
        reported(&calls, "one", "p", Trust::Asserted, "curl z.example");
        reported(&calls, "two", "p", Trust::Asserted, "curl a.example");
        for at in 0..MAX_CALLS * 2 {
            let id = format!("flood-{at}");
            reported(&calls, &id, "p", Trust::Asserted, "curl a.example");
        }
        let found = of(&calls, "a", Some("curl a.example"));
        assert_eq!(found.as_deref(), Some("one"));
        let books = calls.lock();
        let book = &books.of[SESSION];
        assert_eq!(book.calls.len(), MAX_CALLS);
        let of_one = |it: &&Entry| it.call.id.as_deref() == Some("one");
        assert_eq!(book.calls.iter().filter(of_one).count(), 1);
    }

    #[test]
    fn the_agent_s_own_report_takes_the_place_of_a_made_up_one() {
        let calls = Calls::default();
        reported(&calls, "one", "p", Trust::Asserted, "curl z.example");
        reported(&calls, "one", "p", Trust::Verified, "curl a.example");
        let known = calls.lock();
        let calls = &known.of[SESSION].calls;
        assert_eq!(calls.len(), 1);
        assert!(calls[0].is_verified());
    }

    #[test]
    fn a_made_up_call_does_not_hide_the_only_one() {
        let calls = Calls::default();
        for (id, trust) in [("one", Trust::Verified), ("two", Trust::Asserted)] {
            open_page(&calls, id, trust, "https://docs.example/x");
        }
        let of = |by_agent| calls.of_page(SESSION, "docs.example", by_agent).unwrap();
        assert_eq!(of(true).call.id.as_deref(), Some("one"));
        assert_eq!(of(true).trust, Trust::Verified);
        assert_eq!(of(false).trust, Trust::Asserted);
    }

    #[test]
    fn a_page_is_of_the_call_that_names_its_host_and_of_none_where_two_do() {
        let calls = Calls::default();
        open_page(&calls, "one", Trust::Verified, "https://docs.example/x");
        open_page(&calls, "two", Trust::Verified, "https://other.example/x");
        let of = |host: &str| {
            let found = calls.of_page(SESSION, host, true)?;
            found.call.id.as_ref().map(ToString::to_string)
        };
        assert_eq!(of("docs.example").as_deref(), Some("one"));
        assert_eq!(of("telemetry.example"), None);
        open_page(&calls, "three", Trust::Verified, "https://docs.example/y");
        assert_eq!(of("docs.example"), None);
        close(&calls, "one", Trust::Verified);
        assert_eq!(of("docs.example").as_deref(), Some("three"));
    }

    #[test]
    fn two_calls_that_fit_equally_well_are_neither() {
        let calls = calls(&[("one", "curl a.example"), ("two", "curl a.example")]);
        assert_eq!(of(&calls, "a", Some("curl a.example")), None);
        assert_eq!(of(&calls, "b", None), None);
        // The longest matching command contains the other one.
        open(&calls, call("three", "p"), Some("cd x && curl a.example"));
        let found = of(&calls, "c", Some("cd x && curl a.example"));
        assert_eq!(found.as_deref(), Some("three"));
    }

    #[test]
    fn a_refusal_after_the_end_of_its_call_is_told_once_and_to_the_agent_only() {
        let calls = Calls::default();
        reported(&calls, "one", "p", Trust::Verified, "curl a.example &");
        let (call, _) = call("one", "p");
        assert_eq!(close(&calls, "one", Trust::Verified), []);
        for _ in 0..3 {
            calls.refused(SESSION, &call, refused("connection to b.example:443"));
        }
        calls.refused(SESSION, &call, refused("look-up of the name b.example"));
        assert_eq!(calls.untold(SESSION, Trust::Asserted), []);
        let told = calls.untold(SESSION, Trust::Verified);
        let counts: Vec<u32> = told.iter().map(|it| it.count).collect();
        assert_eq!(counts, [3, 1]);
        assert_eq!(calls.untold(SESSION, Trust::Verified), []);
    }

    #[test]
    fn refusals_of_the_background_are_told_to_the_agent_once() {
        let calls = calls(&[("one", "curl a.example")]);
        calls.refused_in_background(SESSION, refused("connection to b.example:443"));
        calls.refused_in_background(SESSION, refused("connection to b.example:443"));
        let told = calls.untold(SESSION, Trust::Asserted);
        assert_eq!(told.iter().map(|it| it.count).collect::<Vec<_>>(), [2]);
        reported(&calls, "own", "p", Trust::Verified, "make");
        calls.refused_in_background(SESSION, refused("connection to c.example:443"));
        assert_eq!(calls.untold(SESSION, Trust::Asserted), []);
        assert_eq!(calls.untold(SESSION, Trust::Verified).len(), 1);
        assert_eq!(calls.untold(SESSION, Trust::Verified), []);
    }

    #[test]
    fn sessions_of_one_agent_process_share_their_calls() {
        let calls = calls(&[("one", "curl a.example")]);
        let (next, other, own): (Arc<str>, Arc<str>, Arc<str>) =
            ("next".into(), "other".into(), SESSION.into());
        calls.share(&next, &own);
        assert!(calls.named(&next, "one").is_some());
        // A session that has calls keeps them apart.
        let (call, place) = call("two", "p");
        let new = NewCall {
            call,
            place,
            command: None,
            page: None,
            not_before: None,
        };
        calls.open(&other, new, Timestamp::UNIX_EPOCH);
        calls.share(&other, &own);
        assert!(calls.named(&other, "one").is_none());
        assert!(calls.named(&other, "two").is_some());
        // The end of the agent ends all of its sessions.
        calls.forget(&next);
        assert!(!calls.has(&own) && !calls.has(&next) && calls.has(&other));
    }

    #[test]
    fn only_a_flow_below_the_agent_s_own_shell_is_verified() {
        let calls = Calls::default();
        let own = std::process::id();
        let line = command_text::command_line(own).unwrap();
        reported(&calls, "one", "p", Trust::Verified, &line);
        let pids = |outer| Pids {
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
        // A process with the span of another shell, a process below no shell of the agent, and a
        // process below a shell that a command of the agent started.
        assert_eq!(trust(&[7, 8, 1], Some(1)), Trust::Asserted);
        assert_eq!(trust(&[7], Some(1)), Trust::Asserted);
        assert_eq!(trust(&[7, own, 9, 1], Some(1)), Trust::Asserted);
        assert_eq!(trust(&[7, own, 1], None), Trust::Asserted);
    }

    #[test]
    fn a_command_with_the_variables_of_another_one_has_no_call() {
        let calls = calls(&[("one", "curl a.example")]);
        assert_eq!(of(&calls, "taken", None).as_deref(), Some("one"));
        close(&calls, "one", Trust::Asserted);
        let own = std::process::id();
        let line = command_text::command_line(own).unwrap();
        reported(&calls, "two", "p", Trust::Asserted, &line);
        let pids = |outer| Pids {
            outer,
            inner: outer,
        };
        let process = Process {
            lineage: [7, own, 1].map(pids).into(),
            ..Process::default()
        };
        let of = |span: &str| {
            let found = calls.of_span(SESSION, &span.into(), Some(&process), true, Some(1));
            found.and_then(|found| Some(found.call.id.as_ref()?.to_string()))
        };
        assert_eq!(of("taken"), None);
        assert_eq!(of("own").as_deref(), Some("two"));
    }

    #[test]
    fn a_command_line_shows_no_call_where_another_was_under_way() {
        let own = std::process::id();
        let line = command_text::command_line(own).unwrap();
        let trust = |other_ended: Option<u64>| {
            let calls = Calls::default();
            reported(&calls, "other", "p", Trust::Verified, "curl a.example");
            if other_ended.is_some() {
                let ended = EndedCall {
                    not_after: other_ended,
                    ..ended("other", Trust::Verified)
                };
                calls.close(SESSION, &ended);
            }
            reported(&calls, "one", "p", Trust::Verified, &line);
            let span: Arc<str> = format!("{own:08x}00000000").into();
            let pids = |outer| Pids {
                outer,
                inner: outer,
            };
            let process = Process {
                lineage: [own, 1].map(pids).into(),
                ..Process::default()
            };
            let found = calls.of_span(SESSION, &span, Some(&process), true, Some(1));
            let found = found.unwrap();
            assert_eq!(found.call.id.as_deref(), Some("one"));
            found.trust
        };
        assert_eq!(trust(None), Trust::Asserted);
        assert_eq!(trust(Some(u64::MAX)), Trust::Asserted);
        // The call ended before this process started.
        assert_eq!(trust(Some(1)), Trust::Verified);
    }
}
