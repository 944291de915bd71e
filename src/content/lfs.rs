//! The batch request of Git LFS (git-lfs, docs/api/batch.md).

use crate::policy::{Action, Deed};

use super::json::Object;
use super::{Fields, git, is_plain, told};

/// Reads a batch. What cannot be read may be an upload, and is one.
pub(super) fn read(head: &Deed, fields: &Fields<'_>, body: &[u8]) -> Deed {
    let batch = is_plain(fields).then(|| batch(body)).flatten();
    let Some((uploads, reference)) = batch else {
        return unread(head);
    };
    let (operation, action) = if uploads {
        ("lfs-upload", Action::Write)
    } else {
        ("lfs-download", Action::Read)
    };
    Deed {
        reference,
        ..told(head, Some(operation), action)
    }
}

/// What is judged where a batch cannot be read.
pub(super) fn unread(head: &Deed) -> Deed {
    told(head, Some("lfs-upload"), Action::Write)
}

/// Whether a batch uploads, and for which ref.
fn batch(body: &[u8]) -> Option<(bool, Option<Box<str>>)> {
    let object = Object::unambiguous(str::from_utf8(body).ok()?)?;
    if object.varies(&["operation", "ref"]) {
        return None;
    }
    let uploads = match &*object.text("operation")? {
        "download" => false,
        "upload" => true,
        _ => return None,
    };
    let reference = object
        .get("ref")
        .and_then(|value| Object::unambiguous(value.get()))
        .and_then(|reference| reference.text("name"))
        .filter(|name| git::is_ref(name));
    Some((uploads, reference.map(|name| name.into_owned().into())))
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
    fn the_ref_is_read() {
        let text = br#"{"operation":"upload","ref":{"name":"refs/heads/agent/x"}}"#;
        let deed = read(&body(Body::LfsBatch), &Fields::default(), text);
        assert_eq!(deed.reference.as_deref(), Some("refs/heads/agent/x"));
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
        let deed = read(
            &body(Body::LfsBatch),
            &fields,
            br#"{"operation":"download"}"#,
        );
        assert_eq!(deed.action, Some(Action::Write));
    }
}
