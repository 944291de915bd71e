//! Special-use names (RFC 6761, RFC 6762, RFC 8375, RFC 9476 and cloud metadata).

use super::HostName;

/// A name that does not mean a host on the internet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpecialName {
    /// Instance metadata of a cloud: never reachable.
    Metadata,
    /// `localhost`, single labels, `.local`, `.internal`, `.home.arpa` …: only if a rule names
    /// private addresses for it.
    Private,
    /// `.onion`, `.invalid`, `.alt`, the reverse trees of `.arpa`: never a host.
    Never,
}

/// Returns the special use of `name`, if any. `example`, `example.com` and similar names have none:
/// they resolve like any other name.
pub fn special(name: &HostName) -> Option<SpecialName> {
    let text = name.as_str();
    if is_metadata(text) {
        return Some(SpecialName::Metadata);
    }
    if PRIVATE.iter().any(|suffix| is_at_or_below(text, suffix)) {
        return Some(SpecialName::Private);
    }
    if NEVER.iter().any(|suffix| is_at_or_below(text, suffix)) {
        return Some(SpecialName::Never);
    }
    (!text.contains('.')).then_some(SpecialName::Private)
}

/// Returns the names that are special together with all names below them.
pub fn special_suffixes() -> impl Iterator<Item = &'static str> {
    METADATA.into_iter().chain(PRIVATE).chain(NEVER)
}

/// Names of the instance metadata services of clouds.
const METADATA: [&str; 11] = [
    "api.metadata.cloud.ibm.com",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.internal",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
];

/// Suffixes (themselves included) of names that exist on one network only.
const PRIVATE: [&str; 12] = [
    "corp",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "private",
    "svc",
    "test",
];

/// Suffixes (themselves included) below which there are no hosts.
const NEVER: [&str; 4] = ["alt", "arpa", "invalid", "onion"];

/// Whether a name is a listed one, is below a listed one, or is `instance-data` in any cloud zone.
fn is_metadata(name: &str) -> bool {
    let instance_data = name.starts_with("instance-data.") && name.ends_with(".internal");
    instance_data
        || METADATA.iter().any(|metadata| {
            is_at_or_below(name, metadata)
                && (name.len() == metadata.len() || metadata.contains('.'))
        })
}

/// Whether a name is `suffix` or stands below it. Most names differ from most suffixes in the last
/// byte, which is compared first.
fn is_at_or_below(name: &str, suffix: &str) -> bool {
    let (name, suffix) = (name.as_bytes(), suffix.as_bytes());
    if name.last() != suffix.last() {
        return false;
    }
    let above = name.strip_suffix(suffix);
    above.is_some_and(|above| matches!(above.last(), None | Some(b'.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_special_by_whole_labels() {
        use SpecialName::{Metadata, Never, Private};
        for (name, expected) in [
            ("metadata.google.internal", Some(Metadata)),
            ("METADATA.google.internal.", Some(Metadata)),
            ("x.metadata.google.internal", Some(Metadata)),
            ("metadata", Some(Metadata)),
            ("metadata.goog", Some(Metadata)),
            ("instance-data", Some(Metadata)),
            ("instance-data.ec2.internal", Some(Metadata)),
            ("instance-data.eu-west-1.compute.internal", Some(Metadata)),
            ("metadata.azure.internal", Some(Metadata)),
            ("metadata.tencentyun.com", Some(Metadata)),
            ("localhost", Some(Private)),
            ("foo.localhost", Some(Private)),
            ("intranet", Some(Private)),
            ("printer", Some(Private)),
            ("printer.local", Some(Private)),
            ("db.corp", Some(Private)),
            ("x.internal", Some(Private)),
            ("host.docker.internal", Some(Private)),
            ("router.home.arpa", Some(Private)),
            ("nas.lan", Some(Private)),
            ("a.home", Some(Private)),
            ("a.private", Some(Private)),
            ("a.test", Some(Private)),
            ("kubernetes.default.svc", Some(Private)),
            ("kubernetes.default.svc.cluster.local", Some(Private)),
            ("a.invalid", Some(Never)),
            ("a.onion", Some(Never)),
            ("onion", Some(Never)),
            ("a.alt", Some(Never)),
            ("1.0.0.127.in-addr.arpa", Some(Never)),
            ("8.b.d.0.1.0.0.2.ip6.arpa", Some(Never)),
            ("example", Some(Private)),
            ("example.com", None),
            ("host.example", None),
            ("notmetadata.goog", None),
            ("metadata.example.com", None),
            ("instance-data.example.com", None),
            ("local.example.com", None),
            ("internal.com", None),
            ("a.notlocalhost.com", None),
        ] {
            let parsed = HostName::parse(name.as_bytes()).unwrap();
            assert_eq!(special(&parsed), expected, "{name}");
        }
    }
}
