//! A proposed rule.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::policy::Catalogue;
use crate::replay::{Does, Need, Seen};

use super::super::edit;
use super::proposal::Found;

/// Maximum number of names in one condition of a rule; with more, the rule has no such condition.
const MAX_NAMES: usize = 8;
/// Maximum number of examples of a rule.
const MAX_EXAMPLES: usize = 5;

/// A proposed rule.
#[derive(Debug)]
pub(super) struct Proposed<'n> {
    pub(super) id: String,
    pub(super) key: Key,
    pub(super) needs: Vec<Found<'n>>,
    /// Unrecorded hosts that the catalogue groups with these hosts.
    pub(super) companions: Vec<String>,
}

/// The facts that the needs of one rule have in common.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) tier: String,
    /// The verified repositories of the callers; empty if there are too many, or callers without one.
    pub(super) repositories: Vec<String>,
    /// The groups that all callers had, if `repositories` is empty.
    pub(super) groups: Vec<String>,
    pub(super) category: String,
    /// The package ecosystem of the host, in the catalogue.
    pub(super) ecosystem: Option<String>,
    /// The host; `None`: hosts of the ecosystem with the same requests.
    host: Option<String>,
    pub(super) port: u16,
    /// The request facts, if the requests are seen.
    request: Option<Done>,
}

/// The facts that the requests of one rule have in common.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Done {
    service: Option<String>,
    action: Option<String>,
    server: Option<String>,
    /// The operation of a write. The reads of one host are one rule.
    operation: Option<String>,
    /// The repository at the destination; `None`: several, with the same refs and operations.
    repository: Option<String>,
    /// The operations, refs and packages of the requests, where needs with different names are
    /// merged.
    alike: BTreeSet<[Option<String>; 3]>,
}

impl Key {
    pub(super) fn of(need: &Need, seen: &Seen, catalogue: &Catalogue) -> Self {
        let few = seen.unverified == 0 && seen.repositories.len() <= MAX_NAMES;
        let repositories: Vec<String> = seen.repositories.iter().filter(|_| few).cloned().collect();
        let groups = seen.groups.iter().flatten();
        let groups = groups.filter(|_| repositories.is_empty()).cloned();
        let writes = |done: &Does| done.action.as_deref() == Some("write");
        Self {
            tier: need.tier.clone(),
            groups: groups.collect(),
            repositories,
            category: seen.category.clone(),
            host: Some(need.host.clone()),
            ecosystem: ecosystem(&need.host, catalogue),
            port: need.port,
            request: need.request.as_ref().map(|done| Done {
                service: done.service.clone(),
                action: done.action.clone(),
                server: done.server.clone(),
                operation: done.operation.clone().filter(|_| writes(done)),
                repository: done.repository.clone(),
                alike: BTreeSet::new(),
            }),
        }
    }

