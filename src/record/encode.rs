//! Encodes facts as lines: the names of `record/1`, in the order of its table.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use uuid::Uuid;

use crate::identity::{CallBasis, Process, RepositorySaid, TierGrounds, ToolCall, Trust, Work};
use crate::policy::{Action, Basis, Mode, RequestFacts, TierBasis, Verdict};

use super::decision_text::{Decided, DecisionTexts};
use super::flow::FlowRecord;
use super::json::Object;
use super::line::{
    ApprovalFacts, Asker, Blame, CallFacts, CloseFacts, Event, ExceptionFacts, FlowFacts, Outcome,
    ReplayFacts, Said, SessionFacts, Timings, TlsMode,
};
use super::repeats::{About, Count};

/// Maximum length of names that a client chose, and of most other texts, in characters.
const NAME: usize = 253;
const DETAIL: usize = 160;
/// Maximum length of the change from one policy to the next, in characters.
const CHANGE: usize = 1000;
const USER_AGENT: usize = 200;
const COMMAND: usize = 200;
/// Maximum length of locations and clone URLs, which come from files of the operator.
const PLACE: usize = 1024;
/// Maximum number of addresses of one answer.
const ANSWERS: usize = 32;
/// Maximum number of flows in one `record_gap`.
const GAP_FLOWS: usize = 1000;

/// A line without the fields that the writer adds.
#[derive(Debug)]
pub(super) struct Line {
    /// The whole line, its newline included.
    pub(super) bytes: Vec<u8>,
    /// The position of `event.sequence` and the service: after the time and the name.
    pub(super) split: usize,
    /// The effect of the line on open flows and counts.
    pub(super) says: Says,
    /// Whether the line gets a signature: a checkpoint.
    pub(super) signed: bool,
}

/// The effect of a line on open flows and counts.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// The flow has ended.
    Closed(Uuid),
    /// Refusals are counted under this line from now on.
    Counts(Arc<AtomicBool>),
    /// No effect.
    Nothing,
    /// The flow is open from now on.
    Opened(Uuid),
}

/// The facts of a gap.
#[derive(Clone, Debug, Default)]
pub(super) struct Gap<'a> {
    /// The cause: `appended`, `failing`, `moved`, `removed`, `replaced`, `slow`, `stopped`,
    /// `truncated`, `unsaid`.
    pub(super) cause: &'static str,
    /// When the gap began, if known.
    pub(super) since: Option<Timestamp>,
    /// Lines that will never be written.
    pub(super) lost: u64,
    /// Flows that were refused without a line.
    pub(super) refused: u64,
    /// Flows without a known end: their number, and as many ids as fit.
    pub(super) open: (u64, &'a [Uuid]),
    /// The number of bytes that the file has too few or too many.
    pub(super) bytes: u64,
    /// Windows of repeated refusals or events whose count is unknown.
    pub(super) repeats: u64,
    /// The description.
    pub(super) detail: &'a str,
}

/// Makes the `decision` line.
pub(super) fn decision(at: Timestamp, facts: &FlowFacts) -> Line {
    decision_in_parts(at, facts, None).0
}

/// Like [`decision`]; keeps in `facts` the text that the `close` line repeats.
pub(super) fn decision_to_repeat(
    at: Timestamp,
    facts: &mut FlowRecord,
    texts: &DecisionTexts,
) -> Line {
    let (line, parts) = decision_in_parts(at, facts, Some(texts));
    facts.keep(Shared::of(&line.bytes, parts));
    line
}

fn decision_in_parts(
    at: Timestamp,
    facts: &FlowFacts,
    texts: Option<&DecisionTexts>,
) -> (Line, Parts) {
    let says = match facts.outcome {
        Outcome::Allow => Says::Opened(facts.flow),
        Outcome::Ask | Outcome::Deny | Outcome::Error => Says::Closed(facts.flow),
    };
    let mut parts = Parts::default();
    let line = line(at, "decision", says, |object| {
        parts = flow(object, facts, texts);
        shadow(object, facts);
        replay(object, facts.again.as_deref());
    });
    (line, parts)
}

