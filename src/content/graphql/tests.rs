use super::super::tests::body as facts_of;
use super::*;
use crate::policy::Body;
use proptest::prelude::*;

const JSON: Option<&[u8]> = Some(b"application/json; charset=utf-8");

fn path(text: &str) -> Path {
    Path::parse(text.as_bytes()).unwrap()
}

fn sent(content_type: Option<&'static [u8]>, text: &str) -> Vec<RequestFacts> {
    let fields = Fields {
        content_type,
        ..Fields::default()
    };
    read(
        &facts_of(Body::GraphQl),
        &fields,
        "POST",
        &path("/graphql"),
        text.as_bytes(),
    )
}

/// Returns the operations of a request with this document.
fn operations(document: &str) -> Vec<String> {
    let text = serde_json::json!({ "query": document }).to_string();
    names(&sent(JSON, &text))
}

fn names(facts_list: &[RequestFacts]) -> Vec<String> {
    let name =
        |request_facts: &RequestFacts| request_facts.operation.as_deref().unwrap().to_owned();
    facts_list.iter().map(name).collect()
}

fn action(facts_list: &[RequestFacts]) -> Action {
    let action = facts_list[0].action.unwrap();
    assert!(
        facts_list
            .iter()
            .all(|request_facts| request_facts.action == Some(action))
    );
    action
}

#[test]
fn a_query_reads_and_a_mutation_writes() {
    assert_eq!(operations("{ viewer { login } }"), ["graphql-query"]);
    assert_eq!(
        operations("query($n: Int = 1) { a(first: $n) { b } }"),
        ["graphql-query"]
    );
    assert_eq!(operations("query Q @live { a }"), ["graphql-query"]);
    assert_eq!(operations("subscription { a }"), ["graphql-subscription"]);
    assert_eq!(
        operations("mutation { createIssue(input: {a: [1]}) { id } }"),
        ["mutation:createIssue"]
    );
    assert_eq!(
        action(&sent(
            JSON,
            r#"{"query":"{a}","variables":{"x":1},"operationName":null}"#
        )),
        Action::Read
    );
}

#[test]
fn a_mutation_is_told_by_its_fields_and_not_by_their_aliases() {
    let text = "mutation M { viewer: createIssue(a: 1) { mutationId: id } two: deleteRef { x } __typename }";
    assert_eq!(
        operations(text),
        ["mutation:createIssue", "mutation:deleteRef"]
    );
}

#[test]
fn fragments_do_not_hide_what_is_changed() {
    let text = "fragment F on Mutation { ... on Mutation @x { ... { addStar { id } } ...G } }
        query Q { a } mutation { ...F } fragment G on Mutation { closeIssue ...F }";
    assert_eq!(
        operations(text),
        ["mutation:addStar", "mutation:closeIssue"]
    );
    assert_eq!(
        operations("mutation { a ...Missing }"),
        ["graphql-mutation"]
    );
    assert_eq!(operations("mutation { __typename }"), ["graphql-mutation"]);
}

#[test]
fn a_mutation_beside_a_query_is_a_mutation() {
    for text in [
        "query A { a } mutation B { b }",
        "{ a } # x\nmutation { b }",
        "{ a } # x\rmutation { b }",
        "{a(x:\"}\")}mutation{b}",
        "{a(x:\"\\\"}\")}mutation{b}",
        "{a(x:\"\"\"\\\"\"\" } \"\"\")}mutation{b}",
        "\u{feff},,,mutation,\u{feff}B{b}",
    ] {
        assert_eq!(operations(text), ["mutation:b"], "{text}");
    }
    let named = r#"{"query":"query A{a} mutation B{b}","operationName":"A"}"#;
    assert_eq!(names(&sent(JSON, named)), ["mutation:b"]);
}

