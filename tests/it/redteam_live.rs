//! The red team, played by real clients through a gate of the command's own.
//!
//! Each run is in a network namespace that has loopback and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::kit::need;

/// Runs the command in a namespace whose only interface is loopback.
fn redteam_run(file: &Path, more: &[&str], path: Option<&Path>) -> (Option<i32>, String) {
    let mut command = Command::new(need("unshare"));
    command
        .args(["--net", "--map-root-user", "--"])
        .args([
            "/bin/sh",
            "-c",
            "/sbin/ip link set lo up && exec \"$@\"",
            "sh",
        ])
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .args(["redteam", "run", "--config"])
        .arg(file)
        .args(more);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().expect("tidegate");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn played(file: &Path, more: &[&str]) -> Value {
    let more: Vec<&str> = ["--json"].iter().chain(more).copied().collect();
    let (code, text) = redteam_run(file, &more, None);
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, text).expect("a file");
    (folder, file)
}

/// A policy that inspects, with its authority.
fn inspecting(text: &str) -> (tempfile::TempDir, PathBuf) {
    let head = "[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n";
    let (folder, file) = written(&format!("{head}{text}"));
    let made = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["ca", "init", "--config"])
        .arg(&file)
        .output()
        .expect("tidegate");
    assert!(made.status.success(), "{made:?}");
    (folder, file)
}

fn one<'v>(value: &'v Value, id: &str, tier: &str) -> &'v Value {
    let all = value["results"].as_array().expect("results");
    all.iter()
        .find(|it| it["scenario"] == id && it["tier"] == tier)
        .unwrap_or_else(|| panic!("no {id} in {tier}"))
}

fn step<'v>(result: &'v Value, id: &str) -> &'v Value {
    let all = result["steps"].as_array().expect("steps");
    all.iter()
        .find(|it| it["step"] == id)
        .unwrap_or_else(|| panic!("no step {id}"))
}

#[test]
fn the_built_in_policy_behaves_live_as_its_table_says_and_nothing_leaves_loopback() {
    let (_folder, file) = written("");
    let live = played(&file, &[]);
    let results = live["results"].as_array().expect("results");
    assert!(results.len() > 80, "{}", results.len());
    for result in results {
        let expected = if result["expected"] == "allowed" {
            "passes"
        } else {
            "stopped"
        };
        assert_eq!(result["result"], expected, "{result:#}");
    }
    // The flows that another flow causes were made by its client.
    let script = step(one(&live, "package-script", "standard"), "call-out");
    assert_eq!(script["client"], "npm", "{script:#}");
    assert_eq!(script["record"]["tidegate.reason"], "not_allowed");
    let redirect = one(&live, "redirect", "open");
    let (read, follow) = (step(redirect, "read"), step(redirect, "follow"));
    assert_eq!(follow["reached_origin"], true, "{follow:#}");
    assert_eq!(read["record"]["session.id"], follow["record"]["session.id"]);
    // Of a chain it says which step stopped it.
    assert_eq!(
        one(&live, "readme-to-release", "standard")["first_stopped"],
        "stage-two"
    );
    assert_eq!(
        one(&live, "redirect", "restricted")["first_stopped"],
        "read"
    );
}

