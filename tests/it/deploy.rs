//! What is shipped beside the program is right: the systemd unit, the alert rules, the dashboard,
//! the container files.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::kit::{Client, Gate, Origin, Outcome, Pki, Program, allow, loopback};
use crate::shape;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// The units, with the program that was built for these tests in the place of the installed one.
fn units() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for unit in ["tidegate.service", "tidegate.socket"] {
        let unit_text = text(&format!("systemd/{unit}"))
            .replace("/usr/bin/tidegate", env!("CARGO_BIN_EXE_tidegate"));
        std::fs::write(folder.path().join(unit), unit_text).expect("a file");
    }
    folder
}

fn analyze(folder: &TempDir, words: &[&str]) -> Outcome {
    Program::new("systemd-analyze", folder.path())
        .args(words)
        .run()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let units = units();

    let outcome = analyze(
        &units,
        &["verify", "./tidegate.service", "./tidegate.socket"],
    );

    let ours: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| line.contains("tidegate"))
        .collect();
    assert!(outcome.success && ours.is_empty(), "{outcome:#?}");
}

#[test]
fn systemd_finds_the_service_well_shut_in() {
    let units = units();

    analyze(
        &units,
        &[
            "security",
            "--offline=true",
            "--threshold=20",
            "./tidegate.service",
        ],
    )
    .succeeded();
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    let home = TempDir::new().expect("a home");
    let run = |words: &[&str]| {
        Program::new("promtool", home.path())
            .args(words)
            .within(&deploy("prometheus"))
            .run()
            .succeeded()
    };

    run(&["check", "rules", "alerts.yaml"]);
    run(&["test", "rules", "alerts_test.yaml"]);
}

/// The names of our metrics in a text, without the endings that histograms add.
fn used(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text
        .split(|c: char| !is_name(c))
        .filter(|word| word.starts_with("tidegate_"));
    let base = |word: &str| {
        let cut = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| word.strip_suffix(end));
        cut.unwrap_or(word).to_owned()
    };
    words.map(base).collect()
}

#[test]
fn alerts_and_dashboard_use_only_metrics_that_are_declared() {
    let declared = shape::metrics();
    for file in ["prometheus/alerts.yaml", "grafana/tidegate.json"] {
        let used = used(&text(file));
        assert!(!used.is_empty(), "{file} uses no metric of ours");
        let unknown: Vec<_> = used.difference(&declared).collect();
        assert!(
            unknown.is_empty(),
            "{file} uses what is not declared: {unknown:?}"
        );
    }
}

#[test]
fn every_metric_that_an_alert_uses_is_exported_by_a_running_gate() {
    let origin = Origin::echo();
    // With a certificate, so that its end is exported.
    let (cert, key) = Pki::new().issue(|_| ());
    let policy = |port| {
        let tls = "tls = { cert = \"proxy.pem\", key = \"proxy.key\" }";
        let listener = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{tls}\n");
        loopback(port) + &listener
    };
    // A parent that is not there, so that its counter has a sample.
    let nobody = Origin::nobody().port();
    let parent = format!(
        "[[dial.parent]]\nurl = \"http://127.0.0.1:{nobody}\"\nhosts = [\"far.example.net\"]\n"
    );
    let rates = "\n[limits]\nadmin-rate = 1\n";
    let policy = |port| policy(port) + &allow("far", "far.example.net", port) + &parent + rates;
    let gate = Gate::plan(&policy(origin.port()))
        .file("proxy.pem", &cert)
        .file("proxy.key", &key)
        .start();
    let url = format!("http://files.example.net:{}/", origin.port());
    assert_eq!(gate.client().get(&url).status(), 200);
    // An upstream that fails, so that its counter has a sample too.
    let gone = Origin::nobody().port();
    gate.reload(&policy(gone));
    assert_eq!(
        gate.client()
            .connect(&format!("files.example.net:{gone}"))
            .status(),
        502
    );

    let mut far = gate.client();
    assert_eq!(
        far.connect(&format!("far.example.net:{gone}")).status(),
        502
    );
    // A client of the https:// proxy that does not speak TLS: a handshake that failed.
    let mut plain = Client::dial(gate.listener(1));
    plain.send("GET http://files.example.net/ HTTP/1.1\r\nHost: files.example.net\r\n\r\n");
    plain.rest();

    gate.contained(r#"{"tcp":true}"#);
    // A caller that asks more often than it may.
    let nothing = serde_json::json!({});
    let mut calls = (0..1000).map(|_| gate.post("/v1/sessions/end", None, &nothing).status());
    assert!(calls.any(|status| status == 429));

    let exported: BTreeSet<String> = gate.metrics().declared().into_iter().collect();
    let mut missing = used(&text("prometheus/alerts.yaml"));
    missing.retain(|name| !exported.contains(name));
    assert!(
        missing.is_empty(),
        "alerts about what a gate does not export: {missing:?}"
    );
}

#[test]
fn the_dashboard_is_json_with_panels() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("grafana/tidegate.json")).expect("JSON");

    assert!(
        dashboard["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() > 3),
        "{dashboard}"
    );
}