/// Makes the `close` line.
pub(super) fn close(at: Timestamp, facts: &FlowRecord, end: &CloseFacts) -> Line {
    line(at, "close", Says::Closed(facts.flow), |object| {
        match facts.shared() {
            Some(shared) => flow_again(object, shared, facts),
            None => {
                flow(object, facts, None);
            }
        }
        object.number("tidegate.bytes.out", end.bytes_out);
        object.number("tidegate.bytes.in", end.bytes_in);
        object.number("tidegate.requests", end.requests);
        object.word("tidegate.end", end.end.as_str());
        object.word("tidegate.blame", end.blame.map_or("", blame_word));
        object.word("error.type", end.error.unwrap_or_default());
    })
}

/// Makes the line of an event that belongs to no flow.
pub(super) fn event(at: Timestamp, event: &Event) -> Line {
    match event {
        Event::PolicyLoaded {
            digest,
            generation,
            copy,
            change,
            repositories,
        } => line(at, "policy_loaded", Says::Nothing, |object| {
            policy(object, digest, *generation);
            object.text(
                "tidegate.policy.copy",
                copy.as_deref().unwrap_or_default(),
                NAME,
            );
            object.text("tidegate.policy.change", change, CHANGE);
            let repositories = repositories.iter().map(AsRef::as_ref);
            object.texts("tidegate.policy.repositories", repositories, PLACE);
        }),
        Event::PolicyRejected {
            digest,
            generation,
            detail,
        } => line(at, "policy_rejected", Says::Nothing, |object| {
            object.text("tidegate.detail", detail, DETAIL);
            policy(object, digest, *generation);
        }),
        Event::PolicyAdvisory { detail } => line(at, "policy_advisory", Says::Nothing, |object| {
            object.text("tidegate.detail", detail, DETAIL);
        }),
        Event::ConnectionsEvicted { count, network } => {
            line(at, "connections_evicted", Says::Nothing, |object| {
                object.number("tidegate.evicted.count", *count);
                object.address("client.address", *network);
            })
        }
        Event::NotificationFailed { notifier, detail } => {
            line(at, "notification_failed", Says::Nothing, |object| {
                object.text("tidegate.notifier", notifier, NAME);
                object.text("tidegate.detail", detail, DETAIL);
            })
        }
        Event::ProgramStarted { path, detail } => {
            line(at, "program_started", Says::Nothing, |object| {
                program(object, path, detail);
            })
        }
        Event::ProgramEnded {
            path,
            detail,
            result,
            code,
            took,
        } => line(at, "program_ended", Says::Nothing, |object| {
            program(object, path, detail);
            object.word("tidegate.program.result", result);
            if let Some(code) = code.and_then(|code| u64::try_from(code).ok()) {
                object.number("process.exit.code", code);
            }
            object.millis("tidegate.ms.total", Some(took.as_secs_f64() * 1000.0));
        }),
        Event::SessionStarted(facts) => line(at, "session_started", Says::Nothing, |object| {
            session(object, facts);
        }),
        Event::JailStarted(facts) => line(at, "jail_started", Says::Nothing, |object| {
            object.some("session.id", &facts.session, NAME);
            let shared = facts.shared.iter().map(AsRef::as_ref);
            object.texts("tidegate.jail.shared", shared, PLACE);
            let missing = facts.missing.iter().copied();
            object.texts("tidegate.jail.missing", missing, NAME);
        }),
        Event::SessionEnded(facts) => line(at, "session_ended", Says::Nothing, |object| {
            session(object, facts);
        }),
        Event::ContainmentReported {
            inside,
            outside,
            asker: by,
        } => line(at, "containment_reported", Says::Nothing, |object| {
            object.texts("tidegate.contained.inside", inside.iter().copied(), NAME);
            object.texts("tidegate.contained.outside", outside.iter().copied(), NAME);
            asker(object, by);
        }),
        Event::ReportTokenMade {
            lifetime,
            count,
            asker: by,
        } => line(at, "report_token_made", Says::Nothing, |object| {
            object.number("tidegate.report.lifetime", u64::from(*lifetime));
            object.number("tidegate.report.count", u64::from(*count));
            asker(object, by);
        }),
        Event::ExceptionGranted(facts) => line(at, "exception_granted", Says::Nothing, |object| {
            exception(object, facts);
        }),
        Event::ExceptionExpired(facts) => line(at, "exception_expired", Says::Nothing, |object| {
            exception(object, facts);
        }),
        Event::ExceptionRevoked(facts) => line(at, "exception_revoked", Says::Nothing, |object| {
            exception(object, facts);
        }),
        Event::ApprovalRequested(facts) => {
            line(at, "approval_requested", Says::Nothing, |object| {
                approval(object, facts);
            })
        }
        Event::ApprovalSettled(facts) => line(at, "approval_settled", Says::Nothing, |object| {
            approval(object, facts);
        }),
        Event::ToolCallStarted(facts) => line(at, "tool_call_started", Says::Nothing, |object| {
            reported_call(object, facts);
        }),
        Event::ToolCallEnded(facts) => line(at, "tool_call_ended", Says::Nothing, |object| {
            reported_call(object, facts);
        }),
        Event::SessionRefused(facts) => line(at, "session_refused", Says::Nothing, |object| {
            session(object, facts);
        }),
        Event::ContainmentLost(facts) => line(at, "containment_lost", Says::Nothing, |object| {
            session(object, facts);
        }),
    }
}

