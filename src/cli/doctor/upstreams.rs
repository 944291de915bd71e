//! Checks the validity of the certificates that the gate uses with upstreams.

use jiff::SignedDuration;

use crate::app::Loaded;
use crate::cli::print;
use crate::clock::Clock;
use crate::tls::Shown;

use super::report::Item;

/// A certificate that expires within this time has to be renewed.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
const DAY: i64 = 24 * 60 * 60;
/// Maximum length of shown names, in characters.
const NAMES: usize = 80;

/// Lists each certificate with its expiry.
pub(super) fn look(loaded: &Loaded, clock: &Clock) -> Vec<Item> {
    let Some(upstreams) = &loaded.upstreams else {
        let text = "not looked at: the configuration does not load";
        return vec![Item::unknown("upstreams", "certificates", text)];
    };
    let shown = upstreams.shown();
    shown.into_iter().map(|it| item(it, clock)).collect()
}

fn item(shown: &Shown, clock: &Clock) -> Item {
    let what = match shown.kind {
        "upstream-root" => "root",
        "upstream-crl" => "list",
        _ => "client certificate",
    };
    let names = print::clean(&shown.names, NAMES);
    let subject = format!("{} {what} {names}", shown.upstream);
    let now = clock.now();
    let left = shown.end.duration_since(now);
    let end = shown.end.strftime("%Y-%m-%d");
    let file = shown.file.display();
    let found = |text: String| {
        let fix = format!("renew {file}; the gate reads it when it changes");
        Item::finding("upstreams", &subject, text).fix(fix)
    };
    if shown.end < now {
        return found(format!("expired on {end} ({file})"));
    }
    if now < shown.begin {
        let begin = shown.begin.strftime("%Y-%m-%d");
        return found(format!("is not valid before {begin} ({file})"));
    }
    let text = format!("ends on {end}, in {} days ({file})", left.as_secs() / DAY);
    // Lists are short-lived by design: only a stale one is a finding.
    if left < SOON && shown.kind != "upstream-crl" {
        return found(text);
    }
    Item::fine("upstreams", &subject, text)
}
