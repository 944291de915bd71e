//! The POSTs of Git LFS that may read: a batch (git-lfs, docs/api/batch.md) and the verification of
//! locks (docs/api/locking.md). A body with members that these pages do not list is a write.

use crate::policy::{Action, RequestFacts};

use super::json::{Object, elements};
use super::{Fields, git, is_plain, unreadable, with_action};

/// Maximum length of a cursor, in bytes.
const MAX_TEXT_SIZE: usize = 256;
/// Maximum number of objects in a batch; git-lfs sends 100 at once.
const MAX_OBJECTS: usize = 1_000;
/// The transfer types of known clients (git-lfs, docs/custom-transfers.md, docs/api/batch.md).
const TRANSFERS: [&str; 6] = [
    "\"basic\"",
    "\"lfs-standalone-file\"",
    "\"multipart-basic\"",
    "\"ssh\"",
    "\"tus\"",
    "\"xet\"",
];

/// Reads a batch. An unreadable batch may be an upload, and counts as one.
pub(super) fn read(head: &RequestFacts, fields: &Fields<'_>, body: &[u8]) -> RequestFacts {
    let batch = is_plain(fields).then(|| batch(body)).flatten();
    let Some((uploads, reference)) = batch else {
        return unread(head);
    };
    let (operation, action) = if uploads {
        ("lfs-upload", Action::Write)
    } else {
        ("lfs-download", Action::Read)
    };
    RequestFacts {
        reference,
        ..with_action(head, Some(operation), action)
    }
}

/// Returns the facts of a batch that cannot be read.
pub(super) fn unread(head: &RequestFacts) -> RequestFacts {
    with_action(head, Some("lfs-upload"), Action::Write)
}

/// Reads the verification of locks before a push.
pub(super) fn read_verify(head: &RequestFacts, fields: &Fields<'_>, body: &[u8]) -> RequestFacts {
    let text = is_plain(fields)
        .then(|| str::from_utf8(body).ok())
        .flatten();
    match text.ok_or(Unreadable).and_then(verify) {
        Ok(reference) => RequestFacts {
            reference,
            ..with_action(head, Some("lfs-locks"), Action::Read)
        },
        Err(Unreadable) => unreadable(head),
    }
}

/// The body does not have the form of these requests.
struct Unreadable;

/// Whether a batch uploads, and for which ref.
fn batch(body: &[u8]) -> Option<(bool, Option<Box<str>>)> {
    let keys = ["operation", "transfers", "ref", "objects", "hash_algo"];
    let object = only(str::from_utf8(body).ok()?, &keys)?;
    let uploads = match &*object.text("operation")? {
        "download" => false,
        "upload" => true,
        _ => return None,
    };
    if !uploads && !is_download(&object) {
        return None;
    }
    Some((uploads, reference(&object).ok()?))
}

/// Whether a download batch contains only object ids and known words.
fn is_download(batch: &Object<'_>) -> bool {
    let list = |key: &str, most: usize, sound: fn(&str) -> bool| {
        let list = batch.get(key).map(|list| elements(list.get()));
        list.is_none_or(|list| {
            list.is_some_and(|list| list.len() <= most && list.iter().all(|one| sound(one.get())))
        })
    };
    let algorithm = batch.get("hash_algo");
    algorithm.is_none_or(|word| word.get() == "\"sha256\"")
        && list("objects", MAX_OBJECTS, is_object)
        && list("transfers", TRANSFERS.len(), |word| {
            TRANSFERS.contains(&word)
        })
}

/// `{"oid": "64 HEX DIGITS", "size": NUMBER}`.
fn is_object(text: &str) -> bool {
    only(text, &["oid", "size"]).is_some_and(|object| {
        let id = object
            .text("oid")
            .is_some_and(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = object.get("size").is_none_or(|size| is_count(size.get()));
        id && size
    })
}

fn is_count(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the ref of a lock verification, if the body contains nothing else.
fn verify(text: &str) -> Result<Option<Box<str>>, Unreadable> {
    let object = only(text, &["cursor", "limit", "ref"]).ok_or(Unreadable)?;
    let limit = object
        .get("limit")
        .is_none_or(|limit| is_count(limit.get()));
    let cursor = object.get("cursor").is_none_or(|_| {
        object
            .text("cursor")
            .is_some_and(|cursor| cursor.len() <= MAX_TEXT_SIZE)
    });
    if !(limit && cursor) {
        return Err(Unreadable);
    }
    reference(&object)
}

/// Returns the name in `"ref": {"name": …}`, if the request has one.
fn reference(object: &Object<'_>) -> Result<Option<Box<str>>, Unreadable> {
    let Some(value) = object.get("ref").filter(|value| value.get() != "null") else {
        return Ok(None);
    };
    let reference = only(value.get(), &["name"]).ok_or(Unreadable)?;
    let name = reference.text("name").filter(|name| git::is_ref(name));
    let name = name.ok_or(Unreadable)?;
    Ok(Some(name.into_owned().into()))
}

/// Parses `text` as an object that has only these keys, each once and in this spelling.
fn only<'a>(text: &'a str, keys: &[&str]) -> Option<Object<'a>> {
    let object = Object::unambiguous(text)?;
    let known = object.members().all(|(key, _)| keys.contains(&key));
    known.then_some(object)
}

