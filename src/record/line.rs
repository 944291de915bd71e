//! One line of the decision log (schema `record/1`).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::diag::shell_word;
use crate::identity::{Process, RepositorySaid, TierGrounds, ToolCall, Trust, Work};
use crate::policy::{Action, Basis, Category, Mode, RequestFacts, TierBasis, Verdict, Within};

/// Schema version of every line.
pub const SCHEMA: &str = "record/1";

/// How a flow ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The flow was dropped without a regular end: a defect or a panic.
    #[default]
    Abandoned,
    /// Ended by shutdown, or by a policy that no longer allows the flow, when no refusal could be
    /// sent any more. With a refusal the end is `refused`.
    Cancelled,
    /// Both sides closed.
    Closed,
    /// A part of the path failed.
    Failed,
    /// The flow was refused.
    Refused,
}

impl End {
    /// Returns the word, as in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Cancelled => "cancelled",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// The side that caused an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The client closed the connection or sent invalid data.
    Client,
    /// The policy refused the flow.
    Policy,
    /// The gate itself.
    Proxy,
    /// The origin, its name or the path to it.
    Upstream,
}

/// `tidegate.verdict` of a line: a policy's verdict, or `error` if none was reached or the upstream
/// connection failed before the decision line.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The flow passes.
    Allow,
    /// A person has to approve first.
    Ask,
    /// The flow does not pass.
    Deny,
    /// No verdict of the policy: malformed, unidentified, limited, not reachable.
    #[default]
    Error,
}

/// `tidegate.tls.mode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS that the gate intercepts: each request inside is a separate flow.
    Inspected,
    /// No TLS.
    None,
    /// TLS that the gate does not intercept.
    Opaque,
}

