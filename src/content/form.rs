//! Parses `application/x-www-form-urlencoded` text, as in the query of a URL (WHATWG URL section
//! 5).

use percent_encoding::percent_decode_str;

/// Maximum number of pairs of a form.
const MAX_PAIRS: usize = 256;

/// Returns the pairs of a form. `None` if servers read the form differently: it has more than
/// [`MAX_PAIRS`] pairs, a semicolon (some servers use it as a separator), an escape without two hex
/// digits, or text that is not UTF-8.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if text.contains(';') {
        return None;
    }
    let parts = text.split('&').filter(|part| !part.is_empty());
    let mut pairs = Vec::new();
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if pairs.len() >= MAX_PAIRS {
            return None;
        }
        pairs.push((decoded(key)?, decoded(value)?));
    }
    Some(pairs)
}

/// Decodes one part; `None` if an escape lacks its two hex digits, or the bytes are not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn pairs_are_decoded() {
        let read = pairs("qu%65ry=%7Ba%7D&x=1+2&&y").unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            read,
            [pair("query", "{a}"), pair("x", "1 2"), pair("y", "")]
        );
    }

    #[test]
    fn what_servers_read_differently_is_nothing() {
        for text in ["a;b", "%", "%zz", "%ff", "a=%4"] {
            assert!(pairs(text).is_none(), "{text}");
        }
        assert!(pairs(&"a&".repeat(1000)).is_none());
    }
}
