//! The red-team tables of the manual are those that the shipped policies give.
//!
//! `TIDEGATE_BLESS=1` writes the tables as they are now: read the difference before it is committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The head of the table of the README.
const README_HEAD: &str = "| policy and tier | stopped | passes, hidden in a tunnel | passes, seen |\n|---|---|---|---|\n";
/// Scenarios that a cell of that table names; it counts more of them.
const MAX_NAMED: usize = 9;
/// The shipped policies, as the manual shows them.
const SHIPPED: [&str; 5] = ["built-in", "solo", "team", "ci", "inspect"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with a shipped policy, and the files that it names.
fn shipped(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.toml");
    let text = match name {
        "built-in" => String::new(),
        name => {
            let path = root().join(format!("config/{name}.toml"));
            std::fs::read_to_string(path).expect("a shipped policy")
        }
    };
    std::fs::write(&file, without_upstreams(&text)).expect("a file");
    if text.contains("[inspect]") {
        std::fs::create_dir(folder.path().join("certs")).expect("a folder");
        let made = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["ca", "init", "--config"])
            .arg(&file)
            .output()
            .expect("tidegate");
        assert!(made.status.success(), "{made:?}");
    }
    (folder, file)
}

/// The text without the upstreams, which name certificates that the operator has.
fn without_upstreams(text: &str) -> String {
    let mut kept = String::new();
    let mut skip = false;
    for line in text.lines() {
        if line.starts_with('[') {
            skip = line.starts_with("[upstream.");
        }
        if !skip && !line.starts_with("grant.upstream") {
            let _ = writeln!(kept, "{line}");
        }
    }
    kept
}

fn redteam(file: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("test")
        .arg(file)
        .arg("--redteam")
        .args(more)
        .output()
        .expect("tidegate");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn results(file: &Path) -> Value {
    let (code, text) = redteam(file, &["--json"]);
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A row for each scenario, a column for each tier.
fn table(results: &Value) -> String {
    let results = results["results"].as_array().expect("results");
    let mut tiers: Vec<&str> = Vec::new();
    let mut rows: Vec<(&str, BTreeMap<&str, String>)> = Vec::new();
    for result in results {
        let (id, tier) = (text(result, "scenario"), text(result, "tier"));
        if !tiers.contains(&tier) {
            tiers.push(tier);
        }
        if rows.last().is_none_or(|(last, _)| *last != id) {
            rows.push((id, BTreeMap::new()));
        }
        let row = rows.last_mut().expect("a row");
        row.1.insert(tier, cell(result));
    }
    let mut table = format!("| scenario | {} |\n|---|", tiers.join(" | "));
    table.push_str(&"---|".repeat(tiers.len()));
    table.push('\n');
    for (id, cells) in rows {
        let cells: Vec<&str> = tiers.iter().map(|tier| &*cells[tier]).collect();
        let _ = writeln!(table, "| {id} | {} |", cells.join(" | "));
    }
    table
}

/// `passes`, or the reason of the refusal.
fn cell(result: &Value) -> String {
    let steps = result["steps"].as_array().expect("steps");
    let stop = steps.iter().find(|step| step["step"] == result["stop"]);
    let stop = stop.expect("the step that must be stopped");
    if result["stopped"] == true {
        return format!("`{}`", text(stop, "reason"));
    }
    let hidden = stop["hidden"] == true;
    if hidden { "passes, hidden" } else { "passes" }.to_owned()
}

#[test]
fn the_tables_of_the_manual_are_those_of_the_shipped_policies() {
    let path = root().join("docs/redteam.md");
    let manual = std::fs::read_to_string(&path).expect("the chapter");
    let mut now = manual.clone();
    for name in SHIPPED {
        let (_folder, file) = shipped(name);
        let heading = format!("\n### {name}\n\n");
        let start = now.find(&heading).expect("the place of the table") + heading.len();
        let end = start + now[start..].find("\n\n").expect("its end") + 1;
        now.replace_range(start..end, &table(&results(&file)));
    }
    settle(&path, &manual, &now);
}

/// A row for all tiers with the same results.
#[test]
fn the_table_of_the_readme_is_that_of_the_shipped_policies() {
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).expect("the README");
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for name in SHIPPED {
        let (_folder, file) = shipped(name);
        for (tier, counts) in counts(&results(&file)) {
            let place = format!("{name} {tier}");
            match rows.iter_mut().find(|(known, _)| *known == counts) {
                Some((_, places)) => places.push(place),
                None => rows.push((counts, vec![place])),
            }
        }
    }
    let mut table = README_HEAD.to_owned();
    for (counts, places) in rows {
        let _ = writeln!(table, "| {} | {counts} |", places.join(", "));
    }
    let start = readme.find(README_HEAD).expect("the place of the table");
    let end = start + readme[start..].find("\n\n").expect("its end") + 1;
    let mut now = readme.clone();
    now.replace_range(start..end, &table);
    settle(&path, &readme, &now);
}

/// For each tier of a policy what becomes of the scenarios, as cells.
fn counts(results: &Value) -> Vec<(&str, String)> {
    let results = results["results"].as_array().expect("results");
    let mut tiers: Vec<&str> = Vec::new();
    for result in results {
        let tier = text(result, "tier");
        if !tiers.contains(&tier) {
            tiers.push(tier);
        }
    }
    let of_all = results.len() / tiers.len();
    let row = |tier: &str| {
        let here = || results.iter().filter(|it| text(it, "tier") == tier);
        let passes = ["passes, hidden", "passes"].map(|wanted| {
            let those = here().filter(|it| cell(it) == wanted);
            let ids: Vec<&str> = those.map(|it| text(it, "scenario")).collect();
            match ids.len() {
                0 => "none".to_owned(),
                count @ ..=MAX_NAMED => format!("{count}: {}", ids.join(", ")),
                count => count.to_string(),
            }
        });
        let stopped = here().filter(|it| it["stopped"] == true).count();
        format!("{stopped} of {of_all} | {}", passes.join(" | "))
    };
    tiers.iter().map(|tier| (*tier, row(tier))).collect()
}

/// Compares a page with what it has to be, or writes that.
fn settle(path: &Path, was: &str, now: &str) {
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(path, now).expect("the page");
        return;
    }
    assert!(now == was, "{} shows other tables:\n{now}", path.display());
}

