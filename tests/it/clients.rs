//! The programs that agents run, through a running proxy, against origins on loopback: what works,
//! and what a user sees of a refusal.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::kit::{
    Gate, Lines, Message, Origin, Outcome, Pki, Program, Site, TIERS, Visit, allow, cargo,
    cargo_registry, git_backend, names, need, npm_registry, pypi_registry,
};

const HOST: &str = "registry.example.com";
const REFUSED: &str = "blocked.example.com";

/// An origin over TLS, a gate that lets it pass, and a home for a program.
struct World {
    origin: Origin,
    gate: Gate,
    home: TempDir,
    ca: PathBuf,
}

impl World {
    /// Serves over TLS; `serve` is given the URL under which it will be reached.
    fn https<F, A>(serve: F) -> Self
    where
        F: FnOnce(&str) -> A,
        A: Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static,
    {
        Self::start("https", serve)
    }

    /// As [`Self::https`], in the clear.
    fn http<F, A>(serve: F) -> Self
    where
        F: FnOnce(&str) -> A,
        A: Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static,
    {
        Self::start("http", serve)
    }

    fn start<F, A>(scheme: &str, serve: F) -> Self
    where
        F: FnOnce(&str) -> A,
        A: Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static,
    {
        let (pki, home) = (Pki::new(), TempDir::new().expect("a home"));
        let origin = origin(scheme, &pki, HOST, serve);
        let rules = allow("registry", HOST, origin.port());
        let gate = Gate::with(&format!("{TIERS}{}{rules}", names(&[HOST, REFUSED])));
        let ca = pki.write(home.path());
        Self {
            origin,
            gate,
            home,
            ca,
        }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn port(&self) -> u16 {
        self.origin.port()
    }

    /// A program by name that goes through the proxy.
    fn program(&self, name: &str) -> Program {
        self.prepared(Program::new(name, self.home()))
    }

    /// A program that goes through the proxy and trusts the test's authority, each in its own way.
    fn prepared(&self, program: Program) -> Program {
        let mut program = program.through(&self.gate.url());
        for name in [
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
            "GIT_SSL_CAINFO",
            "PIP_CERT",
            "REQUESTS_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "npm_config_cafile",
            "CARGO_HTTP_CAINFO",
        ] {
            program = program.env(name, &self.ca);
        }
        program
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("UV_NO_CONFIG", "1")
            .env("npm_config_globalconfig", "/dev/null")
            .env("npm_config_update_notifier", "false")
            .env("npm_config_audit", "false")
            .env("npm_config_fund", "false")
    }

    /// The flow for that host is on record as refused, once or more, and reached nobody.
    #[track_caller]
    fn recorded_refusal(&self) {
        let lines = self.gate.eventually_records("the refusal", |lines| {
            lines
                .iter()
                .any(|line| line.text("server.address") == REFUSED)
        });
        for line in lines
            .iter()
            .filter(|line| line.text("server.address") == REFUSED)
        {
            assert_eq!(
                (line.verdict(), line.reason()),
                ("deny", "not_allowed"),
                "{line:?}"
            );
        }
        self.origin.saw_nothing();
    }

    /// What reached the origin is on record as allowed, with an end for each flow.
    #[track_caller]
    fn recorded_success(&self) {
        assert!(self.origin.connections() > 0, "nothing reached the origin");
        let lines = self.gate.eventually_records("an end for each", |lines| {
            let passed = lines
                .iter()
                .filter(|line| line.verdict() == "allow" && line.is_decision());
            let passed = passed.count();
            passed > 0 && lines.named("close").len() == passed
        });
        let hosts = lines.named("decision");
        assert!(
            hosts.iter().all(|line| line.text("server.address") == HOST),
            "{hosts:?}"
        );
    }
}

/// An origin of that name. Indexes name their own URL, so the answers come to know the port after
/// the socket.
pub(crate) fn origin<F, A>(scheme: &str, pki: &Pki, host: &str, serve: F) -> Origin
where
    F: FnOnce(&str) -> A,
    A: Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static,
{
    let answers = std::sync::Arc::new(std::sync::OnceLock::<A>::new());
    let later = answers.clone();
    let answer = move |visit: &mut Visit, request: &Message| {
        later.get().expect("the answers")(visit, request)
    };
    let origin = match scheme {
        "https" => Origin::https(pki, &[host], answer),
        _ => Origin::http(answer),
    };
    let url = format!("{scheme}://{host}:{}", origin.port());
    assert!(answers.set(serve(&url)).is_ok(), "set once");
    origin
}

fn hello(_: &str) -> impl Fn(&mut Visit, &Message) -> std::io::Result<()> + use<> {
    Site::default()
        .file("/hello.txt", "text/plain", "hello from the origin\n")
        .answers()
}

// --- curl and wget ------------------------------------------------------------------------------

#[test]
fn curl_fetches_what_is_allowed() {
    let world = World::https(hello);
    let url = format!("https://{HOST}:{}/hello.txt", world.port());
    world
        .program("curl")
        .args(["-sS", &url])
        .run()
        .succeeded()
        .showed("hello from the origin");
    world.recorded_success();

    let world = World::http(hello);
    let url = format!("http://{HOST}:{}/hello.txt", world.port());
    world
        .program("curl")
        .args(["-sS", &url])
        .run()
        .succeeded()
        .showed("hello from the origin");
    world.recorded_success();
}

#[test]
fn curl_shows_the_number_of_a_refused_tunnel_and_the_body_of_a_refused_request() {
    let world = World::https(hello);
    world
        .program("curl")
        .args(["-sS", "https://blocked.example.com/"])
        .run()
        .failed()
        .showed("403");
    world
        .program("curl")
        .args(["-sS", "http://blocked.example.com/"])
        .run()
        .showed("not_allowed");
    world.recorded_refusal();
}

#[test]
fn wget_fetches_what_is_allowed() {
    let world = World::https(hello);
    let url = format!("https://{HOST}:{}/hello.txt", world.port());
    let ca = format!("--ca-certificate={}", world.ca.display());
    world
        .program("wget")
        .args(["-qO-", &ca, &url])
        .run()
        .succeeded()
        .showed("hello from the");
    world.recorded_success();
}

#[test]
fn wget_shows_why_a_tunnel_was_refused() {
    let world = World::https(hello);
    let url = "https://blocked.example.com/";
    let outcome = world
        .program("wget")
        .args(["-O-", "--tries=1", url])
        .run()
        .failed();
    outcome.showed("tidegate denied blocked.example.com:443 not_allowed");
    world.recorded_refusal();
}

// --- git ----------------------------------------------------------------------------------------

/// A bare repository with one commit, below `root`.
pub(crate) fn repository(root: &Path) {
    let home = root.join("maker");
    std::fs::create_dir_all(home.join("work")).expect("a folder");
    std::fs::write(home.join("work/README.md"), "a real repository\n").expect("a file");
    let git = |words: &[&str]| {
        git(Program::new("git", &home))
            .args(words)
            .run()
            .succeeded()
    };
    git(&["init", "-q", "-b", "main", "work"]);
    git(&["-C", "work", "add", "."]);
    git(&["-C", "work", "commit", "-qm", "First"]);
    let bare = root.join("repo.git").display().to_string();
    git(&["clone", "-q", "--bare", "work", &bare]);
}

fn git(program: Program) -> Program {
    program
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ana")
        .env("GIT_AUTHOR_EMAIL", "ana@acme.example")
        .env("GIT_COMMITTER_NAME", "Ana")
        .env("GIT_COMMITTER_EMAIL", "ana@acme.example")
}

fn git_clones_and_pushes(scheme: &str) {
    let root = TempDir::new().expect("a folder");
    repository(root.path());
    let place = root.path().to_owned();
    let world = World::start(scheme, move |_| git_backend(place));
    let url = format!("{scheme}://{HOST}:{}/repo.git", world.port());
    let run = |words: &[&str]| git(world.program("git")).args(words).run().succeeded();

    run(&["clone", "-q", &url, "copy"]);
    let copy = world.home().join("copy");
    let text = std::fs::read_to_string(copy.join("README.md")).expect("a file");
    assert_eq!(text, "a real repository\n");
    // More than a megabyte that does not compress: git then asks for 100-continue and chunks.
    std::fs::write(copy.join("large.bin"), noise(1_500_000)).expect("a file");
    run(&["-C", "copy", "add", "."]);
    run(&["-C", "copy", "commit", "-qm", "Second"]);
    run(&["-C", "copy", "push", "-q", "origin", "main"]);

    let log = git(Program::new("git", world.home()))
        .args([
            "-C",
            &root.path().join("repo.git").display().to_string(),
            "log",
            "--oneline",
        ])
        .run()
        .succeeded();
    assert!(log.shows("Second"), "{log:?}");
    world.recorded_success();
}

/// Bytes without a pattern, the same each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn git_clones_and_pushes_over_https() {
    git_clones_and_pushes("https");
}

