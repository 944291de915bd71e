//! Finds the tool call of a flow.
//!
//! Only evidence ties a flow to a call:
//!
//! - **Environment**: the span in the username of a command's proxy. It begins with the process id
//!   of the command's shell, and stays with its first call: processes that a command leaves in the
//!   background remain distinct from later calls.
//! - **Ancestry**: the shell that the agent started, above the client process. Its command line is
//!   that of the call, or that of the call's last command, which a shell may replace itself with.
//! - **URL**: the agent's own process connects to the host that an open call names.
//!
//! If two kinds of evidence disagree, or two calls fit equally well, the flow has no call.
//!
//! A process can change its command line. A call is therefore `verified` only if the start time of
//! the shell excludes every other call of the agent: it lies between the start and end reports of
//! this call only.

use std::sync::Arc;

use crate::name::{Path, Target};

use super::super::caller::{Caller, Trust};
use super::super::grant::{Pids, Process, ToolCall};
use super::super::process::table;
use super::command_text::{bare, command_line, holds, is_end_of, overlap, shell_number};
use super::{Book, Calls, Entry, MAX_SPANS, Place};

/// The evidence that ties a flow to a call: `tidegate.call.basis`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CallBasis {
    /// The client process descends from the shell of the call.
    Ancestry,
    /// The variables of the command.
    Environment,
    /// A header field of the request.
    Header,
    /// `_meta` of an MCP message.
    Meta,
    /// The host that the call names.
    Url,
}

impl CallBasis {
    /// `tidegate.call.basis`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ancestry => "ancestry",
            Self::Environment => "environment",
            Self::Header => "header",
            Self::Meta => "meta",
            Self::Url => "url",
        }
    }
}

/// The tool call of a flow.
#[derive(Clone, Debug)]
pub struct Attributed {
    /// The call.
    pub call: Arc<ToolCall>,
    /// The trust in the attribution: `verified` if the agent's own process reported the call and
    /// the flow comes from the shell that the agent started for it, or from the agent itself.
    pub trust: Trust,
    /// The evidence.
    pub basis: CallBasis,
}

/// The result of the search for a flow's call.
#[derive(Clone, Debug, Default)]
pub enum Attribution {
    /// No evidence ties the flow to a call.
    #[default]
    None,
    /// The flow belongs to this call.
    Call(Attributed),
    /// Two kinds of evidence name different calls.
    Conflict,
    /// The flow belongs to no known call, and its process is neither the agent nor below the agent:
    /// a command may have left it in the background.
    Left,
}

/// The facts of a flow for the search.
#[derive(Clone, Copy, Debug)]
pub struct FlowClues<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// Whether the client is on this host.
    pub here: bool,
    /// The target.
    pub target: Option<&'a Target>,
    /// The path of a request.
    pub path: Option<&'a Path>,
    /// The process of the agent, if this gate started it or its hook registered it.
    pub agent: Option<u32>,
    /// The name of the MCP server in the policy, if the flow reaches one.
    pub server: Option<&'a str>,
}

impl<'a> FlowClues<'a> {
    fn asked(&self) -> (Option<&'a Target>, Option<&'a Path>, Option<&'a str>) {
        (self.target, self.path, self.server)
    }
}

/// A span of a call.
#[derive(Debug)]
pub(super) struct Span {
    name: Arc<str>,
    number: u64,
    /// The shell of the call, if the agent itself started it.
    shell: Option<u32>,
}

/// A shell that the agent started for a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shell {
    pid: u32,
    began: u64,
    number: u64,
    /// Whether no other reported call was open when the shell started.
    is_sole: bool,
}

/// A process that the agent started as an MCP server.
#[derive(Debug)]
pub(super) struct Server {
    pid: u32,
    began: u64,
    /// `None` if its flows came during calls of two servers.
    name: Option<Box<str>>,
}

/// A process that the agent started, by its process id and start time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Child {
    pid: u32,
    /// The process id in its own namespace.
    inner: u32,
    began: u64,
}

