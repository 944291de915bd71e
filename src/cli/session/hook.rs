//! `tidegate session hook`: the command of Claude Code's hooks `SessionStart`, `CwdChanged` and
//! `SessionEnd`.
//!
//! It never stops the agent: whatever goes wrong, it says so and exits with 0. Commands are pointed
//! at the proxy all the same, which refuses whoever it does not know.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::gate::Wish;
use crate::vcs;

use super::super::env::Proxy;
use super::super::{Answer, admin, print};
use super::{Door, Failure, block};

/// Bytes of what a hook is told.
const LONGEST: u64 = 1 << 20;
/// A session's end has 1.5 seconds.
const END_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Hook {
    /// The proxy, as commands reach it: http://HOST:PORT.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3128")]
    #[arg(env = "TIDEGATE_PROXY", value_parser = Proxy::parse_short)]
    proxy: Proxy,
    /// Where the lines for the agent's commands go.
    #[arg(long, env = "CLAUDE_ENV_FILE", value_name = "FILE", hide = true)]
    env_file: Option<String>,
    /// The process of the agent.
    #[arg(long, env = "CLAUDE_PID", value_name = "PID", hide = true)]
    pid: Option<String>,
    #[command(flatten)]
    door: Door,
}

/// What the agent tells.
#[derive(Debug, Deserialize)]
struct Told {
    session_id: String,
    hook_event_name: String,
    cwd: Option<PathBuf>,
    permission_mode: Option<String>,
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
            Ok(Some(answer)) => print::json(&answer),
            Ok(None) => {}
            Err(failure) => {
                let why = format!("tidegate: {}", failure.why);
                print::err(&format!("{why}\n"));
                print::json(&json!({ "systemMessage": why }));
            }
        }
        Answer::Yes
    }

    fn answer(&self) -> Result<Option<Value>, Failure> {
        let told = told()?;
        match told.hook_event_name.as_str() {
            "SessionEnd" => self.end(&told).map(|()| None),
            "SessionStart" | "CwdChanged" => self.start(&told),
            _ => Ok(None),
        }
    }

    fn start(&self, told: &Told) -> Result<Option<Value>, Failure> {
        let started = self.register(told);
        let (session, token) = match &started {
            Ok(started) => (&*started.session, Some(&*started.token)),
            Err(_) => (&*told.session_id, None),
        };
        self.write(&block::block(&self.proxy, session, token))?;
        let started = started?;
        if told.hook_event_name != "SessionStart" {
            return Ok(None);
        }
        let text = format!(
            "Commands reach the network through tidegate, which allows what the tier `{}` of this \
             repository allows. A refusal is policy, not a network fault: do not retry it, and do \
             not look for another way; say what you need.",
            print::clean(&started.tier, 64)
        );
        let event = "SessionStart";
        Ok(Some(json!({
            "hookSpecificOutput": { "hookEventName": event, "additionalContext": text }
        })))
    }

    fn register(&self, told: &Told) -> Result<Started, Failure> {
        let copy = told.cwd.as_deref().map(vcs::working_copy);
        let copy = copy.unwrap_or_default();
        let wish = Wish {
            session: Some(told.session_id.clone()),
            agent: Some("claude-code".to_owned()),
            repository: copy.repository,
            folder: told.cwd.as_deref().and_then(super::start::plain_folder),
            working_copy: true,
            r#ref: copy.branch,
            commit: copy.commit,
            permission_mode: told.permission_mode.clone(),
            channel: Some("bash".to_owned()),
            pid: self.pid.as_deref().and_then(|pid| pid.parse().ok()),
            ..Wish::default()
        };
        let text = self.door.post("/v1/sessions", &wish, admin::PATIENCE)?;
        serde_json::from_str(&text)
            .map_err(|_| Failure::new(Answer::Failed, "what answered is no gate"))
    }

    fn write(&self, block: &str) -> Result<(), Failure> {
        let Some(path) = self.env_file.as_deref().filter(|path| !path.is_empty()) else {
            let why = "CLAUDE_ENV_FILE is not set: the agent's commands carry no session";
            return Err(Failure::new(Answer::Failed, why));
        };
        block::write(Path::new(path), block)
            .map_err(|error| Failure::new(Answer::Failed, format!("{path}: {error}")))
    }

    /// The session of whoever launched the agent ends with that, not here.
    fn end(&self, told: &Told) -> Result<(), Failure> {
        let token = self.door.token.as_deref();
        let launched = token.and_then(|token| self.proxy.in_session("main", token));
        let own = format!("//{}.", told.session_id);
        if launched.is_some_and(|proxy| proxy.url().contains(&own)) {
            return Ok(());
        }
        let body = json!({ "session": told.session_id });
        let ended = self.door.post("/v1/sessions/end", &body, END_PATIENCE);
        ended.map(drop)
    }
}

fn told() -> Result<Told, Failure> {
    let mut text = String::new();
    let read = io::stdin().take(LONGEST).read_to_string(&mut text);
    let told = read.ok().and_then(|_| serde_json::from_str(&text).ok());
    told.ok_or_else(|| Failure::new(Answer::Wrong, "a hook is told JSON on its standard input"))
}
