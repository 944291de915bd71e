//! A recorded flow in the form that a policy decides.

use std::sync::Arc;

use crate::name::{Path, Target};
use crate::policy::{
    Action, Attempt, Body, Category, Facts, McpCall, Policy, Query, RequestFacts, Seen, TierBasis,
    UnseenPath, Who, Within,
};

use super::recorded::{Recorded, Text};

/// Maximum length of a method in a record; no client of the gate sends a longer one.
const MAX_METHOD: usize = 64;

/// A recorded flow, with the facts in its record.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The target of the flow.
    pub target: Target,
    /// The request; `None` for a tunnel.
    pub request: Option<Request>,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, as it was sent.
    pub method: Box<str>,
    /// The recorded path; `/` if there is none, and then the facts mark the path as unknown.
    pub path: Path,
    /// Whether the request asked for another protocol.
    pub upgrade: bool,
    /// Whether the request went over TLS.
    pub tls: bool,
    /// The facts of the request.
    pub facts: RequestFacts,
}

impl Flow {
    /// Returns the flow of a line; `None` if the line names no target.
    pub fn of(line: &Recorded<'_>, policy: &Policy) -> Option<Self> {
        let target = target(line)?;
        if line.is_tunnel() {
            return Some(Self {
                target,
                request: None,
            });
        }
        let known = line.path.as_deref().map(str::as_bytes);
        let path = Path::parse(known.unwrap_or(b"/")).ok()?;
        let mut facts = facts(line);
        facts.unseen_path = known.is_none().then(|| UnseenPath {
            category: path_category(line),
            lenient: false,
        });
        if let Some(service) = facts.service.clone() {
            facts.words = policy.words(&target, &service);
        }
        let method = line.method.as_deref().unwrap_or_default();
        let request = Request {
            method: method.chars().take(MAX_METHOD).collect::<String>().into(),
            path,
            upgrade: line.upgrade,
            tls: line.is_inside(),
            facts,
        };
        Some(Self {
            target,
            request: Some(request),
        })
    }

    /// Returns the flow in the notation of trials and examples; `None` if that needs a path and no
    /// path is recorded.
    pub fn written(&self, line: &Recorded<'_>, policy: &Policy) -> Option<String> {
        let Some(request) = &self.request else {
            return Some(self.target.to_string());
        };
        let scheme = if request.tls { "https" } else { "http" };
        let site = format!("{scheme}://{}", self.target);
        let known = line.path.as_deref();
        let facts = &request.facts;
        if let Some(call) = &facts.mcp {
            let server = call.server.as_deref();
            let path = known.or(server.and_then(|name| policy.server_path(name)))?;
            let is_call = call.method.as_deref() == Some("tools/call");
            let tool = call.tool.as_deref().filter(|_| is_call)?;
            let is_word = !tool.contains(char::is_whitespace);
            return is_word.then(|| format!("TOOL {site}{path} {tool}"));
        }
        let repository = facts.repository.as_deref();
        let reference = facts.reference.as_deref();
        match (repository, reference, facts.operation.as_deref()) {
            (Some(repository), Some(reference), _) => {
                Some(format!("PUSH {site}/{repository} {reference}"))
            }
            _ if known.is_some() => Some(format!("{} {site}{}", request.method, known?)),
            (Some(repository), None, Some("fetch")) => Some(format!("CLONE {site}/{repository}")),
            _ => None,
        }
    }

    /// Returns the query to a policy, for a caller.
    pub fn query<'q>(&'q self, who: &'q Who) -> Query<'q> {
        Query {
            who,
            target: &self.target,
            attempt: match &self.request {
                None => Attempt::Connect,
                Some(request) => Attempt::Request {
                    method: &request.method,
                    path: &request.path,
                    upgrade: request.upgrade,
                    tls: request.tls,
                    request_facts: Some(&request.facts),
                },
            },
        }
    }
}

/// Returns the target in a line.
fn target(line: &Recorded<'_>) -> Option<Target> {
    let (host, port) = (line.host.as_deref()?, line.port?);
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    Target::from_connect(authority.as_bytes()).ok()
}

/// Returns the category that the path decided, if it did.
fn path_category(line: &Recorded<'_>) -> Option<Category> {
    let by_path = matches!(line.category_basis.as_deref(), Some("path" | "rule"));
    let word = line.category.as_deref().filter(|_| by_path)?;
    Category::from_word(word)
}

/// Returns the recorded facts of the request.
fn facts(line: &Recorded<'_>) -> RequestFacts {
    let shared = |text: &Option<Text<'_>>| text.as_deref().map(Arc::<str>::from);
    let boxed = |text: &Option<Text<'_>>| text.as_deref().map(Box::<str>::from);
    let server = shared(&line.mcp_server);
    let by_body = line.category_basis.as_deref() == Some("content");
    let is_message = server.is_some() || line.mcp_method.is_some() || by_body;
    // The fact that a body was not read matters; the kind of body does not.
    let head_only = line.seen.as_deref() == Some("head");
    RequestFacts {
        seen: if head_only { Seen::Head } else { Seen::Whole },
        body: head_only.then_some(Body::GraphQl),
        service: shared(&line.service),
        operation: shared(&line.operation),
        action: line.action.as_deref().and_then(Action::from_word),
        repository: boxed(&line.destination_repository),
        package: boxed(&line.package),
        version: boxed(&line.version),
        reference: boxed(&line.destination_ref),
        mcp: is_message.then(|| McpCall {
            server,
            method: boxed(&line.mcp_method),
            tool: boxed(&line.mcp_tool),
            tool_use_id: None,
        }),
        ..RequestFacts::default()
    }
}

/// The caller of a line under a policy.
///
/// The user, groups and repositories are as recorded; this policy decides the tier. Groups that a
/// policy assigns by claims or certificates are taken from the record, because claims are not
/// recorded.
pub fn who(line: &Recorded<'_>, policy: &Policy) -> Who {
    let shared = |text: &Text<'_>| Arc::<str>::from(&**text);
    let repository = line.repository.as_ref().map(shared);
    let verified = if line.is_repository_verified() {
        repository.clone()
    } else {
        line.repository_verified.as_ref().map(shared)
    };
    let is_given = matches!(line.tier_basis.as_deref(), Some("listener" | "session"));
    let given = line.tier.as_deref().filter(|_| is_given);
    let groups: Vec<Arc<str>> = line.groups.iter().map(shared).collect();
    let within = line.within.as_ref().map(|words| {
        // An unknown word allows nothing.
        let words = words.iter().map(|word| &**word);
        let known = words.filter(|word| Within::parse([*word]).is_ok());
        Within::parse(known).map(Arc::new).unwrap_or_default()
    });
    let mut who = policy.who(&Facts {
        subject: line.user.as_deref().unwrap_or_default(),
        groups: &groups,
        repository: verified.as_ref(),
        repository_tier: line.tier_issued.as_deref(),
        listener_tier: line.tier_given.as_deref().or(given),
        within: within.as_ref(),
        ..Facts::default()
    });
    let asserted = repository.filter(|_| !line.is_repository_verified());
    let claimed: Vec<Arc<str>> = match &line.repository_claimed {
        Some(claimed) => claimed.iter().map(shared).collect(),
        None => asserted.into_iter().collect(),
    };
    for repository in &claimed {
        policy.tighten(&mut who, repository, &[]);
    }
    for repository in &line.repository_hinted {
        policy.tighten(&mut who, &shared(repository), &[TierBasis::Repository]);
    }
    who.enforced |= line.enforced;
    who
}
