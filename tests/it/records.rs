//! The decision log: what each flow leaves, and that nothing passes without leaving it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::Signal;

use crate::kit::{
    Client, Gate, Hello, Line, Lines, Origin, TIERS, allow, eventually, loopback, names, until,
};

const HOST: &str = "files.example.net";

fn url(origin: &Origin) -> String {
    format!("http://{HOST}:{}/", origin.port())
}

/// Leaves a line of each kind that flows leave.
fn exercise(gate: &Gate, origin: &Origin) {
    assert_eq!(gate.client().get(&url(origin)).status(), 200);
    assert_eq!(gate.client().connect("evil.example.org:443").status(), 403);
    gate.client().get("http://[broken/");
    let session = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab.main";
    assert_eq!(
        gate.client()
            .known_as(session, "x")
            .get(&url(origin))
            .status(),
        200
    );
    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(Hello::naming("x.example.org").bytes());
    let _ = client.rest();
    gate.eventually_records("five decisions, three ends", |lines| {
        lines.named("decision").len() == 5 && lines.named("close").len() == 3
    });
}

#[test]
fn a_refused_flow_leaves_one_line_and_an_allowed_one_two() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    exercise(&gate, &origin);

    let mut flows: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in gate
        .records()
        .into_iter()
        .filter(|line| !line.flow().is_empty())
    {
        flows.entry(line.flow().to_owned()).or_default().push(line);
    }
    assert_eq!(flows.len(), 5);
    for (flow, lines) in flows {
        let allowed = lines[0].verdict() == "allow";
        let names: Vec<_> = lines.iter().map(Line::name).collect();
        let expected = if allowed {
            vec!["decision", "close"]
        } else {
            vec!["decision"]
        };
        assert_eq!(names, expected, "{flow}");
    }
}

#[test]
fn every_line_is_as_the_published_schema_says() {
    let origin = Origin::echo();
    let mut gate = Gate::with(&loopback(origin.port()));
    exercise(&gate, &origin);
    gate.reload("[[rule]]\nverdict = \"allwo\"\n");
    gate.reload(&loopback(origin.port()));
    gate.crash_and_restart();
    gate.eventually_records("another start", |lines| {
        lines.named("policy_loaded").len() >= 2
    });

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/record.schema.json");
    let schema = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("the published schema: {}: {error}", path.display()));
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let mut wrong = Vec::new();
    for line in gate.records() {
        for error in validator.iter_errors(&line) {
            wrong.push(format!("{error} in {}", *line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut unknown = serde_json::json!({ "tidegate.nothing": 1 });
    assert!(
        !validator.is_valid(&unknown),
        "a schema that accepts anything says nothing"
    );
    unknown["event.name"] = "decision".into();
    assert!(!validator.is_valid(&unknown));
}

#[test]
fn each_line_says_who_where_why_and_under_which_policy() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    exercise(&gate, &origin);

    let lines = gate.records();
    let allowed = lines
        .iter()
        .find(|line| line.verdict() == "allow")
        .expect("an allowed flow");
    assert_eq!(allowed.text("tidegate.schema"), "record/1");
    assert_eq!(allowed.text("service.name"), "tidegate");
    assert!(allowed.text("timestamp").ends_with('Z'), "{allowed:?}");
    assert_eq!(
        allowed.text("timestamp").len(),
        "2026-11-22T13:57:53.123456Z".len()
    );
    assert_eq!(allowed.text("security_rule.name"), "files");
    assert!(
        allowed
            .text("tidegate.rule.location")
            .contains("tidegate.toml:"),
        "{allowed:?}"
    );
    assert_eq!(allowed.text("tidegate.mode"), "enforce");
    assert_eq!(allowed.text("tidegate.tier"), "standard");
    assert_eq!(allowed.text("tidegate.tier.basis"), "unattributed");
    assert_eq!(allowed.text("server.address"), HOST);
    assert_eq!(allowed.number("server.port"), u64::from(origin.port()));
    assert_eq!(allowed.text("client.address"), "127.0.0.1");
    assert_eq!(allowed.text("tidegate.policy.digest").len(), 64);
    assert_eq!(allowed.number("tidegate.policy.generation"), 1);

    let refused = lines
        .iter()
        .find(|line| line.verdict() == "deny")
        .expect("a refused flow");
    assert_eq!(refused.reason(), "not_allowed");
    assert_eq!(refused.text("security_rule.name"), "tier.standard.default");
    assert!(
        !refused.has("network.peer.address"),
        "denied by name: nothing was dialled"
    );
    assert_eq!(refused.number("http.response.status_code"), 403);

    let sequence: Vec<_> = lines
        .iter()
        .map(|line| line.number("event.sequence"))
        .collect();
    assert!(
        sequence.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{sequence:?}"
    );
}

#[test]
fn names_that_a_client_chose_are_escaped_and_cut() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let agent = format!("User-Agent: evil\u{1b}\"{}\r\n", "x".repeat(1000));
    gate.client().request(
        "GET",
        "http://evil.example.org/?secret=1",
        &agent.replace('\u{1b}', ""),
        "",
    );
    gate.client().connect(&format!(
        "{}.example.org:443",
        ["a".repeat(60).as_str(); 3].join(".")
    ));

    let lines = gate.eventually_records("two", |lines| lines.named("decision").len() == 2);
    for line in lines.named("decision") {
        assert!(line.text("user_agent.original").chars().count() <= 200);
        assert!(line.text("server.address").len() <= 253);
    }
    let log = std::fs::read_to_string(gate.log()).expect("a log");
    assert!(!log.contains("secret=1"), "no query string");
}

#[test]
fn after_a_crash_the_next_start_says_which_flows_have_no_end() {
    let origin = Origin::bytes();
    let mut gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming(HOST).bytes();
    let mut open: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let mut client = gate.client();
        client
            .tunnel(&format!("{HOST}:{}", origin.port()))
            .send(&hello);
        assert_eq!(client.exactly(hello.len()), hello);
        open.push(client);
    }
    let flows: BTreeSet<String> = gate
        .eventually_records("three", |lines| lines.named("decision").len() == 3)
        .named("decision")
        .iter()
        .map(|line| line.flow().to_owned())
        .collect();

    gate.crash_and_restart();

    let gap = gate.line("a record_gap", |line| line.name() == "record_gap");
    let listed = gap["tidegate.gap.flows"].as_array().expect("flows");
    let listed = listed
        .iter()
        .map(|flow| flow.as_str().expect("a flow").to_owned())
        .collect();
    assert_eq!(flows, listed);
}