/// All facts of a flow, collected stage by stage; unknown facts are not written. Serialized flat
/// with the names of `record/1`.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the line")]
pub struct FlowFacts {
    /// `tidegate.flow.id`: a UUID of version 7.
    pub flow: Uuid,
    /// `tidegate.flow.parent`: the tunnel of an inspected request, or the request that caused a
    /// fetch of the gate itself.
    pub parent: Option<Uuid>,
    /// `tidegate.verdict`.
    pub outcome: Outcome,
    /// `tidegate.mode`.
    pub mode: Option<Mode>,
    /// `tidegate.would`.
    pub would: Option<Verdict>,
    /// `tidegate.reason`: a code of the closed list.
    pub reason: &'static str,
    /// `tidegate.detail`: at most 160 characters.
    pub detail: Option<Box<str>>,
    /// `security_rule.name`.
    pub rule: Option<Arc<str>>,
    /// `tidegate.rule.location`.
    pub rule_location: Option<Arc<str>>,
    /// The file of the configuration, for commands in answers. Not recorded.
    pub config_file: Option<Arc<str>>,
    /// `tidegate.policy.digest`.
    pub policy_digest: Option<Arc<str>>,
    /// `tidegate.policy.generation`.
    pub policy_generation: u64,
    /// `tidegate.exception.id`: the exceptions that let the flow pass, before the approval.
    pub exceptions: Box<[Arc<str>]>,
    /// `tidegate.category`.
    pub category: Option<Category>,
    /// `tidegate.category.basis`.
    pub category_basis: Option<Basis>,
    /// `tidegate.action`: `read`, `write`, `call`, or `any` if an allow passes an opaque flow.
    pub action: Option<Action>,
    /// Whether `tidegate.action` is `any`.
    pub action_any: bool,
    /// `tidegate.exception.id`: the exception that allowed the flow against the rule.
    pub exception: Option<Arc<str>>,
    /// `tidegate.request.id`: the request for approval that the flow is an attempt of.
    pub request: Option<Uuid>,
    /// `tidegate.tier`.
    pub tier: Option<Arc<str>>,
    /// `tidegate.tier.basis`.
    pub tier_basis: Option<TierBasis>,
    /// `session.id`.
    pub session: Option<Arc<str>>,
    /// `tidegate.session.root`: the root session of a child session.
    pub root: Option<Arc<str>>,
    /// `tidegate.session.evidence`: `username`, `listener`, `none` …
    pub evidence: &'static str,
    /// `tidegate.session.trust`: `verified`, `asserted`, `none`.
    pub trust: &'static str,
    /// `tidegate.channel`.
    pub channel: Option<Arc<str>>,
    /// `trace_id`.
    pub trace_id: Option<Arc<str>>,
    /// `span_id`.
    pub span_id: Option<Arc<str>>,
    /// `user.id`.
    pub user: Option<Arc<str>>,
    /// `user.groups`.
    pub groups: Option<Arc<[Arc<str>]>>,
    /// `vcs.repository.url.full`, `tidegate.repository.trust`, `tidegate.repository.basis`.
    pub repository: Option<RepositorySaid>,
    /// The agent, branch, commit, permission mode and CI job.
    pub work: Option<Arc<Work>>,
    /// `tidegate.call.trust`: the trust in the attribution of the flow to `call`.
    pub call_trust: Trust,
    /// `tidegate.call.basis`: the evidence for `call`; `none` if there is no evidence, in a session
    /// whose hooks report calls.
    pub call_basis: Option<&'static str>,
    /// `tidegate.call.conflict`: two kinds of evidence name different calls, so the flow belongs to
    /// none.
    pub call_conflict: bool,
    /// `tool_use_id`, `prompt.id`, `agent_id`, `parent_agent_id`.
    pub call: Option<Arc<ToolCall>>,
    /// `process.*`.
    pub process: Option<Arc<Process>>,
    /// `client.address`.
    pub client_address: Option<IpAddr>,
    /// `server.address`: the canonical host.
    pub server_address: Option<Arc<str>>,
    /// `server.port`.
    pub server_port: Option<u16>,
    /// `network.peer.address`: the dialled address; absent if the flow was denied by name.
    pub peer_address: Option<IpAddr>,
    /// `tidegate.parent`: the `host:port` of the parent proxy that was used, if any.
    pub parent_proxy: Option<Arc<str>>,
    /// `dns.answers`.
    pub dns_answers: Option<Box<[IpAddr]>>,
    /// `network.protocol.name`: `connect` or `http`.
    pub protocol: Option<&'static str>,
    /// `http.request.method`.
    pub method: Option<Cow<'static, str>>,
    /// `http.response.status_code`: the origin's answer to a plain request, or the gate's refusal.
    pub status: Option<u16>,
    /// `user_agent.original`, at most 200 characters.
    pub user_agent: Option<Box<str>>,
    /// `tidegate.tls.mode`.
    pub tls_mode: Option<TlsMode>,
    /// `tls.client.server_name`.
    pub server_name: Option<Box<str>>,
    /// `tidegate.tls.ech`: the `ClientHello` has an encrypted client hello extension.
    pub ech: bool,
    /// `tls.client.hash.sha256`: of the certificate that the client presented inside its tunnel, in
    /// hex.
    pub client_hash: Option<Arc<str>>,
    /// `tidegate.connection.reused`: an earlier flow of the same caller opened the connection.
    pub reused: bool,
    /// `tidegate.upstream`: the `[upstream.NAME]` of the TLS connection.
    pub upstream: Option<Arc<str>>,
    /// The request facts, if the request was seen.
    pub request_facts: Option<Arc<RequestFacts>>,
    /// Labels from the agent's own header fields.
    pub said: Option<Box<Said>>,
    /// `tidegate.shadow.verdict`, `tidegate.shadow.rule`: the verdict of the shadow policy, and its
    /// rule.
    pub shadow: Option<(Verdict, Arc<str>)>,
    /// Facts that are only needed to judge the flow again.
    pub again: Option<Box<ReplayFacts>>,
    /// `tidegate.ms.decide` and related fields, in milliseconds (written with 3 decimals).
    pub ms: Timings,
}

impl FlowFacts {
    /// Returns the verdict that `enforce` mode carries out; `None` if the policy reached none.
    pub fn enforced(&self) -> Option<Verdict> {
        self.would.or(match self.outcome {
            Outcome::Allow => Some(Verdict::Allow),
            Outcome::Ask => Some(Verdict::Ask),
            Outcome::Deny => Some(Verdict::Deny),
            Outcome::Error => None,
        })
    }

