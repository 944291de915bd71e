//! Refusals: the closed list of codes, and the response that carries a code to the client.
//!
//! No client shows the body of a refused CONNECT. Many show the HTTP/1.1 reason phrase, some only
//! the status, and coding agents recognise two headers. Each refusal therefore contains all of them
//! (RFC 9209 `Proxy-Status`, RFC 9457 problem details).

use std::fmt::Write;

use serde::Serialize;
use uuid::Uuid;

use crate::gate::Cut;
use crate::name::Target;
use crate::policy::Reason;
use crate::record::{Blame, FlowFacts};

macro_rules! codes {
    ($($name:ident $code:literal $status:literal $proxy_status:literal $blame:ident
       $sentence:literal $next:literal;)*) => {
        /// A reason to refuse or end a flow. Each has a code, a status, a sentence and a next step.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Code { $(#[doc = $sentence] $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code, as in records, metrics, refusals and the manual.
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $code,)* } }

            /// The HTTP status (RFC 9110 section 15); 0 where the tunnel is closed instead.
            pub fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }

            /// The error type of RFC 9209 section 2.3.
            pub fn proxy_status(self) -> &'static str { match self { $(Self::$name => $proxy_status,)* } }

            /// The party that caused it.
            pub fn blame(self) -> Blame { match self { $(Self::$name => Blame::$blame,)* } }

            /// What happened, in one sentence.
            pub fn sentence(self) -> &'static str { match self { $(Self::$name => $sentence,)* } }

            /// What to do next.
            pub fn next_step(self) -> &'static str { match self { $(Self::$name => $next,)* } }
        }

        /// The values of `tidegate_decisions_total{reason}`: `allowed`, then every code.
        pub const REASONS: &[&str] = &["allowed", $($code,)*];
    };
}

