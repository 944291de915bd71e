//! The repository that a caller works on, and its evidence, which is separate from that of the
//! session.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::caller::Trust;
use super::grant::Grant;

/// The source of a repository.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepositoryBasis {
    /// A claim of an issuer's token.
    Issuer,
    /// `repository` of a `[[listener]]`.
    Listener,
    /// A pin of the working copy (`tidegate workspace pin`).
    Pin,
    /// The launcher of the session, or the session itself.
    Session,
    /// `repository` of an `[[identity.user]]`.
    User,
    /// The working copy, by the files in `.git`.
    WorkingCopy,
    /// A `[[workspace]]` of the configuration.
    Workspace,
}

impl RepositoryBasis {
    /// `tidegate.repository.basis`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Listener => "listener",
            Self::Pin => "pin",
            Self::Session => "session",
            Self::User => "user",
            Self::WorkingCopy => "working-copy",
            Self::Workspace => "workspace",
        }
    }
}

/// The repository of a caller or session, and its evidence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepositorySaid {
    /// `vcs.repository.url.full`.
    pub name: Arc<str>,
    /// `tidegate.repository.trust`: `verified` with evidence; `asserted` if it can only make the
    /// tier stricter.
    pub trust: Trust,
    /// `tidegate.repository.basis`.
    pub basis: RepositoryBasis,
}

impl RepositorySaid {
    /// A repository with evidence.
    pub(super) fn verified(name: &Arc<str>, basis: RepositoryBasis) -> Self {
        Self {
            name: name.clone(),
            trust: Trust::Verified,
            basis,
        }
    }

    fn asserted(name: &Arc<str>, basis: RepositoryBasis) -> Self {
        Self {
            name: name.clone(),
            trust: Trust::Asserted,
            basis,
        }
    }
}

impl Grant {
    /// The repository that the session works on: its latest claim, else the one with evidence, else
    /// the asserted one.
    pub fn repository_said(&self) -> Option<RepositorySaid> {
        self.last_said().or_else(|| {
            let name = self.repository.as_ref()?;
            Some(if self.verified {
                RepositorySaid::verified(name, self.basis)
            } else {
                RepositorySaid::asserted(name, self.basis)
            })
        })
    }

    /// The latest repository that the session claims besides its evidence.
    pub(super) fn last_said(&self) -> Option<RepositorySaid> {
        let name = self.line.said.last()?;
        Some(RepositorySaid::asserted(name, self.basis))
    }
}
