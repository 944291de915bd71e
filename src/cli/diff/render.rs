//! Renders differences as text, Markdown and annotations.

use std::fmt::Write;

use crate::policy::{Change, Difference, FlowKind, MAX_NAMED, Ruling, Verdict};

use super::replayed::Replayed;
use super::side::Side;
use super::{print, relation};

/// Maximum number of changes in text; JSON has all.
const MAX_SHOWN: usize = 12;

/// The contents of the output.
pub(super) struct Shown<'a> {
    pub(super) before: &'a Side,
    pub(super) after: &'a Side,
    pub(super) difference: &'a Difference,
    /// The sections that differ and are not compared.
    pub(super) others: &'a [String],
    /// The changes for recorded flows.
    pub(super) replayed: Option<&'a Replayed>,
    /// The requirement, whether it holds, and the change that breaks it.
    pub(super) required: Option<(&'a str, bool, Option<&'a Change>)>,
}

impl Shown<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "before    {}\nafter     {}\n",
            print::clean(&self.before.label, 90),
            print::clean(&self.after.label, 90)
        );
        for change in self.difference.changes.iter().take(MAX_SHOWN) {
            text.push('\n');
            let _ = writeln!(
                text,
                "{}  {}",
                direction(change),
                print::clean(&becomes(change), 88)
            );
            for (key, value) in rows(change) {
                let _ = writeln!(text, "  {key:<8}{}", print::clean(&value, 90));
            }
        }
        text.push('\n');
        let hidden = self.difference.changes.len().saturating_sub(MAX_SHOWN);
        if hidden > 0 {
            let _ = writeln!(text, "{hidden} more changes: `--json` shows all");
        }
        if let Some(replayed) = self.replayed {
            let _ = writeln!(text, "{}", replayed.text());
        }
        for line in self.ends() {
            let _ = writeln!(text, "{}", print::clean(&line, print::WIDTH));
        }
        text
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("### tidegate: {}\n\n", relation(self.difference.relation));
        let _ = writeln!(
            text,
            "From {} to {}.\n",
            code(&self.before.label),
            code(&self.after.label)
        );
        if !self.difference.changes.is_empty() {
            text.push_str(
                "| | Change | Callers | Flows | By | Witness |\n|---|---|---|---|---|---|\n",
            );
        }
        for change in self.difference.changes.iter().take(MAX_SHOWN) {
            let besides: Vec<String> = change.besides.iter().map(|it| code(it)).collect();
            let besides = match besides.as_slice() {
                [] => String::new(),
                some => format!("<br>{}", some.join("<br>")),
            };
            let _ = writeln!(
                text,
                "| **{}** | {}{besides} | {} | {} | {} → {} | {} |",
                direction(change).trim(),
                verdicts(change),
                code(&callers(change)),
                code(&flows(change)),
                code(&by(&change.before)),
                code(&by(&change.after)),
                code(&change.witness.command),
            );
        }
        let hidden = self.difference.changes.len().saturating_sub(MAX_SHOWN);
        if hidden > 0 {
            let _ = writeln!(
                text,
                "\n{hidden} more changes: `tidegate diff --json` shows all."
            );
        }
        text.push('\n');
        if let Some(replayed) = self.replayed {
            text.push_str(&replayed.markdown());
        }
        for line in self.ends().into_iter().skip(1) {
            let _ = writeln!(text, "- {}", code(&line));
        }
        text
    }

    /// Writes a command of GitHub Actions for each change.
    pub(super) fn github(&self) -> String {
        let mut text = String::new();
        for change in self.difference.changes.iter().take(MAX_SHOWN) {
            let level = if change.widens { "warning" } else { "notice" };
            let place = placed(&change.after).or_else(|| placed(&change.before));
            let message = format!(
                "{}; {}; {}",
                becomes(change),
                callers(change),
                change.witness.command
            );
            let title = direction(change).trim().to_owned();
            let _ = writeln!(
                text,
                "::{level} {}title=tidegate {}::{}",
                place.unwrap_or_default(),
                property(&title),
                data(&message)
            );
        }
        if let Some(replayed) = self.replayed {
            text.push_str(&replayed.github());
        }
        if let Some((_, false, _)) = self.required {
            for line in self.ends().into_iter().skip(1) {
                let _ = writeln!(text, "::error title=tidegate::{}", data(&line));
            }
        }
        let _ = writeln!(
            text,
            "{}",
            data(&format!("tidegate: {}", relation(self.difference.relation)))
        );
        text
    }

    /// Writes the lines at the end: the relation first.
    fn ends(&self) -> Vec<String> {
        let mut lines = vec![format!("result    {}", relation(self.difference.relation))];
        for what in &self.difference.not_compared {
            lines.push(format!("          not compared: {what}"));
        }
        if !self.others.is_empty() {
            let names: Vec<String> = self.others.iter().map(|name| format!("[{name}]")).collect();
            lines.push(format!(
                "          different, and not compared: {}",
                names.join(", ")
            ));
        }
        let Some((words, holds, broken)) = self.required else {
            return lines;
        };
        let is = if holds { "holds" } else { "does not hold" };
        lines.push(format!("required  {words}: {is}"));
        if let Some(change) = broken {
            let witness = &change.witness;
            lines.push(format!("          {} {}", witness.callers, witness.flow));
            lines.push(format!("          {}", witness.command));
        } else if !holds {
            lines.push("          something could not be compared".to_owned());
        }
        lines
    }
}

