//! The label of a destination: its category, ports and service, and where they are configured.

use std::sync::Arc;

use crate::name::{Path, Target};

use super::category::{Categories, Category};
use super::compiled::Policy;
use super::directory::Destination;
use super::facts::{Body, McpCall, RequestFacts, Seen, UnseenPath};
use super::flow::{Flow, Recipient};
use super::query::{Attempt, Query};
use super::servers::ServerId;
use super::tiers::Tier;
use super::verdict::Basis;
use super::words::Words;

/// The label of a destination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label<'p> {
    pub(super) category: Category,
    pub(super) basis: Basis,
    /// The ports of the destination; empty: the default.
    pub(super) ports: &'p [u16],
    /// `policy/web.toml:31`, `model-api.toml:14`, or empty.
    pub(super) location: &'p str,
    pub(super) entry: Option<&'p Destination>,
}

const UNKNOWN: Label<'static> = Label {
    category: Category::Unknown,
    basis: Basis::None,
    ports: &[],
    location: "",
    entry: None,
};

impl Policy {
    /// Returns the facts in the head of a request: by the service of its destination, from the data
    /// files beside the catalogue. Messages to a listed MCP server have to be read further.
    pub fn read(&self, target: &Target, method: &str, path: &Path) -> RequestFacts {
        let label = self.label(target);
        let service = label.entry.and_then(|entry| entry.service.as_deref());
        let split = label.entry.and_then(|entry| entry.split(path.path()));
        let server = self.servers.endpoint(target, path);
        let server = server.and_then(|id| self.servers.get(id));
        let category = match server {
            Some(_) => Category::Mcp,
            None => split.unwrap_or(label.category),
        };
        let services = &self.catalogue.services;
        let mut request_facts = services.read(service, category, method, path);
        if let Some(server) = server {
            request_facts.seen = Seen::Head;
            request_facts.body = Some(Body::Mcp);
            request_facts.mcp = Some(McpCall {
                server: Some(server.name.clone()),
                ..McpCall::default()
            });
        }
        request_facts
    }

    /// Returns the facts in the head of a query, if the query has none yet.
    pub(super) fn read_for(&self, query: &Query<'_>) -> Option<RequestFacts> {
        match query.attempt {
            Attempt::Connect
            | Attempt::Request {
                request_facts: Some(_),
                ..
            } => None,
            Attempt::Request { method, path, .. } => Some(self.read(query.target, method, path)),
        }
    }

