//! HTTP/2 from callers that mean harm: floods, bombs, heads that could be read in two ways.
//!
//! Whatever they do, their connection ends or their stream is refused, memory stays bounded, others
//! go on being served, and nothing of theirs reaches an origin.

use std::io::Read;
use std::time::Duration;

use rcgen::SanType;

use crate::http2_origin;
use crate::kit::{
    Ended, Frame, Gate, Http2, Inside, Line, Origin, Origin2, Pki, TIERS, Wire, allow, fields,
    flag, inspected, kind, names, until,
};

const HOST: &str = "files.example.net";
const NAME: &str = "proxy.example.net";

/// Bytes that the gate may grow by while one connection attacks it.
const GROWTH: u64 = 48 << 20;
/// Rounds after which a flood must have been stopped.
const ROUNDS: u32 = 400;

const ENHANCE_YOUR_CALM: u32 = 11;

/// A gate with a TLS listener, and an origin of plain HTTP.
pub(crate) struct Bench {
    pki: Pki,
    pub(crate) origin: Origin,
    pub(crate) gate: Gate,
}

impl Bench {
    pub(crate) fn start() -> Self {
        Self::before(Origin::echo(), "")
    }

    /// Before an origin, with more lines of configuration.
    pub(crate) fn before(origin: Origin, lines: &str) -> Self {
        let pki = Pki::new();
        let (cert, key) = pki.issue(|params| {
            let name = NAME.try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::DnsName(name)];
        });
        let listener = "\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                        tls = { cert = \"proxy.pem\", key = \"proxy.key\" }\n";
        let (names, rule) = (names(&[HOST]), allow("files", HOST, origin.port()));
        let gate = Gate::plan(&format!("{TIERS}{names}{rule}{listener}{lines}"))
            .file("proxy.pem", &cert)
            .file("proxy.key", &key)
            .start();
        Self { pki, origin, gate }
    }

    /// TLS to the listener, nothing of HTTP/2 said.
    pub(crate) fn wire(&self) -> Wire {
        let wire = Wire::dial(self.gate.listener(1));
        self.pki.enter_as(wire, NAME, &["h2"])
    }

    pub(crate) fn connect(&self) -> Http2 {
        Http2::client(self.wire())
    }

    /// The pseudo-fields of a request for the origin.
    pub(crate) fn head(&self, method: &str) -> Vec<(String, String)> {
        let authority = format!("{HOST}:{}", self.origin.port());
        let pairs = [
            (":method", method),
            (":scheme", "http"),
            (":authority", &authority),
            (":path", "/"),
        ];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        pairs.map(own).to_vec()
    }

    /// The same as a block of HPACK.
    pub(crate) fn block(&self, method: &str) -> Vec<u8> {
        fields(&self.head(method))
    }

    /// Another client is served, over both versions.
    #[track_caller]
    pub(crate) fn serves_others(&self) {
        let url = format!("http://{HOST}:{}/", self.origin.port());
        assert_eq!(self.gate.client().get(&url).status(), 200);
        let mut other = self.connect();
        other.frame(kind::HEADERS, flag::WHOLE, 1, self.block("GET"));
        assert_eq!(other.outcome(1), Ended::Status(200));
    }

    /// Sends what `round` makes again and again; the connection ends before it is through.
    #[track_caller]
    fn is_stopped(&self, what: &str, mut client: Http2, mut round: impl FnMut(u32) -> Vec<u8>) {
        self.serves_others();
        let before = self.gate.resident();
        let _gone = (0..ROUNDS).any(|number| !(client.send(round(number)) && client.drain()));
        let ended = client.ended();
        // What was on its way when the connection closed may have taken the GOAWAY with it.
        assert!(
            matches!(ended, Ended::Closed | Ended::GoAway(_)),
            "{what}: {ended:?}"
        );
        let grown = self.gate.resident().saturating_sub(before);
        assert!(grown < GROWTH, "{what}: {grown} bytes more");
        self.serves_others();
    }

    /// As [`Self::is_stopped`], on a new connection.
    #[track_caller]
    fn stops(&self, what: &str, round: impl FnMut(u32) -> Vec<u8>) {
        self.is_stopped(what, self.connect(), round);
    }
}