#[test]
fn the_compose_file_leaves_the_proxy_as_the_only_way_out() {
    let home = TempDir::new().expect("a home");
    let script = "
import json, sys, yaml
print(json.dumps(yaml.safe_load(open(sys.argv[1]))))
";
    let compose = deploy("compose.yaml");
    let outcome = Program::new("python", home.path())
        .args(["-c", script])
        .args([&compose])
        .run()
        .succeeded();
    let compose: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");

    let networks = compose["networks"].as_object().expect("networks");
    let internal: BTreeSet<&String> = networks
        .iter()
        .filter(|(_, network)| network["internal"] == true)
        .map(|(name, _)| name)
        .collect();
    assert!(!internal.is_empty(), "no network is internal");
    let services = compose["services"].as_object().expect("services");
    let attached = |service: &serde_json::Value| -> Vec<String> {
        match &service["networks"] {
            serde_json::Value::Array(names) => names
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            serde_json::Value::Object(names) => names.keys().cloned().collect(),
            _ => vec!["default".to_owned()],
        }
    };
    let ways_out: Vec<&String> = services
        .iter()
        .filter(|(_, service)| {
            attached(service)
                .iter()
                .any(|name| !internal.contains(name))
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        ways_out,
        ["tidegate"],
        "services with a way out of their own"
    );
}

#[test]
fn the_image_runs_as_nobody_in_particular_and_has_no_shell() {
    let dockerfile = text("Dockerfile");
    let last = dockerfile.rsplit("\nFROM ").next().expect("a last stage");

    assert!(
        last.starts_with("scratch"),
        "the last stage begins from nothing: {last}"
    );
    let user = last
        .lines()
        .find_map(|line| line.strip_prefix("USER "))
        .expect("a user");
    assert!(
        !user.starts_with('0') && !user.starts_with("root"),
        "{user}"
    );
    assert!(last.contains("ENTRYPOINT ["), "without a shell");
}

#[test]
fn every_builder_of_the_image_leaves_keys_and_history_out() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Beside the Dockerfile only BuildKit would read it, and would prefer it.
    assert!(!deploy("Dockerfile.dockerignore").exists());
    let text = std::fs::read_to_string(top.join(".dockerignore")).expect("a list");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*", "nothing gets in unless it is named");
    for secret in ["**/*.key", "**/*.pem"] {
        assert!(lines.contains(&secret), "{secret}");
    }
    for kept_out in ["!.git", "!certs", "!target"] {
        assert!(!lines.contains(&kept_out), "{kept_out}");
    }
}

#[test]
fn every_shipped_configuration_loads() {
    let mut found = vec![deploy("compose/tidegate.toml")];
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["tidegate.toml", "solo.toml", "team.toml", "ci.toml"] {
        found.push(config.join(name));
    }
    for file in found {
        crate::kit::tidegate(&["check".as_ref(), file.as_os_str()]).succeeded();
    }
}

/// As its first lines say: with the files that it names, an authority, and then `check`.
#[test]
fn the_example_of_inspection_loads_without_a_warning_once_it_has_its_authority() {
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/inspect.toml");
    let file = at("inspect.toml");
    std::fs::copy(example, &file).expect("a copy");
    std::fs::create_dir(at("certs")).expect("a folder");
    let pki = Pki::new();
    let (cert, key) = pki.issue(|_| ());
    std::fs::write(at("certs/agent.pem"), cert).expect("a file");
    std::fs::write(at("certs/internal-ca.pem"), pki.pem()).expect("a file");
    std::fs::write(at("certs/agent.key"), key).expect("a file");
    let owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(at("certs/agent.key"), owner).expect("a mode");
    let file = file.as_os_str();

    crate::kit::tidegate(&["ca".as_ref(), "init".as_ref(), "--config".as_ref(), file]).succeeded();
    let checked = crate::kit::tidegate(&["check".as_ref(), file]).succeeded();

    assert_eq!(checked.stderr, "", "no finding");
    crate::kit::tidegate(&["test".as_ref(), file])
        .succeeded()
        .showed("0 failed");
}
