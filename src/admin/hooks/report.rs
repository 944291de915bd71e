//! What a hook of Claude Code tells, parsed.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::identity::{Place, WebAddress};

use super::super::sessions::Refused;

/// Bytes of an id.
const MAX_ID: usize = 200;

/// What a hook tells; the other fields of its JSON are not read.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    pub(super) session_id: String,
    pub(super) hook_event_name: String,
    pub(super) permission_mode: Option<String>,
    pub(super) prompt_id: Option<String>,
    pub(super) agent_id: Option<String>,
    pub(super) parent_agent_id: Option<String>,
    pub(super) tool_name: Option<String>,
    pub(super) tool_use_id: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) source: Option<String>,
    #[serde(default)]
    tool_input: Value,
}

/// What the command of a hook has to know of a report that the gate read in its stead.
#[derive(Debug, Serialize)]
pub(super) struct Excerpt<'a> {
    session_id: &'a str,
    hook_event_name: &'a str,
    permission_mode: Option<&'a str>,
    cwd: Option<&'a str>,
    source: Option<&'a str>,
}

impl Report {
    /// Reads a body, which has to be one JSON object and nothing else.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refused> {
        let report: Self =
            serde_json::from_slice(body).map_err(|_| wrong("the body is no JSON of a hook"))?;
        let ids = [
            Some(&report.session_id),
            Some(&report.hook_event_name),
            report.permission_mode.as_ref(),
            report.prompt_id.as_ref(),
            report.agent_id.as_ref(),
            report.parent_agent_id.as_ref(),
            report.tool_name.as_ref(),
            report.tool_use_id.as_ref(),
            report.source.as_ref(),
        ];
        let sound = |id: &String| {
            id.len() <= MAX_ID && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !ids.into_iter().flatten().all(sound) {
            return Err(wrong(
                "an id in the report is empty, has more than 200 bytes, or is not printable ASCII",
            ));
        }
        Ok(report)
    }

    /// What the command of the hook acts on.
    pub(super) fn excerpt(&self) -> Excerpt<'_> {
        Excerpt {
            session_id: &self.session_id,
            hook_event_name: &self.hook_event_name,
            permission_mode: self.permission_mode.as_deref(),
            cwd: self.cwd.as_deref(),
            source: self.source.as_deref(),
        }
    }

    /// Whether a session of the agent begins, or goes on under another id.
    pub(super) fn starts_session(&self) -> bool {
        self.hook_event_name == "SessionStart"
    }

    /// Where the flows of the tool come from; `None` where the tool reaches no network.
    pub(super) fn place(&self) -> Option<Place> {
        Place::of_tool(self.tool_name.as_deref()?)
    }

    /// The command of a shell.
    pub(super) fn command(&self) -> Option<&str> {
        self.tool_input.get("command").and_then(Value::as_str)
    }

    /// The page that is fetched.
    pub(super) fn page(&self) -> Option<WebAddress> {
        let text = self.tool_input.get("url").and_then(Value::as_str)?;
        WebAddress::parse(text)
    }
}

/// Why a report is not taken: its body is wrong.
pub(super) fn wrong(detail: &str) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}
