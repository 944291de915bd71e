//! Reading and writing told apart, service by service, with the programs that people use: what
//! reads works, what writes is refused, and nothing of what is refused reaches the origin.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::clients::{origin, repository};
use crate::kit::{
    Inside, Message, Origin, Outcome, Pki, Program, Visit, cargo, cargo_registry, git_backend,
    inspected, npm_package, npm_registry, oci_image, oci_registry, pypi_registry, wheel,
};

const HOST: &str = "packages.example.com";

/// Callers are restricted, and a restricted caller never publishes.
const RESTRICTED: &str = r#"
[tiers]
order = ["open", "restricted"]
unattributed = "restricted"

[tier.open]
default = "allow"

[tier.restricted]
default = "deny"
deny = ["package-registry:write"]
"#;

/// An origin of one service, and a gate that looks inside what goes there.
struct World {
    origin: Origin,
    inside: Inside,
    url: String,
}

impl World {
    /// `rules` is given the port of the origin.
    fn start<F, A>(serve: F, rules: impl FnOnce(u16) -> String) -> Self
    where
        F: FnOnce(&str) -> A,
        A: Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static,
    {
        let pki = Pki::new();
        let origin = origin("https", &pki, HOST, serve);
        let policy = format!("{RESTRICTED}{}", rules(origin.port()));
        let inside = Inside::start(&pki, &[HOST], &policy);
        let url = format!("https://{HOST}:{}", origin.port());
        Self {
            origin,
            inside,
            url,
        }
    }

    /// A registry of that service that may be read and written but for what the tier says.
    fn registry<F, A>(service: &str, serve: F) -> Self
    where
        F: FnOnce(&str) -> A,
        A: Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static,
    {
        let lines = format!("category = \"package-registry\"\nservice = \"{service}\"\n");
        Self::start(serve, |port| inspected("packages", HOST, port, &lines))
    }

    fn home(&self) -> &Path {
        self.inside.home()
    }

    fn program(&self, name: &str, words: &[&str]) -> Outcome {
        self.inside.program(name).args(words).run()
    }

    /// A write was refused, on record as one, and the origin has seen nothing but reads.
    #[track_caller]
    fn refused_writing(&self, rule: &str) {
        let line = self.inside.refused("action_denied");
        assert_eq!(line.text("tidegate.action"), "write", "{line:?}");
        assert_eq!(line.text("security_rule.name"), rule, "{line:?}");
        self.saw_only_reads();
    }

    #[track_caller]
    fn saw_only_reads(&self) {
        let asked = self.origin.asked();
        let reads = |line: &String| {
            ["GET ", "HEAD "]
                .iter()
                .any(|method| line.starts_with(method))
                || line.ends_with("/git-upload-pack")
                || line.ends_with("/security/advisories/bulk")
        };
        assert!(asked.iter().all(reads), "{asked:?}");
    }
}

// --- npm ----------------------------------------------------------------------------------------

/// Settings for the registry, with something to log in with.
fn npmrc(world: &World, place: &Path) {
    let bare = world.url.trim_start_matches("https:");
    let text = format!(
        "registry={}/\n{bare}/:_authToken=not-a-secret\nfetch-retries=0\n",
        world.url
    );
    std::fs::write(place.join(".npmrc"), text).expect("a file");
}

#[test]
fn npm_installs_and_does_not_publish() {
    let world = World::registry("npm", npm_registry);
    npmrc(&world, world.home());
    world
        .program("npm", &["install", "--no-save", "@acme/demo"])
        .succeeded();
    assert!(
        world
            .home()
            .join("node_modules/@acme/demo/index.js")
            .exists()
    );
    world.inside.all_passed("read");

    let place = npm_package(world.home(), "@acme/demo", "2.0.0");
    npmrc(&world, &place);
    let publish = world.inside.program("npm").args(["publish"]).within(&place);
    publish.run().failed().showed("403").showed("tidegate");
    world.refused_writing("tier.restricted.deny");
}

#[test]
fn npm_changes_nothing_in_a_registry() {
    let world = World::registry("npm", npm_registry);
    npmrc(&world, world.home());
    for words in [
        &["dist-tag", "add", "@acme/demo@1.0.0", "stable"][..],
        &["deprecate", "@acme/demo@1.0.0", "gone"],
        &["unpublish", "--force", "@acme/demo@1.0.0"],
        &["owner", "add", "eve", "@acme/demo"],
    ] {
        let outcome = world.program("npm", words);
        assert!(!outcome.success, "{words:?}: {outcome:#?}");
    }
    world.refused_writing("tier.restricted.deny");
}

