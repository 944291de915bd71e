//! The repository is evidence, or it is only asserted; so is who says which tool call: held against
//! an agent that has the user's files.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::hooks::git;
use crate::kit::{
    Gate, Line, Origin, Outcome, Program, Session, Site, TIERS, allow_more, names, need, read_log,
};

const OPEN_HOST: &str = "open.example.com";
const STANDARD_HOST: &str = "standard.example.com";
const RESTRICTED_HOST: &str = "restricted.example.com";
const WEB: &str = "forge.example/acme/web";
const PAYMENTS: &str = "forge.example/acme/payments";

/// Each tier reaches a host of its own; `web` is open, `payments` restricted, others standard.
fn policy(port: u16) -> String {
    let allow = |tier: &str, host| {
        let tiers = format!("from.tiers = [\"{tier}\"]");
        allow_more(tier, host, port, &tiers)
    };
    format!(
        "{TIERS}{}{}{}{}
[[repository]]
match = \"{WEB}\"
tier = \"open\"

[[repository]]
match = \"{PAYMENTS}\"
tier = \"restricted\"
",
        names(&[OPEN_HOST, STANDARD_HOST, RESTRICTED_HOST]),
        allow("open", OPEN_HOST),
        allow("standard", STANDARD_HOST),
        allow("restricted", RESTRICTED_HOST),
    )
}

struct World {
    home: TempDir,
    origin: Origin,
}

impl World {
    fn new() -> Self {
        Self::with(|_| String::new())
    }

