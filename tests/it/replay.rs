//! Recorded flows, judged again: the policy that wrote them changes none, another one says which.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{
    Client, Gate, Inside, Line, Origin, Outcome, Pki, TIERS, allow_more, difference, inspected,
    loopback, names, tidegate,
};

const HOST: &str = "files.example.net";

fn replay(words: &[&OsStr]) -> Outcome {
    let mut all = vec![OsStr::new("replay")];
    all.extend_from_slice(words);
    tidegate(&all)
}

/// What `replay` says of a log under a configuration.
fn replayed(log: &Path, config: &Path) -> Value {
    let said = replay(&[
        log.as_ref(),
        OsStr::new("--policy"),
        config.as_ref(),
        OsStr::new("--json"),
    ]);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// The configuration with another text, beside the first one.
fn rewritten(config: &Path, change: impl Fn(String) -> String) -> std::path::PathBuf {
    let text = std::fs::read_to_string(config).expect("a file");
    let path = config.with_file_name("changed.toml");
    std::fs::write(&path, change(text)).expect("a file");
    path
}

/// Waits for so many decisions on record.
fn settle(gate: &Gate, count: usize) {
    gate.eventually_records("the decisions", |lines| {
        lines.iter().filter(|line| line.is_decision()).count() >= count
    });
}

// --- The same policy ----------------------------------------------------------------------------

/// Flows of many kinds through one gate: tunnels and requests, inside TLS and not, allowed, asked
/// for, denied, observed, upgraded, of callers with and without a name.
fn wide_mix() -> Inside {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let plain = Origin::echo();
    let (tls, http) = (origin.port(), plain.port());
    let own = "unless.credentials = [\"hmac-sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"]\n";
    let mut policy = format!(
        "{TIERS}{}{}{}{}",
        inspected(
            "files",
            HOST,
            tls,
            &format!("does.paths = [\"/docs/**\"]\n{own}")
        ),
        allow_more(
            "plain",
            "plain.example.net",
            http,
            "does.methods = [\"GET\"]\n"
        ),
        allow_more(
            "forge",
            "forge.example.net",
            http,
            "category = \"source-control\"\nservice = \"git\"\ndoes.operations = [\"fetch\"]\n"
        ),
        "\n[[rule]]\nid = \"asks\"\nverdict = \"ask\"\nto.hosts = [\"asked.example.net\"]\n\
         \n[[rule]]\nid = \"never\"\nverdict = \"deny\"\nto.hosts = [\"127.0.0.0/30\"]\nto.ports = [9]\n\
         \n[[rule]]\nid = \"resolves\"\nverdict = \"allow\"\nto.hosts = [\"private.example.net\"]\n",
    );
    let _ = write!(
        policy,
        "\n[[identity.user]]\nname = \"ana\"\nsecret = \"{}\"\ngroups = [\"platform\"]\n\
         repository = \"github.com/acme/open-tools\"\n[group.platform]\nfloor = \"standard\"\n\
         [[repository]]\nmatch = \"github.com/acme/open-*\"\ntier = \"open\"\n",
        crate::identity::hashed("ana-secret")
    );
    let hosts = [
        HOST,
        "plain.example.net",
        "forge.example.net",
        "private.example.net",
    ];
    let inside = Inside::start(&pki, &hosts, &policy);
    let gate = &inside.gate;
    let authority = format!("{HOST}:{tls}");
    let mut client = inside.enter(HOST, tls);
    assert_eq!(client.inside("GET", &authority, "/docs/a").status(), 200);
    assert_eq!(client.inside("GET", &authority, "/secret").status(), 403);
    client.send(format!(
        "GET /docs/b HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer theirs-1234567890\r\n\r\n"
    ));
    assert_eq!(client.answer("GET").status(), 403);
    for target in [
        "nowhere.example.net:443",
        "asked.example.net:443",
        "169.254.169.254:80",
        "127.0.0.1:9",
        "127.0.0.1:443",
        "private.example.net:443",
        "files.example.net:1",
        "not a host",
    ] {
        gate.client().connect(target);
    }
    let url = |host: &str, path: &str| format!("http://{host}.example.net:{http}{path}");
    let as_ana = || Client::dial(gate.proxy()).known_as("ana", "ana-secret");
    assert_eq!(as_ana().get(&url("plain", "/a")).status(), 200);
    gate.client()
        .request("POST", &url("plain", "/a"), "Content-Length: 1\r\n", "x");
    gate.client()
        .get(&url("forge", "/acme/app/info/refs?service=git-upload-pack"));
    gate.client().get(&url(
        "forge",
        "/acme/app/info/refs?service=git-receive-pack",
    ));
    gate.client().get(&url("other", "/"));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    gate.client()
        .request("GET", &url("plain", "/ws"), upgrade, "");
    settle(gate, 17);
    drop((origin, plain));
    inside
}