#[test]
fn git_clones_and_pushes_over_http() {
    git_clones_and_pushes("http");
}

#[test]
fn git_shows_the_number_of_a_refusal() {
    let world = World::https(hello);
    for url in [
        "https://blocked.example.com/repo.git",
        "http://blocked.example.com/repo.git",
    ] {
        git(world.program("git"))
            .args(["clone", url, "copy"])
            .run()
            .failed()
            .showed("403");
    }
    world.recorded_refusal();
}

// --- Python -------------------------------------------------------------------------------------

#[test]
fn pip_downloads_from_an_allowed_index() {
    let world = World::https(pypi_registry);
    let index = format!("https://{HOST}:{}/simple/", world.port());
    let words = [
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--index-url",
        &index,
        "demo-package",
    ];
    world.program("pip").args(words).run().succeeded();
    assert!(
        world
            .home()
            .join("demo_package-1.0-py3-none-any.whl")
            .exists()
    );
    world.recorded_success();
}

#[test]
fn pip_shows_why_an_index_was_refused() {
    let world = World::https(pypi_registry);
    let index = "https://blocked.example.com/simple/";
    let words = [
        "download",
        "--no-deps",
        "--retries",
        "1",
        "--index-url",
        index,
        "demo-package",
    ];
    world
        .program("pip")
        .args(words)
        .run()
        .failed()
        .showed("403 tidegate denied");
    world.recorded_refusal();
}

