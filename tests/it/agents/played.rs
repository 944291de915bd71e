//! What a run left: the records of the gate beside what the model asked for, showed and was told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{Line, Outcome, read_log};

use super::world::{Run, Way};

/// The domain of every destination that a call names.
const DOMAIN: &str = ".example.com";

/// A run that was made.
pub(super) struct Played {
    folder: TempDir,
    pub(super) agent: &'static str,
    pub(super) way: Way,
    pub(super) outcome: Outcome,
    /// Every line of the records.
    pub(super) lines: Vec<Line>,
    /// What the model asked for, by the name of the call.
    pub(super) asked: BTreeMap<String, Asked>,
    /// What the model was shown of each call, in order.
    pub(super) shown: Vec<Shown>,
    /// What the agent reports of itself.
    pub(super) telemetry: Vec<Line>,
    /// Messages that reached the model's MCP servers.
    pub(super) mcp: Vec<Line>,
    /// Requests that reached the model.
    pub(super) requests: Vec<Line>,
}

/// A call that the model asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) call: String,
    pub(super) tool: String,
    /// The agent's own session at that moment; empty where it says none.
    pub(super) session: String,
}

/// What the model read of one call.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) call: String,
    pub(super) result: String,
    /// Texts beside the results of a turn: those of hooks.
    pub(super) beside: Vec<String>,
}

impl Played {
    pub(super) fn read(folder: TempDir, outcome: Outcome, run: &Run) -> Self {
        let notes = |kind: &str| read_log(&folder.path().join("notes").join(kind));
        let asked = notes("asked.jsonl").into_iter().map(|line| {
            let asked = Asked {
                call: line.text("call").to_owned(),
                tool: line.text("tool").to_owned(),
                session: line.text("session").to_owned(),
            };
            (line.text("as").to_owned(), asked)
        });
        let asked = asked.collect();
        let shown = notes("shown.jsonl").into_iter().map(|line| Shown {
            call: line.text("call").to_owned(),
            result: line.text("result").to_owned(),
            beside: texts(&line["beside"]),
        });
        let shown = shown.collect();
        let mut lines = Vec::new();
        for file in std::fs::read_dir(folder.path()).expect("a folder").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with("decisions") && name.ends_with(".jsonl") {
                lines.extend(read_log(&file.path()));
            }
        }
        Self {
            agent: run.agent.name,
            way: run.way,
            lines,
            asked,
            shown,
            telemetry: notes("telemetry.jsonl"),
            mcp: notes("mcp.jsonl"),
            requests: notes("requests.jsonl"),
            folder,
            outcome,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the files, for a person to look at, where `TIDEGATE_KEEP` names a folder.
    pub(super) fn keep(self) {
        if let Some(place) = std::env::var_os("TIDEGATE_KEEP") {
            let kept = PathBuf::from(place).join(self.folder.path().file_name().expect("a name"));
            eprintln!("kept: {}", kept.display());
            let _ = std::fs::write(self.folder().join("stdout"), &self.outcome.stdout);
            let _ = std::fs::write(self.folder().join("stderr"), &self.outcome.stderr);
            std::fs::rename(self.folder.keep(), kept).expect("a folder of the same file system");
        }
    }

    pub(super) fn decisions(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_decision())
    }

    /// The call that a flow belongs to, by its destination or its MCP tool; `None` where it belongs
    /// to none: those of the agent itself.
    pub(super) fn owner(&self, line: &Line) -> Option<&Asked> {
        let host = line.text("server.address").strip_suffix(DOMAIN);
        if let Some((name, _)) = host.and_then(|host| host.split_once('.')) {
            return self.asked.get(name);
        }
        let tool = line.text("mcp.tool.name");
        let is_it = |asked: &&Asked| asked.tool.ends_with(&format!("__{tool}"));
        (!tool.is_empty()).then(|| self.asked.values().find(is_it)).flatten()
    }

    /// Panics unless every flow is tied to its call or to none, and to its session or to none.
    #[track_caller]
    pub(super) fn nothing_is_wrong(&self) -> &Self {
        let mut wrong = Vec::new();
        for line in self.decisions() {
            let owner = self.owner(line);
            let (call, session) = (line.text("tool_use_id"), line.text("session.id"));
            if !call.is_empty() && owner.is_none_or(|asked| asked.call != call) {
                wrong.push(format!("{} has {call}, and is of {owner:?}", about(line)));
            }
            let known = owner.map_or("", |asked| &*asked.session);
            if !session.is_empty() && !known.is_empty() && known != session {
                wrong.push(format!("{} has session {session}, and is of {known}", about(line)));
            }
            wrong.extend(self.contradicts_the_agent(line));
        }
        assert!(wrong.is_empty(), "{} ({:?}): {wrong:#?}", self.agent, self.way);
        self
    }

