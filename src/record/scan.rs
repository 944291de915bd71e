//! Reads the newest file of the log at start, to find the flows and counts that an earlier run left
//! open.
//!
//! A file that follows another begins with `checkpoint` lines, so the newest is enough.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};

use hashbrown::HashSet;
use serde::Deserialize;
use uuid::Uuid;

use super::chain::{Head, from_hex};

/// Maximum number of open flows in memory; further ones are only counted.
const OPEN: usize = 1 << 20;
/// Maximum length of a line that is read, in bytes.
const LINE: u64 = 1 << 20;

/// The state of the log that an earlier run left.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Flows that may have passed and have no `close` line, oldest first.
    pub(super) open: Vec<Uuid>,
    /// The number of further such flows.
    pub(super) more: u64,
    /// The number of counts of repeated refusals or events without a closing line.
    pub(super) repeats: u64,
    /// The last line of the chain.
    pub(super) head: Head,
    /// Whether the last line is a checkpoint: then every line is signed.
    pub(super) signed: bool,
    /// The end of the file.
    pub(super) tail: Tail,
}

/// The end of a file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Tail {
    /// A whole line, or nothing.
    #[default]
    Clean,
    /// A whole line that lacks only its newline.
    Open,
    /// Part of a line that begins at this offset.
    Torn(u64),
}

/// Reads a file from its beginning.
pub(super) fn scan(file: &File) -> io::Result<Found> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let mut open = Open::default();
    let mut line = Vec::new();
    let mut at = 0_u64;
    loop {
        line.clear();
        let read = reader.by_ref().take(LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(open.found(Tail::Clean));
        }
        let mut length = u64::try_from(read).unwrap_or(u64::MAX);
        let mut whole = line.ends_with(b"\n");
        if !whole && length == LINE {
            let (skipped, ended) = skip(&mut reader)?;
            length += skipped;
            whole = ended;
            line.clear();
        }
        let seen = serde_json::from_slice::<Seen<'_>>(&line);
        if let Ok(seen) = &seen {
            open.note(seen);
        }
        if !whole {
            let tail = if seen.is_ok() {
                Tail::Open
            } else {
                Tail::Torn(at)
            };
            return Ok(open.found(tail));
        }
        at += length;
    }
}

/// Skips the rest of a line that is too long for a line of the log.
fn skip(reader: &mut impl BufRead) -> io::Result<(u64, bool)> {
    let mut skipped = 0;
    loop {
        let held = reader.fill_buf()?;
        let end = held.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(held.len(), |end| end + 1);
        reader.consume(used);
        skipped += u64::try_from(used).unwrap_or(u64::MAX);
        if end.is_some() || used == 0 {
            return Ok((skipped, end.is_some()));
        }
    }
}

/// The fields that the scan needs. None of their values needs an escape, so all are borrowed.
#[derive(Debug, Deserialize)]
struct Seen<'a> {
    #[serde(rename = "event.name")]
    name: &'a str,
    #[serde(rename = "tidegate.flow.id")]
    flow: Option<&'a str>,
    #[serde(rename = "tidegate.verdict")]
    verdict: Option<&'a str>,
    #[serde(borrow, default, rename = "tidegate.checkpoint.open")]
    checkpoint: Vec<&'a str>,
    #[serde(borrow, default, rename = "tidegate.checkpoint.repeats")]
    repeats: Vec<&'a str>,
    #[serde(rename = "tidegate.gap.cause")]
    gap: Option<&'a str>,
    #[serde(rename = "tidegate.repeat.id")]
    repeat: Option<&'a str>,
    #[serde(rename = "tidegate.repeat.state")]
    state: Option<&'a str>,
    #[serde(rename = "tidegate.chain.seq")]
    seq: Option<u64>,
    #[serde(rename = "tidegate.chain.hash")]
    hash: Option<&'a str>,
}

#[derive(Default)]
struct Open {
    flows: HashSet<Uuid>,
    more: u64,
    repeats: HashSet<Uuid>,
    head: Head,
    signed: bool,
}

impl Open {
    fn note(&mut self, seen: &Seen<'_>) {
        let hash = seen.hash.and_then(|hash| from_hex(hash.as_bytes()));
        if let (Some(seq), Some(hash)) = (seen.seq, hash) {
            self.head = Head { seq, hash };
            self.signed = seen.name == "checkpoint";
        }
        let repeat = seen.repeat.and_then(|id| Uuid::parse_str(id).ok());
        match (seen.state, repeat) {
            (Some("open"), Some(id)) if self.repeats.len() < OPEN => {
                self.repeats.insert(id);
            }
            (Some(_), Some(id)) => {
                self.repeats.remove(&id);
            }
            _ => {}
        }
        let flow = seen.flow.and_then(|flow| Uuid::parse_str(flow).ok());
        match (seen.name, flow) {
            ("decision", Some(flow)) if seen.verdict == Some("allow") => self.add(flow),
            ("decision" | "close", Some(flow)) => {
                self.flows.remove(&flow);
            }
            ("checkpoint", _) => {
                for flow in seen
                    .checkpoint
                    .iter()
                    .filter_map(|flow| Uuid::parse_str(flow).ok())
                {
                    self.add(flow);
                }
                let ids = seen
                    .repeats
                    .iter()
                    .filter_map(|id| Uuid::parse_str(id).ok());
                self.repeats.extend(ids);
            }
            // An earlier start has recorded everything that was open before this line.
            ("record_gap", _) if seen.gap == Some("stopped") => {
                self.flows.clear();
                self.repeats.clear();
                self.more = 0;
            }
            _ => {}
        }
    }

