//! Writes the heads that are passed on anew from their parsed form.
//!
//! Fields for one hop end at the gate (RFC 9110 section 7.6.1), fields for the proxy do not reach
//! origins, and the gate writes the framing. The other fields keep their order and spelling.

use crate::decimal;
use crate::dial::Through;
use crate::name::{Host, Path, Target};
use std::net::IpAddr;

use super::fields::{Field, Fields, Name, contains_gate, elements, names_gate};
use super::{BodyLength, RequestHead, ResponseHead, Version};

/// Where and how a request is passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Onward<'r> {
    /// The target, written as `Host`.
    pub(crate) target: &'r Target,
    /// The path, written as the target of the request.
    pub(crate) path: &'r Path,
    /// The gate's name in `Via`.
    pub(crate) via: &'r str,
    /// Whether the client's upgrade request is passed on.
    pub(crate) upgrade: bool,
    /// The parent proxy, if any: it gets the absolute form and the gate's credentials.
    pub(crate) through: Option<&'r Through>,
    /// Whether the request goes over TLS, which decides the port that `Host` leaves out.
    pub(crate) tls: bool,
    /// Whether the response must have no content coding.
    pub(crate) plain: bool,
}

/// The recipient of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Client {
    /// The version of its request.
    pub(crate) version: Version,
    /// Whether the client would send another request.
    pub(crate) keep_alive: bool,
}

/// The framing of the body that a response announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// How the body has to be written.
    pub(crate) body: BodyLength,
    /// Whether the connection stays open after the body.
    pub(crate) keep_alive: bool,
}

/// Writes the head of a request for its origin; the body keeps its framing.
pub(crate) fn encode_request(head: &RequestHead, onward: Onward<'_>, out: &mut Vec<u8>) {
    out.reserve(head.len() + 256);
    let method = head.method.as_str();
    let parent = onward.through.filter(|through| through.absolute);
    put(out, &[method.as_bytes(), b" "]);
    if parent.is_some() {
        put(out, &[b"http://"]);
        put_host(onward.target, onward.tls, out);
    }
    put(
        out,
        &[onward.path.as_str().as_bytes(), b" HTTP/1.1\r\nHost: "],
    );
    put_host(onward.target, onward.tls, out);
    put(out, &[b"\r\n"]);
    if let Some(who) = parent.and_then(|through| through.authorization.as_ref()) {
        let who = who.as_str().as_bytes();
        put(out, &[b"Proxy-Authorization: ", who, b"\r\n"]);
    }
    onward_fields(head, onward, |name, value| put_field((name, value), out));
    put(out, &[b"\r\n"]);
}

/// Calls `put` with the name and value of each field of a request for its origin: all but `Host`
/// and the fields for a parent.
pub(crate) fn onward_fields(
    head: &RequestHead,
    onward: Onward<'_>,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let listed = head.fields.connection_names_fields();
    for field in head.fields.iter() {
        let passes = match field.known {
            Name::Expect => head.expect_continue,
            Name::Other if onward.plain && field.name.eq_ignore_ascii_case(b"accept-encoding") => {
                false
            }
            Name::Other | Name::UserAgent => !(listed && is_listed(&head.fields, field)),
            Name::Via => true,
            _ => false,
        };
        if passes {
            put(field.name, field.value);
        }
    }
    let via = [via_version(head.version), onward.via.as_bytes()].concat();
    put(b"Via", &via);
    put_length(head.body.onward(), &mut put);
    let upgrade = head.upgrade().filter(|_| onward.upgrade);
    let trailers = head
        .fields
        .elements(Name::Te)
        .any(|te| te.eq_ignore_ascii_case(b"trailers"));
    match (upgrade, trailers) {
        (Some(protocol), _) => {
            put(b"Connection", b"Upgrade");
            put(b"Upgrade", protocol.as_bytes());
        }
        (None, true) => {
            put(b"TE", b"trailers");
            put(b"Connection", b"TE");
        }
        (None, false) => {}
    }
}

