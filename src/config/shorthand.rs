//! Shorthand for rules: `[collector.NAME]`, and `allow` of `[mcp.NAME]`.
//!
//! ```text
//! collector.otel.url = "http://127.0.0.1:4318"
//! mcp.notes = { url = "http://127.0.0.1:4000/mcp", allow = ["search_*"] }
//! ```
//!
//! Each one is an allow rule of every tier with the name `collector.NAME` or `mcp.NAME`.

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::name::{Host, Url};
use crate::policy::source::{Does, From, Grant, Mcp, Placed, Rule, To, Unless};

/// `[collector.NAME]`: a receiver of telemetry on loopback.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Collector {
    /// The URL of the receiver, without a path; OTLP by HTTP or gRPC.
    url: Spanned<String>,
}

/// Returns the rules of the collectors.
pub(super) fn of_collectors(
    collectors: &[(Spanned<String>, Placed<Collector>)],
    findings: &mut Vec<Diagnostic>,
) -> Vec<Placed<Rule>> {
    let mut rules = Vec::new();
    for (name, written) in collectors {
        let url = &written.value.url;
        match of_collector(name, written) {
            Ok(rule) => rules.push(rule),
            Err(label) => findings.push(
                Diagnostic::error(
                    "bad-url",
                    written.at(url),
                    format!("`{}` is not the URL of a collector", url.get_ref()),
                )
                .label(label)
                .help("write e.g. `http://127.0.0.1:4318`; for another host write a `[[rule]]`"),
            ),
        }
    }
    rules
}

fn of_collector(
    name: &Spanned<String>,
    written: &Placed<Collector>,
) -> Result<Placed<Rule>, String> {
    let text = &written.value.url;
    let url = Url::parse(text.get_ref().as_bytes()).map_err(|error| error.to_string())?;
    if url.tls {
        return Err("https: a collector is reached without TLS".to_owned());
    }
    if url.path.path() != "/" || url.path.query().is_some() {
        return Err("no path is looked at: leave it out".to_owned());
    }
    let address = url.target.host.loopback();
    let address = address.ok_or("this is no loopback address")?;
    let host = Host::Address(address).to_string();
    let host = host.trim_matches(['[', ']']).to_owned();
    let network = ipnet::IpNet::from(address).to_string();
    let mut rule = allow("collector", name, written);
    rule.value.to = To {
        hosts: vec![Spanned::new(text.span(), host)],
        ports: vec![Spanned::new(text.span(), url.target.port.into())],
        ..To::default()
    };
    rule.value.grant = Grant {
        addresses: vec![Spanned::new(text.span(), network)],
        raw: Some(Spanned::new(text.span(), true)),
        ..Grant::default()
    };
    Ok(rule)
}

/// Returns the rules of `allow` of MCP servers.
pub(super) fn of_servers(servers: &[(Spanned<String>, Placed<Mcp>)]) -> Vec<Placed<Rule>> {
    let listed = servers.iter().filter_map(|(name, written)| {
        let tools = written.value.allow.clone()?;
        let mut rule = allow("mcp", name, written);
        rule.value.does = Does {
            servers: vec![name.clone()],
            tools,
            ..Does::default()
        };
        Some(rule)
    });
    listed.collect()
}

/// Returns an allow rule of that name, at the position of a table.
fn allow<T>(section: &str, name: &Spanned<String>, written: &Placed<T>) -> Placed<Rule> {
    Placed {
        source: written.source.clone(),
        span: written.span.clone(),
        value: Rule {
            id: Spanned::new(name.span(), format!("{section}.{}", name.get_ref())),
            verdict: Spanned::new(name.span(), "allow".to_owned()),
            from: From::default(),
            to: To::default(),
            does: Does::default(),
            unless: Unless::default(),
            grant: Grant::default(),
            reason: None,
            allows: Vec::new(),
            denies: Vec::new(),
        },
    }
}
