//! `[record]`: the decision log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::source::Placed;

use super::value::{self, Size};

/// The decision log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The path, relative to the configuration file; `None` is standard output (`-`).
    pub file: Option<PathBuf>,
    /// The action for new flows while records cannot be written.
    pub on_failure: OnFailure,
    /// The size in bytes at which the file is rotated (`rotate-size`, default 256 MiB; 0: never).
    pub rotate_size: u64,
    /// The number of rotated files that are kept (`rotate-keep`, default 10); with `retain`, younger
    /// files beyond this number are kept as well.
    pub rotate_keep: u32,
    /// How long rotated files are kept (`retain`, default 30 days; zero: `rotate-keep` alone
    /// decides).
    pub retain: Duration,
    /// The window in which repeated refusals of one caller are counted together (`repeat-window`,
    /// default 10 s; zero: each refusal has a line).
    pub repeat_window: Duration,
    /// The number of refusals of one caller for one target, reason and rule that have separate
    /// lines in a window (`repeat-after`, default 20).
    pub repeat_after: u32,
    /// The key that signs checkpoints (`key`, default `record.key` beside the file); `None` if
    /// records go to standard output and no key is configured: then nothing is signed.
    pub key: Option<PathBuf>,
    /// The group that may read the files (`group`); `None` leaves the group as it is.
    pub group: Option<u32>,
    /// The permissions of the files (`mode`, default `0600`).
    pub mode: u32,
    /// Whether records contain the paths of requests (`paths`, default no): a path may contain
    /// secrets.
    pub paths: bool,
}

/// The action for new flows while records cannot be written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnFailure {
    /// New flows pass; lost lines are counted and reported.
    Continue,
    /// New flows are refused with `record_unavailable`.
    #[default]
    Refuse,
}

/// The text of `[record]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    file: Option<Spanned<String>>,
    on_failure: Option<Spanned<String>>,
    rotate_size: Option<Spanned<Size>>,
    rotate_keep: Option<Spanned<i64>>,
    retain: Option<Spanned<String>>,
    repeat_window: Option<Spanned<String>>,
    repeat_after: Option<Spanned<i64>>,
    key: Option<Spanned<String>>,
    group: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    paths: Option<bool>,
}

/// The words of `on-failure`.
pub(super) const ON_FAILURE: [(&str, OnFailure); 2] = [
    ("refuse", OnFailure::Refuse),
    ("continue", OnFailure::Continue),
];
const FILE: &str = "decisions.jsonl";
/// Range of `rotate-size`: a smaller file would be rotated every few lines.
const ROTATE_SIZE: (u64, u64) = (4 << 10, 1 << 40);
const ROTATE_KEEP: (u32, u32) = (0, 10_000);
const DAY: Duration = Duration::from_hours(24);
const RETAIN: (Duration, Duration) = (Duration::ZERO, Duration::from_hours(24 * 3650));
const REPEAT_WINDOW: (Duration, Duration) = (Duration::ZERO, Duration::from_mins(10));
const REPEAT_AFTER: (u32, u32) = (1, 10_000);
/// The name of the key file beside the log.
const KEY: &str = "record.key";
/// The database of group numbers.
const GROUPS: &str = "/etc/group";

impl Record {
    /// Returns the defaults, with the file in `folder`.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            file: Some(folder.join(FILE)),
            on_failure: OnFailure::default(),
            rotate_size: 256 << 20,
            rotate_keep: 10,
            retain: DAY * 30,
            repeat_window: Duration::from_secs(10),
            repeat_after: 20,
            key: Some(folder.join(KEY)),
            group: None,
            mode: 0o600,
            paths: false,
        }
    }
}

/// Reads the section; `folder` is the folder of the first file.
pub(super) fn record(
    section: Option<&Placed<Section>>,
    folder: &Path,
    findings: &mut Vec<Diagnostic>,
) -> Record {
    let mut record = Record::in_folder(folder);
    let Some(section) = section else {
        return record;
    };
    let written = &section.value;
    if let Some(file) = &written.file {
        record.file = file_of(section, file, findings);
    }
    if let Some(word) = &written.on_failure {
        let meaning = value::word(word.get_ref(), &ON_FAILURE, section.at(word), findings);
        record.on_failure = meaning.unwrap_or_default();
    }
    record.paths = written.paths.unwrap_or_default();
    record.key = key_of(section, record.file.as_deref(), findings);
    files(section, &mut record, findings);
    bounds(section, &mut record, findings);
    record
}

