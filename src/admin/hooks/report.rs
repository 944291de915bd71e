//! Parses the report of an agent's hook.
//!
//! Claude Code and Codex report in one form. Gemini CLI has other names for its events and gives
//! its calls no id: a call is identified by its tool and input. Copilot CLI, with its names of events
//! in capitals, and the plugin for opencode (`opencode.mjs`) report in the form of Claude Code;
//! Copilot CLI gives its calls no id either.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::identity::{Place, WebAddress};

use super::super::sessions::Refused;

/// Bytes of an id, at most.
const MAX_ID: usize = 200;

/// The kind of an event; each agent has its own names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EventKind {
    /// A session begins, or continues with another id.
    SessionStart,
    /// The user's next prompt.
    Prompt,
    /// A tool is about to be used.
    BeforeTool,
    /// A tool was used, or failed.
    AfterTool,
    /// Anything else.
    Other,
}

impl EventKind {
    fn of(name: &str) -> Self {
        match name {
            "SessionStart" => Self::SessionStart,
            "UserPromptSubmit" | "BeforeAgent" => Self::Prompt,
            "PreToolUse" | "BeforeTool" => Self::BeforeTool,
            "PostToolUse" | "PostToolUseFailure" | "AfterTool" => Self::AfterTool,
            _ => Self::Other,
        }
    }

    /// Whether the model reads the answer to the event.
    pub(super) fn is_read(self) -> bool {
        matches!(self, Self::SessionStart | Self::Prompt | Self::AfterTool)
    }
}

/// The report of a hook; other fields of its JSON are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    pub(super) session_id: String,
    pub(super) hook_event_name: String,
    pub(super) permission_mode: Option<String>,
    pub(super) prompt_id: Option<String>,
    /// Codex's name for `prompt_id`.
    turn_id: Option<String>,
    pub(super) agent_id: Option<String>,
    pub(super) parent_agent_id: Option<String>,
    pub(super) tool_name: Option<String>,
    pub(super) tool_use_id: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) source: Option<String>,
    /// Why a session ends: `clear`, `resume`, `logout` …
    reason: Option<String>,
    /// Whether the agent shows its model only the error of the tool, without the answer to the
    /// hook.
    #[serde(default)]
    pub(super) shows_error_only: bool,
    #[serde(default)]
    tool_input: Value,
}

/// The fields that the hook command needs from a report that the gate read in its stead.
#[derive(Debug, Serialize)]
pub(super) struct Excerpt<'a> {
    session_id: &'a str,
    hook_event_name: &'a str,
    permission_mode: Option<&'a str>,
    cwd: Option<&'a str>,
    source: Option<&'a str>,
    reason: Option<&'a str>,
}

impl Report {
    /// Parses a body, which must be one JSON object and nothing else.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refused> {
        let report: Self = serde_json::from_slice(body)
            .map_err(|_| wrong("the body must be the JSON report of a hook"))?;
        let ids = [
            Some(&report.session_id),
            Some(&report.hook_event_name),
            report.permission_mode.as_ref(),
            report.prompt_id.as_ref(),
            report.turn_id.as_ref(),
            report.agent_id.as_ref(),
            report.parent_agent_id.as_ref(),
            report.tool_name.as_ref(),
            report.tool_use_id.as_ref(),
            report.source.as_ref(),
            report.reason.as_ref(),
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

    /// The fields that the hook command needs.
    pub(super) fn excerpt(&self) -> Excerpt<'_> {
        Excerpt {
            session_id: &self.session_id,
            hook_event_name: &self.hook_event_name,
            permission_mode: self.permission_mode.as_deref(),
            cwd: self.cwd.as_deref(),
            source: self.source.as_deref(),
            reason: self.reason.as_deref(),
        }
    }

    /// The kind of the event.
    pub(super) fn event(&self) -> EventKind {
        EventKind::of(&self.hook_event_name)
    }

