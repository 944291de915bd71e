//! An agent that behaves like Claude Code: its hooks, its commands, and whether every flow is tied
//! to the call that caused it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::{
    Gate, Line, Lines, Message, Origin, Outcome, Program, Session, Site, TIERS, Visit, allow_more,
    git_backend, names, script, until,
};

const HOST: &str = "files.example.com";
const OTHER: &str = "other.example.com";
const STRICT: &str = "strict.example.com";
const REFUSED: &str = "blocked.example.com";
const OPEN: &str = "github.com/acme/open-tools";

fn policy(port: u16) -> String {
    let all = "from.tiers = [\"open\", \"standard\"]";
    format!(
        "{TIERS}{}{}{}{}
[identity.session]
local = \"trust\"

[[repository]]
match = \"github.com/acme/open*\"
tier = \"open\"

[[repository]]
match = \"github.com/acme/payments\"
tier = \"restricted\"
",
        names(&[HOST, OTHER, STRICT, REFUSED]),
        allow_more("files", HOST, port, all),
        allow_more("other", OTHER, port, all),
        allow_more("strict", STRICT, port, "from.tiers = [\"restricted\"]"),
    )
}

/// A gate, an origin, and an agent in a working copy.
struct Bench {
    origin: Origin,
    gate: Gate,
    home: TempDir,
}

impl Bench {
    fn start() -> Self {
        let home = TempDir::new().expect("a home");
        let origin = Origin::http(answers(home.path()));
        let gate = Gate::with(&policy(origin.port()));
        Self { origin, gate, home }
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}", self.origin.port())
    }

    /// A working copy of that repository; its commit.
    fn copy(&self, name: &str, url: &str) -> (PathBuf, String) {
        let folder = self.home.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        for words in [
            &["init", "-q", "-b", "topic"][..],
            &["commit", "-q", "--allow-empty", "-m", "First"],
            &["remote", "add", "origin", url],
        ] {
            git(&folder, words);
        }
        let commit = git(&folder, &["rev-parse", "HEAD"]);
        (folder, commit.stdout.trim().to_owned())
    }

    /// An agent that was launched with a session of its own.
    fn launched(&self, request: &Value) -> Agent<'_> {
        let Session { id, token, .. } = self.gate.session(request);
        Agent {
            bench: self,
            root: id.clone(),
            session: id,
            token: Some(token),
            env_file: self.home.path().join("claude-env"),
        }
    }

    fn decisions(&self) -> Vec<Line> {
        self.gate.records().named("decision")
    }
}

/// Git, a registry with one package, and files, at one origin.
pub(crate) fn answers(
    home: &Path,
) -> impl Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static {
    let root = home.join("origin");
    let made = root.join("made");
    std::fs::create_dir_all(&made).expect("a folder");
    git(&made, &["init", "-q", "-b", "main"]);
    git(&made, &["commit", "-q", "--allow-empty", "-m", "First"]);
    git(&made, &["clone", "-q", "--bare", ".", "../repo.git"]);
    let repositories = git_backend(root);
    let document = json!({ "name": "demo", "dist-tags": {}, "versions": {} });
    let files = Site::default()
        .file("/file", "text/plain", "a file\n")
        .file("/demo", "application/json", document.to_string())
        .answers();
    move |visit, request| {
        if request.target().starts_with("/repo.git") {
            repositories(visit, request)
        } else {
            files(visit, request)
        }
    }
}

pub(crate) fn git(folder: &Path, words: &[&str]) -> Outcome {
    Program::new("git", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(["-c", "user.name=Ana", "-c", "user.email=ana@acme.example"])
        .args(words)
        .run()
        .succeeded()
}

struct Agent<'a> {
    bench: &'a Bench,
    /// The session of the token.
    root: String,
    /// The agent's own session.
    session: String,
    token: Option<String>,
    env_file: PathBuf,
}