#[test]
fn the_policy_that_wrote_its_records_changes_none_of_them() {
    let inside = wide_mix();
    let (config, log) = (inside.gate.config(), inside.gate.log());
    let own = replayed(&log, &config);
    assert_eq!(own["changed"], 0, "{own:#}");
    assert_eq!(own["own"]["flows"], own["flows"], "{own:#}");
    assert_eq!(own["own"]["by_other_rule"], 0, "{own:#}");
    assert!(own["same"].as_u64() >= Some(14), "{own:#}");
    // Another text of the same meaning decides from the recorded facts alone.
    let same = rewritten(&config, |text| format!("# reviewed\n{text}"));
    let other = replayed(&log, &same);
    assert_eq!(other["own"]["flows"], 0, "{other:#}");
    assert_eq!(other["changed"], 0, "{other:#}");
    assert_eq!(other["by_other_rule"], 0, "{other:#}");
    // The paths of the requests inside are not on record, nor their credentials.
    assert!(
        other["undetermined"]["path"].as_u64() <= Some(3),
        "{other:#}"
    );
}

/// Each gate of these tests is held to its records when it ends; here a line says otherwise.
#[test]
fn a_line_that_the_policy_would_not_write_is_told_where_a_gate_ends() {
    let mut gate = Gate::with(TIERS);
    gate.client().connect("a.example.net:443");
    settle(&gate, 1);
    gate.tampered();
    assert_eq!(difference(&gate.config(), &gate.log()), None);
    let text = std::fs::read_to_string(gate.log()).expect("a log");
    let other = text.replace(
        "\"tidegate.verdict\":\"deny\"",
        "\"tidegate.verdict\":\"allow\"",
    );
    let rotated = gate.folder().join("decisions.jsonl.1");
    std::fs::write(rotated, other).expect("a file");
    let told = difference(&gate.config(), &gate.log()).expect("a difference");
    assert!(told.contains("tier.standard.default"), "{told}");
}

#[test]
fn paths_on_record_decide_rules_on_paths() {
    let origin = Origin::echo();
    let rules = allow_more("docs", HOST, origin.port(), "does.paths = [\"/docs/**\"]\n");
    let policy = format!("{TIERS}{}{rules}", names(&[HOST]));
    for (record, same, unknown) in [("paths = true\n", 2, 0), ("", 0, 2)] {
        let gate = Gate::plan(&policy).record(record).start();
        for path in ["/docs/a", "/secret"] {
            gate.client()
                .get(&format!("http://{HOST}:{}{path}?q=secret", origin.port()));
        }
        settle(&gate, 2);
        let seen: Vec<Line> = gate
            .records()
            .into_iter()
            .filter(|it| it.has("url.path"))
            .collect();
        assert_eq!(seen.len(), same, "{seen:?}");
        let text = std::fs::read_to_string(gate.log()).expect("a log");
        assert!(!text.contains("q=secret"), "{text}");
        let config = rewritten(&gate.config(), |text| text + "\n# another\n");
        let other = replayed(&gate.log(), &config);
        assert_eq!(other["same"], same, "{other:#}");
        assert_eq!(
            other["undetermined"]["path"].as_u64().unwrap_or(0),
            unknown,
            "{other:#}"
        );
        // A rule that covers every path, and denies one that is not on record.
        let wider = rewritten(&gate.config(), |text| text.replace("/docs/**", "/**"));
        let wider = replayed(&gate.log(), &wider);
        assert_eq!(wider["changed"], same / 2, "{wider:#}");
    }
}

// --- Another policy -----------------------------------------------------------------------------