codes! {
    ActionDenied "action_denied" 403 "http_request_denied" Policy
        "What the request does is not allowed at this destination."
        "Ask for a rule that allows the action, or use a read-only form of the request.";
    AddressDenied "address_denied" 403 "destination_ip_prohibited" Policy
        "The destination is, or resolves to, an address that is not reachable from here."
        "If it is an internal service, name its network in `addresses` of the rule that allows it.";
    ApprovalRefused "approval_refused" 403 "http_request_denied" Policy
        "A reviewer denied this destination to this caller."
        "Do without it; the people who settle such requests decided.";
    ApprovalTimedOut "approval_timed_out" 403 "http_request_denied" Policy
        "A person has to approve this destination first, and no reviewer answered in time."
        "The request stays open: follow it with `tidegate request` or at http://tidegate.internal/v1/requests; try again when it is allowed.";
    BadClientHello "bad_client_hello" 0 "tls_protocol_error" Client
        "TLS in the tunnel does not begin with a well-formed hello."
        "Send a hello as RFC 8446 writes it; the detail says what is wrong with this one.";
    BadPath "bad_path" 400 "http_request_error" Client
        "The path is not in canonical form."
        "Send the path without dot segments, empty segments, backslashes or needless escapes.";
    BadRequest "bad_request" 400 "http_request_error" Client
        "The request is not well-formed HTTP/1.1."
        "Send one well-formed request; use CONNECT for https.";
    BadResponse "bad_response" 502 "http_response_incomplete" Upstream
        "The destination is allowed but its answer cannot be passed on."
        "Tell the operator of the service: the detail says what is wrong with its answer.";
    BadTarget "bad_target" 400 "http_request_error" Client
        "The destination is not a canonical host and port."
        "Send a plain host name or address with a port from 1 to 65535.";
    CategoryDenied "category_denied" 403 "http_request_denied" Policy
        "The tier denies this category of destination."
        "Do without it; this repository's tier is set by its operator.";
    ConnectFailed "connect_failed" 502 "connection_refused" Upstream
        "The destination is allowed but did not accept a connection."
        "Check that the service is up; the policy is not the cause.";
    ConnectTimeout "connect_timeout" 504 "connection_timeout" Upstream
        "The destination is allowed but did not answer in time."
        "Try again later; the policy is not the cause.";
    CredentialDenied "credential_denied" 403 "http_request_denied" Policy
        "The credential of the request is not one that may be used at this destination."
        "Use the credential that was issued for this work, or none.";
    Denied "denied" 403 "http_request_denied" Policy
        "A rule denies this destination."
        "Do without it; a deny rule is a decision of the policy's owners.";
    DnsFailed "dns_failed" 502 "dns_error" Upstream
        "The name is allowed but could not be resolved."
        "Check the spelling of the host and the resolver of the proxy.";
    Draining "draining" 503 "proxy_internal_response" Proxy
        "The proxy is shutting down and takes no new flows."
        "Try again when it is back.";
    EchDenied "ech_denied" 0 "tls_protocol_error" Policy
        "TLS in the tunnel may hide its true server name (encrypted client hello)."
        "Turn encrypted client hello off in the client, or have the tier say `ech = \"allow\"`.";
    ExceptionEnded "exception_ended" 0 "connection_terminated" Policy
        "The exception that let this flow pass has ended."
        "Ask a reviewer for another exception, or for a rule.";
    ExceptionSpent "exception_spent" 403 "http_request_denied" Policy
        "The budget of the exception that would let this flow pass is spent."
        "Ask a reviewer for another exception, or for a rule.";
    HostMismatch "host_mismatch" 421 "http_request_error" Client
        "The host of the request is not the host of its tunnel."
        "Open a connection of its own to that host.";
    IdentityInvalid "identity_invalid" 407 "http_request_denied" Client
        "The proxy credential is not valid."
        "Set the proxy URL with the right user and secret.";
    IdentityRequired "identity_required" 407 "http_request_denied" Client
        "This proxy wants to know who is asking."
        "Set the proxy URL with a user and secret: http://USER:SECRET@HOST:PORT.";
    Idle "idle" 0 "connection_terminated" Proxy
        "Nothing moved for as long as a flow may rest."
        "Open it again; the bound is `limits.idle`.";
    InspectUnavailable "inspect_unavailable" 503 "proxy_internal_error" Proxy
        "The policy inspects this destination, and there is no certificate for it to do so."
        "Tell the operator: run `tidegate ca rotate` and `tidegate ca install`, or allow it by a rule with `inspect = false`.";
    Limit "limit" 0 "connection_limit_reached" Client
        "The first bytes of the tunnel are larger than any TLS handshake."
        "Send a TLS ClientHello of at most 64 KiB.";
    McpToolDenied "mcp_tool_denied" 403 "http_request_denied" Policy
        "No rule allows this tool or method of the MCP server."
        "Use another tool of the server, or ask for a rule that names this one.";
    NeedsApproval "needs_approval" 403 "http_request_denied" Policy
        "A person has to approve this destination first."
        "Follow the request with `tidegate request` or at http://tidegate.internal/v1/requests; try again when a reviewer has allowed it.";
    NotAllowed "not_allowed" 403 "http_request_denied" Policy
        "No rule allows this destination."
        "If it should be allowed, ask for a rule in the policy.";
    NotTls "not_tls" 0 "tls_protocol_error" Client
        "The tunnel does not begin with TLS."
        "Use TLS, or have the rule say `raw = true`.";
    PackageTooNew "package_too_new" 403 "http_request_denied" Policy
        "This version of the package is not as old as it has to be, or its age is not known."
        "Use an older version; this one may pass when it is old enough.";
    ParentFailed "parent_failed" 502 "destination_unavailable" Upstream
        "The destination is allowed but the parent proxy did not lead there."
        "Tell the operator: the parent proxy refuses, or cannot be reached.";
    PortDenied "port_denied" 403 "http_request_denied" Policy
        "The host is allowed, but not at this port."
        "Use the port that the rule names: 443 for https, 80 for http unless it says more.";
    RateLimited "rate_limited" 429 "connection_limit_reached" Client
        "This caller asks more often than it may."
        "Stop asking for what is refused; wait before the next try. The bounds are in `[limits]`.";
    RecordUnavailable "record_unavailable" 503 "proxy_internal_error" Proxy
        "The decision cannot be recorded, so nothing may pass."
        "Tell the operator: the record file cannot be written or does not keep up.";
    Revoked "revoked" 0 "connection_terminated" Policy
        "The policy changed and no longer lets this flow pass."
        "See what the policy allows now.";
    SniMismatch "sni_mismatch" 0 "tls_protocol_error" Client
        "The name inside the tunnel is not the name that was asked for."
        "Ask for the host that TLS is going to name.";
    SniMissing "sni_missing" 0 "tls_protocol_error" Client
        "TLS in the tunnel names no server."
        "Use a client that sends SNI, or have the rule say `raw = true`.";
    TlsFailed "tls_failed" 502 "tls_certificate_error" Upstream
        "The destination is allowed but there is no TLS with it."
        "Look at the certificates that the detail names; the policy is not the cause.";
    TooManyFlows "too_many_flows" 429 "connection_limit_reached" Client
        "Too many flows are open at once."
        "Close some, or try again in a moment.";
}

