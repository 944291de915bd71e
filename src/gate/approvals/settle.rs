//! Files and settles requests: checks the reviewer, and records a settlement before it takes
//! effect.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::process::geteuid;
use uuid::Uuid;

use crate::gate::{Asked, Gate};
use crate::identity::{CallerKey, Presented};
use crate::ledger::{Change, LedgerError, Refused, ReviewResult};
use crate::policy::{Asking, Decision, Query, TierId, Verdict, is_service_user};
use crate::record::{ApprovalFacts, Asker, Event, FlowFacts, RecordUnavailable};

use super::approval::Approval;
use super::first_reader::has_first_reader;
use super::ledger::review;
use super::table::{Turn, expiry};
use super::{
    Attempted, ClientUser, Filed, Filing, Principal, Request, RequestKey, RequestState, Scope,
    Settlement, Vote,
};

/// The decision of a reviewer.
pub(super) struct Verdicts<'a> {
    pub(super) principal: &'a Principal,
    pub(super) asker: &'a Asker,
    pub(super) note: Option<Box<str>>,
}

/// Whether the agent's reason was added to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Explained {
    /// The reason is in the request.
    Added,
    /// The tier has a first reader, which read the request when it was filed.
    Read,
    /// The caller has no such open request.
    Unknown,
}

/// The reason why a request was not settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The request is unknown.
    #[error(
        "there is no such request here: it was settled long ago, or the gate was started again while \
         the request was open, or another gate has it"
    )]
    Unknown,
    /// Another reviewer was first, or the request timed out.
    #[error("the request is settled: it is {0}")]
    Settled(&'static str),
    /// The policy does not name the principal as a reviewer of the tier.
    #[error("`{name}` is no reviewer of tier `{tier}`: `reviewers` in `[tier.{tier}]` names them")]
    NotReviewer {
        /// The principal.
        name: Arc<str>,
        /// The tier.
        tier: Arc<str>,
    },
    /// The reviewer may be the caller of the request.
    #[error("`{0}` may be the one who asks: another reviewer has to allow it (`not-oneself`)")]
    Oneself(Arc<str>),
    /// The reviewer allowed it before; another reviewer has to allow it.
    #[error("`{0}` allowed it already: a second reviewer has to")]
    Twice(Arc<str>),
    /// The session of the request ended.
    #[error("the caller is gone: its session ended or its credential is no longer good")]
    CallerGone,
    /// The policy no longer asks.
    #[error("the policy no longer asks: it would {0}")]
    NoLongerAsked(Verdict),
    /// The policy changed in a part that applies to the request.
    #[error("the policy changed in what this request touches: look at it again, then settle it")]
    Changed,
    /// The scope is longer than the maximum of the tier.
    #[error("the tier lets an approval hold {} s at most (`longest-approval`)", .0.as_secs())]
    TooLong(Duration),
    /// The caller has no session, so the scope `session` does not apply.
    #[error("the caller shows no session: choose `once` or a time")]
    NoSession,
    /// Too many approvals are in force.
    #[error("too many approvals are in force: revoke some")]
    Full,
    /// No approval of the request is in force.
    #[error("no approval of this request is in force")]
    NotInForce,
    /// The settlement cannot be recorded.
    #[error(transparent)]
    Record(#[from] RecordUnavailable),
    /// The ledger did not accept the settlement.
    #[error(transparent)]
    Ledger(LedgerError),
    /// The approval ended at this gate, but the ledger does not have the revocation.
    #[error(
        "the approval ended at this gate, and the ledger does not have that yet: other gates and a \
         restart still have the approval; revoke it again: {0}"
    )]
    EndedHereOnly(LedgerError),
}

impl From<LedgerError> for SettleError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Refused(Refused::SettledBefore { .. }) => Self::Settled("settled"),
            error => Self::Ledger(error),
        }
    }
}

