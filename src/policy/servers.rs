//! `[mcp.NAME]`: the MCP servers that rules may name.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::name::{Host, Path, Target, Url};

use super::compile::{Findings, unknown};
use super::pattern::HostPattern;
use super::source::{self, Placed};

/// A server, by its place among those that were written.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct ServerId(u16);

/// A server that rules may name.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: Arc<str>,
    pub(super) target: Target,
    /// The same port, as a list.
    pub(super) ports: [u16; 1],
    path: Path,
    /// `policy/mcp.toml:3`.
    pub(super) location: Box<str>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Servers(Vec<Server>);

impl Servers {
    pub(super) fn get(&self, id: ServerId) -> Option<&Server> {
        self.0.get(usize::from(id.0))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Server> {
        self.0.iter()
    }

    pub(super) fn find(&self, name: &str) -> Option<ServerId> {
        let at = self.0.iter().position(|server| *server.name == *name)?;
        u16::try_from(at).ok().map(ServerId)
    }

    /// The first server at the target of a server.
    pub(super) fn site(&self, id: ServerId) -> ServerId {
        self.get(id)
            .and_then(|server| self.at(&server.target))
            .unwrap_or(id)
    }

    /// The first server that is reached at a target.
    pub(super) fn at(&self, target: &Target) -> Option<ServerId> {
        self.matching(|server| server.target == *target)
    }

    /// The server whose endpoint this is; a query is not looked at.
    pub(super) fn endpoint(&self, target: &Target, path: &Path) -> Option<ServerId> {
        self.matching(|server| server.target == *target && server.path.path() == path.path())
    }

    fn matching(&self, matches: impl Fn(&Server) -> bool) -> Option<ServerId> {
        let at = self.0.iter().position(matches)?;
        u16::try_from(at).ok().map(ServerId)
    }

    /// The server that a name stands for, or a finding.
    pub(super) fn resolve<T>(
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

impl Server {
    /// The host, as a rule would name it.
    pub(super) fn pattern(&self) -> HostPattern {
        match &self.target.host {
            Host::Name(name) => HostPattern::Exact(name.clone()),
            Host::Address(address) => HostPattern::Network((*address).into()),
        }
    }
}

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
                .help("write e.g. `https://mcp.example.com/mcp`"),
        );
    };
    let url = match Url::parse(text.get_ref().as_bytes()) {
        Ok(url) if !url.tls => {
            refuse("only https is inspected".into());
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
    Some(Server {
        name: name.get_ref().as_str().into(),
        ports: [url.target.port],
        target: url.target,
        path: url.path,
        location: written.place().to_string().into(),
    })
}
