//! What is done at a destination.

use serde::Serialize;

use crate::name::Path;

use super::Category;

/// What is done at a destination, where it can be seen.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A model request, an MCP message.
    Call,
    /// Clone, install, GET.
    Read,
    /// Push, publish, upload.
    Write,
}

impl Action {
    /// The word, as in configuration, records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Says what a request does: by service where its protocol is known (git smart HTTP), else by
    /// method. What cannot be told is a write.
    pub fn of(_category: Category, _method: &str, _path: &Path) -> Self {
        todo!()
    }
}