    fn add(&mut self, flow: Uuid) {
        if self.flows.len() < OPEN {
            self.flows.insert(flow);
        } else {
            self.more += 1;
        }
    }

    fn found(self, tail: Tail) -> Found {
        let mut open = Vec::from_iter(self.flows);
        open.sort_unstable();
        Found {
            open,
            more: self.more,
            repeats: u64::try_from(self.repeats.len()).unwrap_or(u64::MAX),
            head: self.head,
            signed: self.signed,
            tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn found(text: &str) -> Found {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        scan(&file).expect("read")
    }

    fn decision(flow: u128, verdict: &str) -> String {
        let flow = Uuid::from_u128(flow);
        format!(
            "{{\"event.name\":\"decision\",\"tidegate.flow.id\":\"{flow}\",\
             \"tidegate.verdict\":\"{verdict}\",\"tidegate.detail\":\"a\\u202eb\"}}\n"
        )
    }

    fn close(flow: u128) -> String {
        let flow = Uuid::from_u128(flow);
        format!("{{\"event.name\":\"close\",\"tidegate.flow.id\":\"{flow}\"}}\n")
    }

    #[test]
    fn a_flow_without_a_close_is_open() {
        let text = [
            decision(1, "allow"),
            decision(2, "allow"),
            decision(3, "deny"),
            close(1),
        ];
        assert_eq!(found(&text.concat()).open, [Uuid::from_u128(2)]);
    }

    #[test]
    fn a_flow_refused_after_its_decision_is_not_open() {
        let text = [decision(1, "allow"), decision(1, "error")];
        assert!(found(&text.concat()).open.is_empty());
    }

    #[test]
    fn a_checkpoint_carries_flows_over() {
        let flow = Uuid::from_u128(7);
        let checkpoint = format!(
            "{{\"event.name\":\"checkpoint\",\"tidegate.checkpoint.open\":[\"{flow}\"]}}\n"
        );
        assert_eq!(found(&checkpoint).open, [flow]);
        assert!(found(&(checkpoint + &close(7))).open.is_empty());
    }

    #[test]
    fn what_an_earlier_start_told_is_not_told_again() {
        let gap = "{\"event.name\":\"record_gap\",\"tidegate.gap.cause\":\"stopped\"}\n";
        let text = decision(1, "allow") + gap + &decision(2, "allow");
        assert_eq!(found(&text).open, [Uuid::from_u128(2)]);
        let running = gap.replace("stopped", "failing");
        let text = decision(1, "allow") + &running;
        assert_eq!(found(&text).open, [Uuid::from_u128(1)]);
    }

    #[test]
    fn a_count_without_its_closing_line_is_found() {
        let line = |id: u128, state: &str| {
            let id = Uuid::from_u128(id);
            format!(
                "{{\"event.name\":\"refusals_repeated\",\"tidegate.repeat.id\":\"{id}\",\
                 \"tidegate.repeat.state\":\"{state}\"}}\n"
            )
        };
        let text = [line(1, "open"), line(2, "open"), line(1, "ended")].concat();
        assert_eq!(found(&text).repeats, 1);
        assert_eq!(found(&(text + &line(2, "ended"))).repeats, 0);
    }

    #[test]
    fn the_end_of_a_file_is_told() {
        let line = close(1);
        assert_eq!(found("").tail, Tail::Clean);
        assert_eq!(found(&line).tail, Tail::Clean);
        assert_eq!(found(line.trim_end()).tail, Tail::Open);
        let torn = format!("{line}{{\"event.name\":\"clo");
        let begins = u64::try_from(line.len()).expect("short");
        assert_eq!(found(&torn).tail, Tail::Torn(begins));
    }

    #[test]
    fn lines_that_are_not_ours_are_passed_over() {
        let long = "x".repeat(3 << 20);
        let (first, last) = (decision(1, "allow"), decision(2, "allow"));
        let found = found(&[first.as_str(), &long, "\n\u{0}{]\n", &last].concat());
        assert_eq!(found.open, [Uuid::from_u128(1), Uuid::from_u128(2)]);
        assert_eq!(found.tail, Tail::Clean);
    }
}
