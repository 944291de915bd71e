//! One part of one dimension: the flows in it, and a witness.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::hosts::{HostGroup, HostGroups};
use super::{Point, blank};
use crate::name::Path;
use crate::policy::Action;
use crate::policy::category::Categories;
use crate::policy::compiled::Policy;
use crate::policy::conditions::{Met, repository};
use crate::policy::facts::{McpCall, RequestFacts};
use crate::policy::pattern::{Pattern, PortSet, TooComplex, atoms};
use crate::policy::query::{GroupSet, TierId};
use crate::policy::rule::{Ports, Rule};

/// The names in a request.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::policy) enum Name {
    Repository,
    Package,
    Reference,
    McpMethod,
    Tool,
}

/// One part of one dimension.
#[derive(Clone, Debug)]
pub(in crate::policy) enum Cell {
    /// Not split.
    Any,
    Host(Arc<HostGroup>),
    Tier(TierId),
    /// The callers whose groups meet exactly the `met` ones of some sets of groups.
    Groups {
        sets: Arc<[u128]>,
        met: Box<[bool]>,
        witness: GroupSet,
    },
    Subject(Text),
    /// The repository of the caller.
    Repository(Text),
    /// `None`: a tunnel; otherwise whether the request goes over TLS.
    Protocol(Option<bool>),
    Port(PortSet),
    /// The message to an MCP server, if the request is one.
    Message(Option<McpCall>),
    Path {
        text: Text,
        /// The categories under each reading of the path, and as written.
        categories: Option<Categories>,
    },
    Method(Text),
    Action(Option<Action>),
    Operation(Operation),
    Name(Name, Text),
    Credentials {
        /// The named hashes of each rule with `unless.credentials`.
        named: Arc<[Box<[Box<str>]>]>,
        /// For each such rule, whether some credential is not named.
        foreign: Box<[bool]>,
        witness: Vec<Box<str>>,
    },
}

/// Texts that some patterns do not distinguish, or the absence of a text.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Text {
    patterns: Arc<[Pattern]>,
    /// `None`: there is no text.
    found: Option<(Box<[bool]>, Box<str>)>,
}

/// Operations that some rules do not distinguish.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Operation {
    pub(super) patterns: Arc<[Pattern]>,
    /// For each pattern, whether it matches the operation, in an allow and in a deny.
    pub(super) found: Box<[(bool, bool)]>,
    /// The facts with the operation and its words.
    pub(super) witness: RequestFacts,
}

impl Text {
    /// Returns one part for each set of texts that the patterns do not distinguish, and one for no
    /// text.
    pub(in crate::policy) fn split(
        patterns: Vec<Pattern>,
        optional: bool,
    ) -> Result<Vec<Self>, TooComplex> {
        let patterns: Arc<[Pattern]> = patterns.into();
        let all: Vec<&Pattern> = patterns.iter().collect();
        let of = |found| Self {
            patterns: patterns.clone(),
            found,
        };
        if all.is_empty() {
            return Ok(vec![of(None)]);
        }
        let found = atoms(&all)?.into_iter();
        let mut parts: Vec<Self> = found
            .map(|atom| of(Some((atom.matched, atom.witness.into()))))
            .collect();
        if optional {
            parts.push(of(None));
        }
        Ok(parts)
    }

    pub(in crate::policy) fn witness(&self) -> Option<&str> {
        self.found.as_ref().map(|(_, witness)| &**witness)
    }

    fn contains(&self, text: Option<&str>) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        match (text, &self.found) {
            (None, None) => true,
            (Some(text), Some((matched, _))) => {
                let mut found = self.patterns.iter().zip(matched);
                found.all(|(pattern, matched)| pattern.matches(text) == *matched)
            }
            _ => false,
        }
    }
}

impl Cell {
    /// Sets the witness of the cell in a flow.
    pub(in crate::policy) fn write(&self, point: &mut Point) {
        let text = |text: &Text| text.witness().map(Arc::from);
        match self {
            Self::Any | Self::Host(_) => {}
            Self::Tier(tier) => point.who.tier = *tier,
            Self::Groups { witness, .. } => point.who.groups = *witness,
            Self::Subject(subject) => point.who.subject = text(subject),
            Self::Repository(repository) => point.who.repository = text(repository),
            Self::Protocol(tls) => point.request = tls.and_then(blank),
            Self::Port(ports) => point.target.port = ports.witness().unwrap_or(443),
            _ => self.write_request(point),
        }
    }