    /// With more configuration, made of the home's path.
    fn with(more: impl FnOnce(&Path) -> String) -> Self {
        let home = TempDir::new().expect("a home");
        let site = Site::default().file("/x", "text/plain", "reached\n");
        let origin = Origin::http(site.answers());
        let real = home.path().canonicalize().expect("a path");
        let text = format!(
            "[record]\nfile = \"decisions.jsonl\"\n{}{}",
            policy(origin.port()),
            more(&real)
        );
        std::fs::write(home.path().join("tidegate.toml"), text).expect("a file");
        let world = Self { home, origin };
        world.working_copy("web", WEB);
        world.working_copy("payments", PAYMENTS);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn working_copy(&self, name: &str, repository: &str) {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        git(&folder, &["init", "-q", "-b", "main"]);
        git(&folder, &["commit", "-q", "--allow-empty", "-m", "First"]);
        let url = format!("https://{repository}.git");
        git(&folder, &["remote", "add", "origin", &url]);
    }

    fn program(&self, words: &[&str]) -> Program {
        Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(words)
    }

    fn tidegate(&self, words: &[&str]) -> Outcome {
        self.program(words).run()
    }

    fn exec(&self, folder: &str, options: &[&str], script: &str) -> Outcome {
        self.program(&["exec", "--config"])
            .within(&self.path(folder))
            .args([self.path("tidegate.toml")])
            .args(options)
            .args([Path::new("--"), &need("bash"), Path::new("-c")])
            .args([script])
            .run()
    }

    /// A script that asks each tier's host once.
    fn all(&self) -> String {
        let port = self.origin.port();
        let ask = |host| format!("curl -s http://{host}:{port}/x; ");
        [OPEN_HOST, STANDARD_HOST, RESTRICTED_HOST]
            .map(ask)
            .concat()
            + ":"
    }

    /// The tier that a command in that folder has, by the one host that it reaches, and its line.
    #[track_caller]
    fn tier(&self, folder: &str, options: &[&str]) -> Option<(String, Line)> {
        let before = self.records().len();
        let outcome = self.exec(folder, options, &self.all());
        if outcome.code == Some(3) {
            eprintln!("NOT TESTED HERE: no jail can be made: {}", outcome.stderr);
            return None;
        }
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let lines = self.records();
        let allowed: Vec<_> = lines[before..]
            .iter()
            .filter(|line| line.is_decision() && line.verdict() == "allow")
            .collect();
        let [line] = allowed.as_slice() else {
            panic!("{allowed:#?}");
        };
        let tier = line.text("tidegate.tier").to_owned();
        let host = line.text("server.address");
        assert!(host.starts_with(&tier), "{line:?}");
        assert_eq!(line.text("tidegate.session.trust"), "verified", "{line:?}");
        Some((tier, Line::clone(line)))
    }

    /// A command in that folder is refused, with both repositories and what to type.
    #[track_caller]
    fn refused(&self, folder: &str, pinned: &str, found: &str) -> Line {
        let outcome = self.exec(folder, &[], "touch ran");
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(!self.path(folder).join("ran").exists(), "it ran");
        for part in [pinned, found, "tidegate workspace forget /"] {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
        }
        let lines = self.records();
        let line = lines.iter().rfind(|line| line.name() == "session_refused");
        let line = line.expect("a line").clone();
        let detail = line.text("tidegate.detail").to_owned();
        assert!(
            detail.contains(pinned) && detail.contains(found),
            "{detail}"
        );
        line
    }

    fn records(&self) -> Vec<Line> {
        let log = self.path("decisions.jsonl");
        if log.exists() {
            read_log(&log)
        } else {
            Vec::new()
        }
    }

    fn decisions(&self) -> Vec<Line> {
        let lines = self.records();
        lines.into_iter().filter(Line::is_decision).collect()
    }
}

#[track_caller]
fn says(line: &Line, repository: &str, trust: &str, basis: &str) {
    for (field, value) in [
        ("vcs.repository.url.full", repository),
        ("tidegate.repository.trust", trust),
        ("tidegate.repository.basis", basis),
    ] {
        assert_eq!(line.text(field), value, "{field} of {line:?}");
    }
}

#[test]
fn a_remote_that_one_session_sets_gives_the_next_one_no_tier() {
    let world = World::new();
    world.working_copy("fresh", "forge.example/ana/anything");
    let claim = format!("git -C ../fresh remote set-url origin https://{WEB}.git");
    world.exec("payments", &[], &claim).succeeded();
    let (tier, line) = world.tier("fresh", &[]).expect("no jail");
    assert_eq!(tier, "standard");
    says(&line, WEB, "asserted", "working-copy");
    assert_eq!(line.text("tidegate.tier.basis"), "unattributed");
    // Its first use pinned that claim, which is no more evidence in the second.
    let (tier, line) = world.tier("fresh", &[]).expect("no jail");
    assert_eq!(tier, "standard");
    says(&line, WEB, "asserted", "pin");
    let started = world.records();
    let started = started
        .iter()
        .rfind(|line| line.name() == "session_started");
    says(started.expect("a line"), WEB, "asserted", "pin");
}

#[test]
fn what_a_working_copy_says_can_make_it_stricter() {
    let world = World::new();
    let (tier, line) = world.tier("payments", &[]).expect("no jail");
    assert_eq!(tier, "restricted");
    says(&line, PAYMENTS, "asserted", "working-copy");
    assert_eq!(world.tier("web", &[]).expect("no jail").0, "standard");
    std::fs::create_dir(world.path("plain")).expect("a folder");
    let (tier, line) = world.tier("plain", &[]).expect("no jail");
    assert_eq!(tier, "standard");
    assert_eq!(line.text("tidegate.repository.trust"), "none");
    assert!(!line.has("tidegate.repository.basis"), "{line:?}");
}

#[test]
fn a_change_against_a_pin_is_refused_until_it_is_forgotten() {
    let world = World::new();
    let url = format!("https://{WEB}.git");
    let claim = format!("git remote set-url origin {url}");
    world.exec("payments", &[], &claim).succeeded();
    let line = world.refused("payments", PAYMENTS, WEB);
    says(&line, WEB, "asserted", "working-copy");
    // No repository at all would have been looser as well.
    std::fs::remove_dir_all(world.path("payments/.git")).expect("removed");
    world.refused("payments", PAYMENTS, "no repository");
    let path = world.path("payments").display().to_string();
    world.tidegate(&["workspace", "forget", &path]).succeeded();
    let again = world.tidegate(&["workspace", "forget", &path]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(world.tier("payments", &[]).expect("no jail").0, "standard");
}

#[test]
fn ways_to_another_repository_s_files_are_a_change_against_the_pin() {
    for way in ["gitdir", "commondir", "symlink", "nested", "include"] {
        let world = World::new();
        assert_eq!(
            world.tier("payments", &[]).expect("no jail").0,
            "restricted"
        );
        let git_folder = world.path("payments/.git");
        let web = world.path("web/.git").canonicalize().expect("a path");
        match way {
            "gitdir" => {
                std::fs::rename(&git_folder, world.path("old")).expect("moved");
                let text = format!("gitdir: {}\n", web.display());
                std::fs::write(&git_folder, text).expect("a file");
            }
            "commondir" => {
                let text = format!("{}\n", web.display());
                std::fs::write(git_folder.join("commondir"), text).expect("a file");
            }
            "symlink" => {
                std::fs::rename(&git_folder, world.path("old")).expect("moved");
                symlink(&web, &git_folder).expect("a link");
            }
            "nested" => {
                // A working copy inside of it does not get out of its tier.
                world.working_copy("payments/nested", WEB);
                let (tier, line) = world.tier("payments/nested", &[]).expect("no jail");
                assert_eq!(tier, "restricted", "{line:?}");
                continue;
            }
            _ => {
                // What git would take from another file is not looked at.
                let file = world.path("web-config");
                let remote = format!("[remote \"origin\"]\n\turl = https://{WEB}.git\n");
                std::fs::write(&file, remote).expect("a file");
                let at = file.display().to_string();
                git(&world.path("payments"), &["config", "include.path", &at]);
                assert_eq!(
                    world.tier("payments", &[]).expect("no jail").0,
                    "restricted"
                );
                continue;
            }
        }
        world.refused("payments", PAYMENTS, WEB);
    }
}

#[test]
fn a_folder_that_took_the_place_of_a_pinned_one_is_refused() {
    let world = World::new();
    let path = world.path("payments").display().to_string();
    let pinned = world.tidegate(&["workspace", "pin", &path]).succeeded();
    assert!(pinned.stdout.contains(PAYMENTS), "{pinned:?}");
    std::fs::rename(world.path("payments"), world.path("moved")).expect("moved");
    std::fs::rename(world.path("web"), world.path("payments")).expect("moved");
    world.refused("payments", PAYMENTS, WEB);
    std::fs::rename(world.path("payments"), world.path("web")).expect("moved");
    // One of the same repository is another folder as well.
    world.working_copy("payments", PAYMENTS);
    world.refused("payments", PAYMENTS, "another folder");
    let again = world.tidegate(&["workspace", "pin", &path]);
    assert_eq!(again.code, Some(2), "{again:?}");
}

#[test]
fn a_workspace_of_the_configuration_says_it_whatever_is_in_the_folder() {
    let world = World::with(|home| {
        let map = |name: &str, repository| {
            let path = home.join(name).display().to_string();
            format!("\n[[workspace]]\npath = \"{path}/**\"\nrepository = \"{repository}\"\n")
        };
        map("web", WEB) + &map("payments", PAYMENTS) + &map("bare", WEB)
    });
    let (tier, line) = world.tier("web", &[]).expect("no jail");
    assert_eq!(tier, "open");
    says(&line, WEB, "verified", "workspace");
    let set_url = |folder: &str, repository: &str| {
        let url = format!("https://{repository}.git");
        git(&world.path(folder), &["remote", "set-url", "origin", &url]);
    };
    set_url("payments", WEB);
    let (tier, line) = world.tier("payments", &[]).expect("no jail");
    assert_eq!(tier, "restricted");
    says(&line, PAYMENTS, "verified", "workspace");
    // A working copy of a stricter repository that was moved there stays as strict.
    set_url("web", PAYMENTS);
    assert_eq!(world.tier("web", &[]).expect("no jail").0, "restricted");
    set_url("web", "forge.example/ana/fork-of-web");
    let (tier, line) = world.tier("web", &[]).expect("no jail");
    assert_eq!(tier, "open");
    says(&line, WEB, "verified", "workspace");
    // A folder below it, and one without any working copy.
    std::fs::create_dir_all(world.path("bare/below")).expect("folders");
    assert_eq!(world.tier("bare/below", &[]).expect("no jail").0, "open");
    // A link to a folder is that folder.
    symlink(world.path("payments"), world.path("web/link")).expect("a link");
    assert_eq!(
        world.tier("web/link", &[]).expect("no jail").0,
        "restricted"
    );
    let listed = world.tidegate(&["workspace", "list"]).succeeded();
    assert_eq!(listed.stdout, "", "what is mapped needs no pin");
}

#[test]
fn a_pin_of_the_operator_is_evidence_only_in_a_jail_that_cannot_change_it() {
    let world = World::new();
    let path = world.path("web").display().to_string();
    let made = world
        .tidegate(&["workspace", "pin", &path, "--json"])
        .succeeded();
    let made: serde_json::Value = serde_json::from_str(&made.stdout).expect("JSON");
    assert_eq!(
        (&made["repository"], &made["by"]),
        (&json!(WEB), &json!("operator"))
    );
    let (tier, line) = world.tier("web", &[]).expect("no jail");
    assert_eq!(
        tier, "standard",
        "without a jail the command can change the pin"
    );
    says(&line, WEB, "asserted", "pin");
    let Some((tier, line)) = world.tier("web", &["--jail"]) else {
        return;
    };
    assert_eq!(tier, "open");
    says(&line, WEB, "verified", "pin");
    // From inside, a folder that was used first does not become one of the operator's.
    let pins = world.path(".local/state/tidegate/workspaces.json");
    let before = std::fs::read_to_string(&pins).expect("pins");
    let program = env!("CARGO_BIN_EXE_tidegate");
    let tamper = format!(
        "git remote set-url origin https://{WEB}.git; {program} workspace pin; \
         for file in ~/.local/state/tidegate/workspaces.json {}; do \
         echo '{{\"version\":1,\"pins\":[]}}' >$file; rm -f $file; mv $file ../moved; done 2>/dev/null; :",
        pins.display()
    );
    world.working_copy("fresh", "forge.example/ana/anything");
    world.exec("fresh", &["--jail"], &tamper);
    let list = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect("JSON") };
    let (before, after) = (
        list(&before),
        list(&std::fs::read_to_string(&pins).expect("pins")),
    );
    assert_eq!(after["pins"].as_array().expect("pins").len(), 2, "{after}");
    for pin in after["pins"].as_array().expect("pins") {
        let is_fresh = pin["path"].as_str().expect("a path").ends_with("/fresh");
        if is_fresh {
            // As it was when it was first used, before the command began.
            assert_eq!(pin["repository"], "forge.example/ana/anything", "{after}");
            assert_eq!(pin["by"], "first-use", "{after}");
        } else {
            assert_eq!(*pin, before["pins"][0], "{after}");
        }
    }
    world.refused("fresh", "forge.example/ana/anything", WEB);
}

#[test]
fn check_warns_of_a_path_where_another_folder_can_take_the_place() {
    let world = World::with(|home| {
        let path = home.join("shared/web").display().to_string();
        let link = home.join("link/web").display().to_string();
        format!(
            "\n[[workspace]]\npath = \"{path}/**\"\nrepository = \"{WEB}\"\n\
             \n[[workspace]]\npath = \"{link}\"\nrepository = \"{WEB}\"\n"
        )
    });
    let shared = world.path("shared");
    std::fs::create_dir(&shared).expect("a folder");
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    let config = world.path("tidegate.toml").display().to_string();
    let checked = world.tidegate(&["check", &config]).succeeded();
    assert!(checked.shows("workspace-writable"), "{checked:?}");
    assert!(
        checked.shows("can put another folder in the place"),
        "{checked:?}"
    );
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    std::fs::create_dir_all(world.path("real/web")).expect("folders");
    std::fs::create_dir(world.path("link")).expect("a folder");
    symlink(world.path("real/web"), world.path("link/web")).expect("a link");
    let checked = world.tidegate(&["check", &config]).succeeded();
    // Of another user than root, the home itself can be replaced.
    let owner = std::fs::metadata(world.home.path()).expect("a home").uid();
    let expected = if owner == 0 {
        "workspace-link"
    } else {
        "workspace-writable"
    };
    assert!(checked.shows(expected), "{checked:?}");
}

#[test]
fn a_file_of_pins_that_another_user_could_change_is_not_used() {
    let world = World::new();
    assert_eq!(world.tier("web", &[]).expect("no jail").0, "standard");
    let pins = world.path(".local/state/tidegate/workspaces.json");
    let listed = world.tidegate(&["workspace", "list", "--json"]).succeeded();
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["by"], "first-use");
    let text = std::fs::read_to_string(&pins).expect("pins");
    for (broken, why) in [
        ("{", "no file of pins"),
        (&text.replace(": 1,", ": 2,"), "version"),
    ] {
        std::fs::write(&pins, broken).expect("a file");
        let outcome = world.exec("web", &[], "touch ran");
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(why), "{outcome:?}");
    }
    std::fs::remove_file(&pins).expect("removed");
    let made = Program::new("mkfifo", world.home.path())
        .args([&pins])
        .run();
    made.succeeded();
    let outcome = world.exec("web", &[], "touch ran");
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}

