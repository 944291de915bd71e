//! Compares what two policies decide of the same recorded flow.

use super::judge::{Judge, Judged, Judging, changed};
use super::recorded::Recorded;

/// Judges recorded flows under two policies: what the change from one to the other does to them.
///
/// The verdict on record does not count, so changes of older policies are no part of the answer.
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