/// The number of a client's stream.
fn stream(place: u32) -> u32 {
    place * 2 + 1
}

/// So many of the same bytes.
fn times(count: usize, frame: &Frame) -> Vec<u8> {
    frame.bytes().repeat(count)
}

#[test]
fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    let bench = Bench::start();
    let block = bench.block("GET");
    let pair = |number| {
        let stream = stream(number);
        let open = Frame::new(kind::HEADERS, flag::WHOLE, stream, &block).bytes();
        let reset = Frame::new(kind::RST_STREAM, 0, stream, [0, 0, 0, 8]).bytes();
        [open, reset].concat()
    };
    bench.stops("in one go", |round| {
        (round * 100..(round + 1) * 100).flat_map(pair).collect()
    });
}

#[test]
fn streams_that_are_opened_and_reset_one_by_one_end_the_connection() {
    let bench = Bench::start();
    let block = bench.block("GET");
    let mut client = bench.connect();
    let ended = (0..3000).any(|number| {
        let stream = stream(number);
        client.frame(kind::HEADERS, flag::WHOLE, stream, &block);
        client.frame(kind::RST_STREAM, 0, stream, [0, 0, 0, 8]);
        !client.answers_ping()
    });
    assert!(ended, "3000 streams were reset");
    bench.serves_others();
}

#[test]
fn heads_that_never_end_end_the_connection() {
    let bench = Bench::start();
    let begun = || {
        let mut client = bench.connect();
        client.frame(kind::HEADERS, flag::END_STREAM, 1, bench.block("GET"));
        client
    };
    let continued = |payload: &[u8]| Frame::new(kind::CONTINUATION, 0, 1, payload);
    let empty = times(100, &continued(b""));
    bench.is_stopped("empty", begun(), |_| empty.clone());
    let small = times(100, &continued(&fields(&[("a", "b")])));
    bench.is_stopped("small", begun(), |_| small.clone());
    let full = fields(&[("a", "b".repeat(8000))]).repeat(2);
    let full = continued(&full).bytes();
    bench.is_stopped("full", begun(), |_| full.clone());
    // One string that goes on and on, in pieces of a frame.
    let mut client = bench.connect();
    let endless = [
        &[0, 1, b'a', 0x7f, 0xff, 0xff, 0xff, 0x07][..],
        &[b'x'; 16000],
    ]
    .concat();
    client.frame(kind::HEADERS, flag::END_STREAM, 1, endless);
    let more = continued(&[b'x'; 16000]).bytes();
    bench.is_stopped("one string", client, |_| more.clone());
    assert_eq!(bench.origin.requests().len(), 16, "only what others asked");
}

/// What makes us reset a stream (CVE-2025-8671), after its head was sent as `POST` without an end.
type Wrong = fn(u32) -> Frame;