impl Gate {
    /// Files an attempt that the policy asks about: adds it to an open request, or files and
    /// records a new request, with the agent's reason if there is one.
    pub fn file_request(
        self: &Arc<Self>,
        caller: CallerKey,
        query: &Query<'_>,
        (presented, facts): (&Presented, &FlowFacts),
        reason: Option<&str>,
    ) -> Filed {
        let now = self.clock.now();
        let key = RequestKey::new(caller, query.target, &query.attempt);
        // Looked up before the table is locked, and only for a new request: the look-up reads
        // `/proc`.
        let client = if self.requests.would_be_new(&key) {
            ClientUser::of(&presented.channel)
        } else {
            ClientUser::Unknown
        };
        let mut make = |id, key| Request {
            client,
            reason: reason.map(Box::from),
            ..self.new_request(id, key, (query, presented, facts), now)
        };
        let filed = self.requests.file(Filing {
            key,
            at: now,
            request: &mut make,
        });
        if let Filed::New(request) = &filed {
            self.recorder
                .event(&Event::ApprovalRequested(Box::new(approval_facts(request))));
            self.count_requests();
            self.adopt_votes(request);
            self.read_first(request);
            // Wakes the notifiers.
            self.requests.wake();
        }
        filed
    }

    fn new_request(
        &self,
        id: Uuid,
        key: RequestKey,
        (query, presented, facts): (&Query<'_>, &Presented, &FlowFacts),
        now: Timestamp,
    ) -> Request {
        let command = facts.call.as_ref().and_then(|call| {
            let root = facts.root.as_ref().or(facts.session.as_ref())?;
            let snapshot = self.snapshot.load();
            let calls = snapshot.identity.sessions().calls();
            calls.command_of(root, call.id.as_deref()?)
        });
        Request {
            id,
            key,
            facts: Arc::new(facts.clone()),
            attempt: Some(Arc::new(Attempted {
                presented: presented.clone(),
                target: query.target.clone(),
                asked: Asked::of(&query.attempt),
            })),
            client: ClientUser::Unknown,
            command,
            reason: None,
            first: now,
            last: now,
            count: 1,
            expires: expiry(now),
            state: RequestState::Pending,
            votes: Vec::new(),
        }
    }

    /// Sets the agent's reason of an open request of `caller`. In a tier with a first reader the reason
    /// cannot change: the first reader reads each request once, when it is filed.
    pub fn explain_request(&self, id: Uuid, caller: &CallerKey, reason: &str) -> Explained {
        let open = |it: &Request| it.key.caller == *caller && it.state.is_open();
        let Some(request) = self.requests.get(id).filter(open) else {
            return Explained::Unknown;
        };
        if has_first_reader(&self.snapshot.load(), &request) {
            return Explained::Read;
        }
        if self.requests.explain(id, caller, reason) {
            Explained::Added
        } else {
            Explained::Unknown
        }
    }

    /// Allows a request by a reviewer. Returns whether the approval is in force; `false`: another
    /// reviewer has to allow it too.
    pub async fn allow_request(
        &self,
        id: Uuid,
        principal: &Principal,
        asker: &Asker,
        scope: Scope,
        note: Option<Box<str>>,
    ) -> Result<bool, SettleError> {
        let now = self.clock.now();
        let mut turn = self.turn(id, now)?;
        let snapshot = self.snapshot.load_full();
        let tier = still_asked(&snapshot, &mut turn)?;
        let asking = snapshot.policy.asking(tier);
        let named = |who: &Principal| who.named(&snapshot.policy, tier);
        if named(principal).is_none() {
            return Err(not_reviewer(principal, snapshot.policy.tier_name(tier)));
        }
        if asking.not_oneself && may_be_oneself(principal, &turn.request) {
            return Err(SettleError::Oneself(principal.name()));
        }
        check_scope(scope, asking, &turn.request)?;
        let counts = |vote: &Vote| {
            let is_oneself = asking.not_oneself && may_be_oneself(&vote.principal, &turn.request);
            named(&vote.principal).is_some() && !is_oneself
        };
        let ballot = Ballot {
            request: &turn.request,
            asking,
            now,
            vote: Vote {
                principal: principal.clone(),
                scope,
            },
            note: note.clone(),
            counts: &counts,
        };
        if !self.requests.has_room(now) {
            return Err(SettleError::Full);
        }
        let Counted {
            how,
            votes,
            is_enough,
        } = self.count(&ballot, asker).await?;
        let verdicts = Verdicts {
            principal,
            asker,
            note,
        };
        if !is_enough {
            self.record_settled("first_of_two", &turn.request, &how, &verdicts)
                .await?;
            turn.request.votes = votes;
            return Ok(false);
        }
        let recorded = self
            .record_settled("allowed", &turn.request, &how, &verdicts)
            .await;
        if let Err(error) = recorded {
            turn.outcome = self.withdraw_unrecorded(&turn.request, &how).await;
            return Err(error.into());
        }
        let request = turn.request.clone();
        if !self.exceptions.has_ledger() {
            self.requests.approve(approval_of(&request, &how));
        }
        turn.outcome = RequestState::Allowed(how);
        drop(turn);
        // Approvals of the ledger are put in force in the same way as at every other gate.
        self.adopt_settlements();
        self.exceptions_changed();
        self.settled("allowed", &request);
        self.count_requests();
        Ok(true)
    }

    /// Revokes an approval that is in the ledger but not recorded; returns the new state of the
    /// request.
    async fn withdraw_unrecorded(&self, request: &Request, how: &Settlement) -> RequestState {
        if !self.exceptions.has_ledger() {
            return RequestState::Pending;
        }
        let note = "the gate could not put it on record";
        let change = Change::ApprovalRevoked {
            request: request.id,
            note: Some(note.to_owned()),
        };
        if let Err(error) = self.append("gate", "gate", &change).await {
            tracing::error!(request = %request.id, "an approval that is not on record stays in the ledger: {error}");
        }
        RequestState::Revoked(Settlement {
            until: how.at,
            scope: None,
            note: Some(note.into()),
            ..how.clone()
        })
    }

    /// Denies a request by a reviewer: the same attempt is refused without a new request for the
    /// longest approval time of the tier.
    pub async fn deny_request(
        &self,
        id: Uuid,
        principal: &Principal,
        asker: &Asker,
        note: Option<Box<str>>,
    ) -> Result<(), SettleError> {
        let now = self.clock.now();
        let turn = self.turn(id, now)?;
        let max_approval = self.require_reviewer(principal, &turn.request)?;
        let verdicts = Verdicts {
            principal,
            asker,
            note,
        };
        self.deny(turn, &verdicts, max_approval).await
    }

    /// Denies the request of a turn.
    pub(super) async fn deny(
        &self,
        mut turn: Turn<'_>,
        verdicts: &Verdicts<'_>,
        max_approval: Duration,
    ) -> Result<(), SettleError> {
        let now = self.clock.now();
        let how = verdicts.settlement(now, after(now, max_approval));
        // Denials by a first reader stay out of the ledger: an agent could fill it with them.
        if self.exceptions.has_ledger() && !verdicts.principal.is_first_reader {
            self.append_settled(ReviewResult::Denied, &turn.request, &how, verdicts)
                .await?;
            // The denial counts, whether or not it can be recorded.
            turn.outcome = RequestState::Denied(how.clone());
        }
        self.record_settled("denied", &turn.request, &how, verdicts)
            .await?;
        turn.outcome = RequestState::Denied(how);
        self.settled("denied", &turn.request);
        drop(turn);
        self.count_requests();
        Ok(())
    }

    /// Revokes an approval by a reviewer: the approval and the flows that it allowed end at once.
    pub async fn revoke_approval(
        &self,
        id: Uuid,
        principal: &Principal,
        asker: &Asker,
        note: Option<Box<str>>,
    ) -> Result<(), SettleError> {
        let request = self.requests.get(id).ok_or(SettleError::Unknown)?;
        self.require_reviewer(principal, &request)?;
        let on_ledger = self.stands_on_ledger(id);
        if !self.requests.withdraw(id) && !on_ledger {
            return Err(SettleError::NotInForce);
        }
        let now = self.clock.now();
        let verdicts = Verdicts {
            principal,
            asker,
            note,
        };
        let how = verdicts.settlement(now, now);
        self.requests
            .set_state(id, RequestState::Revoked(how.clone()));
        self.judge_again();
        // The approval has ended here, whether or not the revocation can be appended and recorded.
        let appended = if on_ledger {
            self.append_revoked(id, &verdicts).await
        } else {
            Ok(())
        };
        self.record_settled("revoked", &request, &how, &verdicts)
            .await?;
        appended.map_err(SettleError::EndedHereOnly)
    }

    /// Counts a vote to allow a request, and appends the result to the ledger if there is one. The
    /// ledger's other gates may append a vote meanwhile: then the vote is counted again.
    async fn count(&self, ballot: &Ballot<'_>, asker: &Asker) -> Result<Counted, SettleError> {
        let request = ballot.request;
        let twice = || SettleError::Twice(ballot.vote.principal.name());
        let Some(ledger) = &self.exceptions.ledger else {
            return ballot.count(&request.votes).ok_or_else(twice);
        };
        let mut counted = None;
        let actor = ledger.actor(&*ballot.vote.principal.name(), asker.door);
        let appended = ledger.append(&actor, |state| {
            let votes = self.reading(ledger, state, ballot.now).votes_of(request);
            let Some(count) = ballot.count(&votes) else {
                let name = ballot.vote.principal.name().to_string();
                return Err(Refused::VotedBefore(name));
            };
            let change = ballot.change(&count);
            counted = Some(count);
            Ok(change)
        });
        appended.await.map_err(|error| match error {
            LedgerError::Refused(Refused::VotedBefore(_)) => twice(),
            error => error.into(),
        })?;
        counted.ok_or(SettleError::Unknown)
    }

    async fn append_settled(
        &self,
        result: ReviewResult,
        request: &Request,
        how: &Settlement,
        verdicts: &Verdicts<'_>,
    ) -> Result<(), SettleError> {
        let review = Box::new(review(request, result, how));
        let change = Change::RequestSettled { review };
        let (principal, door) = (verdicts.principal.name(), verdicts.asker.door);
        self.append(&principal, door, &change).await?;
        Ok(())
    }

    async fn append_revoked(&self, id: Uuid, verdicts: &Verdicts<'_>) -> Result<(), LedgerError> {
        let change = Change::ApprovalRevoked {
            request: id,
            note: verdicts.note.as_deref().map(str::to_owned),
        };
        let (principal, door) = (verdicts.principal.name(), verdicts.asker.door);
        match self.append(&principal, door, &change).await {
            // Another gate revoked it first.
            Err(LedgerError::Refused(_)) => Ok(()),
            appended => appended,
        }
    }

    /// Times out requests, and ends expired approvals and the flows that they allowed.
    pub fn tend_requests(&self) {
        let now = self.clock.now();
        let expired = self.requests.expire(now);
        for request in &expired {
            let facts = ApprovalFacts {
                result: Some("timed_out"),
                ..approval_facts(request)
            };
            self.recorder
                .event(&Event::ApprovalSettled(Box::new(facts)));
            self.settled("timed_out", request);
        }
        if !expired.is_empty() {
            self.count_requests();
        }
        if self.requests.end_approvals(now) {
            self.judge_again();
        }
    }

    pub(super) fn judge_again(&self) {
        self.flows.judge_again(self, &self.snapshot.load_full());
    }

    pub(super) fn turn(&self, id: Uuid, now: Timestamp) -> Result<Turn<'_>, SettleError> {
        self.requests
            .take_turn(id, now)
            .map_err(|now| now.map_or(SettleError::Unknown, SettleError::Settled))
    }

