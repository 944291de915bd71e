//! The keys of a rule that say what its hosts are, and how TLS is spoken with them.

use std::sync::Arc;

use crate::diag::Diagnostic;

use super::compile::unknown;
use super::rules::Reader;
use super::servers::ServerId;

impl Reader<'_> {
    /// The MCP servers that the rule names; they say its hosts, ports and category.
    pub(super) fn servers(&mut self) -> Vec<ServerId> {
        let rule = &self.rule.value;
        if let Some(first) = rule.servers.first() {
            let told = [
                ("hosts", rule.hosts.first().map(|at| self.rule.at(at))),
                ("ports", rule.ports.first().map(|at| self.rule.at(at))),
                (
                    "category",
                    rule.category.as_ref().map(|at| self.rule.at(at)),
                ),
            ];
            for (key, place) in told {
                let Some(place) = place else { continue };
                self.findings.push(
                    Diagnostic::error("said-twice", place, format!("`servers` say the {key}"))
                        .label("not needed")
                        .help("leave it out, or write a rule of its own for the host")
                        .related(self.rule.at(first), "the servers"),
                );
            }
        }
        let mut servers = Vec::new();
        for name in &rule.servers {
            let found = self.known.servers.resolve(self.rule, name, self.findings);
            servers.extend(found);
        }
        servers
    }

    /// The service that the hosts speak.
    pub(super) fn service(&mut self) -> Option<Arc<str>> {
        let written = self.rule.value.service.as_ref()?;
        let service = written.get_ref();
        if self.rule.value.hosts.is_empty() {
            self.findings.push(
                Diagnostic::error(
                    "no-hosts",
                    self.rule.at(written),
                    format!("who speaks `{service}`?"),
                )
                .label("the rule has no `hosts`")
                .help("name the hosts of the service"),
            );
        }
        if self.known.services.knows(service) {
            return Some(service.as_str().into());
        }
        let known = self.known.services.names().map(|(name, _)| name);
        self.findings
            .push(unknown("service", self.rule.at(written), service, known));
        None
    }

    /// Whether the rule says that TLS is ended. Bytes that need not be TLS cannot be inspected.
    pub(super) fn inspect(&mut self, raw: bool) -> Option<bool> {
        let rule = &self.rule.value;
        let written = rule.inspect.as_ref().map(|inspect| *inspect.get_ref());
        let inspect = written.or((!rule.servers.is_empty()).then_some(true));
        if raw && inspect == Some(true) {
            let place = rule.inspect.as_ref().map(|at| self.rule.at(at));
            let place = place.or(rule.raw.as_ref().map(|at| self.rule.at(at)));
            self.findings.push(
                Diagnostic::error(
                    "raw-inspect",
                    place.unwrap_or_else(|| self.rule.place()),
                    "what need not be TLS cannot be inspected",
                )
                .label("`raw = true` in the same rule")
                .help("leave one of them out"),
            );
        }
        if let (Some(false), Some(first)) = (written, rule.servers.first()) {
            let place = rule.inspect.as_ref().map(|at| self.rule.at(at));
            self.findings.push(
                Diagnostic::error(
                    "blind-servers",
                    place.unwrap_or_else(|| self.rule.place()),
                    "messages to MCP servers are only seen where TLS is ended",
                )
                .label("nothing is seen here")
                .help("leave it out, or name the host in `hosts` instead of the server")
                .related(self.rule.at(first), "the servers"),
            );
        }
        inspect.or(raw.then_some(false))
    }

    /// The upstream that the rule names.
    pub(super) fn upstream(&mut self) -> Option<Arc<str>> {
        let written = self.rule.value.upstream.as_ref()?;
        let found = self.known.passages.named(written.get_ref());
        if found.is_none() {
            let place = self.rule.at(written);
            let known = self.known.passages.upstream_names();
            let mut finding = unknown("upstream", place, written.get_ref(), known);
            if self.known.passages.upstream_names().next().is_none() {
                finding.help = Some(format!("write `[upstream.{}]`", written.get_ref()));
            }
            self.findings.push(finding);
        }
        found.cloned()
    }
}
