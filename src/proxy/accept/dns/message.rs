//! The parts of DNS messages (RFC 1035) that are needed to answer one question.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::name::HostName;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const INTERNET: u16 = 1;
/// Flags: an authoritative response; recursion as requested, and available.
const RESPONSE: u8 = 0x84;
const RECURSION_ASKED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
/// The `QR` and `OPCODE` bits, which are zero in a standard query.
const QUERY: u8 = 0xf8;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;
/// The TTL of an answer in seconds: short, because a reload may change the answer.
const LIFETIME: u32 = 5;
const MAX_NAME_BYTES: usize = 255;

/// The type of a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Other,
}

/// A question, with its bytes, which the answer repeats.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Question {
    id: [u8; 2],
    recursion: u8,
    asked: Vec<u8>,
    /// `None` for a name that no host can have.
    pub(super) name: Option<HostName>,
    pub(super) kind: Kind,
    pub(super) is_internet: bool,
}

/// An answer to a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// The name exists, but has no record of this type.
    Nothing,
    NoSuchName,
    Failed,
}

impl Question {
    /// Parses a message with exactly one question; bytes after the question are ignored.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let (header, body) = message.split_first_chunk::<HEADER>()?;
        let [id0, id1, flags, _, 0, 1, ..] = *header else {
            return None;
        };
        if flags & QUERY != 0 {
            return None;
        }
        let (text, length) = name(body)?;
        let (kind, class) = match body.get(length..length + 4)? {
            &[a, b, c, d] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            _ => return None,
        };
        Some(Self {
            id: [id0, id1],
            recursion: flags & RECURSION_ASKED,
            asked: body.get(..length + 4)?.to_vec(),
            name: HostName::parse(&text).ok(),
            kind: match kind {
                TYPE_A => Kind::A,
                TYPE_AAAA => Kind::Aaaa,
                _ => Kind::Other,
            },
            is_internet: class == INTERNET,
        })
    }

    /// Encodes the whole answer.
    pub(super) fn answer(&self, answer: &Answer) -> Vec<u8> {
        let (code, data) = match answer {
            Answer::A(address) => (0, Some((TYPE_A, address.octets().to_vec()))),
            Answer::Aaaa(address) => (0, Some((TYPE_AAAA, address.octets().to_vec()))),
            Answer::Nothing => (0, None),
            Answer::NoSuchName => (NAME_ERROR, None),
            Answer::Failed => (SERVER_FAILURE, None),
        };
        let mut out = self.id.to_vec();
        out.extend([RESPONSE | self.recursion, RECURSION_AVAILABLE | code]);
        out.extend([0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
        out.extend(&self.asked);
        if let Some((kind, data)) = data {
            // A pointer to the name in the question, which follows the header.
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend(INTERNET.to_be_bytes());
            out.extend(LIFETIME.to_be_bytes());
            out.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
            out.extend(data);
        }
        out
    }
}

/// The name at the start of `bytes`, with dots, and its length in bytes. A pointer is rejected: a
/// question follows no earlier name.
fn name(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((text, at));
        }
        let label = bytes.get(at..at + length)?;
        at += length;
        if length > 63 || at > MAX_NAME_BYTES {
            return None;
        }
        if !text.is_empty() {
            text.push(b'.');
        }
        // A dot inside a label would be read as two labels.
        text.extend(
            label
                .iter()
                .map(|byte| if *byte == b'.' { 0 } else { *byte }),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(name: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut message = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name {
            message.push(u8::try_from(label.len()).expect("short"));
            message.extend(*label);
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn a_question_is_answered_by_its_own_id_and_words() {
        let message = asked(&[b"API", b"example"], TYPE_A);
        let question = Question::parse(&message).expect("a question");
        assert_eq!(
            question.name.as_ref().expect("a name").as_str(),
            "api.example"
        );
        assert_eq!(question.kind, Kind::A);
        let answer = question.answer(&Answer::A([198, 18, 0, 1].into()));
        assert_eq!(answer[..8], [7, 8, 0x85, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[12..message.len()], message[12..]);
        assert!(answer.ends_with(&[0, 4, 198, 18, 0, 1]));
        assert_eq!(question.answer(&Answer::NoSuchName)[3], 0x83);
    }

    #[test]
    fn a_label_with_a_dot_in_it_is_no_host() {
        let question = Question::parse(&asked(&[b"api.example"], TYPE_A)).expect("a question");
        assert_eq!(question.name, None);
    }

    #[test]
    fn what_is_no_single_question_is_not_answered() {
        let good = asked(&[b"a", b"example"], TYPE_AAAA);
        assert!(Question::parse(&good).is_some());
        for length in 0..good.len() {
            assert_eq!(Question::parse(&good[..length]), None, "{length}");
        }
        for (at, byte) in [(2, 0x80), (2, 0x28), (5, 2), (5, 0), (12, 0xc0)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(Question::parse(&other), None, "{at} {byte}");
        }
    }

    proptest! {
        #[test]
        fn no_message_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(question) = Question::parse(&bytes) {
                let _ = question.answer(&Answer::Nothing);
            }
        }
    }
}