    /// The maximum approval time of the request's tier, if the principal is one of its reviewers.
    fn require_reviewer(
        &self,
        principal: &Principal,
        request: &Request,
    ) -> Result<Duration, SettleError> {
        let snapshot = self.snapshot.load();
        let name = request.facts.tier.clone().unwrap_or_default();
        let tier = snapshot.policy.tier(&name);
        let named = tier.and_then(|tier| {
            principal.named(&snapshot.policy, tier)?;
            Some(snapshot.policy.asking(tier).max_approval)
        });
        named.ok_or_else(|| not_reviewer(principal, &name))
    }

    async fn record_settled(
        &self,
        result: &'static str,
        request: &Request,
        how: &Settlement,
        verdicts: &Verdicts<'_>,
    ) -> Result<(), RecordUnavailable> {
        let facts = ApprovalFacts {
            result: Some(result),
            scope: how.scope.map(|scope| scope.to_string().into()),
            until: how.scope.map(|_| how.until),
            exception: (result == "allowed").then(|| approval_id(request.id)),
            reviewers: how.by.clone(),
            note: how.note.clone(),
            asker: Some(verdicts.asker.clone()),
            ..approval_facts(request)
        };
        let event = self
            .recorder
            .queue_event(&Event::ApprovalSettled(Box::new(facts)));
        event.written().await
    }

