//! Decides a request by its head, and by its body if the policy needs the body.
//!
//! A request with several facts is decided for each of them, and passes if all pass.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::clock::within;
use crate::content::mcp::Recognised;
use crate::content::{self, Fields, Progress, Suspicion};
use crate::gate;
use crate::http::http1::{RequestHead, carries_credential};
use crate::name::{Path, Url};
use crate::policy::{self, Attempt, Body, Decision, McpCall, Mode, RequestFacts, Seen};
use crate::proxy::connection::Connection;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{self, Code, Refusal};

use super::credentials;
use super::peek::Peek;
use super::said;

/// The bytes read of a body that the policy needs. For a request to a model the limit is higher,
/// because no decision depends on that body.
const MAX_BODY_BYTES: usize = 1024 * 1024;
const MAX_MODEL_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The bytes read of a body that may be an MCP message.
const MAX_UNDECIDED_SIZE: usize = 8 * 1024 * 1024;
/// The JSON-RPC error code of a refusal, from the range for servers.
const REFUSED: i64 = -32043;
/// Fields that determine how a body is read: of two values, the origin might use the other.
const ONCE: [&str; 6] = [
    "destination",
    "content-type",
    "content-encoding",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
];
/// The lengths of these names, one bit each: few fields are compared with them.
const ONCE_LENGTHS: u32 = {
    let (mut lengths, mut rest) = (0, &ONCE as &[&str]);
    while let [name, others @ ..] = rest {
        lengths |= 1 << name.len();
        rest = others;
    }
    lengths
};
/// Further fields on which the decision or the caller depends.
const ALSO_JUDGED: [&str; 4] = ["authorization", "cookie", "git-protocol", "mcp-session-id"];
/// The time limit for the whole body of a request to decide, however steadily it arrives.
const MAX_BODY_TIME: Duration = Duration::from_mins(5);
/// The bytes of a body that are read without reserving memory.
const FREE: usize = 64 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A request during its decision.
struct Request<'r> {
    known: &'r Known,
    url: &'r Url,
    head: &'r mut RequestHead,
}

/// Decides a request; returns the decision and the attempt, kept for later decisions.
pub(in crate::proxy) async fn request(
    connection: &mut Connection,
    flow: &mut Flow,
    known: &Known,
    url: &Url,
    head: &mut RequestHead,
) -> Result<(Decision, gate::Asked), Refusal> {
    said::of(head, flow);
    if head.upgrade().is_some() {
        flow.facts.again().upgrade = true;
    }
    if flow.snapshot().records_paths {
        flow.facts.again().path = Some(url.path.path().into());
    }
    let timeout = flow.snapshot().limits.idle.min(MAX_BODY_TIME);
    let judged = {
        // Pinned here: a future of this size is not moved again.
        let judging = pin!(Request { known, url, head }.run(connection, flow));
        within(timeout, judging).await
    };
    let slow = || Err(Refusal::malformed(408, "the body does not come in time"));
    let (decision, asked) = judged.unwrap_or_else(|_| slow())?;
    if decision.mode == Mode::Enforce {
        said::agrees(known, flow)?;
    }
    Ok((decision, asked))
}

