use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::super::tests::{body, facts_list};
use super::*;
use crate::policy::Body;
use proptest::prelude::*;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"name":"x"},"_meta":{"claudecode/toolUseId":"toolu_1"}}}"#;

fn posted(fields: &Fields<'_>, text: &str) -> Progress {
    read(&body(Body::Mcp), fields, "POST", text.as_bytes())
}

fn plain(text: &str) -> Progress {
    posted(&Fields::default(), text)
}

fn calls(progress: Progress) -> Vec<McpCall> {
    facts_list(progress)
        .into_iter()
        .map(|request_facts| request_facts.mcp.unwrap())
        .collect()
}

fn is_refused(progress: &Progress) -> bool {
    matches!(progress, Progress::Malformed(_))
}

fn seen(bytes: &[u8], ended: bool) -> Recognised {
    recognise(&Fields::default(), bytes, ended)
}

fn recognised(text: &str, ended: bool) -> bool {
    seen(text.as_bytes(), ended) == Recognised::Yes
}

fn message(method: &str, rest: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"{rest}}}"#)
}

#[test]
fn a_call_says_its_tool() {
    let facts_list = facts_list(plain(CALL));
    assert_eq!(facts_list.len(), 1);
    assert_eq!(facts_list[0].operation.as_deref(), Some("tools/call"));
    assert_eq!(facts_list[0].action, Some(Action::Call));
    let wanted = McpCall {
        server: Some("docs".into()),
        method: Some("tools/call".into()),
        tool: Some("search".into()),
        tool_use_id: Some("toolu_1".into()),
    };
    assert_eq!(facts_list[0].mcp, Some(wanted));
}