/// The facts of a command's flow.
#[derive(Clone, Copy, Debug, Default)]
struct Command<'a> {
    /// The span in the username.
    span: Option<&'a Arc<str>>,
    /// The process above it that the agent started.
    child: Option<Child>,
    /// Whether its processes can be looked up by their process ids.
    here: bool,
    process: Option<&'a Process>,
}

/// The calls that fit a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fit {
    None,
    One(u64),
    Several,
}

impl Calls {
    /// Finds the call of a flow.
    pub fn of(&self, clues: &FlowClues<'_>) -> Attribution {
        let caller = clues.caller;
        // A caller that only names a session must not affect its calls.
        let root = caller.root.as_ref().or(caller.session.as_ref());
        let Some(root) = root.filter(|_| caller.is_shown()) else {
            return Attribution::None;
        };
        if !self.has(root) {
            return Attribution::None;
        }
        let process = caller.process.as_deref();
        let by_agent = process.is_some_and(|process| Some(process.pid) == clues.agent);
        let child = process.and_then(|process| child_of_agent(process, clues.agent));
        let span = caller.labels.span_id.as_ref();
        let channel = caller.channel.as_deref();
        if by_agent {
            return self.of_agent(root, clues.asked(), true);
        }
        match channel {
            Some("bash") if span.is_some() || child.is_some() => {
                let command = Command {
                    span,
                    child,
                    here: clues.here,
                    process,
                };
                self.of_command(root, &command)
            }
            Some("mcp") => self.of_server(root, child, CallBasis::Environment),
            // A process below the agent that uses the agent's name.
            Some("main") | None if child.is_some() => {
                let command = Command {
                    span: None,
                    child,
                    here: clues.here,
                    process,
                };
                match self.of_command(root, &command) {
                    Attribution::None => self.of_server(root, child, CallBasis::Ancestry),
                    found => found,
                }
            }
            // The process is neither the agent nor below the agent.
            Some("main") | None if process.is_some() && clues.agent.is_some() => Attribution::Left,
            Some("main") | None => self.of_agent(root, clues.asked(), false),
            Some(_) => Attribution::None,
        }
    }

    /// The call of a command's flow.
    fn of_command(&self, root: &str, command: &Command<'_>) -> Attribution {
        let Command { span, child, .. } = *command;
        // A command may use the variables of another command: its shell must match as well.
        let is_known = |book: &Book| child.is_none_or(|child| book.shell(child).is_some());
        if let Some(book) = self.lock().get(root)
            && is_known(book)
            && let Some(known) = book.known(span, child)
        {
            return known;
        }
        // Read without the lock: the kernel may be slow.
        let shell = match child {
            Some(child) => Some(child.pid),
            None => span
                .filter(|_| command.here)
                .and_then(|span| shell_number(span)),
        };
        let text = shell.and_then(command_line).map(|text| bare(&text));
        let began = match child {
            Some(child) => Some(child.began),
            None => shell.filter(|_| text.is_some()).and_then(table::began),
        };
        let own_text = command.process.map(|process| bare(&process.command));
        let mut books = self.lock();
        let Some(book) = books.get_mut(root) else {
            return Attribution::None;
        };
        let shell_text = text.as_deref().map(|text| (text, began));
        if let Some(child) = child {
            book.bind_shell(child, shell_text);
        }
        if let Some(span) = span {
            book.bind_span(span, child, shell_text, own_text.as_deref());
        }
        book.known(span, child).unwrap_or_default()
    }

    /// The open call that names the host, or the MCP server, of a flow from the agent's own
    /// process.
    fn of_agent(
        &self,
        root: &str,
        (target, path, server): (Option<&Target>, Option<&Path>, Option<&str>),
        by_agent: bool,
    ) -> Attribution {
        let books = self.lock();
        let Some(book) = books.get(root) else {
            return Attribution::None;
        };
        let names = |it: &&Entry| match it.place {
            Place::Page => it
                .page
                .as_ref()
                .is_some_and(|page| target.is_some_and(|target| target.host == page.host)),
            Place::Mcp => server.is_some() && server_of(it) == server,
            Place::Bash | Place::Provider => false,
        };
        let open: Vec<&Entry> = book.open_calls(names);
        let by_path = |it: &&&Entry| {
            let page = it.page.as_ref().and_then(|page| page.path.as_ref());
            page.is_some() && page == path
        };
        let exact: Vec<&Entry> = open.iter().filter(by_path).copied().collect();
        let only = match (exact.as_slice(), open.as_slice()) {
            ([one], _) | ([], [one]) => Some(*one),
            _ => None,
        };
        only.map_or(Attribution::None, |entry| {
            Attribution::Call(Attributed {
                call: entry.call.clone(),
                trust: trust_of(entry, by_agent),
                basis: CallBasis::Url,
            })
        })
    }

