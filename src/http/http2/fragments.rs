//! Finds the requests whose `:path` contains `#` in the frames of a client.
//!
//! A request target has no fragment (RFC 9113 section 8.3.1). The library removes the fragment
//! before the gate sees the request, so the gate also reads the header blocks itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frames::{CONTINUATION, HEADERS, PUSH_PROMISE};
use super::hpack::{Decoder, Malformed};

/// Maximum number of streams with a fragment that are stored until their request is taken. The
/// library ends a connection long before, as it bounds open and refused streams.
const MAX_STREAMS: usize = 1024;

const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// Octets of the fields of a HEADERS frame before the header block.
const PAD_LENGTH: usize = 1;
const DEPENDENCY: usize = 5;

/// Whether the `:path` of a request contains `#`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    Absent,
    Present,
    /// The header blocks of the connection could not be read.
    Unknown,
}

/// The streams whose `:path` contains `#`: the frame reader adds them, the requests take them.
#[derive(Clone, Default)]
pub(super) struct Fragments(Arc<Mutex<Found>>);

#[derive(Default)]
struct Found {
    streams: Vec<u32>,
    is_unreadable: bool,
}

impl Fragments {
    /// Returns whether the request of this stream has a fragment, and removes the stream.
    pub(super) fn take(&self, stream: u32) -> Fragment {
        let mut found = self.lock();
        if found.is_unreadable {
            return Fragment::Unknown;
        }
        match found.streams.iter().position(|other| *other == stream) {
            Some(place) => {
                found.streams.swap_remove(place);
                Fragment::Present
            }
            None => Fragment::Absent,
        }
    }

