//! The proxy as a child process: started from a configuration, asked over its sockets, read from
//! its log, ended with a signal. Nothing in here knows its inside.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    Client, DEADLINE, Line, Message, Metrics, Outcome, Program, by_hand, eventually, records, until,
};

/// What a gate is started from.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    policy: String,
    record: String,
    listen: String,
    files: Vec<(String, String)>,
    prefix: Vec<String>,
    by_hand: bool,
}

impl Plan {
    /// More lines under `[record]`; `file = …` replaces the usual one.
    #[must_use]
    pub(crate) fn record(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.record);
        self
    }

    /// More lines under `[listen]`.
    #[must_use]
    pub(crate) fn listen(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.listen);
        self
    }

    /// A file beside the configuration.
    #[must_use]
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// A command line put before the program, e.g. `prlimit`.
    #[must_use]
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The gate's clock begins at 2026-11-30T09:00:00Z, and [`Gate::advance`] alone moves it.
    #[must_use]
    pub(crate) fn clock_by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// Writes the files and starts.
    pub(crate) fn start(self) -> Gate {
        let folder = TempDir::new().expect("a folder");
        for (name, text) in &self.files {
            write(&folder.path().join(name), text);
        }
        let config = folder.path().join("tidegate.toml");
        std::fs::write(&config, self.text(&self.policy)).expect("a file");
        let running = Running::start(&config, &self);
        Gate {
            plan: self,
            folder,
            running: Some(running),
            tampered: false,
        }
    }

    /// The whole configuration with that policy.
    fn text(&self, policy: &str) -> String {
        let listen = "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
        let file = if self.record.contains("file =") {
            ""
        } else {
            "file = \"decisions.jsonl\"\n"
        };
        // A test looks for the line of each refusal, unless it is about those that repeat.
        let repeat = if self.record.contains("repeat-window") {
            ""
        } else {
            "repeat-window = \"0 s\"\n"
        };
        let record = format!("[record]\n{file}{repeat}{}\n", self.record);
        // Keys of the top level have to come before the first table.
        let (top, tables) = policy.split_at(policy.find("\n[").map_or(0, |at| at + 1));
        let (top, tables) = if policy.starts_with('[') {
            ("", policy)
        } else {
            (top, tables)
        };
        format!("{top}\n{listen}{}\n{record}\n{tables}", self.listen)
    }
}

/// A running gate; it ends with the test.
#[derive(Debug)]
pub(crate) struct Gate {
    plan: Plan,
    folder: TempDir,
    running: Option<Running>,
    /// Whether the test itself changed the log.
    tampered: bool,
}

impl Gate {
    /// Starts with a policy (and any section but `[listen]` and `[record]`).
    pub(crate) fn with(policy: &str) -> Self {
        Self::plan(policy).start()
    }

    /// Begins to say how to start.
    pub(crate) fn plan(policy: &str) -> Plan {
        Plan {
            policy: policy.to_owned(),
            ..Plan::default()
        }
    }

