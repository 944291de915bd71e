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
    /// Only the head: what only the body tells is not known yet. A condition that needs it lets an
    /// allow match, and a deny or ask not: the whole is judged again before a byte goes on.
    Head,
    /// All that there is to be read: what is not known does not exist, and meets no condition.
    #[default]
    Whole,
}

/// What the body of a request has to be read for before it may pass.
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
    /// The question of Git LFS for locks: whether the request carries anything else.
    LfsVerify,
    /// JSON-RPC of the Model Context Protocol: method and tool.
    Mcp,
    /// A request to a model: its server-side tools.
    Model,
    /// A form that asks for a token of a registry of images: for a pull, or for more.
    OciToken,
}

/// The facts of one thing that a request does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestFacts {
    /// The part of the request that was read.
    pub seen: Seen,
    /// The service whose protocol it speaks, e.g. `npm`, `git`, `github`.
    pub service: Option<Arc<str>>,
    /// What it does in the words of that service, e.g. `publish`, `push`, `tools/call`.
    pub operation: Option<Arc<str>>,
    /// Read, write or call; `None` where only the body tells, or the request does not.
    pub action: Option<Action>,
    /// The repository at the destination, e.g. `acme/app`.
    pub repository: Option<Box<str>>,
    /// The package at the destination, e.g. `@acme/ui`.
    pub package: Option<Box<str>>,
    /// The version of the package.
    pub version: Option<Box<str>>,
    /// The ref that is pushed, e.g. `refs/heads/agent/x`.
    pub reference: Option<Box<str>>,
    /// What it asks of an MCP server.
    pub mcp: Option<McpCall>,
    /// Keyed hashes of the credentials that it presents; none where no rule asks for them.
    pub credentials: Vec<Box<str>>,
    /// What the body has to be read for; `None` once it was, or where nothing needs it.
    pub body: Option<Body>,
    /// Which words of the service include which.
    pub words: Option<Arc<Words>>,
    /// What the request does where a server reads its path in another way ([`Path::readings`]) and
    /// takes another operation, repository or package from it. Mostly none. A deny or ask matches by
    /// any of them, an allow by all of them.
    ///
    /// [`Path::readings`]: crate::name::Path::readings
    pub other_readings: Box<[Self]>,
    /// How the request is judged where its path is not known: records have none by default.
    pub unseen_path: Option<UnseenPath>,
}

/// How a request whose path is not known is judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnseenPath {
    /// The category that the path told when the request was made, where it told one.
    pub category: Option<Category>,
    /// Whether conditions on paths hold in every allow and in no deny or ask; else the other way
    /// round. Where both ways come to one verdict, the path does not matter.
    pub lenient: bool,
}

impl RequestFacts {
    /// Whether some of them stand in a body that was not read yet.
    pub(super) fn is_unread(&self) -> bool {
        self.seen == Seen::Head && self.body.is_some()
    }

    /// Whether rules that name an operation, repository or package take both for the same.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        let alike = |one: &Option<Box<str>>, other: &Option<Box<str>>| match (one, other) {
            (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
            (one, other) => one == other,
        };
        self.operation == other.operation
            && alike(&self.repository, &other.repository)
            && alike(&self.package, &other.package)
    }

    /// The words by which a rule names the operation: the operation, and each word that includes
    /// it. Empty where the operation is not known.
    ///
    /// An allow reads `narrow`. A deny or ask does not: for a GraphQL request whose mutations
    /// cannot be told, the words of all mutations are among them.
    pub fn operation_words(&self, narrow: bool) -> Vec<&str> {
        match (self.operation.as_deref(), &self.words) {
            (None, _) => Vec::new(),
            (Some(operation), None) => vec![operation],
            (Some(operation), Some(words)) if narrow => words.above(operation),
            (Some(operation), Some(words)) => words.possible(operation),
        }
    }
}

/// What a message asks of an MCP server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct McpCall {
    /// The server that it goes to, where it is a listed one.
    pub server: Option<Arc<str>>,
    /// `tools/call`, `initialize`, …; `None` where the message is an answer, or was not read.
    pub method: Option<Box<str>>,
    /// The name of the tool (or of the resource or prompt), where the method has one.
    pub tool: Option<Box<str>>,
    /// `_meta["claudecode/toolUseId"]`: the agent's own id of the call.
    pub tool_use_id: Option<Box<str>>,
}

/// Whether TLS is ended here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Inspect {
    /// Nothing asks for it.
    #[default]
    No,
    /// A rule says that it is not, where it would be: the rule.
    Passed(Arc<str>),
    /// Each request inside is judged.
    Yes,
}