fn approval(object: &mut Object, facts: &ApprovalFacts) {
    let flow = &facts.flow;
    object.id("tidegate.request.id", &facts.request);
    object.text("tidegate.request.operation", &facts.operation, NAME);
    object.word("tidegate.request.result", facts.result.unwrap_or_default());
    object.number("tidegate.request.count", facts.count);
    object.some("tidegate.request.scope", &facts.scope, NAME);
    let reviewers = facts.reviewers.iter().map(AsRef::as_ref);
    if !facts.reviewers.is_empty() {
        object.texts("tidegate.request.reviewers", reviewers, NAME);
    }
    object.some("tidegate.exception.id", &facts.exception, NAME);
    if let Some(until) = facts.until {
        object.time("tidegate.exception.expires", until);
    }
    object.some("tidegate.detail", &facts.note, DETAIL);
    if !flow.flow.is_nil() {
        object.id("tidegate.flow.id", &flow.flow);
    }
    object.some("security_rule.name", &flow.rule, NAME);
    object.some("tidegate.rule.location", &flow.rule_location, PLACE);
    if let Some(digest) = &flow.policy_digest {
        policy(object, digest, flow.policy_generation);
    }
    object.word(
        "tidegate.category",
        flow.category.map_or("", |category| category.as_str()),
    );
    object.some("tidegate.tier", &flow.tier, NAME);
    caller(object, flow);
    object.some("server.address", &flow.server_address, NAME);
    if let Some(port) = flow.server_port {
        object.number("server.port", u64::from(port));
    }
    if let Some(by) = &facts.asker {
        asker(object, by);
    }
}

/// Makes the `record_gap` line.
pub(super) fn gap(at: Timestamp, gap: &Gap<'_>) -> Line {
    line(at, "record_gap", Says::Nothing, |object| {
        object.text("tidegate.detail", gap.detail, DETAIL);
        object.word("tidegate.gap.cause", gap.cause);
        if let Some(since) = gap.since {
            object.time("tidegate.gap.since", since);
        }
        object.number("tidegate.gap.lost", gap.lost);
        object.number("tidegate.gap.refused", gap.refused);
        object.number("tidegate.gap.open", gap.open.0);
        if !gap.open.1.is_empty() {
            object.ids("tidegate.gap.flows", gap.open.1.iter().take(GAP_FLOWS));
        }
        if gap.bytes > 0 {
            object.number("tidegate.gap.bytes", gap.bytes);
        }
        if gap.repeats > 0 {
            object.number("tidegate.gap.repeats", gap.repeats);
        }
    })
}

/// Makes the line that opens or closes a count of repeated refusals or events, as `count` decides.
pub(super) fn repeated(at: Timestamp, count: &Count) -> Line {
    let opens = count.total == 0;
    let says = if opens {
        Says::Counts(count.stands.clone())
    } else {
        Says::Nothing
    };
    let name = match count.about {
        About::Events(..) => "events_repeated",
        About::Refusals(_) | About::Various(_) => "refusals_repeated",
    };
    line(at, name, says, |object| {
        object.id("tidegate.repeat.id", &count.id);
        object.word(
            "tidegate.repeat.state",
            if opens { "open" } else { "ended" },
        );
        object.number("tidegate.repeat.count", count.total);
        object.time("tidegate.repeat.since", count.since);
        object.time("tidegate.repeat.until", count.until);
        if let Some(targets) = count.targets {
            object.number("tidegate.repeat.targets", targets);
        }
        match &count.about {
            About::Events(name, facts) => {
                object.word("tidegate.repeat.event", name);
                object.some("session.id", &facts.session, NAME);
                object.some("user.id", &facts.user, NAME);
            }
            About::Refusals(facts) => {
                decided(object, &Decided::of(facts));
                caller(object, facts);
                destination(object, facts);
            }
            About::Various(facts) => caller(object, facts),
        }
    })
}