    /// Returns a flow in the form that rules match, and the label of its destination. Whether the
    /// flow is inspected is decided later.
    pub(super) fn flow<'p>(
        &'p self,
        query: &Query<'p>,
        request_facts: Option<&'p RequestFacts>,
        tier: &Tier,
    ) -> (Flow<'p>, Label<'p>) {
        let call = request_facts.and_then(|request_facts| request_facts.mcp.as_ref());
        let server = call.and_then(|call| self.servers.find(call.server.as_deref()?));
        let by_host = self.label(query.target);
        let (label, categories) = by_path(by_host, query);
        let (label, mcp) = match (call, self.listed(server)) {
            (None, _) => (label, None),
            (Some(_), Some(listed)) => (listed, Some(Recipient::Listed)),
            (Some(_), None) if label.category == Category::Mcp => (label, Some(Recipient::Known)),
            (Some(_), None) => {
                let (category, basis) = (Category::Mcp, Basis::Content);
                (
                    Label {
                        category,
                        basis,
                        ..label
                    },
                    Some(Recipient::Unlisted),
                )
            }
        };
        let site = self.servers.at(query.target);
        let server_alike = match query.attempt {
            Attempt::Request { path, .. } if site.is_some() && server.is_none() => {
                self.servers.alike(query.target, path)
            }
            _ => None,
        };
        let alike = server_alike.map(|_| Category::Mcp);
        let message: Categories = [label.category].into_iter().chain(alike).collect();
        let flow = Flow {
            who: query.who,
            attempt: query.attempt,
            port: query.target.port,
            category: label.category,
            categories: categories.union(message),
            request_facts,
            action: request_facts.and_then(|request_facts| request_facts.action),
            server,
            server_alike,
            site,
            mcp,
            inspected: false,
            destination_ports: label.ports,
            opaque: tier.opaque,
        };
        (flow, label)
    }

    /// Returns the label of a host: of the most specific `[[destination]]`, otherwise of the
    /// catalogue, otherwise of a listed MCP server.
    pub(super) fn label(&self, target: &Target) -> Label<'_> {
        let own = self.destinations.find(&target.host);
        let found = own.map(|entry| (entry, Basis::Rule)).or_else(|| {
            let entry = self.catalogue.directory.find(&target.host)?;
            let hidden = self
                .agents
                .as_deref()
                .is_some_and(|it| entry.is_of_other_agents(it));
            (!hidden).then_some((entry, Basis::Host))
        });
        let Some((entry, basis)) = found else {
            return self.listed(self.servers.at(target)).unwrap_or(UNKNOWN);
        };
        Label {
            category: entry.category,
            basis,
            ports: &entry.ports,
            location: &entry.location,
            entry: Some(entry),
        }
    }

    /// Returns the categories that some flow to a destination can have.
    pub(super) fn possible_categories(&self, target: &Target) -> Categories {
        let label = self.label(target);
        let splits = label.entry.map_or(&[][..], |entry| &entry.splits);
        let splits = splits.iter().map(|split| split.category);
        splits.chain([label.category, Category::Mcp]).collect()
    }

    /// Returns the categories of a path, as written and as servers may read it.
    pub(super) fn path_categories(&self, target: &Target, path: &Path) -> Categories {
        let label = self.label(target);
        match label.entry {
            Some(entry) => entry.all_splits(path),
            None => [label.category].into_iter().collect(),
        }
    }

    /// Returns the service whose file reads a request to a destination, if there is one.
    pub(super) fn reader_of(&self, target: &Target, path: &Path) -> Option<&str> {
        let label = self.label(target);
        let split = label.entry.and_then(|entry| entry.split(path.path()));
        let category = split.unwrap_or(label.category);
        let service = label.entry.and_then(|entry| entry.service.as_deref());
        self.catalogue.services.reader(service, category)
    }

    /// Whether the path can decide the category of a request to a destination, and cannot have
    /// decided `category`: then a request with an unknown path cannot be judged.
    pub fn needs_path(&self, target: &Target, category: Category) -> bool {
        let label = self.label(target);
        let is_split = |entry: &Destination| !entry.splits.is_empty() && !entry.may_be(category);
        label.entry.is_some_and(is_split)
    }

    /// Whether a listed MCP server is at a target: the path decides which requests are for it.
    pub fn has_server(&self, target: &Target) -> bool {
        self.servers.at(target).is_some()
    }

    /// Returns the path of the endpoint of a listed MCP server.
    pub fn server_path(&self, name: &str) -> Option<&str> {
        let server = self.servers.get(self.servers.find(name)?)?;
        Some(server.path.path())
    }

    /// Returns the inclusions among the operations of the destination's service, or otherwise of
    /// the named service.
    pub fn words(&self, target: &Target, service: &str) -> Option<Arc<Words>> {
        let services = &self.catalogue.services;
        let own = self
            .service_of(target)
            .and_then(|name| services.shared_words(name));
        own.or_else(|| services.shared_words(service))
    }

    /// Returns the service that reads requests to a destination, if its entry names one.
    pub(super) fn service_of(&self, target: &Target) -> Option<&str> {
        self.label(target).entry?.service.as_deref()
    }

    /// Returns the label of a listed MCP server.
    fn listed(&self, server: Option<ServerId>) -> Option<Label<'_>> {
        let server = self.servers.get(server?)?;
        Some(Label {
            category: Category::Mcp,
            basis: Basis::Rule,
            ports: &server.ports,
            location: &server.location,
            entry: None,
        })
    }
}

fn unseen_path(query: &Query<'_>) -> Option<UnseenPath> {
    match query.attempt {
        Attempt::Request { request_facts, .. } => request_facts?.unseen_path,
        Attempt::Connect => None,
    }
}

/// Returns the label of a visible path, and every category in which some server may read it.
fn by_path<'p>(label: Label<'p>, query: &Query<'_>) -> (Label<'p>, Categories) {
    let whole: Categories = [label.category].into_iter().collect();
    let (Some(entry), Attempt::Request { path, .. }) = (label.entry, query.attempt) else {
        return (label, whole);
    };
    let (told, categories) = match unseen_path(query) {
        Some(unseen) => {
            let told = unseen.category.filter(|it| entry.may_be(*it));
            let category = told.unwrap_or(entry.category);
            (told, [category].into_iter().collect())
        }
        None => (entry.split(path.path()), entry.all_splits(path)),
    };
    match told {
        Some(category) if label.basis == Basis::Host => {
            let basis = Basis::Path;
            (
                Label {
                    category,
                    basis,
                    ..label
                },
                categories,
            )
        }
        Some(category) => (Label { category, ..label }, categories),
        None => (label, categories),
    }
}