impl Agent<'_> {
    /// Runs the command hook as Claude Code does.
    #[track_caller]
    fn hook(&self, event: &str, cwd: &Path) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["session", "hook"]);
        self.run_hook(command, event, cwd)
    }

    /// Runs a command that is, or starts, the command hook.
    #[track_caller]
    fn run_hook(&self, mut command: Command, event: &str, cwd: &Path) -> Value {
        let gate = &self.bench.gate;
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.bench.home.path())
            .env("CLAUDE_ENV_FILE", &self.env_file)
            .env("CLAUDE_PID", std::process::id().to_string())
            .env("TIDEGATE_PROXY", gate.proxy().to_string())
            .env("TIDEGATE_ADMIN", gate.admin().to_string())
            .env(
                "TIDEGATE_CONTROL",
                format!("unix:{}", gate.folder().join("control.sock").display()),
            );
        if let Some(token) = &self.token {
            command.env("TIDEGATE_TOKEN", token);
        }
        let told = json!({
            "session_id": self.session, "hook_event_name": event, "cwd": cwd,
            "permission_mode": "default", "source": "startup", "transcript_path": "/x",
        });
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut stdin = child.stdin.take().expect("a stdin");
        stdin.write_all(told.to_string().as_bytes()).expect("told");
        drop(stdin);
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Posts an HTTP hook.
    #[track_caller]
    fn tool(&self, event: &str, id: &str, more: &Value) -> Message {
        let mut told = json!({
            "session_id": self.session, "hook_event_name": event, "tool_use_id": id,
            "tool_name": "Bash", "prompt_id": "prompt-1", "permission_mode": "acceptEdits",
        });
        let fields = more.as_object().expect("fields");
        told.as_object_mut().expect("fields").extend(fields.clone());
        let gate = &self.bench.gate;
        gate.post("/v1/hooks/claude-code", self.token.as_deref(), &told)
    }

    /// Asks for a file as the agent's own process does.
    #[track_caller]
    fn ask_as_agent(&self, host: &str) -> Line {
        let user = format!("{}.main", self.root);
        let token = self.token.as_deref().expect("a token");
        let client = self.bench.gate.client();
        let url = format!("{}/file", self.bench.url(host));
        client.known_as(&user, token).get(&url);
        self.bench.decisions().pop().expect("a line")
    }

    #[track_caller]
    fn begin(&self, id: &str, command: &str) {
        let more = json!({ "tool_input": { "command": command } });
        assert_eq!(self.tool("PreToolUse", id, &more).status(), 200);
    }

    #[track_caller]
    fn end(&self, id: &str) -> Value {
        let answer = self.tool("PostToolUse", id, &json!({ "tool_response": {} }));
        assert_eq!(answer.status(), 200);
        answer.json()
    }

    /// Runs a command as the Bash tool does: the file is read first.
    fn bash(&self, command: &str) -> Outcome {
        let quoted = command.replace('\'', r#"'"'"'"#);
        let script = format!(
            "source {} && eval '{quoted}' < /dev/null",
            self.env_file.display()
        );
        Program::new("bash", self.bench.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("npm_config_update_notifier", "false")
            .env("npm_config_audit", "false")
            .args(["-c", &script])
            .run()
    }

    /// A whole Bash call.
    fn call(&self, id: &str, command: &str) -> (Outcome, Value) {
        self.begin(id, command);
        let outcome = self.bash(command);
        (outcome, self.end(id))
    }
}

/// The calls of the flows to that host, each once.
fn calls(lines: &[Line], host: &str) -> Vec<String> {
    let mut calls: Vec<_> = lines
        .iter()
        .filter(|line| line.text("server.address") == host)
        .map(|line| line.text("tool_use_id").to_owned())
        .collect();
    calls.dedup();
    calls
}

#[test]
fn every_flow_of_a_command_carries_its_session_call_and_repository() {
    let bench = Bench::start();
    let (copy, commit) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN, "user": "ana@acme.example" }));
    let told = agent.hook("SessionStart", &copy);
    let context = told["hookSpecificOutput"]["additionalContext"].as_str();
    assert!(
        context.is_some_and(|text| text.contains("`open`")),
        "{told}"
    );

    let url = bench.url(HOST);
    let command = format!(
        "git clone -q {url}/repo.git clone && curl -sf {url}/file; \
         npm install --no-save --registry={url}/ demo; true"
    );
    let (outcome, _) = agent.call("toolu_1", &command);

    outcome.succeeded().showed("a file");
    let lines = bench.decisions();
    assert!(lines.len() >= 4, "{lines:#?}");
    for line in &lines {
        for (field, value) in [
            ("session.id", &*agent.session),
            ("tool_use_id", "toolu_1"),
            ("prompt.id", "prompt-1"),
            ("tidegate.tool.name", "Bash"),
            ("tidegate.channel", "bash"),
            ("tidegate.agent", "claude-code"),
            ("tidegate.permission_mode", "acceptEdits"),
            ("tidegate.session.trust", "verified"),
            ("vcs.repository.url.full", OPEN),
            ("vcs.ref.head.name", "topic"),
            ("vcs.ref.head.revision", &*commit),
            ("user.id", "ana@acme.example"),
        ] {
            assert_eq!(line.text(field), value, "{field} of {line:?}");
        }
    }
}

