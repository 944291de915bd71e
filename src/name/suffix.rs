//! Registrable domains and public suffixes.

use super::HostName;

/// Whether anybody can get a name right below `name`: it is in the public suffix list (either
/// section), or a top-level domain that the list does not know.
pub fn is_public_suffix(name: &HostName) -> bool {
    psl::suffix_str(name.as_str()) == Some(name.as_str())
}

/// The domain that somebody registered: one label below the public suffix, by the whole list. A
/// customer's name below a shared suffix (`acme.github.io`) so counts as the customer's own.
/// `None` for a public suffix itself.
pub fn registrable_domain(name: &HostName) -> Option<&str> {
    psl::domain_str(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::from_unicode(text).unwrap()
    }

    #[test]
    fn suffixes_of_both_sections_and_unknown_top_level_domains_are_public() {
        for text in [
            "com",
            "co.uk",
            "github.io",
            "s3.amazonaws.com",
            "中国",
            "公司.cn",
            "unlisted",
        ] {
            assert!(is_public_suffix(&name(text)), "{text}");
        }
        for text in [
            "example.com",
            "github.com",
            "acme.github.io",
            "host.unlisted",
        ] {
            assert!(!is_public_suffix(&name(text)), "{text}");
        }
    }

    #[test]
    fn a_registrable_domain_is_one_label_below_the_suffix() {
        for (text, domain) in [
            ("a.b.example.com", Some("example.com")),
            ("example.co.uk", Some("example.co.uk")),
            ("x.acme.github.io", Some("acme.github.io")),
            ("a.host.unlisted", Some("host.unlisted")),
            ("co.uk", None),
            ("com", None),
        ] {
            assert_eq!(registrable_domain(&name(text)), domain, "{text}");
        }
    }
}
