//! The tables of the manual (`docs/agents.md`) that these tests make: each test compares its own
//! rows. `TIDEGATE_BLESS=1` writes them.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::played::Played;

/// A row of the table of what is tied. The first three cells say which row it is.
#[track_caller]
pub(super) fn ties(played: &Played, inspected: bool) {
    let tls = if inspected { "inspected" } else { "opaque" };
    ties_of(played, tls);
}

/// As [`ties`], with a text for what the run was beside its agent and its start.
#[track_caller]
pub(super) fn ties_of(played: &Played, tls: &str) {
    let (mut used, untied) = (played.used(), played.untied());
    // A command in the background may connect while its call is open.
    used.retain(|class| *class != "background commands");
    let (some, all): (Vec<&str>, Vec<&str>) = used
        .into_iter()
        .partition(|class| untied.contains_key(class));
    let (named, some): (Vec<&str>, Vec<&str>) = some
        .into_iter()
        .partition(|class| played.names_the_tool(class));
    let named = named.iter().map(|class| format!("{class} (no id)"));
    let tied: Vec<String> = all.iter().map(ToString::to_string).chain(named).collect();
    let mut tied = tied.join(", ");
    if tied.is_empty() {
        "none".clone_into(&mut tied);
    } else if !some.is_empty() {
        tied = format!("{tied}; not {}", some.join(", "));
    }
    let session = played.whose_session();
    let reads = played.what_it_reads();
    let cells = [played.agent, played.way.name(), tls, &tied, session, reads];
    row("## What is tied", 3, &cells);
}

/// A row of the table of what an agent contacts by itself.
#[track_caller]
pub(super) fn contact(agent: &str, host: &str, category: &str, verdicts: &[String]) {
    // Full names of registries are written in no file.
    let host = match host.split('.').collect::<Vec<_>>()[..] {
        [label, "npmjs", "org"] => format!("{label} of npmjs.org"),
        ["pypi", "org"] => "index of Python packages".to_owned(),
        _ => host.to_owned(),
    };
    let mut cells = vec![agent, &host, category];
    cells.extend(verdicts.iter().map(String::as_str));
    row("## What agents contact", 3, &cells);
}

/// Panics unless the row stands in the table below a heading; with `TIDEGATE_BLESS`, writes it.
#[track_caller]
fn row(heading: &str, key: usize, cells: &[&str]) {
    let row = format!("| {} |", cells.join(" | "));
    let start = format!("| {} |", cells[..key].join(" | "));
    // Tests are processes of their own: one at a time reads and writes.
    let lock = File::create(place().with_extension("lock")).expect("a file");
    lock.lock().expect("a lock");
    let text = std::fs::read_to_string(manual()).expect("the manual");
    let lines: Vec<&str> = text.lines().collect();
    let is_heading = |line: &&str| line.starts_with(heading);
    let from = lines.iter().position(is_heading).expect("the heading");
    let table = lines[from..]
        .iter()
        .position(|line| line.starts_with("|---"));
    let first = from + table.expect("a table") + 1;
    let count = lines[first..]
        .iter()
        .take_while(|line| line.starts_with('|'))
        .count();
    let rows = &lines[first..first + count];
    if rows.contains(&row.as_str()) {
        return;
    }
    if std::env::var_os("TIDEGATE_BLESS").is_none() {
        let stands = rows.iter().find(|line| line.starts_with(&start));
        panic!(
            "the manual has\n  {}\nand the test shows\n  {row}\nTIDEGATE_BLESS=1 writes it",
            stands.unwrap_or(&"no such row")
        );
    }
    let mut table: Vec<&str> = rows
        .iter()
        .copied()
        .filter(|it| !it.starts_with(&start))
        .collect();
    table.push(&row);
    table.sort_unstable();
    let whole = [&lines[..first], &table, &lines[first + count..]].concat();
    std::fs::write(manual(), whole.join("\n") + "\n").expect("the manual");
}

fn manual() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/agents.md")
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("manual-agents")
}