fn direction(change: &Change) -> &'static str {
    match (change.widens, change.narrows) {
        (true, true) => "BOTH    ",
        (true, false) => "WIDENS  ",
        (false, true) => "NARROWS ",
        (false, false) => "CHANGES ",
    }
}

/// `deny → allow   registry.example and 2 more, port 443`.
fn becomes(change: &Change) -> String {
    format!("{}  {}", verdicts(change), flows(change))
}

fn verdicts(change: &Change) -> String {
    let (one, other) = (word(&change.before), word(&change.after));
    if one == other {
        return format!("{one}, as before");
    }
    format!("{one} → {other}")
}

fn word(ruling: &Ruling) -> String {
    match (ruling.verdict, ruling.observed) {
        (Verdict::Allow, _) => "allow".to_owned(),
        (verdict, true) => format!("{verdict} (observed)"),
        (verdict, false) => verdict.to_string(),
    }
}

fn flows(change: &Change) -> String {
    let mut hosts = change.hosts.join(", ");
    let more = change.host_count.saturating_sub(change.hosts.len());
    match (change.other_hosts, more) {
        (true, _) if hosts.is_empty() => "every host that no policy names".clone_into(&mut hosts),
        (true, _) => {
            let _ = write!(hosts, " and every host that no policy names");
        }
        (false, 0) => {}
        (false, more) => {
            let _ = write!(hosts, " and {more} more");
        }
    }
    let port = if change.ports.contains([',', '-']) || change.ports == "all" {
        "ports"
    } else {
        "port"
    };
    format!("{hosts}, {port} {}", change.ports)
}

fn callers(change: &Change) -> String {
    let tiers: Vec<&str> = change.tiers.iter().map(|tier| &**tier).collect();
    let noun = if tiers.len() == 1 { "tier" } else { "tiers" };
    let mut text = format!("{noun} {}", tiers.join(", "));
    if change.tiers_before != change.tiers {
        let _ = write!(text, " (before: {})", change.tiers_before.join(", "));
    }
    for caller in &change.callers {
        let _ = write!(text, "; {caller}");
    }
    if change.callers.len() == MAX_NAMED {
        text.push_str("; …");
    }
    text
}

fn by(ruling: &Ruling) -> String {
    let place = match &*ruling.location {
        "" => String::new(),
        location => format!(" ({location})"),
    };
    let tunnel = if ruling.by_tunnel {
        ", for the tunnel"
    } else {
        ""
    };
    format!("{}{place}{tunnel}", ruling.rule)
}

/// Writes the rows below the first line of a change.
fn rows(change: &Change) -> Vec<(&'static str, String)> {
    let mut rows = vec![("callers", callers(change))];
    rows.extend(change.besides.iter().map(|it| ("also", it.clone())));
    if change.before.rule == change.after.rule && change.before.location == change.after.location {
        rows.push(("by", by(&change.after)));
    } else {
        rows.push(("before", by(&change.before)));
        rows.push(("after", by(&change.after)));
    }
    let kinds = change.kinds.iter().map(|kind| match kind {
        FlowKind::Tunnel => "tunnels",
        FlowKind::Https => "https requests",
        FlowKind::Http => "http requests",
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    rows.push((
        "flows",
        match change.requests.first() {
            Some(first) => format!("{kinds}, e.g. {first}"),
            None => kinds,
        },
    ));
    rows.push(("see", change.witness.command.clone()));
    rows
}

/// `file=policy/web.toml,line=31,` of a rule that stands in a file.
fn placed(ruling: &Ruling) -> Option<String> {
    let (file, line) = ruling.location.rsplit_once(':')?;
    let file = file.rsplit_once(':').map_or(file, |(_, file)| file);
    Some(format!("file={},line={},", property(file), property(line)))
}

/// Escapes a value in a command of GitHub Actions.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Escapes the text of a command of GitHub Actions, so that it cannot begin another command.
pub(super) fn data(text: &str) -> String {
    let text = print::clean(text, 1000);
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Writes an untrusted text as code in a table cell of Markdown.
pub(super) fn code(text: &str) -> String {
    let text = print::clean(text, 400)
        .replace('`', "'")
        .replace('|', "\\|");
    if text.is_empty() {
        return String::new();
    }
    format!("`{text}`")
}