/// Makes the line about a change of the log's files, or of their retention.
pub(super) fn files(at: Timestamp, name: &str, detail: &str) -> Line {
    line(at, name, Says::Nothing, |object| {
        object.text("tidegate.detail", detail, DETAIL);
    })
}

/// The facts of a `checkpoint` line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkpoint<'a> {
    /// The cause: `opened` (a file begins), `started`, `running` (each minute), `stopped`.
    pub(super) cause: &'static str,
    /// The number of open flows.
    pub(super) count: usize,
    /// Some of these flows, if a file begins.
    pub(super) open: &'a [Uuid],
    /// Some of the open counts of repeated refusals and events, if a file begins.
    pub(super) repeats: &'a [Uuid],
    /// The public key of the signature, in hex.
    pub(super) key: Option<&'a str>,
}

/// Makes a `checkpoint` line.
pub(super) fn checkpoint(at: Timestamp, checkpoint: &Checkpoint<'_>) -> Line {
    let mut line = line(at, "checkpoint", Says::Nothing, |object| {
        object.word("tidegate.checkpoint.cause", checkpoint.cause);
        object.number(
            "tidegate.checkpoint.count",
            u64::try_from(checkpoint.count).unwrap_or(u64::MAX),
        );
        if checkpoint.cause == "opened" {
            object.ids("tidegate.checkpoint.open", checkpoint.open.iter());
            if !checkpoint.repeats.is_empty() {
                object.ids("tidegate.checkpoint.repeats", checkpoint.repeats.iter());
            }
        }
        object.word(
            "tidegate.checkpoint.key",
            checkpoint.key.unwrap_or_default(),
        );
    });
    line.signed = true;
    line
}

fn line(at: Timestamp, name: &str, says: Says, write: impl FnOnce(&mut Object)) -> Line {
    let mut object = Object::new(at, name);
    let split = object.len();
    write(&mut object);
    Line {
        bytes: object.end(),
        split,
        says,
        signed: false,
    }
}

fn exception(object: &mut Object, facts: &ExceptionFacts) {
    object.text("tidegate.detail", &facts.detail, DETAIL);
    object.text("tidegate.rule.location", &facts.location, PLACE);
    object.text("tidegate.exception.id", &facts.id, NAME);
    object.time("tidegate.exception.expires", facts.expires);
    let reviewers = facts.reviewers.iter().map(AsRef::as_ref);
    object.texts("tidegate.exception.reviewers", reviewers, NAME);
    let hosts = facts.hosts.iter().map(AsRef::as_ref).take(ANSWERS);
    object.texts("tidegate.exception.hosts", hosts, NAME);
    asker(object, &facts.asker);
}

fn program(object: &mut Object, path: &str, detail: &str) {
    object.text("process.executable.path", path, PLACE);
    object.text("tidegate.detail", detail, DETAIL);
}

fn policy(object: &mut Object, digest: &str, generation: u64) {
    object.text("tidegate.policy.digest", digest, NAME);
    object.number("tidegate.policy.generation", generation);
}

/// The parts of a line whose text is the same on both lines of a flow: between them are the facts
/// of the dial and of the answer, which are known later.
type Parts = [Range<usize>; 3];

/// A `decision` line and the places of these parts in it.
#[derive(Debug)]
pub(super) struct Shared {
    /// The `decision` line up to the end of the last part.
    text: Box<[u8]>,
    parts: Parts,
}

impl Shared {
    fn of(line: &[u8], parts: Parts) -> Self {
        let text = line.get(..parts[2].end).unwrap_or_default().into();
        Self { text, parts }
    }

    fn parts(&self) -> [&[u8]; 3] {
        let part = |part: &Range<usize>| self.text.get(part.clone()).unwrap_or_default();
        let [attempted, asked, described] = &self.parts;
        [part(attempted), part(asked), part(described)]
    }
}