#[test]
fn npm_may_ask_what_is_known_to_be_unsafe() {
    let world = World::registry("npm", npm_registry);
    npmrc(&world, world.home());
    world.program("npm", &["install", "@acme/demo"]).succeeded();
    world.program("npm", &["audit"]).succeeded();
    let audits = |line: &String| line.starts_with("POST /-/npm/v1/security/advisories/bulk");
    assert!(world.origin.asked().iter().any(audits));
    world.inside.all_passed("read");
}

#[test]
fn a_rule_may_name_packages() {
    let lines = "category = \"package-registry\"\nservice = \"npm\"\ndoes.actions = [\"read\"]\n\
                 does.packages = [\"@acme/*\"]\n";
    let rules = |port| inspected("packages", HOST, port, lines);
    let world = World::start(npm_registry, rules);
    npmrc(&world, world.home());
    world
        .program("npm", &["install", "--no-save", "@acme/demo"])
        .succeeded();
    let words = ["install", "--no-save", "@evil/demo"];
    world.program("npm", &words).failed().showed("403");
    let line = world.inside.refused("action_denied");
    assert_eq!(line.text("tidegate.action"), "read", "{line:?}");
    assert_eq!(line.text("tidegate.package.name"), "@evil/demo", "{line:?}");
    let asked = world.origin.asked();
    assert!(!asked.iter().any(|line| line.contains("evil")), "{asked:?}");
}

// --- Python -------------------------------------------------------------------------------------

#[test]
fn pip_installs_and_twine_does_not_upload() {
    let world = World::registry("pypi", pypi_registry);
    let index = format!("{}/simple/", world.url);
    let words = [
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--index-url",
        &index,
    ];
    world
        .inside
        .program("pip")
        .args(words)
        .args(["demo-package"])
        .run()
        .succeeded();
    assert!(
        world
            .home()
            .join("demo_package-1.0-py3-none-any.whl")
            .exists()
    );
    world.inside.all_passed("read");

    let file = wheel(world.home()).display().to_string();
    let url = format!("{}/legacy/", world.url);
    let words = [
        "-m",
        "twine",
        "upload",
        "--non-interactive",
        "--disable-progress-bar",
    ];
    let more = [
        "-u",
        "__token__",
        "-p",
        "not-a-secret",
        "--repository-url",
        &url,
        &file,
    ];
    let twine = world.inside.program("python").args(words).args(more);
    twine.run().failed().showed("403");
    world.refused_writing("tier.restricted.deny");
}

#[test]
fn uv_installs_and_does_not_publish() {
    let world = World::registry("pypi", pypi_registry);
    let index = format!("{}/simple/", world.url);
    let words = [
        "pip",
        "install",
        "--no-deps",
        "--target",
        "out",
        "--no-cache",
        "--index-url",
    ];
    let python = crate::kit::need("python3").display().to_string();
    let more = [index.as_str(), "--python", &python, "demo-package"];
    world
        .inside
        .program("uv")
        .args(words)
        .args(more)
        .run()
        .succeeded();
    assert!(world.home().join("out/demo_package.py").exists());

    let file = wheel(world.home()).display().to_string();
    let url = format!("{}/legacy/", world.url);
    let words = [
        "publish",
        "-t",
        "not-a-secret",
        "--publish-url",
        &url,
        &file,
    ];
    world.program("uv", &words).failed().showed("403");
    world.refused_writing("tier.restricted.deny");
}

// --- cargo --------------------------------------------------------------------------------------

/// A package of that name whose registry is the one at that URL.
fn package(world: &World, name: &str, dependencies: &str) -> PathBuf {
    let place = world.home().join(name);
    std::fs::create_dir_all(place.join("src")).expect("a folder");
    std::fs::create_dir_all(place.join(".cargo")).expect("a folder");
    std::fs::write(place.join("src/lib.rs"), "//! Nothing.\n").expect("a file");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
         description = \"Nothing.\"\nlicense = \"Apache-2.0\"\n{dependencies}"
    );
    std::fs::write(place.join("Cargo.toml"), manifest).expect("a file");
    let url = &world.url;
    let config = format!("[registries.local]\nindex = \"sparse+{url}/\"\n[net]\nretry = 0\n");
    std::fs::write(place.join(".cargo/config.toml"), config).expect("a file");
    place
}