#[test]
fn parallel_commands_are_told_apart() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let one = format!("curl -sf '{}/file' -H \"X-A: it's\" | cat", bench.url(HOST));
    let two = format!("curl -sf {}/file | cat", bench.url(OTHER));
    agent.begin("toolu_1", &one);
    let more = json!({ "tool_input": { "command": two }, "agent_id": "agent-7" });
    assert_eq!(agent.tool("PreToolUse", "toolu_2", &more).status(), 200);

    std::thread::scope(|scope| {
        scope.spawn(|| agent.bash(&two).succeeded());
        scope.spawn(|| agent.bash(&one).succeeded());
    });
    agent.end("toolu_1");
    agent.end("toolu_2");

    let lines = bench.decisions();
    assert_eq!(calls(&lines, HOST), ["toolu_1"]);
    assert_eq!(calls(&lines, OTHER), ["toolu_2"]);
    for line in lines {
        let of_agent = line.text("server.address") == OTHER;
        assert_eq!(line.text("agent_id") == "agent-7", of_agent, "{line:?}");
    }
}

#[test]
fn what_a_command_leaves_running_keeps_its_call() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let go = bench.home.path().join("go");
    let later = format!(
        "(until [ -e {} ]; do read -t 0.05 < <(:) || :; done; curl -sf {}/file) > /dev/null 2>&1 &",
        go.display(),
        bench.url(OTHER)
    );

    agent.call("toolu_1", &format!("curl -sf {}/file", bench.url(HOST)));
    agent.call("toolu_2", &later).0.succeeded();
    let third = format!("curl -sf {}/file; :", bench.url(HOST));
    agent.begin("toolu_3", &third);
    std::fs::write(&go, "").expect("a file");
    until("the flow from the background", || {
        !calls(&bench.decisions(), OTHER).is_empty()
    });
    agent.bash(&third).succeeded();
    agent.end("toolu_3");

    let lines = bench.decisions();
    assert_eq!(calls(&lines, OTHER), ["toolu_2"]);
    assert_eq!(calls(&lines, HOST), ["toolu_1", "toolu_3"]);
}

#[test]
fn an_agent_is_told_what_was_refused_and_that_it_is_policy() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let command = format!("curl -sf {}/file", bench.url(REFUSED));
    agent.begin("toolu_1", &command);
    agent.bash(&command).failed();

    let answer = agent.tool("PostToolUseFailure", "toolu_1", &json!({ "error": "22" }));

    let answer = answer.json();
    let told = &answer["hookSpecificOutput"];
    assert_eq!(told["hookEventName"], "PostToolUseFailure");
    let text = told["additionalContext"].as_str().expect("a text");
    let target = format!(
        "{REFUSED}:{}: not_allowed (category unknown, tier open)",
        bench.origin.port()
    );
    for part in [&*target, "policy", "do not retry", "tidegate explain "] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(agent.end("toolu_1"), json!({}), "told once");
}

