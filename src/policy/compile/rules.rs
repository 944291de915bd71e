//! Compiles `[[rule]]` into rules and the hosts that select them.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::caller::Membership;
use crate::policy::category::Categories;
use crate::policy::floor;
use crate::policy::pattern::{BadPattern, HostPattern, Width};
use crate::policy::pattern::{Kind, Pattern};
use crate::policy::query::{GroupId, TierId};
use crate::policy::routing::TlsRouting;
use crate::policy::rule::{Callers, Destinations, Grant, Ports, Rule, Unless};
use crate::policy::servers::{Server, ServerId, Servers};
use crate::policy::source;
use crate::policy::tiers::Tiers;
use crate::policy::verdict::{Named, Reason, Verdict};

use super::destinations;
use crate::policy::findings::{Findings, unknown};
use crate::policy::source::Placed;

/// Maximum number of hosts of a rule that are stored for explanations.
const MAX_SAMPLE: usize = 16;

/// A rule with its hosts.
pub(super) struct Written {
    pub(super) rule: Rule,
    pub(super) hosts: Vec<HostPattern>,
}

/// The names that rules refer to.
pub(super) struct Known<'a> {
    pub(super) tiers: &'a Tiers,
    pub(super) callers: &'a Membership,
    pub(super) servers: &'a Servers,
    pub(super) routing: &'a TlsRouting,
}

/// Compiles `[[rule]]`, in the order of the text.
pub(super) fn compile(
    source: &source::Policy,
    known: &Known<'_>,
    findings: &mut Findings,
) -> Vec<Written> {
    let rules = source.rules.iter();
    rules
        .map(|rule| compile_one(rule, known, findings))
        .collect()
}

/// Compiles a table that has the keys of a `[[rule]]` without being one.
pub(super) fn compile_one(
    rule: &Placed<source::Rule>,
    known: &Known<'_>,
    findings: &mut Findings,
) -> Written {
    Reader {
        rule,
        known,
        findings,
    }
    .read()
}

/// Reads one rule.
pub(super) struct Reader<'a> {
    pub(super) rule: &'a Placed<source::Rule>,
    pub(super) known: &'a Known<'a>,
    pub(super) findings: &'a mut Findings,
}

