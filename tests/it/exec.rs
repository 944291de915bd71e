//! A command behind a gate of its own: its variables, signals and code, what is on record, and
//! that nobody else can use it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::kit::{Line, Origin, Outcome, Program, Site, TIERS, allow_more, names, need, read_log};

const HOST: &str = "files.example.com";
const REFUSED: &str = "elsewhere.example.net";

/// Working copies and a policy: `web` is open, `payments` restricted; only `open` reaches HOST.
struct World {
    home: TempDir,
    origin: Origin,
}

impl World {
    fn new() -> Self {
        let home = TempDir::new().expect("a home");
        let site = Site::default().file("/hello.txt", "text/plain", "hello from the origin\n");
        let origin = Origin::http(site.answers());
        let world = Self { home, origin };
        let rule = allow_more("files", HOST, world.origin.port(), "tiers = [\"open\"]");
        let tiers = |name: &str, tier: &str| {
            format!("\n[[repository]]\nmatch = \"forge.example/acme/{name}\"\ntier = \"{tier}\"\n")
        };
        let policy = format!(
            "[record]\nfile = \"decisions.jsonl\"\n{TIERS}{}{}{}{rule}",
            tiers("web", "open"),
            tiers("payments", "restricted"),
            names(&[HOST, REFUSED])
        );
        std::fs::write(world.path("tidegate.toml"), policy).expect("a file");
        world.working_copy("web");
        world.working_copy("payments");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn working_copy(&self, name: &str) {
        let folder = self.path(name);
        let url = format!("https://ana:hush@forge.example/acme/{name}.git");
        let git = |words: &[&str]| {
            let git = Program::new("git", self.home.path()).env("GIT_CONFIG_NOSYSTEM", "1");
            git.args(["-c", "user.name=Ana", "-c", "user.email=ana@acme.example"])
                .args(words)
                .run()
                .succeeded()
        };
        let at = folder.display().to_string();
        git(&["init", "-q", "-b", "main", &at]);
        git(&["-C", &at, "commit", "-q", "--allow-empty", "-m", "First"]);
        git(&["-C", &at, "remote", "add", "origin", &url]);
    }

    fn url(&self) -> String {
        format!("http://{HOST}:{}/hello.txt", self.origin.port())
    }

    /// Runs a script behind its own gate, in a working copy.
    fn exec(&self, repository: &str, options: &[&str], script: &str) -> Outcome {
        Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), self.home.path())
            .within(&self.path(repository))
            .args(["exec", "--config"])
            .args([self.path("tidegate.toml")])
            .args(options)
            .args([
                Path::new("--"),
                &need("bash"),
                Path::new("-c"),
                Path::new(script),
            ])
            .run()
    }

    fn records(&self) -> Vec<Line> {
        let files = std::fs::read_dir(self.home.path())
            .expect("a folder")
            .flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "jsonl"));
        logs.flat_map(|file| read_log(&file.path())).collect()
    }

    fn decisions(&self) -> Vec<Line> {
        let lines = self.records();
        lines.into_iter().filter(Line::is_decision).collect()
    }
}

#[test]
fn the_code_of_a_command_is_its_own() {
    let world = World::new();
    assert_eq!(world.exec("web", &[], "exit 7").code, Some(7));
    assert_eq!(world.exec("web", &[], "kill -9 $$").code, Some(137));
    assert_eq!(
        world.exec("web", &[], "exec nowhere-at-all").code,
        Some(127)
    );
    let quiet = world.exec("web", &[], "true");
    assert_eq!((quiet.code, &*quiet.stderr), (Some(0), ""));
    let at = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let run = |words: &[&str]| Program::at(at, world.home.path()).args(words).run().code;
    assert_eq!(run(&["exec", "--", "nowhere-at-all"]), Some(127));
    assert_eq!(run(&["exec", "--", "/"]), Some(126));
    assert_eq!(run(&["exec", "--repo", "/nowhere", "--", "true"]), Some(2));
    assert_eq!(run(&["exec", "--config", "nowhere", "--", "true"]), Some(2));
}

#[test]
fn every_record_names_session_repository_commit_channel_and_process() {
    let world = World::new();
    let script = format!(
        "curl -sS {}; curl -s http://{REFUSED}/; \
         (setsid curl -sS -o late {} & ) ; until test -s late; do :; done",
        world.url(),
        world.url()
    );
    let outcome = world.exec("web", &[], &script);
    let outcome = outcome.succeeded().showed("hello from the origin");
    assert!(
        outcome.stderr.contains("  allowed       2  "),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("  refused       1  "),
        "{outcome:?}"
    );
    let next = format!("next: tidegate explain http://{REFUSED}/ --config ");
    let outcome = outcome.showed(&next);
    assert!(!outcome.stderr.contains("hush"), "{outcome:?}");
    let lines = world.decisions();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        assert_eq!(line.text("tidegate.session.trust"), "verified", "{line:?}");
        let repository = line.text("vcs.repository.url.full");
        assert_eq!(repository, "forge.example/acme/web", "{line:?}");
        assert_eq!(line.text("vcs.ref.head.name"), "main", "{line:?}");
        assert_eq!(line.text("vcs.ref.head.revision").len(), 40, "{line:?}");
        assert_eq!(line.text("tidegate.channel"), "bash", "{line:?}");
        assert!(
            line.text("process.executable.path").ends_with("curl"),
            "{line:?}"
        );
        assert!(
            line.has("session.id") && line.has("process.pid"),
            "{line:?}"
        );
    }
}