#[test]
fn clear_begins_a_session_and_ends_one() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let mut agent = bench.launched(&json!({ "repository": OPEN }));
    let root = agent.session.clone();
    agent.hook("SessionStart", &copy);
    agent.hook("SessionEnd", &copy);
    agent.session = uuid::Uuid::now_v7().to_string();
    agent.hook("SessionStart", &copy);

    let command = format!("curl -sf {}/file", bench.url(HOST));
    agent.call("toolu_1", &command).0.succeeded();

    let line = bench.decisions().pop().expect("a decision");
    assert_eq!(line.text("session.id"), agent.session);
    assert_ne!(agent.session, root);
    assert_eq!(line.text("tool_use_id"), "toolu_1");
    agent.hook("SessionEnd", &copy);
    agent.bash(&command).failed();
}

#[test]
fn without_a_launcher_the_control_socket_knows_the_session_and_it_can_come_back() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = Agent {
        bench: &bench,
        root: String::new(),
        session: uuid::Uuid::now_v7().to_string(),
        token: None,
        env_file: bench.home.path().join("claude-env"),
    };
    let command = format!("curl -sf {}/file", bench.url(HOST));
    agent.hook("SessionStart", &copy);
    agent.bash(&command).succeeded();
    agent.hook("SessionEnd", &copy);
    agent.bash(&command).failed();
    agent.hook("SessionStart", &copy);
    agent.bash(&command).succeeded();

    let answer = agent.tool("PreToolUse", "toolu_1", &json!({}));
    assert_eq!(answer.status(), 401, "a hook shows a token");
}

#[test]
fn another_folder_never_loosens_the_tier() {
    let bench = Bench::start();
    let (open, _) = bench.copy("open", "https://github.com/acme/open-tools.git");
    let (secret, _) = bench.copy("secret", "https://github.com/acme/payments.git");
    let reach = |agent: &Agent<'_>, host: &str| {
        agent
            .bash(&format!("curl -sf {}/file", bench.url(host)))
            .success
    };
    for launched in [true, false] {
        let mut agent = bench.launched(&json!({ "repository": "github.com/acme/payments" }));
        if !launched {
            agent.token = None;
            agent.session = uuid::Uuid::now_v7().to_string();
        }
        agent.hook("SessionStart", &secret);
        assert!(reach(&agent, STRICT) && !reach(&agent, HOST));
        agent.hook("CwdChanged", &open);
        assert!(
            reach(&agent, STRICT) && !reach(&agent, HOST),
            "launched: {launched}"
        );
    }
    // The other way it grows stricter, and no word of an earlier folder is left in the file.
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &open);
    assert!(reach(&agent, HOST));
    agent.hook("CwdChanged", &secret);
    assert!(reach(&agent, STRICT) && !reach(&agent, HOST));
    let text = std::fs::read_to_string(&agent.env_file).expect("a file");
    assert_eq!(text.matches("tidegate: begin").count(), 1);
}