    /// What the agent itself reports of the call of a flow, where that is something else.
    fn contradicts_the_agent(&self, line: &Line) -> Option<String> {
        let call = line.text("tool_use_id");
        let told = self.telemetry.iter().find(|told| !call.is_empty() && told.text("call") == call)?;
        let pairs = [("session.id", "session"), ("prompt.id", "prompt")];
        let differs = pairs.iter().find(|(ours, its)| {
            line.has(ours) && told.has(its) && line.text(ours) != told.text(its)
        });
        differs.map(|(ours, _)| {
            let value = line.text(ours);
            format!("{ours} of {} is {value}, the agent says {told:?}", about(line))
        })
    }

    /// Calls with a flow that is tied to none, by tool, with the flows.
    pub(super) fn untied(&self) -> BTreeMap<&str, Vec<String>> {
        let mut untied: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for line in self.decisions().filter(|line| !line.has("tool_use_id")) {
            if let Some(asked) = self.owner(line) {
                untied.entry(class(&asked.tool)).or_default().push(about(line));
            }
        }
        untied
    }

    /// Classes of tools with at least one flow.
    pub(super) fn used(&self) -> Vec<&str> {
        let mut used: Vec<&str> = Vec::new();
        for line in self.decisions() {
            if let Some(asked) = self.owner(line) {
                used.push(class(&asked.tool));
            }
        }
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Panics unless every call of these classes has flows, and all of them are tied to it.
    #[track_caller]
    pub(super) fn all_are_tied(&self, classes: &[&str]) -> &Self {
        let (used, untied) = (self.used(), self.untied());
        for class in classes {
            assert!(used.contains(class), "no flow of {class}: {used:?} {:#?}", self.outcome);
            assert!(!untied.contains_key(class), "{class} is not tied: {untied:#?}");
        }
        self
    }

    /// Panics unless each refusal that the model read beside a call is one of that call, or of an
    /// earlier call of its session.
    #[track_caller]
    pub(super) fn what_the_model_read_is_true(&self) -> &Self {
        let mut wrong = Vec::new();
        for (at, shown) in self.shown.iter().enumerate() {
            let turn: Vec<&str> = self.calls_of_the_turn(shown);
            let before = self.shown[..at].iter().map(|shown| shown.call.as_str());
            let known: Vec<&str> = before.chain(turn).collect();
            for host in shown.beside.iter().flat_map(|text| refused_hosts(text)) {
                let name = host.split('.').next().unwrap_or_default();
                let asked = self.asked.get(name);
                if !asked.is_some_and(|asked| known.contains(&asked.call.as_str())) {
                    wrong.push(format!("{host} is told at {}: {asked:?}", shown.call));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        self
    }

    /// Calls whose results the model read in one message.
    fn calls_of_the_turn(&self, shown: &Shown) -> Vec<&str> {
        let same = |other: &&Shown| other.beside == shown.beside;
        self.shown.iter().filter(same).map(|shown| &*shown.call).collect()
    }

    /// Names of the calls with a refusal that the model was told beside their results, or later.
    pub(super) fn told(&self) -> Vec<String> {
        let texts = self.shown.iter().flat_map(|shown| &shown.beside);
        let hosts = texts.flat_map(|text| refused_hosts(text));
        let mut names: Vec<String> =
            hosts.filter_map(|host| Some(host.split('.').next()?.to_owned())).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A flow in a few words.
fn about(line: &Line) -> String {
    let fields = ["network.protocol.name", "server.address", "url.path", "mcp.tool.name"];
    fields.map(|field| line.text(field)).join(" ").trim().to_owned()
}

/// Hosts of `refused.example.com` that a text names.
fn refused_hosts(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c));
    let hosts = words.filter(|word| word.ends_with(".refused.example.com"));
    hosts.map(str::to_owned).collect()
}

/// What kind of tool it is, in one word for every agent.
fn class(tool: &str) -> &str {
    match tool {
        "Bash" | "bash" | "run_shell_command" | "exec_command" | "shell" => "commands",
        "WebFetch" | "webfetch" | "web_fetch" => "fetches",
        "Agent" | "Task" | "task" => "subagents",
        _ => "MCP",
    }
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}
