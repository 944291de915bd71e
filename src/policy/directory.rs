//! The categories of destinations: the only place that labels hosts.

use std::sync::Arc;

use crate::name::{Host, Path};

use super::category::{Categories, Category};
use super::index::{HostMap, HostMapBuilder};
use super::paths::PathPattern;
use super::pattern::HostPattern;
use super::pattern::Readings;

/// The facts of one `[[destination]]` about its hosts.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) category: Category,
    /// Empty: 443 for tunnels and https; plain HTTP only if a rule names the host.
    pub(super) ports: Box<[u16]>,
    /// The service file that reads requests to these hosts: a name of [`super::Services`].
    pub(super) service: Option<Arc<str>>,
    /// `model-api.toml:14`, `policy/web.toml:31`.
    pub(super) location: Box<str>,
    /// The agents that use it; empty: any.
    pub(super) agents: Box<[Box<str>]>,
    /// Paths with a category of their own; the first match counts.
    pub(super) splits: Box<[Split]>,
}

/// The category of some paths of a destination.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) category: Category,
    pub(super) pattern: PathPattern,
    /// Whether a request there may ask for another protocol: the WebSocket of a model API.
    pub(super) upgrade: bool,
}

/// Destinations by host; the most specific entry of a host counts.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: Vec<Destination>,
    hosts: HostMap,
}

impl Destination {
    /// Returns the category of a path, if a split has one.
    pub(super) fn split(&self, path: &str) -> Option<Category> {
        self.split_of(path).map(|split| split.category)
    }

    /// Whether some path may have that category.
    pub(super) fn may_be(&self, category: Category) -> bool {
        let mut splits = self.splits.iter();
        category == self.category || splits.any(|split| split.category == category)
    }

    /// Whether a request for some path may ask for another protocol.
    pub(super) fn may_expect_upgrade(&self) -> bool {
        self.splits.iter().any(|split| split.upgrade)
    }

    /// Whether a request for that path may ask for another protocol.
    pub(super) fn expects_upgrade(&self, path: &str) -> bool {
        self.split_of(path).is_some_and(|split| split.upgrade)
    }

    fn split_of(&self, path: &str) -> Option<&Split> {
        let mut splits = self.splits.iter();
        splits.find(|split| split.pattern.matches(path))
    }

    /// Returns the categories under every reading of a path that some known server makes.
    pub(super) fn all_splits(&self, path: &Path) -> Categories {
        if self.splits.is_empty() {
            return [self.category].into_iter().collect();
        }
        let readings = Readings::of(path.path());
        let read = |server: usize| {
            let mut splits = self.splits.iter();
            let found = splits.find(|split| split.pattern.matches_reading(&readings, server));
            found.map_or(self.category, |split| split.category)
        };
        let exact = self.split(path.path()).unwrap_or(self.category);
        let mut all: Categories = (0..Readings::COUNT).map(read).collect();
        all.insert(exact);
        all
    }

    /// Whether the agents in use exclude every agent that needs this destination.
    pub(super) fn is_of_other_agents(&self, in_use: &[Arc<str>]) -> bool {
        let by_agent = matches!(
            self.category,
            Category::Auth
                | Category::ModelApi
                | Category::Plugin
                | Category::Telemetry
                | Category::Update
        );
        let used = |agent: &str| in_use.iter().any(|it| **it == *agent);
        by_agent && !self.agents.is_empty() && !self.agents.iter().any(|it| used(it))
    }
}

impl Directory {
    /// Builds a directory from destinations, each with its hosts.
    pub(super) fn new(destinations: Vec<(Destination, Vec<HostPattern>)>) -> Self {
        let total = destinations.iter().map(|(_, hosts)| hosts.len()).sum();
        let mut hosts = HostMapBuilder::with_capacity(total);
        for (at, (_, patterns)) in destinations.iter().enumerate().rev() {
            let Ok(id) = u32::try_from(at) else { continue };
            for pattern in patterns {
                hosts.add(pattern, id);
            }
        }
        Self {
            entries: destinations.into_iter().map(|(entry, _)| entry).collect(),
            hosts: hosts.build(),
        }
    }

    /// The most specific entry of a host.
    pub(super) fn find(&self, host: &Host) -> Option<&Destination> {
        self.entries.get(self.hosts.first(host)? as usize)
    }

    /// Returns the index of the most specific entry of a host.
    pub(super) fn place(&self, host: &Host) -> Option<u32> {
        self.hosts.first(host)
    }

    /// Every pattern of the entries.
    pub(super) fn patterns(&self) -> impl Iterator<Item = HostPattern> {
        self.hosts.patterns(|_| true)
    }

    /// Every host of a category, or of one of its paths.
    pub(super) fn hosts_of(&self, category: Category) -> impl Iterator<Item = HostPattern> {
        let is_of = move |id: u32| {
            let Some(entry) = self.entries.get(id as usize) else {
                return false;
            };
            let mut splits = entry.splits.iter();
            entry.category == category || splits.any(|split| split.category == category)
        };
        self.hosts.patterns(is_of)
    }
}
