//! Reads the body of a request before the decision that depends on it.
//!
//! The bytes read stay in the connection's buffer, with their framing, and are forwarded from there
//! after the decision.

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::http::http1::{BodyLength, Chunks, RequestHead};
use crate::proxy::connection::Connection;
use crate::proxy::refusal::{Code, Refusal};

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// The first part of a body, and the reading position.
pub(super) struct Peek {
    /// The content so far, without framing.
    pub(super) content: Vec<u8>,
    /// Whether the content is complete.
    pub(in crate::proxy) ended: bool,
    framing: BodyLength,
    chunks: Chunks,
    /// The bytes of the buffer that were parsed.
    seen: usize,
}

impl Peek {
    /// A body of which no byte was read.
    pub(in crate::proxy) fn new(head: &RequestHead) -> Self {
        Self {
            content: Vec::new(),
            ended: head.body.is_empty(),
            framing: head.body,
            chunks: Chunks::default(),
            seen: 0,
        }
    }

    /// The bytes kept for the body: in the buffer, and without their framing.
    pub(in crate::proxy) fn kept(&self) -> usize {
        self.seen + self.content.len()
    }

    /// Reads until there is more content, or all of it.
    pub(in crate::proxy) async fn more(
        &mut self,
        connection: &mut Connection,
    ) -> Result<(), Refusal> {
        let before = self.content.len();
        loop {
            self.look(&connection.buffer)?;
            if self.ended || self.content.len() > before {
                return Ok(());
            }
            let Connection { stream, buffer, .. } = connection;
            buffer.reserve(READ);
            match stream.read_buf(buffer).await {
                Ok(0) if self.framing == BodyLength::UntilClose => self.ended = true,
                Ok(0) | Err(_) => return Err(Code::BadRequest.into()),
                Ok(_) => {}
            }
        }
    }

    /// Parses the new bytes of the buffer.
    fn look(&mut self, buffer: &BytesMut) -> Result<(), Refusal> {
        let fresh = buffer.get(self.seen..).unwrap_or_default();
        match self.framing {
            BodyLength::None => self.ended = true,
            BodyLength::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let missing = length - self.content.len().min(length);
                let taken = fresh.get(..missing.min(fresh.len())).unwrap_or_default();
                self.content.extend_from_slice(taken);
                self.seen += taken.len();
                self.ended = self.content.len() == length;
            }
            BodyLength::UntilClose => {
                self.content.extend_from_slice(fresh);
                self.seen = buffer.len();
            }
            BodyLength::Chunked => {
                let mut piece = fresh.to_vec();
                let decoded = self.chunks.decode(&mut piece);
                let decoded = decoded.map_err(|why| Refusal::because(Code::BadRequest, why))?;
                self.content
                    .extend_from_slice(piece.get(..decoded.content).unwrap_or_default());
                self.seen += decoded.consumed;
                self.ended = self.chunks.is_done();
            }
        }
        Ok(())
    }
}