#[test]
fn where_tls_is_inspected_the_requests_inside_are_stopped_with_their_evidence() {
    let (_folder, file) = inspecting(
        "categories = [\"source-control\", \"package-registry\", \"mcp\"]\n\
         [mcp.stranger]\nurl = \"https://mcp.stranger.example/mcp\"\n\
         [[rule]]\nid = \"tools\"\nverdict = \"allow\"\ndoes.servers = [\"stranger\"]\n\
         [[rule]]\nid = \"no-tool\"\nverdict = \"deny\"\ndoes.servers = [\"stranger\"]\n\
         does.tools = [\"summarise\"]\n\
         [[rule]]\nid = \"no-push\"\nverdict = \"deny\"\nto.hosts = [\"github.com\"]\n\
         does.operations = [\"push\"]\ndoes.refs = [\"main\"]\n\
         [[rule]]\nid = \"no-publish\"\nverdict = \"deny\"\nto.categories = [\"package-registry\"]\n\
         does.actions = [\"write\"]\n\
         [tier.restricted]\nask = [\"source-control:write\"]\n",
    );
    let only = ["mcp-stranger", "ci-push", "worm"];
    let words: Vec<&str> = only.iter().flat_map(|id| ["--scenario", id]).collect();
    let live = played(&file, &words);
    let rule = |id: &str, tier: &str, name: &str| {
        let record = &step(one(&live, id, tier), name)["record"];
        record["security_rule.name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(rule("mcp-stranger", "open", "call"), "no-tool");
    assert_eq!(rule("worm", "open", "publish"), "no-publish");
    assert_eq!(rule("ci-push", "open", "push"), "no-push");
    let record = &step(one(&live, "ci-push", "open"), "push")["record"];
    assert_eq!(
        record["tidegate.destination.ref"], "refs/heads/main",
        "{record:#}"
    );
    // git asks for the refs of the repository first: that is what this tier asks about.
    assert_eq!(rule("ci-push", "restricted", "push"), "tier.restricted.ask");
    assert_eq!(one(&live, "ci-push", "restricted")["result"], "stopped");
}

#[test]
fn what_only_a_gate_judges_stops_a_scenario_and_an_allow_of_a_paste_site_fails() {
    let (_folder, file) = written(
        "[dial]\nhosts = { \"api.cluster.acme.example\" = [\"10.2.0.7\"] }\n\
         [[rule]]\nid = \"cluster\"\nverdict = \"allow\"\nto.hosts = [\"api.cluster.acme.example\"]\n\
         [[rule]]\nid = \"oops\"\nverdict = \"allow\"\nto.hosts = [\"pastebin.com\"]\n",
    );
    let (code, text) = redteam_run(&file, &["--tier", "standard"], None);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL     send: by oops, in a tunnel, expected not_allowed"),
        "{text}"
    );
    assert!(
        text.contains("stopped  apply: address_denied by cluster"),
        "{text}"
    );
    assert!(
        text.contains("1 against expectation, 0 differ from the policy, 0 not played"),
        "{text}"
    );
}

#[test]
fn a_client_that_is_not_installed_is_named_and_its_scenarios_are_not_passed() {
    let (folder, file) = written("");
    let programs = folder.path().join("bin");
    std::fs::create_dir(&programs).expect("a folder");
    std::os::unix::fs::symlink(need("curl"), programs.join("curl")).expect("a link");
    let words = [
        "--scenario",
        "ci-push",
        "--scenario",
        "gist",
        "--tier",
        "standard",
    ];
    let (code, text) = redteam_run(&file, &words, Some(&programs));
    assert_eq!(code, Some(4), "{text}");
    assert!(
        text.contains("not run  push: git is not installed"),
        "{text}"
    );
    assert!(
        text.contains("passes   send: by tier.standard.allow"),
        "{text}"
    );
}

#[test]
fn wrong_words_are_refused_and_a_caller_of_another_tier_is_named() {
    let (_folder, file) =
        written("[[repository]]\nmatch = [\"github.com/acme/web\"]\ntier = \"restricted\"\n");
    for (words, why) in [
        (
            ["--scenario", "unknown"],
            "--scenario unknown: no such scenario",
        ),
        (["--tier", "unknown"], "--tier unknown: no such tier"),
        (["--group", "unknown"], "--group unknown: no such group"),
    ] {
        let (code, text) = redteam_run(&file, &words, None);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let (code, text) = redteam_run(&file, &["--scenario", "ci-deploy"], None);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("none     the policy puts this caller in tier restricted"),
        "{text}"
    );
}
