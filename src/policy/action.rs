//! The action of a request at a destination.

use serde::Serialize;

use crate::name::Path;

use super::Category;

/// The action of a request at a destination, if the gate sees it.
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
    /// Every action, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::Call, Self::Read, Self::Write];

    /// The word, as in configuration, records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Returns the action of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// Returns the action of a request at a host without a known service: by method, and by facts of
    /// its category. The announcement of a git push is a write at any host.
    pub fn of(category: Category, method: &str, path: &Path) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" if announces_push(path) => Self::Write,
            "GET" | "HEAD" | "OPTIONS" => Self::Read,
            "POST" => Self::of_post(category, path),
            _ => Self::Write,
        }
    }

    fn of_post(category: Category, path: &Path) -> Self {
        match category {
            Category::Mcp | Category::ModelApi => Self::Call,
            // npm requests known vulnerabilities with a POST.
            Category::PackageRegistry if path.path().starts_with("/-/npm/v1/security/") => {
                Self::Read
            }
            _ => Self::Write,
        }
    }
}

/// Whether git asks for permission to push. Any request but a plain fetch counts, so that no
/// spelling of `service` that a server might understand is treated as a fetch.
fn announces_push(path: &Path) -> bool {
    path.path().ends_with("/info/refs")
        && path.query().is_some_and(|query| {
            query != "service=git-upload-pack" && (query.contains("service") || query.contains('%'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(category: Category, method: &str, path: &str) -> Action {
        Action::of(category, method, &Path::parse(path.as_bytes()).unwrap())
    }

    #[test]
    fn reading_methods_read_and_all_else_writes() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(of(Category::PackageRegistry, method, "/x"), Action::Read);
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "get", "PROPFIND"] {
            assert_eq!(of(Category::PackageRegistry, method, "/x"), Action::Write);
        }
    }

    #[test]
    fn a_post_to_a_model_or_an_mcp_server_is_a_call() {
        assert_eq!(of(Category::ModelApi, "POST", "/v1/messages"), Action::Call);
        assert_eq!(of(Category::Mcp, "POST", "/mcp"), Action::Call);
        assert_eq!(of(Category::ModelApi, "PUT", "/v1/files/x"), Action::Write);
        assert_eq!(of(Category::Mcp, "GET", "/mcp"), Action::Read);
    }

    #[test]
    fn git_is_told_by_its_service() {
        let git = |method, path| of(Category::SourceControl, method, path);
        assert_eq!(
            git("GET", "/a/b.git/info/refs?service=git-upload-pack"),
            Action::Read
        );
        assert_eq!(
            git("GET", "/a/b.git/info/refs?service=git-receive-pack"),
            Action::Write
        );
        assert_eq!(git("POST", "/a/b.git/git-upload-pack"), Action::Write);
        assert_eq!(git("POST", "/a/b.git/git-receive-pack"), Action::Write);
        assert_eq!(git("GET", "/a/b.git/info/refs"), Action::Read);
    }

    #[test]
    fn a_push_cannot_be_spelled_as_a_fetch() {
        let git = |path| of(Category::SourceControl, "GET", path);
        let both = "/a/info/refs?service=git-upload-pack&service=git-receive-pack";
        assert_eq!(git(both), Action::Write);
        assert_eq!(
            git("/a/info/refs?service=git%2Dreceive%2Dpack"),
            Action::Write
        );
        assert_eq!(
            git("/a/info/refs?s%65rvice=git-receive-pack"),
            Action::Write
        );
    }

    #[test]
    fn an_audit_of_npm_reads() {
        let path = "/-/npm/v1/security/advisories/bulk";
        assert_eq!(of(Category::PackageRegistry, "POST", path), Action::Read);
        assert_eq!(of(Category::Webfetch, "POST", path), Action::Write);
    }

    #[test]
    fn words_and_actions_are_one_to_one() {
        for action in Action::ALL {
            assert_eq!(Action::from_word(action.as_str()), Some(action));
        }
        assert_eq!(Action::from_word("any"), None);
    }
}
