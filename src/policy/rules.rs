//! Rules: from `[[rule]]` to clauses and the hosts that lead to them.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::{Diagnostic, Place};

use super::caller::Callers;
use super::clause::{Clause, Ports};
use super::compile::{Findings, named, unknown};
use super::hosts::{HostMap, HostMapBuilder};
use super::passage::{Categories, Passages};
use super::paths::PathPattern;
use super::pattern::{BadPattern, HostPattern, Width};
use super::servers::{Server, ServerId, Servers};
use super::source::{self, Placed};
use super::tiers::Tiers;
use super::verdict::{Reason, Verdict};
use super::{Category, Services, addresses};

/// As many hosts of a rule as are kept to explain with.
const SAMPLE: usize = 16;

/// All rules.
#[derive(Debug)]
pub(super) struct Rules {
    /// In the order in which they were written.
    pub(super) clauses: Vec<Clause>,
    /// What leads to them.
    pub(super) hosts: HostMap,
    pub(super) inspects: Inspects,
}

/// What is inspected for somebody, apart from the hosts of `[inspect]`.
#[derive(Debug, Default)]
pub(super) struct Inspects {
    /// The hosts of rules that say so, or that give one of the categories.
    pub(super) hosts: Vec<HostPattern>,
    pub(super) categories: Categories,
}

/// What rules refer to by name.
pub(super) struct Known<'a> {
    pub(super) tiers: &'a Tiers,
    pub(super) callers: &'a Callers,
    pub(super) servers: &'a Servers,
    pub(super) passages: &'a Passages,
    pub(super) services: &'a Services,
}

/// Compiles `[[rule]]`.
pub(super) fn compile(
    source: &source::Policy,
    known: &Known<'_>,
    findings: &mut Findings,
) -> Rules {
    let mut clauses = Vec::with_capacity(source.rules.len());
    let mut patterns = Vec::with_capacity(source.rules.len());
    for rule in &source.rules {
        let mut reader = Reader {
            rule,
            known,
            findings,
        };
        let servers = reader.servers();
        let hosts = reader.hosts(&servers);
        let clause = reader.clause(&hosts, &servers);
        clauses.push(clause);
        patterns.push(hosts);
    }
    let total = patterns.iter().map(Vec::len).sum();
    let inspects = inspects(&clauses, &patterns, known);
    let mut hosts = HostMapBuilder::with_capacity(total);
    for (at, patterns) in patterns.into_iter().enumerate().rev() {
        let Ok(id) = u32::try_from(at) else { continue };
        for pattern in &patterns {
            hosts.add(pattern, id);
        }
    }
    Rules {
        clauses,
        hosts: hosts.build(),
        inspects,
    }
}

/// Gathers what rules, tiers and `[inspect]` say is inspected.
fn inspects(clauses: &[Clause], patterns: &[Vec<HostPattern>], known: &Known<'_>) -> Inspects {
    let tiers = known.tiers.ids().map(|id| known.tiers.tier(id).inspect);
    let mut categories = tiers.fold(known.passages.categories, Categories::and_those_of);
    let says = |clause: &Clause| clause.inspect == Some(true);
    for clause in clauses.iter().filter(|it| it.hosts == 0 && says(it)) {
        match clause.category {
            Some(category) => categories.insert(category),
            None => categories = Categories::ALL,
        }
    }
    let mut hosts = Vec::new();
    for (clause, patterns) in clauses.iter().zip(patterns) {
        let given = clause.assigns.is_some_and(|it| categories.contains(it));
        if says(clause) || given {
            hosts.extend(patterns.iter().cloned());
        }
    }
    if categories.contains(Category::Mcp) {
        hosts.extend(known.servers.all().map(Server::pattern));
    }
    Inspects { hosts, categories }
}

/// Reads one rule.
pub(super) struct Reader<'a> {
    pub(super) rule: &'a Placed<source::Rule>,
    pub(super) known: &'a Known<'a>,
    pub(super) findings: &'a mut Findings,
}