#[test]
fn a_working_copy_of_another_user_above_does_not_count() {
    let world = World::new();
    let above = world.path("web");
    let below = above.join("below");
    std::fs::create_dir(&below).expect("a folder");
    if chown(above.join(".git"), Some(54_321), None).is_err() {
        eprintln!("NOT TESTED HERE: only root gives a file to another user");
        return;
    }
    let outcome = world.exec("web/below", &[], &world.all()).succeeded();
    for part in [".git belongs to user 54321, not to user", "safe.directory"] {
        assert!(outcome.stderr.contains(part), "{outcome:?}");
    }
    let (tier, line) = world.tier("web/below", &[]).expect("no jail");
    assert_eq!(tier, "standard");
    assert_eq!(line.text("tidegate.repository.trust"), "none");
    assert!(!line.has("vcs.ref.head.name"), "{line:?}");
    // The folder itself, and what a file of ours points to.
    chown(above.join(".git"), Some(0), None).expect("ours");
    chown(&above, Some(54_321), None).expect("another's");
    let (_, line) = world.tier("web/below", &[]).expect("no jail");
    assert_eq!(line.text("tidegate.repository.trust"), "none");
    chown(world.path("payments/.git"), Some(54_321), None).expect("another's");
    std::fs::create_dir(world.path("pointing")).expect("a folder");
    let text = format!("gitdir: {}\n", world.path("payments/.git").display());
    std::fs::write(world.path("pointing/.git"), text).expect("a file");
    let (_, line) = world.tier("pointing", &[]).expect("no jail");
    assert_eq!(line.text("tidegate.repository.trust"), "none");
}