#[test]
fn streams_that_a_client_makes_us_reset_end_the_connection() {
    const WRONG: [(&str, Wrong); 6] = [
        ("no window", |id| {
            Frame::new(kind::WINDOW_UPDATE, 0, id, [0; 4])
        }),
        ("too much window", |id| {
            Frame::new(kind::WINDOW_UPDATE, 0, id, 0x7fff_ffff_u32.to_be_bytes())
        }),
        ("a stream that depends on itself", |id| {
            let payload = [&id.to_be_bytes()[..], &[16]].concat();
            Frame::new(kind::PRIORITY, 0, id, payload)
        }),
        ("trailers that do not end", |id| {
            Frame::new(kind::HEADERS, flag::END_HEADERS, id, fields(&[("a", "b")]))
        }),
        ("trailers with a pseudo-field", |id| {
            Frame::new(kind::HEADERS, flag::WHOLE, id, fields(&[(":path", "/")]))
        }),
        ("more than the length", |id| {
            Frame::new(kind::DATA, 0, id, [b'x'; 300])
        }),
    ];
    // It answers nothing, so that streams are open when they are reset.
    let origin = Origin::http(|visit, request| match request.method() {
        "GET" => visit.echo(request),
        _ => visit.wire.read(&mut [0]).map(drop),
    });
    let bench = Bench::before(origin, "");
    let mut head = bench.head("POST");
    head.push(("content-length".to_owned(), "5".to_owned()));
    let head = fields(&head);
    for (what, wrong) in WRONG {
        bench.stops(what, |round| {
            let pair = |number| {
                let stream = stream(number);
                let open = Frame::new(kind::HEADERS, flag::END_HEADERS, stream, &head).bytes();
                [open, wrong(stream).bytes()].concat()
            };
            (round * 10..(round + 1) * 10).flat_map(pair).collect()
        });
    }
}

#[test]
fn malformed_requests_without_end_end_the_connection() {
    let bench = Bench::start();
    let head = [bench.block("GET"), fields(&[("Upper", "case")])].concat();
    bench.stops("malformed", |round| {
        let open = |number| Frame::new(kind::HEADERS, flag::WHOLE, stream(number), &head).bytes();
        (round * 10..(round + 1) * 10).flat_map(open).collect()
    });
}

#[test]
fn frames_that_carry_nothing_end_the_connection() {
    let bench = Bench::start();
    let of = |kind, payload: &[u8]| times(50, &Frame::new(kind, 0, 0, payload));
    let settings = of(kind::SETTINGS, &[0, 4, 0, 0, 0x40, 0]);
    bench.stops("SETTINGS", |_| settings.clone());
    let empty = of(kind::SETTINGS, &[]);
    bench.stops("empty SETTINGS", |_| empty.clone());
    let ping = of(kind::PING, &[0; 8]);
    bench.stops("PING", |_| ping.clone());
    let acks = times(50, &Frame::new(kind::PING, flag::ACK, 0, [0; 8]));
    bench.stops("PING with ACK", |_| acks.clone());
    let unknown = of(0xbe, &[0; 100]);
    bench.stops("unknown", |_| unknown.clone());
    let priority = times(50, &Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 16]));
    bench.stops("PRIORITY", |_| priority.clone());
    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::END_HEADERS, 1, bench.block("POST"));
    let data = times(50, &Frame::new(kind::DATA, 0, 1, []));
    bench.is_stopped("empty DATA", client, |_| data.clone());
    let of = |reason| {
        let labels = [("side", "client"), ("reason", reason)];
        let metrics = bench.gate.metrics();
        metrics.sum("tidegate_http2_ended_total", &labels)
    };
    until("all are counted", || {
        of("flood") >= 6.0 && of("enhance_your_calm") >= 1.0
    });
}

#[test]
fn who_floods_and_never_reads_is_not_waited_for() {
    let bench = Bench::start();
    let mut client = bench.connect();
    client.patience(Duration::from_secs(5));
    let before = bench.gate.resident();
    let ping = times(1000, &Frame::new(kind::PING, 0, 0, [0; 8]));
    // 170 MB, far more than any buffer on the way.
    let refused = (0..10_000).any(|_| !client.send(&ping));
    assert!(refused, "all of it was taken");
    let grown = bench.gate.resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    bench.serves_others();
}

#[test]
fn a_usual_client_may_ping_and_cancel() {
    let bench = Bench::start();
    let mut client = bench.connect();
    for number in 0..200 {
        let stream = stream(number);
        client.frame(kind::HEADERS, flag::WHOLE, stream, bench.block("GET"));
        client.frame(kind::RST_STREAM, 0, stream, [0, 0, 0, 8]);
        assert!(client.answers_ping(), "after {number}");
    }
    client.frame(kind::HEADERS, flag::WHOLE, 401, bench.block("GET"));
    assert_eq!(client.outcome(401), Ended::Status(200));
}

