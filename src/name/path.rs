//! Paths of plain or inspected requests.

use std::fmt::Write as _;

use super::target::MAX_TEXT;

/// The path and query of a request: the one string that is matched and forwarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path {
    text: Box<str>,
    path_len: usize,
}

impl Path {
    /// Parses `/path[?query]` strictly: no dot segments (plain or encoded), no `//`, no backslash,
    /// no encoded slash, NUL, control or unreserved characters, no fragment, ASCII only; at most
    /// 16 KiB. `*` (the asterisk-form of OPTIONS) is not a path.
    ///
    /// What is left has one spelling: the hex digits of percent-encoded bytes become upper case.
    /// Two spellings are taken as clients write them, for they cannot mean anything else:
    ///
    /// - `/@scope%2fname…` of npm, pnpm and yarn: a first segment of `@`, letters, digits, `-._~`,
    ///   one encoded slash and again such characters, neither part beginning with a dot. It is
    ///   matched as **one** segment and written `%2f`, as npm does.
    /// - `%7e` of apt becomes `~`, the same character (RFC 3986 section 6.2.2.2).
    ///
    /// A segment that goes on after its dots with `;` or a percent-encoded byte (`..;x`, `..%3b`)
    /// is a dot segment: some servers cut it there. Bytes of 0x80 and more must be encoded UTF-8.
    /// The query keeps its spelling: printable ASCII but `"`, `<`, `>` and `#`.
    pub fn parse(text: &[u8]) -> Result<Self, PathError> {
        if text.len() > MAX_TEXT {
            return Err(PathError::TooLong);
        }
        if text.contains(&b'#') {
            return Err(PathError::Fragment);
        }
        let end = text
            .iter()
            .position(|byte| *byte == b'?')
            .unwrap_or(text.len());
        let (path, query) = text.split_at_checked(end).unwrap_or((text, b""));
        let mut canonical = String::with_capacity(text.len());
        write_path(path, &mut canonical)?;
        let path_len = canonical.len();
        write_query(query, &mut canonical)?;
        Ok(Self {
            text: canonical.into(),
            path_len,
        })
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.text.get(..self.path_len).unwrap_or_default()
    }

    /// The query, without its `?`. Read to classify an action; never written to any record.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len + 1..)
    }

    /// Path and query as they go on the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Why a path could not be parsed. `Display` never repeats the hostile text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// `\`, plain or encoded.
    #[error("the path contains a backslash, plain or encoded")]
    Backslash,
    /// A space, control or other character that has to be encoded.
    #[error("the path contains a character that has to be percent-encoded")]
    Character,
    /// `.` or `..`, also with what some servers cut off.
    #[error("the path contains a dot segment")]
    DotSegment,
    /// `%25` before two hex digits.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// `//`.
    #[error("the path contains an empty segment")]
    EmptySegment,
    /// `%00` to `%1F`, `%7F`.
    #[error("the path contains an encoded control character")]
    EncodedControl,
    /// `%2F` anywhere but in the scope of an npm package.
    #[error("the path contains an encoded slash")]
    EncodedSlash,
    /// A letter, digit, `-`, `.` or `_` that need not be encoded.
    #[error("the path encodes a character that needs no encoding")]
    EncodedUnreserved,
    /// `#`.
    #[error("a request target has no fragment")]
    Fragment,
    /// A byte of 0x80 or more.
    #[error("the path is not ASCII")]
    NonAscii,
    /// Something that does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A character that may not stand in a query.
    #[error("the query contains a character that has to be percent-encoded")]
    Query,
    /// More than 16 KiB.
    #[error("the path is longer than 16 KiB")]
    TooLong,
    /// `%` without two hex digits.
    #[error("the path contains a percent sign without two hex digits")]
    Triplet,
    /// Encoded bytes that are no UTF-8 (so also overlong forms).
    #[error("the path encodes bytes that are not UTF-8")]
    Utf8,
}

fn write_path(path: &[u8], canonical: &mut String) -> Result<(), PathError> {
    let segments = path.strip_prefix(b"/").ok_or(PathError::NotAbsolute)?;
    if path.windows(2).any(|pair| pair == b"//") {
        return Err(PathError::EmptySegment);
    }
    for (place, segment) in segments.split(|byte| *byte == b'/').enumerate() {
        canonical.push('/');
        match npm_scope(segment) {
            Some((scope, name)) if place == 0 => {
                write_segment(scope, canonical)?;
                canonical.push_str("%2f");
                write_segment(name, canonical)?;
            }
            _ => write_segment(segment, canonical)?,
        }
    }
    Ok(())
}

