//! Repositories: one spelling of a clone URL, and patterns over it.

use super::glob::{Case, Glob};

/// Brings a clone URL into the form that patterns and records use: no scheme, no user, no `.git`,
/// the host in lower case, e.g. `github.com/acme/payments`.
///
/// Takes URLs (`https://`, `ssh://`, `git://`), what `git` writes for ssh (`git@host:path`) and
/// what is in this form already. `None` where it names no host with a path.
pub fn canonical_repository(text: &str) -> Option<String> {
    let (scheme, rest) = match text.trim().split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => (String::new(), text.trim()),
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = split_authority(&scheme, rest)?;
    let host = authority
        .rsplit('@')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if is_default_port(&scheme, port) => name.to_owned(),
        _ => host,
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let path = path.strip_suffix(".git").unwrap_or(path);
    let sound = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() || byte >= 0x80)
    };
    let parts = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (!host.is_empty() && parts && sound(&host) && sound(path)).then(|| format!("{host}/{path}"))
}

/// The authority and the path; `host:path` only where no scheme was written and no port is meant.
fn split_authority<'a>(scheme: &str, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match authority.split_once(':') {
        Some((_, front)) if scheme.is_empty() && front.parse::<u16>().is_err() => {
            let (host, path) = rest.split_once(':')?;
            Some((host, path.trim_start_matches('/')))
        }
        _ => Some((authority, path)),
    }
}

fn is_default_port(scheme: &str, port: &str) -> bool {
    matches!(
        (scheme, port),
        ("https", "443") | ("http", "80") | ("ssh", "22") | ("git", "9418")
    )
}

/// A pattern over canonical repositories: `*` within a segment, `**` across. Letters match
/// whatever their case, because forges tell no two repositories apart by it.
#[derive(Clone, Debug)]
pub(super) struct RepositoryPattern(Glob);

impl RepositoryPattern {
    /// Parses a pattern; the error says what is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, (&'static str, String)> {
        if text.contains("://") || text.contains('@') || text.strip_suffix(".git").is_some() {
            let help = canonical_repository(text).map_or_else(
                || "write host/owner/name".into(),
                |better| format!("write `{better}`"),
            );
            return Err(("only host and path are matched", help));
        }
        if text.is_empty() || text.starts_with('/') {
            return Err(("no host in front", "write e.g. `github.com/acme/**`".into()));
        }
        match Glob::parse(text, Case::Ignored) {
            Ok(glob) => Ok(Self(glob)),
            Err(label) => Err((label, "write it without".into())),
        }
    }

    /// Whether a canonical repository matches.
    pub(super) fn matches(&self, repository: &str) -> bool {
        self.0.matches(repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_clone_url_is_one_repository() {
        for text in [
            "github.com/acme/payments",
            "https://github.com/acme/payments.git",
            "https://user:pass@GitHub.com:443/acme/payments/",
            "ssh://git@github.com/acme/payments.git",
            "ssh://git@github.com:22/acme/payments.git",
            "git@github.com:acme/payments.git",
            "github.com:acme/payments",
            "  https://github.com/acme/payments.git?x=y#z ",
        ] {
            let found = canonical_repository(text);
            assert_eq!(found.as_deref(), Some("github.com/acme/payments"), "{text}");
        }
    }

    #[test]
    fn a_port_that_is_not_the_usual_one_stays() {
        let found = canonical_repository("https://git.example.com:8443/a/b.git");
        assert_eq!(found.as_deref(), Some("git.example.com:8443/a/b"));
        let found = canonical_repository("git.example.com:8443/a/b");
        assert_eq!(found.as_deref(), Some("git.example.com:8443/a/b"));
        assert_eq!(
            canonical_repository("git@host:one").as_deref(),
            Some("host/one")
        );
    }

    #[test]
    fn what_names_no_repository_is_none() {
        for text in [
            "",
            "github.com",
            "https://github.com/",
            "/srv/git/x",
            "a/../b",
            "a//b",
            "a/b c",
        ] {
            assert_eq!(canonical_repository(text), None, "{text}");
        }
    }

    fn matches(pattern: &str, repository: &str) -> bool {
        RepositoryPattern::parse(pattern)
            .unwrap()
            .matches(repository)
    }

    #[test]
    fn a_star_stays_within_a_segment() {
        assert!(matches(
            "github.com/acme/payments*",
            "github.com/acme/payments"
        ));
        assert!(matches(
            "github.com/acme/payments*",
            "github.com/acme/payments-api"
        ));
        assert!(!matches(
            "github.com/acme/payments*",
            "github.com/acme/payments/x"
        ));
        assert!(!matches("github.com/acme/payments*", "github.com/acme/pay"));
        assert!(matches("github.com/*/a*c", "github.com/x/abcbc"));
        assert!(!matches("github.com/*/a*c", "github.com/x/y/abc"));
    }

    #[test]
    fn two_stars_go_across() {
        assert!(matches("github.com/**", "github.com/a/b/c"));
        assert!(!matches("github.com/**", "gitlab.com/a"));
        assert!(matches("**/infra", "gitlab.com/group/sub/infra"));
        assert!(matches("gitlab.com/**/x*y/z", "gitlab.com/a/xx/xby/z"));
        assert!(!matches("gitlab.com/**/x*y/z", "gitlab.com/a/xx/by/z"));
    }

    #[test]
    fn letters_match_whatever_their_case() {
        assert!(matches("GitHub.com/Acme/*", "github.com/aCME/x"));
    }

    #[test]
    fn a_pattern_that_is_a_url_is_refused_with_what_to_write() {
        let (_, help) = RepositoryPattern::parse("https://github.com/acme/x.git").unwrap_err();
        assert_eq!(help, "write `github.com/acme/x`");
        assert!(RepositoryPattern::parse("").is_err());
        assert!(RepositoryPattern::parse("/acme").is_err());
    }

    #[test]
    fn a_pattern_with_many_stars_ends_soon() {
        let pattern = format!("{}b", "*a**".repeat(30));
        assert!(!matches(&pattern, &"a/".repeat(500)));
    }
}