#[test]
fn answers_that_nobody_opens_a_window_for_are_given_up() {
    let origin = Origin::http(|visit, request| match request.target() {
        "/" => visit.echo(request),
        _ => visit.answer("200 OK", "text/plain", &vec![b'x'; 1 << 20]),
    });
    let bench = Bench::before(origin, "\n[limits]\nidle = \"2 s\"\n");
    bench.serves_others();
    let before = bench.gate.resident();
    let mut client = bench.connect();
    client.frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
    let mut head = bench.head("GET");
    head[3].1 = "/large".to_owned();
    let streams: Vec<u32> = (0..100).map(stream).collect();
    for id in &streams {
        client.frame(kind::HEADERS, flag::WHOLE, *id, fields(&head));
    }
    bench.serves_others();
    // Answers come in any order, and the last resets as well.
    let mut open = streams.len();
    while open > 0 {
        let frame = client.next().expect("the connection stays");
        open -= usize::from(frame.kind == kind::RST_STREAM);
    }
    let grown = bench.gate.resident().saturating_sub(before);
    assert!(grown < 2 * GROWTH, "{grown} bytes more");
    bench.serves_others();
}

#[test]
fn a_small_block_that_becomes_a_large_head_is_refused() {
    let bench = Bench::start();
    // One field of 4000 octets goes into the table, then an octet for each repetition.
    let inserted = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4000]].concat();
    let bomb = |count: usize| [bench.block("GET"), inserted.clone(), vec![0xbe; count]].concat();

    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::WHOLE, 1, bomb(20));
    assert_eq!(client.outcome(1), Ended::Status(431));
    client.frame(kind::HEADERS, flag::WHOLE, 3, bench.block("GET"));
    assert_eq!(client.outcome(3), Ended::Status(200), "others are read on");

    let before = bench.gate.resident();
    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::WHOLE, 1, bomb(12_000));
    assert_eq!(client.ended(), Ended::GoAway(ENHANCE_YOUR_CALM));
    assert_eq!(bench.origin.requests().len(), 1);

    // Just small enough, on every stream at once: many small fields.
    let mut client = bench.connect();
    let many = [bench.block("GET"), vec![0x8f; 1000]].concat();
    let open = |number| Frame::new(kind::HEADERS, flag::WHOLE, stream(number), &many).bytes();
    client.send((0..120).flat_map(open).collect::<Vec<_>>());
    let mut open = 120;
    while open > 0 {
        let frame = client.next().expect("the connection stays");
        open -= u32::from(frame.status() == Some(431) && frame.kind == kind::HEADERS);
    }
    let grown = bench.gate.resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    assert_eq!(bench.origin.requests().len(), 1);
    bench.serves_others();
}

#[test]
fn each_crumb_of_a_cookie_is_a_field() {
    let bench = Bench::start();
    let with = |crumbs: usize| {
        let crumbs = fields(&[("cookie", "a=b")]).repeat(crumbs);
        [bench.block("GET"), crumbs].concat()
    };
    for (crumbs, status) in [(100, 200), (129, 431), (1300, 431)] {
        let mut client = bench.connect();
        client.frame(kind::HEADERS, flag::WHOLE, 1, with(crumbs));
        assert_eq!(client.outcome(1), Ended::Status(status), "{crumbs} crumbs");
    }
    let requests = bench.origin.requests();
    assert_eq!(requests.len(), 1);
    let cookie = requests[0].field("cookie").expect("one field");
    assert_eq!(cookie.matches("a=b").count(), 100);
}

