//! Decodes a body that may be compressed or in UTF-16 or UTF-32.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::super::Fields;

/// Maximum number of decompressed bytes that are read.
const MAX_CONTENT_SIZE: u64 = 4 * 1024 * 1024;
/// The byte order mark that some readers skip at the start of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The encoding of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encoding {
    Utf8,
    /// Two bytes a unit, the more significant one first if `big`.
    Utf16 {
        big: bool,
    },
    /// Four bytes a character.
    Utf32 {
        big: bool,
    },
}

/// Returns the decompressed content of a body, and whether more of it is missing. `None` if the
/// body is compressed by a coding other than gzip and deflate.
pub(super) fn content<'a>(fields: &Fields<'_>, body: &'a [u8]) -> Option<(Cow<'a, [u8]>, bool)> {
    match codings(fields).as_slice() {
        [] => Some((Cow::Borrowed(body), false)),
        [one] if one == "gzip" || one == "x-gzip" => Some(read(MultiGzDecoder::new(body))),
        [one] if one == "deflate" => {
            let zlib = read(ZlibDecoder::new(body));
            let is_raw = zlib.0.is_empty();
            Some(if is_raw {
                read(DeflateDecoder::new(body))
            } else {
                zlib
            })
        }
        _ => None,
    }
}

/// Whether a body is compressed.
pub(super) fn is_compressed(fields: &Fields<'_>) -> bool {
    !codings(fields).is_empty()
}

/// Returns the codings of a body, except identity codings: the chunks of AWS are framing.
fn codings(fields: &Fields<'_>) -> Vec<String> {
    let listed = fields.content_encoding.unwrap_or_default();
    let listed = listed.split(|byte| *byte == b',');
    let names = listed.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase());
    let plain = ["", "identity", "aws-chunked"];
    names.filter(|name| !plain.contains(&&**name)).collect()
}

/// Reads as much as possible; returns the bytes, and whether more is missing.
fn read<'a>(decoder: impl Read) -> (Cow<'a, [u8]>, bool) {
    let mut content = Vec::new();
    let ended = decoder.take(MAX_CONTENT_SIZE + 1).read_to_end(&mut content);
    let is_cut = ended.is_err() || content.len() as u64 > MAX_CONTENT_SIZE;
    (Cow::Owned(content), is_cut)
}

/// Decodes a content as text; an invalid character becomes U+FFFD.
pub(super) fn text(content: &[u8]) -> Cow<'_, str> {
    let replaced = |code: Option<char>| code.unwrap_or(char::REPLACEMENT_CHARACTER);
    match Encoding::of(content) {
        Encoding::Utf8 => String::from_utf8_lossy(content.strip_prefix(MARK).unwrap_or(content)),
        Encoding::Utf16 { big } => {
            let (units, _) = content.as_chunks::<2>();
            let read = if big {
                u16::from_be_bytes
            } else {
                u16::from_le_bytes
            };
            let text = char::decode_utf16(units.iter().copied().map(read));
            without_mark(text.map(|it| replaced(it.ok())).collect())
        }
        Encoding::Utf32 { big } => {
            let (units, _) = content.as_chunks::<4>();
            let read = if big {
                u32::from_be_bytes
            } else {
                u32::from_le_bytes
            };
            let text = units.iter().map(|it| replaced(char::from_u32(read(*it))));
            without_mark(text.collect())
        }
    }
}

fn without_mark(text: String) -> Cow<'static, str> {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Cow::Owned(rest.to_owned()),
        None => Cow::Owned(text),
    }
}

impl Encoding {
    /// Detects the encoding by the byte order mark, or by the zeros of the first character, which
    /// is ASCII in JSON.
    fn of(content: &[u8]) -> Self {
        match content {
            [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] => Self::Utf32 { big: true },
            [0xff, 0xfe, 0, 0, ..] | [_, 0, 0, 0, ..] => Self::Utf32 { big: false },
            [0xfe, 0xff, ..] | [0, _, ..] => Self::Utf16 { big: true },
            [0xff, 0xfe, ..] | [_, 0, ..] => Self::Utf16 { big: false },
            _ => Self::Utf8,
        }
    }
}

/// Whether a content may begin as JSON does; `None` if more bytes are needed.
///
/// `passed` counts the bytes that need no second look when the same content has grown.
pub(super) fn may_begin(content: &[u8], passed: &mut usize) -> Option<bool> {
    if content.len() < MARK.len() && MARK.starts_with(content) {
        return None;
    }
    let first = content.get(..4).unwrap_or(content);
    let is_wide = first.contains(&0) || first.starts_with(b"\xff") || first.starts_with(b"\xfe");
    if is_wide {
        let text = text(content.get(..8).unwrap_or(content));
        let begins = |first: char| matches!(first, '{' | '[') || first.is_ascii_whitespace();
        return (content.len() >= 8).then(|| text.chars().next().is_some_and(begins));
    }
    if *passed == 0 && content.starts_with(MARK) {
        *passed = MARK.len();
    }
    let rest = content.get(*passed..).unwrap_or_default();
    let text = rest.trim_ascii_start();
    *passed += rest.len() - text.len();
    text.first().map(|first| matches!(first, b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_in_each_encoding() {
        let json = "{\"a\":\"é😀\"}";
        let utf16: Vec<u16> = json.encode_utf16().collect();
        let le16: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let be16: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let le32: Vec<u8> = json
            .chars()
            .flat_map(|it| u32::from(it).to_le_bytes())
            .collect();
        let be32: Vec<u8> = json
            .chars()
            .flat_map(|it| u32::from(it).to_be_bytes())
            .collect();
        let marked = |mark: &[u8], text: &[u8]| [mark, text].concat();
        for content in [
            json.as_bytes().to_vec(),
            marked(MARK, json.as_bytes()),
            marked(b"\xff\xfe", &le16),
            marked(b"\xfe\xff", &be16),
            marked(b"\xff\xfe\0\0", &le32),
            marked(b"\0\0\xfe\xff", &be32),
            le16,
            be16,
            le32,
            be32,
        ] {
            assert_eq!(text(&content), json, "{:?}", content.get(..8));
            assert_eq!(may_begin(&content, &mut 0), Some(true));
        }
        assert_eq!(text(b"\xff\xfe{"), "");
        for (content, begins) in [
            (&b"\0\0\0"[..], None),
            (b"\xff\xfe{\0", None),
            (b"\0\0\0\x18ftypmp4", Some(false)),
            (b"\x00\x00\x01\x00\x01\x00\x10\x10", Some(false)),
        ] {
            assert_eq!(may_begin(content, &mut 0), begins, "{content:?}");
        }
    }
}
