//! Paths of plain or inspected requests.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::readings;
use super::target::MAX_TEXT;

/// The path and query of a request, in the spelling in which they are forwarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path {
    text: Box<str>,
    /// The end of the path: the `?` of the query, or the end of the text.
    query_at: usize,
    /// The path with the hex digits of its escapes in upper case, if different.
    upper: Option<Box<str>>,
}

impl Path {
    /// Parses `/path[?query]` strictly (RFC 3986 section 3.3): at most 16 KiB of ASCII, no fragment.
    /// `*` (the asterisk-form of OPTIONS) is not a path.
    ///
    /// The path is forwarded byte for byte as the client spelled it. A path with one of these parts
    /// is refused, because servers read them in hostile ways: a dot segment (also behind an escaped
    /// slash, and before `;` or an escape, as some servers cut there), a backslash, an escaped
    /// backslash, an escaped control character, an escape of a character that needs none, an escape
    /// of an escape (`%252F`), and escaped bytes that are not UTF-8.
    ///
    /// An escaped slash, an empty segment and `;parameters` are forwarded as they are. Servers
    /// read them differently: [`Path::readings`] has each reading.
    ///
    /// One spelling is changed: `%7e`, which apt writes, becomes `~` (RFC 3986 section 6.2.2.2).
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
        let upper = match upper_escapes(&canonical) {
            Cow::Borrowed(_) => None,
            Cow::Owned(upper) => Some(upper.into()),
        };
        let query_at = canonical.len();
        write_query(query, &mut canonical)?;
        Ok(Self {
            text: canonical.into(),
            query_at,
            upper,
        })
    }

    /// The path without the query, with the hex digits of escapes in upper case: `/a%2Fb` for
    /// `/a%2fb`, which is the same path (RFC 3986 section 6.2.2.1). Conditions that allow are
    /// matched against this text.
    pub fn path(&self) -> &str {
        match &self.upper {
            Some(upper) => upper,
            None => self.text.get(..self.query_at).unwrap_or_default(),
        }
    }

    /// The query, without its `?`. Read to classify an action; never written to any record.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.query_at + 1..)
    }

    /// Path and query as they go on the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the texts as which servers may read the path, each once, without the query.
    ///
    /// A deny or ask matches a path if one of its patterns matches one of the readings. Two paths
    /// that some server treats as equal have a reading in common. A pattern is read by the same
    /// function: parse its text as a path, and compare its readings with those of the request. An
    /// allow does not use readings: it matches only [`Path::path`]. Where an allow matches `path`
    /// but not each reading, servers would disagree about what is allowed, and the request is
    /// `bad_path`.
    ///
    /// Each reading is in lower case, without doubled slashes and without a slash at the end (`/`
    /// itself remains). Escapes are decoded. There are up to four readings, from two choices:
    ///
    /// | choice | `/A//b%2Fc;v=1/` |
    /// |---|---|
    /// | an escaped slash divides segments, `;parameters` are cut | `/a/b/c` |
    /// | it divides, they are kept | `/a/b/c;v=1` |
    /// | it is part of its segment, they are cut | `/a/b%2fc` |
    /// | it is part of its segment, they are kept | `/a/b%2fc;v=1` |
    ///
    /// The first is the one with the fewest distinctions: equivalent spellings share it. Dot
    /// segments and escapes of escapes need no readings, because no [`Path`] has them.
    pub fn readings(&self) -> Vec<Box<str>> {
        readings::of(self.path())
    }
}

/// Why a path could not be parsed. The message never repeats the hostile text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// `\`, plain or encoded.
    #[error("the path contains a backslash, plain or encoded")]
    Backslash,
    /// A space, control or other character that has to be encoded.
    #[error("the path contains a character that has to be percent-encoded")]
    Character,
    /// `.` or `..`, alone or before a part that some servers cut off.
    #[error("the path contains a dot segment")]
    DotSegment,
    /// `%25` before two hex digits.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// `%00` to `%1F`, `%7F`.
    #[error("the path contains an encoded control character")]
    EncodedControl,
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
    /// A character that is not allowed in a query.
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
    for segment in segments.split(|byte| *byte == b'/') {
        canonical.push('/');
        write_segment(segment, canonical)?;
    }
    Ok(())
}