fn flow(object: &mut Object, facts: &FlowFacts, texts: Option<&DecisionTexts>) -> Parts {
    let start = object.len();
    attempt(object, facts, texts);
    let attempted = start..object.len();
    dialled(object, facts);
    let start = object.len();
    asked(object, facts);
    let asked = start..object.len();
    answered(object, facts);
    let start = object.len();
    described(object, facts);
    request_facts(object, facts.request_facts.as_deref());
    let described = start..object.len();
    timings(object, &facts.ms);
    [attempted, asked, described]
}

/// Like [`flow`], with the text that the first line of the flow has.
fn flow_again(object: &mut Object, shared: &Shared, facts: &FlowFacts) {
    let [attempted, asked, described] = shared.parts();
    object.raw(attempted);
    dialled(object, facts);
    object.raw(asked);
    answered(object, facts);
    object.raw(described);
    timings(object, &facts.ms);
}

fn attempt(object: &mut Object, facts: &FlowFacts, texts: Option<&DecisionTexts>) {
    object.id("tidegate.flow.id", &facts.flow);
    if let Some(parent) = &facts.parent {
        object.id("tidegate.flow.parent", parent);
    }
    match texts {
        Some(texts) => texts.add(object, facts, decided),
        None => decided(object, &Decided::of(facts)),
    }
    caller(object, facts);
    target(object, facts);
}

fn request_facts(object: &mut Object, request_facts: Option<&RequestFacts>) {
    let Some(request_facts) = request_facts else {
        return;
    };
    object.some("tidegate.service", &request_facts.service, NAME);
    object.some("tidegate.operation", &request_facts.operation, NAME);
    object.some(
        "tidegate.destination.repository",
        &request_facts.repository,
        PLACE,
    );
    object.some("tidegate.package.name", &request_facts.package, NAME);
    object.some("tidegate.package.version", &request_facts.version, NAME);
    object.some("tidegate.destination.ref", &request_facts.reference, PLACE);
    let Some(mcp) = &request_facts.mcp else {
        return;
    };
    object.some("tidegate.mcp.server", &mcp.server, NAME);
    object.some("mcp.method.name", &mcp.method, NAME);
    // Methods about resources name a URI, which may contain a query or a password.
    let method = mcp.method.as_deref().unwrap_or_default();
    let tool = mcp
        .tool
        .as_deref()
        .filter(|_| !method.starts_with("resources/"));
    object.some("mcp.tool.name", &tool, NAME);
}

fn decided(object: &mut Object, facts: &Decided<'_>) {
    object.word("tidegate.verdict", outcome_word(facts.outcome));
    object.word("tidegate.mode", facts.mode.map_or("", mode_word));
    object.word("tidegate.would", facts.would.map_or("", verdict_word));
    object.word("tidegate.reason", facts.reason);
    object.some("tidegate.detail", &facts.detail, DETAIL);
    object.some("security_rule.name", &facts.rule.map(AsRef::as_ref), NAME);
    object.some(
        "tidegate.rule.location",
        &facts.rule_location.map(AsRef::as_ref),
        PLACE,
    );
    if let Some(digest) = facts.policy_digest {
        policy(object, digest, facts.policy_generation);
    }
    if !facts.exceptions.is_empty() || facts.exception.is_some() {
        let exceptions = facts.exceptions.iter().chain(facts.exception);
        let exceptions: Vec<&str> = exceptions.map(AsRef::as_ref).collect();
        object.text("tidegate.exception.id", &exceptions.join(" "), NAME);
    }
    if let Some(request) = &facts.request {
        object.id("tidegate.request.id", request);
    }
    object.word(
        "tidegate.category",
        facts.category.map_or("", |category| category.as_str()),
    );
    object.word(
        "tidegate.category.basis",
        facts.category_basis.map_or("", basis_word),
    );
    let any = if facts.action_any { "any" } else { "" };
    object.word("tidegate.action", facts.action.map_or(any, Action::as_str));
    object.some("tidegate.tier", &facts.tier.map(AsRef::as_ref), NAME);
    object.word(
        "tidegate.tier.basis",
        facts.tier_basis.map_or("", tier_basis_word),
    );
}

