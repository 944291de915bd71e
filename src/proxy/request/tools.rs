//! Reduces the tool list of a listed MCP server to the tools that may be called.
//!
//! An agent does not call a tool that is not in its list. Each call is still decided.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::content::mcp;
use crate::gate::{Asked, Snapshot};
use crate::http::http1::{
    BodyError, BodyLength, BodySink, BodySource, Passage, ResponseHead, copy_body,
};
use crate::identity::Caller;
use crate::ledger::Meter;
use crate::name::Url;
use crate::policy::{Action, Attempt, McpCall, Query, RequestFacts, Verdict};
use crate::proxy::flow::{Flow, Known};

/// Bytes of a parsed answer, at most; a longer answer passes unchanged.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
const ROOM: usize = 64 * 1024;

/// Decides which tools of a server may be called.
pub(super) struct Tools {
    snapshot: Arc<Snapshot>,
    caller: Arc<Caller>,
    url: Url,
    server: Arc<str>,
    /// Whether the request is `tools/list`.
    lists: bool,
}

/// The way in which an answer is parsed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Event by event.
    Events,
    /// As a whole.
    Json,
}

impl Tools {
    /// Built for a request to a listed server.
    pub(in crate::proxy) fn of(
        flow: &Flow,
        known: &Known,
        url: &Url,
        asked: &Asked,
    ) -> Option<Self> {
        let Asked::Request {
            request_facts: Some(request_facts),
            ..
        } = asked
        else {
            return None;
        };
        let call = request_facts.mcp.as_ref()?;
        Some(Self {
            snapshot: flow.snapshot().to_shared(),
            caller: known.caller.clone(),
            url: url.clone(),
            server: call.server.clone()?,
            lists: call.method.as_deref() == Some("tools/list"),
        })
    }

    /// Whether the request is `tools/list`, so that the answer must not be compressed.
    pub(super) fn lists(&self) -> bool {
        self.lists
    }

    /// The way to parse an answer; `None`: the answer is not parsed.
    pub(in crate::proxy) fn form(&self, head: &ResponseHead) -> Option<Form> {
        let first = |name: &str| {
            let mut fields = head.fields.iter();
            let found = fields.find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
            found.map(|field| field.value)
        };
        if head.status != 200
            || head.body == BodyLength::None
            || first("content-encoding").is_some()
        {
            return None;
        }
        let kind = first("content-type")?.to_ascii_lowercase();
        if kind.starts_with(b"text/event-stream") {
            return Some(Form::Events);
        }
        (self.lists && kind.starts_with(b"application/json")).then_some(Form::Json)
    }

    fn allows(&self, tool: &str) -> bool {
        let request_facts = RequestFacts {
            action: Some(Action::Call),
            operation: Some("tools/call".into()),
            mcp: Some(McpCall {
                server: Some(self.server.clone()),
                method: Some("tools/call".into()),
                tool: Some(tool.into()),
                tool_use_id: None,
            }),
            ..RequestFacts::default()
        };
        let query = Query {
            who: &self.caller.who,
            target: &self.url.target,
            attempt: Attempt::Request {
                method: "POST",
                path: &self.url.path,
                upgrade: false,
                tls: self.url.tls,
                request_facts: Some(&request_facts),
            },
        };
        self.snapshot.decide(&query).verdict == Verdict::Allow
    }

    fn cut(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        mcp::allowed_tools(bytes, &|tool| self.allows(tool))
    }

    /// Like [`copy_body`], with only the tools that may be called.
    pub(super) async fn copy(
        &self,
        form: Form,
        (from, buffer): (&mut impl BodySource, &mut BytesMut),
        to: &mut impl BodySink,
        passage: Passage,
        moved: &Meter,
    ) -> Result<(), BodyError> {
        let (mut whole_in, whole_out) = tokio::io::duplex(ROOM);
        let (cut_in, mut cut_out) = tokio::io::duplex(ROOM);
        let unframed = BodyLength::UntilClose;
        let taking = async {
            let into = Passage {
                to: unframed,
                ..passage
            };
            let taken = copy_body(from, buffer, &mut whole_in, into, moved).await;
            drop(whole_in);
            taken
        };
        let cutting = async {
            let cut = self.cut_all(form, whole_out, cut_in).await;
            cut.map_err(BodyError::Read)
        };
        let giving = async {
            let onward = Passage {
                from: unframed,
                ..passage
            };
            let counted = Meter::default();
            copy_body(&mut cut_out, &mut BytesMut::new(), to, onward, &counted).await
        };
        // An incomplete body must not be ended like a complete one: so the first error is the
        // result, and the end is written only after everything before it.
        let taken = async { tokio::try_join!(taking, cutting).map(drop) };
        let (taken, given) = tokio::join!(taken, giving);
        taken.and(given)
    }

    async fn cut_all(
        &self,
        form: Form,
        mut from: DuplexStream,
        mut to: DuplexStream,
    ) -> io::Result<()> {
        let mut held = BytesMut::new();
        let mut seen = 0;
        loop {
            let ended = from.read_buf(&mut held).await? == 0;
            let ready = match form {
                Form::Events if !ended && held.len() < MAX_MESSAGE_BYTES => {
                    if may_end_event(&held, seen) {
                        mcp::whole_events(&held)
                    } else {
                        0
                    }
                }
                Form::Json if !ended && held.len() < MAX_MESSAGE_BYTES => 0,
                _ => held.len(),
            };
            let piece = held.get(..ready).unwrap_or_default();
            match self.cut(piece) {
                Some(cut) => to.write_all(&cut).await?,
                None => to.write_all(piece).await?,
            }
            held.advance(ready);
            seen = held.len();
            if ended {
                return Ok(());
            }
        }
    }
}

/// Whether an empty line may end after the first `seen` bytes, which were searched before.
fn may_end_event(held: &[u8], seen: usize) -> bool {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let fresh = held.get(seen.saturating_sub(3)..).unwrap_or_default();
    held.first().is_some_and(is_end) || fresh.windows(2).any(|pair| pair.iter().all(is_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_may_end_an_event_are_looked_through_for_one() {
        for (held, seen, may) in [
            ("data: 1\n\n", 0, true),
            ("data: 1\n\n", 9, true),
            ("data: 1\r\n\r\n", 10, true),
            ("data: 1\r\rx", 9, true),
            ("\ndata: 1", 0, true),
            ("data: 1\n", 7, false),
            ("data: 1\ndata: 2\n", 8, false),
            ("data: 1\n\ndata: 2", 15, false),
        ] {
            assert_eq!(may_end_event(held.as_bytes(), seen), may, "{held:?} {seen}");
        }
    }
}
