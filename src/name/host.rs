//! Names and addresses of hosts.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use crate::decimal;

use super::TargetError;

/// Maximum length of a name in bytes, without a dot at its end (RFC 1035 section 3.1).
const MAX_NAME: usize = 253;

/// Maximum length of a label in bytes.
const MAX_LABEL: usize = 63;

/// A DNS name in canonical form: A-labels, lower case, no dot at the end, at most 253 bytes, each
/// label 1 to 63 of letters, digits, `-` and `_`, and never a text that `inet_aton` would read as
/// an address.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Parses a name from the network: ASCII only; one dot at the end is removed.
    pub fn parse(text: &[u8]) -> Result<Self, TargetError> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        if text.len() > MAX_NAME {
            return Err(TargetError::TooLong);
        }
        let name = lower_case(text)?;
        for label in name.split('.') {
            check_label(label)?;
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(TargetError::NumericName);
        }
        if name.split('.').any(|label| label.starts_with("xn--")) {
            check_a_labels(&name)?;
        }
        Ok(Self(Arc::from(&*name)))
    }

    /// Parses a name from a policy: U-labels become A-labels (UTS 46, strict).
    pub fn from_unicode(text: &str) -> Result<Self, TargetError> {
        if text.is_ascii() {
            return Self::parse(text.as_bytes());
        }
        Self::parse(to_ascii(text)?.as_bytes())
    }

    /// Returns the canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name itself, then each shorter suffix: `a.b.c`, `b.c`, `c`.
    pub fn suffixes(&self) -> impl Iterator<Item = &str> {
        // Labels are short: a loop over bytes is faster than a new search for each.
        std::iter::successors(Some(self.as_str()), |name| {
            let dot = name.bytes().position(|byte| byte == b'.')?;
            name.get(dot + 1..)
        })
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name or an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    /// An address literal, kept as written (an embedded IPv4 address is unwrapped when judged).
    Address(IpAddr),
    /// A DNS name.
    Name(HostName),
}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Address(address) => hash_address(*address, state),
            Self::Name(name) => name.hash(state),
        }
    }
}

/// Hashes an address as one number: the derived hash takes several times as long.
pub(crate) fn hash_address<H: Hasher>(address: IpAddr, state: &mut H) {
    match address {
        IpAddr::V4(address) => state.write_u32(address.to_bits()),
        IpAddr::V6(address) => state.write_u128(address.to_bits()),
    }
}

impl Host {
    /// Parses `name`, `1.2.3.4` or `[v6]` of an authority.
    pub fn parse(text: &[u8]) -> Result<Self, TargetError> {
        if let Some(inner) = text.strip_prefix(b"[") {
            let inner = inner.strip_suffix(b"]").ok_or(TargetError::Brackets)?;
            return parse_v6(inner).map(Self::Address);
        }
        match parse_text::<Ipv4Addr>(text) {
            Some(address) => Ok(Self::Address(address.into())),
            None => HostName::parse(text).map(Self::Name),
        }
    }
}

impl Host {
    /// Returns the loopback address of a host; `localhost` is 127.0.0.1.
    pub fn loopback(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address).filter(IpAddr::is_loopback),
            Self::Name(name) => {
                (name.as_str() == "localhost").then_some(Ipv4Addr::LOCALHOST.into())
            }
        }
    }

    /// Returns the text of [`Host`]'s `Display`; that of a name is shared, not copied.
    pub fn text(&self) -> Arc<str> {
        match self {
            Self::Address(IpAddr::V4(address)) => {
                let (text, used) = decimal::ipv4(*address);
                let text = text.get(..used).unwrap_or_default();
                str::from_utf8(text).unwrap_or_default().into()
            }
            Self::Address(IpAddr::V6(address)) => address.to_string().into(),
            Self::Name(HostName(name)) => name.clone(),
        }
    }
}

/// The name, the IPv4 address, or the IPv6 address without brackets (RFC 5952).
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

fn parse_v6(text: &[u8]) -> Result<IpAddr, TargetError> {
    if text.contains(&b'%') {
        return Err(TargetError::Zone);
    }
    parse_text::<Ipv6Addr>(text)
        .map(IpAddr::V6)
        .ok_or(TargetError::Brackets)
}

fn parse_text<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Converts a name to lower case, if each of its bytes is allowed in a name.
fn lower_case(text: &[u8]) -> Result<Cow<'_, str>, TargetError> {
    if let Some(mistake) = text.iter().find_map(|byte| mistake(*byte)) {
        return Err(mistake);
    }
    let text = str::from_utf8(text).map_err(|_| TargetError::NonAscii)?;
    match text {
        "" => Err(TargetError::Empty),
        _ if text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Ok(Cow::Owned(text.to_ascii_lowercase()))
        }
        _ => Ok(Cow::Borrowed(text)),
    }
}

/// Returns the fault of a byte in a name.
fn mistake(byte: u8) -> Option<TargetError> {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => None,
        b'%' => Some(TargetError::Percent),
        b'@' => Some(TargetError::Userinfo),
        b'[' | b']' => Some(TargetError::Brackets),
        0x80.. => Some(TargetError::NonAscii),
        _ => Some(TargetError::Character),
    }
}