    fn write_request(&self, point: &mut Point) {
        let Some(request) = &mut point.request else {
            return;
        };
        let facts = &mut request.facts;
        match self {
            Self::Message(call) => facts.mcp.clone_from(call),
            Self::Path { text, .. } => {
                let path = text
                    .witness()
                    .and_then(|text| Path::parse(text.as_bytes()).ok());
                request.path = path.unwrap_or_else(|| request.path.clone());
            }
            Self::Method(text) => {
                let method = text.witness().map(Box::from);
                request.method = method.unwrap_or_else(|| request.method.clone());
            }
            Self::Action(action) => facts.action = *action,
            Self::Operation(operation) => {
                facts.operation.clone_from(&operation.witness.operation);
                facts.words.clone_from(&operation.witness.words);
            }
            Self::Name(name, text) => {
                let text: Option<Box<str>> = text.witness().map(Box::from);
                match (name, &mut facts.mcp) {
                    (Name::Repository, _) => facts.repository = text,
                    (Name::Package, _) => facts.package = text,
                    (Name::Reference, _) => facts.reference = text,
                    (Name::McpMethod, Some(call)) => call.method = text,
                    (Name::Tool, Some(call)) => call.tool = text,
                    (Name::McpMethod | Name::Tool, None) => {}
                }
            }
            Self::Credentials { witness, .. } => facts.credentials.clone_from(witness),
            _ => {}
        }
    }

    /// Whether a flow is in the cell.
    pub(in crate::policy) fn contains(
        &self,
        policy: &Policy,
        groups: &HostGroups,
        point: &Point,
    ) -> bool {
        let who = &point.who;
        match self {
            Self::Any => true,
            Self::Host(group) => groups.holds(policy, group, &point.target.host),
            Self::Tier(tier) => who.tier == *tier,
            Self::Groups { sets, met, .. } => {
                let found = sets.iter().map(|set| set & who.groups.0 != 0);
                found.eq(met.iter().copied())
            }
            Self::Subject(text) => text.contains(who.subject.as_deref()),
            Self::Repository(text) => text.contains(who.repository.as_deref()),
            Self::Protocol(tls) => point.request.as_ref().map(|request| request.tls) == *tls,
            Self::Port(ports) => ports.contains(point.target.port),
            _ => self.contains_request(point),
        }
    }

    fn contains_request(&self, point: &Point) -> bool {
        let Some(request) = &point.request else {
            return false;
        };
        let facts = &request.facts;
        match self {
            Self::Message(call) => {
                let server = |call: &McpCall| call.server.clone();
                facts.mcp.as_ref().map(server) == call.as_ref().map(server)
            }
            Self::Path { text, .. } => text.contains(Some(request.path.path())),
            Self::Method(text) => text.contains(Some(&request.method)),
            Self::Action(action) => facts.action == *action,
            Self::Operation(operation) => {
                let found = operation.patterns.iter().zip(&operation.found);
                let same = |(pattern, found): (&Pattern, &(bool, bool))| {
                    names_operation(pattern, facts) == *found
                };
                { found }.all(same)
            }
            Self::Name(name, text) => text.contains(fact(*name, point)),
            Self::Credentials { named, foreign, .. } => {
                let shown = &facts.credentials;
                let is_foreign = |named: &[Box<str>]| shown.iter().any(|it| !named.contains(it));
                let found = named.iter().map(|named| is_foreign(named));
                found.eq(foreign.iter().copied())
            }
            _ => true,
        }
    }

    /// Whether the part of a rule that concerns this cell can hold for a flow in the cell. Facts of
    /// other cells count as possible.
    pub(in crate::policy) fn may_match(&self, rule: &Rule, point: &Point) -> bool {
        let any = |patterns: &[Pattern], text: Option<&str>| {
            let named = |text: &str| patterns.iter().any(|pattern| pattern.matches(text));
            patterns.is_empty() || text.is_some_and(named)
        };
        let (from, does) = (&rule.from, &rule.does);
        match self {
            Self::Tier(tier) => from.tiers & tier.bit() != 0,
            Self::Groups { witness, .. } => from.groups == 0 || from.groups & witness.0 != 0,
            Self::Subject(text) => any(&from.subjects, text.witness()),
            Self::Repository(text) => any(&from.repositories, text.witness()),
            Self::Port(ports) => match &rule.to.ports {
                Ports::Listed(listed) => ports.witness().is_some_and(|it| listed.contains(&it)),
                Ports::Any | Ports::Default | Ports::Destination => true,
            },
            Self::Path { categories, .. } => {
                let Some(request) = &point.request else {
                    return true;
                };
                let held = does.path(&request.path, rule.is_allow()) == Met::Yes;
                let wanted = rule.to.categories;
                let of = categories.is_none_or(|of| wanted.is_empty() || wanted.intersects(of));
                held && of
            }
            Self::Method(text) => {
                let narrow = rule.is_allow();
                text.witness()
                    .is_none_or(|method| does.has_method(method, narrow))
            }
            Self::Action(action) => {
                let actions = does.actions;
                actions.is_empty() || action.is_some_and(|action| actions.contains(action))
            }
            _ => true,
        }
    }
}