    fn settled(&self, result: &'static str, request: &Request) {
        let took = self.clock.now().duration_since(request.first);
        let took = Duration::try_from(took).unwrap_or_default();
        self.metrics.approval_settled(result, took);
    }

    pub(super) fn count_requests(&self) {
        self.metrics.approvals_pending(self.requests.open());
    }
}

impl Verdicts<'_> {
    /// The settlement by this reviewer alone.
    fn settlement(&self, at: Timestamp, until: Timestamp) -> Settlement {
        Settlement {
            by: vec![self.principal.name()],
            at,
            until,
            scope: None,
            note: self.note.clone(),
        }
    }
}

/// The vote of a reviewer to allow a request.
struct Ballot<'a> {
    request: &'a Request,
    asking: &'a Asking,
    now: Timestamp,
    vote: Vote,
    note: Option<Box<str>>,
    /// Whether an earlier vote still counts: not that of a former reviewer.
    counts: &'a (dyn Fn(&Vote) -> bool + Sync),
}

/// The result of a vote.
struct Counted {
    how: Settlement,
    /// The votes that count, with this one.
    votes: Vec<Vote>,
    /// Whether the request is allowed.
    is_enough: bool,
}

impl Ballot<'_> {
    /// Counts the vote with earlier ones. `None`: the reviewer voted before.
    fn count(&self, before: &[Vote]) -> Option<Counted> {
        // Earlier votes are ignored if a reload has set `approvals = 1` since.
        let is_needed = self.asking.approvals > 1;
        let before = before.iter().filter(|it| is_needed && (self.counts)(it));
        let mut votes: Vec<Vote> = before.cloned().collect();
        let name = self.vote.principal.name();
        if votes.iter().any(|it| it.principal.name() == name) {
            return None;
        }
        votes.push(self.vote.clone());
        let max_approval = self.asking.max_approval;
        let all = votes.iter().map(|vote| vote.scope);
        let scope = all.reduce(|all, scope| all.and(scope, max_approval))?;
        let is_enough = votes.len() >= self.asking.approvals;
        let how = Settlement {
            by: votes.iter().map(|vote| vote.principal.name()).collect(),
            at: self.now,
            until: if is_enough {
                after(self.now, scope.lifetime(max_approval))
            } else {
                self.now
            },
            scope: Some(scope),
            note: self.note.clone(),
        };
        Some(Counted {
            how,
            votes,
            is_enough,
        })
    }

    /// The change of the ledger: the request is settled, or the vote is kept until the request
    /// times out.
    fn change(&self, counted: &Counted) -> Change {
        let of = |how: &Settlement| Box::new(review(self.request, ReviewResult::Allowed, how));
        if counted.is_enough {
            return Change::RequestSettled {
                review: of(&counted.how),
            };
        }
        let how = Settlement {
            by: vec![self.vote.principal.name()],
            until: self.request.expires,
            ..counted.how.clone()
        };
        Change::RequestVoted {
            review: of(&how),
            voter: Box::new(self.vote.principal.voter()),
        }
    }
}