impl Code {
    /// The index in [`REASONS`].
    pub fn index(self) -> usize {
        self as usize + 1
    }

    /// The name of the reason in Anthropic's hosted sessions (`X-Deny-Reason`).
    fn deny_reason(self) -> &'static str {
        match self {
            Self::ApprovalRefused
            | Self::ApprovalTimedOut
            | Self::CategoryDenied
            | Self::Denied
            | Self::NeedsApproval
            | Self::NotAllowed => "host_not_allowed",
            other => other.as_str(),
        }
    }
}

impl From<Reason> for Code {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::ActionDenied => Self::ActionDenied,
            Reason::AddressDenied => Self::AddressDenied,
            Reason::BadPath => Self::BadPath,
            Reason::CategoryDenied => Self::CategoryDenied,
            Reason::CredentialDenied => Self::CredentialDenied,
            Reason::Denied => Self::Denied,
            Reason::ExceptionSpent => Self::ExceptionSpent,
            Reason::McpToolDenied => Self::McpToolDenied,
            Reason::NeedsApproval => Self::NeedsApproval,
            // `Allowed` never becomes a refusal; if it did, refusing would be the safe side.
            Reason::Allowed | Reason::NotAllowed => Self::NotAllowed,
            Reason::PackageTooNew => Self::PackageTooNew,
            Reason::PortDenied => Self::PortDenied,
        }
    }
}

/// One refusal: the code, with the details of this flow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// Details of this flow, at most 160 characters; never text that a peer chose.
    pub detail: Box<str>,
    /// `error.type` of the record, if more precise than the code.
    pub(super) exact: Option<&'static str>,
    /// A status that differs from the code's: for malformed requests (405, 417, 431, 501, 505), or
    /// for a reason that usually closes a tunnel.
    own_status: Option<u16>,
    /// The JSON-RPC error that the agent reads, where an MCP message was refused.
    message: Option<Box<[u8]>>,
    /// The operator's contact text, of refusals by the policy.
    contact: Box<str>,
}

impl Refusal {
    /// A refusal with a detail.
    pub fn because(code: Code, detail: impl Into<Box<str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            exact: None,
            own_status: None,
            message: None,
            contact: Box::default(),
        }
    }

    /// A malformed request for which HTTP has a status of its own.
    pub fn malformed(status: u16, detail: impl Into<Box<str>>) -> Self {
        Self {
            code: Code::BadRequest,
            detail: detail.into(),
            exact: None,
            own_status: Some(status),
            message: None,
            contact: Box::default(),
        }
    }

    /// A flow that was cut before any byte of its answer was sent.
    pub fn cut(why: Cut) -> Self {
        match why {
            Cut::Drain => Code::Draining.into(),
            Cut::ExceptionEnded => Self {
                own_status: Some(403),
                ..Code::ExceptionEnded.into()
            },
            Cut::ExceptionSpent => Code::ExceptionSpent.into(),
            Cut::Revoke => Self {
                own_status: Some(403),
                ..Code::Revoked.into()
            },
        }
    }

    /// A refusal of an MCP message, in the form of its protocol: the JSON-RPC answer to the
    /// message, with status 200.
    #[must_use]
    pub(super) fn in_message(self, message: Vec<u8>) -> Self {
        Self {
            own_status: Some(200),
            message: Some(message.into()),
            ..self
        }
    }

    /// Adds the operator's contact text.
    #[must_use]
    pub(super) fn with_contact(self, contact: String) -> Self {
        Self {
            contact: contact.into(),
            ..self
        }
    }

    /// Replaces the code.
    #[must_use]
    pub(super) fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// Sets the detail.
    #[must_use]
    pub(super) fn with_detail(self, detail: impl Into<Box<str>>) -> Self {
        Self {
            detail: detail.into(),
            ..self
        }
    }

    /// Sets a more precise `error.type`, from a closed list.
    #[must_use]
    pub(super) fn exactly(self, word: &'static str) -> Self {
        Self {
            exact: Some(word),
            ..self
        }
    }

    /// The status of the response.
    pub fn status(&self) -> u16 {
        self.own_status.unwrap_or(self.code.status())
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self {
            code,
            detail: Box::default(),
            exact: None,
            own_status: None,
            message: None,
            contact: Box::default(),
        }
    }
}

