//! The statements of verified evidence about a caller.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::policy::{SessionEvidence, Within};

use super::caller::Trust;
use super::{Evidence, RepositoryBasis};

/// The statements of a session token, OIDC token, certificate or per-session listener about a
/// caller.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The kind of evidence.
    pub evidence: Evidence,
    /// The id of the evidence, unique for its issuer; a revocation names it.
    pub id: Arc<str>,
    /// The signer of the evidence: a key id, the name of an issuer, or a CA.
    pub issuer: Arc<str>,
    /// The end of its validity for new flows.
    pub expires: Option<Timestamp>,
    /// `session.id`.
    pub session: Option<Arc<str>>,
    /// The root session: the one that this session descends from, or this session itself.
    pub root: Option<Arc<str>>,
    /// Whether the issuer had evidence for the session; otherwise the session is only claimed.
    pub verified: bool,
    /// The user: `ana@acme.example`.
    pub subject: Option<Arc<str>>,
    /// Groups in the token.
    pub groups: Vec<Arc<str>>,
    /// Claims, for the members of groups.
    pub claims: Vec<(Arc<str>, Arc<str>)>,
    /// The clone URL without scheme, user and `.git`.
    pub repository: Option<Arc<str>>,
    /// The source of the repository.
    pub basis: RepositoryBasis,
    /// Another repository that the session can harm, e.g. the parent of a fork: the session is no
    /// looser than that repository's tier.
    pub beside: Option<Arc<str>>,
    /// The tier of the repository, as set by its forge.
    pub tier: Option<Arc<str>>,
    /// Further restrictions.
    pub narrow: Narrow,
    /// The address and listener at which it may be used.
    pub bound: Bound,
    /// The sessions and tokens it comes from.
    pub line: Line,
    /// The channel it is restricted to, if any.
    pub channel: Option<Arc<str>>,
    /// Further facts for the record.
    pub work: Arc<Work>,
}

/// The restrictions of a session beyond those of its repository; a child can only add restrictions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Narrow {
    /// Tiers that limit the session: it is no looser than any of them.
    pub tiers: Vec<Arc<str>>,
    /// The categories and actions that the session may reach, at most.
    pub within: Option<Arc<Within>>,
}

/// The values that a session inherits from its ancestors.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Line {
    /// The ids of the ancestors' tokens, and the names that the ancestors chose. A revocation of
    /// one of these also revokes this session.
    pub names: Vec<Arc<str>>,
    /// Repositories that an ancestor or the session itself only claims to work on, the latest last.
    pub said: Vec<Arc<str>>,
    /// Other possible repositories of the folder: if `[[repository]]` lists one, its tier can make
    /// the session's stricter. They are not recorded as its repository.
    pub hints: Vec<Arc<str>>,
}

/// The places where a token may be used; an absent value is no restriction.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bound {
    /// The network of allowed clients.
    pub address: Option<IpNet>,
    /// The only allowed listener.
    pub listener: Option<SocketAddr>,
}

/// The work of a session, for the record: it grants nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// `claude-code`, `codex` …
    pub agent: Option<Arc<str>>,
    /// `vcs.ref.head.name`.
    pub ref_name: Option<Arc<str>>,
    /// `vcs.ref.head.revision`.
    pub revision: Option<Arc<str>>,
    /// Whether branch and commit come from an issuer's token, not from the working copy or the
    /// session.
    pub issued_ref: bool,
    /// `tidegate.permission_mode`.
    pub permission_mode: Option<Arc<str>>,
    /// `organization.id`.
    pub organization: Option<Arc<str>>,
    /// The CI job.
    pub job: Option<Job>,
}

/// A CI job (`cicd.*`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Job {
    /// `cicd.pipeline.name`.
    pub pipeline: Option<Arc<str>>,
    /// `cicd.pipeline.run.id`.
    pub run: Option<Arc<str>>,
    /// `cicd.pipeline.task.name`.
    pub task: Option<Arc<str>>,
    /// `cicd.worker.name`.
    pub worker: Option<Arc<str>>,
}

