//! Compares what a policy decides with what is on record.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::policy::{
    AddressRefusal, Decision, Guard, Inspect, Mode, Named, Policy, Reason, UnseenPath, Verdict, Who,
};
use crate::proxy::Code;
use crate::record::Blame;

use super::flow::{Flow, who};
use super::recorded::Recorded;

/// Judges recorded flows under one policy.
#[derive(Debug)]
pub struct Judge<'p> {
    policy: &'p Policy,
    /// The digest of the policy's configuration.
    digest: &'p str,
}

/// Judges recorded flows: [`Judge`] under one policy, [`Pair`](super::Pair) under two.
pub trait Judging {
    /// What becomes of the flow of a `decision` line.
    fn judge(&self, line: &Recorded<'_>) -> Judged;

    /// Where one of the policies wrote the line: what becomes of the flow under that policy alone,
    /// which is no change unless the line was altered. `judged` is what [`Judging::judge`] says.
    fn own(&self, line: &Recorded<'_>, judged: &Judged) -> Option<Judged>;
}

/// What became of a recorded flow.
#[derive(Clone, Debug)]
pub enum Judged {
    /// The same verdict.
    Same {
        /// Whether another rule decides, or the reason is another.
        by_other_rule: bool,
    },
    /// Another verdict, or TLS is ended where it was not.
    Changed {
        /// What is on record.
        was: Box<Outcome>,
        /// What the policy decides.
        now: Box<Outcome>,
    },
    /// The record does not hold what the verdict depends on.
    Undetermined(Undetermined),
    /// There was no decision of a policy.
    NotJudged(NotJudged),
}

/// What happens to a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Effect {
    /// What happens.
    pub verdict: Verdict,
    /// What would happen in `enforce` mode, where that differs.
    pub would: Option<Verdict>,
    /// Whether TLS in the tunnel is ended by the gate; `None` where that is not on record.
    pub inspected: Option<bool>,
}

/// A decision, as records name it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Outcome {
    /// What happens.
    pub effect: Effect,
    /// Why: a code of the closed list.
    pub reason: Arc<str>,
    /// What decided.
    pub rule: Arc<str>,
    /// Where that is written; empty for the floor.
    pub location: Arc<str>,
}

/// What is not on record.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Undetermined {
    /// The age of the package.
    Age,
    /// The credentials of the request.
    Credentials,
    /// All but the strictest of several things that a request does.
    Facts,
    /// The path of the request.
    Path,
    /// What the request does where a server reads its path in another way.
    Readings,
    /// Whether the request is for an MCP server at that host.
    Server,
}

/// Why there was nothing to judge.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NotJudged {
    /// Refusals that are counted in one line, of requests of which nothing else is on record.
    Counted,
    /// A name that a jail asked for, of which no port is captured.
    NoPort,
    /// No policy decided: the flow was malformed, unidentified, limited, or ended before.
    NotDecided,
    /// The line names no destination.
    NoTarget,
}

impl Undetermined {
    /// A word for data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Credentials => "credentials",
            Self::Facts => "facts",
            Self::Path => "path",
            Self::Readings => "readings",
            Self::Server => "mcp-server",
        }
    }

    /// What is missing, as a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Age => "a rule asks the age of the package, which is not on record",
            Self::Credentials => "a rule compares credentials, which are not on record",
            Self::Facts => "the request does several things; the strictest alone is on record",
            Self::Path => "the path decides, and it is not on record: `[record] paths = true`",
            Self::Readings => "servers may read the path in other ways, which are not on record",
            Self::Server => {
                "an MCP server is at this host, and the path is not on record: \
                 `[record] paths = true`"
            }
        }
    }
}

impl NotJudged {
    /// A word for data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::NoPort => "no-port",
            Self::NotDecided => "not-decided",
            Self::NoTarget => "no-target",
        }
    }

    /// Why, as a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Counted => "refusals that are counted only: no line says what each request did",
            Self::NoPort => "a name that a jail asked for, of which no port is captured",
            Self::NotDecided => {
                "no policy decided: malformed, not identified, limited, or ended before"
            }
            Self::NoTarget => "the line names no destination",
        }
    }
}

impl Effect {
    /// `allow`, `deny`; `allow, would deny` in observe mode.
    pub fn text(self) -> String {
        match self.would {
            Some(would) => format!("{}, would {would}", self.verdict),
            None => self.verdict.to_string(),
        }
    }

