//! The chapter "An hour for artifacts.example.net", step by step: the agent's steps as an agent takes
//! them, the reviewer's in a shell. The clock of the gate is moved by hand.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{Gate, Lines, Message, Origin, Pki, Session, Visit, allow, names, until};
use crate::walkthrough::{Desk, walk};

const HOST: &str = "artifacts.example.net";

/// The gate, the host and the agent of the chapter.
struct Hour {
    pki: Pki,
    origin: Origin,
    gate: Option<Gate>,
    agent: Option<Session>,
    calls: usize,
    /// The ids that were printed, in this order.
    ids: Vec<String>,
}

impl Hour {
    fn new() -> Self {
        let pki = Pki::new();
        let origin = Origin::https(&pki, &[HOST], |visit: &mut Visit, request: &Message| {
            if request.target() != "/live" {
                return visit.answer("200 OK", "text/plain", b"a build\n");
            }
            visit.say("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nline 1\n")?;
            visit.exactly(usize::MAX).map(drop)
        });
        Self {
            pki,
            origin,
            gate: None,
            agent: None,
            calls: 0,
            ids: Vec::new(),
        }
    }

    fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("a gate")
    }

    fn session(&self) -> &Session {
        self.agent.as_ref().expect("an agent")
    }

    fn env_file(&self) -> PathBuf {
        self.gate().folder().join("agent.env")
    }

    fn shell(&self, shell: &str, script: &str) -> Command {
        let gate = self.gate();
        let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let path = format!(
            "{}:/usr/local/bin:/usr/bin:/bin",
            program.parent().expect("a folder").display()
        );
        let mut command = Command::new(shell);
        command
            .args(["-c", script])
            .current_dir(gate.folder())
            .env_clear()
            .env("PATH", path)
            .env("HOME", gate.folder())
            .env("LANG", "C.UTF-8")
            .env("CURL_CA_BUNDLE", gate.folder().join("ca.pem"))
            .stdin(Stdio::null());
        command
    }

    /// Starts the agent: its hook at the start of a session writes the variables of its commands.
    fn start_agent(&mut self) {
        let gate = self.gate();
        let request =
            json!({ "repository": "https://github.com/acme/migrator", "agent": "claude-code" });
        let session = gate.session(&request);
        let mut hook = self.shell("sh", "exec tidegate session hook");
        hook.env("CLAUDE_ENV_FILE", self.env_file())
            .env("CLAUDE_PID", std::process::id().to_string())
            .env("TIDEGATE_PROXY", gate.proxy().to_string())
            .env("TIDEGATE_ADMIN", gate.admin().to_string())
            .env("TIDEGATE_TOKEN", &session.token);
        let told = json!({
            "session_id": session.id, "hook_event_name": "SessionStart", "cwd": gate.folder(),
            "permission_mode": "default", "source": "startup", "transcript_path": "/x",
        });
        let mut child = hook.stdin(Stdio::piped()).spawn().expect("the hook");
        let mut stdin = child.stdin.take().expect("a stdin");
        stdin.write_all(told.to_string().as_bytes()).expect("told");
        drop(stdin);
        assert!(child.wait().expect("its end").success());
        self.agent = Some(session);
    }

    /// One call of the agent's Bash tool, with its hooks.
    fn call(&mut self, line: &str) -> String {
        self.calls += 1;
        let id = format!("toolu_{:02}", self.calls);
        self.report(
            "PreToolUse",
            &id,
            &json!({ "tool_input": { "command": line } }),
        );
        let quoted = line.replace('\'', r#"'"'"'"#);
        let script = format!(
            "exec 2>&1; source {} && eval '{quoted}' < /dev/null",
            self.env_file().display()
        );
        let output = self.shell("bash", &script).output().expect("a shell");
        let event = if output.status.success() {
            "PostToolUse"
        } else {
            "PostToolUseFailure"
        };
        let answer = self.report(event, &id, &json!({ "tool_response": {} }));
        let told = answer["hookSpecificOutput"]["additionalContext"].as_str();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        match told {
            Some(told) => format!("{printed}# Claude Code is told: {told}\n"),
            None => printed,
        }
    }

    fn report(&self, event: &str, id: &str, more: &Value) -> Value {
        let session = self.session();
        let mut told = json!({
            "session_id": session.id, "hook_event_name": event, "tool_use_id": id,
            "tool_name": "Bash", "prompt_id": "prompt-1", "permission_mode": "default",
        });
        let fields = more.as_object().expect("fields").clone();
        told.as_object_mut().expect("fields").extend(fields);
        let answer = self
            .gate()
            .post("/v1/hooks/claude-code", Some(&session.token), &told);
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()
    }

    /// An hour passes: the tunnels that only the approval let pass close.
    fn sleep(&mut self, seconds: &str) {
        self.gate.as_mut().expect("a gate").advance(seconds);
        let gate = self.gate();
        until("the end of the tunnel", || {
            let by_approval = |name: &str| {
                let lines = gate.records().named(name);
                let lines = lines
                    .iter()
                    .filter(|it| it.get("tidegate.exception.id").is_some());
                lines.count()
            };
            by_approval("decision") == by_approval("close")
        });
    }

    /// The line with the port and the ids of this run.
    fn real(&self, line: &str) -> String {
        let port = self.origin.port();
        let line = line
            .replace(
                &format!("https://{HOST}/"),
                &format!("https://{HOST}:{port}/"),
            )
            .replace(&format!("file {HOST}"), &format!("file {HOST}:{port}"));
        let ids = self.ids.iter().enumerate();
        ids.fold(line, |line, (at, id)| line.replace(&printed_id(at), id))
    }

    /// What was printed, as the chapter shows it.
    fn shown(&mut self, printed: &str) -> String {
        for id in ids_in(printed) {
            if !self.ids.contains(&id) {
                self.ids.push(id);
            }
        }
        let folder = self.gate().folder().display().to_string();
        let shown = printed
            .replace(&format!(":{}", self.origin.port()), ":443")
            .replace(&folder, "/etc/tidegate");
        let user = format!("uid:{}", rustix::process::geteuid().as_raw());
        let shown = shown.replace(&user, "uid:0");
        let ids = self.ids.iter().enumerate();
        ids.fold(shown, |text, (at, id)| {
            text.replace(id.as_str(), &printed_id(at))
        })
    }
}

