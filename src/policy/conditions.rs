//! What a rule asks of a request, and how a request stands to it.

use crate::name::Path;

use super::clause::Flow;
use super::glob::Glob;
use super::paths::PathPattern;
use super::servers::ServerId;
use super::verdict::{Reason, Verdict};
use super::{Action, Attempt, Deed, McpCall};

/// What a clause asks of a request; each part that is not empty must hold.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// None of them: any.
    pub(super) actions: Actions,
    pub(super) methods: Box<[Box<str>]>,
    pub(super) paths: Box<[PathPattern]>,
    /// What few rules ask.
    pub(super) deed: Option<Box<DeedConditions>>,
}

/// What a clause asks of that which a request does.
#[derive(Debug, Default)]
pub(super) struct DeedConditions {
    pub(super) servers: Box<[ServerId]>,
    /// Where those servers are, for tunnels: the first server at each target.
    pub(super) sites: Box<[ServerId]>,
    pub(super) operations: Box<[Glob]>,
    pub(super) repositories: Box<[Glob]>,
    pub(super) packages: Box<[Glob]>,
    pub(super) refs: Box<[Glob]>,
    pub(super) tools: Tools,
    pub(super) mcp_methods: Box<[Glob]>,
    pub(super) credentials: Box<[Box<str>]>,
}

/// Names of tools.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub(super) allow: Box<[Glob]>,
    pub(super) deny: Box<[Glob]>,
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Actions(u8);

/// How a request stands to what a clause asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Met {
    /// All of it holds, or will be seen before anything goes on.
    Yes,
    No,
    /// All but the tool or the method of MCP.
    ButTool,
    /// All but the credentials; what the body tells is still to come.
    ButCredential,
    /// All but something that an allow does not only leave out, but forbids.
    Barred(Reason),
}

/// Whether one condition holds, weakest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Held {
    No,
    /// Only the body tells.
    Unread,
    Yes,
}

/// How a message of MCP stands to names of tools and methods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tool {
    Held(Held),
    Denied,
}

impl Actions {
    pub(super) fn insert(&mut self, action: Action) {
        self.0 |= 1 << action as u8;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }

