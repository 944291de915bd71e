//! Compares the decisions of a policy with recorded ones.

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
    /// Returns the result for the flow of a `decision` line.
    fn judge(&self, line: &Recorded<'_>) -> Judged;

    /// Returns the result under one policy alone, if that policy wrote the line: no change, unless
    /// the line was altered. `judged` is the result of [`Judging::judge`].
    fn own(&self, line: &Recorded<'_>, judged: &Judged) -> Option<Judged>;
}

/// The result of judging a recorded flow again.
#[derive(Clone, Debug)]
pub enum Judged {
    /// The same verdict.
    Same {
        /// Whether the rule or the reason differs.
        by_other_rule: bool,
    },
    /// Another verdict, or another termination of TLS.
    Changed {
        /// The recorded outcome, or that of the first policy.
        was: Box<Outcome>,
        /// The outcome under the policy that judges.
        now: Box<Outcome>,
    },
    /// The record lacks a fact on which the verdict depends.
    Undetermined(Undetermined),
    /// No policy decided.
    NotJudged(NotJudged),
}

/// The outcome of a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Effect {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict of `enforce` mode, if different.
    pub would: Option<Verdict>,
    /// Whether the gate terminates TLS in the tunnel; `None` if not recorded.
    pub inspected: Option<bool>,
}

/// A decision, in the words of records.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Outcome {
    /// The verdict.
    pub effect: Effect,
    /// The reason: a code of the closed list.
    pub reason: Arc<str>,
    /// The rule that decided.
    pub rule: Arc<str>,
    /// The location of the rule; empty for the floor.
    pub location: Arc<str>,
}

/// A fact that is not recorded.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Undetermined {
    /// The age of the package.
    Age,
    /// The credentials of the request.
    Credentials,
    /// All but the strictest of several facts of a request.
    Facts,
    /// The path of the request.
    Path,
    /// The action, if a server reads the path in another way.
    Readings,
    /// Whether the request is for an MCP server at that host.
    Server,
}

/// The reason why there is nothing to judge.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NotJudged {
    /// Refusals that are counted in one line, without further facts.
    Counted,
    /// A DNS query of a jail for a name without a captured port.
    NoPort,
    /// No policy decided: the flow was malformed, unidentified, limited, or ended before.
    NotDecided,
    /// The line names no destination.
    NoTarget,
}

impl Undetermined {
    /// Returns the word for data.
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

    /// Returns a sentence that names the missing fact.
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
    /// Returns the word for data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::NoPort => "no-port",
            Self::NotDecided => "not-decided",
            Self::NoTarget => "no-target",
        }
    }

    /// Returns the reason as a sentence.
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

    /// Returns the verdict of `enforce` mode.
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
    /// Returns a judge for a policy. `digest` is the recorded digest of its configuration.
    pub fn new(policy: &'p Policy, digest: &'p str) -> Self {
        Self { policy, digest }
    }

    /// Whether this policy wrote the line.
    pub fn wrote(&self, line: &Recorded<'_>) -> bool {
        line.digest.as_deref() == Some(self.digest)
    }

    /// Returns the recorded outcome of the flow of a `decision` line, and the outcome under this
    /// policy. Both are the same except for rule and reason.
    ///
    /// # Errors
    ///
    /// The reason why there is nothing to compare: [`Judged::Undetermined`] or
    /// [`Judged::NotJudged`].
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
            // The reason of a flow whose outgoing connection failed is that failure.
            // The result of a request for approval differs from the policy's reason to ask.
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

    /// Returns the outcome, if it is the same under each assumption on unrecorded facts.
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

    /// Returns the outcome of the request with a credential that no rule names.
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

    /// Returns the outcome of a flow: the decision, then the checks of the gate before it connects.
    fn outcome(
        &self,
        line: &Recorded<'_>,
        flow: &Flow,
        who: &Who,
    ) -> Result<Outcome, Undetermined> {
        let decision = self.policy.decide(&flow.query(who));
        let mut outcome = Outcome::of(&decision, flow);
        // An exception or approval let the flow pass, which counts as a fact. Neither lifts the
        // floor.
        let refuses = decision.would.unwrap_or(decision.verdict) != Verdict::Allow;
        if line.exception.is_some() && refuses && decision.reason != Reason::AddressDenied {
            let reason = line.reason.as_deref().unwrap_or_default();
            if reason == Reason::AddressDenied.code() {
                outcome.refuse(Reason::AddressDenied, None);
                return Ok(outcome);
            }
            // A flow whose outgoing connection failed had passed before.
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
            // A denied network is only recorded if the tier observes.
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

    /// Whether a package is younger than a rule requires, at the time of the line.
    fn is_young(&self, line: &Recorded<'_>, least: Duration) -> Result<bool, Undetermined> {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let Some(published) = line.published.as_deref() else {
            return match line.reason.as_deref() {
                // The registry gave no age, so the package is too young under every such rule.
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

    /// Returns the reason if none of the recorded addresses may be dialled, and whether that is
    /// only observed.
    fn address_refusal(
        &self,
        line: &Recorded<'_>,
        flow: &Flow,
        decision: &Decision,
    ) -> Option<(AddressRefusal, bool)> {
        let guard = Guard::default();
        let port = flow.target.port;
        // The gate's own addresses and listeners are not recorded.
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

/// Returns the change of the verdict, if the record has enough facts.
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

/// Returns the recorded outcome, if a policy decided.
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

/// Whether no rule of a policy decided: such a flow is not judged.
fn is_of_the_gate(rule: &str) -> bool {
    rule == "tidegate.internal" || rule.starts_with("identity.") || rule.starts_with("notify.")
}

/// Whether a flow was allowed, and its outgoing connection failed.
fn is_of_upstream(reason: &str) -> bool {
    let mut codes = Code::ALL.iter();
    codes.any(|code| code.as_str() == reason && code.blame() == Blame::Upstream)
}

impl Outcome {
    /// Returns the outcome of a decision, without the later checks.
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

    /// Marks the outcome as refused.
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
