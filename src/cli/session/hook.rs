//! `tidegate session hook`: the command of every hook of Claude Code, Codex, Copilot CLI and Gemini
//! CLI, and of the plugin for opencode.
//!
//! The hook reports the event to the gate and prints the gate's answer in the agent's form. At the
//! start of a session of Claude Code, and when it changes its folder, the hook also registers the
//! session for the agent's commands and writes their variables to `CLAUDE_ENV_FILE`. Commands of
//! the other agents inherit the variables of the agent.
//!
//! If possible, the gate itself reads the standard input of the hook: then only the agent can have
//! written the report. The hook never stops the agent: after any error it exits with 0. Commands
//! still use the proxy, which refuses an unidentified caller.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gate::SessionRequest;
use crate::identity::session_of_agent;
use crate::vcs;

use super::super::env::Proxy;
use super::super::{Answer, admin, print};
use super::{Door, Failure, block};

/// Maximum bytes of a hook's input, which contains the answer of a tool.
const MAX_REPORT: u64 = 16 << 20;
/// Time limit of a report, because an agent waits for its hook.
const REPORT_TIMEOUT: Duration = Duration::from_secs(4);
/// Time limit at the end of a session, where an agent waits 1.5 seconds.
const END_TIMEOUT: Duration = Duration::from_secs(1);
const REPORTS: &str = "/v1/hooks/claude-code";
const STDIN_REPORTS: &str = "/v1/hooks/claude-code/stdin";

/// The text for the model of an agent whose commands have the agent's own variables.
const CONTEXT: &str = "Commands reach the network through tidegate, which decides each connection \
    by policy. A refusal is policy, not a network fault: do not retry it, and do not look for \
    another way; say what you need.";

/// An agent with hooks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum HookAgent {
    ClaudeCode,
    Codex,
    Copilot,
    GeminiCli,
    Opencode,
}

