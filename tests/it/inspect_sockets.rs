//! WebSocket on streams of HTTP/2 (RFC 8441): offered where the origin offers it, its own
//! permission, and no other kind of tunnel.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::inspect_http2::{Bench, END_HEADERS, HEADERS, HOST, RST_STREAM, SETTINGS, both, frame};
use crate::kit::{Inside, Line, TIERS, inspected, until};

const UPGRADE: &str = "grant.upgrade = true\n";

type Client = SendRequest<Bytes>;
type Opened = (Response<RecvStream>, SendStream<Bytes>);

fn asking(protocol: &'static str, uri: &str) -> Request<()> {
    let mut request = Request::builder()
        .method("CONNECT")
        .uri(uri)
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat, other")
        .body(())
        .expect("a request");
    let protocol = Protocol::from_static(protocol);
    request.extensions_mut().insert(protocol);
    request
}

/// Asks for a WebSocket.
fn ask(bench: &Bench, client: &Client, path: &str) -> Opened {
    bench.send(client, asking("websocket", &bench.uri(path)), false)
}

/// A client whose streams may become a WebSocket.
fn offered(bench: &Bench) -> Client {
    let client = bench.connect();
    assert_eq!(bench.get(&client, "/first").0, 200);
    assert!(client.is_extended_connect_protocol_enabled());
    client
}

/// A WebSocket that was opened, and went both ways once.
fn opened(bench: &Bench, client: &Client, path: &str) -> (RecvStream, SendStream<Bytes>) {
    let (answer, mut send) = ask(bench, client, path);
    assert_eq!(answer.status(), 200, "{answer:?}");
    let mut body = answer.into_body();
    send.send_data("hello".into(), false).expect("open");
    assert_eq!(bench.data(&mut body), "hello");
    (body, send)
}

/// How the stream was reset.
#[track_caller]
fn reset(bench: &Bench, body: &mut RecvStream) -> Option<Reason> {
    bench.within(async {
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.reason(),
                None => panic!("an orderly end"),
            }
        }
    })
}

/// The close line of the last request that was judged.
fn closed(bench: &Bench) -> Line {
    let judged = bench.inside.judged();
    let last = judged.last().expect("a decision");
    bench.inside.gate.close(last.flow())
}

#[test]
fn a_websocket_over_http_2_passes_where_a_rule_lets_it() {
    let (origin, bench) = both(true, UPGRADE);
    let client = offered(&bench);
    let (answer, mut send) = ask(&bench, &client, "/ws?room=1");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    for gone in ["upgrade", "connection", "content-length"] {
        assert!(!answer.headers().contains_key(gone), "{answer:?}");
    }
    let mut body = answer.into_body();
    for text in ["one", "two"] {
        send.send_data(text.into(), false).expect("open");
        assert_eq!(bench.data(&mut body), text);
    }
    // The end of one side is passed on; the other ends for itself.
    send.send_data("three".into(), true).expect("open");
    assert_eq!(bench.all(body).0, "three");

    let seen = origin.request("/ws");
    let authority = format!("{HOST}:{}", bench.port);
    assert_eq!(seen.method(), "CONNECT");
    assert_eq!(seen.field(":protocol"), Some("websocket"));
    assert_eq!(seen.field(":authority"), Some(authority.as_str()));
    assert_eq!(seen.field("sec-websocket-version"), Some("13"));
    assert_eq!(seen.field("sec-websocket-protocol"), Some("chat, other"));
    assert_eq!(origin.connections(), 1, "no connection of its own");

    let judged = bench.inside.judged();
    let line = judged.last().expect("a decision");
    assert_eq!(line.verdict(), "allow");
    assert_eq!(line.text("http.request.method"), "GET");
    let close = bench.inside.gate.close(line.flow());
    assert_eq!(close.number("http.response.status_code"), 101, "{close:?}");
    assert_eq!(close.text("tidegate.end"), "closed", "{close:?}");
    assert_eq!(close.number("tidegate.bytes.out"), 11, "{close:?}");
    assert_eq!(close.number("tidegate.bytes.in"), 11, "{close:?}");
    assert_eq!(bench.get(&client, "/after").0, 200);
}

#[test]
fn a_websocket_over_http_2_does_not_pass_where_no_rule_lets_it() {
    let (origin, bench) = both(true, "");
    let client = offered(&bench);
    let (answer, _send) = ask(&bench, &client, "/ws");
    assert_eq!(answer.status(), 403, "{answer:?}");
    assert!(bench.all(answer.into_body()).0.contains("action_denied"));
    assert!(origin.requests().iter().all(|it| it.method() != "CONNECT"));
}