fn run_cargo(world: &World, place: &Path, words: &[&str]) -> Outcome {
    let cargo = world.inside.prepared(cargo(world.home()));
    cargo
        .env("CARGO_REGISTRIES_LOCAL_TOKEN", "not-a-secret")
        .args(words)
        .within(place)
        .run()
}

#[test]
fn cargo_fetches_and_does_not_publish() {
    let world = World::registry("cargo", cargo_registry);
    let dependencies = "[dependencies]\ndemo-crate = { version = \"0.1\", registry = \"local\" }\n";
    let place = package(&world, "dependent", dependencies);
    run_cargo(&world, &place, &["fetch"]).succeeded();
    world.inside.all_passed("read");

    let place = package(&world, "fresh", "");
    let words = [
        "publish",
        "--registry",
        "local",
        "--no-verify",
        "--allow-dirty",
    ];
    run_cargo(&world, &place, &words).failed().showed("403");
    world.refused_writing("tier.restricted.deny");

    let words = [
        "yank",
        "--registry",
        "local",
        "--version",
        "0.1.0",
        "demo-crate",
    ];
    run_cargo(&world, &place, &words).failed().showed("403");
    world.saw_only_reads();
}

// --- OCI ----------------------------------------------------------------------------------------

#[test]
fn skopeo_pulls_and_does_not_push() {
    let world = World::registry("oci", oci_registry);
    let base = world.url.replace("https:", "docker:");
    let (from, to) = (format!("{base}/acme/app:1"), format!("{base}/acme/new:1"));
    let out = format!("dir:{}", world.home().join("out").display());
    world
        .program("skopeo", &["--insecure-policy", "copy", &from, &out])
        .succeeded();
    assert!(world.home().join("out/manifest.json").exists());
    world.inside.all_passed("read");

    let image = format!("dir:{}", oci_image(world.home()).display());
    world
        .program("skopeo", &["--insecure-policy", "copy", &image, &to])
        .failed()
        .showed("403");
    world.refused_writing("tier.restricted.deny");
    let words = ["--insecure-policy", "delete", &from];
    world.program("skopeo", &words).failed().showed("403");
    world.saw_only_reads();
}

// --- git ----------------------------------------------------------------------------------------

/// A server of one repository, and a clone of it in the home.
fn forge(rules: impl FnOnce(u16) -> String) -> (World, TempDir) {
    let root = TempDir::new().expect("a folder");
    repository(root.path());
    let place = root.path().to_owned();
    let world = World::start(move |_| git_backend(place), rules);
    let url = format!("{}/repo.git", world.url);
    run_git(&world, &["clone", "-q", &url, "copy"]).succeeded();
    let text = std::fs::read_to_string(world.home().join("copy/README.md")).expect("a file");
    assert_eq!(text, "a real repository\n");
    world.inside.all_passed("read");
    std::fs::write(world.home().join("copy/new.txt"), "new\n").expect("a file");
    run_git(&world, &["-C", "copy", "add", "."]).succeeded();
    run_git(&world, &["-C", "copy", "commit", "-qm", "Second"]).succeeded();
    (world, root)
}

fn run_git(world: &World, words: &[&str]) -> Outcome {
    named(world.inside.program("git")).args(words).run()
}

fn named(git: Program) -> Program {
    git.env("GIT_AUTHOR_NAME", "Ana")
        .env("GIT_AUTHOR_EMAIL", "ana@acme.example")
        .env("GIT_COMMITTER_NAME", "Ana")
        .env("GIT_COMMITTER_EMAIL", "ana@acme.example")
}

