//! The world of one run: a home, a working copy, a policy, certificates, and a scripted model as the
//! only other machine of the network (`tests/agents`).

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::hooks::git;
use crate::kit::{Outcome, Pki, Program, script};

use super::agent::Agent;
use super::played::Played;

/// The ordinary user that agents run as.
const USER: u32 = 1000;
/// How long a run may take.
const RUN_TIMEOUT: Duration = Duration::from_mins(5);
/// Names of the model's certificate.
const NAMES: &[&str] = &[
    "*.allowed.example.com",
    "*.docs.example.com",
    "*.git.example.com",
    "*.npm.example.com",
    "*.refused.example.com",
    "mcp.example.com",
    "*.anthropic.com",
    "*.claude.ai",
    "claude.ai",
    "*.claude.com",
    "*.openai.com",
    "chatgpt.com",
    "*.chatgpt.com",
    "*.googleapis.com",
    "github.com",
    "*.github.com",
    "*.githubusercontent.com",
    "models.dev",
    "opencode.ai",
    "*.opencode.ai",
    concat!("registry.npmjs", ".org"),
    concat!("pypi", ".org"),
    "*.githubcopilot.com",
    "*.i.posthog.com",
    "*.posthog.com",
    "*.applicationinsights.azure.com",
    "*.exp-tas.com",
    "openrouter.ai",
];

/// How an agent is started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// By `tidegate exec`.
    Exec,
    /// By `tidegate exec --jail`.
    Jail,
    /// By `tidegate exec --join`, behind a gate that runs already.
    Join,
    /// By hand, behind a gate that runs already, with the settings that `tidegate init` writes.
    ByHand,
}

impl Way {
    /// As the manual calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exec => "`exec`",
            Self::Jail => "`exec --jail`",
            Self::Join => "`exec --join`",
            Self::ByHand => "by hand",
        }
    }
}

/// One run that is to be made.
pub(super) struct Run {
    pub(super) agent: &'static Agent,
    pub(super) way: Way,
    pub(super) inspected: bool,
    /// A file of `tests/agents/scenarios`.
    scenario: &'static str,
    policy: String,
    more: Vec<String>,
    steps: Option<String>,
    websocket: bool,
    /// Options of `tidegate exec`.
    options: Vec<String>,
    has_mcp_servers: bool,
    /// Words before the agent's own; a script takes the place of the agent.
    wrapper: &'static [&'static str],
    /// Settings of the agent: a path below the home, and the text.
    settings: Vec<(&'static str, &'static str)>,
    /// The folder of an earlier run, which goes on.
    before: Option<TempDir>,
}

impl Run {
    pub(super) fn of(agent: &'static Agent, way: Way, scenario: &'static str) -> Self {
        Self {
            agent,
            way,
            inspected: false,
            scenario,
            policy: String::new(),
            more: Vec::new(),
            steps: None,
            websocket: false,
            options: Vec::new(),
            has_mcp_servers: false,
            wrapper: &[],
            settings: Vec::new(),
            before: None,
        }
    }

    /// TLS is inspected.
    pub(super) fn inspected(mut self) -> Self {
        self.inspected = true;
        self
    }

    /// More lines of policy.
    pub(super) fn policy(mut self, lines: &str) -> Self {
        self.policy.push_str(lines);
        self
    }

    /// More words on the agent's command line.
    pub(super) fn words(mut self, words: &[&str]) -> Self {
        self.more
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// At a terminal, where these keys are typed (`tests/agents/terminal.py`).
    pub(super) fn typing(mut self, steps: &serde_json::Value) -> Self {
        self.steps = Some(steps.to_string());
        self
    }

    /// The model speaks the WebSocket of the Responses API.
    pub(super) fn websocket(mut self) -> Self {
        self.websocket = true;
        self
    }

    /// More options of `tidegate exec`.
    pub(super) fn options(mut self, options: &[&str]) -> Self {
        self.options
            .extend(options.iter().map(|it| (*it).to_owned()));
        self
    }

    /// With the MCP servers of the scenario.
    pub(super) fn mcp_servers(mut self) -> Self {
        self.has_mcp_servers = true;
        self
    }

    /// Behind a wrapper, or by a script of one word that starts the agent (`bin/work`).
    pub(super) fn behind(mut self, words: &'static [&'static str]) -> Self {
        self.wrapper = words;
        self
    }

    /// With a file of settings in the home.
    pub(super) fn setting(mut self, path: &'static str, text: &'static str) -> Self {
        self.settings.push((path, text));
        self
    }