    /// Returns the facts for judging the flow again, for additions.
    pub fn again(&mut self) -> &mut ReplayFacts {
        self.again.get_or_insert_default()
    }

    /// Returns the command that explains the flow.
    pub fn explain(&self) -> String {
        let mut text = format!("tidegate explain {}", self.flow);
        if let Some(file) = &self.config_file {
            text.push_str(" --config ");
            text.push_str(&shell_word(file));
        }
        text
    }
}

/// Facts that are only needed to judge a flow again: on the `decision` line, each only if there is
/// one.
#[derive(Clone, Debug, Default)]
pub struct ReplayFacts {
    /// `tidegate.within`: the most that the session may use.
    pub within: Option<Arc<Within>>,
    /// `tidegate.enforced`: whether refusals are enforced although the tier observes.
    pub enforced: bool,
    /// Further bases of the tier.
    pub grounds: Option<Arc<TierGrounds>>,
    /// `tidegate.upgrade`: whether the request asks for another protocol.
    pub upgrade: bool,
    /// `tidegate.presented` (`none`, `some`): whether the request has a credential; `None` if no
    /// rule requires this fact. Neither a credential nor its hash is recorded.
    pub presented: Option<bool>,
    /// `tidegate.package.published`: when the version was published, if a rule required its age.
    pub published: Option<Timestamp>,
    /// `tidegate.request.facts`: the number of facts of the request, if there are several.
    pub facts: usize,
    /// `tidegate.request.readings`: the number of other readings of the request by servers.
    pub readings: usize,
    /// `tidegate.request.seen` (`head`): the flow was refused before its body was read.
    pub head_only: bool,
    /// `url.path`, without the query; `None` unless `[record] paths` is set.
    pub path: Option<Box<str>>,
}

/// Labels of an agent inside a tunnel; no evidence.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// `session.id`, if no evidence names the session; otherwise compared with the evidence.
    pub session: Option<Box<str>>,
    /// `tidegate.session.mismatch` (`header`): whether the agent names another session than the
    /// evidence.
    pub mismatch: bool,
    /// `agent_id`.
    pub agent: Option<Box<str>>,
    /// `parent_agent_id`.
    pub parent_agent: Option<Box<str>>,
    /// `prompt.id`.
    pub prompt: Option<Box<str>>,
    /// `gen_ai.conversation.id`.
    pub conversation: Option<Box<str>>,
    /// `client_request_id`.
    pub request: Option<Box<str>>,
    /// `trace_id` and `span_id` of `traceparent`.
    pub trace: Option<(Box<str>, Box<str>)>,
    /// `tidegate.model.tools`: tools that run at the model's provider.
    pub server_tools: Vec<Box<str>>,
}

/// Timings of the stages of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// `tidegate.ms.decide`.
    pub decide: Option<f64>,
    /// `tidegate.ms.dns`.
    pub dns: Option<f64>,
    /// `tidegate.ms.connect`.
    pub connect: Option<f64>,
    /// `tidegate.ms.tls`: the handshake with the origin.
    pub tls: Option<f64>,
    /// `tidegate.ms.first_byte`: from the decision to the first byte of the origin.
    pub first_byte: Option<f64>,
    /// `tidegate.ms.total`.
    pub total: Option<f64>,
}

/// The facts that a `close` line adds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloseFacts {
    /// `tidegate.bytes.out`: from the client to the origin.
    pub bytes_out: u64,
    /// `tidegate.bytes.in`: from the origin to the client.
    pub bytes_in: u64,
    /// `tidegate.requests`.
    pub requests: u64,
    /// `tidegate.end`.
    pub end: End,
    /// `tidegate.blame`.
    pub blame: Option<Blame>,
    /// `error.type`: a code of the closed list of refusals, an I/O error kind, or why TLS with the
    /// upstream failed ([`TlsFailure`](crate::tls::TlsFailure)).
    pub error: Option<&'static str>,
}

