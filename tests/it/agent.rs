//! A whole agent behind `tidegate exec`, in a jail and outside: every flow of every command is tied
//! to its session, tool call, prompt, repository, branch, commit and process.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::hooks::{answers, git};
use crate::kit::{Line, Origin, Outcome, Program, TIERS, allow_more, names, need, read_log};

const HOST: &str = "files.example.com";
const REFUSED: &str = "blocked.example.com";

struct World {
    home: TempDir,
    origin: Origin,
    commit: String,
}

impl World {
    fn new() -> Self {
        let home = TempDir::new().expect("a home");
        let origin = Origin::http(answers(home.path()));
        let policy = format!(
            "[record]\nfile = \"decisions.jsonl\"\n{TIERS}{}{}
[[repository]]
match = \"forge.example/acme/web\"
tier = \"open\"

[[workspace]]
path = \"{}/web\"
repository = \"forge.example/acme/web\"
",
            names(&[HOST, REFUSED]),
            allow_more("files", HOST, origin.port(), "from.tiers = [\"open\"]"),
            home.path().canonicalize().expect("a path").display(),
        );
        std::fs::write(home.path().join("tidegate.toml"), policy).expect("a file");
        let copy = home.path().join("web");
        std::fs::create_dir(&copy).expect("a folder");
        git(&copy, &["init", "-q", "-b", "topic"]);
        git(&copy, &["commit", "-q", "--allow-empty", "-m", "First"]);
        let url = "https://forge.example/acme/web.git";
        git(&copy, &["remote", "add", "origin", url]);
        let commit = git(&copy, &["rev-parse", "HEAD"]).stdout.trim().to_owned();
        Self {
            home,
            origin,
            commit,
        }
    }

    /// Lets the agent run these commands at once, one Bash call each.
    fn agent(&self, options: &[&str], commands: &[String]) -> Outcome {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tidegate = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
        Program::at(&tidegate, self.home.path())
            .within(&self.home.path().join("web"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("npm_config_update_notifier", "false")
            .env("npm_config_audit", "false")
            .args(["exec", "--config"])
            .args([self.home.path().join("tidegate.toml")])
            .args(options)
            .args([Path::new("--"), &need("python3")])
            .args([
                here.join("tests/it/agent.py"),
                tidegate.clone(),
                self.home.path().to_owned(),
            ])
            .args(commands)
            .run()
    }

    fn decisions(&self) -> Vec<Line> {
        let lines = read_log(&self.home.path().join("decisions.jsonl"));
        lines.into_iter().filter(Line::is_decision).collect()
    }

    /// What has to stand in every line of a call.
    #[track_caller]
    fn names_everything(&self, line: &Line, call: &str, trust: &str) {
        for (field, value) in [
            ("tool_use_id", call),
            ("prompt.id", "prompt-1"),
            ("tidegate.tool.name", "Bash"),
            ("tidegate.session.trust", "verified"),
            ("tidegate.repository.trust", "verified"),
            ("tidegate.call.trust", trust),
            ("tidegate.vcs.trust", "asserted"),
            ("tidegate.channel", "bash"),
            ("vcs.repository.url.full", "forge.example/acme/web"),
            ("vcs.ref.head.name", "topic"),
            ("vcs.ref.head.revision", &*self.commit),
        ] {
            assert_eq!(line.text(field), value, "{field} of {line:?}");
        }
        for field in ["session.id", "process.pid", "process.command"] {
            assert!(line.has(field), "{field} of {line:?}");
        }
    }
}

#[test]
fn every_flow_of_an_agent_behind_exec_is_tied_to_its_call() {
    let world = World::new();
    let url = format!("http://{HOST}:{}", world.origin.port());
    let first = format!(
        "git clone -q {url}/repo.git clone && curl -sf {url}/file && \
         npm view --registry={url}/ demo name; curl -s http://{REFUSED}/; false"
    );
    let second = format!("for n in 1 2 3; do curl -sf -A second {url}/file; done");

    let outcome = world.agent(&[], &[first, second]);

    let outcome = outcome.succeeded().showed("a file");
    // The call that failed is told what was refused, and that it is policy.
    assert!(
        outcome.shows(REFUSED) && outcome.shows("additionalContext"),
        "{outcome:?}"
    );
    let lines = world.decisions();
    let of = |program: &str| {
        let has = |line: &&Line| line.text("process.executable.path").contains(program);
        lines.iter().filter(has).count()
    };
    assert!(
        of("git") >= 2 && of("node") >= 1 && of("curl") >= 5,
        "{lines:#?}"
    );
    for line in &lines {
        let command = line.text("process.command");
        // The shell of the second began while the first was under way: only its command line
        // tells the two apart.
        let (call, trust) = if command.contains("second") {
            ("toolu_2", "asserted")
        } else {
            ("toolu_1", "verified")
        };
        world.names_everything(line, call, trust);
    }
}

#[test]
fn every_flow_of_an_agent_in_a_jail_is_tied_to_its_call() {
    let world = World::new();
    let url = format!("http://{HOST}:{}", world.origin.port());
    let command = format!("curl -sf {url}/file && git clone -q {url}/repo.git clone");

    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/agent.py:ro");
    let package = package.display().to_string();
    let outcome = world.agent(&["--jail", "--share", &package], &[command]);

    if outcome.code == Some(3) {
        eprintln!("NOT TESTED HERE: {}", outcome.stderr.trim());
        return;
    }
    outcome.succeeded().showed("a file");
    let lines = world.decisions();
    assert!(lines.len() >= 3, "{lines:#?}");
    for line in &lines {
        world.names_everything(line, "toolu_1", "verified");
    }
}