/// The tier of the ask, if the policy still asks for the same reason. If tier, rule or category have
/// changed, the request is updated and not settled.
fn still_asked(
    snapshot: &crate::gate::Snapshot,
    turn: &mut Turn<'_>,
) -> Result<TierId, SettleError> {
    let request = &turn.request;
    let attempted = request.attempt.as_ref().ok_or(SettleError::Unknown)?;
    let caller = snapshot
        .caller(&attempted.presented)
        .ok_or(SettleError::CallerGone)?;
    let query = Query {
        who: &caller.who,
        target: &attempted.target,
        attempt: attempted.asked.attempt(),
    };
    let decision = snapshot.decide(&query);
    if decision.verdict != Verdict::Ask {
        return Err(SettleError::NoLongerAsked(decision.verdict));
    }
    let tier = snapshot.policy.tier_name(caller.who.tier);
    if is_bound(&request.facts, tier, &decision) {
        return Ok(caller.who.tier);
    }
    let mut facts = FlowFacts::clone(&request.facts);
    facts.tier = Some(tier.clone());
    facts.rule = Some(decision.rule.name.clone());
    facts.rule_location = Some(decision.rule.location.clone());
    facts.category = Some(decision.category);
    facts.policy_digest = Some(snapshot.digest.clone());
    facts.policy_generation = snapshot.generation;
    turn.request.facts = Arc::new(facts);
    turn.request.votes.clear();
    Err(SettleError::Changed)
}