    /// The verdict of `enforce` mode.
    pub fn enforced(self) -> Verdict {
        self.would.unwrap_or(self.verdict)
    }

    pub(super) fn is_same(self, other: Self) -> bool {
        let both = self.inspected.zip(other.inspected);
        self.verdict == other.verdict
            && self.would == other.would
            && both.is_none_or(|(one, other)| one == other)
    }
}

impl<'p> Judge<'p> {
    /// Judges under a policy; `digest` is that of its configuration, as records name it.
    pub fn new(policy: &'p Policy, digest: &'p str) -> Self {
        Self { policy, digest }
    }

    /// Whether this policy wrote the line.
    pub fn wrote(&self, line: &Recorded<'_>) -> bool {
        line.digest.as_deref() == Some(self.digest)
    }

    /// What happened to the flow of a `decision` line, and what happens to it under this policy: both
    /// outcomes are the same but for their rule and reason.
    ///
    /// # Errors
    ///
    /// Why there is nothing to compare: [`Judged::Undetermined`] or [`Judged::NotJudged`].
    pub fn weigh(&self, line: &Recorded<'_>) -> Result<(Effect, [Outcome; 2]), Judged> {
        let was = recorded(line).map_err(Judged::NotJudged)?;
        let flow = Flow::of(line, self.policy);
        let mut flow = flow.ok_or(Judged::NotJudged(NotJudged::NoTarget))?;
        let who = who(line, self.policy);
        let now = self.outcomes(line, &mut flow, &who);
        Ok((was, now.map_err(Judged::Undetermined)?))
    }

    /// Judges the flow of a `decision` line.
    pub fn judge(&self, line: &Recorded<'_>) -> Judged {
        let (was, now) = match self.weigh(line) {
            Ok(weighed) => weighed,
            Err(why) => return why,
        };
        let [first, ..] = &now;
        if was.is_same(first.effect) {
            // A flow whose way out failed has that as its reason.
            // What became of a request for approval is another reason than that the policy asks.
            let failed = &*line.verdict == "error" || was.enforced() == Verdict::Ask;
            // Which exceptions are in force, and what is left of them, is not judged again.
            let spent = line.reason.as_deref() == Some(Reason::ExceptionSpent.code());
            let by_same = |it: &Outcome| {
                let same_reason = line.reason.as_deref() == Some(&*it.reason);
                let same_rule = line.rule.as_deref() == Some(&*it.rule);
                line.exception.is_some() || same_rule && (failed || spent || same_reason)
            };
            return Judged::Same {
                by_other_rule: !now.iter().any(by_same),
            };
        }
        let text = |text: Option<&str>| Arc::<str>::from(text.unwrap_or_default());
        let was = Outcome {
            effect: was,
            reason: text(line.reason.as_deref()),
            rule: text(line.rule.as_deref()),
            location: text(line.location.as_deref()),
        };
        changed(line, was, first.clone())
    }

    /// The outcome under each assumption on what is not on record, where all come to one effect.
    fn outcomes(
        &self,
        line: &Recorded<'_>,
        flow: &mut Flow,
        who: &Who,
    ) -> Result<[Outcome; 2], Undetermined> {
        let first = self.outcome(line, flow, who)?;
        let mut second = first.clone();
        let Some(request) = &mut flow.request else {
            return Ok([first, second]);
        };
        if line.readings.is_some() {
            return Err(Undetermined::Readings);
        }
        let unseen = request.facts.unseen_path;
        if let Some(unseen) = unseen {
            let is_message = request.facts.mcp.is_some();
            if !is_message && !self.wrote(line) && self.policy.has_server(&flow.target) {
                return Err(Undetermined::Server);
            }
            let category = unseen.category;
            if category.is_some_and(|it| !is_message && self.policy.needs_path(&flow.target, it)) {
                return Err(Undetermined::Path);
            }
            let lenient = UnseenPath {
                lenient: true,
                ..unseen
            };
            request.facts.unseen_path = Some(lenient);
            second = self.outcome(line, flow, who)?;
            if second.effect != first.effect {
                return Err(Undetermined::Path);
            }
        }
        if line.presented.as_deref() != Some("none") && self.policy.asks_credentials() {
            let with = self.with_credential(line, flow, who)?;
            let by_this = self.wrote(line);
            let denied = line.reason.as_deref() == Some(Reason::CredentialDenied.code());
            match with.effect == first.effect {
                true => {}
                false if by_this && denied => return Ok([with.clone(), with]),
                false if by_this => {}
                false => return Err(Undetermined::Credentials),
            }
        }
        Ok([first, second])
    }

