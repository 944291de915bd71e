//! What a run left: the records of the gate beside what the model asked for, showed and was told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{Line, Outcome, Program, read_log};

use super::world::{Run, Way};

/// How each text of the gate about refusals begins.
const TOLD: &str = "tidegate, the network policy of this machine, refused";
/// The domain of every destination that a call names.
const DOMAIN: &str = ".example.com";

/// A run that was made.
pub(super) struct Played {
    folder: Option<TempDir>,
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
    /// Ids that the agent itself has for parts of the call: Codex makes several calls in one script.
    own: Vec<String>,
    pub(super) tool: String,
    /// Whether its connections come after its end.
    late: bool,
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
        let codex = commands_of_codex(folder.path());
        let asked = notes("asked.jsonl").into_iter().map(|line| {
            let command = line["args"]["cmd"].as_str();
            let own = codex.iter().filter(|(_, it)| Some(it.as_str()) == command);
            let asked = Asked {
                call: line.text("call").to_owned(),
                own: own.map(|(id, _)| id.clone()).collect(),
                tool: line.text("tool").to_owned(),
                late: line["late"].as_bool().unwrap_or_default(),
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
        for file in std::fs::read_dir(folder.path())
            .expect("a folder")
            .flatten()
        {
            let (name, path) = (file.file_name(), file.path());
            let is_log = path.extension().is_some_and(|end| end == "jsonl");
            if is_log && name.to_string_lossy().starts_with("decisions") {
                lines.extend(read_log(&path));
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
            folder: Some(folder),
            outcome,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("a folder").path()
    }

    pub(super) fn into_folder(mut self) -> TempDir {
        self.folder.take().expect("a folder")
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
        (!tool.is_empty())
            .then(|| self.asked.values().find(is_it))
            .flatten()
    }

    /// Panics unless every flow is tied to its call or to none, and to its session or to none.
    #[track_caller]
    pub(super) fn nothing_is_wrong(&self) -> &Self {
        let lines = self.decisions();
        let wrong: Vec<String> = lines.flat_map(|line| self.wrong_in(line)).collect();
        assert!(
            wrong.is_empty(),
            "{} ({:?}): {wrong:#?}",
            self.agent,
            self.way
        );
        self
    }

    /// Ties of a flow to another call or session than its own.
    fn wrong_in(&self, line: &Line) -> Vec<String> {
        let mut wrong = Vec::new();
        let owner = self.owner(line);
        let (call, session) = (line.text("tool_use_id"), line.text("session.id"));
        if !call.is_empty() && owner.is_none_or(|asked| !asked.is(call)) {
            wrong.push(format!("{} has {call}, and is of {owner:?}", about(line)));
        }
        let known = owner.map_or("", |asked| &*asked.session);
        if !session.is_empty() && !known.is_empty() && known != session {
            wrong.push(format!(
                "{} has session {session}, and is of {known}",
                about(line)
            ));
        }
        let tool = line.text("tidegate.tool.name");
        if !tool.is_empty() && owner.is_none_or(|asked| class_of(&asked.tool) != class_of(tool)) {
            wrong.push(format!("{} has {tool}, and is of {owner:?}", about(line)));
        }
        wrong.extend(self.contradicts_the_agent(line));
        wrong
    }

    /// Whether all flows of a class name its tool: an agent may give its calls no id.
    pub(super) fn names_the_tool(&self, of: &str) -> bool {
        let mut lines = self.decisions();
        let has_name = |line: &Line| {
            let tool = line.text("tidegate.tool.name");
            !tool.is_empty() && class_of(tool) == of
        };
        lines.all(|line| self.owner(line).is_none_or(|it| class(it) != of) || has_name(line))
    }

    /// Panics unless [`Played::nothing_is_wrong`] notices a tie that is moved to another call, to a
    /// flow of the agent itself, or to another session.
    #[track_caller]
    pub(super) fn a_wrong_tie_is_noticed(&self) -> &Self {
        let is_tied = |line: &&Line| line.has("tool_use_id");
        let tied = self.decisions().find(is_tied).expect("a tied flow");
        let own = self.owner(tied).expect("a call");
        let mut others = self.asked.values();
        let other = others.find(|asked| asked.call != own.call);
        let other = &other.expect("another call").call;
        let mut of_agent = self.decisions().filter(|line| self.owner(line).is_none());
        let of_agent = of_agent.next().expect("a flow of the agent");
        for planted in [
            tied.with("tool_use_id", other),
            of_agent.with("tool_use_id", &own.call),
            tied.with("session.id", "another"),
        ] {
            let wrong = self.wrong_in(&planted);
            assert!(!wrong.is_empty(), "not noticed: {planted:#?}");
        }
        self
    }

    /// What the agent itself reports of the call of a flow, where that is something else.
    fn contradicts_the_agent(&self, line: &Line) -> Option<String> {
        let call = line.text("tool_use_id");
        let told = self
            .telemetry
            .iter()
            .find(|told| !call.is_empty() && told.text("call") == call)?;
        let pairs = [("session.id", "session"), ("prompt.id", "prompt")];
        let differs = pairs.iter().find(|(ours, its)| {
            line.has(ours) && told.has(its) && line.text(ours) != told.text(its)
        });
        differs.map(|(ours, _)| {
            let value = line.text(ours);
            format!(
                "{ours} of {} is {value}, the agent says {told:?}",
                about(line)
            )
        })
    }

    /// Calls with a flow that is tied to none, by tool, with the flows.
    pub(super) fn untied(&self) -> BTreeMap<&str, Vec<String>> {
        let mut untied: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for line in self.decisions().filter(|line| !line.has("tool_use_id")) {
            if let Some(asked) = self.owner(line) {
                untied.entry(class(asked)).or_default().push(about(line));
            }
        }
        untied
    }

    /// Classes of tools with at least one flow.
    pub(super) fn used(&self) -> Vec<&str> {
        let mut used: Vec<&str> = Vec::new();
        for line in self.decisions() {
            if let Some(asked) = self.owner(line) {
                used.push(class(asked));
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
            assert!(
                used.contains(class),
                "no flow of {class}: {used:?} {:#?}",
                self.outcome
            );
            assert!(
                !untied.contains_key(class),
                "{class} is not tied: {untied:#?}"
            );
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
            let texts = shown.beside.iter().chain([&shown.result]);
            for host in texts.flat_map(|text| refused_hosts(text)) {
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

    /// Names of the calls with a flow that was refused, as far as the model read their results: the
    /// agent may end before a subagent goes on.
    fn refused(&self) -> BTreeSet<String> {
        let read = |name: &String| {
            let asked = self.asked.get(name);
            asked.is_some_and(|asked| self.shown.iter().any(|shown| shown.call == asked.call))
        };
        let refused = self.decisions().filter(|line| line.verdict() == "deny");
        let hosts = refused.filter_map(|line| line.text("server.address").strip_suffix(DOMAIN));
        hosts
            .filter_map(|host| Some(host.split_once('.')?.0.to_owned()))
            .filter(read)
            .collect()
    }

    /// Panics unless the model was told of each call with a refusal.
    #[track_caller]
    pub(super) fn every_refusal_is_told(&self) -> &Self {
        assert_eq!(self.told(), self.refused(), "{:#?}", self.shown);
        self
    }

    /// As [`Played::every_refusal_is_told`], but for what commands leave in the background.
    #[track_caller]
    pub(super) fn refusals_of_open_calls_are_told(&self) -> &Self {
        let refused = self.refused_in_open_calls();
        assert_eq!(self.told(), refused, "{:#?}", self.shown);
        self
    }

    /// Names of the calls with a refusal while they were open.
    fn refused_in_open_calls(&self) -> BTreeSet<String> {
        let is_late = |name: &String| self.asked.get(name).is_some_and(|asked| asked.late);
        let mut refused = self.refused();
        refused.retain(|name| !is_late(name));
        refused
    }

    /// Conversations that the agent names to its model, as they are on record.
    pub(super) fn conversations(&self) -> BTreeSet<&str> {
        let named = self
            .decisions()
            .map(|line| line.text("gen_ai.conversation.id"));
        named.filter(|id| !id.is_empty()).collect()
    }

    /// Panics unless each command that a refusal names explains that refusal, as it is written, and no
    /// refusal is told twice.
    #[track_caller]
    pub(super) fn what_the_model_read_works(&self) -> &Self {
        let mut told: Vec<&str> = Vec::new();
        let mut seen: Vec<&Shown> = Vec::new();
        for shown in &self.shown {
            if !seen
                .iter()
                .any(|it| it.beside == shown.beside && !it.beside.is_empty())
            {
                told.extend(shown.told());
            }
            seen.push(shown);
        }
        let commands: Vec<String> = told.iter().flat_map(|text| commands(text)).collect();
        let once: BTreeSet<&String> = commands.iter().collect();
        assert_eq!(once.len(), commands.len(), "told twice: {commands:#?}");
        assert!(
            !commands.is_empty(),
            "no command is named: {:#?}",
            self.shown
        );
        for command in commands {
            let program = Program::new("sh", &self.folder().join("home/web"))
                .env(
                    "PATH",
                    format!("{}:/usr/bin:/bin", program_folder().display()),
                )
                .args(["-c", &command]);
            let outcome = program.run();
            assert_eq!(outcome.code, Some(1), "{command}: {outcome:#?}");
            let shows_host = outcome.stdout.contains(".refused.example.com");
            assert!(shows_host, "{command}: {outcome:#?}");
        }
        self
    }

    /// How the model learns of a refusal, for the manual. A refusal of a command in the background is
    /// told only where another call follows.
    pub(super) fn what_it_reads(&self) -> &'static str {
        let (told, refused) = (self.told(), self.refused_in_open_calls());
        if self.asked.is_empty() {
            "nothing: it makes no calls"
        } else if told.is_superset(&refused) {
            "each refusal, with its reason and next step"
        } else if told.is_empty() {
            "what the client prints"
        } else {
            "some refusals, with reason and next step"
        }
    }

    /// Ids of the agent's own sessions, as it says them to the model.
    pub(super) fn sessions_of_the_agent(&self) -> BTreeSet<String> {
        let sessions = self.asked.values().map(|asked| asked.session.clone());
        sessions.filter(|session| !session.is_empty()).collect()
    }

    /// Whose id the flows of calls carry as their session, for the manual.
    pub(super) fn whose_session(&self) -> &'static str {
        let owned = self
            .decisions()
            .filter_map(|line| Some((line, self.owner(line)?)));
        let owned = owned.filter(|(_, asked)| !asked.late);
        let owned: Vec<_> = owned.collect();
        // By hand a session is known by the agent's own id, or not at all.
        let by_hand = |line: &Line| self.way == Way::ByHand && line.has("session.id");
        let is_of_agent = |(line, asked): &(&Line, &Asked)| {
            if asked.session.is_empty() {
                return line.has("tidegate.session.root") || by_hand(line);
            }
            line.text("session.id") == asked.session || line.has("tidegate.session.root")
        };
        if owned.iter().all(|(line, _)| !line.has("session.id")) {
            "none"
        } else if owned.iter().all(is_of_agent) {
            "the agent's"
        } else {
            "the gate's"
        }
    }

    /// Panics unless every flow of a call carries the session that the agent used for the call.
    #[track_caller]
    pub(super) fn all_sessions_are_right(&self) -> &Self {
        self.sessions_are_right(|_| true)
    }

    /// As [`Played::all_sessions_are_right`], but for what commands leave in the background.
    #[track_caller]
    pub(super) fn sessions_of_open_calls_are_right(&self) -> &Self {
        self.sessions_are_right(|asked| !asked.late)
    }

    #[track_caller]
    fn sessions_are_right(&self, counts: impl Fn(&Asked) -> bool) -> &Self {
        let owned = self
            .decisions()
            .filter_map(|line| Some((line, self.owner(line)?)));
        let owned = owned.filter(|(_, asked)| counts(asked));
        let wrong: Vec<String> = owned
            .filter(|(line, asked)| line.text("session.id") != asked.session)
            .map(|(line, asked)| {
                format!(
                    "{}: {:?}, not {}",
                    about(line),
                    line.text("session.id"),
                    asked.session
                )
            })
            .collect();
        assert!(
            wrong.is_empty(),
            "{} ({:?}): {wrong:#?}",
            self.agent,
            self.way
        );
        assert!(
            !self.used().is_empty(),
            "nothing was called: {:#?}",
            self.outcome
        );
        self
    }

    /// Panics unless the records name the agent in every flow with a session, where the gate started it.
    #[track_caller]
    pub(super) fn the_agent_is_named(&self, name: &str) {
        let known = self.decisions().filter(|line| line.has("session.id"));
        let names: BTreeSet<&str> = known.map(|line| line.text("tidegate.agent")).collect();
        let expected = if self.way == Way::ByHand { "" } else { name };
        assert_eq!(names, BTreeSet::from([expected]), "{:?}", self.way);
    }

    /// Calls whose results the model read in one message.
    fn calls_of_the_turn(&self, shown: &Shown) -> Vec<&str> {
        let same = |other: &&Shown| other.beside == shown.beside;
        self.shown
            .iter()
            .filter(same)
            .map(|shown| &*shown.call)
            .collect()
    }

    /// Names of the calls with a refusal that the model was told beside their results, or later.
    pub(super) fn told(&self) -> BTreeSet<String> {
        let texts = self.shown.iter().flat_map(Shown::told);
        let hosts = texts.flat_map(refused_hosts);
        hosts
            .filter_map(|host| Some(host.split('.').next()?.to_owned()))
            .collect()
    }
}

impl Asked {
    /// Whether an id is one of the call.
    fn is(&self, id: &str) -> bool {
        self.call == id || self.own.iter().any(|own| own == id)
    }
}

impl Shown {
    /// What the gate told beside the result, or in it.
    fn told(&self) -> impl Iterator<Item = &str> {
        let texts = self.beside.iter().chain([&self.result]);
        texts.filter_map(|text| Some(&text[text.find(TOLD)?..]))
    }
}

/// Commands that a text names, each on a line of its own. In a result the line ends may be escaped.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\n", "\n");
    let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
    let commands = lines.filter(|line| line.starts_with("tidegate "));
    let commands = commands.map(|line| line.split(['"', '<']).next().unwrap_or_default());
    commands.map(|line| line.trim().to_owned()).collect()
}

/// The ids and texts of the commands that Codex ran, as it keeps them.
fn commands_of_codex(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.join("home/.codex/sessions")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for line in read_log(&path) {
                let item = &line["payload"]["item"];
                let command = item["command"].as_array().and_then(|words| words.last());
                let command = command.and_then(Value::as_str);
                if let (Some(id), Some(command)) = (item["id"].as_str(), command) {
                    found.push((id.to_owned(), command.to_owned()));
                }
            }
        }
    }
    found
}

/// The folder of the program that is tested.
fn program_folder() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    program.parent().map(Path::to_owned).unwrap_or_default()
}

impl Drop for Played {
    /// Keeps the files, for a person to look at, where `TIDEGATE_KEEP` names a folder.
    fn drop(&mut self) {
        let place = std::env::var_os("TIDEGATE_KEEP").map(PathBuf::from);
        if let (Some(place), Some(folder)) = (place, self.folder.take()) {
            let kept = place.join(folder.path().file_name().unwrap_or_default());
            eprintln!("kept: {}", kept.display());
            let _ = std::fs::write(folder.path().join("stdout"), &self.outcome.stdout);
            let _ = std::fs::write(folder.path().join("stderr"), &self.outcome.stderr);
            let _ = std::fs::rename(folder.keep(), kept);
        }
    }
}

/// A flow in a few words.
fn about(line: &Line) -> String {
    let fields = [
        "network.protocol.name",
        "server.address",
        "url.path",
        "mcp.tool.name",
    ];
    fields
        .map(|field| line.text(field))
        .join(" ")
        .trim()
        .to_owned()
}

/// Hosts of `refused.example.com` that a text names.
fn refused_hosts(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c));
    let hosts = words.filter(|word| word.ends_with(".refused.example.com"));
    hosts.map(str::to_owned).collect()
}

/// What kind of call it is, in the same words for every agent.
fn class(asked: &Asked) -> &'static str {
    if asked.late {
        return "background commands";
    }
    class_of(&asked.tool)
}

fn class_of(tool: &str) -> &'static str {
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