impl Reader<'_> {
    pub(super) fn read(mut self) -> Written {
        let rule = &self.rule.value;
        let verdict = self.verdict();
        let servers = self.servers();
        let hosts = self.hosts(&servers);
        let to = self.destinations(verdict, &hosts, &servers);
        self.demand_reach(verdict, &to);
        let compiled = Rule {
            named: Named::at(rule.id.get_ref().as_str(), &self.rule.at(&rule.id)),
            verdict,
            reason: self.reason(verdict),
            is_list: false,
            from: self.callers(),
            to,
            does: self.conditions(verdict, &servers),
            unless: self.unless(verdict),
            grant: self.grant(verdict, &servers),
            why: rule
                .reason
                .as_ref()
                .map(|text| text.get_ref().as_str().into()),
        };
        Written {
            rule: compiled,
            hosts,
        }
    }

    fn verdict(&mut self) -> Verdict {
        let written = &self.rule.value.verdict;
        match written.get_ref().as_str() {
            "allow" => Verdict::Allow,
            "ask" => Verdict::Ask,
            "deny" => Verdict::Deny,
            word => {
                let place = self.rule.at(written);
                self.findings
                    .push(unknown("verdict", place, word, ["allow", "ask", "deny"]));
                Verdict::Deny
            }
        }
    }

    /// Returns the reason of a flow that the rule decides.
    fn reason(&self, verdict: Verdict) -> Reason {
        let rule = &self.rule.value;
        let names_tools = !rule.does.tools.is_empty() || !rule.does.mcp_methods.is_empty();
        match verdict {
            Verdict::Allow => Reason::Allowed,
            Verdict::Ask => Reason::NeedsApproval,
            Verdict::Deny if !rule.unless.credentials.is_empty() => Reason::CredentialDenied,
            Verdict::Deny if rule.unless.min_age.is_some() => Reason::PackageTooNew,
            Verdict::Deny if names_tools => Reason::McpToolDenied,
            Verdict::Deny => Reason::Denied,
        }
    }

    /// Reports an allow without destinations, which would allow everything.
    fn demand_reach(&mut self, verdict: Verdict, to: &Destinations) {
        let selects = !self.rule.value.to.categories.is_empty();
        if verdict != Verdict::Allow || to.hosts > 0 || selects {
            return;
        }
        let id = &self.rule.value.id;
        let message = format!("rule `{}` allows every host", id.get_ref());
        let help = "name hosts, or set `default = \"allow\"` in a tier that may reach everything";
        self.findings.push(
            Diagnostic::error("allows-everything", self.rule.at(id), message)
                .label("neither `to.hosts` nor `to.categories`")
                .help(help),
        );
    }

    fn callers(&mut self) -> Callers {
        let from = &self.rule.value.from;
        let mut tiers = if from.tiers.is_empty() { u16::MAX } else { 0 };
        for name in &from.tiers {
            let tier = self.known.tiers.resolve(self.rule, name, self.findings);
            tiers |= tier.map_or(0, TierId::bit);
        }
        let mut groups = 0;
        for name in &from.groups {
            let group = self.known.callers.resolve(self.rule, name, self.findings);
            groups |= group.map_or(0, GroupId::bit);
        }
        Callers {
            tiers,
            groups,
            repositories: self.own_repositories(),
            subjects: self.globs(&from.subjects, "e.g. `*@acme.example`", |it| {
                Pattern::parse(it, Kind::Text)
            }),
        }
    }

    fn hosts(&mut self, servers: &[ServerId]) -> Vec<HostPattern> {
        let written = &self.rule.value.to.hosts;
        if !self.rule.value.does.servers.is_empty() {
            let servers = servers.iter().filter_map(|id| self.known.servers.get(*id));
            return servers.map(Server::pattern).collect();
        }
        let mut patterns = Vec::with_capacity(written.len());
        for text in written {
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

    fn destinations(
        &mut self,
        verdict: Verdict,
        hosts: &[HostPattern],
        servers: &[ServerId],
    ) -> Destinations {
        let to = &self.rule.value.to;
        let has_hosts = !to.hosts.is_empty() || !self.rule.value.does.servers.is_empty();
        let sample = hosts.iter().take(MAX_SAMPLE);
        let networks = hosts.iter().filter_map(|host| match host {
            HostPattern::Network(network) => Some(*network),
            HostPattern::Below(_) | HostPattern::Exact(_) => None,
        });
        Destinations {
            // A rule whose hosts are all invalid must not become a rule for every host.
            hosts: hosts.len().max(usize::from(has_hosts)),
            sample: sample.map(|host| host.to_string().into()).collect(),
            networks: networks.collect(),
            categories: if to.categories.is_empty() {
                Categories::default()
            } else {
                destinations::categories(self.rule, &to.categories, self.findings)
            },
            ports: self.ports(verdict, servers),
        }
    }

    fn judge_width(&mut self, text: &Spanned<String>, pattern: &HostPattern) {
        let message = format!("`{}` is wider than any one owner", text.get_ref());
        let place = self.rule.at(text);
        self.findings.push(match (pattern, pattern.width()) {
            (_, None) | (HostPattern::Exact(_), Some(Width::Customers)) => return,
            (_, Some(Width::Registry)) => Diagnostic::error("too-wide", place, message)
                .label("a public suffix: anyone can register a name there")
                .help("name the domains that are meant, e.g. `*.example.com`"),
            (_, Some(Width::Customers)) => Diagnostic::warning("many-tenants", place, message)
                .label("multi-tenant suffix: anyone can get a name there")
                .help("name the hosts that are meant, each by its whole name"),
        });
    }

    fn ports(&mut self, verdict: Verdict, servers: &[ServerId]) -> Ports {
        let to = &self.rule.value.to;
        if !servers.is_empty() {
            let servers = servers.iter().filter_map(|id| self.known.servers.get(*id));
            return Ports::Listed(servers.map(|server| server.target.port).collect());
        }
        match (to.ports.is_empty(), verdict) {
            (false, _) => Ports::Listed(destinations::ports(self.rule, &to.ports, self.findings)),
            (true, Verdict::Deny) => Ports::Any,
            (true, Verdict::Allow | Verdict::Ask) if to.hosts.is_empty() => Ports::Destination,
            (true, Verdict::Allow | Verdict::Ask) => Ports::Default,
        }
    }

    fn unless(&mut self, verdict: Verdict) -> Option<Box<Unless>> {
        let written = &self.rule.value.unless;
        let credential = written.credentials.first().map(|first| self.rule.at(first));
        let place = written
            .min_age
            .as_ref()
            .map(|age| self.rule.at(age))
            .or(credential)?;
        if verdict != Verdict::Deny {
            let message = format!("`unless` has no meaning in a rule that says {verdict}");
            self.findings.push(
                Diagnostic::error("unless-in-allow", place, message)
                    .label("only a deny has exceptions")
                    .help("write a rule of its own with `verdict = \"deny\"` and this `unless`"),
            );
        }
        Some(Box::new(Unless {
            min_age: self.min_age(),
            credentials: self.credentials(),
        }))
    }

    fn grant(&mut self, verdict: Verdict, servers: &[ServerId]) -> Grant {
        let grant = &self.rule.value.grant;
        let is_on = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|it| *it.get_ref());
        let raw = is_on(&grant.raw);
        Grant {
            addresses: self.addresses(servers),
            raw,
            upgrade: is_on(&grant.upgrade),
            inspect: self.inspect(raw && verdict == Verdict::Allow),
            upstream: self.upstream(),
        }
    }

    /// Returns the MCP servers of the rule; they determine its hosts and ports.
    fn servers(&mut self) -> Vec<ServerId> {
        let rule = &self.rule.value;
        if let Some(first) = rule.does.servers.first() {
            let given = [
                ("hosts", rule.to.hosts.first().map(|at| self.rule.at(at))),
                ("ports", rule.to.ports.first().map(|at| self.rule.at(at))),
                (
                    "category",
                    rule.to.categories.first().map(|at| self.rule.at(at)),
                ),
            ];
            for (key, place) in given {
                let Some(place) = place else { continue };
                self.findings.push(
                    Diagnostic::error("said-twice", place, format!("`servers` give the {key}"))
                        .label("not needed")
                        .help("leave it out, or write a rule of its own for the host")
                        .related(self.rule.at(first), "the servers"),
                );
            }
        }
        let mut servers = Vec::new();
        for name in &rule.does.servers {
            servers.extend(self.known.servers.resolve(self.rule, name, self.findings));
        }
        servers
    }

    /// Returns the granted addresses. Naming a server on loopback grants its address.
    fn addresses(&mut self, servers: &[ServerId]) -> Arc<[ipnet::IpNet]> {
        let servers = servers.iter().filter_map(|id| self.known.servers.get(*id));
        let own = servers.filter_map(Server::loopback);
        let mut networks: Vec<ipnet::IpNet> = own.map(Into::into).collect();
        for text in &self.rule.value.grant.addresses {
            let granted = match floor::parse(text.get_ref()) {
                Ok(granted) => granted,
                Err(bad) => {
                    self.refuse("bad-address", text, "cannot be granted", bad);
                    continue;
                }
            };
            networks.push(granted.network);
            if granted.public {
                let message = format!("`{}` needs no grant", text.get_ref());
                self.findings.push(
                    Diagnostic::warning("public-addresses", self.rule.at(text), message)
                        .label("public addresses are reached without")
                        .help("`grant.addresses` opens private networks only: leave it out"),
                );
            }
            if let Some(closed) = granted.closed {
                let message = format!("`{}` is opened but for {closed}", text.get_ref());
                self.findings.push(
                    Diagnostic::warning("closed-addresses", self.rule.at(text), message)
                        .label("link-local and metadata addresses stay closed")
                        .help("name only the networks that are needed"),
                );
            }
        }
        networks.into()
    }

    /// Returns whether the rule sets inspection. Bytes that may not be TLS cannot be inspected.
    fn inspect(&mut self, raw: bool) -> Option<bool> {
        let grant = &self.rule.value.grant;
        let servers = &self.rule.value.does.servers;
        let written = grant.inspect.as_ref().map(|inspect| *inspect.get_ref());
        let inspect = written.or((!servers.is_empty()).then_some(true));
        let flag = grant.inspect.as_ref().or(grant.raw.as_ref());
        let place = flag.map_or_else(|| self.rule.place(), |flag| self.rule.at(flag));
        if raw && inspect == Some(true) {
            let message = "bytes that need not be TLS cannot be inspected";
            self.findings.push(
                Diagnostic::error("raw-inspect", place.clone(), message)
                    .label("`grant.raw = true` in the same rule")
                    .help("leave one of them out"),
            );
        }
        if let (Some(false), Some(first)) = (written, servers.first()) {
            let message = "messages to MCP servers are only seen where TLS is ended";
            self.findings.push(
                Diagnostic::error("blind-servers", place, message)
                    .label("no message is seen here")
                    .help("leave it out, or name the host in `to.hosts` instead of the server")
                    .related(self.rule.at(first), "the servers"),
            );
        }
        inspect.or(raw.then_some(false))
    }

    /// Returns the upstream that the rule names.
    fn upstream(&mut self) -> Option<Arc<str>> {
        let written = self.rule.value.grant.upstream.as_ref()?;
        let found = self.known.routing.named(written.get_ref());
        if found.is_none() {
            let place = self.rule.at(written);
            let known = self.known.routing.upstream_names();
            let mut finding = unknown("upstream", place, written.get_ref(), known);
            if self.known.routing.upstream_names().next().is_none() {
                finding.help = Some(format!("write `[upstream.{}]`", written.get_ref()));
            }
            self.findings.push(finding);
        }
        found.cloned()
    }

    pub(super) fn refuse(
        &mut self,
        code: &'static str,
        text: &Spanned<String>,
        is: &str,
        bad: BadPattern,
    ) {
        let message = format!("`{}` {is}", text.get_ref());
        self.findings.push(
            Diagnostic::error(code, self.rule.at(text), message)
                .label(bad.label)
                .help(bad.help)
                .related(self.rule.at(&self.rule.value.id), "in this rule"),
        );
    }
}