#[test]
fn a_crash_without_open_flows_leaves_no_gap() {
    let origin = Origin::echo();
    let mut gate = Gate::with(&loopback(origin.port()));
    assert_eq!(gate.client().get(&url(&origin)).status(), 200);
    gate.last_close();

    gate.terminate();
    gate.restart();

    gate.eventually_records("another start", |lines| {
        lines.named("policy_loaded").len() == 2
    });
    assert!(gate.records().named("record_gap").is_empty());
}

#[test]
fn ten_thousand_flows_leave_all_their_lines() {
    const WORKERS: usize = 20;
    const EACH: usize = 250;
    let origin = Origin::http(|visit, _| visit.answer("200 OK", "text/plain", b"ok"));
    // One client is refused faster than a caller usually may be.
    let limits = "[limits]\nrefusal-rate = 1_000_000\n";
    let gate = Gate::with(&format!("{}{limits}", loopback(origin.port())));
    let (proxy, good) = (gate.proxy(), url(&origin));

    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let good = good.clone();
            thread::spawn(move || {
                let mut client = Client::dial(proxy);
                for _ in 0..EACH {
                    assert_eq!(client.get(&good).status(), 200);
                    let mut refused = Client::dial(proxy);
                    assert_eq!(refused.get("http://evil.example.org/").status(), 403);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker");
    }

    let each = WORKERS * EACH;
    let lines = gate.eventually_records("every line", |lines| lines.named("close").len() == each);
    let decisions = lines.named("decision");
    assert_eq!(
        decisions
            .iter()
            .filter(|line| line.verdict() == "allow")
            .count(),
        each
    );
    assert_eq!(
        decisions
            .iter()
            .filter(|line| line.verdict() == "deny")
            .count(),
        each
    );
    let flows: BTreeSet<_> = decisions.iter().map(Line::flow).collect();
    assert_eq!(flows.len(), 2 * each, "each flow has its own id");
    let metrics = gate.metrics();
    assert!(metrics.sum("tidegate_records_lost_total", &[]) < 1.0);
    assert_eq!(
        metrics.sum("tidegate_records_total", &[]).to_string(),
        lines.len().to_string()
    );
}

#[test]
fn sigterm_in_the_middle_of_a_transfer_leaves_its_end() {
    let origin = Origin::bytes();
    let limits = "\n[limits]\ndrain = \"1 s\"\n";
    let mut gate = Gate::with(&format!("{}{limits}", loopback(origin.port())));
    let hello = Hello::naming(HOST).bytes();
    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);

    assert!(gate.terminate().success());

    let close = gate.records().named("close").pop().expect("a close");
    assert_eq!(close.text("tidegate.end"), "cancelled");
    assert_eq!(close.number("tidegate.bytes.in"), hello.len() as u64);
}

#[test]
fn sighup_opens_the_file_anew() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    assert_eq!(gate.client().get(&url(&origin)).status(), 200);
    gate.last_close();
    let rotated = gate.folder().join("decisions.1");
    std::fs::rename(gate.log(), &rotated).expect("a rotation from outside");

    gate.signal(Signal::HUP);
    until("a new file", || gate.log().exists());
    assert_eq!(gate.client().get(&url(&origin)).status(), 200);

    gate.last_close();
    let old = std::fs::read_to_string(rotated).expect("the old file");
    assert_eq!(old.matches("\"close\"").count(), 1, "{old}");
}

