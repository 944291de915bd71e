//! What verified evidence says of a caller.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::policy::{SessionEvidence, Within};

use super::caller::Trust;
use super::{Evidence, RepositoryBasis};

/// What a session token, an OIDC token, a certificate or a per-session listener says of a caller.
#[derive(Clone, Debug)]
pub struct Grant {
    /// What it is.
    pub evidence: Evidence,
    /// Its own id, unique with its issuer: what a revocation names.
    pub id: Arc<str>,
    /// The signer of the evidence: a key id, the name of an issuer, or a CA.
    pub issuer: Arc<str>,
    /// From when on it is no evidence for a new flow.
    pub expires: Option<Timestamp>,
    /// `session.id`.
    pub session: Option<Arc<str>>,
    /// The session that this one descends from, or is: what belongs together.
    pub root: Option<Arc<str>>,
    /// Whether the issuer itself had evidence, or only the session's own word.
    pub verified: bool,
    /// `ana@acme.example`.
    pub subject: Option<Arc<str>>,
    /// Groups that it names outright.
    pub groups: Vec<Arc<str>>,
    /// Claims, for the members of groups.
    pub claims: Vec<(Arc<str>, Arc<str>)>,
    /// The clone URL without scheme, user and `.git`.
    pub repository: Option<Arc<str>>,
    /// Who says which repository it works on.
    pub basis: RepositoryBasis,
    /// Another repository that it can do harm to, as a fork's job to its parent: it is no looser than
    /// what is known of that one.
    pub beside: Option<Arc<str>>,
    /// The tier of that repository, where its forge says one.
    pub tier: Option<Arc<str>>,
    /// Less than that.
    pub narrow: Narrow,
    /// Where it may be used.
    pub bound: Bound,
    /// What it was made of.
    pub line: Line,
    /// The channel it was made for, where it is for one.
    pub channel: Option<Arc<str>>,
    /// What the record tells besides.
    pub work: Arc<Work>,
}

/// How a session is narrower than its repository; what is handed on can only grow narrower.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Narrow {
    /// It is no looser than any of these tiers.
    pub tiers: Vec<Arc<str>>,
    /// It reaches at most these categories and actions.
    pub within: Option<Arc<Within>>,
}

/// What a session took over from those that it was made of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Line {
    /// The ids of their tokens, and the names that they chose. A revocation of one of these also
    /// revokes this session.
    pub names: Vec<Arc<str>>,
    /// Repositories that one of them, or itself, only says it works on, the latest last.
    pub said: Vec<Arc<str>>,
    /// Repositories that the folder may be of besides: where `[[repository]]` lists one, its tier
    /// can make the session's stricter. They are not on record as its repository.
    pub hints: Vec<Arc<str>>,
}

/// Where a token may be used; what is not said is not bound.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bound {
    /// Only by clients at these addresses.
    pub address: Option<IpNet>,
    /// Only at this listener.
    pub listener: Option<SocketAddr>,
}

/// What a session works on, for the record: it grants nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// `claude-code`, `codex` …
    pub agent: Option<Arc<str>>,
    /// `vcs.ref.head.name`.
    pub ref_name: Option<Arc<str>>,
    /// `vcs.ref.head.revision`.
    pub revision: Option<Arc<str>>,
    /// Whether an issuer's token says branch and commit, not the working copy or the session.
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

/// A tool call of the agent, as its hooks tell it: a label.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ToolCall {
    /// Who reported it: `verified` where the agent's own process did, `asserted` where any process
    /// of the session may have.
    pub trust: Trust,
    /// `tool_use_id`.
    pub id: Option<Arc<str>>,
    /// Tells the call from others where its agent gives it no id. On no record.
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
    /// What tells the call from the other calls of its session: its id, or its handle.
    pub fn key(&self) -> Option<&str> {
        self.id.as_deref().or(self.handle.as_deref())
    }
}

/// The process at the other end of a connection, where it is on this host: a label.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Process {
    /// `process.executable.path`.
    pub path: Option<Arc<str>>,
    /// `process.pid`.
    pub pid: u32,
    /// `process.command`: at most 200 characters, secrets masked.
    pub command: Arc<str>,
    /// `process.ancestry`: the names of its parents up to the agent, nearest first.
    pub ancestry: Vec<Arc<str>>,
    /// The process ids of itself and of these parents, as this host has them and as the process
    /// itself sees them.
    pub lineage: Vec<Pids>,
}

/// One process under both of its numbers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pids {
    /// Its number on this host.
    pub outer: u32,
    /// Its number in its own process namespace.
    pub inner: u32,
}

impl Grant {
    /// The session of the grant, as the policy sees it.
    pub(super) fn session_evidence(&self) -> Option<SessionEvidence> {
        Some(SessionEvidence {
            id: self.session.clone()?,
            root: self.root.clone(),
            verified: self.verified,
        })
    }

    /// Whether its session is its own, not one that a child of another session named.
    pub fn is_root(&self) -> bool {
        self.session == self.root
    }

    /// Whether evidence shows the session. Which repository it works on needs evidence of its own:
    /// [`Grant::repository_said`].
    pub fn is_vouched(&self) -> bool {
        self.verified && self.is_root()
    }

    /// Repositories that are only the session's own word.
    pub fn said(&self) -> impl Iterator<Item = &Arc<str>> {
        let own = self.repository.as_ref().filter(|_| !self.verified);
        own.into_iter().chain(&self.line.said)
    }

    /// The repository that it works on: what it says last, else what it has.
    pub fn works_on(&self) -> Option<&Arc<str>> {
        self.line.said.last().or(self.repository.as_ref())
    }

    /// The names by which what is made of it can be revoked, besides its root's.
    pub fn hands_on(&self) -> impl Iterator<Item = &Arc<str>> {
        let chosen = self.session.as_ref().filter(|_| !self.is_root());
        self.line.names.iter().chain([&self.id]).chain(chosen)
    }

    /// What its own end revokes: a child may have named itself as it liked, so it ends only in the
    /// name of where it comes from.
    pub fn own_name(&self) -> Option<Arc<str>> {
        let session = self.session.as_ref()?;
        match &self.root {
            Some(root) if root != session => Some(format!("{root}/{session}").into()),
            _ => Some(session.clone()),
        }
    }
}

impl Narrow {
    /// Whether it takes nothing away.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty() && self.within.is_none()
    }

    /// Both: what is narrower of each.
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
