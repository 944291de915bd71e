//! What a destination is for.

use std::fmt;

use serde::Serialize;

/// What a destination is for: a closed list.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Identity providers, token exchange.
    Auth,
    /// Model Context Protocol servers.
    Mcp,
    /// Model APIs.
    ModelApi,
    /// Package registries and their second hops.
    PackageRegistry,
    /// Plugins and extensions of agents and editors.
    Plugin,
    /// Forges: git and their APIs.
    SourceControl,
    /// What agents report home.
    Telemetry,
    /// No catalogue entry or rule says.
    Unknown,
    /// Updates of agents and editors.
    Update,
    /// Documentation that agents read.
    Webfetch,
}

impl Category {
    /// Every category, in the order of the enum.
    pub const ALL: [Self; 10] = [
        Self::Auth,
        Self::Mcp,
        Self::ModelApi,
        Self::PackageRegistry,
        Self::Plugin,
        Self::SourceControl,
        Self::Telemetry,
        Self::Unknown,
        Self::Update,
        Self::Webfetch,
    ];

    /// The word, as in configuration, records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Mcp => "mcp",
            Self::ModelApi => "model-api",
            Self::PackageRegistry => "package-registry",
            Self::Plugin => "plugin",
            Self::SourceControl => "source-control",
            Self::Telemetry => "telemetry",
            Self::Unknown => "unknown",
            Self::Update => "update",
            Self::Webfetch => "webfetch",
        }
    }

    /// The category of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|category| category.as_str() == word)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