    pub(super) fn words(self) -> String {
        let named = Action::ALL.into_iter().filter(|it| self.contains(*it));
        named.map(Action::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl From<Option<Action>> for Actions {
    fn from(action: Option<Action>) -> Self {
        let mut actions = Self::default();
        if let Some(action) = action {
            actions.insert(action);
        }
        actions
    }
}

impl Conditions {
    /// Whether any part asks something.
    pub(super) fn is_empty(&self) -> bool {
        self.actions.is_empty()
            && self.methods.is_empty()
            && self.paths.is_empty()
            && self.deed.is_none()
    }

    /// Whether an allow can forbid: what it says of tools or credentials.
    pub(super) fn can_bar(&self) -> bool {
        let bars =
            |deed: &DeedConditions| !deed.credentials.is_empty() || !deed.tools.deny.is_empty();
        self.deed.as_deref().is_some_and(bars)
    }

    pub(super) fn names_credentials(&self) -> bool {
        let deed = self.deed.as_deref();
        deed.is_some_and(|deed| !deed.credentials.is_empty())
    }

    /// Whether an MCP server is named.
    pub(super) fn names_server(&self, server: Option<ServerId>) -> bool {
        let named = self.deed.as_deref().map_or(&[][..], |deed| &deed.servers);
        server.is_some_and(|server| named.contains(&server))
    }

    /// Whether a target is one of the servers that are named, where some are.
    pub(super) fn is_site(&self, site: Option<ServerId>) -> bool {
        let sites = self.deed.as_deref().map_or(&[][..], |deed| &deed.sites);
        sites.is_empty() || site.is_some_and(|site| sites.contains(&site))
    }

    /// How a flow stands to all of it.
    pub(super) fn met(&self, flow: &Flow<'_>, verdict: Verdict) -> Met {
        let is_allow = verdict == Verdict::Allow;
        if self.is_empty() {
            return Met::Yes;
        }
        let Attempt::Request { method, path, .. } = flow.attempt else {
            let seen = flow.inspected || flow.opaque;
            return Met::of(is_allow && seen && self.is_site(flow.site));
        };
        let held = self.action(flow).min(self.line(method, path));
        let Some(deed) = self.deed.as_deref() else {
            return held.settled(is_allow);
        };
        let nothing = Deed::default();
        let done = flow.deed.unwrap_or(&nothing);
        let held = deed
            .parts(done, flow, path, is_allow)
            .into_iter()
            .fold(held, Held::min);
        let tool = deed.tool(done, flow.unread(), is_allow);
        let credentials = deed.credentials(done, is_allow);
        DeedConditions::together(held, tool, credentials, is_allow)
    }

    /// The first key that does not hold.
    pub(super) fn key(&self, flow: &Flow<'_>) -> &'static str {
        let (Some(deed), Some(done), Attempt::Request { method, path, .. }) =
            (self.deed.as_deref(), flow.deed, flow.attempt)
        else {
            return "paths";
        };
        if self.line(method, path) != Held::Yes {
            return "paths";
        }
        let parts = deed.parts(done, flow, path, true);
        let keys = ["servers", "operations", "repositories", "packages", "refs"];
        let missed = parts
            .into_iter()
            .zip(keys)
            .find(|(held, _)| *held != Held::Yes);
        missed.map_or("tools", |(_, key)| key)
    }

    fn action(&self, flow: &Flow<'_>) -> Held {
        match flow.action {
            _ if self.actions.is_empty() => Held::Yes,
            Some(action) => Held::of(self.actions.contains(action)),
            None => Held::unknown(flow.unread()),
        }
    }

    fn line(&self, method: &str, path: &Path) -> Held {
        let paths = &self.paths;
        let method = self.methods.is_empty() || self.has_method(method);
        let named = |path: &str| paths.iter().any(|pattern| pattern.matches(path));
        Held::of(method && (paths.is_empty() || named(path.path())))
    }

    /// Whether the method is named; `GET` implies `HEAD`.
    pub(super) fn has_method(&self, method: &str) -> bool {
        let named = |method: &str| self.methods.iter().any(|named| **named == *method);
        named(method) || (method == "HEAD" && named("GET"))
    }
}

impl DeedConditions {
    /// What is asked but tools and credentials: servers, operations, repositories, packages, refs.
    fn parts(&self, deed: &Deed, flow: &Flow<'_>, path: &Path, is_allow: bool) -> [Held; 5] {
        let unread = flow.unread();
        let named = |server| self.servers.contains(&server);
        let server = self.servers.is_empty() || flow.server.is_some_and(named);
        [
            Held::of(server),
            // The body may tell better what is done: what the head says binds only where it fits.
            match operation(&self.operations, deed, unread, is_allow) {
                Held::No => Held::unknown(unread),
                held => held,
            },
            names(&self.repositories, repository(deed), unread),
            names(&self.packages, deed.package.as_deref(), unread),
            match names(&self.refs, deed.reference.as_deref(), unread) {
                Held::No if announces_push(deed, path) => Held::Unread,
                held => held,
            },
        ]
    }

    /// What is asked of a message of MCP.
    fn tool(&self, deed: &Deed, unread: bool, is_allow: bool) -> Tool {
        let tools = !self.tools.allow.is_empty() || !self.tools.deny.is_empty();
        if !tools && self.mcp_methods.is_empty() {
            return Tool::Held(Held::Yes);
        }
        let Some(call) = &deed.mcp else {
            return Tool::Held(Held::No);
        };
        if unread {
            return Tool::Held(Held::Unread);
        }
        match call.method.as_deref() {
            Some("tools/call") if tools => self.called(call, is_allow),
            _ if tools && !is_allow => Tool::Held(Held::No),
            method => Tool::Held(names(&self.mcp_methods, method, false)),
        }
    }

    fn called(&self, call: &McpCall, is_allow: bool) -> Tool {
        let Some(tool) = call.tool.as_deref() else {
            return Tool::Held(Held::No);
        };
        let denied = self.tools.deny.iter().any(|glob| glob.matches(tool));
        match (is_allow, denied) {
            (true, true) => Tool::Denied,
            (true, false) => Tool::Held(names(&self.tools.allow, Some(tool), false)),
            (false, denied) => Tool::Held(Held::of(denied)),
        }
    }

    /// Whether an allow lets all credentials pass; whether another rule means one of them.
    fn credentials(&self, deed: &Deed, is_allow: bool) -> bool {
        if self.credentials.is_empty() {
            return true;
        }
        let mut shown = deed.credentials.iter();
        if is_allow {
            shown.all(|shown| self.credentials.contains(shown))
        } else {
            shown.any(|shown| self.credentials.contains(shown))
        }
    }

    fn together(held: Held, tool: Tool, credentials: bool, is_allow: bool) -> Met {
        match (held, tool, credentials) {
            (Held::No, ..) | (_, Tool::Held(Held::No), false) => Met::No,
            (_, Tool::Denied, _) => Met::Barred(Reason::McpToolDenied),
            (_, Tool::Held(Held::No), true) => Met::ButTool,
            (_, Tool::Held(tool), true) => held.min(tool).settled(is_allow),
            (Held::Yes, Tool::Held(Held::Yes), false) if is_allow => {
                Met::Barred(Reason::CredentialDenied)
            }
            (_, Tool::Held(_), false) => Met::ButCredential,
        }
    }
}

/// Whether one of the patterns, where there are any, names the operation or a word that includes it.
fn operation(patterns: &[Glob], deed: &Deed, unread: bool, is_allow: bool) -> Held {
    if patterns.is_empty() {
        return Held::Yes;
    }
    let words = deed.operation_words(is_allow);
    let named = |word: &&str| patterns.iter().any(|pattern| pattern.matches(word));
    match words.as_slice() {
        [] => Held::unknown(unread),
        words => Held::of(words.iter().any(named)),
    }
}

/// The repository as patterns name it.
fn repository(deed: &Deed) -> Option<&str> {
    let repository = deed.repository.as_deref()?;
    Some(repository.strip_suffix(".git").unwrap_or(repository))
}

/// Whether git only asks where it may push: refs come with the push itself.
fn announces_push(deed: &Deed, path: &Path) -> bool {
    deed.action == Some(Action::Write) && path.path().ends_with("/info/refs")
}

/// Whether one of the patterns, where there are any, matches what is known.
fn names(patterns: &[Glob], known: Option<&str>, unread: bool) -> Held {
    match known {
        _ if patterns.is_empty() => Held::Yes,
        Some(text) => Held::of(patterns.iter().any(|pattern| pattern.matches(text))),
        None => Held::unknown(unread),
    }
}

impl Held {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    fn unknown(unread: bool) -> Self {
        if unread { Self::Unread } else { Self::No }
    }

    /// An allow waits for the body, as the whole is judged again; a deny and an ask wait too.
    fn settled(self, is_allow: bool) -> Met {
        Met::of(self == Self::Yes || (is_allow && self == Self::Unread))
    }
}

impl Met {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}
