//! HTTP/2 as RFC 9113 and RFC 7541 have it, section by section: what a server must take, and how it
//! must answer what is wrong.
//!
//! The rows follow the sections that conformance suites for servers go through. Where a row expects
//! an error of the connection, its end without a word will do; where it expects one of a stream, an
//! error of the connection will do as well (RFC 9113 section 5.4).

use crate::http2_hostile::Bench;
use crate::kit::{Ended, Frame, Http2, fields, flag, kind};

/// What the gate must do.
enum Must {
    /// Go on: a PING is answered, and so is a request.
    GoOn,
    /// Answer stream 1 with a status.
    Answer,
    /// End the connection with one of these codes.
    End(&'static [u32]),
    /// Reset a stream with one of these codes, or end the connection.
    Reset(u32, &'static [u32]),
}

use Must::{Answer, End, GoOn, Reset};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// The library says so of every block that it cannot read.
const BAD_BLOCK: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];

/// More of a stream that the client has ended: the library ends the connection, which is stricter
/// than what section 5.1 asks for.
const OF_A_CLOSED_STREAM: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

/// A case: where it is from, what is sent after both sides' SETTINGS, what must follow.
struct Case {
    what: &'static str,
    send: fn(&Talk) -> Vec<Frame>,
    must: Must,
}

const fn case(what: &'static str, send: fn(&Talk) -> Vec<Frame>, must: Must) -> Case {
    Case { what, send, must }
}

/// Heads of requests for the origin.
struct Talk {
    get: Vec<u8>,
    post: Vec<u8>,
}

impl Talk {
    fn get(&self, stream: u32) -> Frame {
        Frame::new(kind::HEADERS, flag::WHOLE, stream, &self.get)
    }

    /// A request whose body is to come.
    fn post(&self, stream: u32) -> Frame {
        Frame::new(kind::HEADERS, flag::END_HEADERS, stream, &self.post)
    }

    /// As [`Self::post`], with a length.
    fn post_of(&self, stream: u32, length: &str) -> Frame {
        let length = fields(&[("content-length", length)]);
        let block = [self.post.clone(), length].concat();
        Frame::new(kind::HEADERS, flag::END_HEADERS, stream, block)
    }

