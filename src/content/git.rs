//! The commands of a push: the ref changes that git-receive-pack is asked for, before the pack
//! begins (gitprotocol-pack, gitprotocol-http).

use hashbrown::HashSet;

use crate::policy::{Action, RequestFacts};

use super::{Fields, Progress, is_identity, with_action};

/// Maximum number of refs in one push.
const MAX_COMMANDS: usize = 1000;
/// Maximum number of lines before the pack: commands, `shallow` lines and those of a certificate.
const MAX_LINES: usize = 4 * MAX_COMMANDS;
/// Maximum length of a ref name, in bytes.
const MAX_REF_SIZE: usize = 1024;
/// Maximum length of a pkt-line, in bytes, with the four digits of its length.
const MAX_PACKET_SIZE: usize = 65520;

/// Reads the commands of a push; later bytes are not needed.
pub(super) fn read(head: &RequestFacts, fields: &Fields<'_>, body: &[u8], ended: bool) -> Progress {
    if !is_identity(fields) {
        return Progress::Malformed("a push that is compressed cannot be judged");
    }
    let (lines, rest) = match lines(body) {
        Ok(Some(found)) => found,
        Ok(None) if ended => return Progress::Malformed("the push ends before its commands do"),
        Ok(None) => return Progress::More,
        Err(why) => return Progress::Malformed(why),
    };
    if lines.is_empty() {
        return probe(head, rest, ended);
    }
    match commands(&lines) {
        Ok(commands) => {
            Progress::Done(commands.iter().map(|one| one.request_facts(head)).collect())
        }
        Err(why) => Progress::Malformed(why),
    }
}

/// Reads an empty push: git sends one before a large pack, to check whether it may push at all.
fn probe(head: &RequestFacts, rest: &[u8], ended: bool) -> Progress {
    match (rest, ended) {
        ([], true) => Progress::Done(vec![with_action(head, Some("push-probe"), Action::Read)]),
        ([], false) => Progress::More,
        _ => Progress::Malformed("the push has a pack but no command"),
    }
}

/// Returns the pkt-lines before the first flush, and the bytes after it; `None` if there is no
/// flush yet.
#[expect(
    clippy::type_complexity,
    reason = "two slices, named here and used once"
)]
fn lines(body: &[u8]) -> Result<Option<(Vec<&[u8]>, &[u8])>, &'static str> {
    let mut found = Vec::new();
    let mut rest = body;
    while let Some((digits, after)) = rest.split_first_chunk::<4>() {
        let length = match length(*digits).ok_or("the push is not made of pkt-lines")? {
            0 => return Ok(Some((found, after))),
            length @ 5..=MAX_PACKET_SIZE => length - 4,
            _ => return Err("the push has a pkt-line of impossible length"),
        };
        if found.len() >= MAX_LINES {
            return Err("the push has too many commands");
        }
        let Some((line, after)) = after.split_at_checked(length) else {
            return Ok(None);
        };
        found.push(line);
        rest = after;
    }
    Ok(None)
}

/// Parses the length at the start of a pkt-line, in hexadecimal.
pub(super) fn length(digits: [u8; 4]) -> Option<usize> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let number = digits
        .into_iter()
        .try_fold(0, |sum, byte| Some(sum * 16 + digit(byte)?))?;
    usize::try_from(number).ok()
}

/// One command: creates, updates or deletes a ref.
struct Command<'a> {
    reference: &'a str,
    creates: bool,
    deletes: bool,
}

impl Command<'_> {
    fn request_facts(&self, head: &RequestFacts) -> RequestFacts {
        let operation = match (self.creates, self.deletes) {
            (_, true) => "delete",
            (true, false) => "create",
            // The protocol does not show whether the ref is fast-forwarded or forced.
            (false, false) => "push",
        };
        RequestFacts {
            reference: Some(self.reference.into()),
            ..with_action(head, Some(operation), Action::Write)
        }
    }
}