#[test]
fn a_change_is_told_with_its_rule_its_sessions_and_its_repositories() {
    let origin = Origin::echo();
    let user = format!(
        "\n[[identity.user]]\nname = \"ana\"\nsecret = \"{}\"\n\
         repository = \"github.com/acme/web\"\n",
        crate::identity::hashed("ana-secret")
    );
    let gate = Gate::with(&(loopback(origin.port()) + &user));
    let url = format!("http://{HOST}:{}/", origin.port());
    for _ in 0..3 {
        let mut client = Client::dial(gate.proxy()).known_as("ana", "ana-secret");
        assert_eq!(client.get(&url).status(), 200);
    }
    gate.client().connect("new.example.net:443");
    settle(&gate, 4);
    let next = rewritten(&gate.config(), |text| {
        let without = text.replace("\nverdict = \"allow\"", "\nverdict = \"deny\"");
        let without = without.replace("grant.addresses", "#");
        without
            + "\n[[rule]]\nid = \"new\"\nverdict = \"allow\"\nto.hosts = [\"new.example.net\"]\n"
    });
    let said = replay(&[gate.log().as_ref(), OsStr::new("--policy"), next.as_ref()]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in [
        "replay       4 flows of 1 file, ",
        "same         0",
        "changed      4",
        "allow → deny   3 flows   files.example.net:",
        "deny → allow   1 flow   new.example.net:443",
        "now by  new  ",
        "changed.toml:",
        "was by  tier.standard.default  ",
        "github.com/acme/web (3)",
        "tidegate explain ",
    ] {
        assert!(said.stdout.contains(part), "{part:?} in {}", said.stdout);
    }
    // The verdict that is told is the one that `explain` gives.
    let flow = gate
        .records()
        .into_iter()
        .find(|line| line.text("server.address") == HOST);
    let flow = flow.expect("a flow").flow().to_owned();
    let explained = tidegate(&[
        OsStr::new("explain"),
        OsStr::new(&flow),
        OsStr::new("--config"),
        next.as_ref(),
    ]);
    assert!(explained.stdout.contains("now"), "{explained:?}");
    assert!(explained.stdout.contains("deny  denied"), "{explained:?}");
}

#[test]
fn an_address_that_is_not_granted_any_more_is_a_change() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(gate.client().get(&url).status(), 200);
    settle(&gate, 1);
    let next = rewritten(&gate.config(), |text| {
        text.replace("127.0.0.0/8", "10.0.0.0/8")
    });
    let report = replayed(&gate.log(), &next);
    assert_eq!(report["changed"], 1, "{report:#}");
    assert_eq!(
        report["changes"][0]["now"]["reason"], "address_denied",
        "{report:#}"
    );
}

// --- Files --------------------------------------------------------------------------------------

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("a file");
    }
    folder
}

const POLICY: &str = "[tiers]\norder = [\"only\"]\n[tier.only]\ndefault = \"deny\"\n";

/// A denied tunnel, as a gate writes it.
pub(crate) fn denied(host: &str) -> String {
    format!(
        "{{\"timestamp\":\"2026-11-22T10:41:07.000001Z\",\"event.name\":\"decision\",\
         \"tidegate.flow.id\":\"0195f3c2-0000-7000-8000-000000000001\",\"tidegate.verdict\":\"deny\",\
         \"tidegate.reason\":\"not_allowed\",\"security_rule.name\":\"tier.only.default\",\
         \"tidegate.tier\":\"only\",\"tidegate.tier.basis\":\"unattributed\",\
         \"tidegate.repository.trust\":\"none\",\"server.address\":\"{host}\",\"server.port\":443,\
         \"network.protocol.name\":\"connect\"}}\n"
    )
}

#[test]
fn records_of_many_files_packed_and_from_standard_input_are_one_report() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer
        .write_all(denied("b.example.net").as_bytes())
        .expect("packed");
    let bytes = packer.finish().expect("packed");
    let folder = folder(&[
        ("tidegate.toml", POLICY.as_bytes()),
        ("one.jsonl", denied("a.example.net").as_bytes()),
        ("two.jsonl.gz", &bytes),
    ]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args([
            "replay",
            "one.jsonl",
            "two.jsonl.gz",
            "-",
            "--config",
            "tidegate.toml",
            "--json",
        ])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(denied("c.example.net").as_bytes())
        .expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["flows"], &report["same"]),
        (&3.into(), &3.into()),
        "{report:#}"
    );
}

#[test]
fn files_that_are_no_records_and_files_that_are_not_there_are_said() {
    let folder = folder(&[
        ("tidegate.toml", POLICY.as_bytes()),
        ("notes.txt", b"hello\n"),
    ]);
    let config = folder.path().join("tidegate.toml");
    let replay = |name: &str| {
        let path = folder.path().join(name);
        replay(&[path.as_ref(), OsStr::new("--config"), config.as_ref()])
    };
    let said = replay("notes.txt");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.stderr.contains("hold no line of a decision log"),
        "{said:?}"
    );
    let said = replay("none.jsonl");
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.stderr.contains("none.jsonl: No such file"), "{said:?}");
}