/// `@scope%2fname` of the npm protocol, as `@scope` and `name`.
fn npm_scope(segment: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = segment
        .windows(3)
        .position(|part| part.eq_ignore_ascii_case(b"%2f"))?;
    let (scope, rest) = segment.split_at_checked(at)?;
    let name = rest.get(3..)?;
    let bare = scope.strip_prefix(b"@")?;
    let sound = |part: &[u8]| {
        part.first().is_some_and(|byte| *byte != b'.') && part.iter().copied().all(is_unreserved)
    };
    (sound(bare) && sound(name)).then_some((scope, name))
}

fn write_segment(segment: &[u8], canonical: &mut String) -> Result<(), PathError> {
    if is_dot_segment(segment) {
        return Err(PathError::DotSegment);
    }
    let mut rest = segment;
    while let [byte, after @ ..] = rest {
        rest = match *byte {
            b'%' => write_encoded(rest, canonical)?,
            byte if is_path_character(byte) => {
                canonical.push(char::from(byte));
                after
            }
            b'\\' => return Err(PathError::Backslash),
            0x80.. => return Err(PathError::NonAscii),
            _ => return Err(PathError::Character),
        };
    }
    Ok(())
}

/// `.` or `..`, alone or before what a server may cut off or decode.
fn is_dot_segment(segment: &[u8]) -> bool {
    let dots = segment.iter().take_while(|byte| **byte == b'.').count();
    matches!(dots, 1 | 2) && matches!(segment.get(dots), None | Some(b';' | b'%'))
}

/// Writes the percent-encoded character that `text` begins with; returns what follows it.
fn write_encoded<'a>(text: &'a [u8], canonical: &mut String) -> Result<&'a [u8], PathError> {
    let (byte, after) = split_triplet(text)?;
    match byte {
        b'~' => canonical.push('~'),
        b'/' => return Err(PathError::EncodedSlash),
        b'\\' => return Err(PathError::Backslash),
        b'%' if matches!(after, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) => {
            return Err(PathError::DoubleEncoding);
        }
        0x80.. => return write_encoded_utf8(text, canonical),
        _ if byte.is_ascii_control() => return Err(PathError::EncodedControl),
        _ if is_unreserved(byte) => return Err(PathError::EncodedUnreserved),
        _ => write_triplet(byte, canonical),
    }
    Ok(after)
}

/// As [`write_encoded`], for a character of more than one byte.
fn write_encoded_utf8<'a>(text: &'a [u8], canonical: &mut String) -> Result<&'a [u8], PathError> {
    let mut bytes = Vec::with_capacity(4);
    let mut rest = text;
    while bytes.len() < 4 {
        let (byte, after) = split_triplet(rest).map_err(|_| PathError::Utf8)?;
        bytes.push(byte);
        rest = after;
        if str::from_utf8(&bytes).is_ok() {
            for byte in bytes {
                write_triplet(byte, canonical);
            }
            return Ok(rest);
        }
    }
    Err(PathError::Utf8)
}