fn write_segment(segment: &[u8], canonical: &mut String) -> Result<(), PathError> {
    if has_dot_segment(segment) {
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

/// Whether a segment is a dot segment, or has one between its escaped slashes.
fn has_dot_segment(segment: &[u8]) -> bool {
    let mut rest = segment;
    loop {
        if is_dot_segment(rest) {
            return true;
        }
        let slash = rest
            .windows(3)
            .position(|it| it.eq_ignore_ascii_case(b"%2f"));
        match slash.and_then(|at| rest.get(at + 3..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
}

/// Whether a segment is `.` or `..`, alone or before a part that a server may cut off or decode.
fn is_dot_segment(segment: &[u8]) -> bool {
    let dots = segment.iter().take_while(|byte| **byte == b'.').count();
    matches!(dots, 1 | 2) && matches!(segment.get(dots), None | Some(b';' | b'%'))
}

/// Writes the percent-encoded character at the start of `text`; returns the text after it.
fn write_encoded<'a>(text: &'a [u8], canonical: &mut String) -> Result<&'a [u8], PathError> {
    let (byte, after) = split_triplet(text)?;
    match byte {
        b'~' => canonical.push('~'),
        b'\\' => return Err(PathError::Backslash),
        b'%' if matches!(after, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) => {
            return Err(PathError::DoubleEncoding);
        }
        0x80.. => return write_encoded_utf8(text, canonical),
        _ if byte.is_ascii_control() => return Err(PathError::EncodedControl),
        _ if is_unreserved(byte) => return Err(PathError::EncodedUnreserved),
        _ => copy_triplets(text, after, canonical),
    }
    Ok(after)
}

/// Like [`write_encoded`], for a character of more than one byte.
fn write_encoded_utf8<'a>(text: &'a [u8], canonical: &mut String) -> Result<&'a [u8], PathError> {
    let mut bytes = Vec::with_capacity(4);
    let mut rest = text;
    while bytes.len() < 4 {
        let (byte, after) = split_triplet(rest).map_err(|_| PathError::Utf8)?;
        bytes.push(byte);
        rest = after;
        if str::from_utf8(&bytes).is_ok() {
            copy_triplets(text, rest, canonical);
            return Ok(rest);
        }
    }
    Err(PathError::Utf8)
}

/// Splits `%XX` from the start of a text.
fn split_triplet(text: &[u8]) -> Result<(u8, &[u8]), PathError> {
    let (triplet, after) = text.split_at_checked(3).ok_or(PathError::Triplet)?;
    let is_triplet =
        matches!(triplet, [b'%', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit));
    let byte = percent_decode(triplet).next().filter(|_| is_triplet);
    byte.map(|byte| (byte, after)).ok_or(PathError::Triplet)
}

/// Copies the escapes of `text` before `after`, in their spelling.
fn copy_triplets(text: &[u8], after: &[u8], canonical: &mut String) {
    let taken = text.len() - after.len();
    let triplets = text.get(..taken).unwrap_or_default();
    canonical.extend(triplets.iter().copied().map(char::from));
}

/// Returns the path with the hex digits of its escapes in upper case.
fn upper_escapes(path: &str) -> Cow<'_, str> {
    let is_lower = |digit: &u8| digit.is_ascii_lowercase();
    let mut escapes = path.as_bytes().split(|byte| *byte == b'%').skip(1);
    if !escapes.any(|escape| escape.iter().take(2).any(is_lower)) {
        return Cow::Borrowed(path);
    }
    let mut parts = path.split('%');
    let mut upper = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        upper.push('%');
        upper.push_str(&digits.to_ascii_uppercase());
        upper.push_str(rest);
    }
    Cow::Owned(upper)
}

/// Copies `?query`, if there is one.
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

/// Whether a byte is unreserved (RFC 3986 section 2.3).
fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

