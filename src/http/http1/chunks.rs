//! Decoder of the chunked coding (RFC 9112 section 7.1).

/// Removes the chunked coding from a body, in place.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    /// Digits of the size that is being read.
    digits: u32,
    /// Bytes left of the chunk, or its size so far.
    size: u64,
    /// Bytes of extensions so far, in all chunks.
    extensions: usize,
    trailers: Vec<u8>,
    line_start: usize,
    /// Whether blanks may follow a chunk size.
    blanks: bool,
}

/// The content of one piece of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Decoded {
    /// Bytes of content, moved to the front of the piece.
    pub(crate) content: usize,
    /// Bytes of the piece that belong to this body.
    pub(crate) consumed: usize,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    Blank,
    Content,
    ContentCr,
    ContentLf,
    Done,
    Extension,
    #[default]
    Size,
    SizeLf,
    Trailer,
    TrailerLf,
}

/// Maximum number of digits of a size: 64 bits.
const MAX_SIZE_DIGITS: u32 = 16;

/// Maximum bytes of chunk extensions in one body. Only floods use more.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;

/// Maximum bytes of trailers.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

impl Chunks {
    /// Ignores blanks after a size, as a recipient may (RFC 9112 section 7.1.1).
    pub(crate) fn with_blanks() -> Self {
        Self {
            blanks: true,
            ..Self::default()
        }
    }

