//! A `:path` of HTTP/2 that contains `#` is refused, however it is encoded.

use crate::http2_hostile::Bench;
use crate::http2_origin;
use crate::kit::{
    Ended, Frame, Gate, Http2, Inside, Line, Origin2, Pki, TIERS, fields, flag, inspected, kind,
};

/// `:path` of the static table with a literal value; the field is added to the dynamic table, or not.
const PATH_ADDED: u8 = 0x44;
const PATH_NOT_ADDED: u8 = 0x04;
/// The newest entry of the dynamic table.
const NEWEST: u8 = 0x80 | 0x3e;
/// `/#` and `:path` in Huffman's code.
const HUFFMAN_HASH: &[u8] = &[0x83, 0x63, 0xfe, 0xbf];
const HUFFMAN_NAME: &[u8] = &[0x84, 0xb9, 0x58, 0xd3, 0x3f];
/// A table of no bytes, and again one of 4096.
const EMPTIED: &[u8] = &[0x20, 0x3f, 0xe1, 0x1f];

const REFUSED: Ended = Ended::Status(400);
const PASSED: Ended = Ended::Status(200);

/// A gate and the other fields of a request that it lets through.
struct Side<'a> {
    gate: &'a Gate,
    connect: &'a dyn Fn() -> Http2,
    head: Vec<(String, String)>,
    requests: &'a dyn Fn() -> usize,
}

/// Runs a scenario at a listener and inside an inspected tunnel.
fn on_both_sides(scenario: impl Fn(&Side<'_>)) {
    let bench = Bench::start();
    scenario(&Side {
        gate: &bench.gate,
        connect: &|| bench.connect(),
        head: bench.head("GET"),
        requests: &|| bench.origin.requests().len(),
    });

    let origins = Pki::new();
    let origin = Origin2::start(origins.serving(&[http2_origin::HOST], |_| {}), true);
    let rules = inspected("two", http2_origin::HOST, origin.port(), "");
    let policy = format!("{TIERS}{rules}");
    let inside = Inside::start(&origins, &[http2_origin::HOST], &policy);
    let authority = format!("{}:{}", http2_origin::HOST, origin.port());
    let head = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", &authority),
        (":path", "/"),
    ];
    scenario(&Side {
        gate: &inside.gate,
        connect: &|| http2_origin::connect(&inside, origin.port()),
        head: head.map(|(name, value)| (name.into(), value.into())).into(),
        requests: &|| origin.requests().len(),
    });
}

impl Side<'_> {
    /// A block with this representation of `:path`.
    fn block(&self, path: &[u8]) -> Vec<u8> {
        [&fields(&self.head[..3]), path].concat()
    }

    /// How many refusals of a fragment are among the lines.
    fn refusals(lines: &[Line]) -> usize {
        let of_fragment = lines.iter().filter(|line| line.reason() == "bad_target");
        of_fragment.filter(|line| line.is_decision()).count()
    }

    /// Sends blocks as streams of one connection, in turn, and checks how each of them ends.
    #[track_caller]
    fn end_as(&self, what: &str, blocks: &[(&[u8], Ended)]) {
        let mut client = (self.connect)();
        for (place, (path, expected)) in blocks.iter().enumerate() {
            let stream = u32::try_from(place * 2 + 1).expect("small");
            let frame = Frame::new(kind::HEADERS, flag::WHOLE, stream, self.block(path));
            self.ends_as(what, &mut client, &[frame], expected);
        }
    }

    /// A stream ends as expected, with a request at the origin or a refusal on record.
    #[track_caller]
    fn ends_as(&self, what: &str, client: &mut Http2, frames: &[Frame], expected: &Ended) {
        let (requests, refusals) = ((self.requests)(), Self::refusals(&self.gate.records()));
        client.send(frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>());
        assert_eq!(client.outcome(frames[0].stream), *expected, "{what}");
        let (passed, refused) = match expected {
            Ended::Status(200) => (1, 0),
            _ => (0, 1),
        };
        assert_eq!((self.requests)() - requests, passed, "{what}: requests");
        self.gate
            .eventually_records(what, |lines| Self::refusals(lines) == refusals + refused);
    }
}

/// A value that is not in Huffman's code, after a first octet.
fn plain(first: u8, value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("short");
    [&[first, length], value.as_bytes()].concat()
}

#[test]
fn a_hash_in_a_path_is_refused_in_each_encoding() {
    on_both_sides(|side| {
        for (what, path) in [
            ("name and value", fields(&[(":path", "/a#b")])),
            ("name of the static table", plain(PATH_NOT_ADDED, "/a#b")),
            ("the other name of the static table", plain(0x05, "/a#b")),
            ("never added", plain(0x14, "/a#b")),
            ("added", plain(PATH_ADDED, "/a#b")),
            ("in a query", plain(PATH_NOT_ADDED, "/a?b#c")),
            ("at the end", plain(PATH_NOT_ADDED, "/a#")),
            ("alone", plain(PATH_NOT_ADDED, "#a")),
            ("twice", plain(PATH_NOT_ADDED, "/a#b#c")),
            ("Huffman", [&[PATH_NOT_ADDED][..], HUFFMAN_HASH].concat()),
            (
                "Huffman, name and value",
                [&[0][..], HUFFMAN_NAME, HUFFMAN_HASH].concat(),
            ),
        ] {
            side.end_as(what, &[(&path, REFUSED), (&plain(4, "/"), PASSED)]);
        }
    });
}

