//! `application/x-www-form-urlencoded`, as the query of a URL has it (WHATWG URL section 5).

/// The most pairs that are looked at.
const MOST: usize = 256;

/// The pairs of a form; `None` where servers would not read it alike: more than a few pairs, a
/// semicolon (some separate by it), escapes that are none, text that is not UTF-8.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if text.contains(';') {
        return None;
    }
    let parts = text.split('&').filter(|part| !part.is_empty());
    let mut pairs = Vec::new();
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if pairs.len() >= MOST {
            return None;
        }
        pairs.push((decoded(key)?, decoded(value)?));
    }
    Some(pairs)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
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
