//! Requests that are sent once more: only where their origin has not looked at them, or may do them
//! twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http2_origin::{HOST, attack, connect};
use crate::kit::{
    Client, Ended, Http2, Inside, Line, Lines, Origin, Pki, TIERS, flag, inspected, kind, until,
};

const REFUSED_STREAM: &[u8] = &[0, 0, 0, 7];

fn inside(pki: &Pki, port: u16) -> Inside {
    let rules = inspected("files", HOST, port, "");
    Inside::start(pki, &[HOST], &format!("{TIERS}{rules}"))
}

/// An origin of HTTP/2 that does this with the first request that reaches it, and answers every
/// other one that comes whole; how many reached it.
fn refusing(
    pki: &Pki,
    first: impl Fn(&mut Http2, u32) + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let port = attack(pki, move |origin, stream| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return first(origin, stream);
        }
        let mut length = 0;
        while let Some(frame) = origin.next() {
            if frame.kind == kind::DATA {
                length += frame.payload.len();
            }
            if frame.flags & flag::END_STREAM != 0 && frame.stream == stream {
                break;
            }
        }
        let status = if length == 4 { "201" } else { "400" };
        origin.head(stream, flag::WHOLE, &[(":status", status)]);
        let _ = origin.ended();
    });
    (port, asked)
}

fn post(inside: &Inside, port: u16, method: &str) -> Ended {
    let mut client = connect(inside, port);
    let authority = format!("{HOST}:{port}");
    let head = [
        (":method", method),
        (":scheme", "https"),
        (":authority", &authority),
        (":path", "/"),
    ];
    client.head(1, flag::END_HEADERS, &head);
    client.frame(kind::DATA, 0, 1, b"bo");
    client.frame(kind::DATA, flag::END_STREAM, 1, b"dy");
    client.outcome(1)
}

/// One request inside is on record, however often it was sent.
#[track_caller]
fn is_one_flow(inside: &Inside) -> Line {
    let judged = inside.judged();
    assert_eq!(judged.len(), 1, "{judged:?}");
    let close = inside.gate.close(judged[0].flow());
    let closes = inside.gate.records().named("close");
    let of_flow = closes.iter().filter(|line| line.flow() == judged[0].flow());
    assert_eq!(of_flow.count(), 1);
    close
}

#[test]
fn a_post_whose_stream_is_refused_is_sent_once_more() {
    let pki = Pki::new();
    let (port, asked) = refusing(&pki, |origin, stream| {
        origin.frame(kind::RST_STREAM, 0, stream, REFUSED_STREAM);
        let _ = origin.ended();
    });
    let inside = inside(&pki, port);
    assert_eq!(post(&inside, port, "POST"), Ended::Status(201));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let close = is_one_flow(&inside);
    assert_eq!(close.number("http.response.status_code"), 201);
}

#[test]
fn a_post_that_a_goaway_leaves_out_is_sent_once_more() {
    let pki = Pki::new();
    let (port, asked) = refusing(&pki, |origin, _| {
        origin.frame(kind::GOAWAY, 0, 0, [0; 8]);
    });
    let inside = inside(&pki, port);
    assert_eq!(post(&inside, port, "POST"), Ended::Status(201));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    is_one_flow(&inside);
}

#[test]
fn a_post_that_its_origin_may_have_looked_at_is_not_sent_again() {
    type First = fn(&mut Http2, u32);
    let firsts: [(&str, First); 4] = [
        ("a GOAWAY that counts it", |origin, stream| {
            let stream = stream.to_be_bytes();
            origin.frame(kind::GOAWAY, 0, 0, [&stream[..], &[0; 4]].concat());
        }),
        ("the end", |_, _| {}),
        ("a reset", |origin, stream| {
            origin.frame(kind::RST_STREAM, 0, stream, [0, 0, 0, 8]);
            let _ = origin.ended();
        }),
        ("an interim answer before the refusal", |origin, stream| {
            origin.head(stream, flag::END_HEADERS, &[(":status", "103")]);
            origin.frame(kind::RST_STREAM, 0, stream, REFUSED_STREAM);
            let _ = origin.ended();
        }),
    ];
    for (what, first) in firsts {
        let pki = Pki::new();
        let (port, asked) = refusing(&pki, first);
        let inside = inside(&pki, port);
        assert_eq!(post(&inside, port, "POST"), Ended::Status(502), "{what}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{what}");
        let close = is_one_flow(&inside);
        assert_eq!(close.text("error.type"), "response_missing", "{what}");
    }
}

#[test]
fn a_put_is_sent_once_more_and_not_twice() {
    let pki = Pki::new();
    let (port, asked) = refusing(&pki, |_, _| {});
    let inside = inside(&pki, port);
    assert_eq!(post(&inside, port, "PUT"), Ended::Status(201));
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let port = attack(&pki, move |origin, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        origin.frame(kind::RST_STREAM, 0, stream, REFUSED_STREAM);
        let _ = origin.ended();
    });
    let inside = self::inside(&pki, port);
    assert_eq!(post(&inside, port, "PUT"), Ended::Status(502));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// An origin of HTTP/1 whose first connection ends once TLS is spoken on it; how many have ended.
fn leaving(pki: &Pki) -> (Origin, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = ended.clone();
    let origin = Origin::raw_tls(pki, &[HOST], move |visit| {
        use std::io::Write as _;
        if counted.load(Ordering::SeqCst) == 0 {
            visit.wire.flush()?;
            visit.wire.half_close();
            counted.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        visit.requests(&crate::kit::Visit::echo)
    });
    (origin, ended)
}

#[test]
fn the_first_post_of_a_tunnel_whose_origin_has_left_goes_over_a_new_connection() {
    for method in ["POST", "PATCH", "GET", "PUT"] {
        let pki = Pki::new();
        let (origin, ended) = leaving(&pki);
        let inside = inside(&pki, origin.port());
        let mut client: Client = inside.enter(HOST, origin.port());
        until("the end of the first connection", || {
            ended.load(Ordering::SeqCst) == 1
        });
        let host = format!("{HOST}:{}", origin.port());
        let body = if method == "GET" { "" } else { "body" };
        let length = body.len();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let answer = client.answer(method);
        assert_eq!(answer.status(), 200, "{method}: {answer:?}");
        assert_eq!(answer.json()["body"], body);
        assert_eq!(origin.requests().len(), 1, "{method}");
        is_one_flow(&inside);
    }
}

#[test]
fn a_pooled_connection_that_ends_under_a_post_is_not_used_twice_for_it() {
    // The first request is answered and kept; the second is read, and gets nothing.
    let origin = Origin::raw(|visit| {
        let first = visit.head()?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        visit.remember(&first);
        visit.answer("200 OK", "text/plain", b"one")?;
        let second = visit.head()?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        visit.remember(&second);
        Ok(())
    });
    let gate = crate::kit::Gate::with(&crate::kit::loopback(origin.port()));
    let url = format!("http://files.example.net:{}/", origin.port());
    let mut client = gate.client();
    assert_eq!(client.get(&url).status(), 200);
    gate.eventually_records("its end", |lines| lines.named("close").len() == 1);
    let answer = client.request("POST", &url, "Content-Length: 2\r\n", "ab");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (502, "bad_response")
    );
    assert_eq!(origin.asked().len(), 2, "{:?}", origin.asked());
}