    /// The only open call of an MCP server, for a flow of that server.
    fn of_server(&self, root: &str, child: Option<Child>, basis: CallBasis) -> Attribution {
        let mut books = self.lock();
        let Some(book) = books.get_mut(root) else {
            return Attribution::None;
        };
        let open = book.open_calls(|it| it.place == Place::Mcp);
        let [only] = open.as_slice() else {
            return Attribution::None;
        };
        let found = Attributed {
            call: only.call.clone(),
            trust: Trust::Asserted,
            basis,
        };
        let name: Option<Box<str>> = server_of(only).map(Into::into);
        let (Some(name), Some(child)) = (name, child) else {
            return Attribution::Call(found);
        };
        if book.is_server(child, &name) {
            Attribution::Call(found)
        } else {
            Attribution::None
        }
    }
}

/// The trust in an attribution: `verified` for a verified report and a flow with evidence
/// (`shown`).
fn trust_of(entry: &Entry, shown: bool) -> Trust {
    if shown && entry.is_verified() {
        Trust::Verified
    } else {
        Trust::Asserted
    }
}

/// The server in the name of a tool, `mcp__SERVER__TOOL`.
fn server_of(entry: &Entry) -> Option<&str> {
    let name = entry.call.tool.as_deref()?.strip_prefix("mcp__")?;
    name.split_once("__").map(|(server, _)| server)
}

/// The process in this line of ancestors that the agent itself started.
fn child_of_agent(process: &Process, agent: Option<u32>) -> Option<Child> {
    let agent = agent?;
    let at = process.lineage.iter().position(|it| it.outer == agent)?;
    let Pids { outer, inner } = *process.lineage.get(at.checked_sub(1)?)?;
    Some(Child {
        pid: outer,
        inner,
        began: table::began(outer)?,
    })
}

impl Book {
    /// Open calls for which `holds` is true: calls that the agent reported, else other calls.
    /// Reports of other processes do not hide a call that the agent reported.
    fn open_calls(&self, holds: impl Fn(&&Entry) -> bool) -> Vec<&Entry> {
        let open: Vec<&Entry> = self
            .calls
            .iter()
            .filter(|it| it.open && holds(it))
            .collect();
        let verified: Vec<&Entry> = open.iter().filter(|it| it.is_verified()).copied().collect();
        if verified.is_empty() { open } else { verified }
    }

    /// The known result for a command's flow; `None` if a look-up is needed.
    fn known(&self, span: Option<&Arc<str>>, child: Option<Child>) -> Option<Attribution> {
        let by_span = span.map(|span| self.spans.iter().rfind(|it| it.name == *span));
        let by_shell = child.map(|child| self.shell(child));
        let (numbers, basis) = match (by_span, by_shell) {
            // Without a shell, or with a shell whose text fits no call, only the variables are
            // evidence.
            (Some(span), None | Some(None)) => {
                ((span?.number, span?.number), CallBasis::Environment)
            }
            (None, Some(shell)) => ((shell?.number, shell?.number), CallBasis::Ancestry),
            (Some(span), Some(Some(shell))) => {
                ((span?.number, shell.number), CallBasis::Environment)
            }
            (None, None) => return None,
        };
        let entry = self.calls.iter().find(|it| it.number == numbers.0)?;
        if numbers.0 != numbers.1 {
            return Some(Attribution::Conflict);
        }
        let own = child.map(|child| child.pid);
        let of_shell = match by_span.flatten() {
            Some(span) => own.is_some() && span.shell == own,
            None => own.is_some(),
        };
        let shown = of_shell && by_shell.flatten().is_some_and(|shell| shell.is_sole);
        Some(Attribution::Call(Attributed {
            call: entry.call.clone(),
            trust: trust_of(entry, shown),
            basis,
        }))
    }

