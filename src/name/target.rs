//! The host, port and URL that a caller requests.

use std::fmt;
use std::net::IpAddr;

use crate::decimal;

use super::{Host, Path, PathError};

/// Maximum length of a text that is parsed, in bytes: 16 KiB.
pub(super) const MAX_TEXT: usize = 16 * 1024;

/// A host and a port: canonical, so that equal targets are equal bytes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Target {
    /// The name or address.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

impl Target {
    /// Parses the authority-form of a CONNECT (RFC 9112 section 3.2.3): `host:port`, both required.
    pub fn from_connect(authority: &[u8]) -> Result<Self, TargetError> {
        let (host, port) = split(authority)?;
        let port = port.ok_or(TargetError::MissingPort)?;
        Ok(Self {
            host: Host::parse(host)?,
            port: parse_port(port)?,
        })
    }

    /// Parses `host[:port]` of a `Host` header or a URL's authority.
    pub fn from_authority(authority: &[u8], default_port: u16) -> Result<Self, TargetError> {
        let (host, port) = split(authority)?;
        Ok(Self {
            host: Host::parse(host)?,
            port: port.map_or(Ok(default_port), parse_port)?,
        })
    }

    /// Whether `authority` is the canonical text of the target, which therefore need not be parsed.
    /// `false` for some other spellings, and for each IPv6 address.
    pub fn is_written_as(&self, authority: &[u8], default_port: u16) -> bool {
        let address;
        let host = match &self.host {
            Host::Name(name) => name.as_str().as_bytes(),
            Host::Address(IpAddr::V4(four)) => {
                address = decimal::ipv4(*four);
                address.0.get(..address.1).unwrap_or_default()
            }
            Host::Address(IpAddr::V6(_)) => return false,
        };
        match authority.strip_prefix(host) {
            Some([]) => self.port == default_port,
            Some([b':', port @ ..]) => parse_port(port) == Ok(self.port),
            _ => false,
        }
    }
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) if address.is_ipv6() => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// An absolute-form request target or a URL that a person wrote: `http://…` or `https://…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// The destination; the port defaults by scheme.
    pub target: Target,
    /// The path, canonical; `/` if the URL has none.
    pub path: Path,
}

impl Url {
    /// Parses an absolute-form target (RFC 9112 section 3.2.2); no userinfo, no fragment.
    pub fn parse(text: &[u8]) -> Result<Self, TargetError> {
        Self::parse_after(text, None)
    }

    /// Like [`Url::parse`], faster for a URL with the target of the URL before.
    pub fn parse_after(text: &[u8], before: Option<&Target>) -> Result<Self, TargetError> {
        if text.len() > MAX_TEXT {
            return Err(TargetError::TooLong);
        }
        let (tls, rest) = split_scheme(text)?;
        if rest.contains(&b'#') {
            return Err(TargetError::Fragment);
        }
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, b""));
        let port = if tls { 443 } else { 80 };
        let target = match before.filter(|it| it.is_written_as(authority, port)) {
            Some(before) => before.clone(),
            None => Target::from_authority(authority, port)?,
        };
        Ok(Self {
            tls,
            target,
            path: match path {
                [b'/', ..] => Path::parse(path)?,
                _ => Path::parse(&[b"/", path].concat())?,
            },
        })
    }
}

/// Why a destination could not be parsed. The message never repeats the hostile text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// `[` or `]` around anything but an IPv6 address.
    #[error("brackets may only stand round an IPv6 address")]
    Brackets,
    /// A space, control or punctuation character.
    #[error("the host contains a character that no host may contain")]
    Character,
    /// No host at all.
    #[error("the host is empty")]
    Empty,
    /// `#` in a URL.
    #[error("a request target has no fragment")]
    Fragment,
    /// A label that begins with `xn--` and is not a valid A-label, or a name that has no A-label
    /// form.
    #[error("the name is not a valid internationalised domain name")]
    Idna,
    /// An empty label, one of more than 63 bytes, or one with `-` at its beginning or end.
    #[error("a label of the name is empty, longer than 63 bytes, or begins or ends with a hyphen")]
    Label,
    /// A CONNECT without a port.
    #[error("CONNECT needs host:port")]
    MissingPort,
    /// A byte of 0x80 or more.
    #[error("the host is not ASCII; write its A-labels (xn--…)")]
    NonAscii,
    /// A name that ends in a number (`127.1`, `0x7f000001`): some resolvers parse it as an address.
    #[error("a name that ends in a number is neither a name nor an IPv4 address")]
    NumericName,
    /// The path is not canonical.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `%` in the host.
    #[error("the host is percent-encoded")]
    Percent,
    /// The port is not decimal 1 to 65535 without sign, space or leading zero.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Neither `http://` nor `https://`.
    #[error("the URL does not begin with http:// or https://")]
    Scheme,
    /// A name of more than 253 bytes, a URL of more than 16 KiB.
    #[error("the name is longer than 253 bytes, or the URL longer than 16 KiB")]
    TooLong,
    /// `user@` or `user:password@`.
    #[error("a target must not carry a user or password")]
    Userinfo,
    /// An IPv6 zone (`%eth0`).
    #[error("an address with a zone means something on one host only")]
    Zone,
}