#[test]
fn a_hash_in_a_path_of_the_dynamic_table_is_refused_each_time() {
    let (added, other) = (plain(PATH_ADDED, "/a#b"), plain(PATH_ADDED, "/a"));
    let huffman = [&[PATH_ADDED][..], HUFFMAN_HASH].concat();
    on_both_sides(|side| {
        side.end_as(
            "indexed",
            &[
                (&added, REFUSED),
                (&[NEWEST], REFUSED),
                (&other, PASSED),
                (&[NEWEST], PASSED),
                (&[NEWEST + 1], REFUSED),
                (&[&[0x7f][..], &plain(0, "/b#")].concat(), REFUSED),
                (&plain(0x7e, "/b"), PASSED),
            ],
        );
        side.end_as("Huffman", &[(&huffman, REFUSED), (&[NEWEST], REFUSED)]);
        let mut client = (side.connect)();
        for (stream, path, expected) in [
            (1, &added[..], REFUSED),
            (3, &other, PASSED),
            (5, &added, REFUSED),
        ] {
            // A new size of the table stands at the beginning of a block.
            let block = [EMPTIED, &side.block(path)].concat();
            let frame = Frame::new(kind::HEADERS, flag::WHOLE, stream, block);
            side.ends_as("after a new size", &mut client, &[frame], &expected);
        }
        let frame = Frame::new(kind::HEADERS, flag::WHOLE, 7, side.block(&[NEWEST]));
        side.ends_as("the one entry left", &mut client, &[frame], &REFUSED);
    });
}

#[test]
fn a_hash_in_a_path_is_refused_behind_padding_and_in_pieces() {
    on_both_sides(|side| {
        let block = side.block(&plain(PATH_ADDED, "/a#b"));
        let padded = [&[3, 0, 0, 0, 0, 9][..], &block, &[0; 3]].concat();
        let flags = flag::PADDED | flag::PRIORITY;
        let frame = Frame::new(kind::HEADERS, flag::WHOLE | flags, 1, padded);
        side.ends_as("padded", &mut (side.connect)(), &[frame], &REFUSED);

        let mut client = (side.connect)();
        for (place, cut) in (block.len() - 6..=block.len()).enumerate() {
            let stream = u32::try_from(place * 2 + 1).expect("small");
            let (begin, rest) = block.split_at(cut);
            let frames = [
                Frame::new(kind::HEADERS, flag::END_STREAM, stream, begin),
                Frame::new(kind::CONTINUATION, 0, stream, rest),
                Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, []),
            ];
            side.ends_as("in pieces", &mut client, &frames, &REFUSED);
        }
    });
}

#[test]
fn a_hash_that_is_no_fragment_passes() {
    let referer = |first: u8| [&[0x84][..], &plain(first, "http://a.example/#b")].concat();
    on_both_sides(|side| {
        side.end_as(
            "no fragment",
            &[
                (&plain(PATH_ADDED, "/a%23b"), PASSED),
                (&[NEWEST], PASSED),
                (&plain(PATH_NOT_ADDED, "/a?b=%23"), PASSED),
                // The field `referer` of the static table, added and again by its index.
                (&referer(0x40 | 0x33), PASSED),
                (&[0x84, NEWEST], PASSED),
                (&[&[0x84][..], &fields(&[("x-path", "#")])].concat(), PASSED),
            ],
        );
    });
}

#[test]
fn each_of_many_streams_is_judged_by_its_own_path() {
    on_both_sides(|side| {
        let mut client = (side.connect)();
        // Room for the texts of all refusals.
        client.frame(kind::WINDOW_UPDATE, 0, 0, [0x40, 0, 0, 0]);
        let (clean, cut) = (plain(PATH_ADDED, "/a"), plain(PATH_ADDED, "/a#b"));
        for round in 0..20_u32 {
            let streams: Vec<u32> = (0..20).map(|place| (round * 20 + place) * 2 + 1).collect();
            let has_hash = |stream: u32| stream.is_multiple_of(3);
            let frames = streams.iter().flat_map(|stream| {
                let path = if has_hash(*stream) { &cut } else { &clean };
                Frame::new(kind::HEADERS, flag::WHOLE, *stream, side.block(path)).bytes()
            });
            client.send(frames.collect::<Vec<_>>());
            let mut open = streams.len();
            while open > 0 {
                let frame = client.next().expect("answers");
                if let (kind::HEADERS, Some(status)) = (frame.kind, frame.status()) {
                    let expected = if has_hash(frame.stream) { 400 } else { 200 };
                    assert_eq!(status, expected, "stream {}", frame.stream);
                    open -= 1;
                }
            }
        }
        assert!(client.answers_ping());
    });
}

/// The library resets a stream that depends on itself and does not read its header block, so that
/// its table is no longer the client's.
#[test]
fn no_request_passes_where_the_tables_might_differ() {
    on_both_sides(|side| {
        let mut client = (side.connect)();
        let cut = side.block(&plain(PATH_ADDED, "/a#b"));
        let frame = Frame::new(kind::HEADERS, flag::WHOLE, 1, cut);
        side.ends_as("added", &mut client, &[frame], &REFUSED);
        let itself = [&3_u32.to_be_bytes()[..], &[9], &plain(PATH_ADDED, "/a")].concat();
        client.frame(kind::HEADERS, flag::WHOLE | flag::PRIORITY, 3, itself);
        assert!(matches!(client.outcome(3), Ended::Reset(_)));
        let requests = (side.requests)();
        for (stream, path) in [(5, NEWEST), (7, 0x84)] {
            client.frame(kind::HEADERS, flag::WHOLE, stream, side.block(&[path]));
            assert_eq!(client.outcome(stream), REFUSED);
        }
        assert_eq!((side.requests)(), requests);
    });
}