#[cfg(test)]
mod tests {
    use super::super::tests::body;
    use super::*;
    use crate::policy::Body;

    fn action(text: &str) -> Option<Action> {
        read(&body(Body::LfsBatch), &Fields::default(), text.as_bytes()).action
    }

    #[test]
    fn a_batch_says_whether_it_uploads() {
        let download = r#"{"operation":"download","transfers":["basic"],"objects":[]}"#;
        assert_eq!(action(download), Some(Action::Read));
        assert_eq!(action(r#"{"operation":"upload"}"#), Some(Action::Write));
    }

    #[test]
    fn a_download_carries_object_ids_and_nothing_else() {
        let id = "ab12".repeat(16);
        let object = format!(r#"{{"oid":"{id}","size":3}}"#);
        let of = |objects: &str, transfers: &str| {
            format!(
                r#"{{"operation":"download","transfers":[{transfers}],
                "ref":{{"name":"refs/heads/main"}},"hash_algo":"sha256","objects":[{objects}]}}"#
            )
        };
        let good = of(&object, r#""basic","lfs-standalone-file""#);
        assert_eq!(action(&good), Some(Action::Read));
        let many = vec![object.as_str(); MAX_OBJECTS + 1].join(",");
        let words = [r#""basic""#; 7].join(",");
        for text in [
            of(&many, ""),
            of(&object, &words),
            of(&object, r#""aGVsbG8""#),
        ] {
            assert_eq!(action(&text), Some(Action::Write), "{text}");
        }
        for text in [
            r#"{"operation":"download","note":"secret"}"#,
            r#"{"operation":"download","objects":[{"oid":"secret words","size":3}]}"#,
            r#"{"operation":"download","objects":[{"oid":"ab12","size":3}]}"#,
            r#"{"operation":"download","hash_algo":"secret"}"#,
            r#"{"operation":"download","objects":"secret"}"#,
            r#"{"operation":"download","transfers":["two words"]}"#,
            r#"{"operation":"download","ref":{"name":"refs/heads/a","note":"x"}}"#,
            r#"{"operation":"download","ref":{"name":"secret"}}"#,
        ] {
            assert_eq!(action(text), Some(Action::Write), "{text}");
        }
    }

    #[test]
    fn a_question_for_locks_reads_and_carries_nothing_else() {
        let told = |text: &str| {
            let head = body(Body::LfsVerify);
            let request_facts = read_verify(&head, &Fields::default(), text.as_bytes());
            (
                request_facts.action,
                request_facts.operation.unwrap_or_default().to_string(),
            )
        };
        let locks = (Some(Action::Read), "lfs-locks".to_owned());
        for text in [
            "{}",
            r#"{"ref":{"name":"refs/heads/main"},"limit":100,"cursor":"7"}"#,
        ] {
            assert_eq!(told(text), locks, "{text}");
        }
        let long = format!(r#"{{"cursor":"{}"}}"#, "x".repeat(MAX_TEXT_SIZE + 1));
        for text in [
            "",
            "secret",
            r#"{"note":"secret"}"#,
            r#"{"limit":"x"}"#,
            &long,
        ] {
            assert_eq!(
                told(text),
                (Some(Action::Write), "other".to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn the_ref_is_read() {
        let text = br#"{"operation":"upload","ref":{"name":"refs/heads/agent/x"}}"#;
        let request_facts = read(&body(Body::LfsBatch), &Fields::default(), text);
        assert_eq!(
            request_facts.reference.as_deref(),
            Some("refs/heads/agent/x")
        );
    }

    #[test]
    fn an_upload_cannot_be_spelt_as_a_download() {
        for text in [
            "",
            "[]",
            r#"{"operation":"download","operation":"upload"}"#,
            r#"{"operation":"download","oper\u0061tion":"upload"}"#,
            r#"{"operation":"download","Operation":"upload"}"#,
            r#"{"operation":"Download"}"#,
            r#"{"operation":"download"}{"operation":"upload"}"#,
        ] {
            assert_eq!(action(text), Some(Action::Write), "{text}");
        }
        let fields = Fields {
            content_encoding: Some(b"gzip"),
            ..Fields::default()
        };
        let request_facts = read(
            &body(Body::LfsBatch),
            &fields,
            br#"{"operation":"download"}"#,
        );
        assert_eq!(request_facts.action, Some(Action::Write));
    }
}