/// Reads the paths of the files, and their retention.
fn files(section: &Placed<Section>, record: &mut Record, findings: &mut Vec<Diagnostic>) {
    let written = &section.value;
    if let Some(size) = &written.rotate_size
        && *size.get_ref() != Size::Bytes(0)
    {
        let size = value::size(size.get_ref(), ROTATE_SIZE, section.at(size), findings);
        record.rotate_size = size.unwrap_or(record.rotate_size);
    } else if written.rotate_size.is_some() {
        record.rotate_size = 0;
    }
    if let Some(keep) = &written.rotate_keep {
        let keep = value::number(*keep.get_ref(), ROTATE_KEEP, section.at(keep), findings);
        record.rotate_keep = keep.unwrap_or(record.rotate_keep);
    }
    if let Some(mode) = &written.mode {
        record.mode = mode_of(section, mode, findings).unwrap_or(record.mode);
    }
    if let Some(group) = &written.group {
        record.group = group_of(section, group, findings);
    }
}

/// Reads the retention of files, and the bounds of repeated refusals.
fn bounds(section: &Placed<Section>, record: &mut Record, findings: &mut Vec<Diagnostic>) {
    let written = &section.value;
    let mut time = |text: &Option<Spanned<String>>, bounds, otherwise| {
        let Some(text) = text else { return otherwise };
        let time = value::duration(text.get_ref(), bounds, section.at(text), findings);
        time.unwrap_or(otherwise)
    };
    record.retain = time(&written.retain, RETAIN, record.retain);
    record.repeat_window = time(&written.repeat_window, REPEAT_WINDOW, record.repeat_window);
    if let Some(after) = &written.repeat_after {
        let after = value::number(*after.get_ref(), REPEAT_AFTER, section.at(after), findings);
        record.repeat_after = after.unwrap_or(record.repeat_after);
    }
}

fn key_of(
    section: &Placed<Section>,
    file: Option<&Path>,
    findings: &mut Vec<Diagnostic>,
) -> Option<PathBuf> {
    let Some(key) = &section.value.key else {
        return Some(file?.with_file_name(KEY));
    };
    if key.get_ref().is_empty() {
        let finding = Diagnostic::error("empty", section.at(key), "`key` names no file");
        let help = "write the path of a file that agents cannot read; it is made at first start";
        findings.push(finding.help(help));
        return None;
    }
    Some(super::folder_of(&section.source.path).join(key.get_ref()))
}

/// Parses the permissions of a file, in octal as for `chmod`.
fn mode_of(
    section: &Placed<Section>,
    mode: &Spanned<String>,
    findings: &mut Vec<Diagnostic>,
) -> Option<u32> {
    let text = mode.get_ref();
    let message = match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & 0o022 != 0 => {
            format!("`{text}` lets others than the owner write the records")
        }
        Ok(mode) if mode & 0o600 != 0o600 || mode & !0o644 != 0 => {
            format!("`{text}` is not a mode of a file that the gate writes and others at most read")
        }
        Ok(mode) => return Some(mode),
        Err(_) => format!("`{text}` is not a mode"),
    };
    let finding = Diagnostic::error("bad-mode", section.at(mode), message);
    let help = "write \"0600\", or \"0640\" with `group` so that a log shipper can read";
    findings.push(finding.help(help));
    None
}

/// Parses a group, given by its name or its number.
fn group_of(
    section: &Placed<Section>,
    group: &Spanned<String>,
    findings: &mut Vec<Diagnostic>,
) -> Option<u32> {
    let text = group.get_ref();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let groups = super::read(Path::new(GROUPS)).unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut words = line.split(':');
        let named = words.next() == Some(text) && !text.is_empty();
        words.nth(1).filter(|_| named)?.parse().ok()
    });
    if found.is_none() {
        let message = format!("there is no group `{text}` in {GROUPS}");
        let finding = Diagnostic::error("unknown-group", section.at(group), message);
        findings.push(finding.help("make it with `groupadd`, or write its number"));
    }
    found
}

fn file_of(
    section: &Placed<Section>,
    file: &Spanned<String>,
    findings: &mut Vec<Diagnostic>,
) -> Option<PathBuf> {
    match file.get_ref().as_str() {
        "-" => None,
        "" => {
            let finding = Diagnostic::error("empty", section.at(file), "the record has no file");
            findings.push(finding.help("write a path, or `-` for standard output"));
            None
        }
        path => Some(super::folder_of(&section.source.path).join(path)),
    }
}
