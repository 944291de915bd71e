//! What became of each way of a script, and what should have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::kit::Outcome;

/// What the script writes into a file where it can.
const MARKER: &str = "written by the adversary";

/// What became of a way.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It got through.
    Got,
    /// It did not.
    Held,
    /// This system has no such thing.
    Absent,
    /// It got through if the file outside has the marker.
    Effect,
}

#[derive(Debug, Deserialize)]
struct Row {
    way: String,
    state: State,
    said: String,
    path: Option<PathBuf>,
}

impl Row {
    fn got_through(&self) -> bool {
        let marked = |path: &PathBuf| {
            let text = std::fs::read(path).unwrap_or_default();
            text.windows(MARKER.len())
                .any(|part| part == MARKER.as_bytes())
        };
        match self.state {
            State::Got => true,
            State::Effect => self.path.as_ref().is_some_and(marked),
            State::Held | State::Absent => false,
        }
    }
}

/// Every way of a script, by name: whether it got through, whether there is such a thing here, and
/// what it said.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<String, Found>);

#[derive(Debug)]
struct Found {
    got: bool,
    absent: bool,
    said: String,
}

impl Rows {
    /// From the output of a script; panics where it did not come to its end. Effects are looked for
    /// now.
    #[track_caller]
    pub(super) fn of(outcome: &Outcome) -> Self {
        Self::from(&outcome.stdout).unwrap_or_else(|| panic!("it did not end: {outcome:#?}"))
    }

    /// The same; `None` where the script did not come to its end.
    pub(super) fn from(text: &str) -> Option<Self> {
        let rows = text.lines().filter(|line| line.starts_with('{'));
        let rows = rows.map(|line| serde_json::from_str::<Row>(line).expect("a row"));
        let mut rows: Vec<Row> = rows.collect();
        let done = rows.pop().filter(|row| row.way == "done");
        done.is_some()
            .then(|| Self(rows.iter().map(found).collect()))
    }

    /// What got through in either.
    pub(super) fn or(mut self, other: Self) -> Self {
        for (way, found) in other.0 {
            let better = |known: &Found| !known.got && (found.got || known.absent);
            if self.0.get(&way).is_none_or(better) {
                self.0.insert(way, found);
            }
        }
        self
    }

    /// How many ways there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Panics with the names of the ways that got through, and of the ways that no control covers.
    /// `optional` ways may fail in the control: its system does not have what they need.
    #[track_caller]
    pub(super) fn held(&self, who: &str, control: &Self, optional: &[&str]) {
        let mut wrong = Vec::new();
        for (way, found) in &self.0 {
            if found.got {
                wrong.push(format!("gets through: {way}: {}", found.said));
            }
            match control.0.get(way) {
                Some(control) if control.got => {}
                Some(control) if control.absent || optional.contains(&way.as_str()) => {
                    eprintln!("NOT TESTED HERE: {way}: {}", control.said);
                }
                Some(control) => wrong.push(format!("no control: {way}: {}", control.said)),
                None => wrong.push(format!("no control: {way}")),
            }
        }
        for way in control.0.keys().filter(|way| !self.0.contains_key(*way)) {
            wrong.push(format!("not tried: {way}"));
        }
        assert!(wrong.is_empty(), "{who}:\n{}", wrong.join("\n"));
    }
}

fn found(row: &Row) -> (String, Found) {
    let found = Found {
        got: row.got_through(),
        absent: row.state == State::Absent,
        said: row.said.clone(),
    };
    (row.way.clone(), found)
}
