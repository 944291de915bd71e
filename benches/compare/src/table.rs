//! The table of a suite, as Markdown.

use std::fmt::Write as _;

use crate::figures::{Figure, Mode, Results, SHOWN, Spread};

/// What was measured, on what, and how far the rounds lie apart.
pub fn markdown(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!("# {}\n\n", machine.date);
    let _ = writeln!(
        text,
        "{} processors ({}), {}; {} rounds of {} s, peers in turn; load of the machine before and after: {}.\n\
         Each cell: the median, × the yardstick of that column, [least to greatest of the rounds].\n",
        machine.processors,
        machine.processor,
        machine.kernel,
        machine.rounds,
        machine.seconds,
        machine
            .load
            .iter()
            .map(|it| format!("{it:.1}"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    section(&mut text, results, |mode| !is_inspected(mode));
    section(&mut text, results, is_inspected);
    text.push_str("| peer | version |\n|---|---|\n");
    for (peer, version) in &machine.versions {
        let _ = writeln!(text, "| {peer} | {} |", version.replace('|', "/"));
    }
    text.push_str("\n| configuration | SHA-256 |\n|---|---|\n");
    for (name, digest) in &machine.configurations {
        let _ = writeln!(
            text,
            "| {name} | `{}` |",
            digest.get(..16).unwrap_or(digest)
        );
    }
    text
}

/// Whether TLS is ended in this mode.
pub fn is_inspected(mode: Mode) -> bool {
    Results::base(mode) == "relay-tls"
}

fn section(text: &mut String, results: &Results, wanted: impl Fn(Mode) -> bool) {
    let measured = |peer: &str, figure: &Figure| results.spread(peer, figure);
    let peers = results.peers();
    let columns: Vec<&Figure> = SHOWN
        .iter()
        .filter(|it| wanted(it.mode) && peers.iter().any(|peer| measured(peer, it).is_some()))
        .collect();
    if columns.is_empty() {
        return;
    }
    let titles: Vec<String> = columns
        .iter()
        .map(|it| format!("{}, {}", it.title, it.unit))
        .collect();
    let _ = writeln!(
        text,
        "| peer | {} |\n|---|{}",
        titles.join(" | "),
        "---|".repeat(columns.len())
    );
    for peer in peers {
        let cells: Vec<Option<Spread>> = columns.iter().map(|it| measured(peer, it)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "| {peer} |");
        for (figure, cell) in columns.iter().zip(cells) {
            let _ = write!(text, " {} |", self::cell(results, figure, cell));
        }
        text.push('\n');
    }
    text.push('\n');
}

fn cell(results: &Results, figure: &Figure, spread: Option<Spread>) -> String {
    let Some(spread) = spread else {
        return "-".to_owned();
    };
    let ratio = results
        .spread(Results::base(figure.mode), figure)
        .filter(|base| base.median > 0.0 && figure.mode != Mode::Idle)
        .map(|base| format!(" ({:.2})", spread.median / base.median))
        .unwrap_or_default();
    format!(
        "{}{ratio} [{} to {}]",
        number(spread.median),
        number(spread.min),
        number(spread.max)
    )
}

/// With as many digits as mean something.
pub fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