#[test]
fn lines_of_another_hand_are_bounded_and_cannot_draw_on_the_terminal() {
    let allow = "[tiers]\norder = [\"only\"]\n[tier.only]\ndefault = \"allow\"\n";
    let mut text = denied("a.example.net").replace("tier.only.default", "\\u001b[2J\\u202e");
    text.push_str(&denied("b.example.net").replace("443", "70000"));
    text.push_str(&denied("\\u001b[2J"));
    text.push_str(&denied("c.example.net").replace("\"connect\"", "[\"connect\"]"));
    text.push_str(&"[".repeat(100_000));
    text.push_str("\n{\"event.name\":\"decision\"}\n\u{0}\n");
    text.push_str(&"x".repeat(3 << 20));
    text.push('\n');
    let repeated = denied("d.example.net").replace("\"decision\"", "\"refusals_repeated\"");
    let endless =
        "{\"tidegate.repeat.state\":\"ended\",\"tidegate.repeat.count\":18446744073709551615,";
    for _ in 0..3 {
        text.push_str(&repeated.replacen('{', endless, 1));
    }
    text.push_str(&"9".repeat(200));
    let folder = folder(&[
        ("tidegate.toml", allow.as_bytes()),
        ("r.jsonl", text.as_bytes()),
    ]);
    let path = |name: &str| folder.path().join(name);
    let (records, config) = (path("r.jsonl"), path("tidegate.toml"));
    let said = replay(&[records.as_ref(), OsStr::new("--config"), config.as_ref()]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let plain = |letter: char| letter == '\n' || !letter.is_control() && letter != '\u{202e}';
    assert!(said.stdout.chars().all(plain), "{:?}", said.stdout);
    assert!(said.stdout.contains("deny → allow"), "{said:?}");
    let report = replayed(&records, &config);
    assert_eq!(report["changed"], u64::MAX, "{report:#}");
    assert_eq!(report["not_judged"]["no-target"], 1, "{report:#}");
    assert!(
        report["lines"]["unreadable"].as_u64() >= Some(5),
        "{report:#}"
    );
}

// --- A recorded flow becomes a trial ------------------------------------------------------------

fn add(words: &[&str], config: &Path) -> Outcome {
    let mut all: Vec<&OsStr> = vec!["test".as_ref(), "add".as_ref()];
    all.extend(words.iter().map(OsStr::new));
    all.extend([OsStr::new("--config"), config.as_ref()]);
    tidegate(&all)
}

#[test]
fn a_recorded_flow_becomes_a_trial_beside_the_rule_that_decided() {
    let origin = Origin::echo();
    let user = format!(
        "\n# About the paste site.\n[[rule]]\nid = \"paste\"\nverdict = \"deny\"\n\
         to.hosts = [\"paste.example.net\"] # not here\n\n# Who is who.\n[[identity.user]]\n\
         name = \"ana\"\nsecret = \"{}\"\nrepository = \"github.com/acme/web\"\n",
        crate::identity::hashed("ana-secret")
    );
    let gate = Gate::with(&(loopback(origin.port()) + &user));
    let denied = Client::dial(gate.proxy())
        .known_as("ana", "ana-secret")
        .connect("paste.example.net:443");
    let flow = denied.field("x-tidegate-flow").expect("a flow").to_owned();
    gate.decision(&flow);
    let config = gate.config();
    let before = std::fs::read_to_string(&config).expect("a file");
    // What the policy does not hold to is not written: no such policy would load.
    let said = add(&["--from", &flow, "--expect", "allow"], &config);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("deny by paste"), "{said:?}");
    let said = add(&["--from", &flow, "--expect", "deny", "--dry-run"], &config);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(std::fs::read_to_string(&config).expect("a file"), before);
    let said = add(&["--from", &flow, "--expect", "deny"], &config);
    assert_eq!(said.code, Some(0), "{said:?}");
    let trial = format!(
        "to.hosts = [\"paste.example.net\"] # not here\n\n[[trial]]\n\
         name = \"deny paste.example.net:443, as in flow {flow}\"\nfrom.tiers = [\"standard\"]\n\
         from.repositories = [\"github.com/acme/web\"]\ndenies = [\"paste.example.net:443\"]\n\n\
         # Who is who.\n"
    );
    let after = std::fs::read_to_string(&config).expect("a file");
    assert!(after.contains(&trial), "{after}");
    assert_eq!(
        after.replace(
            &trial[trial.find("[[trial]]").expect("a trial")..trial.len() - 14],
            ""
        ),
        before
    );
    let said = tidegate(&[OsStr::new("test"), config.as_ref()]);
    assert!(said.stdout.contains("1 passed, 0 failed"), "{said:?}");
    let said = add(&["--from", "00000000-dead", "--expect", "deny"], &config);
    assert_eq!(said.code, Some(2), "{said:?}");
    // The gate reads its own file again: its records are held to what it says then.
    drop(gate);
}

