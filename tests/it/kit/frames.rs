//! HTTP/2 by hand: every frame can be written, whether it is allowed or not.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::{DEADLINE, Wire};

/// Kinds of frames (RFC 9113 section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 32;
    /// A whole request or answer without a body.
    pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No table, so that what comes back can be read without one.
const OUR_SETTINGS: &[u8] = &[0, 1, 0, 0, 0, 0];

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a stream, or the whole connection, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The head of an answer, with this status.
    Status(u16),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// GOAWAY with this code (other than 0).
    GoAway(u32),
    /// Closed without a word.
    Closed,
    /// Not at all: nothing came in time.
    Silent,
}

/// A connection of HTTP/2, from either side.
pub(crate) struct Http2 {
    wire: Wire,
    come: Vec<u8>,
    /// GOAWAY that was seen.
    gone: Option<u32>,
    over: bool,
    silent: bool,
}

impl Frame {
    /// A frame, right or wrong.
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a length");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The status that a block of HPACK without a table begins with.
    pub(crate) fn status(&self) -> Option<u16> {
        let block = self.payload.as_slice();
        let at = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
        match block[at..] {
            [indexed @ 0x88..=0x8e, ..] => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)])
            }
            [0x48 | 0x08 | 0x18, length, ref rest @ ..] => {
                let text = &rest[..usize::from(length & 0x7f)];
                if length & 0x80 == 0 {
                    std::str::from_utf8(text).ok()?.parse().ok()
                } else {
                    digits(text)
                }
            }
            _ => None,
        }
    }
}

/// Three digits in the code of RFC 7541, appendix B: five bits for 0 to 2, six for others.
fn digits(text: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let take = |count| bits.get(at..at + count);
        let value = |bits: &[u8]| bits.iter().fold(0, |all, bit| all << 1 | u16::from(*bit));
        let short = value(take(5)?);
        let (digit, length) = match short {
            0..=2 => (short, 5),
            _ => (value(take(6)?) - 0b01_1001 + 3, 6),
        };
        number = number * 10 + digit;
        at += length;
    }
    Some(number)
}

/// A block of HPACK: each field as it is, without a table and without Huffman's code.
pub(crate) fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            put_integer(&mut block, 7, text.len());
            block.extend(text);
        }
    }
    block
}

/// An integer after a prefix of so many bits, all else 0 (RFC 7541 section 5.1).
fn put_integer(into: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        into.push(u8::try_from(value).expect("small"));
        return;
    }
    into.push(u8::try_from(most).expect("small"));
    let mut rest = value - most;
    while rest >= 128 {
        into.push(u8::try_from(rest % 128 + 128).expect("small"));
        rest /= 128;
    }
    into.push(u8::try_from(rest).expect("small"));
}

impl Http2 {
    /// Begins as a client: preface, SETTINGS, and the other side's SETTINGS with an ACK.
    pub(crate) fn client(wire: Wire) -> Self {
        let mut this = Self::silent(wire);
        this.send(PREFACE);
        this.frame(kind::SETTINGS, 0, 0, OUR_SETTINGS);
        this.settle();
        this
    }

    /// Begins as a server.
    pub(crate) fn server(mut wire: Wire) -> io::Result<Self> {
        wire.read_exact(&mut [0; PREFACE.len()])?;
        let mut this = Self::silent(wire);
        this.frame(kind::SETTINGS, 0, 0, OUR_SETTINGS);
        this.settle();
        Ok(this)
    }

    /// Says nothing yet.
    pub(crate) fn silent(wire: Wire) -> Self {
        Self {
            wire,
            come: Vec::new(),
            gone: None,
            over: false,
            silent: false,
        }
    }

    fn settle(&mut self) {
        let settings = self.next().expect("SETTINGS");
        assert_eq!((settings.kind, settings.flags), (kind::SETTINGS, 0));
        self.frame(kind::SETTINGS, flag::ACK, 0, []);
    }