    /// The first proxy listener.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.listener(0)
    }

    /// A proxy listener, in the order of the configuration.
    pub(crate) fn listener(&self, place: usize) -> SocketAddr {
        self.running().proxies[place]
    }

    /// The admin listener.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.running().admin
    }

    /// What a client's `HTTP_PROXY` says.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.proxy())
    }

    /// The folder of the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder().join("tidegate.toml")
    }

    /// Says that the test changed the log itself.
    pub(crate) fn tampered(&mut self) {
        self.tampered = true;
    }

    /// The decision log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder().join("decisions.jsonl")
    }

    /// A connection to the first proxy listener.
    pub(crate) fn client(&self) -> Client {
        Client::dial(self.proxy())
    }

    /// Asks the admin listener.
    pub(crate) fn ask(&self, path: &str) -> Message {
        let mut client = Client::dial(self.admin());
        let host = self.admin();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ));
        client.answer("GET")
    }

    /// Reports what a doctor would, and gives the status.
    pub(crate) fn contained(&self, report: &str) -> u16 {
        self.contained_with(&self.report_token(), report)
    }

    /// A token for one report.
    pub(crate) fn report_token(&self) -> String {
        let made = self.control("/v1/contained/token", None, &serde_json::json!({}));
        assert_eq!(made.status(), 200, "{made:?}");
        made.json()["token"].as_str().expect("a token").to_owned()
    }

    /// As [`Gate::contained`], with a token.
    pub(crate) fn contained_with(&self, token: &str, report: &str) -> u16 {
        let (host, length) = (self.admin(), report.len());
        let mut client = Client::dial(host);
        client.send(format!(
            "POST /v1/contained HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\n\r\n{report}"
        ));
        client.answer("POST").status()
    }

    /// What it counts.
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.ask("/metrics");
        assert_eq!(answer.status(), 200, "{answer:?}");
        Metrics(answer.text())
    }

    /// The log so far.
    pub(crate) fn records(&self) -> Vec<Line> {
        records::read(&self.log())
    }

    /// Waits until the log is as it should be, and gives it.
    #[track_caller]
    pub(crate) fn eventually_records(
        &self,
        what: &str,
        mut condition: impl FnMut(&[Line]) -> bool,
    ) -> Vec<Line> {
        eventually(what, || {
            Some(self.records()).filter(|lines| condition(lines))
        })
    }

    /// Waits for the first line that fits.
    #[track_caller]
    pub(crate) fn line(&self, what: &str, mut fits: impl FnMut(&Line) -> bool) -> Line {
        eventually(what, || self.records().into_iter().find(|line| fits(line)))
    }

    /// Waits for the one line that a refused flow leaves.
    #[track_caller]
    pub(crate) fn decision(&self, flow: &str) -> Line {
        assert!(!flow.is_empty(), "no flow to look for");
        self.line("a decision", |line| {
            line.flow() == flow && line.is_decision()
        })
    }

    /// Waits for the line that says how a flow ended.
    #[track_caller]
    pub(crate) fn close(&self, flow: &str) -> Line {
        self.line("a close", |line| line.flow() == flow && line.is_close())
    }

    /// Waits for the end of the last flow that was let through, and gives it.
    #[track_caller]
    pub(crate) fn last_close(&self) -> Line {
        let decision = eventually("an allowed flow", || {
            self.records()
                .into_iter()
                .rfind(|line| line.is_decision() && line.verdict() == "allow")
        });
        self.close(decision.flow())
    }

    /// What `/v1/policy` says.
    pub(crate) fn generation(&self) -> serde_json::Value {
        self.ask("/v1/policy").json()
    }

    /// Replaces the policy, asks for a reload and waits until it was tried.
    #[track_caller]
    pub(crate) fn reload(&self, policy: &str) {
        let before = self.reloads();
        self.rewrite(policy);
        self.signal(Signal::HUP);
        until("a reload", || self.reloads() > before);
    }

    /// Replaces the policy in the file, in one step, and says nothing.
    pub(crate) fn rewrite(&self, policy: &str) {
        let next = self.folder().join("next.toml");
        std::fs::write(&next, self.plan.text(policy)).expect("a file");
        std::fs::rename(next, self.config()).expect("a file");
    }

    /// Replaces a file beside the configuration, asks for a reload and waits until it was tried.
    #[track_caller]
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let before = self.reloads();
        write(&self.folder().join(name), text);
        self.signal(Signal::HUP);
        until("a reload", || self.reloads() > before);
    }

    /// How often a reload was tried.
    pub(crate) fn reloads(&self) -> f64 {
        self.metrics().sum("tidegate_policy_reloads_total", &[])
    }

    /// Moves the clock of a gate with [`Plan::clock_by_hand`] by so many seconds.
    pub(crate) fn advance(&mut self, seconds: &str) {
        let running = self.running.as_mut().expect("a running gate");
        let stdin = running.child.stdin.as_mut().expect("a clock by hand");
        writeln!(stdin, "{seconds}").expect("told");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// SIGTERM, then waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let running = self.running.as_mut().expect("a running gate");
        eventually("the end of the process", || {
            running.child.try_wait().expect("a child")
        })
    }

    /// SIGKILL, and a new start with the same files.
    pub(crate) fn crash_and_restart(&mut self) {
        self.signal(Signal::KILL);
        self.ended();
        self.restart();
    }

    /// A new start of a gate that has ended, with the same files.
    pub(crate) fn restart(&mut self) {
        self.running = Some(Running::start(&self.config(), &self.plan));
    }

    /// Bytes of memory that the process has at the moment.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.running().child.id());
        let text = std::fs::read_to_string(path).expect("a running gate");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
        size.and_then(|size| size.parse::<u64>().ok())
            .expect("a size")
            * 1024
    }

    /// What it has said on stderr.
    pub(crate) fn said(&self) -> String {
        self.running().said.lock().expect("lines").join("\n")
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running gate")
    }
}

