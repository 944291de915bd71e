//! Compares the decisions of two policies on the same recorded flow.

use super::judge::{Judge, Judged, Judging, changed};
use super::recorded::Recorded;

/// Judges recorded flows under two policies: the effect of a change from one to the other.
///
/// The recorded verdict does not count, so the result has no changes of older policies.
#[derive(Debug)]
pub struct Pair<'p> {
    /// The first policy.
    pub before: Judge<'p>,
    /// The second policy.
    pub after: Judge<'p>,
}

impl Judging for Pair<'_> {
    fn judge(&self, line: &Recorded<'_>) -> Judged {
        let ([was, _], [now, _]) = match (self.before.weigh(line), self.after.weigh(line)) {
            (Ok((_, before)), Ok((_, after))) => (before, after),
            (Err(why), _) | (_, Err(why)) => return why,
        };
        if was.effect.is_same(now.effect) {
            return Judged::Same {
                by_other_rule: was.rule != now.rule || was.reason != now.reason,
            };
        }
        changed(line, was, now)
    }

    fn own(&self, line: &Recorded<'_>, _judged: &Judged) -> Option<Judged> {
        let own = [&self.before, &self.after];
        let own = own.into_iter().find(|judge| judge.wrote(line))?;
        Some(own.judge(line))
    }
}