    /// A request whose block is another one.
    fn with(&self, block: &[u8]) -> Vec<Frame> {
        let block = [&self.get[..], block].concat();
        vec![Frame::new(kind::HEADERS, flag::WHOLE, 1, block)]
    }
}

fn settings(id: u16, value: u32) -> Vec<Frame> {
    let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    vec![Frame::new(kind::SETTINGS, 0, 0, payload)]
}

fn window(stream: u32, by: u32) -> Frame {
    Frame::new(kind::WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

fn one(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<Frame> {
    vec![Frame::new(kind, flags, stream, payload)]
}

const CASES: &[Case] = &[
    // 4.1 Frames.
    case("4.1 unknown kind", |_| one(0x16, 0, 0, &[0; 8]), GoOn),
    case(
        "4.1 unknown flags",
        |_| one(kind::PING, 0x16, 0, &[0; 8]),
        GoOn,
    ),
    case(
        "4.1 reserved bit",
        |_| one(kind::PING, 0, 1 << 31, &[0; 8]),
        GoOn,
    ),
    // 4.2 Their size.
    case(
        "4.2 DATA of the largest size",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::DATA, flag::END_STREAM, 1, [0; 16_384]),
            ]
        },
        Answer,
    ),
    case(
        "4.2 DATA that is too large",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::DATA, flag::END_STREAM, 1, [0; 16_385]),
            ]
        },
        Reset(1, &[FRAME_SIZE_ERROR]),
    ),
    case(
        "4.2 HEADERS that is too large",
        |talk| talk.with(&fields(&[("a", "b".repeat(16_384))])),
        End(&[FRAME_SIZE_ERROR]),
    ),
    // 4.3 Blocks of fields.
    case(
        "4.3 index out of range",
        |talk| talk.with(&[0xff, 0xff, 0x03]),
        End(BAD_BLOCK),
    ),
    case(
        "4.3 PRIORITY amid a block",
        |talk| {
            vec![
                Frame::new(kind::HEADERS, flag::END_STREAM, 1, &talk.get),
                Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 16]),
                Frame::new(
                    kind::CONTINUATION,
                    flag::END_HEADERS,
                    1,
                    fields(&[("a", "b")]),
                ),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "4.3 HEADERS of another stream amid a block",
        |talk| {
            vec![
                Frame::new(kind::HEADERS, flag::END_STREAM, 1, &talk.get),
                talk.get(3),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    // 5.1 States of streams.
    case(
        "5.1 idle: DATA",
        |_| one(kind::DATA, flag::END_STREAM, 1, b"test"),
        End(&[PROTOCOL_ERROR, STREAM_CLOSED]),
    ),
    case(
        "5.1 idle: RST_STREAM",
        |_| one(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "5.1 idle: WINDOW_UPDATE",
        |_| vec![window(1, 100)],
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "5.1 idle: CONTINUATION",
        |talk| one(kind::CONTINUATION, flag::END_HEADERS, 1, &talk.get),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "5.1 half closed: DATA",
        |talk| {
            vec![
                talk.get(1),
                Frame::new(kind::DATA, flag::END_STREAM, 1, b"test"),
            ]
        },
        Reset(1, OF_A_CLOSED_STREAM),
    ),
    case(
        "5.1 half closed: HEADERS",
        |talk| vec![talk.get(1), talk.get(1)],
        Reset(1, OF_A_CLOSED_STREAM),
    ),
    case(
        "5.1 half closed: CONTINUATION",
        |talk| {
            vec![
                talk.get(1),
                Frame::new(kind::CONTINUATION, flag::END_HEADERS, 1, &talk.get),
            ]
        },
        End(&[PROTOCOL_ERROR, STREAM_CLOSED]),
    ),
    case(
        "5.1 half closed: WINDOW_UPDATE and PRIORITY",
        |talk| {
            vec![
                talk.get(1),
                window(1, 1),
                Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 16]),
            ]
        },
        Answer,
    ),
    case(
        "5.1 closed by RST_STREAM: HEADERS",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::RST_STREAM, 0, 1, [0, 0, 0, 8]),
                talk.get(1),
            ]
        },
        Reset(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
    ),
    case(
        "5.1 closed by RST_STREAM: CONTINUATION",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::RST_STREAM, 0, 1, [0, 0, 0, 8]),
                Frame::new(kind::CONTINUATION, flag::END_HEADERS, 1, &talk.get),
            ]
        },
        End(&[PROTOCOL_ERROR, STREAM_CLOSED]),
    ),
    case(
        "5.1.1 an even number",
        |talk| vec![talk.get(2)],
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "5.1.1 a smaller number",
        |talk| vec![talk.get(5), talk.get(3)],
        End(&[PROTOCOL_ERROR, STREAM_CLOSED]),
    ),
    case(
        "5.1.1 stream 0",
        |talk| vec![talk.get(0)],
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "5.3.1 HEADERS that depends on itself",
        |talk| {
            let block = [&[0, 0, 0, 1, 16][..], &talk.get].concat();
            one(kind::HEADERS, flag::WHOLE | flag::PRIORITY, 1, &block)
        },
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "5.3.1 HEADERS with a priority",
        |talk| {
            let block = [&[0, 0, 0, 0, 16][..], &talk.get].concat();
            one(kind::HEADERS, flag::WHOLE | flag::PRIORITY, 1, &block)
        },
        Answer,
    ),
    case(
        "5.5 unknown kind with a stream",
        |talk| vec![Frame::new(0x16, 0, 1, [0; 8]), talk.get(1)],
        Answer,
    ),
    case(
        "5.5 unknown kind amid a block",
        |talk| {
            vec![
                Frame::new(kind::HEADERS, flag::END_STREAM, 1, &talk.get),
                Frame::new(0x16, 0, 0, [0; 8]),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    // 6.1 DATA.
    case(
        "6.1 stream 0",
        |_| one(kind::DATA, flag::END_STREAM, 0, b"test"),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.1 padding",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(
                    kind::DATA,
                    flag::END_STREAM | flag::PADDED,
                    1,
                    b"\x02test\0\0",
                ),
            ]
        },
        Answer,
    ),
    case(
        "6.1 more padding than payload",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::DATA, flag::END_STREAM | flag::PADDED, 1, b"\x06test"),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.1 padding without its length",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::DATA, flag::END_STREAM | flag::PADDED, 1, b""),
            ]
        },
        End(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
    ),
    // 6.2 HEADERS.
    case(
        "6.2 padding",
        |talk| {
            let block = [&[2][..], &talk.get, &[0, 0]].concat();
            one(kind::HEADERS, flag::WHOLE | flag::PADDED, 1, &block)
        },
        Answer,
    ),
    case(
        "6.2 more padding than payload",
        |talk| {
            let block = [&[255][..], &talk.get[..50]].concat();
            one(kind::HEADERS, flag::WHOLE | flag::PADDED, 1, &block)
        },
        End(&[PROTOCOL_ERROR]),
    ),
    // 6.3 PRIORITY.
    case(
        "6.3 stream 0",
        |_| one(kind::PRIORITY, 0, 0, &[0, 0, 0, 0, 16]),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.3 length",
        |talk| vec![talk.post(1), Frame::new(kind::PRIORITY, 0, 1, [0; 4])],
        Reset(1, &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ),
    case(
        "6.3 idle stream",
        |_| one(kind::PRIORITY, 0, 7, &[0, 0, 0, 0, 16]),
        GoOn,
    ),
    // 6.4 RST_STREAM.
    case(
        "6.4 stream 0",
        |_| one(kind::RST_STREAM, 0, 0, &[0, 0, 0, 8]),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.4 length",
        |talk| vec![talk.post(1), Frame::new(kind::RST_STREAM, 0, 1, [0; 3])],
        End(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ),
    // 6.5 SETTINGS.
    case(
        "6.5 ACK with a payload",
        |_| one(kind::SETTINGS, flag::ACK, 0, &[0]),
        End(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ),
    case(
        "6.5 a stream",
        |_| one(kind::SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 1]),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.5 length",
        |_| one(kind::SETTINGS, 0, 0, &[0; 3]),
        End(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ),
    case(
        "6.5.2 ENABLE_PUSH of 2",
        |_| settings(2, 2),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.5.2 INITIAL_WINDOW_SIZE of 2^31",
        |_| settings(4, 1 << 31),
        End(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
    ),
    case(
        "6.5.2 MAX_FRAME_SIZE below",
        |_| settings(5, 16_383),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.5.2 MAX_FRAME_SIZE above",
        |_| settings(5, 1 << 24),
        End(&[PROTOCOL_ERROR]),
    ),
    case("6.5.2 unknown", |_| settings(0xff, 1), GoOn),
    case(
        "6.5.3 the last value counts",
        |talk| {
            let twice = [settings(4, 100), settings(4, 1 << 16)].concat();
            [twice, vec![talk.get(1)]].concat()
        },
        Answer,
    ),
    // 6.6 PUSH_PROMISE.
    case(
        "6.6 from a client",
        |talk| {
            let block = [&[0, 0, 0, 2][..], &talk.get].concat();
            vec![
                talk.post(1),
                Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, 1, block),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    // 6.7 PING.
    case(
        "6.7 ACK that nobody asked for",
        |_| one(kind::PING, flag::ACK, 0, &[7; 8]),
        GoOn,
    ),
    case(
        "6.7 a stream",
        |_| one(kind::PING, 0, 1, &[0; 8]),
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.7 length",
        |_| one(kind::PING, 0, 0, &[0; 6]),
        End(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ),
    // 6.8 GOAWAY.
    case(
        "6.8 a stream",
        |_| one(kind::GOAWAY, 0, 1, &[0; 8]),
        End(&[PROTOCOL_ERROR]),
    ),
    // 6.9 WINDOW_UPDATE.
    case(
        "6.9 nothing for the connection",
        |_| vec![window(0, 0)],
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.9 nothing for a stream",
        |talk| vec![talk.post(1), window(1, 0)],
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "6.9 length",
        |_| one(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
        End(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ),
    case(
        "6.9.1 too much for the connection",
        |_| vec![window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)],
        End(&[FLOW_CONTROL_ERROR]),
    ),
    case(
        "6.9.1 too much for a stream",
        |talk| vec![talk.post(1), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)],
        Reset(1, &[FLOW_CONTROL_ERROR]),
    ),
    case(
        "6.9.2 too much by a new initial size",
        |talk| {
            let large = settings(4, 0x7fff_ffff);
            [vec![talk.post(1), window(1, 0x7000_0000)], large].concat()
        },
        End(&[FLOW_CONTROL_ERROR]),
    ),
    // 6.10 CONTINUATION.
    case(
        "6.10 many",
        |talk| {
            let more = |flags| Frame::new(kind::CONTINUATION, flags, 1, fields(&[("a", "b")]));
            vec![
                Frame::new(kind::HEADERS, flag::END_STREAM, 1, &talk.get),
                more(0),
                more(0),
                more(flag::END_HEADERS),
            ]
        },
        Answer,
    ),
    case(
        "6.10 a field in two pieces",
        |talk| {
            let (one, two) = talk.get.split_at(talk.get.len() - 3);
            vec![
                Frame::new(kind::HEADERS, flag::END_STREAM, 1, one),
                Frame::new(kind::CONTINUATION, flag::END_HEADERS, 1, two),
            ]
        },
        Answer,
    ),
    case(
        "6.10 followed by DATA",
        |talk| {
            vec![
                Frame::new(kind::HEADERS, 0, 1, &talk.post),
                Frame::new(kind::DATA, flag::END_STREAM, 1, b"test"),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.10 stream 0",
        |talk| {
            vec![
                Frame::new(kind::HEADERS, flag::END_STREAM, 1, &talk.get),
                Frame::new(kind::CONTINUATION, flag::END_HEADERS, 0, b""),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.10 after END_HEADERS",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::CONTINUATION, flag::END_HEADERS, 1, b""),
            ]
        },
        End(&[PROTOCOL_ERROR]),
    ),
    case(
        "6.10 with no HEADERS before",
        |_| one(kind::CONTINUATION, 0, 1, b""),
        End(&[PROTOCOL_ERROR]),
    ),
    // 7 Codes.
    case(
        "7 GOAWAY with an unknown code",
        |_| one(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]),
        End(&[]),
    ),
    case(
        "7 RST_STREAM with an unknown code",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::RST_STREAM, 0, 1, [0, 0, 0, 0xff]),
            ]
        },
        GoOn,
    ),
    // 8.1 Messages.
    case(
        "8.1 trailers that do not end",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::HEADERS, flag::END_HEADERS, 1, fields(&[("a", "b")])),
            ]
        },
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.1 trailers",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::DATA, 0, 1, b"test"),
                Frame::new(kind::HEADERS, flag::WHOLE, 1, fields(&[("a", "b")])),
            ]
        },
        Answer,
    ),
    case(
        // The library takes the pseudo-field away before we see it, where it should reset.
        "8.1 trailers with a pseudo-field",
        |talk| {
            vec![
                talk.post(1),
                Frame::new(kind::DATA, 0, 1, b"test"),
                Frame::new(kind::HEADERS, flag::WHOLE, 1, fields(&[(":path", "/")])),
            ]
        },
        Answer,
    ),
    case(
        "8.1.1 less than the length",
        |talk| {
            vec![
                talk.post_of(1, "10"),
                Frame::new(kind::DATA, flag::END_STREAM, 1, b"test"),
            ]
        },
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.1.1 more than the length",
        |talk| {
            vec![
                talk.post_of(1, "1"),
                Frame::new(kind::DATA, flag::END_STREAM, 1, b"test"),
            ]
        },
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.1.1 more than the length in two frames",
        |talk| {
            vec![
                talk.post_of(1, "5"),
                Frame::new(kind::DATA, 0, 1, b"test"),
                Frame::new(kind::DATA, flag::END_STREAM, 1, b"test"),
            ]
        },
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.2 upper case",
        |talk| talk.with(&fields(&[("X-Upper", "a")])),
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.2.2 connection",
        |talk| talk.with(&fields(&[("connection", "close")])),
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.2.2 te",
        |talk| talk.with(&fields(&[("te", "trailers, deflate")])),
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.2.2 te: trailers",
        |talk| talk.with(&fields(&[("te", "trailers")])),
        Answer,
    ),
    case(
        "8.3 pseudo-field after a field",
        |talk| talk.with(&fields(&[("a", "b"), (":path", "/")])),
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.3 unknown pseudo-field",
        |talk| {
            let block = [&fields(&[(":test", "ok")])[..], &talk.get].concat();
            vec![Frame::new(kind::HEADERS, flag::WHOLE, 1, block)]
        },
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    case(
        "8.3 twice",
        |talk| talk.with(&fields(&[(":method", "GET")])),
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    // RFC 7541.
    case(
        "HPACK 2.3.3 index out of range",
        |talk| talk.with(&[0xc6]),
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 2.3.3 name out of range",
        |talk| talk.with(&[0x7f, 0x46, 1, b'a']),
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 4.2 size after a field",
        |talk| talk.with(&[0x20]),
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 4.2 size before the fields",
        |talk| {
            let block = [&[0x20][..], &talk.get].concat();
            vec![Frame::new(kind::HEADERS, flag::WHOLE, 1, block)]
        },
        Answer,
    ),
    case(
        "HPACK 5.1 integer that overflows",
        |talk| {
            talk.with(&[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
            ])
        },
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 5.2 padding longer than 7 bits",
        |talk| {
            talk.with(&[
                0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff,
            ])
        },
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 5.2 padding of zeros",
        |talk| {
            talk.with(&[
                0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x90,
            ])
        },
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 5.2 EOS",
        |talk| {
            talk.with(&[
                0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x87, 0x49, 0x51, 0xff, 0xff, 0xff, 0xfa,
                0x7f,
            ])
        },
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 6.1 index 0",
        |talk| talk.with(&[0x80]),
        End(BAD_BLOCK),
    ),
    case(
        "HPACK 6.2 literals of all kinds",
        |talk| {
            talk.with(&[
                0x40, 1, b'a', 1, b'b', 0x00, 1, b'a', 1, b'b', 0x10, 1, b'a', 1, b'b', 0xbe,
            ])
        },
        Answer,
    ),
    case(
        "HPACK 6.3 size above the limit",
        |talk| {
            let block = [&[0x3f, 0xe1, 0xff, 0x03][..], &talk.get].concat();
            vec![Frame::new(kind::HEADERS, flag::WHOLE, 1, block)]
        },
        End(BAD_BLOCK),
    ),
];

/// What is wrong with how the gate took that case.
fn judge(client: &mut Http2, case: &Case, talk: &Talk) -> Option<String> {
    let frames: Vec<u8> = (case.send)(talk).iter().flat_map(Frame::bytes).collect();
    client.send(frames);
    let (ended, good) = match case.must {
        GoOn => {
            let answered = client.answers_ping();
            return (!answered).then(|| format!("{}: the connection ended", case.what));
        }
        Answer => {
            let ended = client.outcome(1);
            let good = ended == Ended::Status(200);
            (ended, good)
        }
        End(codes) => {
            let ended = client.ended();
            let good = match &ended {
                Ended::GoAway(code) => codes.contains(code),
                ended => *ended == Ended::Closed,
            };
            (ended, good)
        }
        Reset(stream, codes) => {
            let ended = client.reset_of(stream);
            let good = match &ended {
                Ended::GoAway(code) | Ended::Reset(code) => codes.contains(code),
                ended => *ended == Ended::Closed,
            };
            (ended, good)
        }
    };
    (!good).then(|| format!("{}: {ended:?}", case.what))
}

#[test]
fn the_sections_hold() {
    let bench = Bench::start();
    let talk = Talk {
        get: bench.block("GET"),
        post: bench.block("POST"),
    };
    let wrong: Vec<String> = CASES
        .iter()
        .filter_map(|case| judge(&mut bench.connect(), case, &talk))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        CASES.len()
    );
    bench.serves_others();
    let trailers = bench.origin.requests();
    let mut trailers = trailers.iter().flat_map(|request| &request.trailers);
    assert!(!trailers.any(|(name, _)| name.contains("path")));
    let said = bench.gate.said();
    assert!(!said.contains("PING"), "peers fill the log: {said}");
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    let bench = Bench::start();
    // Section 3.4: the gate's SETTINGS come first, and are as it says.
    let mut client = Http2::silent(bench.wire());
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.frame(kind::SETTINGS, 0, 0, []);
    let first = client.next().expect("SETTINGS");
    assert_eq!(
        (first.kind, first.flags, first.stream),
        (kind::SETTINGS, 0, 0)
    );
    // Among what is said of windows, ours are acknowledged.
    let acknowledged = std::iter::from_fn(|| client.next())
        .any(|next| (next.kind, next.flags) == (kind::SETTINGS, flag::ACK));
    assert!(acknowledged);
    // A preface that is another one, or none.
    for wrong in [
        "INVALID CONNECTION PREFACE\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nxxxxxxxx",
    ] {
        let mut client = Http2::silent(bench.wire());
        client.send(wrong);
        assert!(matches!(client.ended(), Ended::Closed | Ended::GoAway(_)));
    }
    bench.origin.saw_nothing();
}

