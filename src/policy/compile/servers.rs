//! Compiles `[mcp.NAME]` into servers.

use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::name::{Host, Url};
use crate::policy::servers::{Server, ServerId, Servers};
use crate::policy::source;

use crate::policy::findings::{Findings, unknown};
use crate::policy::source::Placed;

/// Compiles `[mcp.NAME]`.
pub(super) fn compile(source: &source::Policy, findings: &mut Findings) -> Servers {
    let mut servers: Vec<Server> = Vec::new();
    for (name, written) in &source.mcp {
        let place = written.at(&written.value.url);
        let Some(server) = server(name, written, findings) else {
            continue;
        };
        let twin = |other: &&Server| {
            other.target == server.target && other.path.path() == server.path.path()
        };
        if let Some(first) = servers.iter().find(twin) {
            findings.push(twice(place, name.get_ref(), &first.name));
            continue;
        }
        if servers.len() == usize::from(u16::MAX) {
            break;
        }
        servers.push(server);
    }
    Servers(servers)
}

fn twice(place: Place, name: &str, first: &str) -> Diagnostic {
    Diagnostic::error(
        "server-twice",
        place,
        format!("MCP server `{name}` is `{first}` again"),
    )
    .label("the same host, port and path")
    .help("keep one of them")
}

fn server(
    name: &Spanned<String>,
    written: &Placed<source::Mcp>,
    findings: &mut Findings,
) -> Option<Server> {
    let text = &written.value.url;
    let mut refuse = |label: String| {
        let message = format!("`{}` is not the URL of an MCP server", text.get_ref());
        findings.push(
            Diagnostic::error("bad-url", written.at(text), message)
                .label(label)
                .help(
                    "write e.g. `https://mcp.example.com/mcp`; a server of this machine may be \
                     `http://127.0.0.1:4000/mcp`",
                ),
        );
    };
    let url = match Url::parse(text.get_ref().as_bytes()) {
        Ok(url) if !url.tls && url.target.host.loopback().is_none() => {
            refuse("only https is inspected, and http on a loopback address".into());
            return None;
        }
        Ok(url) if url.path.query().is_some() => {
            refuse("a query is never matched".into());
            return None;
        }
        Ok(url) => url,
        Err(error) => {
            refuse(error.to_string());
            return None;
        }
    };
    let mut target = url.target;
    if let Some(address) = target.host.loopback().filter(|_| !url.tls) {
        target.host = Host::Address(address);
    }
    Some(Server {
        name: name.get_ref().as_str().into(),
        ports: [target.port],
        target,
        path: url.path,
        is_plain: !url.tls,
        location: written.place().to_string().into(),
    })
}

impl Servers {
    /// Returns the server of that name, or adds a finding.
    pub(in crate::policy) fn resolve<T>(
        &self,
        placed: &Placed<T>,
        name: &Spanned<String>,
        findings: &mut Findings,
    ) -> Option<ServerId> {
        let found = self.find(name.get_ref());
        if found.is_none() {
            let known = self.0.iter().map(|server| &*server.name);
            let mut finding = unknown("server", placed.at(name), name.get_ref(), known);
            if self.0.is_empty() {
                let name = name.get_ref();
                finding = finding.help(format!("write `[mcp.{name}]` with its `url`"));
            }
            findings.push(finding);
        }
        found
    }
}