/// Whether a pattern matches an operation, in an allow and in a deny or ask.
pub(in crate::policy) fn names_operation(pattern: &Pattern, facts: &RequestFacts) -> (bool, bool) {
    let named = |narrow| {
        facts
            .operation_words(narrow)
            .iter()
            .any(|word| pattern.matches(word))
    };
    (named(true), named(false))
}

/// Returns the fact of a request that has this name.
pub(in crate::policy) fn fact(name: Name, point: &Point) -> Option<&str> {
    let facts = &point.request.as_ref()?.facts;
    let call = facts.mcp.as_ref();
    match name {
        Name::Repository => repository(facts),
        Name::Package => facts.package.as_deref(),
        Name::Reference => facts.reference.as_deref(),
        Name::McpMethod => call?.method.as_deref(),
        Name::Tool => call?.tool.as_deref(),
    }
}

/// Returns the callers by the sets of groups, one a rule, that they are in.
pub(in crate::policy) fn groups(rules: &[&Rule]) -> Result<Vec<Cell>, TooComplex> {
    let sets: BTreeSet<u128> = rules.iter().map(|rule| rule.from.groups).collect();
    let sets: Arc<[u128]> = sets.into_iter().filter(|set| *set != 0).collect();
    let met = |groups: u128| -> Box<[bool]> { sets.iter().map(|set| set & groups != 0).collect() };
    let mut parts: BTreeMap<Box<[bool]>, u128> = BTreeMap::from([(met(0), 0)]);
    let named = sets.iter().fold(0, |named, set| named | set);
    for group in GroupSet(named).ids() {
        let with: Vec<u128> = parts.values().map(|groups| groups | group.bit()).collect();
        for groups in with {
            parts.entry(met(groups)).or_insert(groups);
        }
        if parts.len() > MAX_GROUP_SETS {
            return Err(TooComplex);
        }
    }
    let cell = |(met, groups)| Cell::Groups {
        sets: sets.clone(),
        met,
        witness: GroupSet(groups),
    };
    Ok(parts.into_iter().map(cell).collect())
}

/// Maximum number of sets of groups that are distinguished.
const MAX_GROUP_SETS: usize = 4096;

pub(in crate::policy) fn subjects(rules: &[&Rule]) -> Result<Vec<Cell>, TooComplex> {
    let patterns = distinct(rules.iter().flat_map(|rule| &rule.from.subjects).cloned());
    let parts = Text::split(patterns, true)?;
    Ok(parts.into_iter().map(Cell::Subject).collect())
}

pub(in crate::policy) fn repositories(rules: &[&Rule]) -> Result<Vec<Cell>, TooComplex> {
    let patterns = distinct(
        rules
            .iter()
            .flat_map(|rule| &rule.from.repositories)
            .cloned(),
    );
    let parts = Text::split(patterns, true)?;
    Ok(parts.into_iter().map(Cell::Repository).collect())
}

/// Returns each pattern once.
pub(in crate::policy) fn distinct(patterns: impl Iterator<Item = Pattern>) -> Vec<Pattern> {
    let mut distinct: Vec<Pattern> = Vec::new();
    for pattern in patterns {
        if !distinct.contains(&pattern) {
            distinct.push(pattern);
        }
    }
    distinct
}

pub(in crate::policy) fn protocols(tunnels: bool) -> Vec<Cell> {
    let all = [None, Some(true), Some(false)].map(Cell::Protocol);
    all.into_iter().take(if tunnels { 1 } else { 3 }).collect()
}

/// Returns the parts of the ports by the lists of rules; `usual` are the ports that rules without a
/// list may mean.
pub(in crate::policy) fn ports(rules: &[&Rule], usual: &PortSet) -> Vec<Cell> {
    let mut parts = vec![PortSet::all()];
    let single = usual.members().map(|port| PortSet::of([port]));
    let listed = rules.iter().filter_map(|rule| match &rule.to.ports {
        Ports::Listed(written) => Some(PortSet::of(written.iter().copied())),
        Ports::Any | Ports::Default | Ports::Destination => None,
    });
    for set in single.chain(listed) {
        let split = |part: &PortSet| [part.intersection(&set), part.difference(&set)];
        parts = parts
            .iter()
            .flat_map(split)
            .filter(|part| !part.is_empty())
            .collect();
    }
    parts.into_iter().map(Cell::Port).collect()
}

/// Whether the ports of a rule depend only on the port.
pub(in crate::policy) fn has_plain_ports(rule: &Rule) -> bool {
    matches!(rule.to.ports, Ports::Any | Ports::Listed(_))
}