    /// Decodes as much of `piece` as possible; the error is the fault.
    pub(crate) fn decode(&mut self, piece: &mut [u8]) -> Result<Decoded, &'static str> {
        let mut decoded = Decoded {
            content: 0,
            consumed: 0,
        };
        while self.state != State::Done {
            let Some(&byte) = piece.get(decoded.consumed) else {
                break;
            };
            if self.state == State::Content {
                let rest = piece.len() - decoded.consumed;
                let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(rest);
                let from = decoded.consumed..decoded.consumed + taken;
                if decoded.content != decoded.consumed {
                    piece.copy_within(from, decoded.content);
                }
                decoded.content += taken;
                decoded.consumed += taken;
                self.size -= taken as u64;
                if self.size == 0 {
                    self.state = State::ContentCr;
                }
            } else {
                self.frame(byte)?;
                decoded.consumed += 1;
            }
        }
        Ok(decoded)
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns the trailers as received, each with its CR LF.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Processes one byte that is not content.
    fn frame(&mut self, byte: u8) -> Result<(), &'static str> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, b' ' | b'\t') if self.digits > 0 && self.blanks => self.blank()?,
            (State::Size, _) => self.digit(byte)?,
            (State::Blank, b';') => State::Extension,
            (State::Blank, b' ' | b'\t') => self.blank()?,
            (State::Blank | State::Extension, b'\r') => State::SizeLf,
            (State::Blank, _) => return Err("a chunk size is not one hex number"),
            (State::Extension, _) => self.extension(byte)?,
            (State::SizeLf, b'\n') => self.begin(),
            (State::ContentCr, b'\r') => State::ContentLf,
            (State::ContentLf, b'\n') => State::Size,
            (State::Trailer, _) => self.trailer(byte)?,
            (State::TrailerLf, b'\n') => self.trailer_end(),
            _ => return Err("a chunk does not end where its size says, in CR LF"),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, &'static str> {
        let digit = char::from(byte)
            .to_digit(16)
            .ok_or("a chunk size is not a hex number")?;
        self.digits += 1;
        if self.digits > MAX_SIZE_DIGITS {
            return Err("a chunk size has too many digits");
        }
        self.size = self.size << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn blank(&mut self) -> Result<State, &'static str> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSION_BYTES {
            return Err("too many blanks follow the sizes of chunks");
        }
        Ok(State::Blank)
    }

    fn extension(&mut self, byte: u8) -> Result<State, &'static str> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSION_BYTES {
            return Err("chunk extensions are too long");
        }
        if is_text(byte) {
            Ok(State::Extension)
        } else {
            Err("a chunk extension is malformed")
        }
    }

    /// Ends a size line; returns the next state.
    fn begin(&mut self) -> State {
        self.digits = 0;
        if self.size > 0 {
            State::Content
        } else {
            State::Trailer
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        if self.trailers.len() >= MAX_TRAILER_BYTES {
            return Err("the trailers are too long");
        }
        self.trailers.push(byte);
        match byte {
            b'\r' => Ok(State::TrailerLf),
            _ if is_text(byte) => Ok(State::Trailer),
            _ => Err("a trailer holds a control character"),
        }
    }

    /// Ends a line of trailers; an empty line ends the body.
    fn trailer_end(&mut self) -> State {
        if self.trailers.len() == self.line_start + 1 {
            self.trailers.pop();
            return State::Done;
        }
        self.trailers.push(b'\n');
        self.line_start = self.trailers.len();
        State::Trailer
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `text` in pieces of `step` bytes; returns the content, the trailers, and the number
    /// of bytes left over.
    fn decode(text: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, usize), &'static str> {
        let (mut chunks, mut content, mut consumed) = (Chunks::default(), Vec::new(), 0);
        for piece in text.chunks(step) {
            let mut piece = piece.to_vec();
            let decoded = chunks.decode(&mut piece)?;
            content.extend_from_slice(&piece[..decoded.content]);
            consumed += decoded.consumed;
        }
        if !chunks.is_done() {
            return Err("not done");
        }
        Ok((content, chunks.trailers().to_vec(), text.len() - consumed))
    }

    #[test]
    fn content_does_not_depend_on_the_pieces_in_which_it_comes() {
        let text = b"5\r\nhello\r\n0006;a=b\r\n world\r\n0\r\nA: b\r\n\r\nGET";
        for step in 1..=text.len() {
            let decoded = decode(text, step).expect("good");
            assert_eq!(
                decoded,
                (b"hello world".to_vec(), b"A: b\r\n".to_vec(), 3),
                "step {step}"
            );
        }
    }

    #[test]
    fn a_malformed_chunk_is_refused() {
        for text in [
            "FFFFFFFFFFFFFFFF0\r\n",
            "00000000000000001\r\nx\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\t;a\r\nhello\r\n0\r\n\r\n",
            "5\nhello\n0\n\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\r\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhell\r\n0\r\n\r\n",
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\r\r\n",
            "0\r\nA: \0\r\n\r\n",
        ] {
            let found = decode(text.as_bytes(), 1);
            assert!(found.is_err_and(|error| error != "not done"), "{text:?}");
        }
    }

    #[test]
    fn floods_of_extensions_and_trailers_end_at_their_bound() {
        let extensions = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(1000);
        assert_eq!(
            decode(extensions.as_bytes(), 999),
            Err("chunk extensions are too long")
        );
        let trailers = format!("0\r\n{}", "A: aaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(1000));
        assert_eq!(
            decode(trailers.as_bytes(), 999),
            Err("the trailers are too long")
        );
    }

    #[test]
    fn the_largest_size_is_waited_for() {
        let mut chunks = Chunks::default();
        let mut text = *b"ffffffffffffffff\r\nabc";
        assert_eq!(
            chunks.decode(&mut text),
            Ok(Decoded {
                content: 3,
                consumed: 21
            })
        );
        assert!(!chunks.is_done());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_read_too_far(text: Vec<u8>, step in 1usize..64) {
            let _ = decode(&text, step);
        }

        #[test]
        fn what_is_coded_comes_back(parts: Vec<Vec<u8>>, step in 1usize..64) {
            let mut text = Vec::new();
            for part in parts.iter().filter(|part| !part.is_empty()) {
                text.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
                text.extend_from_slice(part);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&text, step), Ok((parts.concat(), vec![], 0)));
        }
    }
}