#[test]
fn a_file_that_has_grown_is_rotated_and_old_ones_go() {
    let origin = Origin::echo();
    let gate = Gate::plan(&loopback(origin.port()))
        .record("rotate-size = 20000\nrotate-keep = 2\nretain = \"0 s\"")
        .start();
    for sent in 1..=120 {
        assert_eq!(gate.client().connect("evil.example.org:443").status(), 403);
        // One line a batch: a file is looked at after a batch, and grows by one at most.
        until("the line", || {
            gate.metrics().sum("tidegate_records_total", &[]) >= f64::from(sent)
        });
    }

    // A rotation may be under way while the files are read: they are looked at until they agree.
    let lines = || {
        let files = ["decisions.jsonl.2", "decisions.jsonl.1", "decisions.jsonl"];
        let read = |name: &&str| crate::kit::read_log(&gate.folder().join(name));
        let lines: Vec<u64> = files
            .iter()
            .flat_map(read)
            .map(|line| line.number("event.sequence"))
            .collect();
        let whole = lines.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        (whole && lines.last().is_some_and(|last| *last > 120)).then_some(lines)
    };
    let sequence = eventually("three files without a hole", lines);
    assert!(sequence.len() < 121, "the oldest are gone: {sequence:?}");
    assert!(!gate.folder().join("decisions.jsonl.3").exists());
}

/// A small file system of its own, taken away at the end.
struct Tmpfs {
    folder: tempfile::TempDir,
}

impl Tmpfs {
    /// Of 256 KiB; `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self { folder })
    }

    /// Fills it to the last byte and gives the file that does.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write as _;
        let path = self.folder.path().join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file");
        while file.write_all(&[0; 512]).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
    }
}

#[test]
fn a_full_disk_refuses_new_flows_and_frees_them_again() {
    let Some(disk) = Tmpfs::mount() else {
        eprintln!("NOT TESTED HERE: this user may not mount a tmpfs; /dev/full is tested instead");
        return;
    };
    let origin = Origin::echo();
    let file = disk.folder.path().join("decisions.jsonl");
    let gate = Gate::plan(&loopback(origin.port()))
        .record(&format!("file = \"{}\"", file.display()))
        .start();
    assert_eq!(gate.client().get(&url(&origin)).status(), 200);
    let ballast = disk.fill();

    // What still fits is written; from the first line that does not, nothing passes.
    let refusal = eventually("a refusal", || {
        let answer = gate.client().get(&url(&origin));
        (answer.status() == 503).then_some(answer)
    });
    assert_eq!(refusal.refusal(), "record_unavailable");
    let reached = origin.requests().len();
    for _ in 0..20 {
        assert_eq!(gate.client().get(&url(&origin)).status(), 503);
        assert_eq!(
            gate.client()
                .connect(&format!("{HOST}:{}", origin.port()))
                .status(),
            503
        );
    }
    assert_eq!(
        origin.requests().len(),
        reached,
        "something passed unrecorded"
    );
    assert_eq!(gate.ask("/healthz").status(), 200);
    assert_eq!(
        gate.ask("/readyz").status(),
        503,
        "it cannot serve, and says so"
    );

    std::fs::remove_file(ballast).expect("room again");
    until("flows pass again", || {
        gate.client().get(&url(&origin)).status() == 200
    });
    let lines = eventually("a record_gap", || {
        Some(crate::kit::read_log(&file)).filter(|lines| !lines.named("record_gap").is_empty())
    });
    assert!(
        lines
            .named("record_gap")
            .iter()
            .all(|gap| gap.has("tidegate.gap.lost"))
    );
}

#[test]
fn a_log_that_cannot_be_written_at_all_lets_nothing_pass() {
    let origin = Origin::echo();
    let gate = Gate::plan(&loopback(origin.port()))
        .record("file = \"/dev/full\"")
        .start();

    let answer = eventually("a refusal", || {
        let answer = gate.client().get(&url(&origin));
        (answer.status() != 200).then_some(answer)
    });

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (503, "record_unavailable")
    );
    assert!(answer.field("retry-after").is_some());
    origin.saw_nothing();
}

#[test]
fn on_failure_continue_lets_flows_pass_and_counts_what_is_lost() {
    let origin = Origin::echo();
    // Lines wait for the disk while there is room for them: here that of less than a hundred flows.
    let gate = Gate::plan(&format!(
        "{}\n[limits]\nflows = 4\n",
        loopback(origin.port())
    ))
    .record("file = \"/dev/full\"\non-failure = \"continue\"")
    .start();

    for _ in 0..120 {
        assert_eq!(gate.client().get(&url(&origin)).status(), 200);
    }

    until("lost lines", || {
        gate.metrics().sum("tidegate_records_lost_total", &[]) >= 1.0
    });
}

#[test]
fn the_catalogue_tells_the_category_of_a_refused_host() {
    let gate = Gate::with(&format!(
        "{TIERS}{}{}",
        names(&[HOST]),
        allow("files", HOST, 1)
    ));

    let answer = gate.client().connect("api.anthropic.com:443");

    assert_eq!(answer.json()["category"], "model-api");
    let line = gate.decision(answer.field("x-tidegate-flow").expect("a flow"));
    assert_eq!(line.text("tidegate.category"), "model-api");
    assert_eq!(line.text("tidegate.category.basis"), "host");
}
