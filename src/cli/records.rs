//! Finds one flow in the decision log.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::Record;
use crate::replay::{self, Line};

use super::Answer;

/// Maximum number of bytes read of the log, the newest files first.
const MAX_BYTES: u64 = 4 << 30;

/// Maximum number of searched logs of `exec` runs.
const MAX_SPARES: usize = 256;

/// The lines of one flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// The whole id.
    pub(super) flow: String,
    /// `decision`.
    pub(super) decision: Option<Map<String, Value>>,
    /// `close`, if the flow was allowed and has ended.
    pub(super) close: Option<Map<String, Value>>,
}

/// The reason why no flow was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    /// Several flows have ids with that beginning or end.
    #[error("{0} flows have ids that begin or end so; give the whole id")]
    Ambiguous(usize),
    /// The log cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The log goes to standard output.
    #[error("records go to standard output here; `[record] file` names no file to look into")]
    NoFile,
    /// No line has that id.
    #[error(
        "no record of it in {0}, nor in what it was rotated to; a refusal that repeated is only \
         counted, in a `refusals_repeated` line"
    )]
    Unknown(PathBuf),
}

/// Finds the flow whose id begins or ends with `part`: refusals show the last group of the id.
pub(super) fn find(record: &Record, part: &str) -> Result<Lines, Missing> {
    let newest = record.file.as_ref().ok_or(Missing::NoFile)?;
    let mut flows: Vec<Lines> = Vec::new();
    let mut left = MAX_BYTES;
    for path in files(newest) {
        match File::open(&path) {
            Ok(file) => search(file, part, &mut left, &mut flows)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(annotate(&error, &path).into()),
        }
        if left == 0 || flows.iter().any(|lines| lines.decision.is_some()) {
            break;
        }
    }
    match flows.len() {
        0 => Err(Missing::Unknown(newest.clone())),
        1 => Ok(flows.remove(0)),
        several => Err(Missing::Ambiguous(several)),
    }
}

/// Returns the existing files of the log of a configuration, the oldest first.
///
/// # Errors
///
/// If the log goes to standard output.
pub(super) fn log_files(record: &Record) -> Result<Vec<PathBuf>, (Answer, String)> {
    log_files_of(record.file.as_deref())
}

/// Like [`log_files`], for a log that may not exist. Pipes and devices with such a name are
/// skipped: a read might not end.
pub(super) fn log_files_of(newest: Option<&Path>) -> Result<Vec<PathBuf>, (Answer, String)> {
    let newest = newest.ok_or_else(|| {
        let message = format!("{}: name the files to read", Missing::NoFile);
        (Answer::Wrong, message)
    })?;
    let mut files: Vec<PathBuf> = files(newest).filter(|path| path.is_file()).collect();
    files.reverse();
    Ok(files)
}

