//! Findings about exceptions and certificates that end soon, and entries of the catalogue with an old
//! source. Exceptions and certificates that have ended are found at each load.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::app::Loaded;
use crate::config::Config;
use crate::diag::Diagnostic;
use crate::policy::Catalogue;
use crate::tls::Servers;

/// A certificate or exception that ends within this time is a finding.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// An entry of the catalogue whose source is old.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct OldEntry {
    /// The month of the source, `YYYY-MM`; the month of the file if the source has none.
    month: String,
    /// The first host of the entry.
    pub(super) host: String,
}

/// Returns a finding for each exception and certificate of a configuration that ends soon.
pub(super) fn findings(loaded: &Loaded, config: &Config, now: Timestamp) -> Vec<Diagnostic> {
    let mut found = exceptions(config, now);
    found.extend(certificates(loaded, config, now));
    found
}

/// Formats an end that is in the future and within [`SOON`]; otherwise `None`.
fn soon(end: Timestamp, now: Timestamp) -> Option<String> {
    let left = end.duration_since(now);
    let is_soon = end > now && left <= SOON;
    is_soon.then(|| format!("ends on {}, in {} days", day(end), left.as_hours() / 24))
}

fn exceptions(config: &Config, now: Timestamp) -> Vec<Diagnostic> {
    let written = config.policy.exceptions.iter();
    let found = written.filter_map(|written| {
        let exception = &written.value;
        let end: Timestamp = exception.expires.get_ref().to_string().parse().ok()?;
        let end = soon(end, now)?;
        let message = format!("exception `{}` {end}", exception.id.get_ref());
        let place = written.at(&exception.expires);
        let finding = Diagnostic::warning("exception-ends-soon", place, message);
        Some(
            finding
                .label("its flows are refused from then on, unless a rule allows them")
                .help("take it out, or write the rule that is to follow it"),
        )
    });
    found.collect()
}

fn certificates(loaded: &Loaded, config: &Config, now: Timestamp) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let shown = loaded.upstreams.iter().flat_map(|it| it.shown());
    // Revocation lists are short-lived by design.
    for shown in shown.filter(|it| it.kind != "upstream-crl") {
        let mut upstreams = config.upstreams.iter();
        let upstream = upstreams.find(|it| it.name == shown.upstream);
        let (Some(end), Some(upstream)) = (soon(shown.end, now), upstream) else {
            continue;
        };
        let file = shown.file.display();
        let message = format!("{file}: the certificate of {} {end}", shown.names);
        let help = format!("renew {file}: the gate takes the new file when it changes");
        let place = upstream.place.clone();
        let finding = Diagnostic::warning("certificate-ends-soon", place, message);
        found.push(finding.label("for this upstream").help(help));
    }
    let listeners = loaded.tls.iter().flat_map(Servers::ends);
    for (_, end) in listeners.filter(|(kind, _)| *kind == "listener") {
        let Some(end) = soon(end, now) else { continue };
        let message = format!("the certificate of a listener {end}");
        let help = "renew the file that `cert` names: the gate takes it when it changes";
        found.push(Diagnostic::unplaced("certificate-ends-soon", message).help(help));
    }
    found
}

/// Returns the catalogue entries whose source is more than a year old, the oldest first.
pub(super) fn old_entries(catalogue: &Catalogue, now: Timestamp) -> Vec<OldEntry> {
    let files = catalogue.files.iter().map(|(_, file)| file);
    let all = files.flat_map(|file| file.destination.iter().map(|entry| (entry, &*file.dated)));
    let old = all.filter_map(|(entry, dated)| {
        let month = entry.source.as_deref().and_then(month_of);
        let month = month.or_else(|| month_of(dated))?;
        let host = entry.names().next()?;
        is_old(month, now)?.then(|| OldEntry {
            month: month.to_owned(),
            host,
        })
    });
    let mut old: Vec<OldEntry> = old.collect();
    old.sort();
    old
}

/// Formats the lines of the summary about old entries; empty if there are none.
pub(super) fn old_entries_line(old: &[OldEntry]) -> String {
    let Some(first) = old.first() else {
        return String::new();
    };
    format!(
        "catalogue     {} entries have sources older than a year, the oldest {} ({}):\n              \
         update tidegate, or write a [[destination]] for hosts that you checked yourself\n",
        old.len(),
        first.host,
        first.month,
    )
}

/// Formats a day: `2026-12-05`.
pub(super) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// The `YYYY-MM` of a text.
fn month_of(text: &str) -> Option<&str> {
    let is_part = |letter: char| letter.is_ascii_digit() || letter == '-';
    let mut words = text.split(|letter: char| !is_part(letter));
    let month = words.find_map(|word| word.get(..7))?;
    (month.as_bytes().get(4) == Some(&b'-')).then_some(month)
}

/// Whether a month ended more than a year ago; `None` if it is no month.
fn is_old(month: &str, now: Timestamp) -> Option<bool> {
    let first: Date = format!("{month}-01").parse().ok()?;
    let end = first.checked_add(13.months()).ok()?;
    let end = end.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(end <= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::built_in;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_ends_within_two_weeks_ends_soon() {
        let now = at("2026-11-30T00:00:00Z");
        let said = soon(at("2026-12-05T12:00:00Z"), now);
        assert_eq!(said.as_deref(), Some("ends on 2026-12-05, in 5 days"));
        assert_eq!(soon(at("2026-12-15T00:00:00Z"), now), None);
        assert_eq!(soon(at("2026-11-29T00:00:00Z"), now), None, "it has ended");
    }

    #[test]
    fn an_exception_that_ends_soon_is_found() {
        let count = |end: &str| {
            let text = format!(
                "[[exception]]\nid = \"EXC-1\"\nto.hosts = [\"a.example.net\"]\nreason = \"r\"\n\
                 reviewer = \"ana\"\nexpires = {end}T00:00:00Z\n"
            );
            let path = std::path::Path::new("a.toml");
            let (config, findings) = crate::config::load_text(path, &text);
            let config = config.unwrap_or_else(|| panic!("{findings:?}"));
            exceptions(&config, at("2026-01-30T00:00:00Z")).len()
        };
        // Each has ended by the clock of the machine: an exception that lasts too long does not load.
        assert_eq!(count("2026-02-05"), 1);
        assert_eq!(count("2026-03-05"), 0);
        assert_eq!(count("2026-01-05"), 0);
    }

    #[test]
    fn entries_grow_old_with_the_month_of_their_source() {
        let catalogue = built_in();
        let now = at("2026-11-15T00:00:00Z");
        let old = old_entries(&catalogue, now);
        assert_eq!(old, []);
        assert_eq!(old_entries_line(&old), "");
        let all: usize = catalogue
            .files
            .iter()
            .map(|(_, file)| file.destination.len())
            .sum();
        let much_later = at("2028-01-01T00:00:00Z");
        let old = old_entries(&catalogue, much_later);
        assert_eq!(old.len(), all);
        assert!(old.is_sorted(), "the oldest first");
        assert!(old_entries_line(&old).contains(&format!("{all} entries")));
    }
}