/// Splits `%XX` off.
fn split_triplet(text: &[u8]) -> Result<(u8, &[u8]), PathError> {
    let [b'%', high, low, after @ ..] = text else {
        return Err(PathError::Triplet);
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    match (digit(*high), digit(*low)) {
        (Some(high), Some(low)) => Ok((high << 4 | low, after)),
        _ => Err(PathError::Triplet),
    }
}

fn write_triplet(byte: u8, canonical: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = write!(canonical, "%{byte:02X}");
}

/// Copies `?query`, where there is one.
fn write_query(query: &[u8], canonical: &mut String) -> Result<(), PathError> {
    for byte in query {
        match byte {
            b'"' | b'<' | b'>' => return Err(PathError::Query),
            b'!'..=b'~' => canonical.push(char::from(*byte)),
            _ => return Err(PathError::Query),
        }
    }
    Ok(())
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 3.3, `pchar` without percent-encoding.
fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, PathError> {
        Path::parse(text.as_bytes()).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn a_path_has_one_canonical_form() {
        for (text, canonical) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..x/.y", "/..x/.y"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a%20b", "/a%20b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%f0%9f%98%80", "/%F0%9F%98%80"),
            ("/a%2bb%3ac", "/a%2Bb%3Ac"),
            ("/100%25", "/100%25"),
            ("/100%25g", "/100%25g"),
            ("/pool/x_1.0%7erc1%2b2.deb", "/pool/x_1.0~rc1%2B2.deb"),
            ("/is-number", "/is-number"),
            ("/@scope%2fname", "/@scope%2fname"),
            ("/@scope%2Fname/-/x.tgz", "/@scope%2fname/-/x.tgz"),
            ("/@scope/name", "/@scope/name"),
            ("/?", "/?"),
            ("/a?b=c&d=%2f%2e&e=[1]|{}", "/a?b=c&d=%2f%2e&e=[1]|{}"),
            ("/a?b?c/../d", "/a?b?c/../d"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn a_path_that_two_servers_may_read_differently_is_refused() {
        use PathError as E;
        for (text, error) in [
            // B5 #79: ways up
            ("/public/../secret", E::DotSegment),
            ("/..", E::DotSegment),
            ("/./", E::DotSegment),
            ("/a/.", E::DotSegment),
            ("//", E::EmptySegment),
            ("//a", E::EmptySegment),
            ("/a//b", E::EmptySegment),
            ("/a/..;/b", E::DotSegment),
            ("/a/..;x=1/b", E::DotSegment),
            ("/a/.;/b", E::DotSegment),
            ("/a/..%3B/b", E::DotSegment),
            ("/a/..%3b", E::DotSegment),
            ("/a/..%23/b", E::DotSegment),
            ("/a/..%3f/b", E::DotSegment),
            ("/a/..%20/b", E::DotSegment),
            ("/%2e%2e/", E::EncodedUnreserved),
            ("/%2E./", E::EncodedUnreserved),
            ("/.%2e/", E::DotSegment),
            ("/a/..%2fb", E::DotSegment),
            ("/a/..%5cb", E::DotSegment),
            ("/a%5c..%5cb", E::Backslash),
            ("/a/\\..\\b", E::Backslash),
            ("\\a", E::NotAbsolute),
            // B5 #80: encoded for no reason
            ("/%67raphql", E::EncodedUnreserved),
            ("/v1%2Ffiles", E::EncodedSlash),
            ("/v1/%66iles", E::EncodedUnreserved),
            ("/v1/%2d", E::EncodedUnreserved),
            ("/v1/%5f", E::EncodedUnreserved),
            // B5 #81: twice
            ("/%252e%252e", E::DoubleEncoding),
            ("/%25%32%66", E::EncodedUnreserved),
            ("/%25ff", E::DoubleEncoding),
            // B5 #82: control and others
            ("/a%00", E::EncodedControl),
            ("/a%0a", E::EncodedControl),
            ("/a%0D%0A", E::EncodedControl),
            ("/a%7f", E::EncodedControl),
            ("/a#b", E::Fragment),
            ("/a b", E::Character),
            ("/a|b", E::Character),
            ("/a<b", E::Character),
            ("/a>b", E::Character),
            ("/a\"b", E::Character),
            ("/a{b", E::Character),
            ("/a}b", E::Character),
            ("/a^b", E::Character),
            ("/a`b", E::Character),
            ("/a[b]", E::Character),
            ("/a\tb", E::Character),
            ("/a\0b", E::Character),
            ("/a\x7fb", E::Character),
            ("/caf\u{e9}", E::NonAscii),
            ("/a%", E::Triplet),
            ("/a%2", E::Triplet),
            ("/a%g0", E::Triplet),
            ("/a%+1", E::Triplet),
            ("/%c0%ae", E::Utf8),
            ("/%c0%af", E::Utf8),
            ("/%ff", E::Utf8),
            ("/%c3", E::Utf8),
            ("/%c3a", E::Utf8),
            // Not a path at all
            ("", E::NotAbsolute),
            ("*", E::NotAbsolute),
            ("a", E::NotAbsolute),
            ("?a", E::NotAbsolute),
            // Queries
            ("/?a b", E::Query),
            ("/?a\"", E::Query),
            ("/?<", E::Query),
            ("/?>", E::Query),
            ("/?a\r\n", E::Query),
            ("/?\u{e9}", E::Query),
            ("/?a#b", E::Fragment),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_encoded_slash_stands_only_in_the_scope_of_an_npm_package() {
        for text in [
            "/a/@scope%2fname",
            "/@scope%2fa%2fb",
            "/@%2fname",
            "/@scope%2f",
            "/scope%2fname",
            "/@scope%2f..",
            "/@..%2fname",
            "/@scope%2f.name",
            "/@scope%2fna%20me",
            "/@sc;ope%2fname",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_is_cut_at_its_first_question_mark() {
        let path = Path::parse(b"/a%2bb?c=d?e").unwrap();
        assert_eq!((path.path(), path.query()), ("/a%2Bb", Some("c=d?e")));
        let path = Path::parse(b"/a").unwrap();
        assert_eq!((path.path(), path.query()), ("/a", None));
        let path = Path::parse(b"/a?").unwrap();
        assert_eq!((path.path(), path.query()), ("/a", Some("")));
    }

    #[test]
    fn a_path_may_have_16_kib_and_no_more() {
        let path = format!("/{}", "a".repeat(MAX_TEXT - 1));
        assert!(parse(&path).is_ok());
        assert_eq!(parse(&format!("{path}a")), Err(PathError::TooLong));
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_its_own_form(text in "/[a-z@./;%2f5ce~7A-F0-9?&=+-]{0,40}") {
            if let Ok(path) = Path::parse(text.as_bytes()) {
                prop_assert_eq!(Path::parse(path.as_str().as_bytes()), Ok(path));
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Path::parse(&bytes);
            if let Ok(path) = Path::parse(&[b"/", bytes.as_slice()].concat()) {
                prop_assert!(path.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