#[test]
fn a_word_in_a_string_or_comment_is_no_mutation() {
    for text in [
        "{ a(x: \"mutation { b }\") }",
        "{ a } # mutation { b }",
        "query mutation { mutation { mutation } }",
        "{ mutation: a(mutation: mutation) { b } }",
        "query Q { ...mutation } fragment mutation on mutation { mutation }",
    ] {
        assert_eq!(operations(text), ["graphql-query"], "{text}");
    }
}

#[test]
fn what_readers_take_differently_writes() {
    for text in [
        "",
        "#",
        "{",
        "{a",
        "{a}}",
        "{a)}",
        "{a(]}",
        "query A mutation B { b }",
        "fragment F on T { a }",
        "type A { b: C }",
        "extend type A { b: C }",
        "{a} # \u{2028} mutation {b}",
        "{a} # \u{b} mutation {b}",
        "{a(x: \"\"\" \" ) } mutation { b } # \"\"\")}",
        "{a(x: \"\n\")}",
        "{a\u{a0}}",
        "Mutation { b }",
        "fragment F on T {a} fragment F on T {b} {c}",
    ] {
        assert_eq!(operations(text), ["graphql-unreadable"], "{text:?}");
    }
    let deep = |depth: usize| format!("{}{}", "{a".repeat(depth), "}".repeat(depth));
    assert_eq!(operations(&deep(100)), ["graphql-query"]);
    assert_eq!(operations(&deep(100_000)), ["graphql-unreadable"]);
    assert_eq!(
        operations(&format!("{{a(x:{}", "[".repeat(100_000))),
        ["graphql-unreadable"]
    );
}

#[test]
fn the_keys_of_a_request_have_one_reading() {
    for text in [
        r#"{"query":"{a}","query":"mutation{b}"}"#,
        r#"{"query":"{a}","qu\u0065ry":"mutation{b}"}"#,
        r#"{"query":"{a}","Query":"mutation{b}"}"#,
        r#"{"query":"{a}","operationName":"A","operationName":"B"}"#,
        r#"{"query":"{a}","documentId":"x"}"#,
        r#"{"id":"x"}"#,
        r#"{"query":"{a}","extensions":{"persistedQuery":{"sha256Hash":"x"}}}"#,
        r#"{"query":null}"#,
        r#"{"query":["mutation{b}"]}"#,
        r#"{"query":"{a}"}{"query":"mutation{b}"}"#,
        "\u{feff}{\"query\":\"{a}\"}",
        "[]",
        r#"[{"query":"{a}"},[{"query":"mutation{b}"}]]"#,
        "null",
        "",
    ] {
        assert_eq!(names(&sent(JSON, text)), ["graphql-unreadable"], "{text}");
    }
    let escaped = r#"{"qu\u0065ry":"\u006dutation{b}"}"#;
    assert_eq!(names(&sent(JSON, escaped)), ["mutation:b"]);
}

