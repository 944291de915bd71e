//! The negotiation of a fetch: the request to git-upload-pack (gitprotocol-pack, gitprotocol-v2,
//! gitprotocol-http).
//!
//! A fetch is a POST that reads. So its body is checked against the grammar of the protocol, with
//! bounds on each part of free text: any other body is a write.

use std::io::Read;

use flate2::bufread::GzDecoder;

use crate::policy::{Action, RequestFacts};

use super::{Fields, git, is_identity, unreadable, with_action};

/// Maximum size of a request, in decompressed bytes. A clone with a long history sends about 50
/// bytes a commit.
const MAX_REQUEST_SIZE: u64 = 1024 * 1024;
/// Maximum size of all capabilities and other free text of a request, in bytes.
const MAX_TEXT_SIZE: usize = 8 * 1024;
/// Maximum number of object ids in a request. The client chooses each id, so ids can carry data: 20
/// bytes each. A clone requests one for each branch and tag; a later fetch has some thousands.
const MAX_IDS: usize = 8_192;
/// Maximum length of one ref, ref prefix, filter or capability, in bytes.
const MAX_WORD_SIZE: usize = 1024;

/// Reads the body of a fetch; any other body is a write.
pub(super) fn read(head: &RequestFacts, fields: &Fields<'_>, body: &[u8]) -> RequestFacts {
    let is_fetch = if is_identity(fields) {
        is_request(body)
    } else {
        decompressed(fields, body).is_some_and(|body| is_request(&body))
    };
    if is_fetch {
        with_action(head, Some("fetch"), Action::Read)
    } else {
        unreadable(head)
    }
}

/// Decompresses a gzip body as git makes one (RFC 1952): one member without optional fields, and no
/// bytes after it.
fn decompressed(fields: &Fields<'_>, body: &[u8]) -> Option<Vec<u8>> {
    let coding = fields.content_encoding?.trim_ascii();
    let known = [&b"gzip"[..], b"x-gzip"];
    let flags = body.get(3)?;
    if !known.iter().any(|known| coding.eq_ignore_ascii_case(known)) || *flags != 0 {
        return None;
    }
    let mut rest = body;
    let mut content = Vec::new();
    GzDecoder::new(&mut rest)
        .take(MAX_REQUEST_SIZE + 1)
        .read_to_end(&mut content)
        .ok()?;
    let whole = rest.is_empty() && u64::try_from(content.len()).ok()? <= MAX_REQUEST_SIZE;
    whole.then_some(content)
}

/// The amount of client-chosen content in a request.
#[derive(Default)]
struct Used {
    /// Bytes of free text.
    text: usize,
    /// Object ids.
    ids: usize,
}

/// One packet of the protocol.
enum Packet<'a> {
    /// `0000`.
    Flush,
    /// `0001`: the arguments of a command follow.
    Delimiter,
    /// A line, without its newline.
    Line(&'a [u8]),
}

/// Whether the whole body is a request of the protocol, of any version.
fn is_request(body: &[u8]) -> bool {
    let Some(packets) = packets(body) else {
        return false;
    };
    let mut used = Used::default();
    let mut sound = packets.iter().map(|packet| match packet {
        Packet::Flush | Packet::Delimiter => true,
        Packet::Line(line) => is_line(line, &mut used),
    });
    !packets.is_empty()
        && sound.all(|sound| sound)
        && used.text <= MAX_TEXT_SIZE
        && used.ids <= MAX_IDS
}

fn packets(body: &[u8]) -> Option<Vec<Packet<'_>>> {
    let mut packets = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (digits, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        packets.push(match git::length(*digits)? {
            0 => Packet::Flush,
            1 => Packet::Delimiter,
            length => {
                let (line, after) = rest.split_at_checked(length.checked_sub(4)?)?;
                rest = after;
                Packet::Line(line.strip_suffix(b"\n").unwrap_or(line))
            }
        });
    }
    Some(packets)
}

/// Whether a line belongs to a fetch; counts its client-chosen content.
fn is_line(line: &[u8], used: &mut Used) -> bool {
    let (word, value) = match line.iter().position(|byte| b" =".contains(byte)) {
        Some(at) => (line.get(..at), line.get(at + 1..)),
        None => (Some(line), None),
    };
    let (word, value) = (word.unwrap_or_default(), value.unwrap_or_default());
    match word {
        // Version 0 has its capabilities after the first want.
        b"want" => {
            let mut parts = value.splitn(2, |byte| *byte == b' ');
            let id = parts.next().unwrap_or_default();
            is_id(id, used) && parts.next().is_none_or(|more| is_text(more, used))
        }
        b"have" | b"shallow" | b"oid" => is_id(value, used),
        b"deepen" | b"deepen-since" => {
            (1..=20).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
        }
        b"command" => {
            let commands = [&b"ls-refs"[..], b"fetch", b"object-info", b"bundle-uri"];
            commands.contains(&value)
        }
        b"deepen-not" | b"want-ref" | b"ref-prefix" | b"filter" | b"agent" | b"object-format"
        | b"packfile-uris" | b"session-id" | b"server-option" => is_text(value, used),
        b"done" | b"peel" | b"symrefs" | b"unborn" | b"thin-pack" | b"no-progress"
        | b"include-tag" | b"ofs-delta" | b"deepen-relative" | b"sideband-all"
        | b"wait-for-done" | b"size" => line == word,
        _ => false,
    }
}