#[test]
fn a_body_of_single_octets_with_padding_arrives_whole() {
    let bench = Bench::start();
    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::END_HEADERS, 1, bench.block("POST"));
    let mut octet = vec![200, b'x'];
    octet.resize(202, 0);
    // All of them within the window that holds before SETTINGS are acknowledged: 65,535 octets.
    for _ in 0..300 {
        assert!(client.frame(kind::DATA, flag::PADDED, 1, &octet));
    }
    client.frame(kind::DATA, flag::END_STREAM, 1, []);
    assert_eq!(client.outcome(1), Ended::Status(200));
    assert_eq!(bench.origin.last().body, [b'x'; 300]);
}

#[test]
fn a_head_that_is_never_finished_is_not_waited_for() {
    let bench = Bench::before(Origin::echo(), "\n[limits]\nkeep-alive = \"1 s\"\n");
    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::END_STREAM, 1, bench.block("GET"));
    assert!(matches!(client.ended(), Ended::Closed | Ended::GoAway(_)));
    bench.origin.saw_nothing();
}

#[test]
fn a_client_that_says_it_leaves_still_gets_its_answer() {
    let bench = Bench::start();
    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::END_HEADERS, 1, bench.block("POST"));
    client.frame(kind::GOAWAY, 0, 0, [0; 8]);
    client.frame(kind::DATA, flag::END_STREAM, 1, b"last");
    assert_eq!(client.outcome(1), Ended::Status(200));
    assert_eq!(bench.origin.last().text(), "last");
    until("it is over", || {
        bench.gate.records().iter().any(Line::is_close)
    });
}

/// What a head is changed into: pseudo-fields and fields in any order, any octets.
type Head = Vec<(Vec<u8>, Vec<u8>)>;

/// A request that must not reach an origin, in any reading of it.
struct Row {
    what: &'static str,
    change: fn(&mut Head),
}

const fn row(what: &'static str, change: fn(&mut Head)) -> Row {
    Row { what, change }
}

fn add(head: &mut Head, name: &str, value: &str) {
    head.push((name.into(), value.into()));
}

fn set(head: &mut Head, place: usize, value: &[u8]) {
    head[place].1 = value.to_vec();
}

const METHOD: usize = 0;
const SCHEME: usize = 1;
const AUTHORITY: usize = 2;
const PATH: usize = 3;

