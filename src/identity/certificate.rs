//! The identity in a verified client certificate.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::NameKind;
use crate::name::HostName;

/// A client certificate that a listener verified.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Certificate {
    /// The subject alternative names, compared with `san:` members of groups.
    pub sans: Vec<Arc<str>>,
    /// The name of the holder: `user.id`.
    pub subject: Option<Arc<str>>,
    /// SHA-256 of the certificate, in hex; a revocation may name it.
    pub fingerprint: Arc<str>,
    /// The end of its validity.
    pub expires: Option<Timestamp>,
    /// The presented chain, the leaf first; later generations verify it again.
    pub chain: Vec<Box<[u8]>>,
}

/// Bytes of a caller name, at most.
const MAX_NAME_BYTES: usize = 1024;

impl Certificate {
    /// SHA-256 of a certificate in DER, in hex.
    pub fn fingerprint_of(leaf: &[u8]) -> Arc<str> {
        HEXLOWER.encode(digest(&SHA256, leaf).as_ref()).into()
    }

    /// Reads the caller's name, of the given kinds, the best first. `None` if the certificate has
    /// no such name, or one that two parsers could read in two ways.
    pub fn read(chain: Vec<Box<[u8]>>, kinds: &[NameKind]) -> Option<Self> {
        let read = Self::of(chain.first()?, kinds)?;
        Some(Self { chain, ..read })
    }

    fn of(leaf: &[u8], kinds: &[NameKind]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let mut names = Vec::new();
        if let Some(sans) = parsed.subject_alternative_name().ok()? {
            for san in &sans.value.general_names {
                names.extend(alternative(san)?);
            }
        }
        let uris = names.iter().filter(|(kind, _)| *kind == NameKind::Uri);
        // A SPIFFE identity is the only URI of its certificate (X.509-SVID section 2).
        let spiffe = |(_, name): &&(NameKind, Arc<str>)| name.starts_with("spiffe://");
        if uris.clone().any(|name| spiffe(&name)) && uris.count() > 1 {
            return None;
        }
        let mut commons = parsed.subject().iter_common_name();
        let common = match (commons.next(), commons.next()) {
            (Some(only), None) => only.as_str().ok().and_then(plain),
            _ => None,
        };
        names.extend(common.map(|name| (NameKind::CommonName, name.into())));
        names.retain(|(kind, _)| kinds.contains(kind));
        let best = |kind: &NameKind| names.iter().find(|(other, _)| other == kind);
        let subject = kinds.iter().find_map(best).map(|(_, name)| name.clone())?;
        names.retain(|(kind, _)| *kind != NameKind::CommonName);
        let expires = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok();
        Some(Self {
            sans: names.into_iter().map(|(_, name)| name).collect(),
            subject: Some(subject),
            fingerprint: Self::fingerprint_of(leaf),
            expires,
            chain: Vec::new(),
        })
    }
}

/// A name that may identify a caller. `Some(None)` for a name of another kind or a wildcard, which
/// is ignored; `None` for a malformed name, which invalidates the certificate.
#[expect(
    clippy::option_option,
    reason = "passed over, and malformed, are not the same"
)]
fn alternative(san: &GeneralName<'_>) -> Option<Option<(NameKind, Arc<str>)>> {
    match san {
        GeneralName::URI(uri) => {
            let uri = plain(uri)?;
            Some(uri.contains(':').then(|| (NameKind::Uri, uri.into())))
        }
        GeneralName::DNSName(name) => {
            let name = HostName::parse(plain(name)?.as_bytes()).ok();
            Some(name.map(|name| (NameKind::Dns, name.as_str().into())))
        }
        GeneralName::RFC822Name(mail) => {
            let mail = plain(mail)?;
            let whole = matches!(mail.split_once('@'), Some((user, host))
                if !user.is_empty() && !host.is_empty() && !host.contains('@'));
            Some(whole.then(|| (NameKind::Email, mail.into())))
        }
        GeneralName::Invalid(..) => None,
        _ => Some(None),
    }
}

/// Visible ASCII of a bounded length: no NUL, no look-alike characters.
fn plain(text: &str) -> Option<&str> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    (visible && !text.is_empty() && text.len() <= MAX_NAME_BYTES).then_some(text)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    const ALL: [NameKind; 3] = [NameKind::Uri, NameKind::Dns, NameKind::Email];

    fn read(sans: Vec<SanType>, common: &str, kinds: &[NameKind]) -> Option<Certificate> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        params.distinguished_name.push(DnType::CommonName, common);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Certificate::read(vec![der.into()], kinds)
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn the_best_kind_of_name_says_who_it_is_and_all_are_kept() {
        let mail = SanType::Rfc822Name("ana@acme.example".try_into().unwrap());
        let sans = vec![mail, dns("CI.Acme.Example"), uri("spiffe://acme/ci/web")];
        let read = read(sans, "root", &ALL).unwrap();
        assert_eq!(read.subject.as_deref(), Some("spiffe://acme/ci/web"));
        assert_eq!(read.sans.len(), 3);
        assert!(read.sans.contains(&"ci.acme.example".into()));
        assert_eq!(read.fingerprint.len(), 64);
    }

    #[test]
    fn the_common_name_counts_only_where_it_is_asked_for_and_is_no_alternative() {
        assert_eq!(read(vec![], "ana", &ALL), None);
        let asked = read(vec![], "ana", &[NameKind::CommonName]).unwrap();
        assert_eq!(asked.subject.as_deref(), Some("ana"));
        assert!(asked.sans.is_empty());
    }

    #[test]
    fn names_that_stand_for_many_or_for_no_caller_are_passed_over() {
        let address = SanType::IpAddress("10.0.0.1".parse().unwrap());
        assert_eq!(
            read(vec![dns("*.acme.example"), address.clone()], "x", &ALL),
            None
        );
        let read = read(
            vec![address, dns("*.acme.example"), dns("a.example")],
            "x",
            &ALL,
        );
        assert_eq!(read.unwrap().sans, ["a.example".into()]);
    }

    #[test]
    fn names_that_two_readers_take_in_two_ways_spoil_the_certificate() {
        for name in ["a.example\0.evil.example", "a b.example", "a\n.example"] {
            assert_eq!(
                read(vec![dns("good.example"), dns(name)], "x", &ALL),
                None,
                "{name:?}"
            );
        }
        let two = vec![uri("spiffe://acme/a"), uri("spiffe://acme/b")];
        assert_eq!(read(two, "x", &ALL), None);
        assert_eq!(read(vec![], "a\0b", &[NameKind::CommonName]), None);
    }
}
