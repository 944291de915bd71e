//! How TLS is spoken with a destination: whether it is ended here, and how it is spoken onward.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::Diagnostic;
use crate::name::Host;

use super::Category;
use super::compile::{Findings, unknown};
use super::hosts::{HostMap, HostMapBuilder};
use super::pattern::HostPattern;
use super::source::{self, Placed};
use super::verdict::Named;

/// What `[inspect]` and `[upstream.NAME]` say of destinations.
#[derive(Debug, Default)]
pub(super) struct Passages {
    inspected: Option<HostMap>,
    /// The hosts of `[inspect]`, as they were written.
    pub(super) patterns: Vec<HostPattern>,
    /// The categories of `[inspect]`.
    pub(super) categories: Categories,
    upstreams: Vec<Upstream>,
    upstream_hosts: Option<HostMap>,
}

#[derive(Debug)]
struct Upstream {
    name: Arc<str>,
    categories: Categories,
}

/// A set of categories.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Categories(u16);

/// Whether TLS is ended here, and who says so.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inspection<'p> {
    No,
    /// That rule says that it is not.
    Passed(&'p Named),
    Yes,
}

impl Categories {
    pub(super) const ALL: Self = Self(u16::MAX);

    pub(super) fn insert(&mut self, category: Category) {
        self.0 |= 1 << category as u16;
    }

    pub(super) fn contains(self, category: Category) -> bool {
        self.0 & (1 << category as u16) != 0
    }

    pub(super) fn and_those_of(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Passages {
    /// Whether `[inspect]` names this host or category.
    pub(super) fn inspect(&self, host: &Host, category: Category) -> bool {
        let mut named = self.categories.contains(category);
        if let Some(hosts) = &self.inspected {
            hosts.each(host, |_| named = true);
        }
        named
    }

    /// The upstream of a destination: by its most specific host, else by category.
    pub(super) fn upstream(&self, host: &Host, category: Category) -> Option<&Arc<str>> {
        let mut found = None;
        if let Some(hosts) = &self.upstream_hosts {
            hosts.each(host, |id| {
                found = found.or_else(|| self.upstreams.get(id as usize));
            });
        }
        let by_category = |upstream: &&Upstream| upstream.categories.contains(category);
        let found = found.or_else(|| self.upstreams.iter().find(by_category));
        found.map(|upstream| &upstream.name)
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

/// Compiles `[inspect]` and `[upstream.NAME]`, as far as they are policy.
pub(super) fn compile(source: &source::Policy, findings: &mut Findings) -> Passages {
    let mut passages = Passages::default();
    if let Some(written) = &source.inspect {
        passages.patterns = patterns(written, &written.value.hosts, findings);
        passages.categories = categories(written, &written.value.categories, findings);
        passages.inspected = map(std::slice::from_ref(&passages.patterns));
    }
    let mut hosts = Vec::new();
    for (name, written) in &source.upstreams {
        hosts.push(patterns(written, &written.value.hosts, findings));
        passages.upstreams.push(Upstream {
            name: name.get_ref().as_str().into(),
            categories: categories(written, &written.value.categories, findings),
        });
    }
    passages.upstream_hosts = map(&hosts);
    passages
}

/// From hosts to the lists that name them; `None` where none does.
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

fn patterns<T>(
    placed: &Placed<T>,
    hosts: &[Spanned<String>],
    findings: &mut Findings,
) -> Vec<HostPattern> {
    let mut patterns = Vec::with_capacity(hosts.len());
    for text in hosts {
        match HostPattern::parse(text.get_ref()) {
            Ok(pattern) => patterns.push(pattern),
            Err(bad) => {
                let message = format!("`{}` is not a host pattern", text.get_ref());
                let finding = Diagnostic::error("bad-host", placed.at(text), message);
                findings.push(finding.label(bad.label).help(bad.help));
            }
        }
    }
    patterns
}

/// Reads a list of categories.
pub(super) fn categories<T>(
    placed: &Placed<T>,
    words: &[Spanned<String>],
    findings: &mut Findings,
) -> Categories {
    let mut found = Categories::default();
    for word in words {
        if let Some(category) = Category::from_word(word.get_ref()) {
            found.insert(category);
        } else {
            let known = Category::ALL.iter().map(|category| category.as_str());
            findings.push(unknown("category", placed.at(word), word.get_ref(), known));
        }
    }
    found
}
