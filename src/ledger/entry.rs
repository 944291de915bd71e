//! One entry of the ledger.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::grant::{Grant, Limit};
use super::review::{Review, Voter};

/// One entry of the ledger.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// The position in the ledger: 1 is the first entry, and there are no gaps.
    pub revision: u64,
    /// A UUID of version 7. A gate that lost the answer to an append finds its own entry by this id.
    pub id: Uuid,
    /// When the entry was appended, by the clock of the gate that appended it.
    pub at: Timestamp,
    /// The author of the change.
    pub actor: Actor,
    /// The change.
    pub change: Change,
}

/// The author of a change.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Actor {
    /// The authenticated principal: `uid:0`, `subject:sec@acme.example`, `san:ops.acme.example`, or
    /// `gate` if the gate itself wrote the entry.
    pub principal: String,
    /// How the principal reached the gate: `control`, `admin`, `admin-tls`, or `gate`.
    pub door: String,
    /// `service.instance.id` of the gate that appended the entry.
    pub instance: String,
}

/// A change of the ledger.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "kind"
)]
pub enum Change {
    /// An exception is in force from now on.
    ExceptionGranted {
        /// The exception.
        grant: Box<Grant>,
    },
    /// An exception ends before its time.
    ExceptionRevoked {
        /// The id of the exception.
        id: String,
        /// The reason.
        reason: String,
    },
    /// A gate reserved a part of the budget of an exception, before it uses that part.
    BudgetTaken {
        /// The id of the exception; also of an exception in a file.
        id: String,
        /// The reserved part.
        taken: Limit,
    },
    /// One reviewer allowed a request that two have to allow.
    RequestVoted {
        /// The request, with the decision of this reviewer. `until`: when the vote ends.
        review: Box<Review>,
        /// The reviewer, with the evidence.
        voter: Box<Voter>,
    },
    /// A request for approval was settled. Each request is settled at most once.
    RequestSettled {
        /// The request, and the decision of the reviewers.
        review: Box<Review>,
    },
    /// An approval ends before its time.
    ApprovalRevoked {
        /// The id of the request that was allowed.
        request: Uuid,
        /// The reviewer's text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A flow used up an approval for one flow.
    ApprovalUsed {
        /// The id of the request that was allowed.
        request: Uuid,
        /// The id of the flow.
        flow: Uuid,
    },
    /// A working copy was pinned to a repository.
    WorkspacePinned {
        /// The folder.
        folder: String,
        /// The repository, in canonical form.
        repository: String,
    },
}

impl Change {
    /// Returns the name of the kind, as in the stored text.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ExceptionGranted { .. } => "exception-granted",
            Self::ExceptionRevoked { .. } => "exception-revoked",
            Self::BudgetTaken { .. } => "budget-taken",
            Self::RequestSettled { .. } => "request-settled",
            Self::RequestVoted { .. } => "request-voted",
            Self::ApprovalRevoked { .. } => "approval-revoked",
            Self::ApprovalUsed { .. } => "approval-used",
            Self::WorkspacePinned { .. } => "workspace-pinned",
        }
    }

    /// Returns the exception that the change grants.
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::ExceptionGranted { grant } => Some(grant),
            _ => None,
        }
    }
}