    /// Whether a session of the agent begins, or continues with another id.
    pub(super) fn starts_session(&self) -> bool {
        self.event() == EventKind::SessionStart
    }

    /// Whether the report says which session of the agent goes on. A forked conversation has another
    /// id than its `SessionStart` named.
    pub(super) fn names_session(&self) -> bool {
        let is_prompt = self.event() == EventKind::Prompt && self.agent_id.is_none();
        self.starts_session() || is_prompt
    }

    /// The prompt that the call belongs to.
    pub(super) fn prompt(&self) -> Option<&str> {
        self.prompt_id.as_deref().or(self.turn_id.as_deref())
    }

    /// Identifies a call without an id: a hash of its tool and input.
    pub(super) fn handle(&self) -> Option<String> {
        if self.tool_use_id.is_some() {
            return None;
        }
        let input = ["command", "url", "prompt"].map(|field| self.input(field));
        let text = format!("{:?}", (self.tool_name.as_deref(), input));
        Some(HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref()))
    }

    fn input(&self, field: &str) -> Option<&str> {
        self.tool_input.get(field).and_then(Value::as_str)
    }

    /// The origin of the tool's flows; `None` if the tool reaches no network.
    pub(super) fn place(&self) -> Option<Place> {
        Place::of_tool(self.tool_name.as_deref()?)
    }

    /// The command of a shell tool.
    pub(super) fn command(&self) -> Option<&str> {
        self.input("command")
    }

    /// The page that the tool fetches.
    pub(super) fn page(&self) -> Option<WebAddress> {
        match self.input("url") {
            Some(url) => WebAddress::parse(url),
            None => only_page(self.input("prompt")?),
        }
    }
}

/// The only page in a text; `None` if the text names several, or none.
fn only_page(text: &str) -> Option<WebAddress> {
    let words = text.split(|letter: char| letter.is_whitespace() || "<>\"'`()[]".contains(letter));
    let urls = words.filter(|word| word.starts_with("https://") || word.starts_with("http://"));
    let mut urls = urls.map(|url| url.trim_end_matches(['.', ',', ';', ':', '?', '!']));
    let page = urls.next()?;
    urls.next().is_none().then(|| WebAddress::parse(page))?
}

/// The refusal of a report with an invalid body.
pub(super) fn wrong(detail: &str) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        Report::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn events_of_several_agents_are_the_same_events() {
        for (name, kind) in [
            ("BeforeTool", EventKind::BeforeTool),
            ("PreToolUse", EventKind::BeforeTool),
            ("AfterTool", EventKind::AfterTool),
            ("PostToolUseFailure", EventKind::AfterTool),
            ("BeforeAgent", EventKind::Prompt),
            ("AfterModel", EventKind::Other),
        ] {
            assert_eq!(EventKind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn a_call_without_an_id_is_told_from_others_by_its_input() {
        let of = |event: &str, command: &str| {
            let text = format!(
                r#"{{"session_id":"s","hook_event_name":"{event}","tool_name":"run_shell_command",
                    "tool_input":{{"command":"{command}"}}}}"#
            );
            report(&text).handle().unwrap()
        };
        assert_eq!(of("BeforeTool", "make"), of("AfterTool", "make"));
        assert_ne!(of("BeforeTool", "make"), of("BeforeTool", "make test"));
        let named = r#"{"session_id":"s","hook_event_name":"PreToolUse","tool_use_id":"t"}"#;
        assert_eq!(report(named).handle(), None);
    }

    #[test]
    fn a_page_is_the_only_one_that_a_prompt_names() {
        let host = |text: &str| Some(only_page(text)?.host.to_string());
        assert_eq!(
            host("What is at https://docs.example.com/a?").as_deref(),
            Some("docs.example.com")
        );
        assert_eq!(host("https://a.example and https://b.example"), None);
        assert_eq!(host("nothing"), None);
    }
}