/// Whether a byte is a `pchar` of RFC 3986 section 3.3 without escapes, or one that browsers and
/// `node` do not escape.
fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@[]|^".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, PathError> {
        Path::parse(text.as_bytes()).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn a_path_is_forwarded_as_it_was_spelled() {
        for (text, canonical) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..x/.y", "/..x/.y"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a%20b", "/a%20b"),
            ("/caf%c3%a9", "/caf%c3%a9"),
            ("/%f0%9f%98%80", "/%f0%9f%98%80"),
            ("/a%2bb%3aC", "/a%2bb%3aC"),
            ("/[slug]|^", "/[slug]|^"),
            ("//", "//"),
            ("//a", "//a"),
            ("/a//b", "/a//b"),
            ("/v1%2Ffiles", "/v1%2Ffiles"),
            ("/a%2f%2fb/", "/a%2f%2fb/"),
            ("/100%25", "/100%25"),
            ("/100%25g", "/100%25g"),
            ("/pool/x_1.0%7erc1%2b2.deb", "/pool/x_1.0~rc1%2b2.deb"),
            ("/is-number", "/is-number"),
            ("/@scope%2fname", "/@scope%2fname"),
            ("/@scope%2Fname/-/x.tgz", "/@scope%2Fname/-/x.tgz"),
            ("/@scope/name", "/@scope/name"),
            ("/?", "/?"),
            ("/a?b=c&d=%2f%2e&e=[1]|{}", "/a?b=c&d=%2f%2e&e=[1]|{}"),
            ("/a?b?c/../d", "/a?b?c/../d"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn a_path_with_a_hostile_reading_is_refused() {
        use PathError as E;
        for (text, error) in [
            // B5 #79: ways up
            ("/public/../secret", E::DotSegment),
            ("/..", E::DotSegment),
            ("/./", E::DotSegment),
            ("/a/.", E::DotSegment),
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
            ("/a%2F..%2Fb", E::DotSegment),
            ("/a%2f..", E::DotSegment),
            ("/a%2f.;x/b", E::DotSegment),
            ("/%2f%2F./b", E::DotSegment),
            ("/a/..%5cb", E::DotSegment),
            ("/a%5c..%5cb", E::Backslash),
            ("/a/\\..\\b", E::Backslash),
            ("\\a", E::NotAbsolute),
            // B5 #80: unnecessary escapes
            ("/%67raphql", E::EncodedUnreserved),
            ("/v1/%66iles", E::EncodedUnreserved),
            ("/v1/%2d", E::EncodedUnreserved),
            ("/v1/%5f", E::EncodedUnreserved),
            // B5 #81: twice
            ("/%252e%252e", E::DoubleEncoding),
            ("/%25%32%66", E::EncodedUnreserved),
            ("/%25ff", E::DoubleEncoding),
            ("/a%252fb", E::DoubleEncoding),
            // B5 #82: control and others
            ("/a%00", E::EncodedControl),
            ("/a%0a", E::EncodedControl),
            ("/a%0D%0A", E::EncodedControl),
            ("/a%7f", E::EncodedControl),
            ("/a#b", E::Fragment),
            ("/a b", E::Character),
            ("/a<b", E::Character),
            ("/a>b", E::Character),
            ("/a\"b", E::Character),
            ("/a{b", E::Character),
            ("/a}b", E::Character),
            ("/a`b", E::Character),
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
    fn the_path_that_is_matched_has_upper_case_escapes() {
        for (text, matched) in [
            ("/a%2fb%3a%C3%a9/ca?d=%2f", "/a%2Fb%3A%C3%A9/ca"),
            ("/a%2Fb", "/a%2Fb"),
            ("/100%25/x", "/100%25/x"),
            ("/%e2%82%ac", "/%E2%82%AC"),
        ] {
            let path = Path::parse(text.as_bytes()).unwrap();
            assert_eq!((path.path(), path.as_str()), (matched, text));
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

    #[test]
    fn servers_read_a_path_in_few_ways() {
        for (text, readings) in [
            ("/", &["/"][..]),
            ("//", &["/"]),
            ("/a/b", &["/a/b"]),
            ("/Admin/", &["/admin"]),
            ("//admin//x", &["/admin/x"]),
            ("/a%20B%3ac", &["/a b:c"]),
            ("/caf%C3%89", &["/café"]),
            ("/100%25", &["/100%"]),
            ("/admin;x", &["/admin", "/admin;x"]),
            ("/admin;/x", &["/admin/x", "/admin;/x"]),
            ("/;v/a", &["/a", "/;v/a"]),
            ("/a%2Fb", &["/a/b", "/a%2fb"]),
            ("/a%2f%2Fb", &["/a/b", "/a%2f%2fb"]),
            (
                "/A//b%2Fc;v=1/",
                &["/a/b/c", "/a/b/c;v=1", "/a/b%2fc", "/a/b%2fc;v=1"],
            ),
            ("/a;b%2Fc", &["/a/c", "/a;b/c", "/a", "/a;b%2fc"]),
            ("/?a=//b", &["/"]),
        ] {
            let path = Path::parse(text.as_bytes()).unwrap();
            let found = path.readings();
            assert_eq!(
                found.iter().map(|it| &**it).collect::<Vec<_>>(),
                readings,
                "{text}"
            );
        }
    }

    /// Returns a path, and the same path as clients and attackers respell it.
    fn respelled() -> impl Strategy<Value = (String, String)> {
        let segment = (
            "[a-zé:+]{1,4}",
            any::<bool>(),
            "(;[a-z=.]{0,3})?",
            "/{1,3}|%2[fF]",
        );
        prop::collection::vec(segment, 1..5).prop_map(|segments| {
            let (mut plain, mut spelled) = (String::new(), String::from("/"));
            for (text, upper, parameters, slashes) in segments {
                let escaped = percent_encoding::utf8_percent_encode(&text, ESCAPED).to_string();
                plain.push('/');
                plain.push_str(&escaped);
                let text = if upper { text.to_uppercase() } else { text };
                let escaped = percent_encoding::utf8_percent_encode(&text, ESCAPED).to_string();
                spelled.push_str(&escaped.replace("%3A", ":"));
                spelled.push_str(&parameters);
                spelled.push_str(&slashes);
            }
            (plain, spelled)
        })
    }

    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b':').add(b'+');

    proptest! {
        #[test]
        fn equivalent_spellings_have_a_reading_in_common((plain, spelled) in respelled()) {
            let read = |text: &str| Path::parse(text.as_bytes()).unwrap().readings();
            prop_assert_eq!(read(&plain).first().cloned(), read(&spelled).first().cloned());
            prop_assert!(read(&spelled).len() <= 4);
        }

        #[test]
        fn a_reading_is_plain(text in "/[a-zA-Z@./;%2f5ce3~?&=+-]{0,40}") {
            if let Ok(path) = Path::parse(text.as_bytes()) {
                for reading in path.readings() {
                    prop_assert!(reading.starts_with('/') && !reading.contains("//"));
                    prop_assert!(reading.len() == 1 || !reading.ends_with('/'));
                    prop_assert_eq!(reading.to_lowercase(), reading.to_string());
                    let dots = |part: &str| part == "." || part == "..";
                    prop_assert!(!reading.split('/').any(dots));
                }
            }
        }

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
