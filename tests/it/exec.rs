//! A command behind a gate of its own: its variables, signals and code, what is on record, and
//! that nobody else can use it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::clients;
use crate::kit::{
    Gate, Line, Origin, Outcome, Pki, Program, Site, TIERS, allow_more, git_backend, names, need,
    npm_registry, read_log, script,
};

const HOST: &str = "files.example.com";
const REFUSED: &str = "elsewhere.example.net";

/// Working copies and a policy: `web` is open, `payments` restricted; only `open` reaches HOST.
struct World {
    home: TempDir,
    origin: Origin,
}

impl World {
    fn new() -> Self {
        let site = Site::default().file("/hello.txt", "text/plain", "hello from the origin\n");
        Self::of(Origin::http(site.answers()))
    }

    fn of(origin: Origin) -> Self {
        let home = TempDir::new().expect("a home");
        let world = Self { home, origin };
        let rule = allow_more(
            "files",
            HOST,
            world.origin.port(),
            "from.tiers = [\"open\"]",
        );
        let tiers = |name: &str, tier: &str| {
            format!("\n[[repository]]\nmatch = \"forge.example/acme/{name}\"\ntier = \"{tier}\"\n")
        };
        let real = world.home.path().canonicalize().expect("a path");
        let mapped = ["web", "payments"].map(|name| {
            let path = real.join(name).display().to_string();
            format!(
                "\n[[workspace]]\npath = \"{path}\"\nrepository = \"forge.example/acme/{name}\"\n"
            )
        });
        let policy = format!(
            "[record]\nfile = \"decisions.jsonl\"\n{TIERS}{}{}{}{rule}{}",
            tiers("web", "open"),
            tiers("payments", "restricted"),
            names(&[HOST, REFUSED]),
            mapped.concat()
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
        self.prepared(repository, options, script).run()
    }

    fn prepared(&self, repository: &str, options: &[&str], script: &str) -> Program {
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
    let said = format!(
        "tidegate: no flows; policy {}, tier open; records in {}\n",
        world.path("tidegate.toml").display(),
        world.path("decisions.jsonl").display()
    );
    assert_eq!((quiet.code, quiet.stderr), (Some(0), said));
    let at = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let run = |words: &[&str]| Program::at(at, world.home.path()).args(words).run().code;
    assert_eq!(run(&["exec", "--", "nowhere-at-all"]), Some(127));
    assert_eq!(run(&["exec", "--", "/"]), Some(126));
    assert_eq!(run(&["exec", "--repo", "/nowhere", "--", "true"]), Some(2));
    assert_eq!(run(&["exec", "--config", "nowhere", "--", "true"]), Some(2));
}

#[test]
fn a_command_that_cannot_start_ends_its_session() {
    let world = World::new();
    let at = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let config = world.path("tidegate.toml").display().to_string();
    let failed = Program::at(at, world.home.path())
        .args(["exec", "--config", &config, "--", "nowhere-at-all"])
        .run();
    assert_eq!(failed.code, Some(127), "{failed:#?}");
    let lines = world.records();
    let sessions = |event: &str| {
        let named = lines.iter().filter(|line| line.name() == event);
        named
            .map(|line| line.text("session.id").to_owned())
            .collect::<Vec<_>>()
    };
    let started = sessions("session_started");
    assert_eq!(started.len(), 1, "{lines:#?}");
    assert_eq!(started, sessions("session_ended"));
}

#[test]
fn check_names_the_hosts_whose_tunnels_may_carry_telemetry() {
    let home = TempDir::new().expect("a home");
    let check = |text: &str| {
        let file = home.path().join("tidegate.toml");
        std::fs::write(&file, text).expect("a file");
        let at = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let run = Program::at(at, home.path()).args(["check", &file.display().to_string()]);
        run.run().succeeded().stdout
    };
    let opaque = check("");
    assert!(
        opaque.contains("telemetry in tunnels to api.anthropic.com")
            && opaque.contains("tidegate env --no-telemetry"),
        "{opaque}"
    );
    let refused = check(
        "[tiers]\norder = [\"standard\"]\n[tier.standard]\ndefault = \"deny\"\nallow = [\"auth\"]\n",
    );
    assert!(!refused.contains("telemetry in tunnels"), "{refused}");
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
    // What is to be typed next names the flow, and works as it is written.
    let next = outcome
        .stderr
        .lines()
        .find_map(|line| line.split("next: tidegate ").nth(1));
    let next = format!(
        "{} {}",
        env!("CARGO_BIN_EXE_tidegate"),
        next.expect("a command")
    );
    let explained = Program::new("bash", world.home.path())
        .args(["-c", &next])
        .run();
    explained.showed("not_allowed").showed(REFUSED);
    assert!(!outcome.stderr.contains("hush"), "{outcome:?}");
    let lines = world.decisions();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        names_everything(&line, "curl");
    }
}

/// Whose it is, from which working copy, and which program asked.
#[track_caller]
fn names_everything(line: &Line, program: &str) {
    assert_eq!(line.text("tidegate.session.trust"), "verified", "{line:?}");
    let repository = line.text("vcs.repository.url.full");
    assert_eq!(repository, "forge.example/acme/web", "{line:?}");
    for (field, value) in [
        ("tidegate.repository.trust", "verified"),
        ("tidegate.repository.basis", "workspace"),
        ("tidegate.vcs.trust", "asserted"),
    ] {
        assert_eq!(line.text(field), value, "{line:?}");
    }
    assert_eq!(line.text("vcs.ref.head.name"), "main", "{line:?}");
    assert_eq!(line.text("vcs.ref.head.revision").len(), 40, "{line:?}");
    assert_eq!(line.text("tidegate.channel"), "bash", "{line:?}");
    let path = Path::new(line.text("process.executable.path"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    assert!(name.starts_with(program), "{line:?}");
    assert!(
        line.has("session.id") && line.has("process.pid"),
        "{line:?}"
    );
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

/// Runs a third-party program behind a gate of its own; the outcome has its requests.
#[track_caller]
fn passes(world: &World, ca: &Path, script: &str, program: &str) {
    let mut prepared = world.prepared("web", &[], script);
    for name in [
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "npm_config_cafile",
    ] {
        prepared = prepared.env(name, ca);
    }
    prepared
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("npm_config_update_notifier", "false")
        .env("npm_config_audit", "false")
        .run()
        .succeeded();
    assert!(world.origin.connections() > 0, "nothing reached the origin");
    let lines = world.decisions();
    assert!(!lines.is_empty());
    for line in lines {
        assert_eq!(line.verdict(), "allow", "{line:?}");
        names_everything(&line, program);
    }
}

#[test]
fn what_git_asks_names_everything() {
    let root = TempDir::new().expect("a folder");
    clients::repository(root.path());
    let place = root.path().to_owned();
    let world = World::of(Origin::http(git_backend(place)));
    let port = world.origin.port();
    let script = format!("git clone -q http://{HOST}:{port}/repo.git copy && cat copy/README.md");
    passes(&world, Path::new("/dev/null"), &script, "git");
}

#[test]
fn what_npm_asks_names_everything() {
    let pki = Pki::new();
    let world = World::of(clients::origin("https", &pki, HOST, npm_registry));
    let ca = pki.write(world.home.path());
    let port = world.origin.port();
    let script = format!("npm install --no-save --registry=https://{HOST}:{port}/ demo");
    passes(&world, &ca, &script, "node");
}

/// Over TLS, one page.
fn pages() -> (World, PathBuf) {
    let pki = Pki::new();
    let site = Site::default().file("/hello.txt", "text/plain", "hello\n");
    let world = World::of(Origin::https(&pki, &[HOST], site.answers()));
    let ca = pki.write(world.home.path());
    (world, ca)
}

#[test]
fn what_requests_asks_names_everything() {
    let (world, ca) = pages();
    let port = world.origin.port();
    let script = format!(
        "python -c 'import requests; requests.get(\"https://{HOST}:{port}/hello.txt\").text'"
    );
    passes(&world, &ca, &script, "python");
}

#[test]
fn what_the_https_of_node_asks_names_everything() {
    let (world, ca) = pages();
    let port = world.origin.port();
    let script = format!(
        "const http = require('http'), https = require('https');
         const proxy = new URL(process.env.HTTPS_PROXY);
         const who = Buffer.from(decodeURIComponent(proxy.username) + ':' + proxy.password);
         const ask = http.request({{ host: proxy.hostname, port: proxy.port, method: 'CONNECT',
           path: '{HOST}:{port}', agent: false,
           headers: {{ 'Proxy-Authorization': 'Basic ' + who.toString('base64') }} }});
         ask.on('connect', (answer, socket) => {{
           if (answer.statusCode !== 200) process.exit(1);
           https.get({{ socket, servername: '{HOST}', host: '{HOST}', path: '/hello.txt',
             agent: false }}, page => page.pipe(process.stdout));
         }});
         ask.end();"
    );
    std::fs::write(world.path("ask.js"), script).expect("a file");
    passes(&world, &ca, "node ../ask.js", "node");
}

/// Asks for less than its session may, first with a token and then without, then through the proxy.
const NARROW: &str = r#"
ask() { curl -s -m 20 -o answer -w '%{http_code} ' --noproxy '*' \
    -H 'Content-Type: application/json' -d '{"narrow": {"tiers": ["restricted"]}}' "$@" \
    "http://$TIDEGATE_ADMIN/v1/sessions"; }
ask -H "Authorization: Bearer $TIDEGATE_TOKEN"; grep -o '"tier":"[a-z]*"' answer
ask; ask -H "Authorization: Bearer $(cat other)"
curl -s -o answer -w '%{http_code} ' --noproxy '' -x "$http_proxy" "http://$TIDEGATE_ADMIN/healthz"
"#;

fn narrows(options: &[&str]) {
    let world = World::new();
    world
        .exec("web", &[], "printf %s \"$TIDEGATE_TOKEN\" >other")
        .succeeded();
    let outcome = world.exec("web", options, NARROW);
    if options == ["--jail"] && outcome.code == Some(3) {
        eprintln!("NOT TESTED HERE: no jail can be made: {}", outcome.stderr);
        return;
    }
    let expected = "201 \"tier\":\"restricted\"\n403 401 403 ";
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
}

#[test]
fn a_command_hands_on_less_than_its_session_has() {
    narrows(&[]);
}

#[test]
fn a_command_in_a_jail_hands_on_less_than_its_session_has() {
    narrows(&["--jail"]);
}

#[test]
fn signals_that_others_send_are_passed_on() {
    let world = World::new();
    for signal in ["HUP", "INT", "QUIT", "USR1", "USR2"] {
        let command = format!(
            "trap 'echo got {signal}; exit 9' {signal}; kill -{signal} $PPID; \
             while :; do sleep 0.05; done"
        );
        // Without a terminal, which would send some of them itself.
        let words = ["--wait", env!("CARGO_BIN_EXE_tidegate"), "exec", "--"];
        let outcome = Program::new("setsid", world.home.path())
            .args(words)
            .args(["bash", "-c", &command])
            .run()
            .showed(&format!("got {signal}\n"));
        assert_eq!(outcome.code, Some(9), "{outcome:?}");
    }
}

#[test]
fn it_stops_when_its_command_stops_and_goes_on_with_it() {
    let world = World::new();
    let script = r#"
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], start_new_session=True)
_, status = os.waitpid(child.pid, os.WUNTRACED)
stopped = os.WIFSTOPPED(status)
os.killpg(child.pid, signal.SIGCONT)
print("stopped", stopped, os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
"#;
    Program::new("python3", world.home.path())
        .args(["-c", script, env!("CARGO_BIN_EXE_tidegate"), "exec", "--"])
        .args(["bash", "-c", "kill -STOP $$; exit 6"])
        .run()
        .succeeded()
        .showed("stopped True 6\n");
}

#[test]
fn a_terminal_that_changes_its_size_tells_the_command() {
    let world = World::new();
    let script = r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
said, sized = b"", False
while True:
    try: more = os.read(terminal, 1024)
    except OSError: break
    if not more: break
    said += more
    if b"ready" in said and not sized:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 17, 71, 0, 0))
        sized = True
print(b"17 71" in said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let command = "trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.05; done";
    Program::new("python3", world.home.path())
        .args(["-c", script, env!("CARGO_BIN_EXE_tidegate"), "exec", "--"])
        .args(["bash", "-c", command])
        .run()
        .succeeded()
        .showed("True 6\n");
}

#[test]
fn claude_is_told_which_session_it_is_unless_it_was() {
    let world = World::new();
    let claude = world.path("claude");
    script(&claude, "echo \"$@\"");
    let id = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";
    let run = |words: &[&str]| {
        let at = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let program = Program::at(at, world.home.path())
            .args(["exec", "--session", id, "--"])
            .args([&claude])
            .args(words);
        program.run().succeeded().stdout
    };
    // Hooks for the run come first, in every case.
    let run = |words: &[&str]| {
        let said = run(words);
        let rest = said.strip_prefix("--settings ").expect("settings");
        let mut settings =
            serde_json::Deserializer::from_str(rest).into_iter::<serde_json::Value>();
        let hooks = settings.next().expect("JSON").expect("JSON");
        assert!(hooks["hooks"]["PreToolUse"].is_array(), "{hooks}");
        let end = settings.byte_offset();
        rest.get(end..).expect("the rest").trim_start().to_owned()
    };
    assert_eq!(run(&["-p", "hi"]), format!("--session-id {id} -p hi\n"));
    for own in ["-c", "-pc", "--resume=x", "-r", "--session-id"] {
        assert_eq!(run(&[own, "hi"]), format!("{own} hi\n"));
    }
}

#[test]
fn a_gate_whose_log_another_one_writes_has_one_of_its_own() {
    let world = World::new();
    let inner = format!(
        "{} exec --config ../tidegate.toml -- curl -sS {}",
        env!("CARGO_BIN_EXE_tidegate"),
        world.url()
    );
    let outcome = world.exec("web", &[], &inner).succeeded();
    let outcome = outcome.showed("hello from the origin").showed("decisions-");
    assert_eq!(world.decisions().len(), 1, "{outcome:?}");
}

#[test]
fn the_summary_shows_what_passed_and_turned_out_otherwise() {
    let world = World::new();
    let port = world.origin.port();
    let script = format!("curl -s -m 20 --proxytunnel http://{HOST}:{port}/; true");
    let outcome = world.exec("web", &[], &script).succeeded();
    assert!(!outcome.stderr.contains("  allowed"), "{outcome:?}");
    let refused = outcome.stderr.lines().find(|line| line.contains("refused"));
    let refused = refused.expect("a line");
    assert!(refused.ends_with(" not_tls"), "{outcome:?}");
}

/// Runs the same script for both forms of the summary.
fn summary(world: &World, options: &[&str]) -> String {
    let id = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";
    let script = format!("curl -sS {}; curl -s http://{REFUSED}/; true", world.url());
    let options = [&["--session", id], options].concat();
    let said = world.exec("web", &options, &script).succeeded().stderr;
    let home = world.home.path().canonicalize().expect("a path");
    said.replace(&home.display().to_string(), "HOME")
        .replace(&world.home.path().display().to_string(), "HOME")
        .replace(&world.origin.port().to_string(), "PORT")
        .split("explain ")
        .enumerate()
        .map(|(at, part)| match (at, part.split_once(' ')) {
            (1.., Some((_flow, rest))) => format!("explain FLOW {rest}"),
            _ => part.to_owned(),
        })
        .collect()
}

#[test]
fn the_summary_for_people() {
    let text = summary(&World::new(), &[]);
    // The width of the port is not always the same.
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ")
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(text, @r"
    tidegate: forge.example/acme/web, tier open, session 0195f3c2-7e1a-7bbb-8ccc-0123456789ab
    allowed 1 files.example.com:PORT unknown
    refused 1 elsewhere.example.net:80 unknown not_allowed
    tidegate: records in HOME/decisions.jsonl
    tidegate: next: tidegate explain FLOW --config HOME/tidegate.toml
    ");
}

#[test]
fn the_summary_for_programs() {
    let text = summary(&World::new(), &["--json"]);
    let value: serde_json::Value =
        serde_json::from_str(&text.replace("PORT", "1")).expect("one JSON value");
    insta::assert_json_snapshot!(value, @r#"
    {
      "flows": [
        {
          "category": "unknown",
          "count": 1,
          "host": "files.example.com",
          "inside": false,
          "outcome": "allowed",
          "port": 1,
          "reason": "allowed"
        },
        {
          "category": "unknown",
          "count": 1,
          "host": "elsewhere.example.net",
          "inside": false,
          "outcome": "refused",
          "port": 80,
          "reason": "not_allowed"
        }
      ],
      "next": "tidegate explain FLOW --config HOME/tidegate.toml",
      "observed": false,
      "others": 0,
      "policy": "HOME/tidegate.toml",
      "record": "HOME/decisions.jsonl",
      "repository": "forge.example/acme/web",
      "repository_trust": "verified",
      "session": "0195f3c2-7e1a-7bbb-8ccc-0123456789ab",
      "tier": "open"
    }
    "#);
}

#[test]
fn a_command_can_join_a_gate_that_runs() {
    let world = World::new();
    let rule = allow_more(
        "files",
        HOST,
        world.origin.port(),
        "from.tiers = [\"open\"]",
    );
    let policy = format!(
        "{TIERS}{}{rule}\n[identity.session]\nlocal = \"trust\"\n
[[repository]]\nmatch = \"forge.example/acme/web\"\ntier = \"open\"\n
[[workspace]]\npath = \"{}\"\nrepository = \"forge.example/acme/web\"\n",
        names(&[HOST]),
        world.path("web").canonicalize().expect("a path").display()
    );
    let gate = Gate::with(&policy);
    let control = format!("unix:{}", gate.folder().join("control.sock").display());
    let at = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let join = |control: &str, script: &str| {
        Program::at(at, world.home.path())
            .within(&world.path("web"))
            .args(["exec", "--join", &gate.url(), "--control", control, "--"])
            .args([&need("bash"), Path::new("-c"), Path::new(script)])
            .run()
    };

    let script = format!("curl -sS {}; exit 7", world.url());
    let joined = join(&control, &script);

    assert_eq!(joined.code, Some(7), "{joined:?}");
    joined
        .showed("hello from the origin")
        .showed("joined the gate")
        .showed("tier open (verified)");
    let lines = gate.records();
    let line = lines.iter().find(|line| line.is_decision());
    let line = line.expect("a decision");
    assert_eq!(line.text("tidegate.session.evidence"), "token");
    assert_eq!(line.text("tidegate.session.trust"), "verified");
    assert_eq!(line.text("tidegate.channel"), "bash");
    let repository = line.text("vcs.repository.url.full");
    assert_eq!(repository, "forge.example/acme/web");

    let nobody = join("unix:/nowhere.sock", "touch ran");
    assert_eq!(nobody.code, Some(4), "{nobody:?}");
    assert!(!world.path("web/ran").exists(), "it ran without a gate");
}