const ROWS: &[Row] = &[
    row("upper-case name", |head| add(head, "Accept", "a")),
    row("empty name", |head| add(head, "", "a")),
    row("space in a name", |head| add(head, "a b", "c")),
    row("colon in a name", |head| add(head, "a:b", "c")),
    row("CR in a name", |head| add(head, "a\rb", "c")),
    row("NUL in a name", |head| add(head, "a\0b", "c")),
    row("CR LF in a value", |head| {
        add(head, "a", "b\r\nhost: evil.example");
    }),
    row("LF in a value", |head| add(head, "a", "b\nc")),
    row("CR in a value", |head| add(head, "a", "b\rc")),
    row("NUL in a value", |head| add(head, "a", "b\0c")),
    row("connection", |head| add(head, "connection", "close")),
    row("keep-alive", |head| add(head, "keep-alive", "1")),
    row("proxy-connection", |head| {
        add(head, "proxy-connection", "close");
    }),
    row("upgrade", |head| add(head, "upgrade", "h2c")),
    row("transfer-encoding", |head| {
        add(head, "transfer-encoding", "chunked");
    }),
    row("transfer_encoding", |head| {
        add(head, "transfer_encoding", "chunked");
    }),
    row("te other than trailers", |head| add(head, "te", "gzip")),
    row("content-length twice", |head| {
        add(head, "content-length", "0");
        add(head, "content-length", "1");
    }),
    row("content-length with a sign", |head| {
        add(head, "content-length", "+0");
    }),
    row("content-length without a body", |head| {
        add(head, "content-length", "5");
    }),
    row("another path in a field", |head| {
        add(head, "x-original-url", "/admin");
    }),
    row("another path in a field of another name", |head| {
        add(head, "x-rewrite-url", "/admin");
    }),
    row("another host in a field", |head| {
        add(head, "x-original-host", "evil.example");
    }),
    row("another path in a disguised field", |head| {
        add(head, "x_original_uri", "/admin");
    }),
    row("another host", |head| add(head, "host", "evil.example")),
    row("host twice", |head| {
        add(head, "host", HOST);
        add(head, "host", "evil.example");
    }),
    row("pseudo-field after a field", |head| {
        add(head, "a", "b");
        add(head, ":path", "/other");
    }),
    row("all pseudo-fields after a field", |head| {
        head.insert(0, ("a".into(), "b".into()));
    }),
    row("pseudo-field of an answer", |head| {
        head.insert(0, (":status".into(), "200".into()));
    }),
    row("unknown pseudo-field", |head| {
        head.insert(0, (":evil".into(), "1".into()));
    }),
    row("method twice", |head| {
        head.insert(0, (":method".into(), "GET".into()));
    }),
    row("scheme twice", |head| {
        head.insert(0, (":scheme".into(), "http".into()));
    }),
    row("authority twice", |head| {
        head.insert(0, (":authority".into(), "evil.example".into()));
    }),
    row("path twice", |head| {
        head.insert(0, (":path".into(), "/other".into()));
    }),
    row("no method", |head| drop(head.remove(METHOD))),
    row("no scheme", |head| drop(head.remove(SCHEME))),
    row("no authority", |head| drop(head.remove(AUTHORITY))),
    row("no path", |head| drop(head.remove(PATH))),
    row("empty method", |head| set(head, METHOD, b"")),
    row("space in the method", |head| {
        set(head, METHOD, b"GET http://evil.example/ HTTP/1.1");
    }),
    row("LF in the method", |head| set(head, METHOD, b"GET\n")),
    row("empty path", |head| set(head, PATH, b"")),
    row("path without a slash", |head| set(head, PATH, b"evil")),
    row("path as a query", |head| set(head, PATH, b"?a")),
    row("path as an authority", |head| {
        set(head, PATH, b"@evil.example/");
    }),
    row("path as a port", |head| {
        set(head, PATH, b":1@evil.example/");
    }),
    row("path as a URL", |head| {
        set(head, PATH, b"http://evil.example/");
    }),
    row("star as the path of GET", |head| set(head, PATH, b"*")),
    row("space in the path", |head| {
        set(head, PATH, b"/ HTTP/1.1\r\nhost: evil");
    }),
    row("one space in the path", |head| set(head, PATH, b"/a b")),
    row("CR in the path", |head| set(head, PATH, b"/a\rb")),
    row("LF in the path", |head| set(head, PATH, b"/a\nb")),
    row("NUL in the path", |head| set(head, PATH, b"/a\0b")),
    row("NUL escaped in the path", |head| set(head, PATH, b"/a%00b")),
    row("half a character in the path", |head| {
        set(head, PATH, b"/\xff");
    }),
    row("empty authority", |head| set(head, AUTHORITY, b"")),
    row("user in the authority", |head| {
        set(head, AUTHORITY, b"files.example.net@evil.example");
    }),
    row("slash in the authority", |head| {
        set(head, AUTHORITY, b"evil.example/files.example.net");
    }),
    row("space in the authority", |head| {
        set(head, AUTHORITY, b"evil.example files.example.net");
    }),
    row("LF in the authority", |head| {
        set(head, AUTHORITY, b"files.example.net\nevil");
    }),
    row("another authority", |head| {
        set(head, AUTHORITY, b"evil.example:80");
    }),
    row("ftp", |head| set(head, SCHEME, b"ftp")),
    row("empty scheme", |head| set(head, SCHEME, b"")),
    row("a URL as scheme", |head| {
        set(head, SCHEME, b"http://evil.example/?");
    }),
    row("CONNECT with a path", |head| set(head, METHOD, b"CONNECT")),
    row("CONNECT without an authority", |head| {
        set(head, METHOD, b"CONNECT");
        head.truncate(1);
    }),
    row("extended CONNECT", |head| {
        set(head, METHOD, b"CONNECT");
        head.insert(0, (":protocol".into(), "websocket".into()));
    }),
    row("protocol without CONNECT", |head| {
        head.insert(0, (":protocol".into(), "websocket".into()));
    }),
    row("TRACE", |head| set(head, METHOD, b"TRACE")),
];