#[test]
fn a_request_becomes_a_trial_where_its_path_is_on_record() {
    let origin = Origin::echo();
    let rules = allow_more("docs", HOST, origin.port(), "does.paths = [\"/docs/**\"]\n");
    let policy = format!("{TIERS}{}{rules}", names(&[HOST]));
    for (record, code) in [("paths = true\n", 0), ("", 2)] {
        let gate = Gate::plan(&policy).record(record).start();
        let url = format!("http://{HOST}:{}/docs/a", origin.port());
        assert_eq!(gate.client().get(&url).status(), 200);
        settle(&gate, 1);
        let flow = gate
            .records()
            .iter()
            .find(|it| it.is_decision())
            .expect("a line")
            .flow()
            .to_owned();
        let said = add(&["--from", &flow, "--expect", "allow"], &gate.config());
        assert_eq!(said.code, Some(code), "{said:?}");
        let written = format!("allows = [\"GET {url}\"]");
        assert_eq!(said.stdout.contains(&written), code == 0, "{said:?}");
    }
}

// --- The next policy beside the one in force ----------------------------------------------------

#[test]
fn a_shadow_policy_is_on_record_and_counted_and_decides_nothing() {
    let origin = Origin::echo();
    let next = format!(
        "{TIERS}\n[[rule]]\nid = \"new\"\nverdict = \"allow\"\nto.hosts = [\"new.example.net\"]\n"
    );
    let policy = format!("shadow = \"shadow.toml\"\n{}", loopback(origin.port()));
    let mut gate = Gate::plan(&policy).file("shadow.toml", &next).start();
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(gate.client().get(&url).status(), 200);
    assert_eq!(gate.client().connect("new.example.net:443").status(), 403);
    assert_eq!(gate.client().connect("other.example.net:443").status(), 403);
    let shadow = |host: &str| {
        let line = gate.line("a decision", |line| {
            line.is_decision() && line.text("server.address") == host
        });
        let text = |name: &str| line.text(name).to_owned();
        (
            text("tidegate.verdict"),
            text("tidegate.shadow.verdict"),
            text("tidegate.shadow.rule"),
        )
    };
    let words =
        |one: &str, two: &str, three: &str| (one.to_owned(), two.to_owned(), three.to_owned());
    assert_eq!(
        shadow(HOST),
        words("allow", "deny", "tier.standard.default")
    );
    assert_eq!(shadow("new.example.net"), words("deny", "allow", "new"));
    assert_eq!(shadow("other.example.net"), words("deny", "deny", ""));
    let counted = |verdict: &str, shadow: &str| {
        let labels = [("verdict", verdict), ("shadow", shadow)];
        gate.metrics()
            .sum("tidegate_shadow_decisions_total", &labels)
    };
    assert_eq!(
        (
            counted("allow", "deny"),
            counted("deny", "allow"),
            counted("deny", "deny")
        ),
        (1.0, 1.0, 1.0)
    );
    // One that does not load stops nothing.
    gate.replace("shadow.toml", "nonsense = 1\n");
    assert_eq!(gate.client().get(&url).status(), 200);
    assert!(
        gate.said().contains("the shadow policy does not load"),
        "{}",
        gate.said()
    );
    std::fs::remove_file(gate.folder().join("shadow.toml")).expect("removed");
    gate.terminate();
    gate.restart();
    assert_eq!(gate.client().get(&url).status(), 200);
    let last = gate
        .records()
        .into_iter()
        .rfind(Line::is_decision)
        .expect("a line");
    assert!(!last.has("tidegate.shadow.verdict"), "{last:?}");
}
