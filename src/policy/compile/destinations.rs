//! Compiles `[[destination]]` and `[catalogue]` into the directory.

use std::collections::HashMap;
use std::sync::Arc;

use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::policy::catalogue::Catalogue;
use crate::policy::category::{Categories, Category};
use crate::policy::directory::{Destination, Split};
use crate::policy::paths::PathPattern;
use crate::policy::pattern::{BadPattern, HostPattern};
use crate::policy::{service, source};

use crate::policy::findings::{Findings, unknown};
use crate::policy::source::Placed;

/// A destination with its hosts.
pub(in crate::policy) type Written = (Destination, Vec<HostPattern>);

/// Compiles `[[destination]]`.
pub(super) fn compile(source: &source::Policy, findings: &mut Findings) -> Vec<Written> {
    read_all(&source.destinations, findings)
}

/// Returns the agents in use, if `[catalogue]` names them.
pub(super) fn agents(
    source: &source::Policy,
    catalogue: &Catalogue,
    findings: &mut Findings,
) -> Option<Box<[Arc<str>]>> {
    let written = source
        .catalogue
        .as_ref()
        .filter(|it| !it.value.agents.is_empty())?;
    let known = catalogue.agents();
    for agent in &written.value.agents {
        if !known.contains(agent.get_ref().as_str()) {
            let known = known.iter().copied();
            findings.push(unknown("agent", written.at(agent), agent.get_ref(), known));
        }
    }
    let agents = written.value.agents.iter();
    Some(
        agents
            .map(|agent| agent.get_ref().as_str().into())
            .collect(),
    )
}

/// Reads destinations; leaves out invalid entries and reports them.
pub(in crate::policy) fn read_all(
    written: &[Placed<source::Destination>],
    findings: &mut Findings,
) -> Vec<Written> {
    let mut destinations = Vec::new();
    let mut first: HashMap<HostPattern, Place> = HashMap::new();
    for written in written {
        let Some(destination) = destination(written, findings) else {
            continue;
        };
        let mut hosts = Vec::new();
        for label in &written.value.hosts {
            let Some(pattern) = host(written, label, findings) else {
                continue;
            };
            if let Some(first) = first.get(&pattern) {
                let message = format!("`{pattern}` belongs to two destinations");
                let finding = Diagnostic::error("host-twice", written.at(label), message);
                findings.push(
                    finding
                        .label("again here")
                        .related(first.clone(), "first here"),
                );
                continue;
            }
            first.insert(pattern.clone(), written.at(label));
            hosts.push(pattern);
        }
        destinations.push((destination, hosts));
    }
    destinations
}

/// Parses an entry of `hosts`.
pub(in crate::policy) fn pattern(
    destination: &source::Destination,
    label: &str,
) -> Result<HostPattern, BadPattern> {
    match (&destination.domain, label) {
        (Some(domain), "@") => HostPattern::parse(domain.get_ref()),
        (Some(domain), label) => HostPattern::parse(&format!("{label}.{}", domain.get_ref())),
        (None, whole) => HostPattern::parse(whole),
    }
}

fn host(
    written: &Placed<source::Destination>,
    label: &Spanned<String>,
    findings: &mut Findings,
) -> Option<HostPattern> {
    match pattern(&written.value, label.get_ref()) {
        Ok(pattern) => Some(pattern),
        Err(bad) => {
            let message = format!("`{}` is not a host pattern", label.get_ref());
            let finding = Diagnostic::error("bad-host", written.at(label), message);
            findings.push(finding.label(bad.label).help(bad.help));
            None
        }
    }
}

fn destination(
    written: &Placed<source::Destination>,
    findings: &mut Findings,
) -> Option<Destination> {
    let value = &written.value;
    let whole = category(written, &value.category, findings);
    let mut splits = Vec::new();
    for split in &value.paths {
        let found = category(written, &split.category, findings);
        match PathPattern::parse(split.r#match.get_ref()) {
            Ok(pattern) => splits.extend(found.map(|category| Split {
                category,
                pattern,
                upgrade: split.upgrade,
            })),
            Err(error) => findings.push(
                Diagnostic::error("bad-path", written.at(&split.r#match), "not a path pattern")
                    .label(error.to_string())
                    .help("write e.g. `/v1/**`"),
            ),
        }
    }
    if let Some(word) = &value.service
        && !service::is_built_in(word.get_ref())
    {
        let known = service::known();
        findings.push(unknown("service", written.at(word), word.get_ref(), known));
    }
    Some(Destination {
        category: whole?,
        ports: ports(written, &value.ports, findings),
        service: value
            .service
            .as_ref()
            .map(|word| word.get_ref().as_str().into()),
        location: written
            .at(value.domain.as_ref().unwrap_or(&value.category))
            .to_string()
            .into(),
        agents: value
            .agents
            .iter()
            .map(|agent| agent.as_str().into())
            .collect(),
        splits: splits.into(),
    })
}

fn category(
    written: &Placed<source::Destination>,
    word: &Spanned<String>,
    findings: &mut Findings,
) -> Option<Category> {
    let found = Category::from_word(word.get_ref());
    if found.is_none() {
        let known = Category::ALL.iter().map(|category| category.as_str());
        findings.push(unknown("category", written.at(word), word.get_ref(), known));
    }
    found
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

/// Reads a list of ports.
pub(super) fn ports<T>(
    placed: &Placed<T>,
    written: &[Spanned<i64>],
    findings: &mut Findings,
) -> Box<[u16]> {
    let mut ports = Vec::new();
    for port in written {
        match u16::try_from(*port.get_ref()) {
            Ok(port) if port > 0 => ports.push(port),
            _ => findings.push(
                Diagnostic::error("bad-port", placed.at(port), "not a port")
                    .label("out of range")
                    .help("ports are 1 to 65535"),
            ),
        }
    }
    ports.into()
}