impl Reader<'_> {
    fn clause(&mut self, hosts: &[HostPattern], servers: &[ServerId]) -> Clause {
        let rule = &self.rule.value;
        let verdict = self.verdict();
        let has_hosts = !rule.hosts.is_empty() || !rule.servers.is_empty();
        let category = self.category().filter(|_| rule.servers.is_empty());
        self.demand_reach(verdict, category.is_some() || has_hosts);
        let raw = rule.raw.as_ref().is_some_and(|raw| *raw.get_ref());
        Clause {
            named: named(rule.id.get_ref().as_str(), &self.rule.at(&rule.id)),
            verdict,
            reason: match verdict {
                Verdict::Allow => Reason::Allowed,
                Verdict::Ask => Reason::NeedsApproval,
                Verdict::Deny => Reason::Denied,
            },
            tiers: self.tiers(),
            groups: self.groups(),
            category: category.filter(|_| !has_hosts),
            assigns: category.filter(|_| has_hosts),
            service: self.service(),
            ports: self.ports(verdict, servers),
            request: self.request(verdict, servers),
            addresses: self.addresses(),
            raw,
            upgrade: rule
                .upgrade
                .as_ref()
                .is_some_and(|upgrade| *upgrade.get_ref()),
            inspect: self.inspect(raw && verdict == Verdict::Allow),
            upstream: self.upstream(),
            min_age: self.min_age(),
            sample: hosts
                .iter()
                .take(SAMPLE)
                .map(|host| host.to_string().into())
                .collect(),
            // A rule all of whose hosts are wrong must not become one for every host.
            hosts: hosts.len().max(usize::from(has_hosts)),
        }
    }

    fn verdict(&mut self) -> Verdict {
        let written = &self.rule.value.verdict;
        match written.get_ref().as_str() {
            "allow" => Verdict::Allow,
            "ask" => Verdict::Ask,
            "deny" => Verdict::Deny,
            word => {
                let known = ["allow", "ask", "deny"];
                self.findings
                    .push(unknown("verdict", self.rule.at(written), word, known));
                Verdict::Deny
            }
        }
    }

    fn category(&mut self) -> Option<Category> {
        let written = self.rule.value.category.as_ref()?;
        let found = Category::from_word(written.get_ref());
        if found.is_none() {
            let known = Category::ALL.iter().map(|category| category.as_str());
            let place = self.rule.at(written);
            self.findings
                .push(unknown("category", place, written.get_ref(), known));
        }
        found
    }

    /// An allow that names neither hosts nor a category would allow everything.
    fn demand_reach(&mut self, verdict: Verdict, reaches: bool) {
        if verdict != Verdict::Allow || reaches || self.rule.value.category.is_some() {
            return;
        }
        let id = &self.rule.value.id;
        self.findings.push(
            Diagnostic::error(
                "allows-everything",
                self.rule.at(id),
                format!("rule `{}` allows every host", id.get_ref()),
            )
            .label("names neither `hosts` nor `category`")
            .help("name hosts, or set `default = \"allow\"` in a tier that may reach everything"),
        );
    }

    fn tiers(&mut self) -> u16 {
        let written = &self.rule.value.tiers;
        if written.is_empty() {
            return u16::MAX;
        }
        let mut bits = 0;
        for name in written {
            let tier = self.known.tiers.resolve(self.rule, name, self.findings);
            bits |= tier.map_or(0, super::TierId::bit);
        }
        bits
    }

    fn groups(&mut self) -> u128 {
        let mut bits = 0;
        for name in &self.rule.value.groups {
            let group = self.known.callers.resolve(self.rule, name, self.findings);
            bits |= group.map_or(0, super::GroupId::bit);
        }
        bits
    }

    fn hosts(&mut self, servers: &[ServerId]) -> Vec<HostPattern> {
        if !self.rule.value.servers.is_empty() {
            let servers = servers.iter().filter_map(|id| self.known.servers.get(*id));
            return servers.map(Server::pattern).collect();
        }
        let mut patterns = Vec::with_capacity(self.rule.value.hosts.len());
        for text in &self.rule.value.hosts {
            match HostPattern::parse(text.get_ref()) {
                Ok(pattern) => {
                    self.judge_width(text, &pattern);
                    patterns.push(pattern);
                }
                Err(bad) => self.refuse("bad-host", text, "is not a host pattern", bad),
            }
        }
        patterns
    }

    fn judge_width(&mut self, text: &Spanned<String>, pattern: &HostPattern) {
        let place = self.rule.at(text);
        match (pattern, pattern.width()) {
            (_, None) | (HostPattern::Exact(_), Some(Width::Customers)) => {}
            (_, Some(Width::Registry)) => self.findings.push(
                Diagnostic::error(
                    "too-wide",
                    place,
                    format!("`{}` is wider than any one owner", text.get_ref()),
                )
                .label("a public suffix: anybody can register a name there")
                .help("name the domains that are meant, e.g. `*.example.com`"),
            ),
            (_, Some(Width::Customers)) => self.findings.push(
                Diagnostic::warning(
                    "many-tenants",
                    place,
                    format!("`{}` is wider than any one owner", text.get_ref()),
                )
                .label("multi-tenant suffix: anybody can get a name there")
                .help("name the hosts that are meant, each by its whole name"),
            ),
        }
    }

    fn ports(&mut self, verdict: Verdict, servers: &[ServerId]) -> Ports {
        let written = &self.rule.value.ports;
        if !self.rule.value.servers.is_empty() {
            let servers = servers.iter().filter_map(|id| self.known.servers.get(*id));
            return Ports::Listed(servers.map(|server| server.target.port).collect());
        }
        if written.is_empty() {
            return if verdict == Verdict::Deny {
                Ports::Any
            } else {
                Ports::Default
            };
        }
        let mut ports = Vec::new();
        for port in written {
            match u16::try_from(*port.get_ref()) {
                Ok(port) if port > 0 => ports.push(port),
                _ => self.findings.push(
                    Diagnostic::error("bad-port", self.rule.at(port), "not a port")
                        .label("out of range")
                        .help("ports are 1 to 65535"),
                ),
            }
        }
        Ports::Listed(ports.into())
    }

    pub(super) fn methods(&mut self) -> Box<[Box<str>]> {
        let mut methods: Vec<Box<str>> = Vec::new();
        for text in &self.rule.value.methods {
            let method = text.get_ref();
            let sound =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let upper = method.to_ascii_uppercase();
            if method.is_empty() || !method.bytes().all(sound) {
                let label = "not a token of HTTP".into();
                let help = "write e.g. `GET`".into();
                self.refuse(
                    "bad-method",
                    text,
                    "is not a method",
                    BadPattern { label, help },
                );
            } else if upper == *method {
                methods.push(method.as_str().into());
            } else {
                let label = "methods are case-sensitive".into();
                let help = format!("write `{upper}`");
                self.refuse(
                    "bad-method",
                    text,
                    "is not a method",
                    BadPattern { label, help },
                );
            }
        }
        methods.into()
    }

    pub(super) fn paths(&mut self) -> Box<[PathPattern]> {
        let mut paths = Vec::new();
        for text in &self.rule.value.paths {
            match PathPattern::parse(text.get_ref()) {
                Ok(path) => paths.push(path),
                Err(label) => {
                    let help = "write e.g. `/crate/*/docs/**`".into();
                    self.refuse(
                        "bad-path",
                        text,
                        "is not a path pattern",
                        BadPattern { label, help },
                    );
                }
            }
        }
        paths.into()
    }

    fn addresses(&mut self) -> Arc<[ipnet::IpNet]> {
        let mut networks = Vec::new();
        for text in &self.rule.value.addresses {
            match addresses::parse(text.get_ref()) {
                Ok(named) => {
                    if named.public {
                        self.findings.push(
                            Diagnostic::warning(
                                "public-addresses",
                                self.rule.at(text),
                                format!("`{}` need not be named", text.get_ref()),
                            )
                            .label("public addresses are reached without")
                            .help("`addresses` opens private networks only: leave it out"),
                        );
                    }
                    if let Some(closed) = named.closed {
                        self.findings.push(
                            Diagnostic::warning(
                                "closed-addresses",
                                self.rule.at(text),
                                format!("`{}` is opened but for {closed}", text.get_ref()),
                            )
                            .label("link-local and metadata addresses stay closed")
                            .help("name only the networks that are needed"),
                        );
                    }
                    networks.push(named.network);
                }
                Err(bad) => self.refuse("bad-address", text, "cannot be named", bad),
            }
        }
        networks.into()
    }

    pub(super) fn refuse(
        &mut self,
        code: &'static str,
        text: &Spanned<String>,
        is: &str,
        bad: BadPattern,
    ) {
        let place: Place = self.rule.at(text);
        self.findings.push(
            Diagnostic::error(code, place, format!("`{}` {is}", text.get_ref()))
                .label(bad.label)
                .help(bad.help)
                .related(self.rule.at(&self.rule.value.id), "in this rule"),
        );
    }
}
