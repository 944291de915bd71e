//! Compiles `reviewers` and related keys in `[tier.NAME]`, and reports their errors.

use std::time::Duration;

use jiff::SignedDuration;
use toml::Spanned;

use crate::diag::{Diagnostic, Severity};
use crate::policy::asking::{Asking, Reviewer, ReviewerKind, is_service_user};
use crate::policy::caller::Membership;
use crate::policy::findings::Findings;
use crate::policy::source::{self, Placed};

/// Maximum duration of an approval: an approval always ends.
const MAX_LONGEST: Duration = Duration::from_hours(24 * 7);
/// Maximum time that a flow waits for an answer: many clients give up after a minute.
const MAX_HOLD: Duration = Duration::from_secs(55);
/// Minimum of the bound on an approval.
const MIN_LONGEST: Duration = Duration::from_mins(1);

impl Asking {
    /// Reads the keys of one tier, each from the first layer that has it. [`findings`] reports
    /// errors.
    pub(super) fn of(layers: &[&Placed<source::Tier>]) -> Self {
        fn first<'a, V>(
            layers: &[&'a Placed<source::Tier>],
            key: impl Fn(&'a source::Tier) -> Option<&'a V>,
        ) -> Option<&'a V> {
            layers.iter().find_map(|tier| key(&tier.value))
        }
        let default = Self::default();
        let span = |text: Option<&Spanned<String>>| text.and_then(|it| duration(it.get_ref()));
        let reviewers = first(layers, |tier| tier.reviewers.as_ref());
        let approvals = first(layers, |tier| tier.approvals.as_ref());
        let written = reviewers.map(Vec::as_slice).unwrap_or_default();
        Self {
            reviewers: written
                .iter()
                .filter_map(|it| Reviewer::parse(it.get_ref()).ok())
                .collect(),
            approvals: if approvals.is_some_and(|it| *it.get_ref() == 2) {
                2
            } else {
                1
            },
            not_oneself: first(layers, |tier| tier.not_oneself.as_ref())
                .map_or(default.not_oneself, |it| *it.get_ref()),
            max_approval: span(first(layers, |tier| tier.longest_approval.as_ref()))
                .unwrap_or(default.max_approval),
            hold: span(first(layers, |tier| tier.hold.as_ref())).unwrap_or(default.hold),
            first_reader: first(layers, |tier| tier.first_reader.as_ref())
                .filter(|words| !words.is_empty())
                .map(|words| words.iter().map(|it| it.get_ref().clone()).collect()),
        }
    }
}

fn not_oneself(tier: &source::Tier) -> bool {
    tier.not_oneself.as_ref().is_none_or(|it| *it.get_ref())
}

fn duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// Reports errors in the reviewers and bounds of every tier.
pub(super) fn findings(source: &source::Policy, callers: &Membership, found: &mut Findings) {
    for (_, tier) in &source.tier {
        for written in tier.value.reviewers.iter().flatten() {
            if let Some(finding) = reviewer_finding(tier, written, callers) {
                found.push(finding);
            }
        }
        if let Some(count) = &tier.value.approvals
            && !(1..=2).contains(count.get_ref())
        {
            let message = format!("`approvals` is 1 or 2, not {}", count.get_ref());
            let finding = Diagnostic::error("bad-approvals", tier.at(count), message);
            found.push(finding.help("write `approvals = 2` where two reviewers have to allow"));
        }
        if let Some(words) = &tier.value.first_reader {
            first_reader_finding(tier, words, found);
        }
        let longest = &tier.value.longest_approval;
        let hold = &tier.value.hold;
        let bounds = [
            ("longest-approval", longest, MIN_LONGEST, MAX_LONGEST, "8h"),
            ("hold", hold, Duration::ZERO, MAX_HOLD, "20s"),
        ];
        for (key, written, least, most, example) in bounds {
            let Some(written) = written else { continue };
            let within = |it: &Duration| (least..=most).contains(it);
            if !duration(written.get_ref()).is_some_and(|it| within(&it)) {
                let message = format!(
                    "`{key}` is a duration from {} s to {} s",
                    least.as_secs(),
                    most.as_secs()
                );
                let finding = Diagnostic::error("bad-duration", tier.at(written), message);
                found.push(finding.help(format!("write e.g. `{key} = \"{example}\"`")));
            }
        }
    }
}

fn first_reader_finding(
    tier: &Placed<source::Tier>,
    words: &[Spanned<String>],
    found: &mut Findings,
) {
    // No word: no first reader, where the tier that it extends has one.
    let Some(program) = words.first() else { return };
    if !program.get_ref().starts_with('/') {
        let message = format!("`{}` is no absolute path of a program", program.get_ref());
        let finding = Diagnostic::error("bad-first-reader", tier.at(program), message);
        let help = "write e.g. `first-reader = [\"/usr/local/bin/read-request\"]`";
        found.push(finding.help(help));
    }
}

fn reviewer_finding(
    tier: &Placed<source::Tier>,
    written: &Spanned<String>,
    callers: &Membership,
) -> Option<Diagnostic> {
    let text = written.get_ref();
    let reviewer = match Reviewer::parse(text) {
        Ok(reviewer) => reviewer,
        Err(why) => {
            let message = format!("`{text}` names no reviewer: {why}");
            let finding = Diagnostic::error("bad-reviewer", tier.at(written), message);
            let help = "write `uid:0`, `subject:NAME` or `group:NAME`";
            return Some(finding.help(help));
        }
    };
    match &reviewer.kind {
        ReviewerKind::Group(name) if callers.find(name).is_none() => {
            let message = format!("reviewers are of a group `{name}` that no file defines");
            let mut finding = Diagnostic::error("unknown-group", tier.at(written), message);
            finding.severity = Severity::Warning;
            let help = format!(
                "write `[group.{name}]`; without it only a token of an issuer can name the group"
            );
            Some(finding.help(help))
        }
        ReviewerKind::Uid(uid) if !is_service_user(*uid) && not_oneself(&tier.value) => {
            let message = format!(
                "user {uid} is a person's: each process of that user could settle, an agent too"
            );
            let mut finding = Diagnostic::error("reviewer-oneself", tier.at(written), message);
            finding.severity = Severity::Warning;
            let help = "the gate refuses this reviewer; name `uid:0` (and use sudo), a subject or a \
                        group, or accept it with `not-oneself = false`";
            Some(finding.help(help))
        }
        _ => None,
    }
}