    /// In the home of another run, which ended.
    pub(super) fn after(mut self, played: Played) -> Self {
        self.before = Some(played.into_folder());
        self
    }

    /// Makes the run; `None`, and a line that says why, where this machine cannot.
    pub(super) fn play(mut self) -> Option<Played> {
        if let Some(why) = self.missing() {
            eprintln!("NOT TESTED HERE: {}: {why}", self.agent.name);
            return None;
        }
        let world = match self.before.take() {
            Some(folder) => World::again(folder, &self),
            None => World::new(&self),
        };
        let outcome = world.run(&self);
        assert_ne!(
            outcome.code,
            Some(99),
            "the scripted model ended: {outcome:#?}"
        );
        if outcome.code == Some(125) || outcome.code == Some(3) {
            eprintln!(
                "NOT TESTED HERE: {}: {}",
                self.agent.name,
                outcome.stderr.trim()
            );
            return None;
        }
        Some(Played::read(world.folder, outcome, &self))
    }

    fn missing(&self) -> Option<&'static str> {
        if !is_root() {
            return Some("only root makes the network that agents are tried in");
        }
        (!self.agent.is_installed()).then_some("it is not installed: tests/run installs it")
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

struct World {
    folder: TempDir,
}

impl World {
    fn new(run: &Run) -> Self {
        let folder = TempDir::with_prefix("agents-").expect("a folder");
        let world = Self { folder };
        for name in [
            "bin",
            "agents",
            "model",
            "program",
            "notes",
            "certificates",
            "forge",
        ] {
            std::fs::create_dir(world.at(name)).expect("a folder");
        }
        world.certificates();
        world.home(run);
        world.repository();
        world.programs(run);
        world.written(run)
    }

