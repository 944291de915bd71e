//! Server-sent events (WHATWG HTML section 9.2), as far as MCP uses them.

/// A line of a stream: its text, and its length in bytes with the line end.
struct Line<'a> {
    text: &'a [u8],
    length: usize,
}

/// Returns the first line of `bytes`, if it is complete. Lines end with LF, CR LF or CR; a CR at
/// the very end may be half of CR LF, and is not yet a line end.
fn line(bytes: &[u8]) -> Option<Line<'_>> {
    let at = bytes
        .iter()
        .position(|byte| matches!(byte, b'\n' | b'\r'))?;
    let end = match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), None) => return None,
        (Some(b'\r'), Some(b'\n')) => 2,
        _ => 1,
    };
    Some(Line {
        text: bytes.get(..at)?,
        length: at + end,
    })
}

/// Returns the lines of a text, each with its length; the last line may be incomplete.
fn lines(mut bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let line = line(bytes).unwrap_or(Line {
            text: bytes.strip_suffix(b"\r").unwrap_or(bytes),
            length: bytes.len(),
        });
        bytes = bytes.get(line.length..).unwrap_or_default();
        Some(line)
    })
}

/// Returns the number of bytes at the start of a stream that are whole events: up to the last empty
/// line.
pub fn whole_events(bytes: &[u8]) -> usize {
    let (mut at, mut whole) = (0, 0);
    while let Some(line) = bytes.get(at..).and_then(line) {
        at += line.length;
        if line.text.is_empty() {
            whole = at;
        }
    }
    whole
}

/// Returns the events in `bytes`, each with the empty line that ends it.
pub(super) fn events(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let mut end = 0;
        for line in lines(bytes) {
            end += line.length;
            if line.text.is_empty() {
                break;
            }
        }
        let (event, rest) = bytes.split_at_checked(end).filter(|_| end > 0)?;
        bytes = rest;
        Some(event)
    })
}

/// Returns the data of an event: its data lines, joined by line ends; `None` if there are none.
pub(super) fn data(event: &[u8]) -> Option<Vec<u8>> {
    let mut parts = lines(event).filter_map(|line| value(line.text, b"data"));
    let mut data = parts.next()?.to_vec();
    for part in parts {
        data.push(b'\n');
        data.extend_from_slice(part);
    }
    Some(data)
}

/// Writes an event with other data; its other lines are unchanged.
pub(super) fn with_data(event: &[u8], data: &[u8], into: &mut Vec<u8>) {
    let mut written = false;
    let mut at = 0;
    for line in lines(event) {
        let whole = event.get(at..at + line.length).unwrap_or_default();
        at += line.length;
        if value(line.text, b"data").is_none() {
            into.extend_from_slice(whole);
            continue;
        }
        if !written {
            for part in lines(data) {
                into.extend_from_slice(b"data: ");
                into.extend_from_slice(part.text);
                into.extend_from_slice(whole.get(line.text.len()..).unwrap_or_default());
            }
        }
        written = true;
    }
}

/// Returns the value of a line, if the line has this field.
fn value<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let rest = line.strip_prefix(field)?;
    match rest {
        [] => Some(rest),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}
