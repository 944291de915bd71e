//! A jail, attacked from inside: whatever a command tries, its only way out is the gate.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tidegate::app::Plan;
use tidegate::clock::Clock;
use tidegate::config::{Listener, Owners};
use tidegate::dial::Programs;
use tidegate::gate::{Gate, Parts, Snapshot};
use tidegate::jail::{self, NotContained, Share};
use tidegate::metrics::Metrics;
use tidegate::policy::{Guard, built_in};
use tidegate::proxy::{self, Inside};
use tidegate::record::Recorder;

use crate::kit::{Line, Origin, Pki, TIERS, allow, names, need, read_log};

const HOST: &str = "files.example.com";
const REFUSED: &str = "elsewhere.example.net";

/// What a command in a jail left.
struct Left {
    code: u8,
    said: String,
    records: Vec<Line>,
}

/// A policy in a folder, and commands in jails below it.
struct Jails {
    folder: TempDir,
    ca: PathBuf,
    ports: Vec<u16>,
}

impl Jails {
    fn new(origin: &Origin, pki: &Pki) -> Self {
        Self::with(origin, pki, "")
    }

    /// With more tables of a configuration.
    fn with(origin: &Origin, pki: &Pki, tables: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let ca = pki.write(folder.path());
        let rules = allow("files", HOST, origin.port());
        let text = format!(
            "[listen]\nproxy = [\"127.0.0.1:0\"]\n[record]\nfile = \"decisions.jsonl\"\n{tables}{TIERS}{}{rules}",
            names(&[HOST, REFUSED])
        );
        std::fs::write(folder.path().join("tidegate.toml"), text).expect("a file");
        Self {
            folder,
            ca,
            ports: vec![22, 80, 443, origin.port()],
        }
    }

    /// Runs a script in a jail to its end; what it says goes to a file in a folder that is shared.
    fn run(&self, script: &str) -> Left {
        let said = self.shared().join("said");
        let script = format!("exec >{} 2>&1\n{script}", said.display());
        let code = self.command(&[&need("bash"), Path::new("-c"), Path::new(&script)]);
        let code = code.unwrap_or_else(|error| panic!("{error}"));
        Left {
            code,
            said: std::fs::read_to_string(said).unwrap_or_default(),
            records: read_log(&self.folder.path().join("decisions.jsonl")),
        }
    }

    /// The only folder of this test that its commands see.
    fn shared(&self) -> PathBuf {
        let shared = self.folder.path().join("shared");
        std::fs::create_dir_all(&shared).expect("a folder");
        shared
    }

    fn command(&self, words: &[&Path]) -> Result<u8, NotContained> {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(self.jailed(words))
    }

    /// What `exec --jail` does: a gate in this process, a jail below it.
    async fn jailed(&self, words: &[&Path]) -> Result<u8, NotContained> {
        let gate = self.gate();
        let (mut jailed, sockets) = jail::start(&jail::Plan {
            variables: self.variables(),
            ports: self.ports.clone(),
            hide: vec![self.folder.path().join("decisions.jsonl")],
            shares: vec![
                share(&self.shared(), false),
                share(&self.ca, true),
                share(&python(), true),
            ],
            helper: Some(env!("CARGO_BIN_EXE_tidegate").into()),
            ..jail::Plan::of(words.iter().map(|word| word.as_os_str().into()).collect())
        })?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        assert!(jailed.proxy_address.ip().is_loopback());
        let inside = Inside {
            sockets,
            listener: Arc::new(Listener::at(nowhere)),
            tenant: None,
        };
        proxy::serve_jail(&gate, inside, 64).expect("served");
        jailed.go()?;
        let ended = tokio::task::spawn_blocking(move || jailed.wait()).await;
        gate.draining.cancel();
        gate.tasks.close();
        gate.flows.end_all();
        gate.tasks.wait().await;
        gate.recorder.close().await;
        Ok(jail::exit_code(ended.expect("a thread").expect("a child")))
    }

