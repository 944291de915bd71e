//! Registrable domains, public suffixes and domains that many customers share.

use super::HostName;

/// Domains that many customers share and that the public suffix list lacks, one a line.
const SHARED: &str = include_str!("../../config/shared-domains.txt");

/// Hosts that act for any client, one a line.
const RELAYS: &str = include_str!("../../config/relays.txt");

/// Whether names below `name` belong to unrelated customers of its owner, by the list of this
/// program (`config/shared-domains.txt`). Ignores the public suffix list.
pub fn is_shared_domain(name: &HostName) -> bool {
    shared_domains().any(|line| match line.strip_prefix("*.") {
        Some(domain) => name.suffixes().any(|suffix| suffix == domain),
        None => line == name.as_str(),
    })
}

/// Whether many customers share `name` or a domain above it, by either list: then `name` may belong
/// to any of them.
pub fn is_of_shared_domain(name: &HostName) -> bool {
    let suffix = psl::suffix(name.as_str().as_bytes());
    if suffix.is_some_and(|it| it.typ() == Some(psl::Type::Private)) {
        return true;
    }
    let mut around = name
        .suffixes()
        .filter_map(|it| HostName::from_unicode(it).ok());
    around.any(|it| is_shared_domain(&it))
}

/// Whether a host fetches, forwards, stores or answers for any client, by the list of this program
/// (`config/relays.txt`): a rule for it allows more than the host itself.
pub fn is_relay(name: &HostName) -> bool {
    entries(RELAYS).any(|line| match line.strip_prefix("*.") {
        Some(domain) => name.suffixes().any(|suffix| suffix == domain),
        None => line == name.as_str(),
    })
}

/// Returns the first relay ([`is_relay`]) that a host pattern (`name`, or `*.name` for the names below it)
/// reaches, as the list writes it.
pub fn relay_within(pattern: &str) -> Option<&'static str> {
    let below = pattern.strip_prefix("*.");
    let name = HostName::from_unicode(below.unwrap_or(pattern)).ok()?;
    let is_within = |line: &&str| {
        let relay = line.trim_start_matches("*.");
        let is_below = || {
            let around = relay.strip_suffix(name.as_str());
            around.is_some_and(|around| around.ends_with('.'))
        };
        let around = line.starts_with("*.") && name.suffixes().any(|suffix| suffix == relay);
        around || below.is_none() && relay == name.as_str() || below.is_some() && is_below()
    };
    entries(RELAYS).find(is_within)
}

/// Returns the lines of the list.
fn shared_domains() -> impl Iterator<Item = &'static str> {
    entries(SHARED)
}

fn entries(list: &'static str) -> impl Iterator<Item = &'static str> {
    let lines = list.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether any person can register a name directly below `name`: it is in the public suffix list
/// (either section), or a top-level domain that the list lacks.
pub fn is_public_suffix(name: &HostName) -> bool {
    psl::suffix_str(name.as_str()) == Some(name.as_str())
}

/// Returns the registered domain: one label below the public suffix, by the whole list. A
/// customer's name below a shared suffix (`acme.github.io`) counts as the customer's own. `None`
/// for a public suffix itself.
pub fn registrable_domain(name: &HostName) -> Option<&str> {
    psl::domain_str(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_reaches_the_relays_that_it_names_or_that_lie_below_it() {
        for (pattern, relay) in [
            ("bit.ly", "bit.ly"),
            ("*.google.com", "translate.google.com"),
            ("*.pastebin.com", "*.pastebin.com"),
            ("raw.pastebin.com", "*.pastebin.com"),
            ("a.translate.goog", "*.translate.goog"),
        ] {
            assert_eq!(relay_within(pattern), Some(relay), "{pattern}");
        }
        for pattern in [
            "*.bit.ly",
            "a.bit.ly",
            "notbit.ly",
            "example.com",
            "*.example.com",
            "10.0.0.0/8",
        ] {
            assert_eq!(relay_within(pattern), None, "{pattern}");
        }
    }

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
    fn domains_of_many_customers_are_shared() {
        for text in [
            "amazonaws.com",
            "eu-west-1.amazonaws.com",
            "execute-api.eu-west-1.amazonaws.com",
            "windows.net",
            "core.windows.net",
            "azure.com",
            "oss-cn-hangzhou.aliyuncs.com",
            "compat.objectstorage.eu-frankfurt-1.oraclecloud.com",
            "digitaloceanspaces.com",
            "sharepoint.com",
        ] {
            assert!(is_shared_domain(&name(text)), "{text}");
        }
        for text in [
            "example.com",
            "acme.sharepoint.com",
            "com",
            "notamazonaws.com",
        ] {
            assert!(!is_shared_domain(&name(text)), "{text}");
        }
    }

    #[test]
    fn relays_and_names_of_customers_are_told() {
        for text in ["pastebin.com", "a.webhook.site", "dns.google"] {
            assert!(is_relay(&name(text)), "{text}");
        }
        for text in ["example.com", "a.dns.google", "notpastebin.com"] {
            assert!(!is_relay(&name(text)), "{text}");
        }
        for text in [
            "acme.github.io",
            "x.eu-west-1.amazonaws.com",
            "acme.sharepoint.com",
        ] {
            assert!(is_of_shared_domain(&name(text)), "{text}");
        }
        assert!(!is_of_shared_domain(&name("docs.example.com")));
    }

    #[test]
    fn the_list_of_relays_is_sound() {
        let mut seen = std::collections::BTreeSet::new();
        for line in entries(RELAYS) {
            let domain = line.strip_prefix("*.").unwrap_or(line);
            assert_eq!(name(domain).as_str(), domain, "{line}");
            assert!(seen.insert(domain), "{line} stands twice");
        }
    }

    #[test]
    fn the_list_of_shared_domains_is_sound() {
        let mut seen = std::collections::BTreeSet::new();
        for line in shared_domains() {
            let domain = line.strip_prefix("*.").unwrap_or(line);
            assert_eq!(name(domain).as_str(), domain, "{line}");
            assert!(seen.insert(domain), "{line} stands twice");
            let within = |other: &&str| {
                let wide = other.strip_prefix("*.").filter(|wide| *wide != domain);
                wide.is_some_and(|wide| domain.ends_with(&format!(".{wide}")))
            };
            assert_eq!(
                shared_domains().find(within),
                None,
                "{line} is within a wider line"
            );
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