impl Request<'_> {
    async fn run(
        mut self,
        connection: &mut Connection,
        flow: &mut Flow,
    ) -> Result<(Decision, gate::Asked), Refusal> {
        let mut request_facts =
            flow.snapshot()
                .policy
                .read(&self.url.target, self.method(), &self.url.path);
        self.is_one_request(flow)?;
        request_facts.credentials = self.credentials(flow)?;
        let mut peek = Peek::new(self.head);
        self.look_for_mcp(connection, flow, &mut request_facts, &mut peek)
            .await?;
        let request_facts = Arc::new(request_facts);
        // An MCP message is read before it is refused: the record then names the tool, and the
        // agent gets an answer that it can read.
        if request_facts.body != Some(Body::Mcp) {
            let decision = self.judge(connection, flow, &request_facts).await?;
            self.may_go_on_to(flow)?;
            if request_facts.body.is_none() {
                return Ok((decision, self.asked(request_facts)));
            }
        }
        let mut request_facts = Arc::unwrap_or_clone(request_facts);
        let presented = std::mem::take(&mut request_facts.credentials);
        let facts_list = self
            .read(connection, flow, &request_facts, &mut peek)
            .await?;
        if facts_list.len() > 1 {
            flow.facts.again().facts = facts_list.len();
        }
        let mut all: Option<(Decision, Arc<RequestFacts>)> = None;
        for mut request_facts in facts_list {
            request_facts.credentials.clone_from(&presented);
            let request_facts = Arc::new(request_facts);
            let judged = self.judge(connection, flow, &request_facts).await;
            let decision = judged.map_err(|refusal| self.answer(flow, refusal, &peek.content))?;
            all = Some(match all {
                Some((before, _)) if before.would < decision.would => {
                    (before.and(decision), request_facts)
                }
                Some((before, strictest)) => (before.and(decision), strictest),
                None => (decision, request_facts),
            });
        }
        let (decision, request_facts) = all.ok_or(Code::BadRequest)?;
        // The record names the strictest of several facts.
        flow.note(&decision, &request_facts);
        Ok((decision, self.asked(request_facts)))
    }

    /// Refuses requests that the origin could read differently: two types or codings, or another
    /// method in the query of a service whose requests are read.
    fn is_one_request(&self, flow: &Flow) -> Result<(), Refusal> {
        if let Some(name) = self.twice() {
            let detail = format!("the field {name} comes twice");
            return Err(Refusal::because(Code::BadRequest, detail));
        }
        if let Some(name) = self.taken_away() {
            let detail = format!(
                "the Connection field names {name}, which would not reach the origin: leave it out"
            );
            return Err(Refusal::because(Code::BadRequest, detail));
        }
        if !policy::names_method(&self.url.path) {
            return Ok(());
        }
        let bare = Path::parse(self.url.path.path().as_bytes());
        let bare = bare.map_err(|_| Code::BadPath)?;
        let policy = &flow.snapshot().policy;
        let request_facts = policy.read(&self.url.target, self.method(), &bare);
        if request_facts.service.is_some() || request_facts.mcp.is_some() {
            let detail = "the query names another method than the request line";
            return Err(Refusal::because(Code::BadRequest, detail));
        }
        Ok(())
    }

    /// Checks the destination of a COPY or MOVE, in its `Destination` field (RFC 4918 section
    /// 10.3): the policy must allow it as well.
    fn may_go_on_to(&self, flow: &Flow) -> Result<(), Refusal> {
        if !matches!(self.method(), "COPY" | "MOVE") {
            return Ok(());
        }
        let Some(named) = self.first("destination") else {
            return Ok(());
        };
        let path = if named.starts_with(b"/") {
            Path::parse(named).map_err(|_| Code::BadPath)?
        } else {
            let url = Url::parse(named).map_err(|_| Code::BadTarget)?;
            if url.tls != self.url.tls || url.target != self.url.target {
                let detail = "the Destination field names another host";
                return Err(Refusal::because(Code::BadRequest, detail));
            }
            url.path
        };
        let policy = &flow.snapshot().policy;
        let request_facts = policy.read(&self.url.target, self.method(), &path);
        let attempt = Attempt::Request {
            method: self.method(),
            path: &path,
            upgrade: false,
            tls: self.url.tls,
            request_facts: Some(&request_facts),
        };
        if flow.would_pass(self.known, &self.url.target, attempt) {
            return Ok(());
        }
        let detail = "no rule allows the path that the Destination field names";
        Err(Refusal::because(Code::NotAllowed, detail))
    }

    /// The value of the first field with this name.
    fn first(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.head.fields.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|field| field.value)
    }

    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    fn fields(&self) -> Fields<'_> {
        let mut fields = Fields::default();
        for field in self.head.fields.iter() {
            let is = |name| is_named(field.name, name);
            let slot = match field.name.len() {
                6 if is("accept") => &mut fields.accept,
                8 if is("mcp-name") => &mut fields.mcp_name,
                10 if is("mcp-method") => &mut fields.mcp_method,
                12 if is("content-type") => &mut fields.content_type,
                14 if is("mcp-session-id") => {
                    fields.mcp_session = true;
                    continue;
                }
                16 if is("content-encoding") => &mut fields.content_encoding,
                20 if is("mcp-protocol-version") => &mut fields.mcp_protocol_version,
                _ => continue,
            };
            // The first of several fields counts.
            slot.get_or_insert(field.value);
        }
        fields
    }

    /// A field that must occur once and occurs twice, or in a spelling that only some servers
    /// accept (`_` and `.` for `-`, as in CGI).
    fn twice(&self) -> Option<&'static str> {
        let mut seen = [false; ONCE.len()];
        for field in self.head.fields.iter() {
            let length = field.name.len();
            if length >= 32 || ONCE_LENGTHS >> length & 1 == 0 {
                continue;
            }
            for (name, seen) in ONCE.into_iter().zip(&mut seen) {
                if !is_alike(field.name, name) {
                    continue;
                }
                if *seen || !is_named(field.name, name) {
                    return Some(name);
                }
                *seen = true;
            }
        }
        None
    }

    /// A field on which the decision depends, but which `Connection` names (RFC 9110 section
    /// 7.6.1): the gate removes it, so the origin would read another request.
    fn taken_away(&self) -> Option<String> {
        let fields = &self.head.fields;
        if !fields.connection_names_fields() {
            return None;
        }
        let mut judged = fields.iter().filter_map(|field| {
            let name = std::str::from_utf8(field.name).ok()?.to_ascii_lowercase();
            let is_judged = ONCE.contains(&&*name)
                || ALSO_JUDGED.contains(&&*name)
                || carries_credential(name.as_bytes());
            is_judged.then_some(name)
        });
        judged.find(|name| fields.connection_has(name))
    }

    /// The hashes of the request's credentials, if a rule names credentials.
    fn credentials(&self, flow: &Flow) -> Result<Vec<Box<str>>, Refusal> {
        match &flow.snapshot().credentials {
            Some(key) => credentials::of(self.head, &self.url.path, key),
            None => Ok(Vec::new()),
        }
    }

    /// Recognises the Model Context Protocol at a server that the policy does not list.
    async fn look_for_mcp(
        &mut self,
        connection: &mut Connection,
        flow: &mut Flow,
        request_facts: &mut RequestFacts,
        peek: &mut Peek,
    ) -> Result<(), Refusal> {
        // The path of a Git fetch or of Git LFS does not show how the server uses the body.
        let git = matches!(
            request_facts.body,
            Some(Body::GitFetch | Body::LfsBatch | Body::LfsVerify)
        );
        if request_facts.mcp.is_some() || !(request_facts.body.is_none() || git) {
            return Ok(());
        }
        let http2 = connection
            .inside
            .as_ref()
            .is_some_and(|inside| inside.http2);
        let has_body = !self.head.body.is_empty();
        let found = match content::looks_like_mcp(&self.fields(), has_body, http2) {
            Suspicion::No => false,
            Suspicion::Headers => true,
            Suspicion::Body => {
                // The body of a caller without access is not read.
                if !flow.would_pass(self.known, &self.url.target, self.attempt(request_facts)) {
                    return Ok(());
                }
                match self.recognise(connection, flow, peek).await? {
                    Recognised::Undecided => {
                        self.may_be_mcp(flow, request_facts)?;
                        false
                    }
                    recognised => recognised == Recognised::Yes,
                }
            }
        };
        if found {
            request_facts.mcp = Some(McpCall::default());
            request_facts.body = Some(Body::Mcp);
            request_facts.seen = Seen::Head;
        }
        Ok(())
    }

    /// Whether the body contains an MCP message, as far as the body is read.
    async fn recognise(
        &mut self,
        connection: &mut Connection,
        flow: &mut Flow,
        peek: &mut Peek,
    ) -> Result<Recognised, Refusal> {
        if !content::mcp::is_readable(&self.fields()) {
            return Ok(Recognised::Undecided);
        }
        // Blanks and a byte order mark are skipped: the gate waits for the first character after
        // them.
        let mut passed = 0;
        let begins = loop {
            match content::mcp::may_begin(&self.fields(), &peek.content, &mut passed) {
                None if peek.ended => break false,
                None if peek.content.len() > MAX_BODY_BYTES => return Ok(Recognised::Yes),
                None => self.more(connection, flow, peek).await?,
                Some(begins) => break begins,
            }
        };
        // A body that does not begin as JSON may be a stream that waits for an answer.
        if !begins {
            return Ok(Recognised::No);
        }
        for most in [MAX_BODY_BYTES, MAX_UNDECIDED_SIZE] {
            self.fill(connection, flow, peek, most).await?;
            let found = content::mcp::recognise(&self.fields(), &peek.content, peek.ended);
            if found != Recognised::Undecided {
                return Ok(found);
            }
        }
        Ok(Recognised::Undecided)
    }

    /// Refuses a body that may be an MCP message and cannot be read to its end, if the policy would
    /// refuse such a message. A request that the service of its host describes is no MCP message.
    fn may_be_mcp(&self, flow: &Flow, request_facts: &RequestFacts) -> Result<(), Refusal> {
        let operation = request_facts.operation.as_deref();
        if request_facts.service.is_some()
            && operation.is_some_and(|operation| operation != "other")
        {
            return Ok(());
        }
        let message = RequestFacts {
            mcp: Some(McpCall::default()),
            seen: Seen::Whole,
            body: None,
            ..request_facts.clone()
        };
        if flow.would_pass(self.known, &self.url.target, self.attempt(&message)) {
            return Ok(());
        }
        let detail = "the body is JSON of more than 8 MiB (4 MiB if compressed), or in a coding \
                      that the gate does not read, so it may be an MCP message, which the policy \
                      refuses here: send it in smaller parts, or with gzip or no Content-Encoding";
        Err(Refusal::because(Code::BadRequest, detail))
    }

    /// Decides one fact of a request and sets the decision in the flow.
    async fn judge(
        &self,
        connection: &Connection,
        flow: &mut Flow,
        request_facts: &Arc<RequestFacts>,
    ) -> Result<Decision, Refusal> {
        flow.note_facts(request_facts);
        let snapshot = flow.snapshot();
        if snapshot.credentials.is_some() {
            flow.facts.again().presented = Some(!request_facts.credentials.is_empty());
        }
        if !request_facts.other_readings.is_empty() {
            flow.facts.again().readings = request_facts.other_readings.len();
        }
        if flow.facts.again.is_some() || request_facts.seen == Seen::Head {
            flow.facts.again().head_only = request_facts.seen == Seen::Head;
        }
        let (known, target) = (self.known, &self.url.target);
        let judged = flow.judge_attempt(known, target, self.attempt(request_facts));
        let attempt = self.attempt(request_facts);
        flow.hold(connection, (known, target), attempt, judged)
            .await
    }

    fn attempt<'a>(&'a self, request_facts: &'a RequestFacts) -> Attempt<'a> {
        Attempt::Request {
            method: self.method(),
            path: &self.url.path,
            upgrade: self.head.upgrade().is_some(),
            tls: self.url.tls,
            request_facts: Some(request_facts),
        }
    }

    fn asked(&self, request_facts: Arc<RequestFacts>) -> gate::Asked {
        gate::Asked::Request {
            method: self.head.method.to_text(),
            path: self.url.path.clone(),
            upgrade: self.head.upgrade().is_some(),
            tls: self.url.tls,
            request_facts: Some(request_facts),
        }
    }

    /// A refusal in the form of an MCP answer, if the client waits for one.
    fn answer(&self, flow: &Flow, refusal: Refusal, message: &[u8]) -> Refusal {
        let is_mcp = flow
            .facts
            .request_facts
            .as_ref()
            .is_some_and(|request_facts| request_facts.mcp.is_some());
        let fields = self.fields();
        let accept = fields.accept.unwrap_or_default().to_ascii_lowercase();
        let takes = |kind: &[u8]| accept.windows(kind.len()).any(|part| part == kind);
        // In the older transport the answer uses another connection: the client sees only the
        // status.
        let waits = takes(b"application/json") && takes(b"text/event-stream");
        if !is_mcp || !waits {
            return refusal;
        }
        let said = refusal::said(&refusal, &flow.facts);
        match content::mcp::refusal(message, REFUSED, &said.0, Some(&said.1)) {
            Some(answer) => refusal.in_message(answer),
            None => refusal,
        }
    }

    /// Reads as much of the body as its facts need.
    async fn read(
        &mut self,
        connection: &mut Connection,
        flow: &mut Flow,
        request_facts: &RequestFacts,
        peek: &mut Peek,
    ) -> Result<Vec<RequestFacts>, Refusal> {
        if request_facts.body == Some(Body::Model) {
            // No decision depends on this body: if the memory is exhausted, the body passes unread.
            let filled = self
                .fill(connection, flow, peek, MAX_MODEL_BODY_BYTES)
                .await;
            match filled {
                Err(refusal) if refusal.code != Code::TooManyFlows => return Err(refusal),
                Ok(()) | Err(_) => {}
            }
            said::of_model(&peek.content, flow);
        }
        // A body in small pieces is not parsed again from its beginning for each piece.
        let mut next = 0;
        loop {
            let (content, ended) = (&peek.content, peek.ended);
            let (fields, path) = (self.fields(), &self.url.path);
            let progress =
                if content.len() > MAX_BODY_BYTES && request_facts.body != Some(Body::Model) {
                    content::too_long(request_facts)
                } else if content.len() < next && !ended {
                    Progress::More
                } else {
                    next = content.len() + content.len() / 16;
                    content::read(request_facts, &fields, self.method(), path, content, ended)
                };
            match progress {
                Progress::Done(facts_list) => return Ok(facts_list),
                Progress::Malformed(why) => return Err(Refusal::because(Code::BadRequest, why)),
                Progress::More if ended => return Err(Code::BadRequest.into()),
                Progress::More => self.more(connection, flow, peek).await?,
            }
        }
    }

    /// Reads until the end, or until the content is longer than `most`.
    async fn fill(
        &mut self,
        connection: &mut Connection,
        flow: &mut Flow,
        peek: &mut Peek,
        most: usize,
    ) -> Result<(), Refusal> {
        while !peek.ended && peek.content.len() <= most {
            self.more(connection, flow, peek).await?;
        }
        Ok(())
    }

    async fn more(
        &mut self,
        connection: &mut Connection,
        flow: &mut Flow,
        peek: &mut Peek,
    ) -> Result<(), Refusal> {
        if peek.ended {
            return Ok(());
        }
        if peek.kept() > FREE && !flow.holds(self.known, peek.kept()) {
            let detail = "too much is held of bodies that have to be judged";
            return Err(Refusal::because(Code::TooManyFlows, detail));
        }
        if std::mem::take(&mut self.head.expect_continue) {
            // The gate answers instead of the origin, to which it sends the body after the
            // decision.
            let said = async {
                connection.stream.write_all(CONTINUE).await?;
                connection.stream.flush().await
            };
            said.await.map_err(|_| Refusal::from(Code::BadRequest))?;
        }
        // The connection may be ended meanwhile: otherwise clients with unfinished bodies could use
        // up the limit of connections.
        flow.wait_for_client();
        let read = peek.more(connection).await;
        flow.resume()?;
        read
    }
}

fn is_named(spelt: &[u8], name: &str) -> bool {
    spelt.eq_ignore_ascii_case(name.as_bytes())
}

/// Like [`is_named`], for servers that treat `_` and `.` as `-`.
fn is_alike(spelt: &[u8], name: &str) -> bool {
    let plain = |byte: u8| if b"._".contains(&byte) { b'-' } else { byte };
    let same = |(spelt, name): (&u8, u8)| plain(*spelt).eq_ignore_ascii_case(&name);
    spelt.len() == name.len() && spelt.iter().zip(name.bytes()).all(same)
}