#[test]
fn forged_hooks_change_nothing() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let victim = bench.launched(&json!({ "repository": OPEN }));
    victim.hook("SessionStart", &copy);
    let command = format!("curl -sf {}/file", bench.url(HOST));
    victim.begin("toolu_1", &command);

    let told = json!({
        "session_id": victim.session, "hook_event_name": "PreToolUse", "tool_name": "Bash",
        "tool_use_id": "toolu_forged", "tool_input": { "command": command },
    });
    let other = bench.gate.session(&json!({ "repository": OPEN }));
    // The token of the victim's own command does not speak for its agent either.
    let text = std::fs::read_to_string(&victim.env_file).expect("a file");
    let token = text
        .split("export TIDEGATE_TOKEN='")
        .nth(1)
        .expect("a token");
    let token = token.split('\'').next().expect("a token");
    let mut own = bench.gate.session(&json!({}));
    own.token = token.to_owned();
    let again = bench.gate.child(&own, &json!({ "channel": "main" }));
    for (token, status) in [
        (None, 401),
        (Some("eyJ.eyJ.x"), 401),
        (Some(&*other.token), 403),
        (Some(token), 403),
        (Some(&*again.token), 403),
    ] {
        let answer = bench.gate.post("/v1/hooks/claude-code", token, &told);
        assert_eq!(answer.status(), status, "{answer:?}");
    }
    // A name in a username is no part in the calls of whose it is.
    let user = format!(
        "{}.bash.00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        victim.session
    );
    bench
        .gate
        .client()
        .known_as(&user, "x")
        .get(&format!("{}/file", bench.url(REFUSED)));
    victim.bash(&command).succeeded();
    assert_eq!(victim.end("toolu_1"), json!({}));
    let lines = bench.decisions();
    assert_eq!(calls(&lines, HOST), ["toolu_1"]);
    assert_eq!(calls(&lines, REFUSED), [""]);
}

#[test]
fn a_hook_that_fails_stops_nothing_and_opens_nothing() {
    let bench = Bench::start();
    let agent = Agent {
        bench: &bench,
        root: String::new(),
        session: "not-a-session'; exit 9 #".to_owned(),
        token: None,
        env_file: bench.home.path().join("claude-env"),
    };
    let told = agent.hook("SessionStart", bench.home.path());
    let message = told["systemMessage"].as_str().expect("a message");
    assert!(message.contains("UUID"), "{message}");
    agent
        .bash(&format!("curl -sf {}/file; true", bench.url(REFUSED)))
        .succeeded();
    assert_eq!(
        calls(&bench.decisions(), REFUSED),
        [""],
        "by the proxy all the same"
    );
}

#[test]
fn an_agent_that_was_not_launched_is_known_by_its_process() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = Agent {
        bench: &bench,
        root: String::new(),
        session: uuid::Uuid::now_v7().to_string(),
        token: None,
        env_file: bench.home.path().join("claude-env"),
    };
    // This process is the agent: its own connection presents nothing.
    let ask = || {
        let url = format!("{}/file", bench.url(OTHER));
        bench.gate.client().get(&url).status()
    };
    ask();
    agent.hook("SessionStart", &copy);
    ask();
    let lines = bench.decisions();
    let sessions: Vec<_> = lines.iter().map(|line| line.text("session.id")).collect();
    assert_eq!(sessions, ["", &*agent.session]);
    let line = lines.last().expect("a line");
    assert_eq!(line.text("tidegate.session.evidence"), "process");
    assert_eq!(line.text("tidegate.session.trust"), "asserted");
    // A process that the agent started is not the agent.
    let command = format!(
        "env -u http_proxy curl -s -x http://{} {}/file",
        bench.gate.proxy(),
        bench.url(OTHER)
    );
    Program::new("bash", bench.home.path())
        .args(["-c", &command])
        .run();
    let line = bench.decisions().pop().expect("a line");
    assert_eq!(line.text("session.id"), "", "{line:?}");
}