fn caller(object: &mut Object, facts: &FlowFacts) {
    let said = facts.said.as_deref();
    let session = facts.session.as_deref();
    let session = session.or(said.and_then(|said| said.session.as_deref()));
    object.some("session.id", &session, NAME);
    object.some("tidegate.session.root", &facts.root, NAME);
    object.word("tidegate.session.evidence", facts.evidence);
    object.word("tidegate.session.trust", facts.trust);
    call(object, facts);
    trace(object, facts);
    object.some("tidegate.channel", &facts.channel, NAME);
    object.some("user.id", &facts.user, NAME);
    if let Some(groups) = &facts.groups {
        object.texts("user.groups", groups.iter().map(AsRef::as_ref), NAME);
    }
    repository(object, facts.repository.as_ref());
    work(object, facts.work.as_deref());
    process(object, facts.process.as_deref());
    if let Some(address) = facts.client_address {
        object.address("client.address", address);
    }
}

/// Adds the tool call; facts in the request itself are more exact and take precedence. If two kinds
/// of evidence disagree, no call is recorded.
fn call(object: &mut Object, facts: &FlowFacts) {
    let mcp = facts
        .request_facts
        .as_deref()
        .and_then(|request_facts| request_facts.mcp.as_ref());
    let id = mcp.and_then(|mcp| mcp.tool_use_id.as_deref());
    let unknown = facts.call.is_none() && facts.said.is_none() && id.is_none();
    if unknown && facts.call_basis.is_none() && !facts.call_conflict {
        return;
    }
    let none = (ToolCall::default(), Said::default());
    let call = facts.call.as_deref().unwrap_or(&none.0);
    let said = facts.said.as_deref().unwrap_or(&none.1);
    let id = id.filter(|_| !facts.call_conflict);
    let prompt = said.prompt.as_deref().or(call.prompt.as_deref());
    let agent = said.agent.as_deref().or(call.agent.as_deref());
    let parent = said.parent_agent.as_deref();
    object.some("prompt.id", &prompt, NAME);
    object.some("tool_use_id", &id.or(call.id.as_deref()), NAME);
    object.some("tidegate.tool.name", &call.tool, NAME);
    // The call in the request itself is only an assertion of its process.
    let shown = id.is_none_or(|id| call.id.as_deref() == Some(id));
    if let Some(trust) = match facts.call {
        Some(_) if shown => Some(facts.call_trust),
        _ => id.map(|_| Trust::Asserted),
    } {
        object.word("tidegate.call.trust", trust.as_str());
    }
    let by_headers = said.agent.is_some() || said.prompt.is_some() || said.request.is_some();
    if let Some(basis) = match facts.call_basis {
        Some(basis) if facts.call.is_some() || facts.call_conflict => Some(basis),
        _ if id.is_some() => Some(CallBasis::Meta.as_str()),
        _ if by_headers => Some(CallBasis::Header.as_str()),
        basis => basis,
    } {
        object.word("tidegate.call.basis", basis);
    }
    if facts.call_conflict {
        object.boolean("tidegate.call.conflict", true);
    }
    object.some("agent_id", &agent, NAME);
    let parent = parent.or(call.parent_agent.as_deref());
    object.some("parent_agent_id", &parent, NAME);
    object.some("gen_ai.conversation.id", &said.conversation, NAME);
    object.some("client_request_id", &said.request, NAME);
    if said.mismatch {
        object.word("tidegate.session.mismatch", "header");
    }
    if !said.server_tools.is_empty() {
        let tools = said.server_tools.iter().map(AsRef::as_ref);
        object.texts("tidegate.model.tools", tools, NAME);
    }
}

fn trace(object: &mut Object, facts: &FlowFacts) {
    let said = facts.said.as_deref().and_then(|said| said.trace.as_ref());
    let (trace, span) = match said {
        Some((trace, span)) => (Some(&**trace), Some(&**span)),
        None => (facts.trace_id.as_deref(), facts.span_id.as_deref()),
    };
    object.some("trace_id", &trace, NAME);
    object.some("span_id", &span, NAME);
}

fn work(object: &mut Object, work: Option<&Work>) {
    let Some(work) = work else { return };
    object.some("tidegate.agent", &work.agent, NAME);
    object.some("tidegate.permission_mode", &work.permission_mode, NAME);
    object.some("organization.id", &work.organization, NAME);
    object.some("vcs.ref.head.name", &work.ref_name, PLACE);
    object.some("vcs.ref.head.revision", &work.revision, NAME);
    if work.ref_name.is_some() || work.revision.is_some() {
        let trust = if work.issued_ref {
            Trust::Verified
        } else {
            Trust::Asserted
        };
        object.word("tidegate.vcs.trust", trust.as_str());
    }
    let Some(job) = &work.job else { return };
    object.some("cicd.pipeline.name", &job.pipeline, NAME);
    object.some("cicd.pipeline.run.id", &job.run, NAME);
    object.some("cicd.pipeline.task.name", &job.task, NAME);
    object.some("cicd.worker.name", &job.worker, NAME);
}