/// Splits `host[:port]`; both parts are still raw.
fn split(authority: &[u8]) -> Result<(&[u8], Option<&[u8]>), TargetError> {
    if authority.contains(&b'@') {
        return Err(TargetError::Userinfo);
    }
    let end = match authority {
        [b'[', ..] => {
            let close = authority.iter().position(|byte| *byte == b']');
            close.ok_or(TargetError::Brackets)? + 1
        }
        _ => authority
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(authority.len()),
    };
    let (host, rest) = authority
        .split_at_checked(end)
        .ok_or(TargetError::Brackets)?;
    match rest {
        [] => Ok((host, None)),
        [b':', port @ ..] => Ok((host, Some(port))),
        _ => Err(TargetError::Brackets),
    }
}

/// Parses a port in its one allowed spelling.
fn parse_port(text: &[u8]) -> Result<u16, TargetError> {
    let digits = matches!(text.len(), 1..=5) && text.iter().all(u8::is_ascii_digit);
    if !digits || text.first() == Some(&b'0') {
        return Err(TargetError::Port);
    }
    let digits = text.iter().map(|digit| u32::from(digit - b'0'));
    let port = digits.fold(0, |port, digit| port * 10 + digit);
    port.try_into().map_err(|_| TargetError::Port)
}

/// Removes `http://` or `https://`; returns whether the scheme was `https`.
fn split_scheme(text: &[u8]) -> Result<(bool, &[u8]), TargetError> {
    for (tls, scheme) in [(false, "http://"), (true, "https://")] {
        if let Some((head, rest)) = text.split_at_checked(scheme.len())
            && head.eq_ignore_ascii_case(scheme.as_bytes())
        {
            return Ok((tls, rest));
        }
    }
    Err(TargetError::Scheme)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connect(text: &str) -> Result<String, TargetError> {
        Target::from_connect(text.as_bytes()).map(|target| target.to_string())
    }

    #[test]
    fn every_spelling_of_a_target_has_one_canonical_form() {
        for (text, canonical) in [
            ("allowed.com:443", "allowed.com:443"),
            ("ALLOWED.com:443", "allowed.com:443"),
            ("allowed.com.:443", "allowed.com:443"),
            ("EVIL.Com.:65535", "evil.com:65535"),
            ("_x.allowed.com:1", "_x.allowed.com:1"),
            ("xn--bcher-kva.example:443", "xn--bcher-kva.example:443"),
            ("XN--BCHER-KVA.example:443", "xn--bcher-kva.example:443"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:443", "[::1]:443"),
            ("[0:0::0:1]:443", "[::1]:443"),
            ("[2001:DB8::A]:443", "[2001:db8::a]:443"),
            ("[::FFFF:a9fe:a9fe]:80", "[::ffff:169.254.169.254]:80"),
            ("localhost:3128", "localhost:3128"),
        ] {
            assert_eq!(connect(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn a_spelling_that_is_not_canonical_is_refused() {
        use TargetError as E;
        for (text, error) in [
            // B1 #1-#3: hostile bytes and percent
            ("evil.com\0.allowed.com:443", E::Character),
            ("evil.com\r\n.allowed.com:443", E::Character),
            ("evil.com\tx:443", E::Character),
            ("evil.com :443", E::Character),
            (" evil.com:443", E::Character),
            ("evil.com\x7f:443", E::Character),
            ("evil.com\u{80}:443", E::NonAscii),
            ("allowed%2ecom:443", E::Percent),
            ("%61llowed.com:443", E::Percent),
            ("evil.com%00.allowed.com:443", E::Percent),
            ("evil.com%0d%0a:443", E::Percent),
            // B1 #4: zones
            ("[fe80::1%eth0]:443", E::Zone),
            ("[::1%25eth0]:443", E::Zone),
            ("::ffff:1.2.3.4%x.allowed.com:443", E::Empty),
            // B1 #5, #10: dots, labels, lengths
            ("allowed.com..:443", E::Label),
            ("..:443", E::Label),
            (".:443", E::Empty),
            ("a..b:443", E::Label),
            (".allowed.com:443", E::Label),
            ("-a.allowed.com:443", E::Label),
            ("a-.allowed.com:443", E::Label),
            ("*.allowed.com:443", E::Character),
            // B1 #7: brackets
            ("[evil.com]:443", E::Brackets),
            ("evil.com]b[:443", E::Brackets),
            ("[[::1]]:443", E::Brackets),
            ("[127.0.0.1]:443", E::Brackets),
            ("[::1:443", E::Brackets),
            ("[::1]x:443", E::Brackets),
            ("[]:443", E::Brackets),
            ("::1:443", E::Empty),
            // B1 #8: userinfo and URL confusion
            ("allowed.com:x@evil.com:443", E::Userinfo),
            ("user@good.com:443", E::Userinfo),
            ("good.com:443@evil.com:443", E::Userinfo),
            ("good.com\\@evil:443", E::Userinfo),
            ("good.com/evil:443", E::Character),
            ("good.com#:443", E::Character),
            ("good.com?x:443", E::Character),
            ("good.com\\evil:443", E::Character),
            ("good.com,evil:443", E::Character),
            ("good.com;evil:443", E::Character),
            // B1 #9: ports
            ("allowed.com:80:extra", E::Port),
            ("allowed.com:", E::Port),
            (":443", E::Empty),
            ("", E::MissingPort),
            ("allowed.com", E::MissingPort),
            ("[::1]", E::MissingPort),
            ("allowed.com:0", E::Port),
            ("allowed.com:65536", E::Port),
            ("allowed.com:65537", E::Port),
            ("allowed.com:4294967739", E::Port),
            ("allowed.com:007", E::Port),
            ("allowed.com:0443", E::Port),
            ("allowed.com:-12", E::Port),
            ("allowed.com:+443", E::Port),
            ("allowed.com: 443", E::Port),
            ("allowed.com:443 ", E::Port),
            ("allowed.com:0x1bb", E::Port),
            ("allowed.com:443\n", E::Port),
            ("allowed.com:https", E::Port),
            // B1 #11: other alphabets
            ("\u{430}llowed.com:443", E::NonAscii),
            ("\u{ff41}llowed\u{ff0e}com:443", E::NonAscii),
            ("allowed\u{3002}com:443", E::NonAscii),
            ("xn--example-.org:443", E::Label),
            // B2 #17: names that `inet_aton` accepts
            ("127.1:443", E::NumericName),
            ("0x7f.0.0.1:443", E::NumericName),
            ("0x7f.1:443", E::NumericName),
            ("0177.0.0.1:443", E::NumericName),
            ("2130706433:443", E::NumericName),
            ("0x7f000001:443", E::NumericName),
            ("0X7F000001:443", E::NumericName),
            ("127.0.0.1.:443", E::NumericName),
            ("127.0.0.1..:443", E::Label),
            ("127.0.0.01:443", E::NumericName),
            ("256.1.1.1:443", E::NumericName),
            ("1.2.3:443", E::NumericName),
            ("1.2.3.4.5:443", E::NumericName),
            ("evil.com.1:443", E::NumericName),
            ("0:443", E::NumericName),
        ] {
            assert_eq!(connect(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn long_names_and_labels_are_refused_one_byte_too_late() {
        let label = "a".repeat(63);
        let name = [label.as_str(), &label, &label, &"a".repeat(61)].join(".");
        assert_eq!(name.len(), 253);
        assert!(connect(&format!("{name}:443")).is_ok());
        assert!(
            connect(&format!("{name}.:443")).is_ok(),
            "the dot at the end does not count"
        );
        assert_eq!(connect(&format!("{name}a:443")), Err(TargetError::TooLong));
        assert_eq!(
            connect(&format!("a{label}.com:443")),
            Err(TargetError::Label)
        );
    }

    #[test]
    fn an_authority_has_the_port_of_its_scheme_where_none_is_written() {
        let target = |text: &str| {
            Target::from_authority(text.as_bytes(), 80)
                .unwrap()
                .to_string()
        };
        assert_eq!(target("Allowed.com"), "allowed.com:80");
        assert_eq!(target("allowed.com:8080"), "allowed.com:8080");
        assert_eq!(target("[::1]"), "[::1]:80");
        assert_eq!(
            Target::from_authority(b"allowed.com:", 80),
            Err(TargetError::Port)
        );
        assert_eq!(Target::from_authority(b"", 80), Err(TargetError::Empty));
    }

    #[test]
    fn a_url_is_a_scheme_a_target_and_a_path() {
        for (text, tls, target, path) in [
            ("http://allowed.com", false, "allowed.com:80", "/"),
            ("HTTP://ALLOWED.com/", false, "allowed.com:80", "/"),
            ("http://allowed.com?a=b", false, "allowed.com:80", "/?a=b"),
            (
                "hTTps://allowed.com:8443/a/b?c",
                true,
                "allowed.com:8443",
                "/a/b?c",
            ),
            ("https://[::1]/x", true, "[::1]:443", "/x"),
        ] {
            let url = Url::parse(text.as_bytes()).unwrap();
            let said = (
                url.tls,
                url.target.to_string(),
                url.path.as_str().to_owned(),
            );
            assert_eq!(said, (tls, target.to_owned(), path.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_url_that_is_not_canonical_is_refused() {
        use TargetError as E;
        for (text, error) in [
            ("", E::Scheme),
            ("allowed.com", E::Scheme),
            ("/path", E::Scheme),
            ("*", E::Scheme),
            ("http:/allowed.com/", E::Scheme),
            ("http:allowed.com", E::Scheme),
            (" http://allowed.com/", E::Scheme),
            ("ftp://allowed.com/", E::Scheme),
            ("file:///etc/passwd", E::Scheme),
            ("urn:x", E::Scheme),
            ("gopher://allowed.com/", E::Scheme),
            ("ws://allowed.com/", E::Scheme),
            ("http://", E::Empty),
            ("http:///path", E::Empty),
            ("http://?x", E::Empty),
            ("http://allowed.com:x@evil.com/", E::Userinfo),
            ("http://allowed.com@evil.com/", E::Userinfo),
            ("http://allowed.com\\@evil.com/", E::Userinfo),
            ("http://allowed.com#@evil.com/", E::Fragment),
            ("http://allowed.com/#x", E::Fragment),
            ("http://allowed.com/?#x", E::Fragment),
            ("http://evil.com\\.allowed.com/", E::Character),
            ("http://allowed.com/a/../b", E::Path(PathError::DotSegment)),
        ] {
            assert_eq!(Url::parse(text.as_bytes()), Err(error), "{text:?}");
        }
        let long = format!("http://allowed.com/{}", "a".repeat(MAX_TEXT));
        assert_eq!(Url::parse(long.as_bytes()), Err(TargetError::TooLong));
    }

    #[test]
    fn an_error_never_repeats_the_hostile_text() {
        for text in [
            "evil\x1b[31m.com:443",
            "marker.com:0x1bb",
            "[marker.com]:1",
            "marker@x:1",
        ] {
            let error = Target::from_connect(text.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(
                !error.contains("marker") && !error.contains("evil"),
                "{error}"
            );
            assert!(!error.chars().any(char::is_control), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_out_parses_to_the_same(
            name in "[a-zA-Z0-9_.\\-]{1,40}(\\.com|\\.Example\\.?)",
            port in 1_u16..,
        ) {
            if let Ok(target) = Target::from_connect(format!("{name}:{port}").as_bytes()) {
                prop_assert_eq!(Target::from_connect(target.to_string().as_bytes()), Ok(target));
            }
        }

        #[test]
        fn every_address_survives_being_written_out(address: IpAddr, port in 1_u16..) {
            let target = Target { host: Host::Address(address), port };
            prop_assert_eq!(Target::from_connect(target.to_string().as_bytes()), Ok(target));
        }

        #[test]
        fn the_text_of_a_target_is_recognised_and_no_other(
            name in "(1?[0-9]\\.){3}[0-9]|[a-zA-Z0-9_\\-]{1,3}(\\.com|\\.Example\\.?)",
            other in "|:|:[0-9]{1,5}|\\.|a|:80:80|@|:080",
            port in prop::sample::select(vec![8, 80, 443, 808, 65535]),
        ) {
            let Ok(target) = Target::from_authority(name.as_bytes(), port) else { return Ok(()) };
            let text = target.to_string();
            prop_assert!(target.is_written_as(text.as_bytes(), 80), "{}", text);
            let host = target.host.to_string();
            prop_assert_eq!(target.is_written_as(host.as_bytes(), 80), port == 80);
            for text in [format!("{name}{other}"), format!("{host}{other}"), format!("{text}{other}")] {
                if target.is_written_as(text.as_bytes(), 80) {
                    prop_assert_eq!(Target::from_authority(text.as_bytes(), 80), Ok(target.clone()));
                }
            }
        }

        #[test]
        fn hostile_bytes_never_panic_and_never_survive(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = Url::parse(&bytes);
            let _ = Url::parse(&[b"http://", bytes.as_slice()].concat());
            let with_port = [bytes.as_slice(), b":443"].concat();
            for target in [Target::from_connect(&bytes), Target::from_connect(&with_port)] {
                let Ok(target) = target else { continue };
                let text = target.host.to_string();
                let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
                prop_assert!(
                    matches!(target.host, Host::Address(_)) || text.bytes().all(plain),
                    "{:?}", text
                );
            }
        }
    }
}
