//! Bodies: whatever their bytes, they are read without a panic, and decided once they have ended.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::content::{Fields, Progress, mcp, read};
use tidegate::name::Path;
use tidegate::policy::{Body, RequestFacts, Seen};

const KINDS: [Body; 7] = [
    Body::GitFetch,
    Body::GitPush,
    Body::GraphQl,
    Body::LfsBatch,
    Body::LfsVerify,
    Body::Mcp,
    Body::OciToken,
];

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    let head = RequestFacts {
        seen: Seen::Head,
        body: Some(kind),
        ..RequestFacts::default()
    };
    let content_type: &[u8] = match kind {
        Body::OciToken => b"application/x-www-form-urlencoded",
        _ => b"application/json",
    };
    let fields = Fields {
        content_type: Some(content_type),
        ..Fields::default()
    };
    let path = Path::parse(b"/graphql").unwrap();
    let whole = read(&head, &fields, "POST", &path, body, true);
    assert_ne!(whole, Progress::More);
    assert_ne!(whole, Progress::Done(Vec::new()));
    let half = read(&head, &fields, "POST", &path, &body[..body.len() / 2], false);
    if half != Progress::More && kind == Body::GitPush {
        assert_eq!(half, read(&head, &fields, "POST", &path, body, false));
    }
    for coding in [None, Some(&b"gzip"[..]), Some(b"deflate")] {
        let fields = Fields {
            content_encoding: coding,
            ..fields
        };
        let _ = mcp::recognise(&fields, body, *first > 127);
    }
});
