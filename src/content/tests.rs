//! Properties of every reader.

use proptest::prelude::*;

use super::*;
use crate::policy::McpCall;

const BODIES: [Option<Body>; 9] = [
    None,
    Some(Body::GitFetch),
    Some(Body::GitPush),
    Some(Body::GraphQl),
    Some(Body::LfsBatch),
    Some(Body::LfsVerify),
    Some(Body::Mcp),
    Some(Body::Model),
    Some(Body::OciToken),
];

/// Returns the facts of a head whose body has to be read.
pub(super) fn body(body: Body) -> RequestFacts {
    RequestFacts {
        seen: Seen::Head,
        service: Some("service".into()),
        repository: Some("acme/app".into()),
        body: Some(body),
        mcp: (body == Body::Mcp).then(|| McpCall {
            server: Some("docs".into()),
            ..McpCall::default()
        }),
        ..RequestFacts::default()
    }
}

/// Returns the facts of a body that was read, each of them whole.
pub(super) fn facts_list(progress: Progress) -> Vec<RequestFacts> {
    let Progress::Done(facts_list) = progress else {
        panic!("{progress:?}");
    };
    assert!(!facts_list.is_empty());
    for request_facts in &facts_list {
        assert_eq!(
            (request_facts.seen, request_facts.body),
            (Seen::Whole, None)
        );
        assert_eq!(request_facts.repository.as_deref(), Some("acme/app"));
        assert_eq!(request_facts.service.as_deref(), Some("service"));
    }
    facts_list
}

fn judged(head: &RequestFacts, fields: &Fields<'_>, bytes: &[u8], ended: bool) -> Progress {
    let path = Path::parse(b"/x").unwrap();
    read(head, fields, "POST", &path, bytes, ended)
}

#[test]
fn a_body_that_nothing_asks_for_is_not_read() {
    let head = RequestFacts {
        seen: Seen::Head,
        ..RequestFacts::default()
    };
    let whole = RequestFacts::default();
    assert_eq!(
        judged(&head, &Fields::default(), b"", false),
        Progress::Done(vec![whole])
    );
}

#[test]
fn a_request_to_a_model_is_a_call() {
    let facts_list = facts_list(judged(&body(Body::Model), &Fields::default(), b"", false));
    assert_eq!(facts_list[0].action, Some(Action::Call));
}

#[test]
fn what_is_too_long_is_a_write_or_refused() {
    for kind in [
        Body::GitFetch,
        Body::GraphQl,
        Body::LfsBatch,
        Body::LfsVerify,
    ] {
        let facts_list = facts_list(too_long(&body(kind)));
        assert_eq!(facts_list[0].action, Some(Action::Write));
    }
    for kind in [Body::GitPush, Body::Mcp] {
        assert!(matches!(too_long(&body(kind)), Progress::Malformed(_)));
    }
}

#[test]
fn mcp_is_suspected_by_its_headers_and_json_is_looked_into() {
    let of = |method, fields: Fields<'_>| looks_like_mcp(&fields, method != "GET", true);
    let plain = Fields::default();
    let typed = |kind: &'static [u8]| Fields {
        content_type: Some(kind),
        ..plain
    };
    let session = Fields {
        mcp_session: true,
        ..plain
    };
    let method = Fields {
        mcp_method: Some(b"tools/call"),
        ..plain
    };
    assert_eq!(of("GET", session), Suspicion::Headers);
    assert_eq!(of("POST", method), Suspicion::Headers);
    assert_eq!(
        of("POST", typed(b"application/json; charset=utf-8")),
        Suspicion::Body
    );
    assert_eq!(of("POST", typed(b"Text/Plain")), Suspicion::Body);
    assert_eq!(of("POST", plain), Suspicion::Body);
    assert_eq!(of("GET", plain), Suspicion::No);
    let accepts = Fields {
        accept: Some(b"application/json, Text/Event-Stream"),
        ..typed(b"x/y")
    };
    assert_eq!(of("POST", accepts), Suspicion::Body);
}

#[test]
fn mcp_cannot_hide_behind_a_type_a_charset_or_a_coding() {
    let of = |fields: Fields<'_>, http2| looks_like_mcp(&fields, true, http2);
    let typed = |kind: &'static [u8]| Fields {
        content_type: Some(kind),
        ..Fields::default()
    };
    for kind in [&b"application/octet-stream"[..], b"image/png", b"x"] {
        assert_eq!(of(typed(kind), true), Suspicion::Body);
    }
    let stream = typed(b"application/grpc+proto");
    assert_eq!(of(stream, true), Suspicion::No);
    assert_eq!(of(stream, false), Suspicion::Body, "no origin of gRPC");
    let wide = typed(b"application/json; charset=UTF-16le");
    assert_eq!(of(wide, true), Suspicion::Headers);
    let coded = |coding: &'static [u8]| Fields {
        content_encoding: Some(coding),
        accept: Some(b"application/json, text/event-stream"),
        ..typed(b"application/json")
    };
    assert_eq!(of(coded(b"br"), true), Suspicion::Headers);
    assert_eq!(of(coded(b"gzip"), true), Suspicion::Body, "which is read");
}

#[test]
fn a_charset_is_known_or_the_body_is_not_text() {
    for known in [
        "",
        "application/json",
        "a/b;charset=UTF-8",
        "a/b; x=y; charset=\"utf-8\"",
    ] {
        assert!(has_known_charset(Some(known.as_bytes())), "{known}");
    }
    for other in [
        "a/b;charset=utf-7",
        "a/b; Charset = utf-16",
        "a/b;charset=utf-8;charset=utf-7",
    ] {
        assert!(!has_known_charset(Some(other.as_bytes())), "{other}");
    }
}

proptest! {
    #[test]
    fn no_bytes_can_hurt_a_reader(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        field in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ended: bool,
        method in "(GET|POST|DELETE|PUT)",
    ) {
        let field = field.as_deref();
        let fields = Fields {
            content_type: field,
            content_encoding: None,
            accept: field,
            mcp_method: field,
            mcp_name: field,
            mcp_protocol_version: field,
            mcp_session: ended,
        };
        let path = Path::parse(b"/graphql?query=%7Ba%7D").unwrap();
        for kind in BODIES {
            let head = RequestFacts { body: kind, ..RequestFacts::default() };
            for fields in [&fields, &Fields::default()] {
                let progress = read(&head, fields, &method, &path, &bytes, ended);
                prop_assert!(progress != Progress::Done(Vec::new()));
                prop_assert!(progress != Progress::More || !ended);
            }
        }
        looks_like_mcp(&fields, !method.is_empty(), ended);
    }

    #[test]
    fn a_push_that_goes_on_is_never_judged_otherwise(
        lines in prop::collection::vec("(0000|00|[0-9a-f]{4}|[ -~]{0,9}|1{40} 2{40} refs/heads/a)", 0..6),
    ) {
        // After a result, more bytes do not change it.
        let text = lines.concat();
        let head = body(Body::GitPush);
        let mut verdict = Progress::More;
        for end in 0..=text.len() {
            let now = judged(&head, &Fields::default(), &text.as_bytes()[..end], false);
            prop_assert!(verdict == Progress::More || verdict == now);
            verdict = now;
        }
    }
}