/// Whether a reviewer may be the caller: the same verified user, or a user of this host whose
/// processes may be agents.
fn may_be_oneself(principal: &Principal, request: &Request) -> bool {
    match (&principal.subject, principal.uid) {
        (Some(subject), _) => request.facts.user.as_ref() == Some(subject),
        (None, Some(uid)) => {
            let same = match request.client {
                ClientUser::Elsewhere => false,
                ClientUser::Known(client) => client == uid,
                ClientUser::Unknown => geteuid().as_raw() == uid,
            };
            same || !is_service_user(uid)
        }
        (None, None) => true,
    }
}

/// Whether the names in the request are those of the decision.
fn is_bound(facts: &FlowFacts, tier: &Arc<str>, decision: &Decision) -> bool {
    facts.tier.as_ref() == Some(tier)
        && facts.rule.as_ref() == Some(&decision.rule.name)
        && facts.category == Some(decision.category)
}

fn check_scope(scope: Scope, asking: &Asking, request: &Request) -> Result<(), SettleError> {
    let has_session = matches!(request.key.caller, CallerKey::Session(_));
    if scope == Scope::Session && !has_session {
        return Err(SettleError::NoSession);
    }
    if scope.lifetime(asking.max_approval) > asking.max_approval {
        return Err(SettleError::TooLong(asking.max_approval));
    }
    Ok(())
}

fn not_reviewer(principal: &Principal, tier: &Arc<str>) -> SettleError {
    SettleError::NotReviewer {
        name: principal.name(),
        tier: tier.clone(),
    }
}

fn approval_of(request: &Request, how: &Settlement) -> Approval {
    let facts = &request.facts;
    Approval {
        id: approval_id(request.id),
        request: request.id,
        key: request.key.clone(),
        tier: facts.tier.clone().unwrap_or_default(),
        rule: facts.rule.clone().unwrap_or_default(),
        category: facts.category.unwrap_or(crate::policy::Category::Unknown),
        until: how.until,
        once: how.scope == Some(Scope::Once),
        used_by: None,
        is_claimed: true,
    }
}

/// `tidegate.exception.id` of the approval of a request.
pub(in crate::gate) fn approval_id(request: Uuid) -> Arc<str> {
    format!("approval-{request}").into()
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    now.saturating_add(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn approval_facts(request: &Request) -> ApprovalFacts {
    ApprovalFacts {
        request: request.id,
        operation: request.key.operation.clone(),
        flow: request.facts.clone(),
        count: request.count,
        ..ApprovalFacts::default()
    }
}