/// The facts of a session that starts or ends.
#[derive(Clone, Debug, Default)]
pub struct SessionFacts {
    /// `session.id`.
    pub session: Option<Arc<str>>,
    /// `tidegate.session.root`.
    pub root: Option<Arc<str>>,
    /// `tidegate.session.evidence`.
    pub evidence: &'static str,
    /// `tidegate.session.trust`.
    pub trust: &'static str,
    /// `user.id`.
    pub user: Option<Arc<str>>,
    /// `vcs.repository.url.full`, `tidegate.repository.trust`, `tidegate.repository.basis`.
    pub repository: Option<RepositorySaid>,
    /// The agent, branch, commit, permission mode and CI job.
    pub work: Option<Arc<Work>>,
    /// `tidegate.detail`: why it ended, or its parent session.
    pub detail: Option<Box<str>>,
    /// The asker of the change.
    pub asker: Asker,
}

/// The client that asked the gate for a change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Asker {
    /// `tidegate.asker.door`: `admin`, `admin-tls`, `control`, or `exec` for the gate itself.
    pub door: &'static str,
    /// `tidegate.asker.uid`: the user of the process at the other end of a Unix socket.
    pub uid: Option<u32>,
    /// `tidegate.asker.pid`: the id of that process.
    pub pid: Option<u32>,
    /// `tidegate.asker.address`: the client of a TCP connection.
    pub address: Option<IpAddr>,
    /// `tidegate.asker.certificate`: the name in the client's certificate.
    pub certificate: Option<Arc<str>>,
    /// `tidegate.asker.session`: the session of the presented token.
    pub session: Option<Arc<str>>,
}

/// A tool call that an agent's hook reported.
#[derive(Clone, Debug, Default)]
pub struct CallFacts {
    /// `session.id`.
    pub session: Option<Arc<str>>,
    /// `tool_use_id`, `prompt.id`, `agent_id`, `parent_agent_id`, `tidegate.tool.name`.
    pub call: ToolCall,
    /// The reporter.
    pub asker: Asker,
}

/// The facts of a request for approval that was filed or settled.
#[derive(Clone, Debug, Default)]
pub struct ApprovalFacts {
    /// `tidegate.request.id`.
    pub request: Uuid,
    /// `tidegate.request.operation`: `connect`, `git push`, `read` …
    pub operation: Box<str>,
    /// The facts of its first attempt.
    pub flow: Arc<FlowFacts>,
    /// `tidegate.request.count`: attempts so far.
    pub count: u64,
    /// `tidegate.request.result`, of a settled request: `allowed`, `denied`, `revoked`,
    /// `timed_out`, or `first_of_two` if one more reviewer has to allow it.
    pub result: Option<&'static str>,
    /// `tidegate.request.scope`: `once`, `session`, or seconds.
    pub scope: Option<Box<str>>,
    /// `tidegate.exception.expires`.
    pub until: Option<Timestamp>,
    /// `tidegate.exception.id`.
    pub exception: Option<Arc<str>>,
    /// `tidegate.request.reviewers`: `uid:0`, `subject:sec@acme.example` …
    pub reviewers: Vec<Arc<str>>,
    /// `tidegate.detail`: the reviewer's text.
    pub note: Option<Box<str>>,
    /// The reviewer who settled it.
    pub asker: Option<Asker>,
}

/// An exception that began or ended.
#[derive(Clone, Debug)]
pub struct ExceptionFacts {
    /// `tidegate.exception.id`.
    pub id: Arc<str>,
    /// `tidegate.rule.location`: a line of a file, or `ledger:12`.
    pub location: Arc<str>,
    /// `tidegate.exception.expires`.
    pub expires: Timestamp,
    /// `tidegate.exception.reviewers`.
    pub reviewers: Vec<Box<str>>,
    /// `tidegate.exception.hosts`.
    pub hosts: Vec<Box<str>>,
    /// `tidegate.detail`: the reason.
    pub detail: Box<str>,
    /// The asker who granted or revoked it.
    pub asker: Asker,
}