#[test]
fn windows_are_kept_to() {
    let bench = Bench::start();
    let mut client = bench.connect();
    // Section 6.9: one octet of window for each stream, then more by SETTINGS and WINDOW_UPDATE.
    client.frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 1]);
    client.frame(kind::HEADERS, flag::WHOLE, 1, bench.block("GET"));
    assert_eq!(client.outcome(1), Ended::Status(200));
    let data = client.next_of(1);
    assert_eq!((data.kind, data.payload.len()), (kind::DATA, 1));
    client.frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 3]);
    assert_eq!(client.next_of(1).payload.len(), 2);
    client.frame(kind::WINDOW_UPDATE, 0, 1, [0, 0, 0, 5]);
    assert_eq!(client.next_of(1).payload.len(), 5);
    // A window may become less than nothing.
    client.frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
    client.frame(kind::WINDOW_UPDATE, 0, 1, [0, 0, 0, 4]);
    assert_eq!(client.next_of(1).payload.len(), 1);
}

#[test]
fn one_stream_more_than_there_may_be_is_refused() {
    const STREAMS: u32 = 128;
    const REFUSED_STREAM: u32 = 7;
    let bench = Bench::start();
    let mut client = bench.connect();
    for number in 0..=STREAMS {
        let block = bench.block("POST");
        client.frame(kind::HEADERS, flag::END_HEADERS, number * 2 + 1, block);
    }
    assert_eq!(
        client.reset_of(STREAMS * 2 + 1),
        Ended::Reset(REFUSED_STREAM)
    );
    client.frame(kind::DATA, flag::END_STREAM, 1, b"test");
    assert_eq!(client.outcome(1), Ended::Status(200));
}
