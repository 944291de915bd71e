//! One entry of the ledger.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::grant::{Grant, Limit};

/// One entry of the ledger.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// The place in the ledger: 1 is the first entry, and there are no gaps.
    pub revision: u64,
    /// A UUID of version 7. A gate that lost the answer to an append finds its own entry by this id.
    pub id: Uuid,
    /// When the entry was appended, by the clock of the gate that appended it.
    pub at: Timestamp,
    /// Who made the change.
    pub actor: Actor,
    /// What changed.
    pub change: Change,
}

/// Who made a change.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Actor {
    /// The authenticated principal: `uid:0`, `subject:sec@acme.example`, `san:ops.acme.example`, or
    /// `gate` where the gate itself wrote the entry.
    pub principal: String,
    /// How the principal reached the gate: `control`, `admin`, `admin-tls`, or `gate`.
    pub door: String,
    /// `service.instance.id` of the gate that appended the entry.
    pub instance: String,
}

/// What an entry changes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "kind"
)]
pub enum Change {
    /// An exception holds from now on.
    ExceptionGranted {
        /// The exception.
        grant: Box<Grant>,
    },
    /// An exception ends before its time.
    ExceptionRevoked {
        /// The id of the exception.
        id: String,
        /// Why.
        reason: String,
    },
    /// A gate reserved a part of the budget of an exception before it lets that part pass.
    BudgetTaken {
        /// The id of the exception; also of an exception in a file.
        id: String,
        /// What was reserved.
        taken: Limit,
    },
    /// A request for approval was settled. Each request is settled at most once.
    RequestSettled {
        /// The id of the request.
        request: Uuid,
        /// What was decided.
        settlement: Settlement,
        /// The reviewers' text.
        reason: String,
        /// The exception that the approval grants, in the same entry: both stand, or neither.
        grant: Option<Box<Grant>>,
    },
    /// A working copy was pinned to a repository.
    WorkspacePinned {
        /// The folder.
        folder: String,
        /// The repository, in canonical form.
        repository: String,
    },
}

/// What was decided on a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settlement {
    /// Approved.
    Allowed,
    /// Refused.
    Denied,
}

impl Change {
    /// The name of the kind, as in the stored text.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ExceptionGranted { .. } => "exception-granted",
            Self::ExceptionRevoked { .. } => "exception-revoked",
            Self::BudgetTaken { .. } => "budget-taken",
            Self::RequestSettled { .. } => "request-settled",
            Self::WorkspacePinned { .. } => "workspace-pinned",
        }
    }

    /// The exception that the change grants.
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::ExceptionGranted { grant }
            | Self::RequestSettled {
                grant: Some(grant), ..
            } => Some(grant),
            _ => None,
        }
    }
}
