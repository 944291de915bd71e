//! The texts as which servers may read one path.

use percent_encoding::percent_decode_str;

/// How a server treats the text of a path.
#[derive(Clone, Copy)]
struct Server {
    /// Whether an escaped slash ends a segment like a slash.
    divides: bool,
    /// Whether `;` ends a segment (parameters, RFC 3986 section 3.3).
    cuts: bool,
}

/// The server that makes the fewest distinctions comes first.
const SERVERS: [Server; 4] = [
    Server {
        divides: true,
        cuts: true,
    },
    Server {
        divides: true,
        cuts: false,
    },
    Server {
        divides: false,
        cuts: true,
    },
    Server {
        divides: false,
        cuts: false,
    },
];

/// Like [`Path::readings`](super::Path::readings), for a canonical path without its query.
pub(super) fn of(path: &str) -> Vec<Box<str>> {
    if is_plain(path) {
        return vec![path.into()];
    }
    let mut readings: Vec<Box<str>> = Vec::with_capacity(1);
    let (has_escape, has_parameters) = (path.contains('%'), path.contains(['%', ';']));
    let differs =
        |server: &Server| (has_escape || server.divides) && (has_parameters || server.cuts);
    for server in SERVERS.into_iter().filter(differs) {
        let reading = server.read(path);
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    readings
}

/// Whether every server reads a path as written.
fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase() && !b"%;".contains(&byte);
    let slash = path.len() > 1 && path.ends_with('/');
    !slash && !path.contains("//") && path.bytes().all(plain)
}

impl Server {
    fn read(self, path: &str) -> Box<str> {
        let mut reading = String::with_capacity(path.len());
        for segment in path.split('/') {
            // Lossless: the escapes of a `Path` are UTF-8.
            let decoded = percent_decode_str(segment).decode_utf8_lossy();
            if self.divides {
                decoded
                    .split('/')
                    .for_each(|part| self.push(part, &mut reading));
            } else {
                self.push(&decoded, &mut reading);
            }
        }
        if reading.is_empty() {
            reading.push('/');
        }
        reading.into()
    }

    /// Adds a segment; an empty one is left out, as servers merge slashes.
    fn push(self, segment: &str, reading: &mut String) {
        let segment = match segment.split_once(';') {
            Some((front, _)) if self.cuts => front,
            _ => segment,
        };
        if !segment.is_empty() {
            reading.push('/');
            reading.push_str(&segment.to_lowercase().replace('/', "%2f"));
        }
    }
}
