//! Valid bodies with a few hostile changes: the result of a reader is compared with a second,
//! simpler reading. `PROPTEST_CASES=1000000` runs them for longer.

use proptest::prelude::*;

use super::tests::body;
use super::*;

/// One change of a text.
#[derive(Clone, Debug)]
enum Change {
    Put(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        let range = |at: usize, many: usize| {
            let start = at % length;
            start.min(bytes.len())..(start + many % 40).min(bytes.len())
        };
        match self {
            Self::Put(at, byte) => {
                if let Some(place) = bytes.get_mut(at % length) {
                    *place = *byte;
                }
            }
            Self::Insert(at, more) => {
                let at = (at % length).min(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, many) => drop(bytes.drain(range(*at, *many))),
            Self::Repeat(at, many) => {
                let range = range(*at, *many);
                let part: Vec<u8> = bytes.get(range.clone()).unwrap_or_default().to_vec();
                bytes.splice(range.end..range.end, part);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let words = [
        "0000",
        "0001",
        "0004",
        "\0",
        "\n",
        " ",
        "\"",
        "\\",
        "\\u",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "mutation",
        "\"method\":\"tools/call\"",
        "\"jsonrpc\":\"2.0\"",
        "\"name\":\"x\"",
        "#",
        "\"\"\"",
        "...",
        "want ",
        "refs/heads/main",
        "\u{feff}",
        "\u{17f}",
        "true",
        "null",
        "1e9",
    ];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (any::<usize>(), word).prop_map(|(at, word)| Change::Insert(at, word)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, many)| Change::Remove(at, many)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, many)| Change::Repeat(at, many)),
    ]
}

/// Returns one of the texts, changed up to eight times.
fn changed(texts: &[&[u8]]) -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
    let changes = prop::collection::vec(change(), 0..8);
    (prop::sample::select(texts), changes).prop_map(|(mut text, changes)| {
        for change in changes {
            change.apply(&mut text);
        }
        text
    })
}

const PUSHES: &[&[u8]] = &[
    b"00671111111111111111111111111111111111111111 2222222222222222222222222222222222222222 \
      refs/heads/main0000PACK",
    b"00701111111111111111111111111111111111111111 0000000000000000000000000000000000000000 \
      refs/heads/a\0 caps0000",
];
const FETCHES: &[&[u8]] = &[
    b"0014command=ls-refs\n0014agent=git/2.47.300010009peel\n000csymrefs\n0000",
    b"0012command=fetch\n00010032want 1111111111111111111111111111111111111111\n0009done\n0000",
];
const GRAPHQL: &[&[u8]] = &[
    br#"{"query":"query Q($n: Int = 1) { a(first: $n, s: \"mutation { b }\") { b } }"}"#,
    br#"{"query":"{ a } mutation M { x: addComment(a: [1, {b: 2}]) { id } ...F } fragment F on M { c }"}"#,
    br#"[{"query":"{a}"},{"query":"subscription { b }","variables":{"x":1},"operationName":null}]"#,
];
const MESSAGES: &[&[u8]] = &[
    br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"name":"x"}}}"#,
    br#"[{"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":"a","method":"ping"}]"#,
    br#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a"}}"#,
];

fn done(kind: Body, fields: &Fields<'_>, bytes: &[u8]) -> Vec<RequestFacts> {
    let path = Path::parse(b"/graphql").unwrap();
    match read(&body(kind), fields, "POST", &path, bytes, true) {
        Progress::Done(facts_list) => facts_list,
        Progress::Malformed(_) => Vec::new(),
        Progress::More => panic!("more than all of it"),
    }
}

