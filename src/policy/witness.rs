//! One flow, as text and as a command.

use std::fmt::Write;

use serde::Serialize;

use crate::diag::shell_word;
use crate::name::Target;

use super::compiled::Policy;
use super::facts::RequestFacts;
use super::query::Who;
use super::regions::Point;

/// One flow, as text and as a command.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Witness {
    /// `callers in tier standard, in group contractors`.
    pub callers: String,
    /// `x.example:443`, `POST https://x.example/a (write, operation publish)`.
    pub flow: String,
    /// The command that explains the flow, `tidegate explain …`.
    pub command: String,
    /// Whether the command describes exactly this flow. Facts of a body, and facts without a
    /// matching method and path, cannot be given to the command.
    pub is_exact: bool,
}

impl Witness {
    /// Describes the flow of a point.
    pub(super) fn new(policy: &Policy, point: &Point) -> Self {
        let facts = point.request.as_ref().map(|request| &request.facts);
        let mut command = format!("tidegate explain {}", shell_word(&address(point)));
        let _ = write!(
            command,
            " --tier {}",
            shell_word(policy.tier_name(point.who.tier))
        );
        for group in policy.group_names(point.who.groups) {
            let _ = write!(command, " --group {}", shell_word(group));
        }
        if let Some(repository) = &point.who.repository {
            let _ = write!(command, " --repo {}", shell_word(repository));
        }
        if let Some(subject) = &point.who.subject {
            let _ = write!(command, " --user {}", shell_word(subject));
        }
        if let Some(request) = point.request.as_ref().filter(|it| &*it.method != "GET") {
            let _ = write!(command, " --method {}", shell_word(&request.method));
        }
        Self {
            callers: callers(policy, &point.who),
            flow: flow(point),
            command,
            is_exact: facts.is_none() || point.feasible(policy) == super::regions::Feasible::Yes,
        }
    }

    /// Returns the kind of a caller without its tier: `in group contractors`; `None` if nothing
    /// else is known.
    pub(super) fn kind_of_caller(policy: &Policy, who: &Who) -> Option<String> {
        let all = callers(policy, who);
        let tier = format!("callers in tier {}, ", policy.tier_name(who.tier));
        all.strip_prefix(&tier).map(str::to_owned)
    }

    /// Formats the request of a point: `GET /x (read)`.
    pub(super) fn request(point: &Point) -> String {
        let Some(request) = &point.request else {
            return String::new();
        };
        let facts = facts(&request.facts);
        let path = request.path.path();
        if facts.is_empty() {
            return format!("{} {path}", request.method);
        }
        format!("{} {path} ({facts})", request.method)
    }

    /// Returns the hint for examining the flow.
    pub fn to_see(&self) -> String {
        if self.is_exact {
            format!("see `{}`", self.command)
        } else {
            format!("see `{}`, which cannot describe all of it", self.command)
        }
    }
}

/// Formats `callers in tier standard, in group contractors`.
fn callers(policy: &Policy, who: &Who) -> String {
    let mut text = format!("callers in tier {}", policy.tier_name(who.tier));
    for group in policy.group_names(who.groups) {
        let _ = write!(text, ", in group {group}");
    }
    if let Some(subject) = &who.subject {
        let _ = write!(text, ", as {subject}");
    }
    if let Some(repository) = &who.repository {
        let _ = write!(text, ", of {repository}");
    }
    text
}

/// Returns the arguments of `explain`.
fn address(point: &Point) -> String {
    match &point.request {
        None => point.target.to_string(),
        Some(request) => url(&point.target, request.tls, request.path.path()),
    }
}

fn url(target: &Target, tls: bool, path: &str) -> String {
    let (scheme, usual) = if tls { ("https", 443) } else { ("http", 80) };
    if target.port == usual {
        let text = target.to_string();
        let host = text.strip_suffix(&format!(":{usual}")).unwrap_or(&text);
        return format!("{scheme}://{host}{path}");
    }
    format!("{scheme}://{target}{path}")
}

fn flow(point: &Point) -> String {
    let Some(request) = &point.request else {
        return point.target.to_string();
    };
    let address = url(&point.target, request.tls, request.path.path());
    let facts = facts(&request.facts);
    if facts.is_empty() {
        return format!("{} {address}", request.method);
    }
    format!("{} {address} ({facts})", request.method)
}

/// Formats `write, operation publish, package @acme/ui`.
fn facts(facts: &RequestFacts) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(facts.action.map(|action| action.as_str().to_owned()));
    let mut add = |what: &str, fact: Option<&str>| {
        words.extend(fact.map(|fact| format!("{what} {fact}")));
    };
    add("operation", facts.operation.as_deref());
    add("repository", facts.repository.as_deref());
    add("package", facts.package.as_deref());
    add("ref", facts.reference.as_deref());
    if let Some(call) = &facts.mcp {
        add(
            "MCP server",
            Some(call.server.as_deref().unwrap_or("that is not listed")),
        );
        add("method", call.method.as_deref());
        add("tool", call.tool.as_deref());
    }
    if let Some(credential) = facts.credentials.first() {
        let short = credential.get(..20).unwrap_or(credential);
        words.push(format!("credential {short}…"));
    }
    words.join(", ")
}