#[test]
fn branch_and_commit_are_those_of_the_moment() {
    let world = World::new();
    let url = format!("http://{STANDARD_HOST}:{}/x", world.origin.port());
    let log = world.path("decisions.jsonl").display().to_string();
    let script = format!(
        "curl -s {url}; git checkout -q -b other; \
         git -c user.name=Ana -c user.email=ana@acme.example commit -q --allow-empty -m Second; \
         until grep -q $(git rev-parse HEAD) {log}; do curl -s {url} >/dev/null; done; \
         rm .git/HEAD; mkfifo .git/HEAD; \
         until [ $(grep -vc other {log}) -gt 9 ]; do curl -s {url} >/dev/null; done"
    );
    world.exec("web", &[], &script).succeeded();
    let lines = world.decisions();
    let head = |name: &'static str| move |line: &&Line| line.text("vcs.ref.head.name") == name;
    let (before, after) = (
        lines.iter().find(head("main")),
        lines.iter().find(head("other")),
    );
    let (before, after) = (before.expect("before"), after.expect("after"));
    assert_ne!(
        before.text("vcs.ref.head.revision"),
        after.text("vcs.ref.head.revision")
    );
    for line in [before, after] {
        assert_eq!(line.text("tidegate.vcs.trust"), "asserted", "{line:?}");
    }
}