#[test]
fn uv_installs_from_an_allowed_index() {
    let world = World::https(pypi_registry);
    let index = format!("https://{HOST}:{}/simple/", world.port());
    let python = need("python3").display().to_string();
    let words = [
        "pip",
        "install",
        "--no-deps",
        "--target",
        "out",
        "--no-cache",
        "--python",
    ];
    let more = [&python, "--index-url", &index, "demo-package"];
    world.program("uv").args(words).args(more).run().succeeded();
    assert!(world.home().join("out/demo_package.py").exists());
    world.recorded_success();
}

#[test]
fn uv_fails_at_a_refused_index() {
    let world = World::https(pypi_registry);
    let python = need("python3").display().to_string();
    let index = "https://blocked.example.com/simple/";
    let words = [
        "pip",
        "install",
        "--no-deps",
        "--target",
        "out",
        "--no-cache",
        "--python",
    ];
    let more = [python.as_str(), "--index-url", index, "demo-package"];
    // It shows which URL it could not fetch, and nothing of the reason.
    world
        .program("uv")
        .args(words)
        .args(more)
        .run()
        .failed()
        .showed("blocked.example.com");
    world.recorded_refusal();
}

fn python(world: &World, script: &str) -> Outcome {
    world.program("python").args(["-c", script]).run()
}

#[test]
fn requests_fetches_what_is_allowed_and_shows_why_not() {
    let world = World::https(hello);
    let script = format!(
        "import requests; print(requests.get('https://{HOST}:{}/hello.txt').text)",
        world.port()
    );
    python(&world, &script)
        .succeeded()
        .showed("hello from the origin");
    world.recorded_success();

    let world = World::https(hello);
    python(
        &world,
        "import requests; requests.get('https://blocked.example.com/')",
    )
    .failed()
    .showed("403 tidegate denied blocked.example.com:443 not_allowed");
    world.recorded_refusal();
}

#[test]
fn httpx_fetches_what_is_allowed_and_shows_why_not() {
    let world = World::https(hello);
    let script = format!(
        "import httpx; print(httpx.get('https://{HOST}:{}/hello.txt').text)",
        world.port()
    );
    python(&world, &script)
        .succeeded()
        .showed("hello from the origin");
    world.recorded_success();

    let world = World::https(hello);
    python(
        &world,
        "import httpx; httpx.get('https://blocked.example.com/')",
    )
    .failed()
    .showed("403 tidegate denied blocked.example.com:443 not_allowed");
    world.recorded_refusal();
}

// --- npm and Node -------------------------------------------------------------------------------

#[test]
fn npm_installs_from_an_allowed_registry() {
    for scheme in ["https", "http"] {
        let world = World::start(scheme, npm_registry);
        let registry = format!("--registry={scheme}://{HOST}:{}/", world.port());
        world
            .program("npm")
            .args(["install", "--no-save", &registry, "demo"])
            .run()
            .succeeded();
        assert!(world.home().join("node_modules/demo/index.js").exists());
        world.recorded_success();
    }
}

#[test]
fn npm_shows_why_a_registry_was_refused() {
    let world = World::https(hello);
    for registry in [
        "https://blocked.example.com/",
        "http://blocked.example.com/",
    ] {
        let words = ["install", "--no-save", "--registry", registry, "demo"];
        world
            .program("npm")
            .args(words)
            .run()
            .failed()
            .showed("tidegate denied");
    }
    world.recorded_refusal();
}

