//! Request facts: what one request does, read from its head first, then from its body.
//!
//! A request that does several things (a push of two branches, a batch of tool calls) has several
//! [`RequestFacts`], each judged on its own.

use std::sync::Arc;

use super::Action;
use super::category::Category;
use super::words::Words;

/// The part of a request from which its facts were read.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Seen {
    /// Only the head: facts of the body are not known yet. A condition on them lets an allow match,
    /// and a deny or ask not: the whole request is judged again before any byte is forwarded.
    Head,
    /// The whole request: an unknown fact does not exist, and meets no condition.
    #[default]
    Whole,
}

/// The kind of body that has to be read before the request may pass.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Body {
    /// The negotiation of git-upload-pack: whether the request is a fetch and nothing else.
    GitFetch,
    /// The commands of git-receive-pack: which refs are pushed.
    GitPush,
    /// A GraphQL operation: query or mutation.
    GraphQl,
    /// A Git LFS batch: upload or download.
    LfsBatch,
    /// The verification of locks of Git LFS: whether the request contains anything else.
    LfsVerify,
    /// JSON-RPC of the Model Context Protocol: method and tool.
    Mcp,
    /// A request to a model: its server-side tools.
    Model,
    /// A token form of an image registry: for a pull, or for more.
    OciToken,
}

/// The facts of one thing that a request does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestFacts {
    /// The part of the request that was read.
    pub seen: Seen,
    /// The service whose protocol the request uses, e.g. `npm`, `git`, `github`.
    pub service: Option<Arc<str>>,
    /// The operation in that service, e.g. `publish`, `push`, `tools/call`.
    pub operation: Option<Arc<str>>,
    /// Read, write or call; `None` if only the body shows the action, or the request has none.
    pub action: Option<Action>,
    /// The repository at the destination, e.g. `acme/app`.
    pub repository: Option<Box<str>>,
    /// The package at the destination, e.g. `@acme/ui`.
    pub package: Option<Box<str>>,
    /// The version of the package.
    pub version: Option<Box<str>>,
    /// The ref that is pushed, e.g. `refs/heads/agent/x`.
    pub reference: Option<Box<str>>,
    /// The message to an MCP server.
    pub mcp: Option<McpCall>,
    /// Keyed hashes of the credentials in the request; empty if no rule needs them.
    pub credentials: Vec<Box<str>>,
    /// The kind of body to read; `None` if it was read, or need not be read.
    pub body: Option<Body>,
    /// The inclusions among the operations of the service.
    pub words: Option<Arc<Words>>,
    /// The facts under other readings of the path ([`Path::readings`]), if a server would read
    /// another operation, repository or package from it. Mostly empty. A deny or ask matches by any
    /// of them, an allow by all of them.
    ///
    /// [`Path::readings`]: crate::name::Path::readings
    pub other_readings: Box<[Self]>,
    /// How the request is judged if its path is unknown: by default, records have no path.
    pub unseen_path: Option<UnseenPath>,
}

/// How a request with an unknown path is judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnseenPath {
    /// The category that the path had when the request was made, if the path decided it.
    pub category: Option<Category>,
    /// Whether path conditions hold in every allow and in no deny or ask; otherwise the reverse. If
    /// both ways lead to one verdict, the path does not matter.
    pub lenient: bool,
}

impl RequestFacts {
    /// Whether some facts are in a body that was not read yet.
    pub(super) fn is_unread(&self) -> bool {
        self.seen == Seen::Head && self.body.is_some()
    }

    /// Whether rules on operations, repositories or packages treat both in the same way.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        let alike = |one: &Option<Box<str>>, other: &Option<Box<str>>| match (one, other) {
            (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
            (one, other) => one == other,
        };
        self.operation == other.operation
            && alike(&self.repository, &other.repository)
            && alike(&self.package, &other.package)
    }

    /// Returns the words by which a rule can name the operation: the operation, and each word that
    /// includes it. Empty if the operation is unknown.
    ///
    /// An allow reads `narrow`. A deny or ask does not: for a GraphQL request with undetermined
    /// mutations, the result contains the words of all mutations.
    pub fn operation_words(&self, narrow: bool) -> Vec<&str> {
        match (self.operation.as_deref(), &self.words) {
            (None, _) => Vec::new(),
            (Some(operation), None) => vec![operation],
            (Some(operation), Some(words)) if narrow => words.above(operation),
            (Some(operation), Some(words)) => words.possible(operation),
        }
    }
}

/// The message to an MCP server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct McpCall {
    /// The server, if it is a listed one.
    pub server: Option<Arc<str>>,
    /// `tools/call`, `initialize`, …; `None` if the message is a response, or was not read.
    pub method: Option<Box<str>>,
    /// The name of the tool (or of the resource or prompt), if the method has one.
    pub tool: Option<Box<str>>,
    /// `_meta["claudecode/toolUseId"]`: the agent's own id of the call.
    pub tool_use_id: Option<Box<str>>,
}

/// Whether the gate intercepts TLS here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Inspect {
    /// No setting inspects the flow.
    #[default]
    No,
    /// A rule excludes the flow, which would be inspected otherwise; the name of the rule.
    Passed(Arc<str>),
    /// Each request inside is judged.
    Yes,
}