/// Writes a file; a key only for its owner.
fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("a file");
    if path.extension().is_some_and(|end| end == "key") {
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).expect("a mode");
    }
}

/// Another command of the program, run to its end.
pub(crate) fn command(words: &[&OsStr]) -> Outcome {
    let folder = TempDir::new().expect("a folder");
    Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path())
        .args(words)
        .within_time(DEADLINE)
        .run()
}

/// The program that is tested, without the environment's proxies.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// The process and what it said.
#[derive(Debug)]
struct Running {
    child: Child,
    proxies: Vec<SocketAddr>,
    admin: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start(config: &Path, plan: &Plan) -> Self {
        let mut command = match plan.prefix.split_first() {
            None if plan.by_hand => by_hand::command(config),
            None => program(),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(env!("CARGO_BIN_EXE_tidegate"));
                command
            }
        };
        if !plan.by_hand {
            command.arg("run").arg("--config").arg(config);
        }
        command.current_dir(config.parent().expect("a folder"));
        command
            .stdin(if plan.by_hand {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let said = listen(&mut child);
        let ready = |said: &[String]| said.iter().any(|line| line == "tidegate: ready");
        let failed = eventually("`tidegate: ready`", || {
            if ready(&said.lock().expect("lines")) {
                return Some(None);
            }
            child.try_wait().expect("a child").map(Some)
        });
        let lines = said.lock().expect("lines").clone();
        assert!(
            ready(&lines),
            "ended with {failed:?}:\n{}",
            lines.join("\n")
        );
        Self {
            child,
            proxies: addresses(&lines, "tidegate: proxy on "),
            admin: addresses(&lines, "tidegate: admin on ")[0],
            said,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, signal).expect("a signal");
    }
}

impl Drop for Gate {
    /// Whatever a test did, the records that it left have to be whole.
    fn drop(&mut self) {
        self.running = None;
        if self.tampered || thread::panicking() {
            return;
        }
        let flaw = super::chain::flaw(&self.log());
        assert!(flaw.is_none(), "the records of this test: {flaw:?}");
        let other = super::replayed::difference(&self.config(), &self.log());
        assert!(other.is_none(), "judged again: {other:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "the gate said:\n{}",
                self.said.lock().expect("lines").join("\n")
            );
        }
    }
}

/// Keeps what a child says on stderr.
fn listen(child: &mut Child) -> Arc<Mutex<Vec<String>>> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let (stderr, into) = (child.stderr.take().expect("a stderr"), said.clone());
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            into.lock().expect("lines").push(line);
        }
    });
    said
}

fn addresses(lines: &[String], prefix: &str) -> Vec<SocketAddr> {
    let texts = lines.iter().filter_map(|line| line.strip_prefix(prefix));
    texts
        .map(|text| text.trim().parse().expect("an address"))
        .collect()
}