    /// The same world, without what an earlier run left beside the home.
    fn again(folder: TempDir, run: &Run) -> Self {
        let world = Self { folder };
        for name in [
            "notes",
            "decisions.jsonl",
            "gate.log",
            "inspect-ca.pem",
            "inspect-ca.key",
        ] {
            let path = world.at(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
        std::fs::create_dir(world.at("notes")).expect("a folder");
        world.written(run)
    }

    fn written(self, run: &Run) -> Self {
        let scenario = here().join("scenarios").join(run.scenario);
        std::fs::copy(scenario, self.at("scenario.json")).expect("a scenario");
        std::fs::write(self.at("tidegate.toml"), policy(run)).expect("a file");
        self.hand_over();
        self
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certificates(&self) {
        let pki = Pki::new();
        let folder = self.at("certificates");
        pki.write(&folder);
        let (certificate, key) = pki.issue(|params| {
            let names = NAMES.iter().map(|name| (*name).to_owned());
            let with_names = rcgen::CertificateParams::new(names.collect::<Vec<_>>());
            params.subject_alt_names = with_names.expect("names").subject_alt_names;
        });
        std::fs::write(folder.join("origin.pem"), certificate + &pki.pem()).expect("a file");
        std::fs::write(folder.join("origin.key"), key).expect("a file");
        let roots = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt");
        let roots = roots.unwrap_or_default() + &pki.pem();
        std::fs::write(self.at("roots.pem"), roots).expect("a file");
    }

    fn home(&self, run: &Run) {
        let home = self.at("home");
        let copy = home.join("web");
        std::fs::create_dir_all(&copy).expect("a folder");
        git(&copy, &["init", "-q", "-b", "main"]);
        git(&copy, &["commit", "-q", "--allow-empty", "-m", "First"]);
        git(
            &copy,
            &["remote", "add", "origin", "https://github.com/acme/web.git"],
        );
        let servers = super::agent::mcp_servers(self.folder.path());
        std::fs::write(self.at("mcp-servers.json"), servers).expect("a file");
        let own = run
            .settings
            .iter()
            .map(|(path, text)| (*path, (*text).to_owned()));
        for (path, text) in run.agent.files(self.folder.path()).into_iter().chain(own) {
            let path = home.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
    }

    fn repository(&self) {
        let copy = self.at("home/web");
        git(
            &copy,
            &["clone", "-q", "--bare", ".", "../../forge/demo.git"],
        );
    }

    /// The programs by the names that users type.
    fn programs(&self, run: &Run) {
        let bin = self.at("bin");
        symlink(self.at("program/tidegate"), bin.join("tidegate")).expect("a link");
        script(
            &bin.join("work"),
            &format!("exec {} \"$@\"", run.agent.command),
        );
        symlink(
            run.agent.program(&self.at("agents")),
            bin.join(run.agent.command),
        )
        .expect("a link");
    }

    fn hand_over(&self) {
        let owner = format!("{USER}:{USER}");
        let chown = Program::new("chown", self.folder.path());
        let (folder, home) = (self.folder.path(), self.at("home"));
        chown
            .args([owner.as_ref(), folder.as_os_str()])
            .run()
            .succeeded();
        let chown = Program::new("chown", self.folder.path());
        chown
            .args(["-R".as_ref(), owner.as_ref(), home.as_os_str()])
            .run()
            .succeeded();
        let chmod = Program::new("chmod", self.folder.path());
        chmod
            .args(["755".as_ref(), folder.as_os_str()])
            .run()
            .succeeded();
    }

    fn run(&self, run: &Run) -> Outcome {
        let tidegate = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
        let mut program = Program::at(&here().join("run.sh"), self.folder.path())
            .env("TIDEGATE", &tidegate)
            .env("AGENTS", super::agent::installed())
            .env("WEBSOCKET", if run.websocket { "yes" } else { "no" })
            .within_time(RUN_TIMEOUT)
            .args([self.folder.path()]);
        for (name, value) in run.agent.variables {
            program = program.args([format!("{name}={value}")]);
        }
        if !run.inspected {
            let roots = self.at("certificates/ca.pem");
            program = program.args([format!("NODE_EXTRA_CA_CERTS={}", roots.display())]);
        }
        program.args(self.words(run)).run()
    }

    /// The command line, from the shell that starts it to the agent's own words.
    fn words(&self, run: &Run) -> Vec<String> {
        let path = |name: &str| self.at(name).display().to_string();
        let config = path("tidegate.toml");
        let mut words: Vec<String> = Vec::new();
        let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        let script = |name: &str| here().join(name).display().to_string();
        let prepare = if run.inspected {
            "tidegate ca init --config \"$0\" >&2 && "
        } else {
            ""
        };
        let init = match run.way {
            Way::ByHand => run.agent.init,
            Way::Join => run.agent.init_joined,
            Way::Exec | Way::Jail => run.agent.init_launched,
        };
        let prepared = format!("{prepare}{init}exec \"$@\"");
        add(&["sh", "-c", &prepared, &config]);
        if let Some(steps) = &run.steps {
            add(&["python3", &script("terminal.py"), steps, "--"]);
        }
        let shared = ["agents", "model", "program", "mcp-servers.json"]
            .map(|name| format!("{}:ro", path(name)));
        match run.way {
            Way::Exec => add(&["tidegate", "exec", "--config", &config]),
            Way::Jail => {
                add(&["tidegate", "exec", "--jail", "--config", &config]);
                let of_home = |name: &&str| self.at("home").join(name).display().to_string();
                let own: Vec<String> = run.agent.shares.iter().map(of_home).collect();
                for share in shared.iter().chain(&own) {
                    add(&["--share", share]);
                }
            }
            Way::Join => {
                let control = format!("unix:{}", path("control.sock"));
                add(&[&script("behind-gate.sh"), &config, "tidegate", "exec"]);
                add(&[
                    "--join",
                    "http://127.0.0.1:3128",
                    "--admin",
                    "127.0.0.1:3130",
                ]);
                add(&["--control", &control]);
            }
            Way::ByHand => {
                let control = format!("TIDEGATE_CONTROL=unix:{}", path("control.sock"));
                add(&["env", &control, &script("behind-gate.sh"), &config]);
            }
        }
        if run.way != Way::ByHand {
            for option in &run.options {
                add(&[option]);
            }
            add(&["--"]);
        }
        add(run.wrapper);
        if run.wrapper.len() != 1 {
            add(&[run.agent.command]);
        }
        add(if run.steps.is_some() {
            run.agent.at_terminal
        } else {
            run.agent.words
        });
        if run.has_mcp_servers {
            add(&["--mcp-config", &path("mcp-servers.json")]);
        }
        words.extend(run.more.iter().cloned());
        words
    }
}

/// The folder of everything that is not Rust.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents")
}

fn policy(run: &Run) -> String {
    let read = |name: &str| std::fs::read_to_string(here().join(name)).expect("a policy");
    let inspect = if run.inspected {
        read("inspect.toml")
    } else {
        String::new()
    };
    read("policy.toml") + &inspect + &run.policy
}