#[test]
fn every_scenario_of_the_folder_is_played() {
    let (_folder, file) = shipped("built-in");
    let results = results(&file);
    let played = results["results"].as_array().expect("results");
    for file in std::fs::read_dir(root().join("config/redteam")).expect("a folder") {
        let written = std::fs::read_to_string(file.expect("a file").path()).expect("a file");
        let ids = written.lines().filter_map(|line| {
            let rest = line
                .strip_prefix("id ")?
                .trim_start()
                .strip_prefix("= \"")?;
            rest.strip_suffix('"')
        });
        let ids: Vec<&str> = ids.collect();
        assert!(!ids.is_empty(), "no scenario in {written}");
        for id in ids {
            assert!(played.iter().any(|it| text(it, "scenario") == id), "{id}");
        }
    }
}

#[test]
fn an_allow_of_a_paste_site_is_shown_and_the_answer_is_no() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.toml");
    let rule = "[[rule]]\nid = \"oops\"\nverdict = \"allow\"\nto.hosts = [\"pastebin.com\"]\n";
    std::fs::write(&file, rule).expect("a file");
    let (code, text) = redteam(&file, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL     send: by oops, in a tunnel, expected not_allowed"),
        "{text}"
    );
    assert!(text.contains("# stopped by these lines: "), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
}

#[test]
fn callers_that_do_not_exist_are_refused() {
    let (_folder, file) = shipped("team");
    let (code, text) = redteam(&file, &["--group", "unknown"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--group unknown: no such group"), "{text}");
    let (code, text) = redteam(&file, &["--repo", "*"]);
    assert_eq!(code, Some(2), "{text}");
}
