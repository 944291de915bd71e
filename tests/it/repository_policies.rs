//! Policies that repositories write for themselves: read from the operator's clone, and only narrower.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::kit::{Client, Gate, Line, Origin, Program, TIERS, allow, names, need, until};

const REPOSITORY: &str = "github.com/acme/web";
const DENY: &str = "\n[[rule]]\nid = \"no-files\"\nverdict = \"deny\"\nto.hosts = [\"files.example.net\"]\n\
                    reason = \"not for this repository\"\n";

/// A repository with a working copy, as the operator has it.
struct Clone {
    folder: TempDir,
}

impl Clone {
    fn new() -> Self {
        let clone = Self {
            folder: TempDir::new().expect("a folder"),
        };
        clone.git(&["init", "-q", "-b", "main"]);
        clone.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        clone
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join(".tidegate.toml")
    }

    fn git(&self, words: &[&str]) {
        let made = Command::new(need("git"))
            .args(["-c", "user.name=Ana", "-c", "user.email=ana@acme.example"])
            .args(words)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git");
        assert!(made.status.success(), "{words:?}: {made:?}");
    }

    fn commit(&self, text: &str) {
        std::fs::write(self.file(), text).expect("a file");
        self.save();
    }

    fn save(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "next"]);
    }
}

/// Callers of the second listener work on the repository. In `restricted` one more host is allowed.
fn policy(port: u16, clone: &Path) -> String {
    format!(
        "{TIERS}{}{}{}
[[rule]]
id = \"more\"
verdict = \"allow\"
from.tiers = [\"restricted\"]
to.hosts = [\"more.example.net\"]
to.ports = [{port}]
grant.addresses = [\"127.0.0.0/8\"]

[[repository]]
match = \"{REPOSITORY}\"
tier = \"standard\"

[[listener]]
address = \"127.0.0.1:0\"
repository = \"{REPOSITORY}\"

[[repository-policy]]
repository = \"{REPOSITORY}\"
clone = \"{}\"
branch = \"main\"

[[repository-policy]]
repository = \"github.com/acme/other\"
clone = \"{}\"
branch = \"main\"
",
        names(&["files.example.net", "more.example.net"]),
        allow("files", "files.example.net", port),
        allow("files-too", "too.example.net", port),
        clone.display(),
        clone.display()
    )
}

struct Bench {
    gate: Gate,
    port: u16,
}

impl Bench {
    fn new(clone: &Path) -> Self {
        let port = Origin::echo().port();
        Self {
            gate: Gate::with(&policy(port, clone)),
            port,
        }
    }

    /// The status for a caller of that listener.
    fn status(&self, listener: usize) -> u16 {
        let url = format!("http://files.example.net:{}/", self.port);
        Client::dial(self.gate.listener(listener))
            .get(&url)
            .status()
    }

    /// Commits a file, and has the gate look at once.
    fn commit(&self, clone: &Clone, text: &str) {
        clone.commit(text);
        self.gate.signal(Signal::HUP);
    }

    fn event(&self, name: &str, part: &str) -> Line {
        self.gate.line(part, |line| {
            line.name() == name && format!("{line:?}").contains(part)
        })
    }
}

#[test]
fn a_repository_narrows_itself_and_nobody_else_by_the_file_of_its_branch() {
    let clone = Clone::new();
    clone.commit(DENY);
    let bench = Bench::new(clone.path());
    assert_eq!((bench.status(0), bench.status(1)), (200, 403));
    let refused = bench
        .gate
        .line("a refusal", |line| line.verdict() == "deny");
    assert_eq!(
        refused.text("security_rule.name"),
        "github.com.acme.web.no-files"
    );
    let location = refused.text("tidegate.rule.location");
    assert!(
        location.starts_with(&format!("{REPOSITORY}@")) && location.ends_with(":.tidegate.toml:3"),
        "{location}"
    );
    bench.event("policy_loaded", ":.tidegate.toml sha256:");

    // The agent's working copy does not count; a commit of the branch does.
    std::fs::write(clone.file(), "tier = \"restricted\"\n").expect("a file");
    assert_eq!(bench.status(1), 403);
    clone.git(&["rm", "-q", "-f", ".tidegate.toml"]);
    clone.git(&["commit", "-q", "-m", "none"]);
    until("the next commit", || bench.status(1) == 200);
    clone.commit(DENY);
    until("the commit after", || bench.status(1) == 403);
    assert_eq!(bench.status(0), 200);
}

#[test]
fn a_file_that_widens_is_refused_with_its_witness_and_the_last_good_one_stays() {
    let clone = Clone::new();
    clone.commit(DENY);
    let bench = Bench::new(clone.path());
    assert_eq!(bench.status(1), 403);
    // The stricter tier allows a host that the own tier does not.
    bench.commit(&clone, "tier = \"restricted\"\n");
    let refused = bench.event("policy_rejected", "it widens");
    let why = refused.text("tidegate.detail");
    assert!(
        why.contains("more.example.net") && why.contains(REPOSITORY),
        "{why}"
    );
    assert_eq!(bench.status(1), 403);
    // Of what a file may not say, each is refused; the last good one stays.
    let allow = "[[rule]]\nid = \"a\"\nverdict = \"allow\"\nto.hosts = [\"x.example\"]\n";
    for (text, part) in [
        (allow.to_owned(), "can only deny"),
        (
            "include = [\"/etc/*.toml\"]\n".to_owned(),
            "no key `include`",
        ),
        (
            format!("# {}\n", "x".repeat(65 << 10)),
            "no regular text file",
        ),
    ] {
        bench.commit(&clone, &text);
        bench.event("policy_rejected", part);
        assert_eq!(bench.status(1), 403, "{text}");
    }
    std::fs::remove_file(clone.file()).expect("a file");
    std::os::unix::fs::symlink("/etc/hostname", clone.file()).expect("a link");
    clone.save();
    bench.gate.signal(Signal::HUP);
    until("the link", || {
        let lines = bench.gate.records();
        let refused = lines.iter().filter(|line| line.name() == "policy_rejected");
        refused
            .filter(|line| {
                line.text("tidegate.detail")
                    .contains("no regular text file")
            })
            .count()
            > 1
    });
    assert_eq!(bench.status(1), 403);
    // `explain` and `check` read the same file, and have no earlier one.
    let checked = crate::kit::tidegate(&[
        "check".as_ref(),
        "--config".as_ref(),
        bench.gate.config().as_os_str(),
    ]);
    assert!(
        checked.shows("repository-policy") && checked.shows("is refused"),
        "{checked:?}"
    );
}

#[test]
fn check_and_explain_show_the_file_that_is_a_part_of_the_policy() {
    let clone = Clone::new();
    clone.commit(&format!("tier = \"standard\"\n{DENY}"));
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, policy(8080, clone.path())).expect("a file");
    let checked = crate::kit::tidegate(&["check".as_ref(), "--config".as_ref(), file.as_os_str()]);
    assert!(
        checked.shows("narrowed by   github.com/acme/web@"),
        "{checked:?}"
    );
    let explained = crate::kit::tidegate(&[
        "explain".as_ref(),
        "http://files.example.net:8080/".as_ref(),
        "--repo".as_ref(),
        REPOSITORY.as_ref(),
        "--config".as_ref(),
        file.as_os_str(),
    ]);
    assert!(
        explained.shows("github.com.acme.web.no-files"),
        "{explained:?}"
    );
    assert!(explained.shows(":.tidegate.toml:4"), "{explained:?}");
}

#[test]
fn a_clone_that_others_can_write_keeps_the_gate_from_starting() {
    use std::os::unix::fs::PermissionsExt;
    let clone = Clone::new();
    clone.commit(DENY);
    let heads = clone.path().join(".git/refs/heads");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&heads, open).expect("a mode");
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, policy(8080, clone.path())).expect("a file");
    let run = crate::kit::tidegate(&["run".as_ref(), "--config".as_ref(), file.as_os_str()]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.shows("refs/heads: its mode is 0777"), "{run:?}");
}

#[test]
fn a_jail_starts_where_a_repository_narrows_the_policy() {
    let clone = Clone::new();
    // A text that names a file of the system hides nothing.
    clone.commit(&DENY.replace("not for this repository", "/etc/hosts"));
    let home = TempDir::new().expect("a home");
    let web = home.path().join("web");
    std::fs::create_dir(&web).expect("a folder");
    let config = home.path().join("tidegate.toml");
    let text = format!(
        "[record]\nfile = \"decisions.jsonl\"\n{TIERS}\n[[repository]]\nmatch = \"{REPOSITORY}\"\n\
         tier = \"standard\"\n[[repository-policy]]\nrepository = \"{REPOSITORY}\"\n\
         clone = \"{}\"\nbranch = \"main\"\n",
        clone.path().display()
    );
    std::fs::write(&config, text).expect("a file");
    let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let checked = Program::at(tidegate, home.path())
        .args([Path::new("check"), &config])
        .run();
    checked.succeeded().showed("narrowed by");
    Program::at(tidegate, home.path())
        .within(&web)
        .args(["exec", "--jail", "--config"])
        .args([config])
        .args(["--", "cat", "/etc/hosts"])
        .run()
        .succeeded();
}
