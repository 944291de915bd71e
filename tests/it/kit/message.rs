//! HTTP/1.1 messages as a test sees them: read strictly, nothing normalised.

use std::io::{self, Read};

/// A message head and its body, bytes as they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// The first line, without its end.
    pub(crate) start: String,
    /// Fields in order, names as written.
    pub(crate) fields: Vec<(String, String)>,
    /// The body, chunks joined.
    pub(crate) body: Vec<u8>,
    /// Trailer fields after a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

impl Message {
    /// The value of a field; panics if it comes twice.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "`{name}` twice in {self:?}");
        all.first().copied()
    }

    /// Every value of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self
            .fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The part of the first line between spaces, by its place.
    pub(crate) fn word(&self, place: usize) -> &str {
        self.start.splitn(3, ' ').nth(place).unwrap_or_default()
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.word(1)
            .parse()
            .unwrap_or_else(|_| panic!("no status in {:?}", self.start))
    }

    /// The reason phrase of an answer.
    pub(crate) fn phrase(&self) -> &str {
        self.word(2)
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> &str {
        self.word(0)
    }

    /// The request target.
    pub(crate) fn target(&self) -> &str {
        self.word(1)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The code of a refusal of the proxy's own, from its body.
    pub(crate) fn refusal(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// How long the body of a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Chunked,
    Length(usize),
    UntilClose,
}

/// Reads messages from a stream and keeps what came after.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    held: Vec<u8>,
}

impl Reader {
    /// The bytes read but not yet part of a message.
    pub(crate) fn held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Reads the body of a request whose head was read.
    pub(crate) fn request_body(
        &mut self,
        from: &mut impl Read,
        request: &mut Message,
    ) -> io::Result<()> {
        self.body(from, request, Framing::Length(0))
    }

    /// Reads an answer to a request of that method, an informational one included.
    pub(crate) fn answer(&mut self, from: &mut impl Read, method: &str) -> io::Result<Message> {
        let mut message = self.head(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = message.status();
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let opened = method == "CONNECT" && status < 300;
        if !(bodiless || opened) {
            self.body(from, &mut message, Framing::UntilClose)?;
        }
        Ok(message)
    }

    /// Reads a head alone; `None` where the stream ended before its first byte.
    pub(crate) fn head(&mut self, from: &mut impl Read) -> io::Result<Option<Message>> {
        let mut message = Message::default();
        let Some(start) = self.line(from)? else {
            return Ok(None);
        };
        message.start = start;
        message.fields = self.fields(from)?;
        Ok(Some(message))
    }

    /// Reads exactly so many bytes.
    pub(crate) fn exactly(&mut self, from: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < count {
            if self.more(from)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.held.split_off(count);
        Ok(std::mem::replace(&mut self.held, rest))
    }

    /// Reads to the end of the stream.
    pub(crate) fn rest(&mut self, from: &mut impl Read) -> Vec<u8> {
        // Bytes that came before a reset came all the same.
        while self.more(from).is_ok_and(|count| count > 0) {}
        self.held()
    }

    /// Reads one chunk of a chunked body; empty at its end.
    pub(crate) fn chunk(&mut self, from: &mut impl Read) -> io::Result<Vec<u8>> {
        let line = self.line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.exactly(from, size)?;
        assert_eq!(self.exactly(from, 2)?, b"\r\n", "the end of a chunk");
        Ok(chunk)
    }

    fn body(
        &mut self,
        from: &mut impl Read,
        message: &mut Message,
        otherwise: Framing,
    ) -> io::Result<()> {
        match framing(message).unwrap_or(otherwise) {
            Framing::Length(count) => message.body = self.exactly(from, count)?,
            Framing::UntilClose => message.body = self.rest(from),
            Framing::Chunked => {
                loop {
                    let chunk = self.chunk(from)?;
                    if chunk.is_empty() {
                        break;
                    }
                    message.body.extend(chunk);
                }
                message.trailers = self.fields(from)?;
            }
        }
        Ok(())
    }

    fn fields(&mut self, from: &mut impl Read) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').expect("a colon in a field");
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn line(&mut self, from: &mut impl Read) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.held.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.exactly(from, end)?;
                self.exactly(from, 2)?;
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.more(from)? == 0 {
                let whole = self.held.is_empty();
                return if whole {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn more(&mut self, from: &mut impl Read) -> io::Result<usize> {
        let mut some = [0; 16 * 1024];
        let count = from.read(&mut some)?;
        self.held.extend_from_slice(&some[..count]);
        Ok(count)
    }
}

fn framing(message: &Message) -> Option<Framing> {
    if message
        .all("transfer-encoding")
        .iter()
        .any(|coding| coding.eq_ignore_ascii_case("chunked"))
    {
        return Some(Framing::Chunked);
    }
    let length = message.field("content-length")?;
    Some(Framing::Length(length.parse().expect("a length")))
}
