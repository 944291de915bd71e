//! `tidegate doctor`, inside a network namespace without a way out: each finding, and its absence.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{Gate, Lines, Origin, Outcome, Program, loopback};

/// Nothing listens there: the probes of a test that is about something else.
const CLOSED: [&str; 10] = [
    "--probe-tcp",
    "127.0.0.1:1",
    "--probe-udp",
    "127.0.0.1:1",
    "--probe-dns",
    "127.0.0.1:1",
    "--probe-ipv6",
    "[::1]:1",
    "--probe-metadata",
    "127.0.0.1:1",
];

/// A doctor with an environment of its own, and only the programs of `home/bin`.
fn doctor(home: &Path) -> Program {
    Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), home)
        .args(["doctor", "--json"])
        .env("PATH", home.join("bin"))
}

fn home() -> TempDir {
    let home = TempDir::new().expect("a home");
    std::fs::create_dir(home.path().join("bin")).expect("a folder");
    home
}

fn script(home: &Path, name: &str, text: &str) {
    crate::kit::script(&home.join("bin").join(name), text);
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:#?}"))
}

/// The states of what was said of a subject.
fn states(report: &Value, check: &str, subject: &str) -> Vec<String> {
    let items = report["items"].as_array().expect("items").iter();
    items
        .filter(|item| item["check"] == check)
        .filter(|item| {
            item["subject"]
                .as_str()
                .is_some_and(|it| it.starts_with(subject))
        })
        .map(|item| item["state"].as_str().expect("a state").to_owned())
        .collect()
}

fn through(program: Program, proxy: &str) -> Program {
    program
        .through(proxy)
        .env("NO_PROXY", "localhost,127.0.0.1,::1")
        .env("no_proxy", "localhost,127.0.0.1,::1")
}

#[test]
fn a_place_where_all_is_well_is_fine_and_reported() {
    let (home, gate) = (home(), Gate::with(&loopback(1)));
    let outcome = through(doctor(home.path()), &gate.url())
        .args(CLOSED)
        .args(["--config".as_ref(), gate.config().as_os_str()])
        .args(["--report", &gate.admin().to_string()])
        .run();
    let report = json(&outcome);
    assert_eq!(
        states(&report, "proxy", &gate.proxy().to_string()),
        ["fine"],
        "{report:#}"
    );
    assert_eq!(states(&report, "no_proxy", "NO_PROXY"), ["fine"]);
    assert_eq!(report["probes"]["tcp"], true);
    let metrics = gate.metrics();
    assert!(
        metrics.sum("tidegate_contained", &[("probe", "tcp")]) > 0.5,
        "{}",
        metrics.0
    );
    assert!(metrics.sum("tidegate_contained_timestamp_seconds", &[]) > 1.0);
}

#[test]
fn without_variables_or_with_nobody_there_the_proxy_is_a_finding() {
    let home = home();
    let report = json(&doctor(home.path()).args(CLOSED).run());
    assert_eq!(
        states(&report, "proxy", "HTTPS_PROXY"),
        ["finding"],
        "{report:#}"
    );
    let gone = format!("127.0.0.1:{}", Origin::nobody().port());
    let report = json(
        &through(doctor(home.path()), &format!("http://{gone}"))
            .args(CLOSED)
            .run(),
    );
    assert_eq!(states(&report, "proxy", &gone), ["finding"], "{report:#}");
}

#[test]
fn what_takes_a_connection_is_a_way_out() {
    let home = home();
    let open = TcpListener::bind("127.0.0.1:0").expect("bound");
    let target = open.local_addr().expect("an address").to_string();
    let outcome = doctor(home.path())
        .args(&CLOSED[2..])
        .args(["--probe-tcp", &target])
        .run();
    let report = json(&outcome);
    assert_eq!(outcome.code, Some(3), "{report:#}");
    assert_eq!(states(&report, "reach", "tcp"), ["open"]);
    assert_eq!(states(&report, "reach", "metadata"), ["fine"]);
}

#[test]
fn no_proxy_is_read_as_the_narrowest_client_does() {
    let home = home();
    for entry in ["*", "10.0.0.0/8", ".com", "::/0"] {
        let value = format!("localhost,127.0.0.1,::1,{entry}");
        let program = doctor(home.path())
            .env("NO_PROXY", &value)
            .env("no_proxy", &value);
        let report = json(&program.args(CLOSED).run());
        assert_eq!(
            states(&report, "no_proxy", "NO_PROXY"),
            ["finding"],
            "{entry} {report:#}"
        );
    }
    let report = json(
        &doctor(home.path())
            .env("NO_PROXY", "localhost")
            .args(CLOSED)
            .run(),
    );
    let found = states(&report, "no_proxy", "NO_PROXY");
    assert_eq!(
        found,
        ["finding", "finding"],
        "loopback, and one case only: {report:#}"
    );
}

#[test]
fn programs_that_hang_babble_or_ignore_the_proxy_are_findings() {
    let home = home();
    script(home.path(), "curl", "exec /bin/sleep 1000");
    script(
        home.path(),
        "git",
        "exec /usr/bin/head -c 1000000 /dev/urandom",
    );
    script(home.path(), "wget", "exit 0");
    let report = json(
        &through(doctor(home.path()), "http://127.0.0.1:1")
            .args(CLOSED)
            .run(),
    );
    for name in ["curl", "git", "wget"] {
        assert_eq!(states(&report, "runtimes", name), ["finding"], "{report:#}");
    }
}