/// A jail that was made for a session.
#[derive(Clone, Debug)]
pub struct JailFacts {
    /// `session.id`.
    pub session: Option<Arc<str>>,
    /// `tidegate.jail.shared`: paths that the operator shared, `:ro` for reading only.
    pub shared: Vec<Box<str>>,
    /// `tidegate.jail.missing`: promises that this kernel does not support.
    pub missing: Box<[&'static str]>,
}

/// An event that belongs to no flow.
#[derive(Clone, Debug)]
pub enum Event {
    /// A generation began.
    PolicyLoaded {
        /// `tidegate.policy.digest`.
        digest: Arc<str>,
        /// `tidegate.policy.generation`.
        generation: u64,
        /// `tidegate.policy.copy`: the digest of the stored copy.
        copy: Option<Box<str>>,
        /// `tidegate.policy.change`: the difference to the policy before.
        change: Box<str>,
        /// `tidegate.policy.repositories`: the files of repositories that narrow it, with digests.
        repositories: Vec<Box<str>>,
    },
    /// A file did not load; the last good generation stays in force.
    PolicyRejected {
        /// `tidegate.policy.digest` of the policy in force.
        digest: Arc<str>,
        /// `tidegate.policy.generation` of the policy in force.
        generation: u64,
        /// `tidegate.detail`: the first finding, with its location.
        detail: Box<str>,
    },
    /// A caller can change the policy, which is only advice to that caller.
    PolicyAdvisory {
        /// `tidegate.detail`: the caller.
        detail: Box<str>,
    },
    /// Waiting connections were ended to make room for new ones.
    ConnectionsEvicted {
        /// `tidegate.evicted.count`: the number since the last such line.
        count: u64,
        /// `client.address`: the network of the last one, which had the most waiting connections.
        network: IpAddr,
    },
    /// A message about new requests for approval did not reach its receiver.
    NotificationFailed {
        /// `tidegate.notifier`: the name in `[notify.NAME]`.
        notifier: Arc<str>,
        /// `tidegate.detail`: the reason.
        detail: Box<str>,
    },
    /// The gate is about to start a program.
    ProgramStarted {
        /// `process.executable.path`.
        path: Box<str>,
        /// `tidegate.detail`: the purpose.
        detail: Box<str>,
    },
    /// A program that the gate started ended, or did not start.
    ProgramEnded {
        /// `process.executable.path`.
        path: Box<str>,
        /// `tidegate.detail`: the purpose.
        detail: Box<str>,
        /// `tidegate.program.result`: `ok`, `failed`, `not_started`, `timeout`, `too_much_output`,
        /// `cancelled`.
        result: &'static str,
        /// `process.exit.code`.
        code: Option<i32>,
        /// `tidegate.ms.total`.
        took: Duration,
    },
    /// A session was started.
    SessionStarted(Box<SessionFacts>),
    /// A command in a jail is about to begin.
    JailStarted(Box<JailFacts>),
    /// A session ended, or was revoked.
    SessionEnded(Box<SessionFacts>),
    /// A wall of the session's jail is broken (`tidegate.detail`): its flows are ended.
    ContainmentLost(Box<SessionFacts>),
    /// A doctor reported whether its place is contained.
    ContainmentReported {
        /// `tidegate.contained.inside`: the probes that did not get out.
        inside: Vec<&'static str>,
        /// `tidegate.contained.outside`: the probes that got out.
        outside: Vec<&'static str>,
        /// The reporter.
        asker: Asker,
    },
    /// A token for reports of a doctor was made.
    ReportTokenMade {
        /// `tidegate.report.lifetime`: the lifetime in seconds.
        lifetime: u32,
        /// `tidegate.report.count`: the number of reports that the token permits.
        count: u32,
        /// The asker.
        asker: Asker,
    },
    /// An exception is in force from now on.
    ExceptionGranted(Box<ExceptionFacts>),
    /// An exception has ended at its time.
    ExceptionExpired(Box<ExceptionFacts>),
    /// An exception was ended before its time.
    ExceptionRevoked(Box<ExceptionFacts>),
    /// A flow that requires approval filed a request.
    ApprovalRequested(Box<ApprovalFacts>),
    /// A request for approval was allowed, denied or timed out, or an approval was revoked.
    ApprovalSettled(Box<ApprovalFacts>),
    /// A hook reported that a tool call began.
    ToolCallStarted(Box<CallFacts>),
    /// A hook reported that a tool call ended.
    ToolCallEnded(Box<CallFacts>),
    /// No session was started: the working copy contradicts its pin.
    SessionRefused(Box<SessionFacts>),
}