fn process(object: &mut Object, process: Option<&Process>) {
    let Some(process) = process else { return };
    object.some("process.executable.path", &process.path, PLACE);
    object.number("process.pid", process.pid.into());
    object.text("process.command", &process.command, COMMAND);
    if !process.ancestry.is_empty() {
        let names = process.ancestry.iter().map(AsRef::as_ref);
        object.texts("process.ancestry", names, NAME);
    }
}

fn session(object: &mut Object, facts: &SessionFacts) {
    object.some("tidegate.detail", &facts.detail, DETAIL);
    object.some("session.id", &facts.session, NAME);
    object.some("tidegate.session.root", &facts.root, NAME);
    object.word("tidegate.session.evidence", facts.evidence);
    object.word("tidegate.session.trust", facts.trust);
    object.some("user.id", &facts.user, NAME);
    repository(object, facts.repository.as_ref());
    work(object, facts.work.as_deref());
    asker(object, &facts.asker);
}

fn reported_call(object: &mut Object, facts: &CallFacts) {
    let call = &facts.call;
    object.some("session.id", &facts.session, NAME);
    object.some("prompt.id", &call.prompt, NAME);
    object.some("tool_use_id", &call.id, NAME);
    object.word("tidegate.call.trust", call.trust.as_str());
    object.some("tidegate.tool.name", &call.tool, NAME);
    object.some("agent_id", &call.agent, NAME);
    object.some("parent_agent_id", &call.parent_agent, NAME);
    asker(object, &facts.asker);
}

/// Adds the asker of a change.
fn asker(object: &mut Object, asker: &Asker) {
    object.word("tidegate.asker.door", asker.door);
    if let Some(uid) = asker.uid {
        object.number("tidegate.asker.uid", uid.into());
    }
    if let Some(pid) = asker.pid {
        object.number("tidegate.asker.pid", pid.into());
    }
    if let Some(address) = asker.address {
        object.address("tidegate.asker.address", address);
    }
    object.some("tidegate.asker.certificate", &asker.certificate, NAME);
    object.some("tidegate.asker.session", &asker.session, NAME);
}

/// Adds the repository and its evidence, which is separate from the session's.
fn repository(object: &mut Object, said: Option<&RepositorySaid>) {
    let Some(said) = said else {
        object.word("tidegate.repository.trust", Trust::None.as_str());
        return;
    };
    object.text("vcs.repository.url.full", &said.name, PLACE);
    object.word("tidegate.repository.trust", said.trust.as_str());
    object.word("tidegate.repository.basis", said.basis.as_str());
}

fn destination(object: &mut Object, facts: &FlowFacts) {
    target(object, facts);
    dialled(object, facts);
    asked(object, facts);
    answered(object, facts);
    described(object, facts);
}

fn target(object: &mut Object, facts: &FlowFacts) {
    object.some("server.address", &facts.server_address, NAME);
    if let Some(port) = facts.server_port {
        object.number("server.port", port.into());
    }
}

/// Adds what [`FlowRecord::set_dialled`] sets.
fn dialled(object: &mut Object, facts: &FlowFacts) {
    if let Some(address) = facts.peer_address {
        object.address("network.peer.address", address);
    }
    object.some("tidegate.parent", &facts.parent_proxy, NAME);
}

fn asked(object: &mut Object, facts: &FlowFacts) {
    if let Some(answers) = &facts.dns_answers {
        object.addresses("dns.answers", answers.iter().take(ANSWERS));
    }
    object.word("network.protocol.name", facts.protocol.unwrap_or_default());
    object.some("http.request.method", &facts.method, NAME);
}

/// Adds what [`FlowRecord::set_status`] sets.
fn answered(object: &mut Object, facts: &FlowFacts) {
    if let Some(status) = facts.status {
        object.number("http.response.status_code", status.into());
    }
}