fn commands<'a>(lines: &[&'a [u8]]) -> Result<Vec<Command<'a>>, &'static str> {
    let mut commands = Vec::new();
    let mut part = Part::Plain;
    let mut capable = false;
    for line in lines {
        let (line, capabilities) = split_capabilities(line);
        if capabilities && capable {
            return Err("a command of the push has a NUL");
        }
        capable |= capabilities;
        part = part.read(line, &mut commands)?;
    }
    if !matches!(part, Part::Plain) {
        return Err("the certificate of the push has no end");
    }
    sound(commands)
}

/// Returns a line without its newline and without the part after a NUL; and whether it has a NUL.
fn split_capabilities(line: &[u8]) -> (&[u8], bool) {
    let mut parts = line.splitn(2, |byte| *byte == 0);
    let first = parts.next().unwrap_or_default();
    (
        first.strip_suffix(b"\n").unwrap_or(first),
        parts.next().is_some(),
    )
}

fn sound(commands: Vec<Command<'_>>) -> Result<Vec<Command<'_>>, &'static str> {
    if commands.is_empty() {
        return Err("the push has no command");
    }
    if commands.len() > MAX_COMMANDS {
        return Err("the push has too many commands");
    }
    let mut seen = HashSet::with_capacity(commands.len());
    if !commands
        .iter()
        .all(|command| seen.insert(command.reference))
    {
        return Err("the push names a ref twice");
    }
    Ok(commands)
}

/// The part of the push that a line belongs to.
enum Part {
    /// Outside the certificate of a signed push.
    Plain,
    /// In the certificate, before its empty line.
    Head,
    /// The commands in the certificate, between the empty line and the signature.
    Signed,
    /// In the signature.
    Signature,
}

impl Part {
    /// Reads one line; returns the part of the next line. A line in the form of a command counts as
    /// one in every part: servers differ over where a signature begins.
    fn read<'a>(self, line: &'a [u8], into: &mut Vec<Command<'a>>) -> Result<Self, &'static str> {
        let certified = !matches!(self, Self::Plain);
        match line {
            b"push-cert" if !certified => return Ok(Self::Head),
            b"push-cert-end" if certified => return Ok(Self::Plain),
            _ if certified && line.contains(&b'\n') => {
                return Err("a line of the certificate of the push holds several");
            }
            _ => {}
        }
        match self {
            Self::Plain if is_shallow(line) => {}
            Self::Head if line.is_empty() => return Ok(Self::Signed),
            Self::Signed if line.starts_with(b"-----BEGIN ") => return Ok(Self::Signature),
            Self::Plain | Self::Signed => into.push(command(line)?),
            Self::Head | Self::Signature => into.extend(command(line).ok()),
        }
        Ok(self)
    }
}

fn is_shallow(line: &[u8]) -> bool {
    line.strip_prefix(b"shallow ").is_some_and(is_object_id)
}

/// Parses `OLD SP NEW SP REF`.
fn command(line: &[u8]) -> Result<Command<'_>, &'static str> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(old), Some(new), Some(reference)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("a command of the push is not old, new and ref");
    };
    if !is_object_id(old) || !is_object_id(new) || old.len() != new.len() {
        return Err("a command of the push has no object ids");
    }
    let reference = str::from_utf8(reference).ok().filter(|text| is_ref(text));
    Ok(Command {
        reference: reference.ok_or("a command of the push has no sound ref")?,
        creates: old.iter().all(|byte| *byte == b'0'),
        deletes: new.iter().all(|byte| *byte == b'0'),
    })
}

/// Whether the text has the hexadecimal digits of SHA-1 or SHA-256.
pub(super) fn is_object_id(text: &[u8]) -> bool {
    matches!(text.len(), 40 | 64) && text.iter().all(u8::is_ascii_hexdigit)
}

