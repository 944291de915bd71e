//! `does`: the conditions of a rule on a request, and whether a request meets them.

use crate::name::Path;

use super::Action;
use super::facts::{McpCall, RequestFacts};
use super::flow::Flow;
use super::paths::PathPattern;
use super::pattern::{Pattern, Readings};
use super::query::Attempt;
use super::servers::ServerId;

/// The conditions of one rule; each part that is not empty must hold.
///
/// An allow reads narrowly: the condition must hold for the request exactly as forwarded. A deny
/// and an ask read widely: the condition must hold for some reading that a known server makes.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// Empty: any action.
    pub(super) actions: Actions,
    pub(super) methods: Box<[Box<str>]>,
    pub(super) paths: Box<[PathPattern]>,
    /// The parts that few rules have.
    pub(super) named: Option<Box<NamedConditions>>,
}

/// Conditions on the names in a request.
#[derive(Debug, Default)]
pub(super) struct NamedConditions {
    pub(super) servers: Box<[ServerId]>,
    /// The sites of those servers, for tunnels: the first server at each target.
    pub(super) sites: Box<[ServerId]>,
    pub(super) operations: Box<[Pattern]>,
    pub(super) repositories: Box<[Pattern]>,
    pub(super) packages: Box<[Pattern]>,
    pub(super) refs: Box<[Pattern]>,
    pub(super) tools: Box<[Pattern]>,
    pub(super) mcp_methods: Box<[Pattern]>,
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Actions(u8);

/// Whether a request meets the conditions of a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Met {
    /// All hold; or the rule allows, and the rest will be read before any byte is forwarded.
    Yes,
    No,
    /// All except the tool or the method of MCP.
    ButTool,
    /// All for the path as written, but not for the path as some server reads it.
    ButPath,
}

/// Whether one condition holds, weakest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Held {
    No,
    /// Only the body shows it.
    Unread,
    Yes,
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

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        let mut set = Self::default();
        actions.into_iter().for_each(|action| set.insert(action));
        set
    }
}

impl Conditions {
    /// Whether the rule has no condition on a request.
    pub(super) fn is_empty(&self) -> bool {
        self.actions.is_empty()
            && self.methods.is_empty()
            && self.paths.is_empty()
            && self.named.is_none()
    }

    pub(super) fn names_server(&self, server: Option<ServerId>) -> bool {
        let named = self
            .named
            .as_deref()
            .map_or(&[][..], |named| &named.servers);
        server.is_some_and(|server| named.contains(&server))
    }

    /// Whether a target is the site of one of the named servers, if any are named.
    pub(super) fn is_site(&self, site: Option<ServerId>) -> bool {
        let sites = self.named.as_deref().map_or(&[][..], |named| &named.sites);
        sites.is_empty() || site.is_some_and(|site| sites.contains(&site))
    }

    /// Returns whether a flow meets all conditions.
    pub(super) fn met(&self, flow: &Flow<'_>, narrow: bool) -> Met {
        if self.is_empty() {
            return Met::Yes;
        }
        let Attempt::Request { method, path, .. } = flow.attempt else {
            let seen = flow.inspected || flow.opaque;
            return Met::of(narrow && seen && self.is_site(flow.site));
        };
        if !self.has_method(method, narrow) {
            return Met::No;
        }
        let nothing = RequestFacts::default();
        let done = flow.request_facts.unwrap_or(&nothing);
        let (rest, tool) = self.held(done, flow, path, narrow);
        let by_path = match done.unseen_path {
            Some(unseen) if !self.paths.is_empty() => Met::of(narrow == unseen.lenient),
            Some(_) | None => self.path(path, narrow),
        };
        let met = match by_path {
            Met::Yes if rest.settled(narrow) && !tool.settled(narrow) => Met::ButTool,
            met if rest.settled(narrow) && tool.settled(narrow) => met,
            _ => Met::No,
        };
        if done.other_readings.is_empty() {
            return met;
        }
        // For another reading, body facts are never read: they count as met.
        let holds = |other: &RequestFacts| {
            let (rest, tool) = self.held(other, flow, path, narrow);
            rest.settled(true) && tool.settled(true)
        };
        let mut others = done.other_readings.iter();
        match met {
            Met::Yes if narrow && !others.all(holds) => Met::ButPath,
            Met::No if !narrow && by_path == Met::Yes && others.any(holds) => Met::Yes,
            met => met,
        }
    }

    /// Returns whether one reading of a request meets the conditions except the tool, and the tool.
    fn held(
        &self,
        done: &RequestFacts,
        flow: &Flow<'_>,
        path: &Path,
        narrow: bool,
    ) -> (Held, Held) {
        let action = self.action(done);
        match self.named.as_deref() {
            None => (action, Held::Yes),
            Some(named) => {
                let parts = named.parts(done, flow, path, narrow).into_iter();
                (
                    parts.fold(action, Held::min),
                    named.tool(done, done.is_unread(), narrow),
                )
            }
        }
    }