fn check_label(label: &str) -> Result<(), TargetError> {
    let sound =
        matches!(label.len(), 1..=MAX_LABEL) && !label.starts_with('-') && !label.ends_with('-');
    if sound {
        Ok(())
    } else {
        Err(TargetError::Label)
    }
}

/// Whether resolvers would read a name with this last label as an IPv4 address (as in the URL
/// standard, but `0x` before any text counts: no top-level domain begins so).
fn is_number(label: &str) -> bool {
    label.starts_with("0x") || label.bytes().all(|byte| byte.is_ascii_digit())
}

/// Checks that the A-labels of a name decode, and encode to themselves again.
fn check_a_labels(name: &str) -> Result<(), TargetError> {
    let uts46 = Uts46::new();
    let (unicode, valid) =
        uts46.to_unicode(name.as_bytes(), AsciiDenyList::URL, Hyphens::CheckFirstLast);
    valid.map_err(|_| TargetError::Idna)?;
    if to_ascii(&unicode)? == name {
        Ok(())
    } else {
        Err(TargetError::Idna)
    }
}

fn to_ascii(name: &str) -> Result<Cow<'_, str>, TargetError> {
    Uts46::new()
        .to_ascii(
            name.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::CheckFirstLast,
            // `parse` checks the length, without a dot at the end.
            DnsLength::Ignore,
        )
        .map_err(|_| TargetError::Idna)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_policy_may_write_names_as_people_do() {
        for (text, name) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example.", "xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("\u{ff41}llowed\u{ff0e}com", "allowed.com"),
            ("allowed\u{3002}com", "allowed.com"),
            ("\u{430}llowed.com", "xn--llowed-2nf.com"),
            ("_x.bücher.example", "_x.xn--bcher-kva.example"),
            ("r3---sn-a5.example", "r3---sn-a5.example"),
        ] {
            let parsed = HostName::from_unicode(text).map(|name| name.as_str().to_owned());
            assert_eq!(parsed.as_deref(), Ok(name), "{text}");
        }
    }

    #[test]
    fn a_name_in_other_alphabets_is_held_to_the_same_rules() {
        use TargetError as E;
        for (text, error) in [
            ("１２７.１", E::NumericName),
            ("bücher..example", E::Label),
            ("bücher example", E::Idna),
            ("a\u{200d}b.example", E::Idna),
            ("ü%2e.example", E::Idna),
            ("-ü.example", E::Idna),
        ] {
            assert_eq!(HostName::from_unicode(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_a_label_that_says_nothing_or_something_else_is_refused() {
        for text in [
            "xn--a.example",         // decodes to a control character
            "xn--abc.example",       // does not decode to a letter of any alphabet that is allowed
            "xn--allowed.com",       // as above
            "xn--999999999.example", // overflows
            "xn--bcher-kvb.example.xn--zca-.com",
            "xn--fa-hia-.example",    // ends with a hyphen
            "xn--BCHER-kva2.example", // decodes to something that encodes otherwise or not at all
        ] {
            let parsed = HostName::parse(text.as_bytes());
            assert!(
                matches!(parsed, Err(TargetError::Idna | TargetError::Label)),
                "{parsed:?}"
            );
        }
        assert!(HostName::parse(b"xn--bcher-kva.example").is_ok());
    }

    #[test]
    fn suffixes_go_from_the_whole_name_to_its_last_label() {
        let name = HostName::parse(b"a.b.example").unwrap();
        assert_eq!(
            name.suffixes().collect::<Vec<_>>(),
            ["a.b.example", "b.example", "example"]
        );
    }

    #[test]
    fn an_address_keeps_its_wrapping_until_it_is_judged() {
        let host = Host::parse(b"[::ffff:10.0.0.1]").unwrap();
        assert_eq!(host.to_string(), "::ffff:10.0.0.1");
        assert!(matches!(host, Host::Address(IpAddr::V6(_))));
    }

    proptest! {
        #[test]
        fn a_canonical_name_is_its_own_form(text in "[a-z0-9_\\-]{1,12}(\\.[a-zA-Z0-9_\\-üаß]{1,9}){0,3}") {
            if let Ok(name) = HostName::from_unicode(&text) {
                prop_assert_eq!(HostName::from_unicode(name.as_str()), Ok(name.clone()));
                prop_assert_eq!(HostName::parse(name.as_str().as_bytes()), Ok(name.clone()));
                prop_assert_eq!(Host::parse(name.as_str().as_bytes()), Ok(Host::Name(name)));
            }
        }

        #[test]
        fn any_text_a_person_writes_becomes_a_plain_name_or_an_error(text in "\\PC{0,40}") {
            if let Ok(name) = HostName::from_unicode(&text) {
                let plain =
                    |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
                prop_assert!(name.as_str().bytes().all(plain));
                prop_assert_eq!(HostName::from_unicode(name.as_str()), Ok(name));
            }
        }

        #[test]
        fn a_punycode_label_survives_or_is_refused(label in "xn--[a-zA-Z0-9\\-]{1,14}") {
            let text = format!("{label}.example");
            if let Ok(name) = HostName::parse(text.as_bytes()) {
                prop_assert_eq!(HostName::from_unicode(name.as_str()), Ok(name));
            }
        }
    }
}