    /// The outcome of the request with a credential that no rule names.
    fn with_credential(
        &self,
        line: &Recorded<'_>,
        flow: &mut Flow,
        who: &Who,
    ) -> Result<Outcome, Undetermined> {
        let credentials = vec!["not on record".into()];
        if let Some(request) = &mut flow.request {
            request.facts.credentials = credentials;
        }
        let outcome = self.outcome(line, flow, who);
        if let Some(request) = &mut flow.request {
            request.facts.credentials.clear();
        }
        outcome
    }

    /// What happens to a flow: the decision, then what the gate checks before it lets it out.
    fn outcome(
        &self,
        line: &Recorded<'_>,
        flow: &Flow,
        who: &Who,
    ) -> Result<Outcome, Undetermined> {
        let decision = self.policy.decide(&flow.query(who));
        let mut outcome = Outcome::of(&decision, flow);
        // An exception or approval let the flow pass: a fact like any other. None lifts the floor.
        let refuses = decision.would.unwrap_or(decision.verdict) != Verdict::Allow;
        if line.exception.is_some() && refuses && decision.reason != Reason::AddressDenied {
            let reason = line.reason.as_deref().unwrap_or_default();
            if reason == Reason::AddressDenied.code() {
                outcome.refuse(Reason::AddressDenied, None);
                return Ok(outcome);
            }
            // A flow whose way out failed had passed before.
            if line.is_allowed() || is_of_upstream(reason) {
                outcome.effect = Effect {
                    verdict: Verdict::Allow,
                    would: None,
                    inspected: None,
                };
                return Ok(outcome);
            }
        }
        if decision.verdict != Verdict::Allow {
            return Ok(outcome);
        }
        if let Some(request) = &flow.request {
            if request.upgrade && !decision.upgrade {
                outcome.refuse(Reason::ActionDenied, None);
                return Ok(outcome);
            }
            if let Some(age) = &decision.min_age
                && self.is_young(line, age.least)?
            {
                if decision.mode == Mode::Observe {
                    outcome.name(Reason::PackageTooNew, &age.rule);
                    outcome.effect.would = Some(Verdict::Deny);
                } else {
                    outcome.refuse(Reason::PackageTooNew, Some(&age.rule));
                    return Ok(outcome);
                }
            }
        }
        match self.address_refusal(line, flow, &decision) {
            None => {}
            // A denied network is only on record where the tier observes.
            Some((AddressRefusal::Denied(rule), true)) => {
                outcome.name(Reason::Denied, &rule);
                outcome.effect.would = Some(Verdict::Deny);
            }
            Some((AddressRefusal::Denied(rule), false)) => {
                outcome.refuse(Reason::Denied, Some(&rule));
            }
            Some((AddressRefusal::Floor, _)) => outcome.refuse(Reason::AddressDenied, None),
        }
        Ok(outcome)
    }

    /// Whether a package is younger than a rule asks, at the time of the line.
    fn is_young(&self, line: &Recorded<'_>, least: Duration) -> Result<bool, Undetermined> {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let Some(published) = line.published.as_deref() else {
            return match line.reason.as_deref() {
                // Its registry did not tell: so it counts as too young under every such rule.
                Some("package_too_new") => Ok(true),
                _ if line.version.is_none() || self.wrote(line) => Ok(false),
                _ => Err(Undetermined::Age),
            };
        };
        let at = time(&line.timestamp).zip(time(published));
        let (at, published) = at.ok_or(Undetermined::Age)?;
        let age = Duration::try_from(at.duration_since(published));
        Ok(age.map_or(true, |age| age < least))
    }

    /// Why none of the recorded addresses may be dialled, where none may, and whether that is only
    /// observed.
    fn address_refusal(
        &self,
        line: &Recorded<'_>,
        flow: &Flow,
        decision: &Decision,
    ) -> Option<(AddressRefusal, bool)> {
        let guard = Guard::default();
        let port = flow.target.port;
        // The gate's own addresses and listeners are not on record.
        let own = line.reason.as_deref() == Some("address_denied") && self.wrote(line);
        let mut refused = None;
        for address in &line.answers {
            let why = match self.policy.judge_address(decision, *address, port, &guard) {
                Ok(()) if own => AddressRefusal::Floor,
                Ok(()) => return None,
                Err(why) => why,
            };
            let is_dialled = self.policy.lets_dial(decision, *address, port, &guard) && !own;
            let is_denied = matches!(why, AddressRefusal::Denied(_));
            match &refused {
                Some((_, true)) => {}
                Some((AddressRefusal::Denied(_), false)) if !is_dialled => {}
                Some((AddressRefusal::Floor, false)) if !is_dialled && !is_denied => {}
                _ => refused = Some((why, is_dialled)),
            }
        }
        refused
    }
}