fn is_id(value: &[u8], used: &mut Used) -> bool {
    used.ids += 1;
    git::is_object_id(value)
}

/// Whether free text is short and printable; counts its length.
fn is_text(value: &[u8], used: &mut Used) -> bool {
    used.text += value.len();
    let printable = |byte: &u8| !byte.is_ascii_control();
    value.len() <= MAX_WORD_SIZE && value.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder, write::GzEncoder};

    use super::super::tests::body;
    use super::*;
    use crate::policy::Body;

    const ID: &str = "1111111111111111111111111111111111111111";

    fn packet(line: &str) -> String {
        format!("{:04x}{line}", line.len() + 4)
    }

    fn first_version() -> String {
        let want = packet(&format!(
            "want {ID} multi_ack_detailed no-done side-band-64k thin-pack ofs-delta agent=git/2.47.3\n"
        ));
        let (more, have) = (
            packet(&format!("want {ID}\n")),
            packet(&format!("have {ID}\n")),
        );
        format!("{want}{more}0000{have}{}", packet("done\n"))
    }

    fn second_version() -> String {
        let head = ["command=fetch", "agent=git/2.47.3", "object-format=sha1"].map(packet);
        let want = format!("want {ID}\n");
        let arguments = [
            "thin-pack",
            "ofs-delta",
            &want,
            "filter blob:none",
            "done\n",
        ]
        .map(packet);
        format!("{}0001{}0000", head.concat(), arguments.concat())
    }

    fn listing() -> String {
        let head = ["command=ls-refs\n", "agent=git/2.47.3"].map(packet);
        let arguments = ["peel\n", "symrefs\n", "ref-prefix refs/heads/\n"].map(packet);
        format!("{}0001{}0000", head.concat(), arguments.concat())
    }

    fn action(coding: Option<&'static [u8]>, bytes: &[u8]) -> (Option<Action>, String) {
        let fields = Fields {
            content_encoding: coding,
            ..Fields::default()
        };
        let request_facts = read(&body(Body::GitFetch), &fields, bytes);
        (
            request_facts.action,
            request_facts.operation.unwrap_or_default().to_string(),
        )
    }

    fn fetches(bytes: &[u8]) -> bool {
        match action(None, bytes) {
            (Some(Action::Read), word) if word == "fetch" => true,
            (Some(Action::Write), word) if word == "other" => false,
            other => panic!("{other:?}"),
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_git_sends_is_a_fetch() {
        for request in [first_version(), second_version(), listing(), "0000".into()] {
            assert!(fetches(request.as_bytes()), "{request}");
            let packed = gzip(request.as_bytes());
            assert_eq!(action(Some(b"gzip"), &packed).0, Some(Action::Read));
        }
    }

    #[test]
    fn what_carries_anything_else_is_a_write() {
        let long = packet(&format!("agent={}", "x".repeat(MAX_WORD_SIZE + 1)));
        let many = packet(&format!("server-option={}", "x".repeat(1000))).repeat(9);
        for request in [
            String::new(),
            "secret=hunter2".into(),
            format!("{}secret", first_version()),
            packet("note to you"),
            packet("have nothing"),
            packet(&format!("have {ID}00 {ID}")),
            packet("command=exfiltrate"),
            packet("done already"),
            packet("deepen 99999999999999999999999"),
            "0002".into(),
            "0003".into(),
            "00ff".into(),
            "zzzz".into(),
            long,
            many,
        ] {
            assert!(!fetches(request.as_bytes()), "{request}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_judged_without_a_panic() {
        let request = first_version().into_bytes();
        for at in 0..request.len() {
            let _ = fetches(&request[..at]);
            let mut changed = request.clone();
            changed[at] ^= 0x80;
            assert!(!fetches(&changed) || at >= 50, "at {at}");
        }
    }

    #[test]
    fn a_compressed_body_carries_nothing_beside_its_content() {
        let request = second_version().into_bytes();
        let packed = gzip(&request);
        let behind = [packed.clone(), b"secret".to_vec()].concat();
        let twice = [packed.clone(), packed.clone()].concat();
        let mut named = GzBuilder::new()
            .comment("secret")
            .write(Vec::new(), Compression::default());
        named.write_all(&request).unwrap();
        let cut = packed[..packed.len() - 1].to_vec();
        for bytes in [behind, twice, named.finish().unwrap(), cut, request.clone()] {
            assert_eq!(action(Some(b"gzip"), &bytes).0, Some(Action::Write));
        }
        assert_eq!(action(Some(b"deflate"), &packed).0, Some(Action::Write));
        assert_eq!(action(Some(b"gzip, gzip"), &packed).0, Some(Action::Write));
    }

    #[test]
    fn object_ids_are_counted_and_a_small_body_cannot_grow_without_end() {
        let have = packet(&format!("have {ID}\n"));
        let most = have.repeat(MAX_IDS);
        assert!(fetches(most.as_bytes()));
        assert!(!fetches(format!("{most}{have}").as_bytes()));
        assert_eq!(
            action(Some(b"gzip"), &gzip(most.as_bytes())).0,
            Some(Action::Read)
        );
        let size = usize::try_from(MAX_REQUEST_SIZE).unwrap();
        let large = "0000".repeat(size / 4 + 1);
        assert_eq!(
            action(Some(b"gzip"), &gzip(large.as_bytes())).0,
            Some(Action::Write)
        );
    }
}