#[test]
fn a_websocket_over_http_2_is_judged_by_its_path() {
    let (origin, bench) = both(
        true,
        "grant.upgrade = true\ndoes.paths = [\"/first\", \"/live/**\"]\n",
    );
    let client = offered(&bench);
    assert_eq!(ask(&bench, &client, "/secret").0.status(), 403);
    assert_eq!(ask(&bench, &client, "/live/../secret").0.status(), 400);
    let _socket = opened(&bench, &client, "/live/1");
    let seen = origin.requests();
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[test]
fn a_websocket_over_http_2_is_not_offered_where_the_origin_does_not_offer_it() {
    let (origin, bench) = both(false, UPGRADE);
    let client = bench.connect();
    assert_eq!(bench.get(&client, "/").0, 200);
    assert!(!client.is_extended_connect_protocol_enabled());
    // A client that asks all the same gets no tunnel.
    let refused = bench.within(async {
        let mut client = client.clone().ready().await.expect("a connection");
        let asked = client.send_request(asking("websocket", &bench.uri("/ws")), false);
        match asked {
            Ok((answer, _send)) => answer.await.map(|answer| answer.status()),
            Err(error) => Err(error),
        }
    });
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(bench.get(&client, "/after").0, 200);
    assert!(origin.requests().iter().all(|it| it.method() != "CONNECT"));
}

#[test]
fn an_extended_connect_is_for_nothing_but_a_websocket_to_the_host_of_the_tunnel() {
    let (origin, bench) = both(true, UPGRADE);
    let client = offered(&bench);
    let port = bench.port;
    let here = bench.uri("/ws");
    let clear = format!("http://{HOST}:{port}/ws");
    let other = format!("https://other.example.net:{port}/ws");
    let elsewhere = format!("https://{HOST}:1/ws");
    for (protocol, uri, ended, status) in [
        ("connect-udp", &here, false, 501),
        ("connect-ip", &here, false, 501),
        ("WebSocket", &here, false, 501),
        ("websocket", &clear, false, 400),
        ("websocket", &other, false, 421),
        ("websocket", &elsewhere, false, 421),
        ("websocket", &here, true, 400),
    ] {
        let (answer, _send) = bench.send(&client, asking(protocol, uri), ended);
        assert_eq!(answer.status(), status, "{protocol} {uri} {ended}");
    }
    let mut bodied = asking("websocket", &here);
    let length = "5".parse().expect("a value");
    bodied.headers_mut().insert("content-length", length);
    assert_eq!(bench.send(&client, bodied, false).0.status(), 400);
    let mut named = asking("websocket", &here);
    let host = "other.example.net".parse().expect("a value");
    named.headers_mut().insert("host", host);
    assert_eq!(bench.send(&client, named, false).0.status(), 400);
    assert_eq!(origin.requests().len(), 1, "{:?}", origin.requests());
}

/// A literal field in HPACK without its tables.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut all = vec![0];
    for text in [name, value] {
        all.push(u8::try_from(text.len()).expect("a short text"));
        all.extend(text.as_bytes());
    }
    all
}

/// The kind of the first frame that answers the one stream of a raw client.
async fn first_answer(bench: &Bench, fields: &[(&str, &str)]) -> u8 {
    let mut stream = bench.tls(&[b"h2"]).await;
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| literal(name, value))
        .collect();
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    said.extend(frame(SETTINGS, 0, 0, &[]));
    said.extend(frame(SETTINGS, 1, 0, &[]));
    said.extend(frame(HEADERS, END_HEADERS, 1, &block));
    stream.write_all(&said).await.expect("open");
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut rest = vec![0; usize::try_from(length).expect("a short frame")];
        stream.read_exact(&mut rest).await.expect("a frame");
        if head[5..] == 1_u32.to_be_bytes() {
            return head[3];
        }
    }
}