impl HookAgent {
    /// Returns the name in records.
    fn name(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Copilot => "copilot",
            Self::GeminiCli => "gemini-cli",
            Self::Opencode => "opencode",
        }
    }

    /// Returns the gate's answer in the agent's form: Copilot CLI reads the text in another place.
    fn form(self, answer: Value) -> Value {
        if self != Self::Copilot {
            return answer;
        }
        match answer.pointer("/hookSpecificOutput/additionalContext") {
            Some(text) => json!({ "additionalContext": text }),
            None => answer,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Hook {
    /// The agent of the hook.
    #[arg(long, value_name = "NAME", default_value = "claude-code")]
    agent: HookAgent,
    /// The proxy, as commands reach it: http://HOST:PORT.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3128")]
    #[arg(env = "TIDEGATE_PROXY", value_parser = Proxy::parse_short)]
    proxy: Proxy,
    /// The file for the lines of the agent's commands.
    #[arg(long, env = "CLAUDE_ENV_FILE", value_name = "FILE", hide = true)]
    env_file: Option<String>,
    /// The process of the agent.
    #[arg(long, env = "CLAUDE_PID", value_name = "PID", hide = true)]
    pid: Option<String>,
    #[command(flatten)]
    door: Door,
}

/// The agent's report, with the fields that the gate needs.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    session_id: String,
    hook_event_name: String,
    cwd: Option<PathBuf>,
    permission_mode: Option<String>,
    source: Option<String>,
    reason: Option<String>,
    prompt_id: Option<String>,
    turn_id: Option<String>,
    agent_id: Option<String>,
    parent_agent_id: Option<String>,
    tool_name: Option<String>,
    tool_use_id: Option<String>,
    tool_input: Option<ToolInput>,
    #[serde(default)]
    shows_error_only: bool,
}

/// The response of a tool of Gemini CLI: of a failed tool the model reads only the error.
#[derive(Debug, Deserialize)]
struct GeminiReport {
    tool_response: Option<GeminiResponse>,
}

#[derive(Debug, Deserialize)]
struct GeminiResponse {
    error: Option<Value>,
}

/// The fields of a tool's input that distinguish its flows.
#[derive(Debug, Deserialize, Serialize)]
struct ToolInput {
    command: Option<Value>,
    url: Option<Value>,
    prompt: Option<Value>,
}

/// A report that the gate has read, with its answer.
#[derive(Debug, Deserialize)]
struct Taken {
    report: Report,
    answer: Value,
}

#[derive(Debug, Deserialize)]
struct Started {
    session: String,
    token: String,
    tier: String,
}

impl Hook {
    pub(super) fn perform(&self) -> Answer {
        match self.answer() {
            Ok(answer) if answer == json!({}) => {}
            Ok(answer) => print::json(&self.agent.form(answer)),
            Err(Trouble { failure, is_start }) => {
                let why = format!("tidegate: {}", failure.why);
                print::err(&format!("{why}\n"));
                // Printed once per session, not at each tool call.
                if is_start {
                    print::json(&json!({ "systemMessage": why }));
                }
            }
        }
        Answer::Yes
    }

    fn answer(&self) -> Result<Value, Trouble> {
        let launched = self.door.token().is_some();
        let taken = if launched { self.taken() } else { None };
        let (report, answer) = match taken {
            Some(Taken { report, answer }) => (report, Some(answer)),
            None => (self.told().map_err(Trouble::at_start)?, None),
        };
        let is_start = matches!(&*report.hook_event_name, "SessionStart" | "CwdChanged");
        let trouble = |failure| Trouble { failure, is_start };
        if report.hook_event_name == "SessionEnd" {
            // The agent goes on, and may go on with the variables of this session.
            if matches!(report.reason.as_deref(), Some("clear" | "resume")) {
                return Ok(json!({}));
            }
            return self.end(&report).map_err(trouble);
        }
        // Without a launcher, a session has to be registered before it can report.
        let context = if is_start {
            self.start(&report).map_err(trouble)?
        } else {
            None
        };
        let answer = match answer {
            Some(answer) => answer,
            None => self.post(&report).map_err(trouble)?,
        };
        Ok(joined(context, answer, &report.hook_event_name))
    }

    /// Reads the report from standard input.
    fn told(&self) -> Result<Report, Failure> {
        let mut text = String::new();
        let read = io::stdin().take(MAX_REPORT).read_to_string(&mut text);
        let report = read.ok().and_then(|_| serde_json::from_str(&text).ok());
        let mut report: Report = report.ok_or_else(|| {
            Failure::new(Answer::Wrong, "a hook needs JSON on its standard input")
        })?;
        if self.agent == HookAgent::GeminiCli {
            let response = serde_json::from_str::<GeminiReport>(&text).ok();
            let response = response.and_then(|it| it.tool_response);
            report.shows_error_only = response.is_some_and(|it| it.error.is_some());
        }
        // A subagent of Copilot CLI reports its own id as the session.
        if self.agent == HookAgent::Copilot && report.agent_id.as_ref() == Some(&report.session_id)
        {
            report.session_id = report.parent_agent_id.clone().unwrap_or_default();
        }
        Ok(report)
    }

    /// Lets the gate read the report from this process's standard input. `None` if the gate cannot
    /// verify that the agent wrote it, or no gate answers: the input is still unread then.
    fn taken(&self) -> Option<Taken> {
        let text = self.door.post(STDIN_REPORTS, &json!({}), REPORT_TIMEOUT);
        serde_json::from_str(&text.ok()?).ok()
    }

    fn post(&self, report: &Report) -> Result<Value, Failure> {
        let text = self.door.post(REPORTS, report, REPORT_TIMEOUT)?;
        serde_json::from_str(&text).map_err(|_| not_a_gate())
    }

    /// Registers the session for the agent's commands; returns the text for the model.
    fn start(&self, report: &Report) -> Result<Option<String>, Failure> {
        if self.agent != HookAgent::ClaudeCode {
            if self.door.token().is_none() {
                self.register(report)?;
            }
            return Ok(Some(CONTEXT.to_owned()));
        }
        let started = self.register(report);
        let (session, token) = match &started {
            Ok(started) => (&*started.session, Some(&*started.token)),
            Err(_) => (&*report.session_id, None),
        };
        self.write(session, &block::block(&self.proxy, session, token))?;
        let started = started?;
        if report.hook_event_name != "SessionStart" {
            return Ok(None);
        }
        Ok(Some(format!(
            "Commands reach the network through tidegate, which allows what the tier `{}` of this \
             repository allows. A refusal is policy, not a network fault: do not retry it, and do \
             not look for another way; say what you need.",
            print::clean(&started.tier, 64)
        )))
    }

    fn register(&self, report: &Report) -> Result<Started, Failure> {
        let copy = report.cwd.as_deref().map(vcs::working_copy);
        let copy = copy.unwrap_or_default();
        let request = SessionRequest {
            session: Some(self.session(report)),
            agent: Some(self.agent.name().to_owned()),
            repository: copy.repository,
            folder: report.cwd.as_deref().and_then(super::start::plain_folder),
            working_copy: true,
            r#ref: copy.branch,
            commit: copy.commit,
            permission_mode: report.permission_mode.clone(),
            channel: Some("bash".to_owned()),
            pid: self.pid.as_deref().and_then(|pid| pid.parse().ok()),
            ..SessionRequest::default()
        };
        let text = self.door.post("/v1/sessions", &request, admin::PATIENCE)?;
        serde_json::from_str(&text).map_err(|_| not_a_gate())
    }

    /// The session of the gate for that of the agent: opencode's ids are no UUIDs.
    fn session(&self, report: &Report) -> String {
        match self.agent {
            HookAgent::Opencode => session_of_agent(&report.session_id),
            _ => report.session_id.clone(),
        }
    }

    fn write(&self, session: &str, block: &str) -> Result<(), Failure> {
        let Some(path) = self.env_file.as_deref().filter(|path| !path.is_empty()) else {
            let why = "CLAUDE_ENV_FILE is not set: the agent's commands carry no session";
            return Err(Failure::new(Answer::Failed, why));
        };
        let path = Path::new(path);
        let failed = |error: io::Error| {
            let why = format!("{}: {error}", path.display());
            Failure::new(Answer::Failed, why)
        };
        block::write(path, block).map_err(failed)?;
        match block::file_of_session(path, session) {
            Some(other) if !block::is_of_another_gate(&other, &self.proxy) => {
                block::write(&other, block).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    /// The session of a launcher ends with the launcher, not here.
    fn end(&self, report: &Report) -> Result<Value, Failure> {
        let token = self.door.token();
        if token.is_some() && self.agent != HookAgent::ClaudeCode {
            return Ok(json!({}));
        }
        let launched = token.and_then(|token| self.proxy.in_session("main", token));
        let own = format!("//{}.", report.session_id);
        if launched.is_some_and(|proxy| proxy.url().contains(&own)) {
            return Ok(json!({}));
        }
        let body = json!({ "session": self.session(report) });
        let ended = self.door.post("/v1/sessions/end", &body, END_TIMEOUT);
        ended.map(|_| json!({}))
    }
}

/// The error, and whether it occurred at the start of a session.
struct Trouble {
    failure: Failure,
    is_start: bool,
}

impl Trouble {
    fn at_start(failure: Failure) -> Self {
        let is_start = true;
        Self { failure, is_start }
    }
}

/// Returns both texts as one answer.
fn joined(context: Option<String>, mut answer: Value, event: &str) -> Value {
    let Some(context) = context else {
        return answer;
    };
    let told = answer.pointer_mut("/hookSpecificOutput/additionalContext");
    if let Some(Value::String(text)) = told {
        *text = format!("{context}\n\n{text}");
        return answer;
    }
    json!({ "hookSpecificOutput": { "hookEventName": event, "additionalContext": context } })
}

fn not_a_gate() -> Failure {
    Failure::new(Answer::Failed, "the answer is not that of a gate")
}