    fn gate(&self) -> Arc<Gate> {
        let catalogue = built_in();
        let owners = Owners::of_this_process();
        let file = self.folder.path().join("tidegate.toml");
        let plan = Plan::new(Some(&file), &catalogue, &owners);
        let Plan { config, policy, .. } = plan.unwrap_or_else(|found| panic!("{found:#?}"));
        let clock = Clock::system();
        let metrics = Metrics::new(proxy::REASONS);
        let recorder = Recorder::start(&config.record, 256, clock.clone(), &metrics);
        let recorder = recorder.expect("a log");
        let parts = Parts {
            upstreams: tidegate::tls::Upstreams::default(),
            tls: tidegate::tls::Servers::default(),
            authority: None,
            before: None,
            guard: Guard::default().into(),
            metrics: &metrics,
            recorder: &recorder,
            shadow: None,
            clock: clock.clone(),
            programs: Programs::of(owners),
            dialer: None,
        };
        let first = Snapshot::new(1, &config, policy, &parts);
        Arc::new(Gate::new(first, recorder, metrics, clock))
    }

    fn variables(&self) -> Vec<(OsString, OsString)> {
        let ca = ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"];
        ca.map(|name| (name.into(), self.ca.clone().into())).into()
    }
}

/// Where the interpreter of the tests lies; a link of the package may lead there.
fn python() -> PathBuf {
    let program = need("python3");
    let prefix = program.parent().and_then(Path::parent);
    prefix.expect("a prefix").canonicalize().expect("a folder")
}

fn share(path: &Path, read_only: bool) -> Share {
    Share {
        path: path.to_owned(),
        read_only,
    }
}

/// Whether jails can be made here; says so where not.
fn possible(jails: &Jails) -> bool {
    match jails.command(&[&need("true")]) {
        Err(error @ NotContained::Forbidden { .. }) => {
            eprintln!("NOT TESTED HERE: {error}");
            false
        }
        Err(error) => panic!("{error}"),
        Ok(code) => code == 0,
    }
}

fn site(pki: &Pki) -> Origin {
    Origin::https(pki, &[HOST, REFUSED], |visit, _| {
        visit.answer("200 OK", "text/plain", b"from outside")
    })
}