#[test]
fn a_batch_is_as_bad_as_its_worst() {
    let reads = r#"[{"query":"{a}"},{"query":"{b}"}]"#;
    assert_eq!(names(&sent(JSON, reads)), ["graphql-query"]);
    let mixed = r#"[{"query":"{a}"},{"query":"mutation{b c}"},{"query":"mutation{c}"}]"#;
    assert_eq!(names(&sent(JSON, mixed)), ["mutation:b", "mutation:c"]);
    let long = format!("[{}{{}}]", r#"{"query":"{a}"},"#.repeat(100));
    assert_eq!(names(&sent(JSON, &long)), ["graphql-unreadable"]);
}

#[test]
fn only_types_that_are_known_are_read() {
    let json = r#"{"query":"{a}"}"#;
    assert_eq!(action(&sent(Some(b"Application/JSON"), json)), Action::Read);
    assert_eq!(
        action(&sent(Some(b"application/graphql"), "{a}")),
        Action::Read
    );
    assert_eq!(
        names(&sent(Some(b"application/graphql"), "mutation{a}")),
        ["mutation:a"]
    );
    for kind in [
        None,
        Some(&b"multipart/form-data; boundary=x"[..]),
        Some(b"application/x-www-form-urlencoded"),
        Some(b"text/plain"),
        Some(b"application/json; charset=utf-7"),
    ] {
        assert_eq!(action(&sent(kind, json)), Action::Write, "{kind:?}");
    }
}

#[test]
fn a_compressed_request_writes() {
    let fields = Fields {
        content_type: JSON,
        content_encoding: Some(b"gzip"),
        ..Fields::default()
    };
    let read = read(
        &facts_of(Body::GraphQl),
        &fields,
        "POST",
        &path("/graphql"),
        b"{\"query\":\"{a}\"}",
    );
    assert_eq!(action(&read), Action::Write);
}

#[test]
fn a_request_may_stand_in_the_url() {
    let get = |target: &str, body: &[u8]| {
        let facts_list = read(
            &facts_of(Body::GraphQl),
            &Fields::default(),
            "GET",
            &path(target),
            body,
        );
        names(&facts_list)
    };
    assert_eq!(get("/graphql", b""), ["graphql-query"]);
    assert_eq!(get("/graphql?query=%7Ba%7D", b""), ["graphql-query"]);
    assert_eq!(get("/graphql?query=mutation%7Bb%7D", b""), ["mutation:b"]);
    assert_eq!(
        get("/graphql?qu%65ry=mutation+%7Bb%7D", b""),
        ["mutation:b"]
    );
    for target in [
        "/graphql?query=%7Ba%7D&query=mutation%7Bb%7D",
        "/graphql?query=%7Ba%7D&Query=mutation%7Bb%7D",
        "/graphql?query=%7Ba%7D;query=mutation%7Bb%7D",
        "/graphql?query[]=mutation%7Bb%7D",
        "/graphql?id=1",
        "/graphql?extensions=1",
    ] {
        assert_eq!(get(target, b""), ["graphql-unreadable"], "{target}");
    }
    assert_eq!(
        get("/graphql?query=%7Ba%7D", b"mutation{b}"),
        ["graphql-unreadable"]
    );
}

#[test]
fn a_request_in_the_url_beside_one_in_the_body_writes() {
    let fields = Fields {
        content_type: JSON,
        ..Fields::default()
    };
    let post = |target: &str| {
        let body = b"{\"query\":\"{a}\"}";
        names(&read(
            &facts_of(Body::GraphQl),
            &fields,
            "POST",
            &path(target),
            body,
        ))
    };
    assert_eq!(post("/graphql?remote=true"), ["graphql-query"]);
    for target in [
        "/graphql?query=mutation%7Bb%7D",
        "/graphql?Q%75ery=x",
        "/graphql?a;query=x",
        "/graphql?query[]=x",
    ] {
        assert_eq!(post(target), ["graphql-unreadable"], "{target}");
    }
}

proptest! {
    #[test]
    fn any_text_can_be_judged(text in "(mutation|query|fragment| on |[{}()@:#\",.\\\\\r\n$!a-c\u{feff}é]){0,60}") {
        let said = operations(&text);
        // Only a text with the word `mutation` is a mutation.
        prop_assert!(text.contains("mutation") || !said[0].contains("mutation"));
    }

    #[test]
    fn a_mutation_behind_any_query_is_seen(before in "(query [a-z]{0,3})? ?\\{ ?[a-z]{1,4}(\\(x: ?(\"[ -!#-\\[\\]-~]{0,9}\"|\\[1,\\{y:2\\}\\])\\))? ?\\} ?(#[ -~]{0,9}\n)?") {
        prop_assert_eq!(operations(&before), ["graphql-query"]);
        let both = format!("{before}mutation {{ b }}");
        prop_assert_eq!(operations(&both), ["mutation:b"]);
    }

    #[test]
    fn any_bytes_can_be_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        for kind in [JSON, Some(&b"application/graphql"[..])] {
            prop_assert!(!sent(kind, &text).is_empty());
        }
    }
}
