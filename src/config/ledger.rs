//! `[ledger]` and `[exceptions]`: what people decide while the gate runs, and for how long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::source::{self, Placed};

use super::value;

/// The ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ledger {
    /// The file of `SQLite` (`file`, default `ledger.db` beside the records).
    pub file: PathBuf,
    /// How long the gate goes on with what it knows while the ledger does not answer
    /// (`stale-after`, default 1 h). After that what was granted counts as ended.
    pub stale_after: Duration,
}

/// `[ledger]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    file: Option<Spanned<String>>,
    stale_after: Option<Spanned<String>>,
}

/// `[exceptions]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ExceptionsSection {
    longest: Option<Spanned<String>>,
}

/// The name of the file beside the records.
const FILE: &str = "ledger.db";
const HOUR: Duration = Duration::from_hours(1);
const STALE_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(168));
const MAX_EXCEPTION: (Duration, Duration) =
    (Duration::from_mins(1), Duration::from_hours(24 * 3650));
/// How long an exception may last where `[exceptions]` does not say.
pub(super) const DEFAULT_MAX_EXCEPTION: Duration = Duration::from_hours(24 * 90);

/// The ledger that is written; `record` is the file of the records.
pub(super) fn ledger(
    section: Option<&Placed<Section>>,
    record: Option<&Path>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Ledger> {
    let section = section?;
    let file = match &section.value.file {
        Some(file) if !file.get_ref().is_empty() => {
            Some(super::folder_of(&section.source.path).join(file.get_ref()))
        }
        Some(_) => None,
        None => record.map(|record| record.with_file_name(FILE)),
    };
    let Some(file) = file else {
        let message = "the ledger has no file";
        findings.push(
            Diagnostic::error("no-ledger-file", section.place(), message)
                .help("write `file`, the path of a file that agents cannot write"),
        );
        return None;
    };
    let stale_after = section
        .value
        .stale_after
        .as_ref()
        .map_or(Some(HOUR), |text| {
            value::duration(text.get_ref(), STALE_AFTER, section.at(text), findings)
        });
    Some(Ledger {
        file,
        stale_after: stale_after.unwrap_or(HOUR),
    })
}

/// How long an exception may last.
pub(super) fn max_exception(
    section: Option<&Placed<ExceptionsSection>>,
    findings: &mut Vec<Diagnostic>,
) -> Duration {
    let written = section.and_then(|section| Some((section, section.value.longest.as_ref()?)));
    let max = written.and_then(|(section, text)| {
        value::duration(text.get_ref(), MAX_EXCEPTION, section.at(text), findings)
    });
    max.unwrap_or(DEFAULT_MAX_EXCEPTION)
}

/// A time for a message: `90 days`, `8h`.
pub(crate) fn time_in_words(time: SignedDuration) -> String {
    let days = time.as_hours() / 24;
    if days >= 2 && time == SignedDuration::from_hours(24 * days) {
        return format!("{days} days");
    }
    format!("{time:#}")
}

/// Finds exceptions that last too long, have ended, or have a limit that nothing counts.
pub(super) fn check_exceptions(
    exceptions: &[Placed<source::Exception>],
    max: Duration,
    has_ledger: bool,
    now: Timestamp,
    findings: &mut Vec<Diagnostic>,
) {
    let max = SignedDuration::try_from(max).unwrap_or(SignedDuration::MAX);
    let last = now.saturating_add(max).unwrap_or(Timestamp::MAX);
    for written in exceptions {
        let exception = &written.value;
        let id = exception.id.get_ref();
        let place = written.at(&exception.expires);
        // What is no point in time is found where exceptions are compiled.
        let expires = exception.expires.get_ref().to_string().parse::<Timestamp>();
        if expires.as_ref().is_ok_and(|end| *end > last) {
            let message = format!("exception `{id}` lasts too long");
            findings.push(
                Diagnostic::error("lasts-too-long", place, message)
                    .label(format!("more than {} from now", time_in_words(max)))
                    .help("end it earlier, or write a rule; the bound is `[exceptions] longest`"),
            );
        } else if expires.is_ok_and(|end| end <= now) {
            let message = format!("exception `{id}` has ended");
            findings.push(
                Diagnostic::warning("exception-ended", place, message)
                    .label("it lets nothing pass any more")
                    .help("take it out; `tidegate exceptions --retest` shows what decides now"),
            );
        }
        let limit = &exception.limit;
        let bound = limit.bytes_out.as_ref().map(|it| written.at(it));
        let bound = bound.or(limit.requests.as_ref().map(|it| written.at(it)));
        if let (Some(place), false) = (bound, has_ledger) {
            let message = format!("the limit of exception `{id}` needs a ledger");
            findings.push(
                Diagnostic::error("limit-without-ledger", place, message)
                    .label("a restart would forget what was spent")
                    .help("write `[ledger]`: what is spent is then kept in `ledger.db` beside the records"),
            );
        }
    }
}
