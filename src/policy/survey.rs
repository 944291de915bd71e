//! What a destination is for, and whether it is inspected: what is asked before any verdict.

use super::Category;
use super::catalogue::Entry;
use super::clause::{Clause, Flow, Ports, Recipient};
use super::compile::Policy;
use super::decide::{Attempt, Query};
use super::passage::Inspection;
use super::servers::ServerId;
use super::verdict::Basis;

impl Policy {
    /// Whether TLS is ended here: as the rule with the most specific host says, else where
    /// `[inspect]` or the tier names the destination.
    pub(super) fn inspection<'p>(
        &'p self,
        flow: &Flow<'_>,
        query: &Query<'_>,
        survey: &mut Survey<'p>,
    ) -> Inspection<'p> {
        if matches!(flow.attempt, Attempt::Request { tls: false, .. }) {
            return Inspection::No;
        }
        if self.hostless_inspect {
            for clause in self.hostless(flow).iter().filter_map(|id| self.clause(*id)) {
                survey.note_inspect(clause, flow);
            }
        }
        let tier = self.tiers.tier(flow.who.tier);
        let listed = || {
            tier.inspect.contains(flow.category)
                || self.passages.inspect(&query.target.host, flow.category)
        };
        match survey.inspects {
            Some((_, true)) => Inspection::Yes,
            Some((clause, false)) if survey.wanted || listed() => Inspection::Passed(&clause.named),
            None if listed() => Inspection::Yes,
            Some((_, false)) | None => Inspection::No,
        }
    }

    /// Says what a destination is for: a rule, else its host in the catalogue, else a listed server.
    pub(super) fn categorize<'p>(
        &'p self,
        query: &Query<'_>,
        assigned: Option<(Category, &'p Clause)>,
        flow: &Flow<'_>,
    ) -> CategorySource<'p> {
        if let Some((category, clause)) = assigned {
            let ports: &[u16] = match &clause.ports {
                Ports::Listed(ports) => ports,
                Ports::Any | Ports::Default | Ports::Destination => &[],
            };
            let location = &clause.named.location;
            return CategorySource {
                category,
                basis: Basis::Rule,
                ports,
                location,
                entry: None,
            };
        }
        if let Some(entry) = self.catalogue.find(&query.target.host) {
            return CategorySource {
                category: entry.category,
                basis: Basis::Host,
                ports: &entry.ports,
                location: &entry.location,
                entry: Some(entry),
            };
        }
        self.listed(flow.site).unwrap_or(CategorySource {
            category: Category::Unknown,
            basis: Basis::None,
            ports: &[],
            location: "",
            entry: None,
        })
    }

    /// What is known of the place of a listed MCP server.
    fn listed(&self, server: Option<ServerId>) -> Option<CategorySource<'_>> {
        let server = self.servers.get(server?)?;
        Some(CategorySource {
            category: Category::Mcp,
            basis: Basis::Rule,
            ports: &server.ports,
            location: &server.location,
            entry: None,
        })
    }

    /// What a request is for, where that is not what its host is for; told to the flow.
    pub(super) fn by_request<'p>(
        &'p self,
        by_host: CategorySource<'p>,
        flow: &mut Flow<'p>,
        query: &Query<'_>,
    ) -> CategorySource<'p> {
        let mut source = by_host;
        if let (Some(entry), Attempt::Request { path, .. }) = (source.entry, query.attempt)
            && let Some(category) = entry.split(path.path())
        {
            (source.category, source.basis) = (category, Basis::Path);
        }
        let call = flow.deed.and_then(|deed| deed.mcp.as_ref());
        flow.mcp = match (call, self.listed(flow.server)) {
            (None, _) => None,
            (Some(_), Some(listed)) => {
                source = listed;
                Some(Recipient::Listed)
            }
            (Some(_), None) if source.category == Category::Mcp => Some(Recipient::Known),
            (Some(_), None) => {
                (source.category, source.basis) = (Category::Mcp, Basis::Content);
                Some(Recipient::Unlisted)
            }
        };
        flow.category = source.category;
        flow.destination_ports = source.ports;
        source
    }
}

/// What a destination is for, and who says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct CategorySource<'p> {
    pub(super) category: Category,
    pub(super) basis: Basis,
    /// The ports of the destination; none: the default.
    ports: &'p [u16],
    /// `policy/web.toml:31`, `model-api.toml:14`, or nothing.
    pub(super) location: &'p str,
    entry: Option<&'p Entry>,
}

/// What the rules that name a host say, besides their verdicts.
#[derive(Debug, Default)]
pub(super) struct Survey<'p> {
    /// What it is for.
    pub(super) assigns: Option<(Category, &'p Clause)>,
    /// Whether TLS is ended there: the first that says it.
    inspects: Option<(&'p Clause, bool)>,
    /// Whether any says that it is.
    wanted: bool,
    /// Whether any asks something of the request.
    pub(super) conditional: bool,
}

impl<'p> Survey<'p> {
    /// Takes up a clause; the more specific ones come first.
    pub(super) fn note(&mut self, clause: &'p Clause, flow: &Flow<'_>) {
        let assigns = clause.assigns.map(|category| (category, clause));
        self.assigns = self.assigns.or(assigns);
        self.conditional |= !clause.request.is_empty();
        self.note_inspect(clause, flow);
    }

    fn note_inspect(&mut self, clause: &'p Clause, flow: &Flow<'_>) {
        let Some(inspects) = clause.inspect.filter(|_| clause.reaches(flow)) else {
            return;
        };
        self.inspects = self.inspects.or(Some((clause, inspects)));
        self.wanted |= inspects;
    }
}
