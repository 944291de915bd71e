//! The policy of a run: where it comes from, who could change it, and what becomes of a run whose
//! command tries to.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::kit::{
    Gate, Line, Origin, Outcome, Program, Site, TIERS, allow, allow_more, copy_program, eventually,
    names, need, read_log, script, until,
};

const HOST: &str = "files.example.com";
const REFUSED: &str = "elsewhere.example.net";
/// An ordinary user: no account of a system has this id.
const PERSON: u32 = 1000;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
}

fn tidegate(home: &Path) -> Program {
    Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), home)
}

/// A policy whose files lie in folders of their own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(TempDir::new().expect("a folder"));
        let listen = "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
        let first = format!("include = [\"policy/*.toml\"]\n{listen}[record]\nfile = \"-\"\n");
        std::fs::create_dir_all(files.path("etc/policy")).expect("a folder");
        std::fs::write(files.path("etc/tidegate.toml"), first).expect("a file");
        std::fs::write(files.path("etc/policy/web.toml"), TIERS).expect("a file");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a gate, and ends it where it gets ready. What it said.
    fn run(&self, options: &[&str]) -> Started {
        self.run_file("etc/tidegate.toml", options)
    }

    fn run_file(&self, file: &str, options: &[&str]) -> Started {
        let mut gate = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        gate.args(["run", "--config"]).arg(self.path(file));
        start(gate.args(options))
    }
}

/// What became of a gate.
#[derive(Debug)]
struct Started {
    ready: bool,
    code: Option<i32>,
    said: String,
}

fn start(command: &mut Command) -> Started {
    start_and_keep(command).0
}

/// As [`start`]; the program runs on until the second value is dropped.
fn start_and_keep(command: &mut Command) -> (Started, Ended) {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let file = log.reopen().expect("a file");
    let child = command
        .env("NO_COLOR", "1")
        .stdout(Stdio::null())
        .stderr(file)
        .spawn();
    let mut child = Ended(child.expect("the program"));
    let said = || std::fs::read_to_string(log.path()).expect("text");
    let code = eventually("an end or `ready`", || {
        if said().contains("tidegate: ready") {
            return Some(None);
        }
        child.0.try_wait().expect("a child").map(Some)
    });
    let started = Started {
        ready: code.is_none(),
        code: code.and_then(|status| status.code()),
        said: said(),
    };
    (started, child)
}