/// Whether a document contains the word `mutation` outside strings, comments and brackets.
fn mutates(document: &str) -> bool {
    let mut rest = document;
    let (mut depth, mut plain) = (0_i32, String::new());
    while let Some(first) = rest.chars().next() {
        let block = rest.strip_prefix("\"\"\"");
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
        match first {
            '"' if block.is_some() => {
                let text = block.unwrap_or_default().replace("\\\"\"\"", "    ");
                let end = text.find("\"\"\"").map_or(text.len(), |end| end + 3);
                rest = &rest[(2 + end).min(rest.len())..];
            }
            '"' => {
                let mut escaped = false;
                let is_end = |it: char| {
                    let ends = it == '"' && !escaped;
                    escaped = it == '\\' && !escaped;
                    ends
                };
                let end = rest.find(is_end).map_or(rest.len(), |end| end + 1);
                rest = &rest[end..];
            }
            '#' => {
                let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
                rest = &rest[end..];
            }
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ if depth == 0 => plain.push(first),
            _ => {}
        }
        if matches!(first, '{' | '}' | '(' | ')' | '"' | '#') {
            plain.push(' ');
        }
    }
    let words = plain.split(|it: char| !it.is_alphanumeric() && it != '_');
    let mut before = "";
    for word in words.filter(|word| !word.is_empty()) {
        // `query mutation` and `fragment mutation on mutation` are names.
        let is_name = ["query", "subscription", "fragment", "on"].contains(&before);
        if word == "mutation" && !is_name && before != "mutation" {
            return true;
        }
        before = word;
    }
    false
}

proptest! {
    #[test]
    fn a_changed_push_names_each_ref_that_it_has(bytes in changed(PUSHES)) {
        for request_facts in done(Body::GitPush, &Fields::default(), &bytes) {
            let Some(reference) = request_facts.reference.as_deref() else {
                prop_assert_eq!(request_facts.operation.as_deref(), Some("push-probe"));
                prop_assert_eq!(bytes.as_slice(), b"0000");
                continue;
            };
            prop_assert_eq!(request_facts.action, Some(Action::Write));
            prop_assert!(git::is_ref(reference));
            let found = bytes.windows(reference.len()).any(|part| part == reference.as_bytes());
            prop_assert!(found, "{reference}");
        }
    }

    #[test]
    fn a_changed_fetch_reads_only_what_a_fetch_may_carry(bytes in changed(FETCHES)) {
        let facts_list = done(Body::GitFetch, &Fields::default(), &bytes);
        let [request_facts] = facts_list.as_slice() else { panic!("{facts_list:?}") };
        if request_facts.action == Some(Action::Read) {
            prop_assert_eq!(request_facts.operation.as_deref(), Some("fetch"));
            let is_control = |byte: &&u8| byte.is_ascii_control() && **byte != b'\n';
            prop_assert_eq!(bytes.iter().find(is_control), None);
        }
    }

    #[test]
    fn a_changed_document_reads_only_without_a_mutation(bytes in changed(GRAPHQL)) {
        let fields = Fields { content_type: Some(b"application/json"), ..Fields::default() };
        let facts_list = done(Body::GraphQl, &fields, &bytes);
        prop_assert!(!facts_list.is_empty());
        if facts_list.iter().all(|request_facts| request_facts.action == Some(Action::Read)) {
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let list = value.as_array().cloned().unwrap_or_else(|| vec![value]);
            for request in list {
                let document = request["query"].as_str().unwrap();
                prop_assert!(!mutates(document), "{document}");
            }
        }
    }

    #[test]
    fn a_changed_message_calls_the_tool_that_a_parser_sees(bytes in changed(MESSAGES)) {
        let facts_list = done(Body::Mcp, &Fields::default(), &bytes);
        if facts_list.is_empty() {
            return Ok(());
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let list = value.as_array().cloned().unwrap_or_else(|| vec![value]);
        prop_assert_eq!(list.len(), facts_list.len());
        for (message, request_facts) in list.iter().zip(&facts_list) {
            let call = request_facts.mcp.as_ref().unwrap();
            prop_assert_eq!(call.method.as_deref(), message["method"].as_str());
            if call.method.as_deref() == Some("tools/call") {
                prop_assert_eq!(call.tool.as_deref(), message["params"]["name"].as_str());
            }
            if call.method.as_deref() == Some("tools/call") {
                let found = mcp::recognise(&Fields::default(), &bytes, true);
                prop_assert_eq!(found, mcp::Recognised::Yes);
            }
        }
    }
}
