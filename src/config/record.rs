//! `[record]`: the decision log.

use std::path::PathBuf;

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
