//! The destinations of `[inspect]` and `[upstream.NAME]`.

use std::sync::Arc;

use crate::name::Host;

use super::category::{Categories, Category};
use super::index::{HostMap, HostMapBuilder};
use super::pattern::HostPattern;

/// The inspected destinations, and their upstreams.
#[derive(Debug, Default)]
pub(super) struct TlsRouting {
    inspected: Option<HostMap>,
    /// The hosts of `[inspect]`.
    pub(super) patterns: Vec<HostPattern>,
    /// The categories of `[inspect]`.
    pub(super) categories: Categories,
    upstreams: Vec<Upstream>,
    upstream_hosts: Option<HostMap>,
}

/// `[upstream.NAME]`.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: Arc<str>,
    pub(super) categories: Categories,
}

/// Everything that a policy inspects for some caller, except the hosts of `[inspect]`.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    /// The hosts of rules with `grant.inspect`, and of MCP servers.
    pub(super) hosts: Vec<HostPattern>,
    pub(super) categories: Categories,
}

impl TlsRouting {
    /// `patterns` and `categories` are those of `[inspect]`.
    pub(super) fn new(
        patterns: Vec<HostPattern>,
        categories: Categories,
        upstreams: Vec<(Upstream, Vec<HostPattern>)>,
    ) -> Self {
        let (upstreams, hosts): (Vec<_>, Vec<_>) = upstreams.into_iter().unzip();
        Self {
            inspected: map(std::slice::from_ref(&patterns)),
            patterns,
            categories,
            upstreams,
            upstream_hosts: map(&hosts),
        }
    }

    /// Whether `[inspect]` names this host or category.
    pub(super) fn inspects(&self, host: &Host, category: Category) -> bool {
        let hosts = self.inspected.as_ref();
        self.categories.contains(category) || hosts.is_some_and(|it| it.first(host).is_some())
    }

    /// Whether `[inspect]` names this host.
    pub(super) fn inspects_host(&self, host: &Host) -> bool {
        let hosts = self.inspected.as_ref();
        hosts.is_some_and(|it| it.first(host).is_some())
    }

    /// Returns the upstream of a destination: by its most specific host, otherwise by category.
    pub(super) fn upstream(&self, host: &Host, category: Category) -> Option<&Arc<str>> {
        let hosts = self.upstream_hosts.as_ref();
        let by_host = hosts.and_then(|hosts| self.upstreams.get(hosts.first(host)? as usize));
        let by_category = |upstream: &&Upstream| upstream.categories.contains(category);
        let found = by_host.or_else(|| self.upstreams.iter().find(by_category));
        found.map(|upstream| &upstream.name)
    }

    /// Returns the index of the upstream that names this host.
    pub(super) fn upstream_place(&self, host: &Host) -> Option<u32> {
        self.upstream_hosts.as_ref()?.first(host)
    }

    /// Every pattern of the hosts of upstreams.
    pub(super) fn upstream_patterns(&self) -> impl Iterator<Item = HostPattern> {
        let hosts = self.upstream_hosts.iter();
        hosts.flat_map(|hosts| hosts.patterns(|_| true))
    }

    /// The upstream of that name.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<str>> {
        let mut names = self.upstreams.iter().map(|upstream| &upstream.name);
        names.find(|known| ***known == *name)
    }

    pub(super) fn upstream_names(&self) -> impl Iterator<Item = &str> {
        self.upstreams.iter().map(|upstream| &*upstream.name)
    }
}

/// Builds the map from hosts to the lists that name them; `None` if all lists are empty.
fn map(lists: &[Vec<HostPattern>]) -> Option<HostMap> {
    let total = lists.iter().map(Vec::len).sum();
    let mut hosts = HostMapBuilder::with_capacity(total);
    for (at, list) in lists.iter().enumerate().rev() {
        let id = u32::try_from(at).ok()?;
        for pattern in list {
            hosts.add(pattern, id);
        }
    }
    (total > 0).then(|| hosts.build())
}
