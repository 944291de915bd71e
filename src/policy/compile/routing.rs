//! Compiles the policy part of `[inspect]` and `[upstream.NAME]` into TLS routing.

use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::category::Categories;
use crate::policy::pattern::HostPattern;
use crate::policy::routing::{TlsRouting, Upstream};
use crate::policy::source;

use super::destinations::categories;
use crate::policy::findings::Findings;
use crate::policy::source::Placed;

/// Compiles the destinations of `[inspect]` and `[upstream.NAME]`.
pub(super) fn compile(source: &source::Policy, findings: &mut Findings) -> TlsRouting {
    let (mut inspected, mut of_inspect) = (Vec::new(), Categories::default());
    if let Some(written) = &source.inspect {
        inspected = patterns(written, &written.value.hosts, findings);
        of_inspect = categories(written, &written.value.categories, findings);
    }
    let mut upstreams = Vec::new();
    for (name, written) in &source.upstreams {
        let hosts = patterns(written, &written.value.hosts, findings);
        let upstream = Upstream {
            name: name.get_ref().as_str().into(),
            categories: categories(written, &written.value.categories, findings),
        };
        upstreams.push((upstream, hosts));
    }
    TlsRouting::new(inspected, of_inspect, upstreams)
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