/// Whether this Node can be told by the environment to use a proxy for `fetch`.
fn node_knows_proxies(world: &World) -> bool {
    let version = Program::new("node", world.home())
        .args(["--version"])
        .run()
        .succeeded()
        .stdout;
    let mut parts = version
        .trim()
        .trim_start_matches('v')
        .split('.')
        .map(|part| part.parse::<u32>().expect("a number"));
    let version = (
        parts.next().expect("a major"),
        parts.next().expect("a minor"),
    );
    version >= (24, 0) || (version.0 == 22 && version.1 >= 21)
}

fn fetch(world: &World, url: &str) -> Outcome {
    let script = format!(
        "fetch('{url}').then(answer => answer.text()).then(console.log, error => {{\
         console.error(error, error.cause); process.exit(1); }})"
    );
    world
        .program("node")
        .env("NODE_USE_ENV_PROXY", "1")
        .args(["-e", &script])
        .run()
}

#[test]
fn the_fetch_of_node_goes_through_the_proxy_where_it_can() {
    let world = World::https(hello);
    let outcome = fetch(
        &world,
        &format!("https://{HOST}:{}/hello.txt", world.port()),
    );
    if node_knows_proxies(&world) {
        outcome.succeeded().showed("hello from the origin");
        world.recorded_success();
        let world = World::https(hello);
        fetch(&world, "https://blocked.example.com/").failed();
        world.recorded_refusal();
    } else {
        eprintln!("this Node has no NODE_USE_ENV_PROXY: its fetch ignores the proxy, as recorded");
        outcome.failed();
        assert!(
            world.gate.records().named("decision").is_empty(),
            "it did use the proxy"
        );
        world.origin.saw_nothing();
    }
}

fn node_https(world: &World, host: &str, port: u16) -> Outcome {
    let (proxy_host, proxy_port) = (world.gate.proxy().ip(), world.gate.proxy().port());
    let script = format!(
        "const http = require('http'), https = require('https');
         const ask = http.request({{ host: '{proxy_host}', port: {proxy_port}, method: 'CONNECT',
           path: '{host}:{port}', agent: false }});
         ask.on('connect', (answer, socket) => {{
           if (answer.statusCode !== 200) {{
             console.error(answer.statusCode, answer.statusMessage);
             process.exit(1);
           }}
           https.get({{ socket, servername: '{host}', host: '{host}', path: '/hello.txt',
             agent: false }}, page => page.pipe(process.stdout));
         }});
         ask.end();"
    );
    world.program("node").args(["-e", &script]).run()
}

#[test]
fn the_https_of_node_goes_through_a_tunnel_and_shows_why_not() {
    let world = World::https(hello);
    node_https(&world, HOST, world.port())
        .succeeded()
        .showed("hello from the origin");
    world.recorded_success();

    let world = World::https(hello);
    node_https(&world, REFUSED, 443)
        .failed()
        .showed("403 tidegate denied blocked.example.com:443 not_allowed");
    world.recorded_refusal();
}

// --- cargo --------------------------------------------------------------------------------------

/// A package that depends on `demo-crate` of the index at that URL.
fn dependent(world: &World, url: &str) -> PathBuf {
    let place = world.home().join("dependent");
    std::fs::create_dir_all(place.join("src")).expect("a folder");
    std::fs::create_dir_all(place.join(".cargo")).expect("a folder");
    std::fs::write(place.join("src/lib.rs"), "//! Nothing.\n").expect("a file");
    let manifest = "[package]\nname = \"dependent\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
                    [dependencies]\ndemo-crate = { version = \"0.1\", registry = \"local\" }\n";
    std::fs::write(place.join("Cargo.toml"), manifest).expect("a file");
    let config = format!("[registries.local]\nindex = \"sparse+{url}/\"\n[net]\nretry = 0\n");
    std::fs::write(place.join(".cargo/config.toml"), config).expect("a file");
    place
}

#[test]
fn cargo_fetches_from_an_allowed_index() {
    let world = World::https(cargo_registry);
    let place = dependent(&world, &format!("https://{HOST}:{}", world.port()));
    world
        .prepared(cargo(world.home()))
        .args(["fetch"])
        .within(&place)
        .run()
        .succeeded();
    let lock = std::fs::read_to_string(place.join("Cargo.lock")).expect("a lock file");
    assert!(lock.contains("demo-crate"), "{lock}");
    world.recorded_success();
}

#[test]
fn cargo_shows_the_number_of_a_refusal() {
    let world = World::https(hello);
    let place = dependent(&world, "https://blocked.example.com");
    let outcome = world
        .prepared(cargo(world.home()))
        .args(["fetch"])
        .within(&place)
        .run();
    outcome.failed().showed("403");
    world.recorded_refusal();
}