/// Writes the head of a response for its client, and returns the announced framing.
///
/// Chunks are for HTTP/1.1 only: otherwise a body without a length ends with the connection or
/// stream. Interim responses are never for HTTP/1.0; the caller leaves them out.
pub(crate) fn encode_response(
    head: &ResponseHead,
    client: Client,
    via: &str,
    out: &mut Vec<u8>,
) -> Answer {
    let answer = answer(head, client);
    out.reserve(head.len() + 128);
    // Many clients show only the reason phrase of a refusal: an origin must not imitate the gate's.
    let reason = Some(head.reason()).filter(|reason| !contains_gate(reason));
    let reason = reason.unwrap_or_default();
    put(out, &[b"HTTP/1.1 "]);
    decimal::put_padded(out, head.status.into(), 3);
    put(out, &[b" ", reason, b"\r\n"]);
    let listed = head.fields.connection_names_fields();
    for field in head.fields.iter() {
        let passes = match field.known {
            // The field announces QUIC, which bypasses every proxy.
            Name::Other if field.name.eq_ignore_ascii_case(b"alt-svc") => false,
            // Some servers read `_` as `-`: it would be a field that ends at the gate.
            Name::Other if Name::is_disguised(field.name) => false,
            Name::Other | Name::UserAgent => !(listed && is_listed(&head.fields, field)),
            Name::Trailer => answer.body == BodyLength::Chunked,
            Name::Upgrade => head.is_upgrade(),
            Name::Forwarded => true,
            Name::Via => {
                put_foreign_via(field, out);
                false
            }
            _ => false,
        };
        if passes {
            put_field((field.name, field.value), out);
        }
    }
    put(
        out,
        &[b"Via: ", via_version(head.version), via.as_bytes(), b"\r\n"],
    );
    if head.is_upgrade() {
        put(out, &[b"Connection: Upgrade\r\n"]);
    } else if !head.is_interim() {
        put_length(promised(head, answer), &mut |name, value| {
            put_field((name, value), out);
        });
        match (answer.keep_alive, client.version) {
            (false, _) => put(out, &[b"Connection: close\r\n"]),
            (true, Version::Http10) => put(out, &[b"Connection: keep-alive\r\n"]),
            (true, Version::Http11 | Version::Http2) => {}
        }
    }
    put(out, &[b"\r\n"]);
    answer
}

fn answer(head: &ResponseHead, client: Client) -> Answer {
    let body = match head.body {
        BodyLength::Chunked | BodyLength::UntilClose if client.version == Version::Http11 => {
            BodyLength::Chunked
        }
        BodyLength::Chunked | BodyLength::UntilClose => BodyLength::UntilClose,
        known => known,
    };
    Answer {
        body,
        keep_alive: client.keep_alive && body != BodyLength::UntilClose,
    }
}

/// Returns the length that the head announces: responses to HEAD and 304 have a length without a
/// body.
fn promised(head: &ResponseHead, answer: Answer) -> BodyLength {
    match (answer.body, head.said_length) {
        (BodyLength::None, Some(length)) if head.status != 204 => BodyLength::Length(length),
        (body, _) => body,
    }
}

/// Whether `Connection` names the field, which then ends at the gate.
fn is_listed(fields: &Fields, field: Field<'_>) -> bool {
    fields
        .elements(Name::Connection)
        .any(|option| option.eq_ignore_ascii_case(field.name))
}

/// Writes the authority of a target, without the default port of the scheme.
pub(crate) fn put_host(target: &Target, tls: bool, out: &mut Vec<u8>) {
    match &target.host {
        Host::Name(name) => put(out, &[name.as_str().as_bytes()]),
        Host::Address(IpAddr::V6(address)) => put(out, &[format!("[{address}]").as_bytes()]),
        Host::Address(IpAddr::V4(address)) => decimal::put_ipv4(out, *address),
    }
    if target.port != if tls { 443 } else { 80 } {
        put(out, &[b":"]);
        decimal::put(out, target.port.into());
    }
}

fn put_field((name, value): (&[u8], &[u8]), out: &mut Vec<u8>) {
    put(out, &[name, b": ", value, b"\r\n"]);
}