#[test]
fn a_gate_that_runs_believes_its_mapping_and_no_working_copy() {
    let origin = Origin::bytes();
    let mapped = "\n[[workspace]]\npath = \"/srv/src/web/**\"\nrepository = \"forge.example/acme/web\"\n\
                  \n[[workspace]]\npath = \"/srv/src/payments\"\n\
                  repository = \"forge.example/acme/payments\"\n";
    for (local, opens) in [("trust", true), ("narrow", false)] {
        let session = format!("\n[identity.session]\nlocal = \"{local}\"\n");
        let gate = Gate::with(&format!("{}{mapped}{session}", policy(origin.port())));
        let start = |request: serde_json::Value| gate.session(&request);
        let told = |session: &Session| {
            ["tier", "repository_trust", "repository_basis"]
                .map(|name| session.text(name).to_owned())
        };
        let copy = start(json!({ "repository": WEB, "working_copy": true }));
        assert_eq!(
            told(&copy),
            ["standard", "asserted", "working-copy"],
            "{local}"
        );
        let web = start(json!({ "folder": "/srv/src/web/below", "working_copy": true }));
        let expected = if opens {
            ["open", "verified"]
        } else {
            ["standard", "asserted"]
        };
        assert_eq!(told(&web)[..2], expected, "{local}");
        assert_eq!(told(&web)[2], "workspace");
        // What the working copy there says can still make it stricter.
        let moved = start(json!({
            "folder": "/srv/src/web", "repository": PAYMENTS, "working_copy": true,
        }));
        assert_eq!(moved.text("tier"), "restricted", "{local}");
        // A child says its folder itself: it is no looser than its parent.
        let parent = start(json!({ "folder": "/srv/src/payments" }));
        assert_eq!(parent.text("tier"), "restricted", "{local}");
        let child = gate.child(&parent, &json!({ "folder": "/srv/src/web" }));
        assert_eq!(
            told(&child),
            ["restricted", "asserted", "workspace"],
            "{local}"
        );
    }
}

