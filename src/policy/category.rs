//! The category of a destination.

use std::fmt;

use serde::Serialize;

/// The purpose of a destination: a closed list.
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
    /// Usage reports of agents.
    Telemetry,
    /// Neither a `[[destination]]` nor the catalogue has a category.
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

    /// Returns the category of that word.
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

/// A set of categories.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Categories(u16);

impl Categories {
    pub(super) const ALL: Self = Self(u16::MAX);

    pub(super) fn insert(&mut self, category: Category) {
        self.0 |= 1 << category as u16;
    }

    pub(super) fn contains(self, category: Category) -> bool {
        self.0 & (1 << category as u16) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Category> {
        let all = Category::ALL.into_iter();
        all.filter(move |category| self.contains(*category))
    }
}

impl FromIterator<Category> for Categories {
    fn from_iter<I: IntoIterator<Item = Category>>(categories: I) -> Self {
        let mut set = Self::default();
        categories.into_iter().for_each(|it| set.insert(it));
        set
    }
}
