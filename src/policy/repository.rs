//! Repositories: the canonical spelling of a clone URL, and patterns over it.

use super::pattern::{Kind, Pattern};

/// Converts a clone URL into the form of patterns and records: no scheme, no user, no `.git`, the
/// host in lower case without a final dot or the default port, no unnecessary percent-encoding,
/// e.g. `github.com/acme/payments`.
///
/// Accepts URLs (`https://`, `ssh://`, `git://`), the ssh form of `git` (`git@host:path`) and the
/// canonical form. `None` if the text has no host with a path.
pub fn canonical_repository(text: &str) -> Option<String> {
    let (scheme, rest) = match text.trim().split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => (String::new(), text.trim()),
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = split_authority(&scheme, rest)?;
    let host = canonical_host(&scheme, authority.rsplit('@').next().unwrap_or_default())?;
    let path = unescaped(path)?;
    let path = path.strip_suffix('/').unwrap_or(&path);
    let path = path.strip_suffix(".git").unwrap_or(path);
    let parts = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let sound = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte >= 0x80);
    (parts && sound).then(|| format!("{host}/{path}"))
}

/// Returns the host in lower case, without the dot of the DNS root, and with a non-default port.
fn canonical_host(scheme: &str, text: &str) -> Option<String> {
    let text = unescaped(text)?.to_ascii_lowercase();
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text.as_str(), ""),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let letters = |letter: char| {
        letter.is_ascii_alphanumeric() || "-._~[]:".contains(letter) || !letter.is_ascii()
    };
    if name.is_empty() || name.starts_with('.') || name.ends_with('.') || !name.chars().all(letters)
    {
        return None;
    }
    if port.is_empty() {
        return Some(name.to_owned());
    }
    let port: u16 = port.parse().ok()?;
    let usual = is_default_port(scheme, port);
    Some(if usual {
        name.to_owned()
    } else {
        format!("{name}:{port}")
    })
}

/// Decodes unnecessary percent-encoding (RFC 3986 section 2.3) and writes the rest in capitals.
/// `None` if a `%` begins no byte.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let sound = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| sound)?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            plain.push(char::from(byte));
        } else {
            plain.push('%');
            plain.push_str(&digits.to_ascii_uppercase());
        }
        plain.push_str(rest);
    }
    Some(plain)
}

/// Returns the authority and the path; `host:path` only without a scheme and without a port.
fn split_authority<'a>(scheme: &str, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match authority.split_once(':') {
        Some((host, front))
            if scheme.is_empty() && !host.starts_with('[') && front.parse::<u16>().is_err() =>
        {
            let (host, path) = rest.split_once(':')?;
            Some((host, path.trim_start_matches('/')))
        }
        _ => Some((authority, path)),
    }
}

fn is_default_port(scheme: &str, port: u16) -> bool {
    matches!(
        (scheme, port),
        ("https", 443) | ("http", 80) | ("ssh", 22) | ("git", 9418)
    )
}

/// Parses a pattern over canonical repositories; the error has a label and a help.
pub(super) fn repository_pattern(text: &str) -> Result<Pattern, (String, String)> {
    if text.contains("://") || text.contains('@') || text.strip_suffix(".git").is_some() {
        let help = canonical_repository(text).map_or_else(
            || "write host/owner/name".into(),
            |better| format!("write `{better}`"),
        );
        return Err(("only host and path are matched".into(), help));
    }
    if text.is_empty() || text.starts_with('/') {
        let help = "write e.g. `github.com/acme/**`".into();
        return Err(("no host in front".into(), help));
    }
    Pattern::parse(text, Kind::Repository)
        .map_err(|error| (error.to_string(), "write e.g. `github.com/acme/**`".into()))
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
            "https://github.com./acme/payments",
            "https://GitHub.com.:443/acme/payments",
            "https://github.com:/acme/payments",
            "https://github.com:0443/acme/payments",
            "git@github.com.:acme/payments.git",
            "https://github.com/acme/pay%6Dents.git",
            "https://github.com/acme/payments%2egit",
            "https://github%2Ecom/%61cme/payments",
            "https://ana:p%40ss@github.com/acme/payments",
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
            "https://github.com/acme/%2e%2e/payments",
            "https://github.com/acme/pay%6",
            "https://github.com/acme/pay%zzents",
            "https://github.com/acme/pay%+6ents",
            "https://github.com../acme/payments",
            "https://./acme/payments",
            "https://github.com:x/acme/payments",
            "https://github.com:99999/acme/payments",
            "https://evil.example\\@github.com\\/acme/payments",
        ] {
            assert_eq!(canonical_repository(text), None, "{text}");
        }
    }

    #[test]
    fn the_canonical_form_stays_as_it_is() {
        for text in [
            "github.com/acme/payments",
            "git.example.com:8443/a/b",
            "forge.example/a/b%2Fc",
            "[::1]/a/b",
            "[::1]:8443/a/b",
        ] {
            assert_eq!(canonical_repository(text).as_deref(), Some(text));
        }
        let found = canonical_repository("https://[::1]:443/a/b%2fc");
        assert_eq!(found.as_deref(), Some("[::1]/a/b%2Fc"));
    }

    fn matches(pattern: &str, repository: &str) -> bool {
        repository_pattern(pattern).unwrap().matches(repository)
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
    fn letters_match_in_either_case() {
        assert!(matches("GitHub.com/Acme/*", "github.com/aCME/x"));
    }

    #[test]
    fn a_pattern_that_is_a_url_is_refused_with_what_to_write() {
        let (_, help) = repository_pattern("https://github.com/acme/x.git").unwrap_err();
        assert_eq!(help, "write `github.com/acme/x`");
        assert!(repository_pattern("").is_err());
        assert!(repository_pattern("/acme").is_err());
    }

    #[test]
    fn a_pattern_with_many_stars_ends_soon() {
        let pattern = format!("{}b", "*a**".repeat(5));
        assert!(!matches(&pattern, &"a/".repeat(20_000)));
        assert!(repository_pattern(&"*a**".repeat(30)).is_err());
    }
}