/// A child that does not outlive the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is done to the files, and what a gate says of it.
type Case = (&'static str, fn(&Files), &'static str, &'static str);

const EXPOSED: [Case; 8] = [
    (
        "all users may write the policy",
        |files| chmod(&files.path("etc/tidegate.toml"), 0o646),
        "every user can change it",
        "chmod go-w",
    ),
    (
        "the group may write an include",
        |files| {
            chmod(&files.path("etc/policy/web.toml"), 0o664);
            if is_root() {
                let group = Some(12_345);
                chown(files.path("etc/policy/web.toml"), None, group).expect("a group");
            }
        },
        "web.toml: its mode is 0664: each member of group",
        "chmod g-w",
    ),
    (
        "all users may write the folder of includes",
        |files| chmod(&files.path("etc/policy"), 0o777),
        "etc/policy: its mode is 0777: every user can change it",
        "chmod go-w",
    ),
    (
        "all users may write the folder above the folder",
        |files| chmod(&files.path("etc"), 0o757),
        "etc: its mode is 0757: every user can change it",
        "chmod go-w",
    ),
    (
        "the policy is a link into a folder that all users may write",
        |files| {
            std::fs::create_dir(files.path("open")).expect("a folder");
            std::fs::write(files.path("open/real.toml"), TIERS).expect("a file");
            chmod(&files.path("open"), 0o777);
            std::fs::remove_file(files.path("etc/policy/web.toml")).expect("a file");
            symlink("../../open/real.toml", files.path("etc/policy/web.toml")).expect("a link");
        },
        "open: its mode is 0777",
        "chmod go-w",
    ),
    (
        "the link lies in a folder that all users may write, its target does not",
        |files| {
            std::fs::create_dir(files.path("open")).expect("a folder");
            chmod(&files.path("open"), 0o777);
            let real = files.path("etc/tidegate.toml");
            std::fs::rename(&real, files.path("etc/real")).expect("a file");
            symlink(files.path("etc/real"), files.path("open/link")).expect("a link");
            symlink(files.path("open/link"), real).expect("a link");
        },
        "open: its mode is 0777",
        "chmod go-w",
    ),
    (
        "all users may write a key",
        |files| {
            let credential = "\n[[dial.parent]]\nurl = \"http://proxy.example:1\"\n\
                              credential-file = \"../keys/parent\"\n";
            std::fs::create_dir(files.path("etc/keys")).expect("a folder");
            std::fs::write(files.path("etc/keys/parent"), "a:b").expect("a file");
            chmod(&files.path("etc/keys/parent"), 0o600);
            chmod(&files.path("etc/keys"), 0o777);
            std::fs::write(
                files.path("etc/policy/web.toml"),
                format!("{TIERS}{credential}"),
            )
            .expect("a file");
        },
        "etc/keys: its mode is 0777",
        "chmod go-w",
    ),
    (
        "a program of another folder that all users may write",
        |files| {
            let folder = files.path("bin");
            std::fs::create_dir(&folder).expect("a folder");
            let program = folder.join("token");
            script(&program, "echo a:b");
            chmod(&folder, 0o777);
            let credential = format!(
                "\n[[dial.parent]]\nurl = \"http://proxy.example:1\"\n\
                 credential-command = [{:?}]\n",
                program.display().to_string()
            );
            std::fs::write(
                files.path("etc/policy/web.toml"),
                format!("{TIERS}{credential}"),
            )
            .expect("a file");
        },
        "bin: its mode is 0777",
        "chmod go-w",
    ),
];

#[test]
fn a_gate_refuses_files_that_another_user_could_change() {
    let started = Files::new().run(&[]);
    assert!(started.ready, "below a sticky folder: {started:?}");
    for (what, expose, says, help) in EXPOSED {
        let files = Files::new();
        expose(&files);
        let started = files.run(&[]);
        assert_eq!(
            (started.ready, started.code),
            (false, Some(2)),
            "{what}: {started:?}"
        );
        for part in [says, help] {
            assert!(
                started.said.contains(part),
                "{what}: {part:?} in {started:?}"
            );
        }
        // `check` says the same, but does not fail: it is no gate.
        let checked = tidegate(files.0.path())
            .args(["check", "etc/tidegate.toml"])
            .run();
        checked
            .succeeded()
            .showed("warning[writable-by-others]")
            .showed(says);
    }
}

#[test]
fn a_gate_refuses_files_of_another_owner_unless_it_is_told_to() {
    if !is_root() {
        eprintln!("NOT TESTED HERE: owners of files: run as root");
        return;
    }
    for name in [
        "etc/tidegate.toml",
        "etc/policy/web.toml",
        "etc/policy",
        "etc",
    ] {
        let files = Files::new();
        chown(files.path(name), Some(PERSON), None).expect("an owner");
        let started = files.run(&[]);
        assert_eq!(started.code, Some(2), "{name}: {started:?}");
        for part in [
            "its owner is user 1000",
            "chown root ",
            "--policy-owner 1000",
        ] {
            assert!(
                started.said.contains(part),
                "{name}: {part:?} in {started:?}"
            );
        }
        let told = files.run(&["--policy-owner", "1000"]);
        assert!(told.ready, "{name}: {told:?}");
    }
    // A link in a sticky folder is its owner's to replace.
    let files = Files::new();
    std::fs::create_dir(files.path("tmp")).expect("a folder");
    chmod(&files.path("tmp"), 0o1777);
    let link = files.path("tmp/tidegate.toml");
    symlink(files.path("etc/tidegate.toml"), &link).expect("a link");
    assert!(files.run_file("tmp/tidegate.toml", &[]).ready);
    std::os::unix::fs::lchown(&link, Some(PERSON), None).expect("an owner");
    let started = files.run_file("tmp/tidegate.toml", &[]);
    assert!(
        started
            .said
            .contains("tmp/tidegate.toml: its owner is user 1000"),
        "{started:?}"
    );
}

#[test]
fn a_reload_refuses_what_a_start_refuses() {
    let gate = Gate::with(TIERS);
    std::fs::create_dir(gate.folder().join("more")).expect("a folder");
    std::fs::write(gate.folder().join("more/web.toml"), "").expect("a file");
    let include = format!("include = [\"more/*.toml\"]\n{TIERS}");
    gate.reload(&include);
    let before = gate.generation()["generation"].clone();
    chmod(&gate.folder().join("more"), 0o777);
    gate.signal(Signal::HUP);
    let line = gate.line("a refusal", |line| line.name() == "policy_rejected");
    assert!(
        line.text("tidegate.detail").contains("its mode is 0777"),
        "{line:?}"
    );
    assert_eq!(gate.generation()["generation"], before);
    assert!(gate.metrics().sum("tidegate_policy_stale", &[]) > 0.0);
    chmod(&gate.folder().join("more"), 0o755);
    gate.signal(Signal::HUP);
    until("the mended files", || {
        gate.generation()["generation"] != before
    });
}

#[test]
fn a_person_is_told_that_the_policy_is_advice() {
    if !is_root() {
        eprintln!("NOT TESTED HERE: a gate of a person: run as root");
        return;
    }
    let home = TempDir::new().expect("a home");
    let program = home.path().join("tidegate");
    copy_program(Path::new(env!("CARGO_BIN_EXE_tidegate")), &program);
    let text = format!(
        "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         [record]\nfile = \"log.jsonl\"\n{TIERS}"
    );
    let config = home.path().join("tidegate.toml");
    std::fs::write(&config, text).expect("a file");
    for path in [home.path(), &config] {
        chown(path, Some(PERSON), Some(PERSON)).expect("an owner");
    }
    let id = PERSON.to_string();
    let mut gate = Command::new(need("setpriv"));
    gate.args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .arg(&program);
    let (started, running) = start_and_keep(gate.args(["run", "--config"]).arg(&config));
    assert!(started.ready, "{started:?}");
    for part in [
        "THE POLICY IS ADVICE: user 1000 runs the gate",
        "tidegate exec --jail -- COMMAND",
        "sudo systemctl enable --now tidegate.socket",
    ] {
        assert!(started.said.contains(part), "{part:?} in {started:?}");
    }
    let line = eventually("a record", || {
        let lines = read_log(&home.path().join("log.jsonl"));
        lines
            .into_iter()
            .find(|line| line.name() == "policy_advisory")
    });
    drop(running);
    assert!(
        line.text("tidegate.detail").contains("user 1000"),
        "{line:?}"
    );
    let mut doctor = Program::at(&need("setpriv"), home.path());
    doctor = doctor.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    let doctor = doctor.args([program.as_path()]);
    let doctor = doctor
        .args(["doctor", "--json", "--config"])
        .args([&config]);
    doctor.run().showed("advice only: this user can change");
}

#[test]
fn a_service_says_once_that_a_caller_is_its_own_user() {
    let origin = Origin::http(Site::default().file("/", "text/plain", "x").answers());
    let gate = Gate::with(&format!("{TIERS}{}", allow("files", HOST, origin.port())));
    let mut client = gate.client();
    client.get(&format!("http://{REFUSED}/"));
    let own = rustix::process::geteuid().as_raw();
    let line = gate.line("a record", |line| line.name() == "policy_advisory");
    assert!(
        line.text("tidegate.detail")
            .contains(&format!("user {own}")),
        "{line:?}"
    );
    until("the metric", || {
        gate.metrics().sum("tidegate_policy_advisory", &[]) > 0.0
    });
    gate.client().get(&format!("http://{REFUSED}/"));
    let told = gate.records();
    let told = told.iter().filter(|line| line.name() == "policy_advisory");
    assert_eq!(told.count(), 1);
}

/// A home with a policy that allows nothing, its includes and a program that tells that it ran.
struct World {
    home: TempDir,
    origin: Origin,
}

impl World {
    fn new() -> Self {
        let site = Site::default().file("/hello.txt", "text/plain", "hello from the origin\n");
        let home = TempDir::new().expect("a home");
        let world = Self {
            home,
            origin: Origin::http(site.answers()),
        };
        std::fs::create_dir_all(world.path("conf/more")).expect("a folder");
        let policy = format!(
            "include = [\"more/*.toml\"]\n[record]\nfile = \"../decisions.jsonl\"\n{TIERS}{}",
            names(&[HOST, REFUSED])
        );
        std::fs::write(world.path("conf/tidegate.toml"), policy).expect("a file");
        std::fs::write(world.path("conf/more/one.toml"), "").expect("a file");
        std::fs::write(
            world.path("rule"),
            allow_more("files", HOST, world.origin.port(), ""),
        )
        .expect("a file");
        let text = format!("echo ran >>{}\necho a:b", world.path("ran").display());
        script(&world.path("token"), &text);
        let parent = format!(
            "\n[[dial.parent]]\nurl = \"http://127.0.0.1:{}\"\ncredential-command = [{:?}]\n",
            world.origin.port(),
            world.path("token").display().to_string(),
        );
        std::fs::write(world.path("parent"), parent).expect("a file");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs a script in the home; the command begins in a folder of its own, as a jail wants it.
    fn exec(&self, options: &[&str], script: &str) -> Outcome {
        let work = self.path("work");
        std::fs::create_dir_all(&work).expect("a folder");
        let script = format!("cd {} && {script}", self.home.path().display());
        tidegate(self.home.path())
            .within(&work)
            .args(["exec", "--config"])
            .args([self.path("conf/tidegate.toml")])
            .args(options)
            .args(["--", "bash", "-c", &script])
            .run()
    }

    fn lines(&self) -> Vec<Line> {
        read_log(&self.path("decisions.jsonl"))
    }
}

/// Ways at the policy of the run that is going on, by a command that may write to its files.
const TAMPERED: [(&str, &str); 5] = [
    ("appends a rule", "cat rule >>conf/tidegate.toml"),
    ("rewrites an include", "cp rule conf/more/one.toml"),
    ("adds an include", "cp rule conf/more/two.toml"),
    (
        "swaps the folder",
        "cp -r conf new && cat rule >>new/tidegate.toml && mv conf old && mv new conf",
    ),
    ("adds a program", "cat rule parent >>conf/tidegate.toml"),
];

#[track_caller]
fn tampering_changes_nothing(jail: &[&str]) {
    std::thread::scope(|scope| {
        for (what, tamper) in TAMPERED {
            scope.spawn(move || tampering_changes(what, tamper, jail));
        }
    });
}

/// One way; all of them are tried at once, since each has to wait for what must not happen.
fn tampering_changes(what: &str, tamper: &str, jail: &[&str]) {
    let world = World::new();
    let port = world.origin.port();
    // A gate that follows its files reads them anew within some 4 s.
    let script = format!(
        "{{ {tamper}; }} 2>/dev/null; end=$((SECONDS + 8)); while test $SECONDS -lt $end; do \
         curl -s -o /dev/null -w '%{{http_code}}\\n' http://{HOST}:{port}/hello.txt; \
         sleep 0.3; done | sort -u"
    );
    let outcome = world.exec(jail, &script);
    if !jail.is_empty() && outcome.code == Some(3) {
        eprintln!("NOT TESTED HERE: no jail can be made: {}", outcome.stderr);
        return;
    }
    assert_eq!(outcome.stdout, "403\n", "{what}: {outcome:?}");
    assert!(!world.path("ran").exists(), "{what}: the program ran");
    let lines = world.lines();
    let named = |name: &str| lines.iter().filter(|line| line.name() == name).count();
    assert_eq!(named("policy_loaded"), 1, "{what}");
    assert_eq!(named("program_started"), 0, "{what}");
}

#[test]
fn a_command_does_not_change_the_policy_of_its_run() {
    tampering_changes_nothing(&[]);
}

#[test]
fn a_command_in_a_jail_does_not_change_the_policy_of_its_run() {
    tampering_changes_nothing(&["--jail"]);
}

#[test]
fn a_gate_of_a_command_starts_programs_of_root_alone() {
    let world = World::new();
    let config = world.path("conf/tidegate.toml");
    let mut text = std::fs::read_to_string(&config).expect("text");
    text += &std::fs::read_to_string(world.path("parent")).expect("text");
    std::fs::write(&config, text).expect("a file");
    if is_root() {
        chown(world.path("token"), Some(PERSON), None).expect("an owner");
    }
    let outcome = world.exec(&[], "true");
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    outcome.showed("token: its owner is user");
    assert!(!world.path("ran").exists());
}

#[test]
fn a_gate_of_a_command_starts_no_interpreter_and_gives_plain_words_alone() {
    let world = World::new();
    let config = world.path("conf/tidegate.toml");
    let plain = std::fs::read_to_string(&config).expect("text");
    let script = world.path("token").display().to_string();
    let (exec, split) = (format!("exec {script}"), format!("--split-string={script}"));
    let (option, shell) = (format!("--file={script}"), need("sh").display().to_string());
    for (words, what) in [
        (
            vec![shell.as_str(), "-c", &exec],
            "it runs what its arguments",
        ),
        (vec![&shell, &script], "it runs what its arguments"),
        (vec![&shell], "it runs what its arguments"),
        (vec!["/usr/bin/env", &split], "it runs what its arguments"),
        (vec!["/usr/bin/cat", &script], "may name a file"),
        (vec!["/usr/bin/cat", &option], "may name a file"),
        (vec!["/usr/bin/cat", "~/x"], "may name a file"),
    ] {
        let parent = format!(
            "\n[[dial.parent]]\nurl = \"http://127.0.0.1:1\"\ncredential-command = {words:?}\n"
        );
        std::fs::write(&config, format!("{plain}{parent}")).expect("a file");
        let outcome = world.exec(&[], "touch begun");
        assert_eq!(outcome.code, Some(2), "{words:?}: {outcome:?}");
        let outcome = outcome.showed(what);
        outcome.showed("write a script of root's own");
        assert!(!world.path("begun").exists() && !world.path("ran").exists());
    }
    // A gate whose callers are other users starts them; plain words pass here as well.
    let parent = "\n[[dial.parent]]\nurl = \"http://127.0.0.1:1\"\n\
                  credential-command = [\"/usr/bin/echo\", \"ana:hunter2\"]\n";
    std::fs::write(&config, format!("{plain}{parent}")).expect("a file");
    world.exec(&[], "true").succeeded();
}

#[test]
fn each_start_of_a_program_is_on_record_and_has_an_empty_environment() {
    let world = World::new();
    let seen = world.path("seen");
    let text = format!("(env; pwd) >{}\necho a:b", seen.display());
    script(&world.path("token"), &text);
    let parent = std::fs::read_to_string(world.path("parent")).expect("text");
    let rule = allow_more("files", HOST, world.origin.port(), "");
    let gate = Gate::with(&format!("{TIERS}{rule}{parent}"));
    gate.client()
        .get(&format!("http://{HOST}:{}/", world.origin.port()));
    let path = world.path("token").display().to_string();
    let ended = gate.line("its end", |line| line.name() == "program_ended");
    assert_eq!(ended.text("process.executable.path"), path);
    assert_eq!(ended.text("tidegate.program.result"), "ok", "{ended:?}");
    assert!(
        ended.has("tidegate.ms.total") && ended.has("process.exit.code"),
        "{ended:?}"
    );
    let lines = gate.records();
    let at = |name: &str| lines.iter().position(|line| line.name() == name);
    assert!(at("program_started") < at("program_ended"), "{lines:?}");
    let started = &lines[at("program_started").expect("a start")];
    let why = started.text("tidegate.detail");
    assert!(
        why.starts_with("credential for the parent 127.0.0.1:"),
        "{started:?}"
    );
    let seen = std::fs::read_to_string(seen).expect("text");
    let usual = [
        "PATH=/usr/bin:/bin",
        "PWD=/",
        "SHLVL=",
        "_=",
        "OLDPWD=",
        "/",
    ];
    for line in seen.lines() {
        assert!(
            usual.iter().any(|it| line.starts_with(it)),
            "{line:?} in {seen}"
        );
    }
    // What becomes of it between two starts is looked at as well.
    chmod(&world.path("token"), 0o777);
    gate.reload(&format!("{TIERS}{rule}"));
    let denied = gate.records().len();
    gate.rewrite(&format!("{TIERS}{rule}{parent}"));
    gate.line("a refusal", |line| line.name() == "policy_rejected");
    assert!(gate.records().len() > denied);
}

#[test]
fn without_a_configuration_exec_enforces_what_run_does_and_observes_where_it_is_asked_to() {
    let home = TempDir::new().expect("a home");
    let ask = format!("curl -s -o /dev/null -w '%{{http_connect}}' https://{REFUSED}/; true");
    let work = home.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let run = |options: &[&str]| {
        let exec = tidegate(home.path()).within(&work);
        let exec = exec.args(["exec"]).args(options);
        exec.args(["--", "bash", "-c", &ask]).run().succeeded()
    };
    let enforced = run(&[]);
    assert_eq!(enforced.stdout, "403", "{enforced:?}");
    let first = enforced.stderr.lines().next().expect("a line");
    assert_eq!(
        first,
        "tidegate: no configuration: the built-in policy decides"
    );
    let jailed = run(&["--jail"]);
    assert_eq!(jailed.stdout, "403", "{jailed:?}");
    let observed = run(&["--observe"]);
    assert_ne!(observed.stdout, "403", "{observed:?}");
    let lines: Vec<&str> = observed.stderr.lines().collect();
    let first =
        "tidegate: OBSERVING: the rules refuse nothing; the end shows what they would refuse";
    assert_eq!(lines.first(), Some(&first));
    assert_eq!(
        lines.last(),
        Some(&"tidegate: OBSERVED: the rules refused nothing")
    );
}

#[test]
fn the_file_of_the_machine_wins_over_the_users_and_each_command_says_which_it_uses() {
    let home = TempDir::new().expect("a home");
    let user = home.path().join(".config/tidegate/tidegate.toml");
    std::fs::create_dir_all(user.parent().expect("a folder")).expect("a folder");
    std::fs::write(&user, TIERS).expect("a file");
    let unshared = |script: &str| {
        let script = format!(
            "mkdir -p etc/tidegate && cp -r /etc/passwd etc/ && chmod -R go-w etc && \
             printf '%s' '{TIERS}' >etc/tidegate/tidegate.toml && \
             mount --bind etc /etc && {script}"
        );
        Program::new("unshare", home.path())
            .args(["-m", "sh", "-c", &script])
            .run()
    };
    if !unshared("true").success {
        eprintln!("NOT TESTED HERE: another /etc: run as root");
        return;
    }
    let program = env!("CARGO_BIN_EXE_tidegate");
    let says = |words: &str| unshared(&format!("{program} {words}"));
    let machine = "tidegate: policy /etc/tidegate/tidegate.toml\n";
    for words in [
        "check",
        "test",
        "explain https://docs.rs/",
        "env",
        "exec -- true",
        "doctor",
    ] {
        let outcome = says(words);
        assert!(outcome.stderr.contains(machine), "{words}: {outcome:?}");
        let json = says(
            &words
                .replacen(' ', " --json ", 1)
                .replace("exec --json", "exec"),
        );
        assert!(!json.stdout.contains("tidegate: policy"), "{json:?}");
    }
    // The user's folder is no way round it; the command line and the variable say what they do.
    let other = home.path().join("other");
    let lured = unshared(&format!(
        "XDG_CONFIG_HOME={} {program} check",
        other.display()
    ));
    assert!(lured.stderr.contains(machine), "{lured:?}");
    let named = says(&format!("check --config {}", user.display()));
    named.showed("(from --config), not /etc/tidegate/tidegate.toml");
    let variable = unshared(&format!(
        "TIDEGATE_CONFIG={} {program} check",
        user.display()
    ));
    variable.showed("(from TIDEGATE_CONFIG), not /etc/tidegate/tidegate.toml");
    // One that cannot be read is no reason to use the user's.
    let broken = unshared(&format!(
        "ln -sf /nowhere /etc/tidegate/tidegate.toml; {program} check"
    ));
    assert_eq!(broken.code, Some(2), "{broken:?}");
    // Without a file of the machine, the user's.
    let own = tidegate(home.path()).args(["check"]).run().succeeded();
    own.showed(&format!("tidegate: policy {}", user.display()));
}

#[test]
fn a_summary_goes_to_a_file_or_a_descriptor_whatever_the_command_does_to_it() {
    let world = World::new();
    let file = world.path("end.json");
    let at = file.display().to_string();
    let outcome = world.exec(
        &["--summary", &at],
        &format!("rm {at}; ln -s conf/tidegate.toml {at}; echo noise >&2"),
    );
    outcome.succeeded().showed("tidegate: no flows; policy ");
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).expect("text");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    assert_eq!(read(&file)["observed"], false);
    let script = format!(
        "{} exec --summary /dev/fd/3 --config {} -- sh -c 'echo noise >&2' 3>piped; cat piped",
        env!("CARGO_BIN_EXE_tidegate"),
        world.path("conf/tidegate.toml").display()
    );
    let piped = Program::new("bash", world.home.path())
        .args(["-c", &script])
        .run();
    serde_json::from_str::<serde_json::Value>(&piped.succeeded().stdout).expect("JSON");
    let nowhere = world.exec(&["--summary", "/nowhere/end.json"], "touch ran");
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    assert!(!world.path("ran").exists());
}