#[test]
fn a_client_without_proxy_variables_is_captured_and_judged() {
    let pki = Pki::new();
    let origin = site(&pki);
    let jails = Jails::new(&origin, &pki);
    if !possible(&jails) {
        return;
    }
    let port = origin.port();
    let left = jails.run(&format!(
        "curl -sS https://{HOST}:{port}/; echo; curl -sS https://{REFUSED}:{port}/; \
         curl -sS --resolve {REFUSED}:{port}:1.2.3.4 https://{REFUSED}:{port}/; \
         curl -sS --connect-to {REFUSED}:{port}:{HOST}:{port} https://{REFUSED}:{port}/; exit 7"
    ));
    assert_eq!(left.code, 7, "{}", left.said);
    assert!(left.said.contains("from outside"), "{}", left.said);
    assert!(
        left.said.contains("Could not resolve host"),
        "{}",
        left.said
    );
    assert_eq!(origin.requests().len(), 1);
    let text = format!("{:#?}", left.records);
    for word in ["captured", "dns", "1.2.3.4", "sni_mismatch", REFUSED] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn the_exit_code_is_the_command_s_own() {
    let pki = Pki::new();
    let origin = site(&pki);
    let jails = Jails::new(&origin, &pki);
    if !possible(&jails) {
        return;
    }
    assert_eq!(jails.run("kill -TERM $$").code, 128 + 15);
    let missing = jails.command(&[Path::new("/no/such/program")]);
    assert!(
        matches!(missing, Err(NotContained::Command { .. })),
        "{missing:?}"
    );
}

#[test]
fn node_ignores_proxies_and_is_captured() {
    let pki = Pki::new();
    let origin = site(&pki);
    let jails = Jails::new(&origin, &pki);
    if !possible(&jails) {
        return;
    }
    let (port, node) = (origin.port(), need("node"));
    let fetch = |host: &str| {
        format!(
            "{} -e 'fetch(\"https://{host}:{port}/\").then(r => r.text()).then(console.log, \
             e => console.log(\"refused\", e.cause && e.cause.code))'",
            node.display()
        )
    };
    let left = jails.run(&format!("{}; {}", fetch(HOST), fetch(REFUSED)));
    assert!(left.said.contains("from outside"), "{}", left.said);
    assert!(left.said.contains("refused"), "{}", left.said);
    assert_eq!(origin.requests().len(), 1);
}

/// Each line that it prints begins with `out` where something got out.
const ATTACKS: &str = include_str!("jail.py");

#[test]
fn nothing_that_is_tried_from_inside_gets_out() {
    let pki = Pki::new();
    let origin = site(&pki);
    let jails = Jails::new(&origin, &pki);
    if !possible(&jails) {
        return;
    }
    let outside = std::process::id();
    let script = jails.shared().join("attack.py");
    std::fs::write(&script, ATTACKS).expect("a file");
    let left = jails.run(&format!(
        "{} {} {outside} {}",
        python().join("bin/python3").display(),
        script.display(),
        origin.port()
    ));
    assert_eq!(left.code, 0, "{}", left.said);
    assert!(left.said.contains("done"), "{}", left.said);
    let controls = left.said.lines().filter(|line| line.starts_with("control"));
    for control in controls {
        assert!(control.starts_with("control True"), "{}", left.said);
    }
    let out: Vec<_> = left
        .said
        .lines()
        .filter(|line| line.starts_with("out"))
        .collect();
    assert!(out.is_empty(), "{}", left.said);
    origin.saw_nothing();
}

/// Asks for refused names until one answer is a failure (its caller is over its rate), then for one
/// more refused name and an allowed one, up to a hundred times. Prints which of the two was
/// answered first.
const FLOOD_OF_NAMES: &str = r#"
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
client.connect(("9.9.9.9", 53))
def ask(number, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    head = number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0"
    client.send(head + labels + b"\0\0\1\0\1")
def answer():
    message = client.recv(512)
    return int.from_bytes(message[:2], "big"), message[3] & 15
number = 0
for _ in range(100):
    code = 0
    while code != 2:
        number += 1
        ask(number, f"n{number}.elsewhere.example.net")
        code = answer()[1]
    refused, allowed = number + 1, number + 2
    number += 2
    ask(refused, f"n{refused}.elsewhere.example.net")
    ask(allowed, sys.argv[1])
    answers = [answer(), answer()]
    assert (allowed, 0) in answers, answers
    if answers[0][0] == allowed:
        print("the allowed name came first")
        break
"#;

#[test]
fn refused_names_over_the_rate_hold_up_no_allowed_name() {
    let pki = Pki::new();
    let origin = site(&pki);
    let jails = Jails::with(&origin, &pki, "[limits]\nrefusal-rate = 1\n");
    if !possible(&jails) {
        return;
    }
    let script = jails.shared().join("names.py");
    std::fs::write(&script, FLOOD_OF_NAMES).expect("a file");
    let left = jails.run(&format!(
        "{} {} {HOST}",
        python().join("bin/python3").display(),
        script.display()
    ));
    assert_eq!(left.code, 0, "{}", left.said);
    assert!(left.said.contains("came first"), "{}", left.said);
    origin.saw_nothing();
}

#[test]
fn silent_connections_in_a_jail_keep_no_other_client_out() {
    let pki = Pki::new();
    let origin = site(&pki);
    let jails = Jails::new(&origin, &pki);
    if !possible(&jails) {
        return;
    }
    // Each is more than twice what may be connected at once.
    let script = format!(
        "python3 - <<'END'
import socket, subprocess
for end in [('1.2.3.4', 80), ('9.9.9.9', 53)]:
    held = [socket.create_connection(end) for _ in range(150)]
    print(subprocess.run(['curl', '-sS', 'https://{HOST}:{port}/']).returncode, flush=True)
    named = socket.create_connection(('9.9.9.9', 53))
    labels = b''.join(bytes([len(it)]) + it for it in b'{HOST}'.split(b'.'))
    question = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + labels + b'\\0\\0\\1\\0\\1'
    named.sendall(len(question).to_bytes(2, 'big') + question)
    print('named', named.recv(4, socket.MSG_WAITALL)[2:] == b'\\0\\7', flush=True)
END",
        port = origin.port()
    );
    let left = jails.run(&script);
    let expected = "from outside0\nnamed True\n".repeat(2);
    assert_eq!((left.code, left.said.as_str()), (0, expected.as_str()));
    let mut lines = left.records.iter();
    assert!(
        lines.any(|line| line.name() == "connections_evicted"),
        "none made room"
    );
}