    /// Writes bytes; whether the other side still took them.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.wire.write_all(bytes.as_ref());
        sent.and_then(|()| self.wire.flush()).is_ok()
    }

    /// Writes a frame.
    pub(crate) fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: impl AsRef<[u8]>,
    ) -> bool {
        self.send(Frame::new(kind, flags, stream, payload).bytes())
    }

    /// Writes a HEADERS frame with these fields.
    pub(crate) fn head<N, V>(&mut self, stream: u32, flags: u8, head: &[(N, V)]) -> bool
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        self.frame(kind::HEADERS, flags, stream, fields(head))
    }

    /// The next frame; nothing at the end, or where nothing comes in time.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut some = [0; 16 * 1024];
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            match self.wire.read(&mut some) {
                Ok(count @ 1..) => self.come.extend(&some[..count]),
                Err(error) if is_later(&error) => {
                    self.silent = true;
                    return None;
                }
                Ok(0) | Err(_) => {
                    self.over = true;
                    return None;
                }
            }
        }
    }

    /// A frame that came whole.
    fn take(&mut self) -> Option<Frame> {
        let [a, b, c, kind, flags, stream @ ..] = *self.come.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.come.get(9..9 + length)?.to_vec();
        self.come.drain(..9 + length);
        let stream = u32::from_be_bytes(stream);
        if kind == kind::GOAWAY {
            let code = payload[4..8].try_into().expect("four octets");
            self.gone = Some(u32::from_be_bytes(code));
        }
        Some(Frame::new(kind, flags, stream, payload))
    }

    /// Passes over what came so far without waiting; whether the connection still lives.
    pub(crate) fn drain(&mut self) -> bool {
        let socket = self.wire.socket();
        socket.set_nonblocking(true).expect("a socket");
        let mut some = [0; 16 * 1024];
        loop {
            match self.wire.read(&mut some) {
                Ok(count @ 1..) => self.come.extend(&some[..count]),
                Err(error) if is_later(&error) => break,
                Ok(0) | Err(_) => {
                    self.over = true;
                    break;
                }
            }
        }
        self.wire.socket().set_nonblocking(false).expect("a socket");
        while self.take().is_some() {}
        !self.over && self.gone.unwrap_or(0) == 0
    }

    /// Waits until the stream is answered or reset, or the connection ends.
    pub(crate) fn outcome(&mut self, stream: u32) -> Ended {
        while let Some(frame) = self.next() {
            if let Some(code @ 1..) = self.gone {
                return Ended::GoAway(code);
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                kind::HEADERS => {
                    if let Some(status @ 200..) = frame.status() {
                        return Ended::Status(status);
                    }
                }
                kind::RST_STREAM => return Ended::Reset(code(&frame)),
                _ => {}
            }
        }
        self.without_a_word()
    }

    /// Waits until the stream is reset, whether it was answered or not, or the connection ends.
    pub(crate) fn reset_of(&mut self, stream: u32) -> Ended {
        while let Some(frame) = self.next() {
            if let Some(code @ 1..) = self.gone {
                return Ended::GoAway(code);
            }
            if (frame.kind, frame.stream) == (kind::RST_STREAM, stream) {
                return Ended::Reset(code(&frame));
            }
        }
        self.without_a_word()
    }

    /// The next frame of a stream.
    #[track_caller]
    pub(crate) fn next_of(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().expect("an open connection");
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// Waits until the connection ends.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Ended {
        let begun = Instant::now();
        while self.next().is_some() {
            assert!(begun.elapsed() < DEADLINE, "it goes on");
        }
        match self.gone {
            Some(code @ 1..) => Ended::GoAway(code),
            _ => self.without_a_word(),
        }
    }

    fn without_a_word(&self) -> Ended {
        if self.silent {
            Ended::Silent
        } else {
            Ended::Closed
        }
    }

    /// Everything of a stream's body, up to its end or how it broke off.
    pub(crate) fn body(&mut self, stream: u32) -> Result<Vec<u8>, Ended> {
        let mut body = Vec::new();
        while let Some(frame) = self.next() {
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                kind::DATA => body.extend(&frame.payload),
                kind::RST_STREAM => return Err(Ended::Reset(code(&frame))),
                _ => {}
            }
            if matches!(frame.kind, kind::DATA | kind::HEADERS)
                && frame.flags & flag::END_STREAM != 0
            {
                return Ok(body);
            }
        }
        Err(self.without_a_word())
    }

    /// Whether the other side answers a PING, so that all before it was read.
    pub(crate) fn answers_ping(&mut self) -> bool {
        self.frame(kind::PING, 0, 0, b"hi there");
        while let Some(frame) = self.next() {
            if (frame.kind, frame.flags) == (kind::PING, flag::ACK) && frame.payload == b"hi there"
            {
                return true;
            }
        }
        false
    }

    /// How long writing and reading wait.
    pub(crate) fn patience(&mut self, time: Duration) {
        let socket = self.wire.socket();
        socket.set_read_timeout(Some(time)).expect("a timeout");
        socket.set_write_timeout(Some(time)).expect("a timeout");
    }
}

fn code(frame: &Frame) -> u32 {
    let code = frame.payload.as_slice().try_into().expect("four octets");
    u32::from_be_bytes(code)
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