#[test]
fn resources_and_prompts_have_names_too() {
    let tool = |text: &str| calls(plain(text))[0].tool.clone();
    let read = message("resources/read", r#","params":{"uri":"file:///a"}"#);
    assert_eq!(tool(&read).as_deref(), Some("file:///a"));
    let get = message("prompts/get", r#","params":{"name":"p"}"#);
    assert_eq!(tool(&get).as_deref(), Some("p"));
    assert_eq!(
        tool(&message("tools/list", r#","params":{"name":"x"}"#)),
        None
    );
    assert_eq!(tool(&message("ping", "")), None);
    assert_eq!(tool(&message("ping", r#","params":null"#)), None);
}

#[test]
fn answers_and_notifications_are_read() {
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{}}"#,
    ] {
        let facts_list = facts_list(plain(text));
        assert_eq!(facts_list[0].operation.as_deref(), Some("response"));
        assert_eq!(facts_list[0].mcp.as_ref().unwrap().method, None);
    }
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(
        calls(plain(notice))[0].method.as_deref(),
        Some("notifications/initialized")
    );
}

#[test]
fn each_message_of_a_batch_is_judged() {
    let text = format!("[{CALL}, {}]", message("tools/list", ""));
    let calls = calls(plain(&text));
    let methods: Vec<_> = calls
        .iter()
        .filter_map(|call| call.method.as_deref())
        .collect();
    assert_eq!(methods, ["tools/call", "tools/list"]);
    let versioned = |version: &'static [u8]| {
        let fields = Fields {
            mcp_protocol_version: Some(version),
            ..Fields::default()
        };
        posted(&fields, &text)
    };
    assert!(!is_refused(&versioned(b"2025-03-26")));
    assert!(is_refused(&versioned(b"2025-06-18")));
    assert!(is_refused(&versioned(b"2026-07-28")));
    assert!(is_refused(&plain("[]")));
    assert!(is_refused(&plain(&format!("[[{CALL}]]"))));
    assert!(is_refused(&plain(&format!("[{CALL},1]"))));
    let long = format!("[{}{CALL}]", format!("{CALL},").repeat(MAX_MESSAGES));
    assert!(is_refused(&plain(&long)));
}

#[test]
fn a_message_has_one_reading() {
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"PARAMS":{"name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"param\u017f":{"name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["a"]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a\u0000"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":""}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call ","params":{"name":"a"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"a"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a "}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"x":1,"x":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":""}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
        "",
        "null",
        "\u{feff}{}",
    ] {
        assert!(is_refused(&plain(text)), "{text}");
    }
    let long = message(
        "tools/call",
        &format!(r#","params":{{"name":"{}"}}"#, "a".repeat(129)),
    );
    assert!(is_refused(&plain(&long)));
}

#[test]
fn a_message_is_not_nested_without_end() {
    let nested = |depth: usize| {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        message("ping", &format!(r#","params":{{"a":{value}}}"#))
    };
    assert!(!is_refused(&plain(&nested(60))));
    assert!(is_refused(&plain(&nested(65))));
    assert!(is_refused(&plain(&nested(1 << 20))));
}

/// Returns the headers of the newest version.
fn newest(method: &'static [u8], name: Option<&'static [u8]>) -> Fields<'static> {
    Fields {
        mcp_protocol_version: Some(b"2026-07-28"),
        mcp_method: Some(method),
        mcp_name: name,
        ..Fields::default()
    }
}

#[test]
fn headers_and_body_agree() {
    let good = newest(b"tools/call", Some(b"search"));
    assert!(!is_refused(&posted(&good, CALL)));
    let encoded = newest(b"tools/call", Some(b"=?base64?c2VhcmNo?="));
    assert!(!is_refused(&posted(&encoded, CALL)));
    for wrong in [
        newest(b"tools/list", Some(b"search")),
        newest(b"Tools/Call", Some(b"search")),
        newest(b"tools/call", Some(b"other")),
        newest(b"tools/call", Some(b"=?base64?b3RoZXI=?=")),
        newest(b"tools/call", Some(b"=?base64?!?=")),
        newest(b"tools/call", Some(b"\xff")),
        newest(b"tools/call", None),
        Fields {
            mcp_method: None,
            ..good
        },
    ] {
        assert!(is_refused(&posted(&wrong, CALL)), "{wrong:?}");
    }
    // Also if the version does not require them.
    let old = Fields {
        mcp_protocol_version: Some(b"2025-06-18"),
        ..newest(b"tools/list", None)
    };
    assert!(is_refused(&posted(&old, CALL)));
    let list = message("tools/list", "");
    assert!(!is_refused(&posted(&newest(b"tools/list", None), &list)));
    assert!(is_refused(&posted(
        &newest(b"tools/list", Some(b"x")),
        &list
    )));
}

#[test]
fn a_version_is_the_same_in_header_and_body() {
    let of = |version: &str| {
        let meta = format!(
            r#","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}}}}"#
        );
        message("tools/list", &meta)
    };
    assert!(!is_refused(&posted(
        &newest(b"tools/list", None),
        &of("2026-07-28")
    )));
    assert!(is_refused(&posted(
        &newest(b"tools/list", None),
        &of("2025-06-18")
    )));
    assert!(
        is_refused(&plain(&of("2026-07-28"))),
        "its headers are missing"
    );
    assert!(!is_refused(&plain(&of("2025-06-18"))));
}

#[test]
fn what_cannot_be_seen_through_is_refused() {
    let gzip = Fields {
        content_encoding: Some(b"gzip"),
        ..Fields::default()
    };
    let seven = Fields {
        content_type: Some(b"application/json; charset=utf-7"),
        ..Fields::default()
    };
    assert!(is_refused(&posted(&gzip, CALL)));
    assert!(is_refused(&posted(&seven, CALL)));
}

#[test]
fn streams_and_the_end_of_a_session_have_no_message() {
    let of = |method: &str, bytes: &[u8]| read(&body(Body::Mcp), &Fields::default(), method, bytes);
    let operation = |method: &str| facts_list(of(method, b""))[0].operation.clone().unwrap();
    assert_eq!(&*operation("GET"), "stream");
    assert_eq!(&*operation("DELETE"), "end-session");
    assert!(is_refused(&of("GET", CALL.as_bytes())));
    assert!(is_refused(&of("PUT", b"")));
}

#[test]
fn messages_are_found_without_an_announced_server() {
    for text in [
        CALL,
        &format!(" [{CALL}]"),
        &format!("[1, {CALL}"),
        &format!("{{}} {CALL}"),
        &format!("{CALL} trailing"),
        &CALL[..60],
        &format!("\u{feff}{CALL}"),
        r#"{"method":"initialize","x":{"a":[1]},"jsonrpc":"2.0"}"#,
        r#"{"METHOD":"tools/list","jsonrpc":"2.0"}"#,
        r#"{"method":"x","method":"tools/list","jsonrpc":"2.0"}"#,
        r#"{"m\u0065thod":"tools\/list","jsonrpc":"2.0"}"#,
    ] {
        assert!(recognised(text, true), "{text}");
    }
    for text in [
        "",
        "[]",
        r#"{"jsonrpc":"2.0","method":"eth_call"}"#,
        r#"{"method":"tools/list"}"#,
        r#"{"a":{"jsonrpc":"2.0","method":"tools/list"}}"#,
        r#"[{"jsonrpc":"2.0"},{"method":"tools/list"}]"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
    ] {
        assert!(!recognised(text, true), "{text}");
    }
    assert!(!recognised(&"[".repeat(1 << 20), true));
}

#[test]
fn a_message_cannot_hide_behind_its_length_or_a_key_that_is_no_text() {
    for text in [
        r#"{"method":"tools/call","params":{"arguments":{"x":"aaa"#,
        r#"{"jsonrpc":"2.0","id":1,"params":{"x":"aaa"#,
        r#"[{}, {"jsonrpc":"2.0","x":"#,
    ] {
        assert!(recognised(text, false), "{text}");
        assert!(!recognised(text, true), "{text}");
    }
    for text in [
        r#"{"jsonrpc":"2.0","method":"eth_call","params":["aaa"#,
        r#"{"index":{}}"#,
        r#""{"#,
    ] {
        assert_eq!(seen(text.as_bytes(), false), Recognised::No, "{text}");
    }
    let deep = format!("{{\"x\":{}", "[".repeat(1000));
    for text in [
        r#"{"x":"aaa"#,
        r#"{"aaaaaa"#,
        "{",
        "[1, 2, ",
        r#"[{"jsonrpc":"2.0","method":"eth_call"}, "#,
        &deep,
    ] {
        assert_eq!(
            seen(text.as_bytes(), false),
            Recognised::Undecided,
            "{text}"
        );
        assert_eq!(seen(text.as_bytes(), true), Recognised::No, "{text}");
    }
    let odd = r#"{"\ud800":1,"jsonrpc":"2.0","method":"tools/call"}"#;
    assert!(recognised(odd, true), "half a surrogate pair");
    let latin = b"{\"\xe9\":1,\"jsonrpc\":\"2.0\",\"method\":\"tools/call\"}";
    assert_eq!(seen(latin, true), Recognised::Yes, "another charset");
    assert!(!recognised("{a: 1}", true));
}

/// Recognises a body that is compressed by this coding.
fn coded(coding: &str, bytes: &[u8], ended: bool) -> Recognised {
    let fields = Fields {
        content_encoding: Some(coding.as_bytes()),
        ..Fields::default()
    };
    recognise(&fields, bytes, ended)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_message_cannot_hide_in_an_encoding() {
    for big in [false, true] {
        let unit = |it: u16| {
            if big {
                it.to_be_bytes()
            } else {
                it.to_le_bytes()
            }
        };
        let wide: Vec<u8> = CALL.encode_utf16().flat_map(unit).collect();
        let mark = unit(0xfeff).to_vec();
        assert_eq!(seen(&wide, true), Recognised::Yes);
        assert_eq!(seen(&[mark, wide.clone()].concat(), true), Recognised::Yes);
        let zipped = gzip(&wide);
        assert_eq!(coded("gzip", &zipped, true), Recognised::Yes);
        let unit = |it: char| {
            if big {
                u32::from(it).to_be_bytes()
            } else {
                u32::from(it).to_le_bytes()
            }
        };
        let wide: Vec<u8> = CALL.chars().flat_map(unit).collect();
        assert_eq!(seen(&wide, true), Recognised::Yes);
    }
}

#[test]
fn a_message_cannot_hide_in_a_coding() {
    let zipped = gzip(CALL.as_bytes());
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::fast());
    deflated.write_all(CALL.as_bytes()).unwrap();
    let deflated = deflated.finish().unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(CALL.as_bytes()).unwrap();
    let zlib = zlib.finish().unwrap();
    for (coding, bytes) in [
        ("gzip", &zipped),
        ("X-GZIP", &zipped),
        ("identity, gzip", &zipped),
        ("deflate", &deflated),
        ("deflate", &zlib),
    ] {
        assert_eq!(coded(coding, bytes, true), Recognised::Yes, "{coding}");
    }
    let twice = [gzip(b" "), zipped.clone()].concat();
    assert_eq!(coded("gzip", &twice, true), Recognised::Yes, "two members");
    let bomb = gzip(&[&b"{\"a\":\""[..], &vec![b'a'; 9 << 20]].concat());
    assert_eq!(coded("gzip", &bomb, true), Recognised::Undecided);
    assert_eq!(coded("gzip", &gzip(b"{}"), true), Recognised::No);
    assert_eq!(coded("gzip", &gzip(b"GIF89a"), true), Recognised::No);
    assert_eq!(coded("gzip", b"\x1f\x8b", false), Recognised::Undecided);
    assert_eq!(coded("gzip", b"\x1f\x8b", true), Recognised::Undecided);
    for coding in ["br", "zstd", "gzip, gzip", "gzip, br", "x"] {
        assert_eq!(coded(coding, b"x", true), Recognised::Undecided, "{coding}");
    }
    assert_eq!(
        coded("aws-chunked", b"5;chunk-signature", true),
        Recognised::No
    );
}

#[test]
fn blanks_and_a_mark_are_waited_out() {
    for (text, begins) in [
        (&b""[..], None),
        (b" \r\n", None),
        (b"\xef", None),
        (b"\xef\xbb\xbf ", None),
        (b"\xef\xbb\xbf {", Some(true)),
        (b"\t[", Some(true)),
        (b"\xef\xbbx", Some(false)),
        (b"--x", Some(false)),
    ] {
        assert_eq!(
            may_begin(&Fields::default(), text, &mut 0),
            begins,
            "{text:?}"
        );
    }
}

#[test]
fn a_refusal_has_the_id_of_what_it_refuses() {
    let refused = |text: &str| {
        let data = serde_json::json!({ "rule": "r" });
        let bytes = refusal(text.as_bytes(), -32001, "no", Some(&data))?;
        Some(String::from_utf8(bytes).unwrap())
    };
    let with = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32001,"message":"no","data":{{"rule":"r"}}}}}}"#
        )
    };
    assert_eq!(refused(CALL), Some(with("1")));
    assert_eq!(
        refused(r#"{"id":"a\"b","method":"x"}"#),
        Some(with(r#""a\"b""#))
    );
    assert_eq!(
        refused(r#"{"id":12345678901234567890123,"method":"x"}"#),
        Some(with("12345678901234567890123"))
    );
    assert_eq!(refused("?"), Some(with("null")));
    assert_eq!(
        refused(r#"{"id":{"a":1},"method":"x"}"#),
        Some(with("null"))
    );
    assert_eq!(refused(r#"{"method":"notifications/x"}"#), None);
    assert_eq!(refused(r#"{"id":1,"result":{}}"#), None);
    let batch = format!(r#"[{CALL},{{"method":"notifications/x"}},{{"id":2,"method":"x"}}]"#);
    assert_eq!(
        refused(&batch),
        Some(format!("[{},{}]", with("1"), with("2")))
    );
    assert_eq!(refused(r#"[{"method":"notifications/x"}]"#), None);
}

fn filtered(text: &str) -> Option<String> {
    let written = allowed_tools(text.as_bytes(), &|name| name.starts_with("ok"))?;
    Some(String::from_utf8(written).unwrap())
}

#[test]
fn a_list_of_tools_has_only_the_allowed_ones() {
    let list = r#"{"jsonrpc": "2.0",  "id":1,"result":{"tools":[{"name":"ok1","x":[1]}, {"name":"bad"},{"name":"ok2"}], "nextCursor":"c"}} "#;
    let wanted = r#"{"jsonrpc": "2.0",  "id":1,"result":{"tools":[{"name":"ok1","x":[1]},{"name":"ok2"}], "nextCursor":"c"}} "#;
    assert_eq!(filtered(list).as_deref(), Some(wanted));
    assert_eq!(filtered(wanted), None);
    assert_eq!(filtered(&format!("[{list}]")), Some(format!("[{wanted}]")));
    assert_eq!(
        filtered(r#"{"result":{"tools":[{"name":"bad"}]}}"#).as_deref(),
        Some(r#"{"result":{"tools":[]}}"#)
    );
    assert_eq!(filtered(r#"{"result":{"content":[{"name":"bad"}]}}"#), None);
    assert_eq!(filtered("x"), None);
    let twice =
        r#"{"result":{"tools":[{"name":"ok","n\u0061me":"bad"}],"tools":[{"name":"bad"}]}}"#;
    assert_eq!(
        filtered(twice).as_deref(),
        Some(r#"{"result":{"tools":[],"tools":[]}}"#)
    );
}

#[test]
fn a_list_in_a_stream_is_cut_as_well() {
    let stream = "id: 1\r\nevent: message\r\ndata: {\"result\":{\"tools\":[{\"name\":\"bad\"}]}}\r\n\r\ndata: {\"x\":1}\n\n";
    let wanted =
        "id: 1\r\nevent: message\r\ndata: {\"result\":{\"tools\":[]}}\r\n\r\ndata: {\"x\":1}\n\n";
    assert_eq!(filtered(stream).as_deref(), Some(wanted));
    let split = "data: {\"result\":\ndata:{\"tools\":[{\"name\":\"bad\"}]}}\n\n";
    assert_eq!(
        filtered(split).as_deref(),
        Some("data: {\"result\":\ndata: {\"tools\":[]}}\n\n")
    );
    assert_eq!(filtered(": ping\n\n"), None);
}

#[test]
fn whole_events_end_with_an_empty_line() {
    assert_eq!(whole_events(b"data: 1\n\ndata: 2\n"), 9);
    assert_eq!(whole_events(b"data: 1\r\n\r\nx"), 11);
    assert_eq!(whole_events(b"data: 1\n"), 0);
    assert_eq!(
        whole_events(b"data: 1\r\r"),
        0,
        "half of an end may be missing"
    );
}

proptest! {
    #[test]
    fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = seen(&bytes, true);
        for coding in ["gzip", "deflate", "br"] {
            let _ = coded(coding, &bytes, false);
        }
        refusal(&bytes, 1, "no", None);
        allowed_tools(&bytes, &|_| false);
        prop_assert!(whole_events(&bytes) <= bytes.len());
    }

    #[test]
    fn any_text_of_events_and_json_can_be_read(text in "(data: |event: endpoint|\r|\n|\\{\"result\":|\\{\"tools\":\\[|\\{\"name\":\"a\"\\}|[\\]}:,{\\[]|\"jsonrpc\":\"2.0\"|\"id\":1|\"method\":\"ping\"){0,20}") {
        let bytes = text.as_bytes();
        let _ = seen(bytes, true);
        refusal(bytes, 1, "no", None);
        if let Some(cut) = allowed_tools(bytes, &|_| false) {
            prop_assert!(allowed_tools(&cut, &|_| false).is_none());
        }
        // A body that is judged as a message is also recognised as one.
        if let Progress::Done(facts_list) = plain(&text) {
            let asks = facts_list.iter().any(|request_facts| request_facts.mcp.as_ref().unwrap().method.is_some());
            prop_assert_eq!(asks, recognised(&text, true));
        }
    }
}