#[test]
fn a_socket_of_an_engine_is_a_way_out_and_an_agent_of_keys_a_finding() {
    let home = home();
    let (engine, keys) = (
        home.path().join("engine.sock"),
        home.path().join("keys.sock"),
    );
    let _served = [&engine, &keys].map(|path| UnixListener::bind(path).expect("bound"));
    let outcome = doctor(home.path())
        .env("DOCKER_HOST", format!("unix://{}", engine.display()))
        .env("SSH_AUTH_SOCK", &keys)
        .args(CLOSED)
        .run();
    let report = json(&outcome);
    assert_eq!(outcome.code, Some(3), "{report:#}");
    assert!(states(&report, "sockets", "docker").contains(&"open".to_owned()));
    assert_eq!(states(&report, "sockets", "ssh-agent"), ["finding"]);
}

#[test]
fn real_programs_are_seen_to_ask_and_the_defaults_are_contained_where_there_is_no_route() {
    let home = TempDir::new().expect("a home");
    if !Program::new("unshare", home.path())
        .args(["-rn", "true"])
        .run()
        .success
    {
        eprintln!("NOT TESTED HERE: this user may not make a network namespace");
        return;
    }
    let words = [
        "-rn",
        "sh",
        "-c",
        "ip link set lo up; exec \"$0\" doctor --json",
    ];
    let outcome = Program::new("unshare", home.path())
        .args(words)
        .args([env!("CARGO_BIN_EXE_tidegate")])
        .through("http://127.0.0.1:1")
        .run();
    let report = json(&outcome);
    for probe in ["tcp", "udp", "dns", "ipv6", "metadata"] {
        assert_eq!(report["probes"][probe], true, "{report:#}");
    }
    for name in ["curl", "git", "python"] {
        assert_eq!(states(&report, "runtimes", name), ["fine"], "{report:#}");
    }
}

#[test]
fn a_report_that_says_nothing_or_too_much_is_refused() {
    let gate = Gate::with(&loopback(1));
    assert_eq!(gate.contained("{}"), 400);
    assert_eq!(gate.contained(r#"{"host":true}"#), 422);
    assert_eq!(
        gate.contained(&format!("{{{}\"tcp\":true}}", " ".repeat(5000))),
        413
    );
    assert_eq!(gate.contained(r#"{"tcp":false}"#), 204);
    assert!(gate.metrics().sum("tidegate_contained", &[]) < 0.5);
}

#[test]
fn a_report_needs_a_token_that_only_the_control_socket_makes() {
    let gate = Gate::with(&loopback(1));
    let report = r#"{"tcp":true}"#;
    let session = gate.session(&serde_json::json!({}));
    for token in [
        "",
        "tgreport_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        &session.token,
    ] {
        assert_eq!(gate.contained_with(token, report), 401, "{token}");
    }
    let asked = serde_json::json!({ "reports": 2 });
    let bearer = Some(session.token.as_str());
    for bearer in [None, bearer] {
        let refused = gate.post("/v1/contained/token", bearer, &asked);
        assert_eq!(refused.status(), 403, "{refused:?}");
    }
    let without = gate.control("/v1/contained", None, &serde_json::json!({ "tcp": true }));
    assert_eq!(
        without.status(),
        401,
        "the control socket asks for one as well"
    );
    assert!(!gate.metrics().has("tidegate_contained"));

    let made = gate.control("/v1/contained/token", None, &asked).json();
    let token = made["token"].as_str().expect("a token").to_owned();
    // It was on record before it was answered, and none of the refused calls is.
    let lines = gate.records().named("report_token_made");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].number("tidegate.report.count"), 2);
    assert_eq!(lines[0].text("tidegate.asker.door"), "control");
    assert!(lines[0].has("tidegate.asker.uid"));
    assert_eq!(gate.contained_with(&token, report), 204);
    assert_eq!(gate.contained_with(&token, report), 204);
    assert_eq!(
        gate.contained_with(&token, report),
        401,
        "it was good for two"
    );
    let lines = crate::kit::eventually("two reports", || {
        let lines = gate.records().named("containment_reported");
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(lines[0]["tidegate.contained.inside"][0], "tcp");
    assert_eq!(lines[0].text("tidegate.asker.door"), "admin");
    assert_eq!(lines[0].text("tidegate.asker.address"), "127.0.0.1");
}

#[test]
fn a_doctor_without_a_control_socket_reports_with_a_token_it_was_given() {
    let (home, gate) = (home(), Gate::with(&loopback(1)));
    let admin = gate.admin().to_string();
    let report = |token: &str| {
        through(doctor(home.path()), &gate.url())
            .args(CLOSED)
            .args([
                "--report",
                &admin,
                "--control",
                "unix:/nowhere/control.sock",
            ])
            .env("TIDEGATE_REPORT_TOKEN", token)
            .run()
    };
    let outcome = report("tgreport_x");
    assert!(outcome.stderr.contains("401"), "{outcome:?}");
    let printed = doctor(home.path())
        .args([
            "--report-token".as_ref(),
            "1".as_ref(),
            "--config".as_ref(),
            gate.config().as_os_str(),
        ])
        .run()
        .succeeded();
    let outcome = report(printed.stdout.trim());
    assert!(outcome.stderr.is_empty(), "{outcome:?}");
    assert!(gate.metrics().has("tidegate_contained"));
}