/// The branches at the server.
fn branches(world: &World, root: &TempDir) -> Vec<String> {
    let bare = root.path().join("repo.git").display().to_string();
    let words = ["-C", &bare, "for-each-ref", "--format=%(refname)"];
    let outcome = Program::new("git", world.home()).args(words).run();
    outcome
        .succeeded()
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

const READ: &str = "category = \"source-control\"\ndoes.actions = [\"read\"]\n";

#[test]
fn git_clones_and_does_not_push() {
    let (world, root) = forge(|port| inspected("clone", HOST, port, READ));
    run_git(&world, &["-C", "copy", "push", "-q", "origin", "main"])
        .failed()
        .showed("403");
    world.refused_writing_to_a_forge();
    assert_eq!(branches(&world, &root), ["refs/heads/main"]);
    let asked = world.origin.asked();
    assert!(
        !asked.iter().any(|line| line.contains("receive-pack")),
        "{asked:?}"
    );
}

/// Everyone may read, and write to `agent/**`.
fn agents_branches(port: u16) -> String {
    let write = "does.actions = [\"write\"]\ndoes.refs = [\"refs/heads/agent/**\"]\n";
    inspected("clone", HOST, port, READ) + &inspected("agents", HOST, port, write)
}

#[test]
fn git_pushes_to_the_branches_that_a_rule_names_and_to_no_other() {
    let (world, root) = forge(agents_branches);
    run_git(
        &world,
        &["-C", "copy", "push", "-q", "origin", "main:agent/x"],
    )
    .succeeded();
    assert_eq!(
        branches(&world, &root),
        ["refs/heads/agent/x", "refs/heads/main"]
    );
    world.inside.all_passed("write");
    let packs = |world: &World| {
        let asked = world.origin.asked();
        let posts = asked.iter().filter(|line| line.starts_with("POST "));
        posts.filter(|line| line.ends_with("receive-pack")).count()
    };
    assert!(packs(&world) > 0);
    let before = packs(&world);
    for refs in [
        &["main"][..],
        &["main:agent/y", "main:other"],
        &["main:refs/tags/agent/x"],
        &["main:refs/heads/agent"],
        &[":main"],
    ] {
        let words = [&["-C", "copy", "push", "-q", "origin"], refs].concat();
        run_git(&world, &words).failed().showed("403");
    }
    assert_eq!(packs(&world), before, "{:?}", world.origin.asked());
    assert_eq!(
        branches(&world, &root),
        ["refs/heads/agent/x", "refs/heads/main"]
    );
    world.refused_some_writing();
}

#[test]
fn a_large_push_is_refused_before_a_byte_of_it_leaves() {
    let (world, _root) = forge(agents_branches);
    // More than a megabyte that does not compress: git then asks for 100-continue and chunks.
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = std::iter::repeat_with(next).take(1_500_000).collect();
    std::fs::write(world.home().join("copy/large.bin"), noise).expect("a file");
    run_git(&world, &["-C", "copy", "add", "."]).succeeded();
    run_git(&world, &["-C", "copy", "commit", "-qm", "Third"]).succeeded();
    run_git(&world, &["-C", "copy", "push", "-q", "origin", "main"]).failed();
    // Before a large push git sends the end of a list of nothing, to see whether it may.
    let requests = world.origin.requests();
    let mut packs = requests
        .iter()
        .filter(|it| it.method() == "POST" && it.target().ends_with("receive-pack"));
    assert!(
        packs.all(|it| it.body == b"0000"),
        "{:?}",
        world.origin.asked()
    );
    run_git(
        &world,
        &["-C", "copy", "push", "-q", "origin", "main:agent/large"],
    )
    .succeeded();
}

#[test]
fn a_rule_may_name_repositories_at_the_destination() {
    let read = format!("{READ}does.repositories = [\"acme/*\"]\n");
    let pki = Pki::new();
    let root = TempDir::new().expect("a folder");
    repository(root.path());
    for owner in ["acme", "evil"] {
        let bare = root.path().join(owner).join("repo.git");
        std::fs::create_dir(root.path().join(owner)).expect("a folder");
        let words = ["clone", "-q", "--bare", "repo.git"];
        let clone = Program::new("git", root.path()).args(words);
        clone.args([bare.display().to_string()]).run().succeeded();
    }
    let place = root.path().to_owned();
    let origin = origin("https", &pki, HOST, move |_| git_backend(place));
    let rules = inspected("clone", HOST, origin.port(), &read);
    let inside = Inside::start(&pki, &[HOST], &format!("{RESTRICTED}{rules}"));
    let clone = |owner: &str| {
        let url = format!("https://{HOST}:{}/{owner}/repo.git", origin.port());
        let words = ["clone", "-q", &url, owner];
        named(inside.program("git")).args(words).run()
    };
    clone("acme").succeeded();
    clone("evil").failed().showed("403");
    let line = inside.refused("action_denied");
    let repository = line.text("tidegate.destination.repository");
    assert_eq!(repository, "evil/repo", "{line:?}");
    let asked = origin.asked();
    assert!(!asked.iter().any(|line| line.contains("evil")), "{asked:?}");
}

impl World {
    #[track_caller]
    fn refused_writing_to_a_forge(&self) {
        self.refused_some_writing();
        self.saw_only_reads();
    }

    #[track_caller]
    fn refused_some_writing(&self) {
        let mut judged = self.inside.judged();
        judged.retain(|line| line.verdict() == "deny");
        assert!(!judged.is_empty());
        for line in judged {
            assert_eq!(line.text("tidegate.action"), "write", "{line:?}");
        }
    }
}