    fn shell(&self, child: Child) -> Option<Shell> {
        let mut shells = self.shells.iter();
        let found = shells.rfind(|it| (it.pid, it.began) == (child.pid, child.began));
        found.copied()
    }

    /// Ties a shell that the agent started to the only call with its command.
    fn bind_shell(&mut self, child: Child, text: Option<(&str, Option<u64>)>) {
        if self.shell(child).is_some() {
            return;
        }
        let Some((text, began)) = text else { return };
        let fit = match self.fit(text, began, holds) {
            // A shell may replace itself with its last command.
            Fit::None if began.is_some() => self.fit(text, began, is_end_of),
            fit => fit,
        };
        let Fit::One(number) = fit else { return };
        self.local = true;
        self.bind(number);
        if self.shells.len() >= MAX_SPANS {
            self.shells.pop_front();
        }
        let Child { pid, began, .. } = child;
        let is_sole = self.is_sole(number, began);
        self.shells.push_back(Shell {
            pid,
            began,
            number,
            is_sole,
        });
    }

    /// Whether a shell that started at this time cannot belong to another call that the agent
    /// reported.
    fn is_sole(&self, number: u64, began: u64) -> bool {
        let was_under_way =
            |it: &&Entry| it.place == Place::Bash && it.is_verified() && it.may_have_started(began);
        let mut calls = self.calls.iter().filter(was_under_way);
        calls.all(|it| it.number == number)
    }

    /// Ties a span to a call.
    fn bind_span(
        &mut self,
        name: &Arc<str>,
        child: Option<Child>,
        shell: Option<(&str, Option<u64>)>,
        command: Option<&str>,
    ) {
        // Another flow of the span may have been first.
        if self.spans.iter().any(|span| span.name == *name) {
            return;
        }
        let own = child.and_then(|child| self.shell(child));
        let by_shell = match own {
            Some(shell) => Fit::One(shell.number),
            None => shell.map_or(Fit::None, |(text, began)| self.fit(text, began, overlap)),
        };
        self.local |= matches!(by_shell, Fit::One(_));
        let fit = match (by_shell, command) {
            (Fit::None, Some(text)) => self.fit(text, None, overlap),
            (fit, _) => fit,
        };
        // The shell of an open call runs: without its shell, the process is left over from an
        // earlier call.
        let left = self.local && shell.is_none();
        let number = match fit {
            Fit::One(number) => Some(number),
            Fit::Several => None,
            Fit::None => self.by_elimination(left),
        };
        let Some(number) = number else { return };
        self.bind(number);
        if self.spans.len() >= MAX_SPANS {
            self.spans.pop_front();
        }
        // A span with the process id of another shell than the one above the process is not that
        // shell's own.
        let is_own = |shell: &Shell| {
            let inner = child.map(|child| child.inner);
            child.map(|child| child.pid) == Some(shell.pid) && inner == shell_number(name)
        };
        self.spans.push_back(Span {
            name: name.clone(),
            number,
            shell: own.filter(is_own).map(|shell| shell.pid),
        });
    }

    fn bind(&mut self, number: u64) {
        if let Some(entry) = self.calls.iter_mut().find(|entry| entry.number == number) {
            entry.bound = true;
        }
    }

    /// The call whose command fits a text. Calls that the agent reported come first, then others;
    /// among these, open calls without a shell, then open calls, then all. A shell runs no call
    /// that was reported after the shell started, and none that had ended by then.
    fn fit(&self, text: &str, began: Option<u64>, fits: fn(&str, &str) -> bool) -> Fit {
        let runs = |it: &&Entry| {
            let command = it.command.as_deref().unwrap_or_default();
            let may = began.is_none_or(|began| it.may_have_started(began));
            it.place == Place::Bash && may && fits(text, command)
        };
        for verified in [true, false] {
            let of = |class: fn(&Entry) -> bool| {
                let calls = self.calls.iter().filter(runs);
                one_of(calls.filter(|it| it.is_verified() == verified && class(it)))
            };
            for class in [open_and_unbound, is_open, is_any] {
                match of(class) {
                    Fit::None => {}
                    fit => return fit,
                }
            }
        }
        Fit::None
    }

