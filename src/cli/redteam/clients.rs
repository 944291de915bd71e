//! The clients that play the steps: curl, git and npm, as they are installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

use crate::policy::redteam::{Client, Step};

use super::origin::MARK;
use super::repositories;

/// The time limit for one client; then the client and its children are killed.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit that curl applies to itself (`-m`), in seconds.
const CURL_SECONDS: &str = "20";
/// Characters kept of the output of a client, at most.
const MAX_SAID: usize = 300;
/// The body of requests that have one.
const BODY: &str = "tidegate-redteam";

/// The settings of every client.
#[derive(Debug)]
pub(super) struct Clients {
    /// The folder for the files of clients.
    pub(super) folder: PathBuf,
    /// Variables by which clients trust the origin, and the authority of the gate.
    pub(super) trust: Vec<(&'static str, String)>,
}

/// One run of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    /// The id of the run, in the `User-Agent`.
    pub(super) run: &'a str,
    pub(super) step: &'a Step,
    /// Whether a redirect is followed.
    pub(super) follows: bool,
    /// The variables that name the proxy, with the credentials of the run.
    pub(super) proxy: &'a [(&'static str, String)],
    /// The working copy that git pushes.
    pub(super) copy: &'a Path,
}

/// How a client ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// The client ended by itself. Contains the exit code, and the end of its output.
    Exit(Option<i32>, String),
    /// The client was killed after [`CLIENT_TIMEOUT`].
    TooLate,
    /// The client did not start. Contains the reason.
    NotStarted(String),
}

/// Whether a client is installed.
pub(super) fn is_installed(client: Client) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(client.as_str()).is_file())
}

impl Clients {
    /// Runs the client of a step to its end.
    pub(super) async fn run(&self, turn: Turn<'_>) -> Ended {
        let home = self.folder.join(turn.run);
        if let Err(error) = tokio::fs::create_dir_all(&home).await {
            return Ended::NotStarted(error.to_string());
        }
        let mut command = Command::new(turn.step.client.as_str());
        command
            .args(turn.words())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(turn.proxy.iter().map(|(name, value)| (name, value)))
            .envs(self.trust.iter().map(|(name, value)| (name, value)))
            .envs(repositories::identity())
            .envs(npm_settings(&home))
            .env("HOME", &home)
            .env("GIT_HTTP_USER_AGENT", agent(turn.run))
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if turn.step.client == Client::Npm {
            command.env("npm_config_user_agent", agent(turn.run));
        }
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ended::NotStarted(error.to_string()),
        };
        let group = child.id();
        match timeout(CLIENT_TIMEOUT, child.wait_with_output()).await {
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Ended::Exit(output.status.code(), last(&said))
            }
            Ok(Err(error)) => Ended::NotStarted(error.to_string()),
            Err(_) => {
                end_group(group);
                Ended::TooLate
            }
        }
    }
}

impl Turn<'_> {
    fn words(&self) -> Vec<String> {
        match self.step.client {
            Client::Curl => curl(self.step, self.run, self.follows),
            Client::Git => self.git(),
            Client::Npm => npm(self.step),
        }
    }

    fn git(&self) -> Vec<String> {
        let words: Vec<&str> = self.step.flow.split_ascii_whitespace().collect();
        let copy = self.copy.display().to_string();
        let words: Vec<&str> = match words.as_slice() {
            ["PUSH", url, reference] => {
                let whole = reference.starts_with("refs/");
                let reference = if whole {
                    format!("HEAD:{reference}")
                } else {
                    format!("HEAD:refs/heads/{reference}")
                };
                return ["-C", &copy, "push", "-q", url, &reference]
                    .map(str::to_owned)
                    .to_vec();
            }
            [_, url, ..] => vec!["clone", "-q", url, "clone"],
            _ => Vec::new(),
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

/// The arguments of curl for the flow of a step.
pub(super) fn curl(step: &Step, run: &str, follows: bool) -> Vec<String> {
    let agent = agent(run);
    let mut words = [
        "-q",
        "-sS",
        "-g",
        "-m",
        CURL_SECONDS,
        "-o",
        "/dev/null",
        "-A",
        &agent,
    ]
    .map(str::to_owned)
    .to_vec();
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    if follows {
        add(&["-L", "--max-redirs", "1"]);
    }
    let flow: Vec<&str> = step.flow.split_ascii_whitespace().collect();
    match flow.as_slice() {
        ["TOOL", url, tool] => {
            let call = serde_json::json!({
                "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": tool, "arguments": {} },
            });
            add(&["-H", "Content-Type: application/json"]);
            add(&["-H", "Accept: application/json, text/event-stream"]);
            add(&["--data-binary", &call.to_string(), url]);
        }
        [method @ ("POST" | "PUT" | "PATCH"), url] => {
            add(&["-X", method, "--data-binary", BODY, url]);
        }
        [method, url] => add(&["-X", method, url]),
        [url] if url.contains("://") => add(&[url]),
        // A tunnel with TLS inside: the gate requires TLS without `grant.raw`.
        [place] => add(&[&format!("https://{place}/")]),
        _ => {}
    }
    words
}

/// The arguments of npm: the package is the last segment of the URL.
fn npm(step: &Step) -> Vec<String> {
    let (registry, name) = registry(step);
    let registry = format!("--registry={registry}");
    [
        "install",
        &name,
        &registry,
        "--foreground-scripts",
        "--no-save",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The registry and the name of the package that a step installs.
pub(super) fn registry(step: &Step) -> (String, String) {
    let url = step
        .flow
        .split_ascii_whitespace()
        .next_back()
        .unwrap_or_default();
    let (registry, name) = url.rsplit_once('/').unwrap_or((url, ""));
    (format!("{registry}/"), name.to_owned())
}

/// The flow of a step as a line of a shell, for a script.
pub(super) fn script(step: &Step, run: &str) -> String {
    let words = curl(step, run, false);
    let quoted = words
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    format!("curl {}", quoted.collect::<Vec<_>>().join(" "))
}

fn agent(run: &str) -> String {
    format!("{MARK}{run}")
}

/// Variables that stop npm from making requests besides the installation.
fn npm_settings(home: &Path) -> Vec<(&'static str, String)> {
    let cache = home.join("npm").display().to_string();
    let global = home.join("npmrc").display().to_string();
    let settings = [
        ("npm_config_cache", cache.as_str()),
        ("npm_config_update_notifier", "false"),
        ("npm_config_audit", "false"),
        ("npm_config_fund", "false"),
        ("npm_config_fetch_retries", "0"),
        ("npm_config_userconfig", "/dev/null"),
        ("npm_config_globalconfig", global.as_str()),
    ];
    settings
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
}

fn end_group(group: Option<u32>) {
    let group = group
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The end of a text, in one line.
fn last(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skip = line.chars().count().saturating_sub(MAX_SAID);
    line.chars().skip(skip).collect()
}
