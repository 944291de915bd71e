//! The address of a page in a tool call.

use crate::name::{Host, Path, Url};

/// Host and path of a page. The scheme is left out: an agent may change `http` to `https`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebAddress {
    /// The host.
    pub host: Host,
    /// The path with its query; `None` if it has no canonical form.
    pub path: Option<Path>,
}

impl WebAddress {
    /// Parses a URL; `None` if it names no host.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().split('#').next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let scheme = scheme.to_ascii_lowercase();
        let origin = Url::parse(format!("{scheme}://{authority}/").as_bytes()).ok()?;
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Some(Self {
            host: origin.target.host,
            path: Path::parse(path.as_bytes()).ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_though_the_path_has_no_canonical_form() {
        let host = |text: &str| Some(WebAddress::parse(text)?.host.to_string());
        for (text, expected) in [
            ("https://Docs.rs/a?b#c", Some("docs.rs")),
            ("HTTP://docs.rs", Some("docs.rs")),
            ("https://docs.rs//a/../b", Some("docs.rs")),
            ("https://docs.rs?x", Some("docs.rs")),
            ("https://user@docs.rs/", None),
            ("docs.rs/a", None),
            ("file:///etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
        let path = WebAddress::parse("https://docs.rs/a/../b").unwrap().path;
        assert_eq!(path, None);
    }
}