/// The host of the gate's own pages.
const OWN_NAME: &str = "tidegate.internal";

/// Encodes the whole response: status line, header fields, problem document.
pub(super) fn response(
    refusal: &Refusal,
    facts: &FlowFacts,
    target: Option<&Target>,
    close: bool,
    head_only: bool,
) -> Vec<u8> {
    let code = refusal.code;
    let body = match &refusal.message {
        Some(message) => String::from_utf8_lossy(message).into_owned(),
        None => document(refusal, facts, target),
    };
    let kind = match &refusal.message {
        Some(_) => "application/json",
        None => "application/problem+json",
    };
    let mut text = String::with_capacity(1024 + body.len());
    let _ = write!(
        text,
        "HTTP/1.1 {} {}\r\n\
         Content-Type: {kind}\r\n\
         Content-Length: {}\r\n\
         Proxy-Status: tidegate; error={}; details=\"{}\"\r\n",
        refusal.status(),
        phrase(refusal, target, facts.flow),
        body.len(),
        code.proxy_status(),
        code.as_str(),
    );
    if code.blame() == Blame::Policy {
        let _ = write!(
            text,
            "X-Deny-Reason: {}\r\nX-Proxy-Error: blocked-by-allowlist\r\n",
            code.deny_reason()
        );
    }
    if code.status() == 407 {
        text.push_str("Proxy-Authenticate: Basic realm=\"tidegate\", charset=\"UTF-8\"\r\n");
    }
    if matches!(code.status(), 429 | 503) {
        text.push_str("Retry-After: 5\r\n");
    }
    let _ = write!(
        text,
        "X-Tidegate-Flow: {}\r\nVia: 1.1 tidegate\r\nCache-Control: no-store\r\n",
        facts.flow
    );
    if let Some(request) = facts.request {
        let _ = write!(text, "X-Tidegate-Request: {request}\r\n");
    }
    if close {
        text.push_str("Connection: close\r\n");
    }
    text.push_str("\r\n");
    if !head_only {
        text.push_str(&body);
    }
    text.into_bytes()
}

/// The reason phrase, at most 160 ASCII characters.
fn phrase(refusal: &Refusal, target: Option<&Target>, flow: Uuid) -> String {
    let code = refusal.code;
    let flow = flow.hyphenated().to_string();
    let short = flow.rsplit('-').next().unwrap_or_default();
    if code == Code::PackageTooNew && !refusal.detail.is_empty() {
        // Installers must show the version and its age; they have the target already.
        let tail = format!(" (tidegate explain {short})");
        let text = format!("tidegate denied {}: {}", code.as_str(), refusal.detail);
        let plain = |letter: &char| letter.is_ascii_graphic() || *letter == ' ';
        let text = text.chars().filter(plain).take(160 - tail.len());
        return text.chain(tail.chars()).collect();
    }
    let verb = if code.status() >= 500 {
        "failed"
    } else {
        "denied"
    };
    let tail = format!(" {} (flow {flow}; tidegate explain {short})", code.as_str());
    let mut text = format!("tidegate {verb}");
    if let Some(target) = target {
        let target = target.to_string();
        let room = 160_usize.saturating_sub(text.len() + 1 + tail.len());
        text.push(' ');
        text.push_str(&last(&target, room));
    }
    text + &tail
}

/// Keeps the end of a long name, which shows its owner; an unknown party may have chosen the start.
fn last(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let from = text.len() - room.saturating_sub(3).min(text.len());
    format!("...{}", text.get(from..).unwrap_or_default())
}

#[derive(Serialize)]
struct Document<'a> {
    error: &'static str,
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    flow: Uuid,
    request: Request,
}

/// The next steps for a person.
#[derive(Serialize)]
struct Request {
    cli: String,
    /// The id of a request for approval, and the URL where the caller can follow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
}

fn document(refusal: &Refusal, facts: &FlowFacts, target: Option<&Target>) -> String {
    let code = refusal.code;
    let document = Document {
        error: code.as_str(),
        r#type: format!("urn:tidegate:refusal:{}", code.as_str()),
        title: code.sentence(),
        status: refusal.status(),
        detail: detail(refusal),
        host: target.map(|target| target.host.to_string()),
        port: target.map(|target| target.port),
        category: facts.category.map(crate::policy::Category::as_str),
        tier: facts.tier.as_deref(),
        rule: facts.rule.as_deref(),
        flow: facts.flow,
        request: Request {
            cli: facts.request.map_or_else(
                || facts.explain(),
                |id| format!("tidegate request show {id}"),
            ),
            id: facts.request,
            http: facts
                .request
                .map(|id| format!("http://{OWN_NAME}/v1/requests/{id}")),
        },
    };
    serde_json::to_string(&document).unwrap_or_default() + "\n"
}

