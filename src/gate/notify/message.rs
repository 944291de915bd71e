//! The message of a notifier: JSON, a text for Slack, and a text for the desktop.
//!
//! Text that an agent or a third party wrote is in `untrusted` of the JSON, and marked in the
//! texts. It is on one line, without control characters and at most [`MAX_TEXT`] characters.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::config::{Notifier, REQUEST};
use crate::diag::clean;

use super::super::approvals::{Request, RequestView, Untrusted};
use super::MAX_LISTED;

/// Characters of a text of an agent in a message, at most.
const MAX_TEXT: usize = 200;
/// Requests in a desktop notification, at most.
const MAX_SHOWN: usize = 3;

/// A message about new requests for approval.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// The version of this form: 1.
    pub version: u32,
    /// The event: `approval_requested`.
    pub event: &'static str,
    /// The id of the message; the same for each attempt to deliver it.
    pub id: Uuid,
    /// When the message was made.
    pub at: Timestamp,
    /// The name in `[notify.NAME]`.
    pub notifier: Arc<str>,
    /// The new requests, at most [`MAX_LISTED`]: the first of each caller, then the second of each.
    pub requests: Vec<ListedRequest>,
    /// The number of further new requests.
    pub more: usize,
    /// The number of requests that wait for a reviewer, the new ones among them.
    pub open: usize,
}

/// A request in a message.
#[derive(Clone, Debug, Serialize)]
pub struct ListedRequest {
    /// The request, as `GET /v1/approvals/ID` shows it.
    #[serde(flatten)]
    pub request: RequestView,
    /// How a reviewer settles the request.
    pub settle: Settle,
}

/// How a reviewer settles a request.
#[derive(Clone, Debug, Serialize)]
pub struct Settle {
    /// The command that shows the request together with the commands that settle it.
    pub command: String,
    /// `link` of the notifier, for this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Message {
    /// The message about new requests; `open` of all requests wait.
    pub(super) fn of(notifier: &Notifier, new: &[Request], open: usize, at: Timestamp) -> Self {
        let listed = in_turn(new).into_iter().take(MAX_LISTED);
        let listed: Vec<ListedRequest> = listed.map(|it| ListedRequest::of(notifier, it)).collect();
        Self {
            version: 1,
            event: "approval_requested",
            id: Uuid::now_v7(),
            at,
            notifier: notifier.name.clone(),
            more: new.len() - listed.len(),
            requests: listed,
            open,
        }
    }

    /// The message as JSON.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The message for an incoming webhook of Slack.
    pub(super) fn slack(&self) -> Vec<u8> {
        let mut text = format!("*tidegate: {}*\n", self.headline());
        for it in &self.requests {
            let request = &it.request;
            let _ = writeln!(
                text,
                "• {} {}",
                code(&target(request)),
                code(&facts(request))
            );
            let written = written(&request.untrusted);
            let _ = writeln!(
                text,
                "  written by the agent, not verified: {}",
                code(&written)
            );
            let link = it.settle.link.as_deref();
            let link = link.map_or_else(String::new, |link| format!(" or <{link}|settle it>"));
            let _ = writeln!(text, "  {}{link}", code(&it.settle.command));
        }
        let body = json!({ "text": text, "unfurl_links": false, "unfurl_media": false });
        body.to_string().into_bytes()
    }

    /// The title and the text of a notification on the desktop.
    pub(super) fn desktop(&self) -> (String, String) {
        let mut text = String::new();
        for it in self.requests.iter().take(MAX_SHOWN) {
            let request = &it.request;
            let _ = writeln!(
                text,
                "{} {}\nthe agent wrote: {}\n{}",
                escaped(&target(request)),
                escaped(&facts(request)),
                escaped(&written(&request.untrusted)),
                escaped(&it.settle.command),
            );
        }
        (format!("tidegate: {}", self.headline()), text)
    }

    fn headline(&self) -> String {
        match self.requests.len() + self.more {
            1 => format!("1 new request for approval, {} open", self.open),
            new => format!("{new} new requests for approval, {} open", self.open),
        }
    }
}

impl ListedRequest {
    fn of(notifier: &Notifier, request: &Request) -> Self {
        let id = request.id.to_string();
        let link = notifier.link.as_deref();
        let view = request.view();
        Self {
            request: RequestView {
                untrusted: bounded(&view.untrusted),
                ..view
            },
            settle: Settle {
                command: format!("tidegate approve show {id}"),
                link: link.map(|link| link.replace(REQUEST, &id)),
            },
        }
    }
}

/// The first request of each caller, then the second of each, and so on.
fn in_turn(requests: &[Request]) -> Vec<&Request> {
    let mut counts: HashMap<_, usize> = HashMap::new();
    let mut all: Vec<(usize, &Request)> = Vec::new();
    for request in requests {
        let count = counts.entry(&request.key.caller).or_default();
        *count += 1;
        all.push((*count, request));
    }
    all.sort_by_key(|(count, _)| *count);
    all.into_iter().map(|(_, request)| request).collect()
}

fn bounded(text: &Untrusted) -> Untrusted {
    let shared = |text: &Option<Arc<str>>| text.as_deref().map(|it| clean(it, MAX_TEXT).into());
    let owned = |text: &Option<Box<str>>| text.as_deref().map(|it| clean(it, MAX_TEXT).into());
    Untrusted {
        operation: clean(&text.operation, MAX_TEXT).into(),
        tool: shared(&text.tool),
        command: owned(&text.command),
        reason: owned(&text.reason),
        branch: shared(&text.branch),
    }
}

fn target(request: &RequestView) -> String {
    format!("{}:{}", request.host, request.port)
}

/// Formats the tier, caller, repository, attempts and time-out of a request.
fn facts(request: &RequestView) -> String {
    let tier = request.tier.as_deref().unwrap_or_default();
    let caller = &request.caller;
    let repository = request.repository.as_ref();
    let repository = repository.map_or_else(String::new, |it| {
        format!(", repository {} ({})", clean(&it.name, MAX_TEXT), it.trust)
    });
    format!(
        "tier {tier}, {} {}{repository}, {} attempts, times out {}",
        caller.bound_by,
        clean(&caller.bound_to, MAX_TEXT),
        request.count,
        request.expires.strftime("%H:%M UTC"),
    )
}

/// Formats the untrusted text of a request, on one line.
fn written(text: &Untrusted) -> String {
    let mut all = format!("operation {}", text.operation);
    let parts = [
        ("tool", text.tool.as_deref()),
        ("command", text.command.as_deref()),
        ("reason", text.reason.as_deref()),
        ("branch", text.branch.as_deref()),
    ];
    for (name, part) in parts {
        if let Some(part) = part {
            let _ = write!(all, "; {name} {part}");
        }
    }
    clean(&all, 2 * MAX_TEXT)
}

/// Escapes the characters that Slack and desktops read as markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A text as code: no link, no name and no markup in it has an effect.
fn code(text: &str) -> String {
    format!("`{}`", escaped(text).replace('`', "'"))
}