#[test]
fn without_a_policy_it_observes_and_says_so() {
    let world = World::new();
    let at = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    Program::at(at, world.home.path())
        .args(["exec", "--", "true"])
        .run()
        .succeeded()
        .showed("no policy: nothing is refused");
}

#[test]
fn two_sessions_at_once_have_their_own_tiers_and_no_way_to_the_other_s() {
    let world = World::new();
    // The open one waits until the restricted one has tried everything it knows of it.
    let open = format!(
        "echo \"$TIDEGATE_PROXY $TIDEGATE_SESSION $TIDEGATE_TOKEN\" >../leak.part; \
         mv ../leak.part ../leak; until test -e ../tried; do sleep 0.05; done; curl -sS {}",
        world.url()
    );
    let url = world.url();
    let restricted = format!(
        "until test -e ../leak; do sleep 0.05; done; read -r at session token <../leak; \
         code() {{ curl -s -o /dev/null -w '%{{http_code}} ' --noproxy '' \"$@\" {url}; }}; \
         code; code -x \"http://$session.bash:$token@$at\"; code -x \"http://$at\"; \
         code -x \"http://$session@$at\"; code -x \"http://$session.bash:$token@$TIDEGATE_PROXY\"; \
         code -x \"http://$at\" --proxy-header \"Proxy-Authorization: Bearer $token\"; touch ../tried"
    );
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| world.exec("web", &[], &open));
        let second = world.exec("payments", &[], &restricted);
        (first.join().expect("the first"), second)
    });
    first.succeeded().showed("hello from the origin");
    assert_eq!(second.stdout, "403 407 407 407 407 407 ", "{second:?}");
    let allowed = world
        .decisions()
        .into_iter()
        .filter(|line| line.verdict() == "allow");
    let tiers: Vec<String> = allowed
        .map(|line| line.text("tidegate.tier").into())
        .collect();
    assert_eq!(tiers, ["open"]);
}

#[test]
fn a_signal_to_us_is_one_to_the_command() {
    let world = World::new();
    let script = "trap 'echo ended; exit 9' TERM; kill -TERM $PPID; while :; do sleep 0.05; done";
    let outcome = world.exec("web", &[], script).showed("ended");
    assert_eq!(outcome.code, Some(9));
}

#[test]
fn ctrl_c_in_a_terminal_reaches_the_command_once() {
    let world = World::new();
    let script = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
said, typed = b"", False
while True:
    try: more = os.read(terminal, 1024)
    except OSError: break
    if not more: break
    said += more
    if b"ready" in said and not typed:
        os.write(terminal, b"\x03")
        typed = True
print(said.count(b"interrupted"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let command = "trap 'echo interrupted; exit 8' INT; echo ready; while :; do sleep 0.05; done";
    Program::new("python3", world.home.path())
        .args(["-c", script, env!("CARGO_BIN_EXE_tidegate"), "exec", "--"])
        .args(["bash", "-c", command])
        .run()
        .succeeded()
        .showed("1 8\n");
}

#[test]
fn a_jail_lets_one_out_and_keeps_the_rest() {
    let world = World::new();
    let script = format!(
        "curl -sS {}; unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy; \
         curl -sS -m 10 -o /dev/null https://{REFUSED}/ || echo contained; \
         exec 2>/dev/null; (exec 3<>/dev/tcp/192.0.2.1/443; read -r -u 3 x) || echo contained; exit 5",
        world.url()
    );
    let outcome = world.exec("web", &["--jail"], &script);
    if outcome.code == Some(3) {
        eprintln!("NOT TESTED HERE: no jail can be made: {}", outcome.stderr);
        return;
    }
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    assert_eq!(
        outcome.stdout,
        "hello from the origin\ncontained\ncontained\n"
    );
    let lines = world.decisions();
    let allowed = lines
        .iter()
        .filter(|line| line.verdict() == "allow")
        .count();
    assert_eq!(allowed, 1, "{lines:?}");
    for line in lines {
        assert_eq!(line.text("tidegate.session.trust"), "verified", "{line:?}");
    }
}