/// The refusal inside a message to an agent: a sentence that names the rule, and the same facts as
/// data.
pub(super) fn said(refusal: &Refusal, facts: &FlowFacts) -> (String, serde_json::Value) {
    let rule = facts.rule.as_deref().unwrap_or("-");
    let sentence = format!("tidegate: rule {rule}: {}", detail(refusal));
    let data = serde_json::json!({
        "error": refusal.code.as_str(),
        "rule": rule,
        "flow": facts.flow,
        "tier": facts.tier.as_deref(),
        "explain": facts.explain(),
    });
    (sentence, data)
}

fn detail(refusal: &Refusal) -> String {
    let code = refusal.code;
    let mut text = String::from(code.sentence());
    if !refusal.detail.is_empty() {
        let _ = write!(text, " ({})", refusal.detail);
    }
    let _ = write!(text, " {}", code.next_step());
    if !refusal.contact.is_empty() {
        let _ = write!(text, " {}", refusal.contact);
    }
    if code.blame() == Blame::Policy {
        text.push_str(
            " This is policy, not a network fault: do not retry, do not look for another way.",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> FlowFacts {
        FlowFacts {
            flow: Uuid::now_v7(),
            ..FlowFacts::default()
        }
    }

    #[test]
    fn a_reason_phrase_is_at_most_160_ascii_characters_and_keeps_the_end_of_the_name() {
        let name = format!("{}.evil.example:443", "a".repeat(60));
        let target = Target::from_connect(name.as_bytes()).unwrap();
        for code in Code::ALL {
            let phrase = phrase(&(*code).into(), Some(&target), facts().flow);
            assert!(phrase.len() <= 160 && phrase.is_ascii(), "{phrase}");
            assert!(phrase.contains("evil.example:443"), "{phrase}");
        }
    }

    #[test]
    fn the_phrase_for_a_young_package_says_which_and_how_old() {
        let why = "left-pad 1.3.1 was published 2 days ago; rule registry asks 7 days";
        let refusal = Refusal::because(Code::PackageTooNew, why);
        let text = phrase(&refusal, None, facts().flow);
        assert!(text.starts_with(&format!(
            "tidegate denied package_too_new: {why} (tidegate explain "
        )));
        let long = Refusal::because(Code::PackageTooNew, "a\r\n\u{e9}".repeat(200));
        let text = phrase(&long, None, facts().flow);
        assert!(text.len() == 160 && text.chars().all(|it| it == ' ' || it.is_ascii_graphic()));
    }

    #[test]
    fn a_policy_refusal_carries_every_carrier() {
        let target = Target::from_connect(b"cdn.example.net:443").unwrap();
        let facts = facts();
        let bytes = response(&Code::NotAllowed.into(), &facts, Some(&target), true, false);
        let text = String::from_utf8(bytes).unwrap();
        for part in [
            "HTTP/1.1 403 tidegate denied cdn.example.net:443 not_allowed (flow ",
            "Content-Type: application/problem+json\r\n",
            "Proxy-Status: tidegate; error=http_request_denied; details=\"not_allowed\"\r\n",
            "X-Deny-Reason: host_not_allowed\r\n",
            "X-Proxy-Error: blocked-by-allowlist\r\n",
            "Via: 1.1 tidegate\r\n",
            "Cache-Control: no-store\r\n",
            "Connection: close\r\n",
            "\"error\":\"not_allowed\"",
            "do not retry",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains(&format!("X-Tidegate-Flow: {}\r\n", facts.flow)));
    }

    #[test]
    fn a_fault_of_the_origin_does_not_look_like_policy() {
        let text = response(&Code::ConnectFailed.into(), &facts(), None, true, false);
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("HTTP/1.1 502 tidegate failed connect_failed"));
        assert!(!text.contains("X-Proxy-Error") && !text.contains("This is policy"));
    }

    #[test]
    fn codes_are_unique_and_indexed() {
        for (at, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.index(), at + 1);
            assert_eq!(REASONS[code.index()], code.as_str());
        }
        let unique: std::collections::HashSet<_> = REASONS.iter().collect();
        assert_eq!(unique.len(), REASONS.len());
    }
}