#[test]
fn an_extended_connect_that_is_malformed_is_reset() {
    let (origin, bench) = both(true, UPGRADE);
    let authority = format!("{HOST}:{}", bench.port);
    let authority = (":authority", authority.as_str());
    let connect = (":method", "CONNECT");
    let (scheme, path) = ((":scheme", "https"), (":path", "/ws"));
    let protocol = (":protocol", "websocket");
    for fields in [
        &[connect, scheme, authority, protocol][..],
        &[connect, path, authority, protocol],
        &[connect, authority, protocol],
        &[(":method", "GET"), scheme, path, authority, protocol],
        &[connect, scheme, path, authority, protocol, protocol],
        &[connect, scheme, path, authority, protocol, ("upgrade", "x")],
        &[connect, scheme, path, authority, ("protocol", "websocket")],
    ] {
        let kind = bench.within(first_answer(&bench, fields));
        assert_eq!(kind, RST_STREAM, "{fields:?}");
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
    let whole = [connect, scheme, path, authority, protocol];
    assert_eq!(bench.within(first_answer(&bench, &whole)), HEADERS);
}

#[test]
fn what_the_origin_says_instead_of_a_websocket_is_passed_on() {
    let (_origin, bench) = both(true, UPGRADE);
    let client = offered(&bench);
    let (answer, _send) = ask(&bench, &client, "/refused");
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["x-why"], "no sockets");
    assert_eq!(bench.all(answer.into_body()).0, "not here");
    let _socket = opened(&bench, &client, "/ws");
}

#[test]
fn an_origin_that_no_longer_offers_it_is_not_asked_for_a_websocket() {
    let (origin, bench) = both(true, UPGRADE);
    let client = offered(&bench);
    origin.withdraw();
    until("a new connection", || {
        ask(&bench, &client, "/ws").0.status() == 502
    });
    assert_eq!(closed(&bench).text("error.type"), "connect_failed");
    // For anything else the new connection is as good as the old one.
    assert_eq!(bench.get(&client, "/after").0, 200);
}

#[test]
fn a_side_that_breaks_off_is_told_to_the_other() {
    let (origin, bench) = both(true, UPGRADE);
    let client = offered(&bench);
    let (answer, mut send) = ask(&bench, &client, "/reset");
    send.send_data("hello".into(), false).expect("open");
    let mut body = answer.into_body();
    assert_eq!(reset(&bench, &mut body), Some(Reason::CANCEL));

    let (body, mut send) = opened(&bench, &client, "/ws");
    send.send_reset(Reason::CANCEL);
    drop(body);
    until("the origin is told", || origin.broken() == 1);
    assert_eq!(bench.get(&client, "/after").0, 200);
}

#[test]
fn much_passes_both_ways_however_slowly_it_is_read() {
    const PIECES: usize = 200;
    let (_origin, bench) = both(true, UPGRADE);
    let client = offered(&bench);
    let (mut body, mut send) = opened(&bench, &client, "/ws");
    let piece = Bytes::from(vec![b'z'; 20_000]);
    bench.within(async {
        let sending = async {
            for _ in 0..PIECES {
                send.reserve_capacity(piece.len());
                while send.capacity() < piece.len() {
                    let more = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
                    more.expect("open").expect("capacity");
                }
                send.send_data(piece.clone(), false).expect("open");
            }
            send.send_data(Bytes::new(), true).expect("open");
        };
        let reading = async {
            let mut total = 0;
            while let Some(data) = body.data().await {
                let data = data.expect("data");
                assert!(data.iter().all(|byte| *byte == b'z'));
                total += data.len();
                let _ = body.flow_control().release_capacity(data.len());
            }
            total
        };
        let ((), total) = tokio::join!(sending, reading);
        assert_eq!(total, PIECES * piece.len());
    });
}

#[test]
fn a_websocket_that_a_new_policy_refuses_is_cut() {
    let (_origin, bench) = both(true, UPGRADE);
    let client = offered(&bench);
    let (mut body, _send) = opened(&bench, &client, "/ws");
    let rules = inspected("grpc", HOST, bench.port, "");
    let text = Inside::text(&[HOST], &format!("{TIERS}{rules}"));
    bench.inside.gate.reload(&text);
    assert_eq!(reset(&bench, &mut body), Some(Reason::CANCEL));
    assert_eq!(closed(&bench).text("error.type"), "revoked");
    // What the rule still lets pass goes on in the same tunnel.
    assert_eq!(bench.get(&client, "/after").0, 200);
}

#[test]
fn a_websocket_that_rests_for_too_long_is_ended() {
    let (_origin, bench) = both(true, &format!("{UPGRADE}\n[limits]\nidle = \"1 s\"\n"));
    let client = offered(&bench);
    let (mut body, _send) = opened(&bench, &client, "/ws");
    assert_eq!(reset(&bench, &mut body), Some(Reason::CANCEL));
    assert_eq!(closed(&bench).text("error.type"), "idle");
}
