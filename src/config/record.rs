//! `[record]`: the decision log.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::source::Placed;

use super::value::{self, Size};

/// The decision log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The file; `None` is standard output (`-`). Relative to the file that says it.
    pub file: Option<PathBuf>,
    /// What happens to new flows while records cannot be kept.
    pub on_failure: OnFailure,
    /// Rotate when the file has this many bytes (`rotate-size`, default 256 MiB; 0: never).
    pub rotate_size: u64,
    /// How many rotated files are kept (`rotate-keep`, default 10).
    pub rotate_keep: u32,
}

/// What happens to new flows while records cannot be kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnFailure {
    /// They pass; what is lost is counted and alarmed.
    Continue,
    /// They are refused with `record_unavailable`.
    #[default]
    Refuse,
}

/// `[record]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    file: Option<Spanned<String>>,
    on_failure: Option<Spanned<String>>,
    rotate_size: Option<Spanned<Size>>,
    rotate_keep: Option<Spanned<i64>>,
}

const FILE: &str = "decisions.jsonl";
/// Smaller files would be rotated with every few lines.
const ROTATE_SIZE: (u64, u64) = (4 << 10, 1 << 40);
const ROTATE_KEEP: (u32, u32) = (0, 10_000);

impl Record {
    /// The defaults, with the file in `folder`.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            file: Some(folder.join(FILE)),
            on_failure: OnFailure::default(),
            rotate_size: 256 << 20,
            rotate_keep: 10,
        }
    }
}

/// The record that is written; `folder` is the one of the first file.
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
        let words = [
            ("refuse", OnFailure::Refuse),
            ("continue", OnFailure::Continue),
        ];
        let meaning = value::word(word.get_ref(), &words, section.at(word), findings);
        record.on_failure = meaning.unwrap_or_default();
    }
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
    record
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