/// An agent in Python: what it reports itself, and what its commands do with its token.
const AGENT: &str = r#"
import json, os, subprocess, sys, urllib.error, urllib.request
SESSION = os.environ["TIDEGATE_SESSION"]
def post(event, name, command="", session=SESSION, prompt="p"):
    body = {"session_id": session, "hook_event_name": event, "tool_name": "Bash", "prompt_id": prompt,
            "tool_use_id": name, "tool_input": {"command": command}, "permission_mode": "default"}
    request = urllib.request.Request(
        f"http://{os.environ['TIDEGATE_ADMIN']}/v1/hooks/claude-code", json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["TIDEGATE_TOKEN"]})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return direct.open(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
def bash(command):
    front = ('span=$(printf %08x00000000 $$); trace=4bf92f3577b34da6a3ce929d0e0e4736; '
             'export http_proxy="http://$TIDEGATE_SESSION.bash.00-$trace-$span-01:$TIDEGATE_TOKEN@$TIDEGATE_PROXY"; ')
    subprocess.run(["bash", "-c", front + command + "; :"], check=True)
"#;

/// Runs that agent behind a gate of its own.
fn agent(world: &World, script: &str, arguments: &[&str]) -> Vec<Line> {
    let text = format!("{AGENT}{script}");
    std::fs::write(world.path("agent.py"), text).expect("a file");
    // A shim of a version manager would become another program.
    let python = Program::new("python3", world.home.path())
        .args(["-c", "import os; print(os.path.realpath('/proc/self/exe'))"])
        .run()
        .succeeded();
    world
        .program(&["exec", "--config"])
        .within(&world.path("web"))
        .args([world.path("tidegate.toml")])
        .args(["--", python.stdout.trim()])
        .args([world.path("agent.py")])
        .args(arguments)
        .run()
        .succeeded();
    world.decisions()
}

/// The calls of the flows, in order, and who says so.
fn calls(lines: &[Line]) -> Vec<(&str, &str)> {
    lines
        .iter()
        .map(|line| (line.text("tool_use_id"), line.text("tidegate.call.trust")))
        .collect()
}

#[test]
fn a_report_is_the_agent_s_only_from_its_own_process() {
    let world = World::new();
    let script = "
url = sys.argv[1]
post('PreToolUse', 'toolu_real', 'curl -s ' + url)
bash('curl -s ' + url)
post('PostToolUse', 'toolu_real')
# A command of the agent reports a call that there is not.
if os.fork() == 0:
    post('PreToolUse', 'toolu_made_up', 'curl --silent ' + url)
    os._exit(0)
os.wait()
bash('curl --silent ' + url)
";
    let url = format!("http://{STANDARD_HOST}:{}/x", world.origin.port());
    let lines = agent(&world, script, &[&url]);
    assert_eq!(
        calls(&lines),
        [("toolu_real", "verified"), ("toolu_made_up", "asserted")]
    );
}

/// How the agent starts its command hook, and how a command of the agent tries to look like one.
const HOOKS: &str = r#"
import socket
def report(event, name, command=""):
    return json.dumps({"session_id": SESSION, "hook_event_name": event, "tool_name": "Bash",
        "prompt_id": "p", "tool_use_id": name, "tool_input": {"command": command}}).encode()
def hook(event, name, command=""):
    own, its = socket.socketpair()
    child = subprocess.Popen([sys.argv[2], "session", "hook"], stdin=its)
    its.close()
    own.sendall(report(event, name, command))
    own.close()
    assert child.wait() == 0
def forged(name, command):
    """Runs in a child of the agent, whose standard output is a pair of sockets of the agent."""
    text = report("PreToolUse", name, command)
    # By a pipe, by a pair of its own, and by the agent's own pair while another process writes.
    read, write = os.pipe()
    os.write(write, text)
    os.close(write)
    subprocess.run([sys.argv[2], "session", "hook"], stdin=read)
    own, its = socket.socketpair()
    own.sendall(text.replace(b"_pipe", b"_pair"))
    own.close()
    if os.fork() == 0:
        os.dup2(its.fileno(), 0)
        os.execv(sys.argv[2], [sys.argv[2], "session", "hook"])
    os.wait()
    os.write(1, text.replace(b"_pipe", b"_sent"))
    subprocess.run([sys.argv[2], "session", "hook"], stdin=1, timeout=60)
"#;

#[test]
fn a_hook_speaks_for_the_agent_only_where_the_agent_wrote_its_input() {
    let world = World::new();
    let script = "
url = sys.argv[1]
hook('PreToolUse', 'toolu_real', 'curl -s ' + url)
bash('curl -s ' + url)
hook('PostToolUse', 'toolu_real')
own, its = socket.socketpair()
if os.fork() == 0:
    os.dup2(its.fileno(), 1)
    own.close(), its.close()
    forged('toolu_pipe', 'curl --silent ' + url)
    os._exit(0)
its.close()
own.shutdown(socket.SHUT_WR)
os.wait()
bash('curl --silent ' + url)
";
    let url = format!("http://{STANDARD_HOST}:{}/x", world.origin.port());
    let program = env!("CARGO_BIN_EXE_tidegate");
    let lines = agent(&world, &format!("{HOOKS}{script}"), &[&url, program]);
    let trusts: Vec<_> = calls(&lines).into_iter().map(|(_, trust)| trust).collect();
    assert_eq!(calls(&lines)[0], ("toolu_real", "verified"));
    assert_ne!(trusts[1], "verified", "{lines:#?}");
    let log = read_log(&world.path("decisions.jsonl"));
    let verified: Vec<_> = log
        .iter()
        .filter(|line| line.name() == "tool_call_started")
        .filter(|line| line.text("tidegate.call.trust") == "verified")
        .map(|line| line.text("tool_use_id"))
        .collect();
    assert_eq!(verified, ["toolu_real"]);
}

#[test]
fn a_made_up_report_neither_ends_nor_replaces_a_call_of_the_agent() {
    let world = World::new();
    let script = "
url = sys.argv[1]
command = 'curl -s ' + url
post('PreToolUse', 'toolu_real', command)
if os.fork() == 0:
    post('PreToolUse', 'toolu_real', 'curl --elsewhere')
    post('PostToolUse', 'toolu_real')
    post('PreToolUse', 'toolu_later', command)
    post('PreToolUse', 'toolu_next', command, prompt='q')
    assert post('PreToolUse', 'toolu_x', command, session='0195f3c2-7e1a-7bbb-8ccc-000000000000') == 403
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
bash(command)
post('PreToolUse', 'toolu_second', 'curl --silent ' + url)
# A command of the first call takes the name of the second one's shell.
bash('true; ' + command + ' -x http://$TIDEGATE_SESSION.bash.00-$trace-0000000100000000-01:'
     '$TIDEGATE_TOKEN@$TIDEGATE_PROXY')
";
    let url = format!("http://{STANDARD_HOST}:{}/x", world.origin.port());
    let lines = agent(&world, script, &[&url]);
    let calls = calls(&lines);
    assert_eq!(calls[0], ("toolu_real", "verified"));
    assert_eq!(calls[1].1, "asserted", "{calls:?}");
}

#[test]
fn an_agent_that_became_another_program_reports_as_any_process() {
    let world = World::new();
    let script = "
url = sys.argv[1]
if len(sys.argv) == 2:
    post('PreToolUse', 'toolu_real', 'curl -s ' + url)
    bash('curl -s ' + url)
    copy = os.path.join(os.environ['HOME'], 'another-python')
    __import__('shutil').copy('/proc/self/exe', copy)
    os.execv(copy, [copy, *sys.argv, 'again'])
post('PreToolUse', 'toolu_again', 'curl --silent ' + url)
bash('curl --silent ' + url)
";
    let url = format!("http://{STANDARD_HOST}:{}/x", world.origin.port());
    let lines = agent(&world, script, &[&url]);
    assert_eq!(
        calls(&lines),
        [("toolu_real", "verified"), ("toolu_again", "asserted")]
    );
}