fn described(object: &mut Object, facts: &FlowFacts) {
    object.some("user_agent.original", &facts.user_agent, USER_AGENT);
    object.word("tidegate.tls.mode", facts.tls_mode.map_or("", tls_word));
    object.some("tls.client.server_name", &facts.server_name, NAME);
    if facts.ech {
        object.boolean("tidegate.tls.ech", true);
    }
    object.some("tls.client.hash.sha256", &facts.client_hash, NAME);
    object.some("tidegate.upstream", &facts.upstream, NAME);
    if facts.reused {
        object.boolean("tidegate.connection.reused", true);
    }
}

/// Adds the verdict of the shadow policy, and its rule if the verdict differs.
fn shadow(object: &mut Object, facts: &FlowFacts) {
    let Some((verdict, rule)) = &facts.shadow else {
        return;
    };
    object.word("tidegate.shadow.verdict", verdict_word(*verdict));
    if Some(*verdict) != facts.enforced() {
        object.text("tidegate.shadow.rule", rule, NAME);
    }
}

/// Adds the facts that only judging the flow again needs: on one line of each flow.
fn replay(object: &mut Object, again: Option<&ReplayFacts>) {
    let Some(again) = again else { return };
    if let Some(within) = &again.within {
        let words: Vec<String> = within.words().collect();
        object.texts("tidegate.within", words.iter().map(AsRef::as_ref), NAME);
    }
    for (name, set) in [
        ("tidegate.enforced", again.enforced),
        ("tidegate.upgrade", again.upgrade),
    ] {
        if set {
            object.boolean(name, true);
        }
    }
    if let Some(grounds) = &again.grounds {
        tier_grounds(object, grounds);
    }
    if let Some(presented) = again.presented {
        let word = if presented { "some" } else { "none" };
        object.word("tidegate.presented", word);
    }
    if let Some(published) = again.published {
        object.time("tidegate.package.published", published);
    }
    for (name, count, most) in [
        ("tidegate.request.facts", again.facts, 1),
        ("tidegate.request.readings", again.readings, 0),
    ] {
        if count > most {
            object.number(name, u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
    if again.head_only {
        object.word("tidegate.request.seen", "head");
    }
    // A truncated path is a different path.
    let path = again.path.as_deref().filter(|path| path.len() <= PLACE);
    object.some("url.path", &path, PLACE);
}

fn tier_grounds(object: &mut Object, grounds: &TierGrounds) {
    object.some("tidegate.tier.given", &grounds.given, NAME);
    object.some("tidegate.tier.issued", &grounds.issued, NAME);
    object.some("tidegate.repository.verified", &grounds.verified, PLACE);
    if let Some(claimed) = &grounds.claimed {
        let claimed = claimed.iter().map(AsRef::as_ref);
        object.texts("tidegate.repository.claimed", claimed, PLACE);
    }
    if !grounds.hinted.is_empty() {
        let hinted = grounds.hinted.iter().map(AsRef::as_ref);
        object.texts("tidegate.repository.hinted", hinted, PLACE);
    }
}

fn timings(object: &mut Object, ms: &Timings) {
    object.millis("tidegate.ms.decide", ms.decide);
    object.millis("tidegate.ms.dns", ms.dns);
    object.millis("tidegate.ms.connect", ms.connect);
    object.millis("tidegate.ms.tls", ms.tls);
    object.millis("tidegate.ms.first_byte", ms.first_byte);
    object.millis("tidegate.ms.total", ms.total);
}

fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "allow",
        Outcome::Ask => "ask",
        Outcome::Deny => "deny",
        Outcome::Error => "error",
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Ask => "ask",
        Verdict::Deny => "deny",
    }
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

fn basis_word(basis: Basis) -> &'static str {
    match basis {
        Basis::Content => "content",
        Basis::Host => "host",
        Basis::None => "none",
        Basis::Path => "path",
        Basis::Rule => "rule",
    }
}

fn tier_basis_word(basis: TierBasis) -> &'static str {
    match basis {
        TierBasis::Group => "group",
        TierBasis::Listener => "listener",
        TierBasis::Repository => "repository",
        TierBasis::Session => "session",
        TierBasis::Unattributed => "unattributed",
    }
}

fn blame_word(blame: Blame) -> &'static str {
    match blame {
        Blame::Client => "client",
        Blame::Policy => "policy",
        Blame::Proxy => "proxy",
        Blame::Upstream => "upstream",
    }
}

fn tls_word(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Inspected => "inspected",
        TlsMode::None => "none",
        TlsMode::Opaque => "opaque",
    }
}