#[test]
fn what_is_refused_after_a_call_is_told_at_the_next_call_once() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let go = bench.home.path().join("go");
    let later = format!(
        "(until [ -e {} ]; do read -t 0.05 < <(:) || :; done; curl -s {url}/file; \
         curl -s {url}/other) > /dev/null 2>&1 &",
        go.display(),
        url = bench.url(REFUSED)
    );
    let (_, told) = agent.call("toolu_1", &later);
    assert_eq!(told, json!({}));
    std::fs::write(&go, "").expect("a file");
    until("both refusals", || calls_of(&bench, "toolu_1") == 2);

    let (_, told) = agent.call("toolu_2", "true");

    let text = told["hookSpecificOutput"]["additionalContext"].as_str();
    let text = text.expect("a text");
    assert!(text.contains("refused in an earlier call"), "{text}");
    assert!(
        text.contains(REFUSED) && text.contains(", 2 times"),
        "{text}"
    );
    assert_eq!(agent.call("toolu_3", "true").1, json!({}), "told once");
}

fn calls_of(bench: &Bench, call: &str) -> usize {
    let lines = bench.decisions();
    lines
        .iter()
        .filter(|line| line.text("tool_use_id") == call)
        .count()
}

#[test]
fn a_command_that_explains_a_refusal_works_as_it_is_written() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let (_, told) = agent.call("toolu_1", &format!("curl -s {}/file", bench.url(REFUSED)));
    let text = told["hookSpecificOutput"]["additionalContext"].as_str();
    let text = text.expect("a text");
    let command = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("tidegate "));
    let command = command.expect("a command");
    let script = format!("{} {command}", env!("CARGO_BIN_EXE_tidegate"));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let shown = Program::new("bash", elsewhere.path())
        .args(["-c", &script])
        .run();
    assert_eq!(shown.code, Some(1), "{shown:?}");
    shown.showed("not_allowed").showed(REFUSED);
}

#[test]
fn a_token_goes_to_no_stranger_at_the_port_of_a_gate() {
    let bench = Bench::start();
    let agent = bench.launched(&json!({ "repository": OPEN }));
    let (_listener, stranger) = match stranger() {
        Ok(found) => found,
        Err(why) => {
            eprintln!("NOT TESTED HERE: {why}");
            return;
        }
    };
    let outcome = Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), bench.home.path())
        .env("TIDEGATE_TOKEN", agent.token.as_deref().expect("a token"))
        .args(["session", "end", "--admin", &stranger])
        .run();
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    outcome.showed("the session token was not sent");
}

/// A process of another user that listens at a port; it ends with the returned guard.
fn stranger() -> Result<(Ended, String), String> {
    let script = "import os, socket, sys; os.setuid(65534); s = socket.socket(); \
        s.bind(('127.0.0.1', 0)); s.listen(); print(s.getsockname()[1], flush=True); \
        sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its output");
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line);
    let child = Ended(child);
    match read {
        Ok(length) if length > 1 => Ok((child, format!("127.0.0.1:{}", line.trim()))),
        _ => Err("a process cannot take another user".to_owned()),
    }
}

/// A process that ends when this is dropped.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_command_with_variables_of_an_earlier_session_has_the_session_of_its_call() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let mut agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let earlier = agent.env_file.clone();
    agent.session = uuid::Uuid::now_v7().to_string();
    agent.env_file = bench.home.path().join("another-env");
    agent.hook("SessionStart", &copy);
    agent.env_file = earlier;

    let command = format!("curl -s {}/file", bench.url(REFUSED));
    let (_, told) = agent.call("toolu_1", &command);
    let line = bench.decisions().pop().expect("a decision");
    assert_eq!(line.text("session.id"), agent.session);
    assert_eq!(line.text("tidegate.session.root"), agent.root);
    assert_eq!(line.text("tool_use_id"), "toolu_1");
    assert!(told.to_string().contains(REFUSED), "{told}");
    // Without a call, only the variables say which session it is.
    agent.bash(&format!("curl -s {}/file", bench.url(OTHER)));
    let line = bench.decisions().pop().expect("a decision");
    assert_eq!(
        (line.text("tool_use_id"), line.text("session.id")),
        ("", &*agent.root)
    );
}