/// What only a listener must not take.
const AT_A_LISTENER: &[Row] = &[row("https for a listener", |head| {
    set(head, SCHEME, b"https");
})];

/// What only a tunnel must not take.
const IN_A_TUNNEL: &[Row] = &[
    row("http in a tunnel", |head| set(head, SCHEME, b"http")),
    row("CONNECT in a tunnel", |head| {
        set(head, METHOD, b"CONNECT");
        *head = vec![head[METHOD].clone(), head[AUTHORITY].clone()];
    }),
    row("another port", |head| {
        set(head, AUTHORITY, b"grpc.example.net:1");
    }),
    row("the port left out", |head| {
        set(head, AUTHORITY, b"grpc.example.net");
    }),
];

/// Sends each row on a connection of its own; none is taken.
fn no_row_passes(good: &Head, rows: &[&Row], connect: impl Fn() -> Http2) {
    let mut wrong = Vec::new();
    for Row { what, change } in rows {
        let mut head = good.clone();
        change(&mut head);
        let mut client = connect();
        client.frame(kind::HEADERS, flag::WHOLE, 1, fields(&head));
        let ended = client.outcome(1);
        if !matches!(
            ended,
            Ended::Reset(_) | Ended::GoAway(_) | Ended::Status(400..)
        ) {
            wrong.push(format!("{what}: {ended:?}"));
        }
        // The next one on the same connection is read as if nothing had been.
        if !matches!(ended, Ended::GoAway(_)) {
            client.frame(kind::HEADERS, flag::WHOLE, 3, fields(&[(":method", "GET")]));
            let next = client.outcome(3);
            if !matches!(next, Ended::Reset(_)) {
                wrong.push(format!("after {what}: {next:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn owned(head: Vec<(String, String)>) -> Head {
    let pairs = head.into_iter();
    pairs
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[test]
fn heads_that_could_be_read_in_two_ways_reach_nobody() {
    let bench = Bench::start();
    let rows: Vec<&Row> = ROWS.iter().chain(AT_A_LISTENER).collect();
    no_row_passes(&owned(bench.head("GET")), &rows, || bench.connect());
    bench.origin.saw_nothing();
    bench.serves_others();
}

#[test]
fn heads_that_could_be_read_in_two_ways_reach_nobody_inside_a_tunnel() {
    let origins = Pki::new();
    let origin = Origin2::start(origins.serving(&[http2_origin::HOST], |_| {}), true);
    let rules = inspected("two", http2_origin::HOST, origin.port(), "");
    let policy = format!("{TIERS}{rules}");
    let inside = Inside::start(&origins, &[http2_origin::HOST], &policy);
    let authority = format!("{}:{}", http2_origin::HOST, origin.port());
    let good = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", &authority),
        (":path", "/"),
    ];
    let good = good.map(|(name, value)| (name.into(), value.into()));
    let rows: Vec<&Row> = ROWS.iter().chain(IN_A_TUNNEL).collect();
    let connect = || http2_origin::connect(&inside, origin.port());
    no_row_passes(&good.to_vec(), &rows, connect);
    assert_eq!(origin.requests().len(), 0);
    let mut client = connect();
    client.frame(kind::HEADERS, flag::WHOLE, 1, fields(&good));
    assert_eq!(client.outcome(1), Ended::Status(200));
}
