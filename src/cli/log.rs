//! `tidegate log`: verifies records, and prints the key that signs them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::app::Loaded;
use crate::clock::Clock;
use crate::config;
use crate::record::{Ending, Flaw, Verifier, parse_public_key, public_key};

use super::{Answer, load, print};

/// Maximum length of a line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Maximum number of flaws that are printed; further ones are counted.
const MAX_FLAWS: usize = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Log {
    /// Verify the hash chain and signatures of records: find changed, missing or moved lines.
    Verify(Verify),
    /// Print the public key that belongs to the signatures of this gate's records.
    Key(Key),
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The files, in any order: the log and all its rotated files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The public key of the gate: its hex, or a file that holds it [default: the key that the log
    /// itself names].
    #[arg(long, value_name = "FILE|HEX")]
    public_key: Option<String>,
    /// A gate still writes to the log: its last lines need no signature yet.
    #[arg(long)]
    running: bool,
    /// The number of a line that the log must reach, stored where agents cannot write.
    #[arg(long, value_name = "SEQ")]
    through: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Key {
    /// The configuration [default: `$TIDEGATE_CONFIG`,
    /// /etc/tidegate/tidegate.toml, ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// One flaw, with its position.
#[derive(Debug)]
struct Found {
    file: PathBuf,
    line: u64,
    flaw: Flaw,
}

/// The result of the verification.
#[derive(Debug, Default)]
struct Report {
    verifier: Verifier,
    flaws: Vec<Found>,
    more: u64,
}

impl Log {
    pub(super) fn perform(self) -> Answer {
        match self {
            Self::Verify(verify) => verify.perform(),
            Self::Key(key) => key.perform(),
        }
    }
}

impl Key {
    fn perform(&self) -> Answer {
        let loaded = Loaded::discovered(&load::find(self.config.as_deref(), false));
        let Some(config) = loaded.config else {
            print::err("tidegate: the configuration cannot be read; see `tidegate check`\n");
            return Answer::Wrong;
        };
        let Some(path) = config.record.key else {
            print::err("tidegate: records are not signed: `[record] key` names no file\n");
            return Answer::No;
        };
        match public_key(&path) {
            Ok(key) => {
                print::out(&format!("{key}\n"));
                Answer::Yes
            }
            Err(error) => {
                let hint = "the gate makes the key at its first start; run this as its user";
                print::err(&format!("tidegate: {error}; {hint}\n"));
                Answer::Failed
            }
        }
    }
}

impl Verify {
    fn perform(self) -> Answer {
        let key = match self.key() {
            Ok(key) => key,
            Err(message) => {
                print::err(&format!("tidegate: {message}\n"));
                return Answer::Wrong;
            }
        };
        let ending = Ending {
            running: self.running.then(|| Clock::system().now()),
            through: self.through,
        };
        let report = ordered(&self.files).and_then(|files| Report::of(&files, key, ending));
        match report {
            Ok(report) if report.verifier.counts().0 == 0 => {
                print::err("tidegate: these files hold no line of a decision log with a chain\n");
                Answer::Wrong
            }
            Ok(report) => {
                if self.json {
                    print::json(&report.json());
                } else {
                    print::out(&report.text());
                }
                Answer::whether(report.flaws.is_empty())
            }
            Err(error) => {
                print::err(&format!("tidegate: {error}\n"));
                Answer::Wrong
            }
        }
    }

    fn key(&self) -> Result<Option<[u8; 32]>, String> {
        let Some(given) = &self.public_key else {
            return Ok(None);
        };
        if let Some(key) = parse_public_key(given) {
            return Ok(Some(key));
        }
        let text = config::read(Path::new(given))
            .map_err(|error| format!("{given}: neither 64 hex digits nor a file: {error}"))?;
        let key = parse_public_key(&text);
        key.map(Some).ok_or_else(|| {
            format!("{given}: no public key in hex, as `tidegate log key` prints it")
        })
    }
}

/// Returns the files in the order of their first lines.
fn ordered(files: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut numbered = Vec::new();
    for path in files {
        let mut reader = reader(path)?;
        let mut first = None;
        let mut line = Vec::new();
        while first.is_none() && next(&mut reader, &mut line)? {
            first = Verifier::number(&line);
        }
        numbered.push((first.unwrap_or(0), path.clone()));
    }
    numbered.sort_by_key(|(first, _)| *first);
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

fn reader(path: &Path) -> io::Result<BufReader<File>> {
    let annotate =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // A pipe without a writer is an error instead of a wait.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = File::options();
    let file = options.read(true).custom_flags(nonblock).open(path);
    let file = file.map_err(annotate)?;
    if !file.metadata().map_err(annotate)?.is_file() {
        return Err(annotate(io::Error::other("no regular file")));
    }
    Ok(BufReader::with_capacity(256 * 1024, file))
}

/// Reads the next line with its newline; `false` at the end. A line that is too long is read in
/// parts, none of which is a line of the log.
fn next(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(reader.by_ref().take(MAX_LINE).read_until(b'\n', line)? > 0)
}

impl Report {
    fn of(files: &[PathBuf], key: Option<[u8; 32]>, ending: Ending) -> io::Result<Self> {
        let mut report = Self {
            verifier: Verifier::new(key),
            ..Self::default()
        };
        let mut place = (PathBuf::new(), 0);
        let mut line = Vec::new();
        for (index, path) in files.iter().enumerate() {
            let last = index + 1 == files.len();
            let mut reader = reader(path)?;
            place = (path.clone(), 0);
            while next(&mut reader, &mut line)? {
                place.1 += 1;
                let whole = line.pop_if(|end| *end == b'\n').is_some();
                if !whole && last && ending.running.is_some() {
                    // The gate is about to write the rest of the line.
                    break;
                }
                let verified = if whole {
                    report.verifier.line(&line)
                } else {
                    Err(Flaw::Foreign)
                };
                report.add(&place, verified);
            }
        }
        let end = report.verifier.end(ending);
        report.add(&place, end);
        Ok(report)
    }

    fn add(&mut self, place: &(PathBuf, u64), result: Result<(), Flaw>) {
        let Err(flaw) = result else { return };
        if self.flaws.len() >= MAX_FLAWS {
            self.more += 1;
            return;
        }
        self.flaws.push(Found {
            file: place.0.clone(),
            line: place.1,
            flaw,
        });
    }

    fn text(&self) -> String {
        let flaw = |found: &Found| {
            let Found { file, line, flaw } = found;
            format!("{}:{line}: {flaw}", file.display())
        };
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        let mut lines: Vec<String> = self.flaws.iter().map(flaw).collect();
        lines.extend(more);
        lines.extend(self.extent());
        lines.push(self.signed_by());
        lines.push(self.verdict());
        lines.join("\n") + "\n"
    }

    /// Describes the lines that were read.
    fn extent(&self) -> Vec<String> {
        let verifier = &self.verifier;
        let (lines, checkpoints) = verifier.counts();
        let (first, last) = (verifier.first(), verifier.last());
        let (older, loose) = (verifier.unchained_lines(), verifier.unsigned_lines());
        let all = format!("lines {first} to {last}: {lines} lines, {checkpoints} checkpoints");
        let notes = [
            (first > 1).then(|| {
                format!(
                    "begins with line {first}: earlier files are not here, as `retain` or a \
                     shipper leaves it"
                )
            }),
            (older > 0)
                .then(|| format!("{older} lines before it have no chain and are not verified")),
            (loose > 0).then(|| format!("{loose} lines after the last signed checkpoint")),
        ];
        std::iter::once(all)
            .chain(notes.into_iter().flatten())
            .collect()
    }

    /// Describes whether the whole chain is valid, and the last line that a signature covers.
    fn verdict(&self) -> String {
        match self.verifier.signed() {
            _ if !self.flaws.is_empty() => "not whole".to_owned(),
            None => "whole".to_owned(),
            Some((line, at)) => format!("whole up to line {line}, signed at {at:.0}"),
        }
    }

    fn signed_by(&self) -> String {
        let key = self.verifier.key();
        match key.filter(|_| self.verifier.signed().is_some()) {
            None => "not signed: a process that can write the files can write another chain".into(),
            Some((key, true)) => format!("signed by {key}"),
            Some((key, false)) => {
                format!("signed by {key}, which was not compared: give --public-key")
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        let verifier = &self.verifier;
        let (lines, checkpoints) = verifier.counts();
        let flaw = |found: &Found| {
            json!({
                "file": found.file,
                "line": found.line,
                "detail": found.flaw.to_string(),
            })
        };
        json!({
            "whole": self.flaws.is_empty(),
            "first": verifier.first(),
            "last": verifier.last(),
            "lines": lines,
            "checkpoints": checkpoints,
            "unchained": verifier.unchained_lines(),
            "unsigned": verifier.unsigned_lines(),
            "signed_through": verifier.signed().map(|(line, _)| line),
            "signed_at": verifier.signed().map(|(_, at)| format!("{at:.0}")),
            "key": verifier.key().map(|(key, _)| key),
            "key_given": verifier.key().is_some_and(|(_, given)| given),
            "flaws": self.flaws.iter().map(flaw).collect::<Vec<_>>(),
            "more": self.more,
        })
    }
}