#[test]
fn no_report_moves_flows_to_the_session_of_another_agent() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let victim = bench.launched(&json!({ "repository": OPEN }));
    victim.hook("SessionStart", &copy);
    let mut forger = bench.launched(&json!({ "repository": OPEN }));
    forger.env_file = bench.home.path().join("another-env");
    forger.hook("SessionStart", &copy);
    let command = format!("curl -sf {}/file", bench.url(HOST));
    forger.session.clone_from(&victim.session);
    let more = json!({ "tool_input": { "command": command } });
    for event in [
        "SessionStart",
        "UserPromptSubmit",
        "PreToolUse",
        "PostToolUse",
    ] {
        assert_eq!(
            forger.tool(event, "toolu_1", &more).status(),
            403,
            "{event}"
        );
    }
    forger.bash(&command).succeeded();
    let line = bench.decisions().pop().expect("a line");
    assert_eq!(line.text("session.id"), forger.root);
    assert_eq!(line.text("tool_use_id"), "");
    assert_eq!(forger.ask_as_agent(HOST).text("session.id"), forger.root);
}

#[test]
fn a_second_agent_that_a_command_starts_does_not_rename_the_first() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let second = Agent {
        bench: &bench,
        root: agent.root.clone(),
        session: uuid::Uuid::now_v7().to_string(),
        token: agent.token.clone(),
        env_file: bench.home.path().join("another-env"),
    };
    let program = bench.home.path().join("second");
    let tidegate = env!("CARGO_BIN_EXE_tidegate");
    script(
        &program,
        &format!("{tidegate} session hook; status=$?; exit $status"),
    );
    for event in ["SessionStart", "UserPromptSubmit"] {
        second.run_hook(Command::new(&program), event, &copy);
        let line = agent.ask_as_agent(HOST);
        assert_eq!(line.text("session.id"), agent.session, "{event}");
    }
    // A hook of the first agent says the same and counts.
    second.hook("UserPromptSubmit", &copy);
    assert_eq!(agent.ask_as_agent(HOST).text("session.id"), second.session);
}

#[test]
fn a_call_id_that_is_used_again_names_the_later_call() {
    let bench = Bench::start();
    let (copy, _) = bench.copy("web", "https://github.com/acme/open-tools.git");
    let agent = bench.launched(&json!({ "repository": OPEN }));
    agent.hook("SessionStart", &copy);
    let command = |host| format!("curl -s {}/file", bench.url(host));
    agent.call("toolu_1", &command(HOST));
    // While the call is open, a second report of its id changes nothing.
    agent.begin("toolu_1", &command(REFUSED));
    agent.begin("toolu_1", "curl -s http://else.example.com/");
    agent.bash(&command(REFUSED));
    let told = agent.end("toolu_1").to_string();
    assert!(told.contains(REFUSED), "{told}");
    // After its end, another end tells nothing, and no later flow belongs to it.
    assert_eq!(agent.end("toolu_1"), json!({}));
    agent.begin("toolu_2", &command(OTHER));
    agent.bash(&command(OTHER));
    let lines = bench.decisions();
    assert_eq!(calls(&lines, REFUSED), ["toolu_1"]);
    assert_eq!(calls(&lines, OTHER), ["toolu_2"]);
}

#[test]
fn another_gate_refuses_the_token_of_a_session() {
    let bench = Bench::start();
    let other = Bench::start();
    let own = bench.gate.session(&json!({ "repository": OPEN }));
    let url = format!("{}/file", other.url(HOST));
    let user = format!("{}.main", own.id);
    let mut client = other.gate.client().known_as(&user, &own.token);
    assert_eq!(client.get(&url).status(), 407);
    let told = json!({ "session_id": own.id, "hook_event_name": "SessionStart" });
    for (path, body) in [
        ("/v1/hooks/claude-code", &told),
        ("/v1/sessions", &json!({})),
        ("/v1/sessions/end", &json!({})),
    ] {
        let answer = other.gate.post(path, Some(&own.token), body);
        assert_eq!(answer.status(), 401, "{path}");
    }
}