    /// Returns the first key that does not hold.
    pub(super) fn key(&self, flow: &Flow<'_>, narrow: bool) -> &'static str {
        let (Some(named), Some(done), Attempt::Request { path, .. }) =
            (self.named.as_deref(), flow.request_facts, flow.attempt)
        else {
            return "paths";
        };
        if self.path(path, narrow) != Met::Yes {
            return "paths";
        }
        let parts = named.parts(done, flow, path, narrow);
        let keys = ["servers", "operations", "repositories", "packages", "refs"];
        let mut missed = parts.into_iter().zip(keys);
        let missed = missed.find(|(held, _)| *held != Held::Yes);
        missed.map_or("tools", |(_, key)| key)
    }

    fn action(&self, done: &RequestFacts) -> Held {
        match done.action {
            _ if self.actions.is_empty() => Held::Yes,
            Some(action) => Held::of(self.actions.contains(action)),
            None => Held::unknown(done.is_unread()),
        }
    }

    /// Whether the method is listed; `GET` implies `HEAD`.
    pub(super) fn has_method(&self, method: &str, narrow: bool) -> bool {
        let same = |named: &str, method: &str| {
            named == method || (!narrow && named.eq_ignore_ascii_case(method))
        };
        let named = |method: &str| self.methods.iter().any(|named| same(named, method));
        self.methods.is_empty() || named(method) || (method == "HEAD" && named("GET"))
    }

    /// Matches the path. An allow must match the path as forwarded, and as each kind of server
    /// reads it: no allow may choose between those readings.
    pub(super) fn path(&self, path: &Path, narrow: bool) -> Met {
        if self.paths.is_empty() {
            return Met::Yes;
        }
        let path = path.path();
        if narrow && !self.paths.iter().any(|pattern| pattern.matches(path)) {
            return Met::No;
        }
        let readings = Readings::of(path);
        let reads = |server: usize| {
            let mut paths = self.paths.iter();
            paths.any(|pattern| pattern.matches_reading(&readings, server))
        };
        let mut servers = 0..Readings::COUNT;
        match narrow {
            false => Met::of(servers.any(reads)),
            true if servers.all(reads) => Met::Yes,
            true => Met::ButPath,
        }
    }
}

impl NamedConditions {
    /// Compares servers, operations, repositories, packages, refs.
    fn parts(
        &self,
        request_facts: &RequestFacts,
        flow: &Flow<'_>,
        path: &Path,
        narrow: bool,
    ) -> [Held; 5] {
        let unread = request_facts.is_unread();
        let named = |server| self.servers.contains(&server);
        let reached = flow.server.or(flow.server_alike.filter(|_| !narrow));
        let server = self.servers.is_empty() || reached.is_some_and(named);
        [
            Held::of(server),
            // The body may name another operation than the head: the operation of the head decides
            // only if it matches.
            match operation(&self.operations, request_facts, unread, narrow) {
                Held::No => Held::unknown(unread),
                held => held,
            },
            names(&self.repositories, repository(request_facts), unread),
            names(&self.packages, request_facts.package.as_deref(), unread),
            match names(&self.refs, request_facts.reference.as_deref(), unread) {
                Held::No if announces_push(request_facts, flow, path) => Held::Unread,
                held => held,
            },
        ]
    }

    /// Compares tools and methods of MCP. In an allow, `tools` only limits calls of tools: the
    /// other messages of a session pass, except those that `mcp-methods` leaves out.
    fn tool(&self, request_facts: &RequestFacts, unread: bool, narrow: bool) -> Held {
        if self.tools.is_empty() && self.mcp_methods.is_empty() {
            return Held::Yes;
        }
        let Some(call) = &request_facts.mcp else {
            return Held::No;
        };
        if unread {
            return Held::Unread;
        }
        let is_call = call.method.as_deref() == Some("tools/call");
        if !self.tools.is_empty() && (is_call || !narrow) {
            return Held::of(is_call && self.calls(call));
        }
        names(&self.mcp_methods, call.method.as_deref(), false)
    }

    fn calls(&self, call: &McpCall) -> bool {
        let named = |tool: &str| self.tools.iter().any(|pattern| pattern.matches(tool));
        call.tool.as_deref().is_some_and(named)
    }
}

/// Returns the repository in the form that patterns match.
pub(super) fn repository(request_facts: &RequestFacts) -> Option<&str> {
    let repository = request_facts.repository.as_deref()?;
    Some(repository.strip_suffix(".git").unwrap_or(repository))
}

/// Whether git only asks for permission to push: refs come with the push itself.
fn announces_push(request_facts: &RequestFacts, flow: &Flow<'_>, path: &Path) -> bool {
    let announces = match (request_facts.unseen_path, flow.attempt) {
        (Some(_), Attempt::Request { method, .. }) => method == "GET",
        _ => path.path().ends_with("/info/refs"),
    };
    request_facts.action == Some(Action::Write) && announces
}

/// Whether one of the patterns, if any, matches the operation or a word that includes it.
fn operation(
    patterns: &[Pattern],
    request_facts: &RequestFacts,
    unread: bool,
    narrow: bool,
) -> Held {
    if patterns.is_empty() {
        return Held::Yes;
    }
    match request_facts.operation_words(narrow) {
        words if words.is_empty() => Held::unknown(unread),
        words => {
            let named = |word: &&str| patterns.iter().any(|pattern| pattern.matches(word));
            Held::of(words.iter().any(named))
        }
    }
}

/// Whether one of the patterns, if any, matches the fact.
fn names(patterns: &[Pattern], fact: Option<&str>, unread: bool) -> Held {
    match fact {
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

    /// Until the body is read, a condition on it counts as met for an allow and as unmet for a deny
    /// or an ask. Then the request is decided again.
    fn settled(self, narrow: bool) -> bool {
        self == Self::Yes || (narrow && self == Self::Unread)
    }
}

impl Met {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}