/// Whether git accepts the text as the full name of a ref (git-check-ref-format). Other names are
/// refused, so that no pattern matches a name that a server normalises (`refs/heads/x/../main`).
pub(super) fn is_ref(name: &str) -> bool {
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let sound = |part: &str| {
        let lock = part.as_bytes().ends_with(b".lock");
        !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !lock
    };
    name.len() <= MAX_REF_SIZE
        && name.starts_with("refs/")
        && !name.contains(odd)
        && !name.contains("..")
        && !name.contains("@{")
        && name.split('/').all(sound)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{body, facts_list};
    use super::*;
    use crate::policy::Body;

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn packet(line: &str) -> String {
        format!("{:04x}{line}", line.len() + 4)
    }

    fn push(lines: &[&str]) -> Vec<u8> {
        let lines: String = lines.iter().map(|line| packet(line)).collect();
        format!("{lines}0000PACK").into_bytes()
    }

    fn create(reference: &str) -> String {
        format!("{ZERO} {NEW} {reference}")
    }

    fn judged(bytes: &[u8]) -> Progress {
        read(&body(Body::GitPush), &Fields::default(), bytes, false)
    }

    fn told(bytes: &[u8]) -> Vec<(String, String)> {
        let facts_list = facts_list(judged(bytes));
        assert!(
            facts_list
                .iter()
                .all(|request_facts| request_facts.action == Some(Action::Write))
        );
        let pair = |request_facts: RequestFacts| {
            let operation = request_facts.operation.unwrap().to_string();
            (operation, request_facts.reference.unwrap().into_string())
        };
        facts_list.into_iter().map(pair).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(a, b): &(&str, &str)| (a.to_string(), b.to_string());
        list.iter().map(owned).collect()
    }

    #[test]
    fn each_ref_of_a_push_is_judged() {
        let bytes = push(&[
            &format!("{OLD} {NEW} refs/heads/main\0 report-status side-band-64k agent=git/2.47.3"),
            &format!("{OLD} {ZERO} refs/heads/old"),
            &format!("{}\n", create("refs/tags/v1")),
        ]);
        let wanted = [
            ("push", "refs/heads/main"),
            ("delete", "refs/heads/old"),
            ("create", "refs/tags/v1"),
        ];
        assert_eq!(told(&bytes), pairs(&wanted));
    }

    #[test]
    fn a_push_is_judged_before_its_pack_is_there() {
        let bytes = push(&[&create("refs/heads/agent/x")]);
        let flush = bytes.len() - 4;
        for end in 0..flush {
            assert_eq!(judged(&bytes[..end]), Progress::More, "at {end}");
        }
        assert_eq!(told(&bytes[..flush]).len(), 1);
    }

    #[test]
    fn sha256_and_shallow_lines_are_read() {
        let (old, new) = ("a".repeat(64), "B".repeat(64));
        let bytes = push(&[
            &format!("shallow {OLD}"),
            &format!("{old} {new} refs/heads/agent/x\0object-format=sha256"),
        ]);
        assert_eq!(told(&bytes), pairs(&[("push", "refs/heads/agent/x")]));
    }

    #[test]
    fn a_signed_push_says_what_it_does_in_its_certificate() {
        let command = format!("{}\n", create("refs/heads/main"));
        let bytes = push(&[
            "push-cert\0 report-status\n",
            "certificate version 0.1\n",
            "pusher ana@acme.example 1 +0000\n",
            "nonce 1-2\n",
            "\n",
            &command,
            "-----BEGIN SSH SIGNATURE-----\n",
            "AAAA\n",
            "-----END SSH SIGNATURE-----\n",
            "push-cert-end\n",
        ]);
        assert_eq!(told(&bytes), pairs(&[("create", "refs/heads/main")]));
    }

    #[test]
    fn a_certificate_cannot_hide_a_command() {
        let main = create("refs/heads/main");
        let two = format!("{}\n{main}\n", create("refs/heads/agent/x"));
        for lines in [
            vec!["push-cert\n", "\n", &two, "push-cert-end\n"],
            vec!["push-cert\n", "pusher x\n\n", &main, "push-cert-end\n"],
            vec!["push-cert\n", "\n", &main],
            vec!["push-cert\n", "\n", "-----BEGIN X", &main],
        ] {
            assert!(
                matches!(judged(&push(&lines)), Progress::Malformed(_)),
                "{lines:?}"
            );
        }
        let signature = [
            "push-cert\n",
            "\n",
            "-----BEGIN X\n",
            &main,
            "push-cert-end\n",
        ];
        assert_eq!(
            told(&push(&signature)).len(),
            1,
            "and so is one in the signature"
        );
        let beside = push(&[
            "push-cert\n",
            "\n",
            &create("refs/heads/agent/x"),
            "push-cert-end\n",
            &main,
        ]);
        assert_eq!(
            told(&beside).len(),
            2,
            "commands beside it are read as well"
        );
    }

    #[test]
    fn git_asks_first_with_a_push_of_nothing() {
        let read =
            |bytes: &[u8], ended| read(&body(Body::GitPush), &Fields::default(), bytes, ended);
        let facts_list = facts_list(read(b"0000", true));
        assert_eq!(facts_list[0].action, Some(Action::Read));
        assert_eq!(facts_list[0].operation.as_deref(), Some("push-probe"));
        assert_eq!(read(b"0000", false), Progress::More);
        assert!(matches!(read(b"0000PACK", true), Progress::Malformed(_)));
    }

    #[test]
    fn what_is_no_push_is_refused() {
        let good = create("refs/heads/a");
        let nul = format!("{}\0caps", create("refs/heads/b"));
        for lines in [
            vec!["x"],
            vec![good.as_str(), good.as_str()],
            vec![nul.as_str(), "\0"],
            vec![OLD],
            vec![&good[1..]],
        ] {
            assert!(
                matches!(judged(&push(&lines)), Progress::Malformed(_)),
                "{lines:?}"
            );
        }
        for bytes in ["zzzz", "0001", "0004", "fff1", "PACK"] {
            assert!(
                matches!(judged(bytes.as_bytes()), Progress::Malformed(_)),
                "{bytes}"
            );
        }
        let cut = read(&body(Body::GitPush), &Fields::default(), b"00", true);
        assert!(matches!(cut, Progress::Malformed(_)));
    }

    #[test]
    fn a_ref_has_one_spelling() {
        for name in [
            "main",
            "HEAD",
            "refs/heads/agent/../main",
            "refs/heads//main",
            "refs/heads/main/",
            "refs/heads/a b",
            "refs/heads/a\u{7f}",
            "refs/heads/a\nb",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a@{1}",
            "refs/heads/a*",
        ] {
            assert!(
                matches!(judged(&push(&[&create(name)])), Progress::Malformed(_)),
                "{name:?}"
            );
        }
        for name in ["refs/heads/ä", "refs/for/main%submit", "refs/heads/a.b-c@d"] {
            assert_eq!(told(&push(&[&create(name)])), pairs(&[("create", name)]));
        }
    }

    #[test]
    fn an_absurd_number_of_refs_is_refused() {
        let of = |count: usize| -> Vec<String> {
            (0..count)
                .map(|at| create(&format!("refs/heads/{at}")))
                .collect()
        };
        let bytes = |lines: &[String]| push(&lines.iter().map(|line| &**line).collect::<Vec<_>>());
        assert_eq!(told(&bytes(&of(MAX_COMMANDS))).len(), MAX_COMMANDS);
        let more = judged(&bytes(&of(MAX_COMMANDS + 1)));
        assert!(matches!(more, Progress::Malformed(_)));
        let endless = "0005x".repeat(MAX_LINES + 1);
        assert!(matches!(judged(endless.as_bytes()), Progress::Malformed(_)));
    }

    #[test]
    fn a_compressed_push_cannot_be_judged() {
        let bytes = push(&[&create("refs/heads/a")]);
        let judge = |coding: &'static [u8]| {
            let fields = Fields {
                content_encoding: Some(coding),
                ..Fields::default()
            };
            read(&body(Body::GitPush), &fields, &bytes, false)
        };
        assert!(matches!(judge(b"gzip"), Progress::Malformed(_)));
        assert!(matches!(judge(b"identity, gzip"), Progress::Malformed(_)));
        assert!(matches!(judge(b"Identity"), Progress::Done(_)));
    }
}