impl Judging for Judge<'_> {
    fn judge(&self, line: &Recorded<'_>) -> Judged {
        Judge::judge(self, line)
    }

    fn own(&self, line: &Recorded<'_>, judged: &Judged) -> Option<Judged> {
        self.wrote(line).then(|| judged.clone())
    }
}

/// A change of the verdict, where the record holds enough to say so.
pub(super) fn changed(line: &Recorded<'_>, was: Outcome, now: Outcome) -> Judged {
    // A copy also goes to the path in a field of the request.
    let copies = matches!(line.method.as_deref(), Some("COPY" | "MOVE"));
    let passes_more = now.effect.enforced() < was.effect.enforced();
    if (line.facts.is_some() || copies) && passes_more {
        return Judged::Undetermined(Undetermined::Facts);
    }
    Judged::Changed {
        was: Box::new(was),
        now: Box::new(now),
    }
}

/// What is on record, where a policy decided.
fn recorded(line: &Recorded<'_>) -> Result<Effect, NotJudged> {
    let reason = line.reason.as_deref().unwrap_or_default();
    let verdict = match &*line.verdict {
        // `[identity]` refused, or the gate answered itself: no rule.
        _ if line.rule.as_deref().is_none_or(is_of_the_gate) => {
            return Err(NotJudged::NotDecided);
        }
        "allow" => Verdict::Allow,
        "ask" => Verdict::Ask,
        "deny" => Verdict::Deny,
        _ if reason == Reason::BadPath.code() => Verdict::Deny,
        _ if is_of_upstream(reason) => Verdict::Allow,
        _ => return Err(NotJudged::NotDecided),
    };
    if line.protocol.as_deref() == Some("dns") && reason == Reason::PortDenied.code() {
        return Err(NotJudged::NoPort);
    }
    let would = match line.would.as_deref() {
        Some("ask") => Some(Verdict::Ask),
        Some("deny") => Some(Verdict::Deny),
        _ => None,
    };
    let inspected = match line.tls_mode.as_deref() {
        Some("inspected") => Some(true),
        Some("opaque") => Some(false),
        _ => None,
    };
    let passes = verdict == Verdict::Allow;
    Ok(Effect {
        verdict,
        would: would.filter(|_| passes),
        inspected: inspected.filter(|_| passes && line.is_tunnel()),
    })
}

/// Whether what decided is no rule of a policy: such a flow is not judged.
fn is_of_the_gate(rule: &str) -> bool {
    rule == "tidegate.internal" || rule.starts_with("identity.")
}

/// Whether a flow was let out, and its way out failed.
fn is_of_upstream(reason: &str) -> bool {
    let mut codes = Code::ALL.iter();
    codes.any(|code| code.as_str() == reason && code.blame() == Blame::Upstream)
}

impl Outcome {
    /// The outcome of a decision, before anything but the policy is asked.
    pub fn of(decision: &Decision, flow: &Flow) -> Self {
        let passes = decision.verdict == Verdict::Allow;
        let ends_tls = decision.inspect == Inspect::Yes && !decision.raw;
        Self {
            effect: Effect {
                verdict: decision.verdict,
                would: decision.would,
                inspected: (passes && flow.request.is_none()).then_some(ends_tls),
            },
            reason: decision.reason.code().into(),
            rule: decision.rule.name.clone(),
            location: decision.rule.location.clone(),
        }
    }

    /// Says that it is refused.
    fn refuse(&mut self, reason: Reason, rule: Option<&Named>) {
        match rule {
            Some(rule) => self.name(reason, rule),
            None => self.reason = reason.code().into(),
        }
        self.effect = Effect {
            verdict: Verdict::Deny,
            would: None,
            inspected: None,
        };
    }

    fn name(&mut self, reason: Reason, rule: &Named) {
        self.reason = reason.code().into();
        self.rule = rule.name.clone();
        self.location = rule.location.clone();
    }
}