/// Writes the `Via` of a response, without the elements that look like a gate.
fn put_foreign_via(field: Field<'_>, out: &mut Vec<u8>) {
    if !contains_gate(field.value) {
        return put_field((field.name, field.value), out);
    }
    let mut before: &[u8] = b"Via: ";
    for element in elements(field.value).filter(|element| !names_gate(element)) {
        put(out, &[before, element]);
        before = b", ";
    }
    if before == b", " {
        put(out, &[b"\r\n"]);
    }
}

/// Returns the version of a message as `Via` writes it (RFC 9110 section 7.6.3).
fn via_version(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
        Version::Http2 => b"2.0 ",
    }
}

fn put_length(body: BodyLength, put: &mut impl FnMut(&[u8], &[u8])) {
    match body {
        BodyLength::Chunked => put(b"Transfer-Encoding", b"chunked"),
        BodyLength::Length(length) => {
            let mut text = [0; 20];
            let mut room = &mut text[..];
            decimal::put(&mut room, length);
            let free = room.len();
            put(b"Content-Length", text.get(..20 - free).unwrap_or_default());
        }
        BodyLength::None | BodyLength::UntilClose => {}
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::super::{Asked, HeadLimits, parse_request, parse_response, via_has};
    use super::*;

    fn request(text: &str) -> RequestHead {
        let text = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        let limits = HeadLimits {
            bytes: 4096,
            fields: 32,
        };
        let head = parse_request(&mut BytesMut::from(text.as_bytes()), limits);
        head.expect("good").expect("whole")
    }

    fn response(text: &str, asked: Asked) -> ResponseHead {
        let text = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        let head = parse_response(&mut BytesMut::from(text.as_bytes()), asked);
        head.expect("good").expect("whole")
    }

    /// Returns the head that is passed on for `text`, with plain line ends.
    fn onward(text: &str, port: u16, upgrade: bool) -> String {
        let authority = format!("a.example:{port}");
        let target = Target::from_connect(authority.as_bytes()).expect("a target");
        let path = Path::parse(b"/p?q=1").expect("a path");
        let mut out = Vec::new();
        let onward = Onward {
            target: &target,
            path: &path,
            via: "tidegate-7",
            upgrade,
            through: None,
            tls: false,
            plain: false,
        };
        encode_request(&request(text), onward, &mut out);
        plain(&out)
    }

    fn back(text: &str, asked: Asked, client: Client) -> (String, Answer) {
        let mut out = Vec::new();
        let answer = encode_response(&response(text, asked), client, "tidegate-7", &mut out);
        (plain(&out), answer)
    }

    fn plain(out: &[u8]) -> String {
        let text = std::str::from_utf8(out).expect("ASCII");
        assert!(text.ends_with("\r\n\r\n"), "{text:?}");
        text.trim_end().replace("\r\n", "\n")
    }

    const GET: Asked = Asked {
        head: false,
        upgrade: false,
    };
    const KEPT: Client = Client {
        version: Version::Http11,
        keep_alive: true,
    };
    const OLD: Client = Client {
        version: Version::Http10,
        keep_alive: true,
    };

    #[test]
    fn a_request_goes_on_without_what_was_meant_for_us() {
        let text = "GET http://a.example/p?q=1 HTTP/1.1\nHost: b.example\naCCept: */*\n\
            Proxy-Authorization: Basic eDp5\nProxy-Connection: keep-alive\nProxy-Foo: x\n\
            Connection: keep-alive, X-Hop, Host, Via\nKeep-Alive: 5\nTE: gzip\nTrailer: A\n\
            Upgrade: websocket\nHTTP2-Settings: x\nX-Hop: 1\nX-Tidegate-Flow: 1\nVia: 1.0 old\n\
            User-Agent: curl/8\nCookie: a=b";
        assert_eq!(
            onward(text, 80, true),
            "GET /p?q=1 HTTP/1.1\nHost: a.example\naCCept: */*\nVia: 1.0 old\n\
             User-Agent: curl/8\nCookie: a=b\nVia: 1.1 tidegate-7"
        );
    }

    #[test]
    fn the_port_is_told_unless_it_is_the_usual_one() {
        let text = "GET http://a.example:8080/ HTTP/1.0";
        assert_eq!(
            onward(text, 8080, false),
            "GET /p?q=1 HTTP/1.1\nHost: a.example:8080\nVia: 1.0 tidegate-7"
        );
        assert!(onward(text, 8080, false).contains("Host: a.example:8080\n"));
        assert!(onward(text, 180, false).contains("Host: a.example:180\n"));
        assert!(onward(text, 80, false).contains("Host: a.example\n"));
    }

    #[test]
    fn connection_cannot_take_away_the_framing() {
        let text = "POST http://a.example/ HTTP/1.1\nHost: a.example\nContent-Length: 5\n\
            Expect: 100-continue\nConnection: content-length, host, expect";
        assert_eq!(
            onward(text, 80, false),
            "POST /p?q=1 HTTP/1.1\nHost: a.example\nExpect: 100-continue\nVia: 1.1 tidegate-7\n\
             Content-Length: 5"
        );
    }

    #[test]
    fn upgrades_and_trailers_go_on_only_where_allowed() {
        let text =
            "GET http://a.example/ HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket";
        assert!(onward(text, 80, true).ends_with("\nConnection: Upgrade\nUpgrade: websocket"));
        assert!(!onward(text, 80, false).contains("pgrade"));
        let text = "GET http://a.example/ HTTP/1.1\nHost: a\nTE: gzip, trailers";
        assert!(onward(text, 80, false).ends_with("\nTE: trailers\nConnection: TE"));
    }

    #[test]
    fn a_loop_shows_in_via() {
        let head = request("GET / HTTP/1.1\nHost: a\nVia: 1.1 x, 1.1 tidegate-7 (y), 1.1 z");
        assert!(via_has(&head.fields, "tidegate-7"));
        assert!(!via_has(&head.fields, "tidegate"));
        assert!(!via_has(&head.fields, "1.1"));
    }

    #[test]
    fn a_response_is_framed_anew_for_its_client() {
        for (text, client, expected, body, keep_alive) in [
            (
                "HTTP/1.1 200 OK\nContent-Length: 5, 5\nConnection: close, X-Hop\nX-Hop: 1\nServer: x\nProxy-Status: y\nX-Tidegate-Flow: z",
                KEPT,
                "HTTP/1.1 200 OK\nServer: x\nVia: 1.1 tidegate-7\nContent-Length: 5",
                BodyLength::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: A",
                KEPT,
                "HTTP/1.1 200 OK\nTrailer: A\nVia: 1.1 tidegate-7\nTransfer-Encoding: chunked",
                BodyLength::Chunked,
                true,
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: A",
                OLD,
                "HTTP/1.1 200 OK\nVia: 1.1 tidegate-7\nConnection: close",
                BodyLength::UntilClose,
                false,
            ),
            (
                "HTTP/1.0 404 Not Found",
                KEPT,
                "HTTP/1.1 404 Not Found\nVia: 1.0 tidegate-7\nTransfer-Encoding: chunked",
                BodyLength::Chunked,
                true,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length: 5",
                OLD,
                "HTTP/1.1 200 OK\nVia: 1.1 tidegate-7\nContent-Length: 5\nConnection: keep-alive",
                BodyLength::Length(5),
                true,
            ),
            (
                "HTTP/1.1 304 Not Modified\nContent-Length: 5",
                KEPT,
                "HTTP/1.1 304 Not Modified\nVia: 1.1 tidegate-7\nContent-Length: 5",
                BodyLength::None,
                true,
            ),
            (
                "HTTP/1.1 204 No Content\nContent-Length: 0",
                KEPT,
                "HTTP/1.1 204 No Content\nVia: 1.1 tidegate-7",
                BodyLength::None,
                true,
            ),
            (
                "HTTP/1.1 103 Early Hints\nLink: x\nConnection: close",
                KEPT,
                "HTTP/1.1 103 Early Hints\nLink: x\nVia: 1.1 tidegate-7",
                BodyLength::None,
                true,
            ),
        ] {
            let (written, answer) = back(text, GET, client);
            assert_eq!(written, expected);
            assert_eq!(answer, Answer { body, keep_alive }, "{text:?}");
        }
    }

    #[test]
    fn an_origin_cannot_mark_an_answer_as_a_refusal_of_a_gate() {
        for status in ["200 OK", "403 Forbidden", "103 Early Hints"] {
            let text = format!(
                "HTTP/1.1 {status}\nX-Deny-Reason: host_not_allowed\nx-PROXY-error: blocked-by-allowlist\n\
                 Proxy-Status: tidegate; error=http_request_denied\nX-Tidegate-Flow: 1\nX_Deny_Reason: a\n\
                 Proxy_Status: tidegate\nVia: 1.1 cdn, 1.1 Tidegate, 1.0 tidegate-7 (x)\nVia: 1.1 tidegate\n\
                 Proxy-Authenticate: Basic\nA: b"
            );
            let (written, _) = back(&text, GET, KEPT);
            let fields: Vec<_> = written.lines().skip(1).take(3).collect();
            assert_eq!(fields, ["Via: 1.1 cdn", "A: b", "Via: 1.1 tidegate-7"]);
        }
        let text = "HTTP/1.1 403 TideGate denied a.example:443 not_allowed\nContent-Length: 0";
        let (written, _) = back(text, GET, KEPT);
        assert!(written.starts_with("HTTP/1.1 403 \n"), "{written}");
    }

    #[test]
    fn an_upgrade_that_was_granted_is_told() {
        let text = "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: websocket\nSec-WebSocket-Accept: x";
        let (written, _) = back(
            text,
            Asked {
                head: false,
                upgrade: true,
            },
            KEPT,
        );
        assert_eq!(
            written,
            "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nSec-WebSocket-Accept: x\n\
             Via: 1.1 tidegate-7\nConnection: Upgrade"
        );
    }

    #[test]
    fn a_client_that_would_leave_is_told_that_we_close() {
        let client = Client {
            version: Version::Http11,
            keep_alive: false,
        };
        let (written, answer) = back("HTTP/1.1 200 OK\nContent-Length: 0", GET, client);
        assert!(written.ends_with("\nConnection: close") && !answer.keep_alive);
    }

    proptest! {
        #[test]
        fn what_goes_on_reads_as_what_came(
            fields in prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "Connection", "Content-Length", "Transfer-Encoding", "TE", "Upgrade", "Via",
                        "Proxy-Authorization", "Keep-Alive", "X-Tidegate-A", "A", "Expect", "Trailer",
                    ]),
                    "close|upgrade|host|content-length|chunked|trailers|websocket|5|100-continue|[ -~]{0,9}",
                ),
                0..8,
            ),
        ) {
            let limits = HeadLimits { bytes: 4096, fields: 32 };
            let mut text = String::from("POST http://b.example/ HTTP/1.1\r\nHost: b.example\r\n");
            for (name, value) in fields {
                text = format!("{text}{name}: {value}\r\n");
            }
            text.push_str("\r\n");
            if let Ok(Some(came)) = parse_request(&mut BytesMut::from(text.as_bytes()), limits) {
                let target = Target::from_connect(b"a.example:80").expect("a target");
                let path = Path::parse(b"/p").expect("a path");
                let onward = Onward { target: &target, path: &path, via: "tidegate-7", upgrade: true, tls: false, plain: false, through: None };
                let mut out = Vec::new();
                encode_request(&came, onward, &mut out);
                let mut out = BytesMut::from(&out[..]);
                let went = parse_request(&mut out, limits).expect("good").expect("whole");
                prop_assert!(out.is_empty());
                prop_assert_eq!((went.body, went.host()), (came.body, Some(&b"a.example"[..])));
                prop_assert_eq!(went.upgrade(), came.upgrade());
                prop_assert_eq!(went.expect_continue, came.expect_continue);
                prop_assert!(went.keep_alive && via_has(&went.fields, "tidegate-7"));
                for name in [Name::ProxyAuthorization, Name::KeepAlive, Name::Tidegate, Name::Trailer] {
                    prop_assert!(went.fields.first(name).is_none());
                }
            }
        }
    }
}