    /// Returns the key under which needs are merged that differ only in the repository at the
    /// destination, or, without one, in the host of an ecosystem.
    pub(super) fn without_one_name(mut self, needs: &[Found<'_>]) -> Self {
        if let Some(done) = &mut self.request {
            let requests = needs.iter().filter_map(|(need, _)| need.request.as_ref());
            let names =
                requests.map(|it| [&it.operation, &it.reference, &it.package].map(Clone::clone));
            done.alike = names.collect();
        }
        match &mut self.request {
            Some(done) if done.repository.is_some() => done.repository = None,
            _ if self.ecosystem.is_some() => self.host = None,
            _ => {}
        }
        self
    }

    /// Returns an unused id: of the host, or of the ecosystem.
    pub(super) fn id(&self, needs: &[Found<'_>], taken: &mut BTreeSet<String>) -> String {
        let first = needs.first().map_or("", |(need, _)| &need.host);
        let of = self.ecosystem.as_deref().unwrap_or(first);
        let plain = |letter: char| match letter {
            letter if letter.is_ascii_alphanumeric() => letter.to_ascii_lowercase(),
            _ => '-',
        };
        let action = self.request.as_ref().and_then(|it| it.action.as_deref());
        let action = action
            .map(|action| format!("-{action}"))
            .unwrap_or_default();
        let base: String = of.chars().map(plain).take(30).collect();
        let tier: String = self.tier.chars().take(12).collect();
        let base = format!("seen-{base}{action}-{tier}");
        let mut id = base.clone();
        for number in 2.. {
            if taken.insert(id.clone()) {
                break;
            }
            id = format!("{base}-{number}");
        }
        id
    }
}

/// Returns the package ecosystem of a host, from the catalogue.
fn ecosystem(host: &str, catalogue: &Catalogue) -> Option<String> {
    let files = catalogue.files.iter();
    let mut all = files.flat_map(|(_, file)| &file.destination);
    let found = all.find(|it| it.names().any(|name| name == host));
    found?.ecosystem.clone()
}

impl<'n> Proposed<'n> {
    pub(super) fn new(
        id: String,
        key: Key,
        needs: Vec<Found<'n>>,
        companions: Vec<String>,
    ) -> Self {
        Self {
            id,
            key,
            needs,
            companions,
        }
    }

    /// Returns the hosts that the rule allows.
    pub(super) fn hosts(&self) -> BTreeSet<&str> {
        self.needs.iter().map(|(need, _)| &*need.host).collect()
    }

    /// Returns the number of flows that the rule allows.
    pub(super) fn flows(&self) -> u64 {
        self.needs.iter().map(|(_, seen)| seen.flows).sum()
    }

    /// Returns some of the flows in the notation of trials.
    pub(super) fn examples(&self) -> BTreeSet<&str> {
        let entries = self.needs.iter();
        let entries = entries.filter_map(|(_, seen)| seen.entry.as_deref());
        entries.take(MAX_EXAMPLES).collect()
    }

    /// Returns the lines about the callers.
    pub(super) fn from(&self) -> String {
        let key = &self.key;
        let mut text = format!("from.tiers = {}\n", edit::list([&key.tier]));
        for (name, values) in [("repositories", &key.repositories), ("groups", &key.groups)] {
            if !values.is_empty() {
                let _ = writeln!(text, "from.{name} = {}", edit::list(values));
            }
        }
        text
    }

    /// Returns the table.
    pub(super) fn text(&self) -> String {
        let key = &self.key;
        let mut text = format!(
            "[[rule]]\nid = {}\nverdict = \"allow\"\n",
            edit::quoted(&self.id)
        );
        text.push_str(&self.from());
        let mut line = |rest: String| {
            let _ = writeln!(text, "{rest}");
        };
        let server = key.request.as_ref().and_then(|it| it.server.as_ref());
        // A listed MCP server determines its host and port.
        if server.is_none() {
            line(format!("to.hosts = {}", edit::list(self.hosts())));
            if key.port != 443 || key.request.is_some() {
                line(format!("to.ports = [{}]", key.port));
            }
        }
        if let Some(done) = &key.request {
            self.conditions(done, &mut line);
        }
        line(format!("reason = {}", edit::quoted(&self.reason())));
        let examples = self.examples();
        if !examples.is_empty() {
            line(format!("allows = {}", edit::list(examples)));
        }
        for host in &self.companions {
            line(format!(
                "# not seen: {host}. A cache may have hidden it; add it if an empty cache needs it."
            ));
        }
        text
    }

    fn conditions(&self, done: &Done, line: &mut impl FnMut(String)) {
        if let Some(server) = &done.server {
            line(format!("does.servers = {}", edit::list([server])));
        }
        let tools = self.every(|it| &it.tool);
        if let Some(tools) = tools {
            line(format!("does.tools = {}", edit::list(&tools)));
            return;
        }
        let operations = self.every(|it| &it.operation);
        match (&done.action, operations.filter(|it| !it.contains("other"))) {
            (_, Some(operations)) => {
                line(format!("does.operations = {}", edit::list(&operations)));
            }
            (Some(action), None) => line(format!("does.actions = {}", edit::list([action]))),
            (None, None) => {}
        }
        for (key, field) in [
            (
                "repositories",
                (|it| &it.repository) as fn(&Does) -> &Option<String>,
            ),
            ("refs", |it| &it.reference),
            ("packages", |it| &it.package),
        ] {
            let names = self.some(field);
            if !names.is_empty() {
                line(format!("does.{key} = {}", edit::list(&names)));
            }
        }
    }

    /// Whether the requests have more than [`MAX_NAMES`] names of one kind.
    pub(super) fn has_many_names(&self) -> bool {
        let fields: [fn(&Does) -> &Option<String>; 3] =
            [|it| &it.repository, |it| &it.reference, |it| &it.package];
        fields
            .iter()
            .any(|field| self.some(*field).len() > MAX_NAMES)
    }

    /// Returns the names in a field. Some requests of an operation have none: git asks for
    /// permission to push before it names refs.
    fn some(&self, field: fn(&Does) -> &Option<String>) -> BTreeSet<&str> {
        let requests = self
            .needs
            .iter()
            .filter_map(|(need, _)| need.request.as_ref());
        requests.filter_map(|it| field(it).as_deref()).collect()
    }

    /// Returns the names in a field, if each request has one.
    fn every(&self, field: fn(&Does) -> &Option<String>) -> Option<BTreeSet<&str>> {
        let requests = self.needs.iter().map(|(need, _)| need.request.as_ref());
        requests.map(|it| field(it?).as_deref()).collect()
    }

    /// Describes how often and when the need was recorded.
    fn reason(&self) -> String {
        let days = self.needs.iter().flat_map(|(_, seen)| seen.days.keys());
        let days: BTreeSet<&String> = days.collect();
        let sessions = self.needs.iter().map(|(_, seen)| seen.sessions()).max();
        let (first, last) = (days.first(), days.last());
        let span = match first.zip(last) {
            Some((first, last)) if first == last => (*first).clone(),
            Some((first, last)) => format!("{first} to {last}"),
            None => String::new(),
        };
        let flow = self.needs.first().map_or("", |(_, seen)| &seen.flow);
        format!(
            "seen in {} flows, of up to {} sessions each, {span}; e.g. flow {flow}",
            self.flows(),
            sessions.unwrap_or_default(),
        )
    }
}