    /// The only possible call of a command without a text. `left`: its shell has ended.
    fn by_elimination(&self, left: bool) -> Option<u64> {
        let classes: &[fn(&Entry) -> bool] = if left {
            &[ended_and_unbound]
        } else {
            &[open_and_unbound, is_open, is_unbound]
        };
        for class in classes {
            for verified in [true, false] {
                let mut calls = self.calls.iter().filter(|it| {
                    it.place == Place::Bash && it.is_verified() == verified && class(it)
                });
                match (calls.next(), calls.next()) {
                    (Some(only), None) => return Some(only.number),
                    (Some(_), Some(_)) => return None,
                    (None, _) => {}
                }
            }
        }
        None
    }

    /// Whether a process of the agent is the MCP server of that name: its flows came during calls
    /// of one server only, and no other process counts as that server.
    fn is_server(&mut self, child: Child, name: &str) -> bool {
        let own = |it: &Server| (it.pid, it.began) == (child.pid, child.began);
        let named = |it: &&Server| it.name.as_deref() == Some(name);
        let other = self.servers.iter().filter(named).any(|it| !own(it));
        let known = self.servers.iter().position(own);
        let Some(at) = known else {
            if self.servers.len() >= MAX_SPANS {
                self.servers.pop_front();
            }
            self.servers.push_back(Server {
                pid: child.pid,
                began: child.began,
                name: (!other).then(|| name.into()),
            });
            return !other;
        };
        let Some(server) = self.servers.get_mut(at) else {
            return false;
        };
        if server.name.as_deref() != Some(name) || other {
            server.name = None;
        }
        server.name.is_some()
    }
}

/// The one of several calls that fits: the longest command, if it contains all the others.
fn one_of<'a>(calls: impl Iterator<Item = &'a Entry>) -> Fit {
    let calls: Vec<&Entry> = calls.collect();
    let command = |it: &Entry| it.command.clone().unwrap_or_default();
    let Some(longest) = calls.iter().max_by_key(|it| command(it).len()) else {
        return Fit::None;
    };
    let whole = command(longest);
    let is_part = |it: &&&Entry| {
        let part = command(it);
        part != whole && whole.contains(&*part)
    };
    let parts = calls.iter().filter(is_part).count();
    if parts + 1 == calls.len() {
        Fit::One(longest.number)
    } else {
        Fit::Several
    }
}

fn open_and_unbound(entry: &Entry) -> bool {
    entry.open && !entry.bound
}

fn ended_and_unbound(entry: &Entry) -> bool {
    !entry.open && !entry.bound
}

fn is_open(entry: &Entry) -> bool {
    entry.open
}

fn is_unbound(entry: &Entry) -> bool {
    !entry.bound
}

fn is_any(_entry: &Entry) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use crate::name::Host;

    use super::*;

    impl Calls {
        /// The call of a command's flow, by its span; a conflict counts as none.
        pub(in super::super) fn of_span(
            &self,
            session: &str,
            span: &Arc<str>,
            process: Option<&Process>,
            here: bool,
            agent: Option<u32>,
        ) -> Option<Attributed> {
            let command = Command {
                span: Some(span),
                child: process.and_then(|process| child_of_agent(process, agent)),
                here,
                process,
            };
            match self.of_command(session, &command) {
                Attribution::Call(found) => Some(found),
                Attribution::None | Attribution::Conflict | Attribution::Left => None,
            }
        }

        /// The call of a flow from the agent's process to that host.
        pub(in super::super) fn of_page(
            &self,
            session: &str,
            host: &str,
            by_agent: bool,
        ) -> Option<Attributed> {
            let host = Host::parse(host.as_bytes()).unwrap();
            let target = Target { host, port: 443 };
            match self.of_agent(session, (Some(&target), None, None), by_agent) {
                Attribution::Call(found) => Some(found),
                Attribution::None | Attribution::Conflict | Attribution::Left => None,
            }
        }
    }
}