/// A tool call of the agent, as reported by its hooks: a label.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ToolCall {
    /// The trust in the report: `verified` if the agent's own process made it, `asserted` if any
    /// process of the session may have.
    pub trust: Trust,
    /// The agent's own session in the report. It belongs to the session of the gate that reported.
    pub session: Option<Arc<str>>,
    /// `tool_use_id`.
    pub id: Option<Arc<str>>,
    /// Identifies a call of an agent that gives its calls no id. Not recorded.
    pub handle: Option<Arc<str>>,
    /// `prompt.id`.
    pub prompt: Option<Arc<str>>,
    /// `agent_id`: a subagent.
    pub agent: Option<Arc<str>>,
    /// `parent_agent_id`.
    pub parent_agent: Option<Arc<str>>,
    /// `tidegate.tool.name`: `Bash`, `WebFetch`, `mcp__github__get_issue` …
    pub tool: Option<Arc<str>>,
}

impl ToolCall {
    /// Identifies the call in its session: its id, or its handle.
    pub fn key(&self) -> Option<&str> {
        self.id.as_deref().or(self.handle.as_deref())
    }
}

/// The process at the other end of a connection, if it is on this host: a label.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Process {
    /// `process.executable.path`.
    pub path: Option<Arc<str>>,
    /// `process.pid`.
    pub pid: u32,
    /// `process.command`: at most 200 characters, secrets masked.
    pub command: Arc<str>,
    /// `process.ancestry`: the names of its ancestors up to the agent, nearest first.
    pub ancestry: Vec<Arc<str>>,
    /// The process ids of the process and these ancestors, on this host and in their own namespace.
    pub lineage: Vec<Pids>,
}

/// The two ids of one process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pids {
    /// The process id on this host.
    pub outer: u32,
    /// The process id in its own namespace.
    pub inner: u32,
}

impl Grant {
    /// The session of the grant, as evidence for the policy.
    pub(super) fn session_evidence(&self) -> Option<SessionEvidence> {
        Some(SessionEvidence {
            id: self.session.clone()?,
            root: self.root.clone(),
            verified: self.verified,
        })
    }

    /// Whether the session is a root, not a child that another session named.
    pub fn is_root(&self) -> bool {
        self.session == self.root
    }

    /// Whether the session has evidence. The repository needs evidence of its own:
    /// [`Grant::repository_said`].
    pub fn is_vouched(&self) -> bool {
        self.verified && self.is_root()
    }

    /// Repositories that the session only claims.
    pub fn said(&self) -> impl Iterator<Item = &Arc<str>> {
        let own = self.repository.as_ref().filter(|_| !self.verified);
        own.into_iter().chain(&self.line.said)
    }

    /// The repository that the session works on: the latest claim, else the one with evidence.
    pub fn works_on(&self) -> Option<&Arc<str>> {
        self.line.said.last().or(self.repository.as_ref())
    }

    /// The names by which sessions made from it can be revoked, besides the root's name.
    pub fn hands_on(&self) -> impl Iterator<Item = &Arc<str>> {
        let chosen = self.session.as_ref().filter(|_| !self.is_root());
        self.line.names.iter().chain([&self.id]).chain(chosen)
    }

    /// The name that the end of this session revokes. A child may have chosen any id, so its name
    /// is qualified by its root.
    pub fn own_name(&self) -> Option<Arc<str>> {
        let session = self.session.as_ref()?;
        match &self.root {
            Some(root) if root != session => Some(format!("{root}/{session}").into()),
            _ => Some(session.clone()),
        }
    }
}

impl Narrow {
    /// Whether there is no restriction.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty() && self.within.is_none()
    }

    /// Combines both restrictions.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut tiers = self.tiers.clone();
        let more = other.tiers.iter().filter(|tier| !self.tiers.contains(tier));
        tiers.extend(more.cloned());
        let within = match (&self.within, &other.within) {
            (Some(one), Some(other)) => Some(Arc::new(one.and(other))),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Self { tiers, within }
    }
}