    fn add(&self, stream: u32) {
        let mut found = self.lock();
        if found.streams.len() < MAX_STREAMS {
            found.streams.push(stream);
        } else {
            found.is_unreadable = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header blocks of a client, read from its frames.
///
/// After an octet that cannot be decoded, no request of the connection is accepted: the tables of
/// the library and of this decoder might differ. In most cases the library ends the connection as
/// well.
pub(super) struct HeaderBlocks {
    decoder: Decoder,
    frame: BlockFrame,
    /// The stream of an incomplete block.
    open: Option<u32>,
    is_readable: bool,
    found: Fragments,
}

/// The unread rest of a HEADERS or CONTINUATION frame.
#[derive(Default)]
struct BlockFrame {
    flags: u8,
    /// Missing octets of the prefix: the length of the padding, and the dependency.
    prefix_missing: usize,
    prefix: u64,
    /// Octets after the prefix: the header block; before the prefix is complete, with padding.
    block: usize,
}

impl HeaderBlocks {
    pub(super) fn new(found: Fragments) -> Self {
        Self {
            decoder: Decoder::new(),
            frame: BlockFrame::default(),
            open: None,
            is_readable: true,
            found,
        }
    }

    /// Starts a frame with a payload of `length` octets.
    pub(super) fn begin(&mut self, kind: u8, flags: u8, stream: u32, length: usize) {
        if self.is_readable {
            let begun = self.try_begin(kind, flags, stream, length);
            self.stop_unless(begun.is_ok());
        }
    }

    /// Processes a piece of the payload of the frame.
    pub(super) fn take(&mut self, payload: &[u8]) {
        if self.is_readable && self.open.is_some() {
            let taken = self.try_take(payload);
            self.stop_unless(taken.is_ok());
        }
    }

    fn stop_unless(&mut self, is_readable: bool) {
        if !is_readable {
            self.is_readable = false;
            self.found.lock().is_unreadable = true;
        }
    }

    fn try_begin(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        length: usize,
    ) -> Result<(), Malformed> {
        let prefix_missing = match (kind, self.open) {
            (HEADERS, None) => {
                let padded = usize::from(flags & PADDED != 0) * PAD_LENGTH;
                padded + usize::from(flags & PRIORITY != 0) * DEPENDENCY
            }
            (CONTINUATION, Some(open)) if open == stream => 0,
            // A client pushes nothing, and no other frame is allowed between the frames of a block.
            (CONTINUATION | PUSH_PROMISE, _) | (_, Some(_)) => return Err(Malformed),
            _ => return Ok(()),
        };
        self.open = Some(stream);
        self.frame = BlockFrame {
            // A CONTINUATION frame has only one flag (RFC 9113 section 6.10).
            flags: if kind == HEADERS {
                flags
            } else {
                flags & END_HEADERS
            },
            prefix_missing,
            prefix: 0,
            block: length.checked_sub(prefix_missing).ok_or(Malformed)?,
        };
        self.end_of_frame(stream)
    }

    fn try_take(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let Some(stream) = self.open else {
            return Ok(());
        };
        let rest = self.frame.take_prefix(payload, stream)?;
        if self.frame.prefix_missing == 0 {
            let (block, _padding) = rest.split_at(self.frame.block.min(rest.len()));
            self.frame.block -= block.len();
            self.decoder.take(block)?;
        }
        self.end_of_frame(stream)
    }

    /// Ends the block if this was its last octet.
    fn end_of_frame(&mut self, stream: u32) -> Result<(), Malformed> {
        let BlockFrame {
            flags,
            prefix_missing: 0,
            block: 0,
            ..
        } = self.frame
        else {
            return Ok(());
        };
        if flags & END_HEADERS != 0 {
            self.open = None;
            if self.decoder.end()? {
                self.found.add(stream);
            }
        }
        Ok(())
    }
}

impl BlockFrame {
    /// Processes the prefix octets in a payload; returns the octets after the prefix.
    fn take_prefix<'a>(&mut self, payload: &'a [u8], stream: u32) -> Result<&'a [u8], Malformed> {
        if self.prefix_missing == 0 {
            return Ok(payload);
        }
        let (part, rest) = payload.split_at(self.prefix_missing.min(payload.len()));
        for octet in part {
            self.prefix = self.prefix << 8 | u64::from(*octet);
        }
        self.prefix_missing -= part.len();
        if self.prefix_missing == 0 {
            self.end_of_prefix(stream)?;
        }
        Ok(rest)
    }

    fn end_of_prefix(&mut self, stream: u32) -> Result<(), Malformed> {
        let has_priority = self.flags & PRIORITY != 0;
        // The dependency is 31 bits after one bit, and before an octet of weight. The library reads
        // no block of a stream that depends on itself.
        if has_priority && self.prefix >> 8 & u64::from(u32::MAX >> 1) == u64::from(stream) {
            return Err(Malformed);
        }
        if self.flags & PADDED != 0 {
            let after = if has_priority { DEPENDENCY * 8 } else { 0 };
            let padding = usize::try_from(self.prefix >> after).map_err(|_| Malformed)?;
            self.block = self.block.checked_sub(padding).ok_or(Malformed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &[u8] = &[0x44, 3, b'/', b'#', b'a'];
    const STREAM: u32 = 5;

    /// Reads frames with their payloads in pieces of `size` octets.
    fn read(frames: &[(u8, u8, u32, &[u8])], size: usize) -> Fragment {
        let found = Fragments::default();
        let mut blocks = HeaderBlocks::new(found.clone());
        for (kind, flags, stream, payload) in frames {
            blocks.begin(*kind, *flags, *stream, payload.len());
            for piece in payload.chunks(size) {
                blocks.take(piece);
            }
        }
        found.take(STREAM)
    }

    #[test]
    fn a_fragment_is_found_behind_padding_and_priority() {
        let padded = [&[2], PATH, &[0xff, 0xff]].concat();
        let preferred = [&[0x80, 0, 0, 3, 7], PATH].concat();
        let both = [&[2, 0, 0, 0, 0, 7], PATH, &[0xff, 0xff]].concat();
        for (flags, payload) in [
            (0, PATH),
            (PADDED, &padded),
            (PRIORITY, &preferred),
            (PADDED | PRIORITY, &both),
        ] {
            for size in 1..=payload.len() {
                let frame = (HEADERS, flags | END_HEADERS, STREAM, payload);
                assert_eq!(read(&[frame], size), Fragment::Present, "{flags} {size}");
                // One block in pieces, the last of them empty.
                let (begin, rest) = payload.split_at(payload.len() - 2);
                if flags & PADDED == 0 {
                    let frames = [
                        (HEADERS, flags, STREAM, begin),
                        (CONTINUATION, PADDED | PRIORITY, STREAM, rest),
                        (CONTINUATION, END_HEADERS, STREAM, b""),
                    ];
                    assert_eq!(read(&frames, size), Fragment::Present, "{flags} {size}");
                }
            }
        }
    }

    #[test]
    fn frames_that_the_library_might_read_differently_leave_it_unknown() {
        let itself = [&[0, 0, 0, 5, 7], PATH].concat();
        for frames in [
            &[(HEADERS, END_HEADERS | PRIORITY, STREAM, &itself[..])][..],
            &[(HEADERS, END_HEADERS | PRIORITY, STREAM, b"abcd")],
            &[(HEADERS, END_HEADERS | PADDED, STREAM, b"")],
            &[(HEADERS, END_HEADERS | PADDED, STREAM, b"\x02a")],
            &[(PUSH_PROMISE, END_HEADERS, STREAM, PATH)],
            &[(CONTINUATION, END_HEADERS, STREAM, PATH)],
            &[(HEADERS, 0, STREAM, PATH), (0, 0, STREAM, b"")],
            &[(HEADERS, 0, STREAM, PATH), (CONTINUATION, 0, 7, b"")],
            &[(HEADERS, END_HEADERS, 3, b"\xbe")],
        ] {
            assert_eq!(read(frames, 2), Fragment::Unknown, "{frames:?}");
        }
    }

    #[test]
    fn frames_of_other_kinds_and_streams_have_no_fragment() {
        for frames in [
            &[(0, END_HEADERS, STREAM, PATH)][..],
            &[(HEADERS, END_HEADERS, 7, PATH)],
            &[(HEADERS, END_HEADERS | PADDED, STREAM, b"\x05\x44\x03/#a")],
            &[(HEADERS, END_HEADERS, STREAM, b"")],
        ] {
            assert_eq!(read(frames, 2), Fragment::Absent, "{frames:?}");
        }
    }

    #[test]
    fn the_streams_are_bounded() {
        let found = Fragments::default();
        for stream in 0..1024 {
            found.add(stream);
        }
        assert_eq!(found.take(7), Fragment::Present);
        assert_eq!(found.take(7), Fragment::Absent);
        found.add(7);
        found.add(2000);
        assert_eq!(found.take(7), Fragment::Unknown);
    }
}