/// Returns the log, newest file first, then the logs of `exec` runs that found it in use.
fn files(newest: &Path) -> impl Iterator<Item = PathBuf> {
    let numbered = move |number: u32| {
        let mut name = OsString::from(newest);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let rotated = (1..).map(numbered).take_while(|path| path.exists());
    std::iter::once(newest.to_owned())
        .chain(rotated)
        .chain(spares(newest))
}

/// Returns `NAME-SESSION.jsonl` beside `NAME.jsonl`, the latest sessions first: ids grow with time.
fn spares(newest: &Path) -> Vec<PathBuf> {
    let folder = newest.parent().unwrap_or(Path::new(""));
    let stem = newest.file_stem().unwrap_or_default().to_string_lossy();
    let is_spare = |name: &str| {
        let session = name
            .strip_prefix(&*stem)
            .and_then(|it| it.strip_prefix('-'));
        let session = session.and_then(|it| it.strip_suffix(".jsonl"));
        session.is_some_and(|session| uuid::Uuid::try_parse(session).is_ok())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut spares: Vec<String> = names.filter(|name| is_spare(name)).collect();
    spares.sort_unstable_by(|one, other| other.cmp(one));
    spares.truncate(MAX_SPARES);
    spares.into_iter().map(|name| folder.join(name)).collect()
}

/// Adds the lines of a file on flows whose id begins or ends with `part`.
fn search(file: File, part: &str, left: &mut u64, flows: &mut Vec<Lines>) -> io::Result<()> {
    let mut lines = replay::Lines::of(BufReader::with_capacity(256 * 1024, file.take(*left)))?;
    while *left > 0 {
        let Some(line) = lines.next()? else { break };
        let Line::Whole(line) = line else { continue };
        let read = u64::try_from(line.len()).unwrap_or(u64::MAX);
        *left = left.saturating_sub(read.saturating_add(1));
        // A line that is no text is skipped.
        let Ok(text) = str::from_utf8(line) else {
            continue;
        };
        if text.contains(part) {
            add(text, part, flows);
        }
    }
    Ok(())
}

fn add(text: &str, part: &str, flows: &mut Vec<Lines>) {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else {
        return;
    };
    let word = |name: &str| {
        object
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (flow, event) = (word("tidegate.flow.id"), word("event.name"));
    let named = flow.starts_with(part) || flow.ends_with(part);
    if !named || !matches!(&*event, "decision" | "close") {
        return;
    }
    let known = flows
        .iter()
        .position(|lines| lines.flow == flow)
        .unwrap_or_else(|| {
            flows.push(Lines {
                flow,
                ..Lines::default()
            });
            flows.len() - 1
        });
    let Some(lines) = flows.get_mut(known) else {
        return;
    };
    match &*event {
        "decision" => lines.decision = Some(object),
        _ => lines.close = Some(object),
    }
}

fn annotate(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "0195f3c2-0000-7000-8000-000000000001";
    const OTHER: &str = "0195f3c2-0000-7000-8000-000000000002";

    fn line(event: &str, flow: &str) -> String {
        format!("{{\"event.name\":\"{event}\",\"tidegate.flow.id\":\"{flow}\"}}\n")
    }

    fn log(files: &[(&str, &str)]) -> (tempfile::TempDir, Record) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut record = crate::config::embedded().record;
        record.file = Some(folder.path().join("decisions.jsonl"));
        (folder, record)
    }

    #[test]
    fn both_lines_of_a_flow_are_found_across_a_rotation() {
        let newest = format!(
            "{{\"checkpoint\":[\"{FLOW}\"]}}\nnonsense {FLOW}\n{}",
            line("close", FLOW)
        );
        let older = format!(
            "\u{1}\n{}{}",
            line("decision", OTHER),
            line("decision", FLOW)
        );
        let (_folder, record) = log(&[("decisions.jsonl", &newest), ("decisions.jsonl.1", &older)]);
        let lines = find(&record, FLOW).unwrap();
        assert_eq!(lines.flow, FLOW);
        assert!(lines.decision.is_some() && lines.close.is_some());
    }

    #[test]
    fn a_beginning_is_enough_where_it_is_the_only_one() {
        let text = line("decision", FLOW) + &line("decision", OTHER);
        let (_folder, record) = log(&[("decisions.jsonl", &text)]);
        assert!(matches!(
            find(&record, "0195f3c2"),
            Err(Missing::Ambiguous(2))
        ));
        assert_eq!(find(&record, OTHER).unwrap().flow, OTHER);
        assert!(matches!(
            find(&record, "0195f3c3"),
            Err(Missing::Unknown(_))
        ));
    }

    #[test]
    fn the_short_id_that_a_refusal_shows_is_enough() {
        let text = line("decision", FLOW) + &line("decision", OTHER);
        let (_folder, record) = log(&[("decisions.jsonl", &text)]);
        assert_eq!(find(&record, "000000000002").unwrap().flow, OTHER);
        let middle = find(&record, "7000-8000");
        assert!(matches!(middle, Err(Missing::Unknown(_))));
    }

    #[test]
    fn a_flow_of_a_run_that_found_the_log_in_use_is_found() {
        let spare = format!("decisions-{OTHER}.jsonl");
        let text = line("decision", FLOW);
        let (_folder, record) = log(&[("decisions.jsonl", ""), (&spare, &text)]);
        assert_eq!(find(&record, FLOW).unwrap().flow, FLOW);
    }

    #[test]
    fn a_log_that_is_not_there_knows_nothing() {
        let (_folder, mut record) = log(&[]);
        assert!(matches!(find(&record, FLOW), Err(Missing::Unknown(_))));
        record.file = None;
        assert!(matches!(find(&record, FLOW), Err(Missing::NoFile)));
    }
}