impl Desk for Hour {
    fn write(&mut self, name: &str, text: &str) {
        assert_eq!(name, "tidegate.toml");
        let user = format!("\"uid:{}\"", rustix::process::geteuid().as_raw());
        // The host is on this machine.
        let here = names(&[HOST]) + &allow("here", HOST, self.origin.port());
        let ports = format!("to.ports = [{}]", self.origin.port());
        let policy = text
            .replace("\"uid:0\"", &user)
            .replace("to.ports = [443]", &ports);
        let policy = policy + &here;
        let gate = Gate::plan(&policy)
            .file("ca.pem", &self.pki.pem())
            .clock_by_hand();
        self.gate = Some(gate.start());
        self.start_agent();
    }

    fn run(&mut self, voice: &str, line: &str) -> String {
        let line = self.real(line);
        if let Some(seconds) = line.strip_prefix("sleep ") {
            self.sleep(seconds);
            return String::new();
        }
        let printed = if voice == "agent" {
            self.call(&line)
        } else {
            let output = self.shell("sh", &format!("exec 2>&1; {line}")).output();
            String::from_utf8_lossy(&output.expect("a shell").stdout).into_owned()
        };
        self.shown(&printed)
    }
}

fn printed_id(at: usize) -> String {
    format!("019ad000-0000-7000-8000-00000000000{}", at + 1)
}

/// The UUIDs in a text.
fn ids_in(text: &str) -> Vec<String> {
    let is_id = |at: &usize| {
        let id = text.get(*at..at + 36).unwrap_or_default();
        id.len() == 36 && uuid::Uuid::try_parse(id).is_ok()
    };
    let places = (0..text.len()).filter(is_id);
    places.map(|at| text[at..at + 36].to_owned()).collect()
}

#[test]
fn an_hour_for_artifacts_works_as_printed() {
    walk("an_hour.md", &mut Hour::new());
}
