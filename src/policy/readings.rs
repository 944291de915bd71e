//! The texts as which servers may read one path.

use super::service::decode;

/// The readings of a canonical path (without its query) that some server is known to make: letters
/// in lower case, escapes decoded, empty segments left out; parameters (`;…`) kept or cut; an escaped
/// slash kept or taken for a slash.
pub(super) fn of(path: &str) -> Vec<Box<str>> {
    let mut readings: Vec<Box<str>> = Vec::with_capacity(1);
    for (divides, cuts) in [(true, true), (true, false), (false, true), (false, false)] {
        let reading = read(path, divides, cuts);
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    readings
}

fn read(path: &str, divides: bool, cuts: bool) -> Box<str> {
    let mut reading = String::with_capacity(path.len());
    for segment in path.split('/') {
        let decoded = decode(segment).to_lowercase();
        let parts: Vec<&str> = if divides {
            decoded.split('/').collect()
        } else {
            vec![&decoded]
        };
        for part in parts {
            let part = part.split(';').next().filter(|_| cuts).unwrap_or(part);
            if !part.is_empty() {
                reading.push('/');
                reading.push_str(&part.replace('/', "%2f"));
            }
        }
    }
    if reading.is_empty() {
        reading.push('/');
    }
    reading.into()
}
