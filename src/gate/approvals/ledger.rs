//! Settlements in the ledger: appended before they take effect, and read by every gate.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::gate::Gate;
use crate::identity::CallerKey;
use crate::ledger::{
    Actor, Change, Ledger, LedgerError, Review, ReviewResult, ReviewedCaller, Settled, State,
    StoreError,
};
use crate::policy::Category;
use crate::record::{ApprovalFacts, Event, FlowFacts};

use super::approval::Approval;
use super::request::ClientUser;
use super::settle::{approval_facts, approval_id};
use super::table::{Requests, Table};
use super::{Principal, Request, RequestKey, RequestState, Scope, Settlement, Vote};

/// The state of the ledger, and the time of reading.
pub(super) struct Reading<'s> {
    pub(super) state: &'s State,
    pub(super) now: Timestamp,
    /// Whether approvals count as ended: the ledger has not answered for too long.
    pub(super) is_stale: bool,
    /// The name of this gate in the ledger, if gates of other hosts share the ledger.
    pub(super) instance: Option<&'s str>,
}

/// The changes by one reading.
#[derive(Default)]
pub(super) struct Adopted {
    /// Requests settled elsewhere, each with its approval.
    news: Vec<(Request, Arc<str>)>,
    /// Whether an approval is no longer in force.
    has_ended: bool,
}

impl Gate {
    /// Puts the settlements of the ledger in force, records them, and ends the flows whose approval
    /// ended.
    pub(in crate::gate) fn adopt_settlements(&self) {
        let keeper = &self.exceptions;
        let Some(ledger) = &keeper.ledger else { return };
        let state = ledger.state();
        let now = self.clock.now();
        let adopted = self.requests.adopt(&self.reading(ledger, &state, now));
        for (request, exception) in &adopted.news {
            self.announce_settled(&state, request, exception);
        }
        if !adopted.news.is_empty() {
            self.count_requests();
        }
        if adopted.has_ended {
            self.judge_again();
        }
    }

    /// Returns a view of the ledger at the time `now`, as this gate applies it.
    pub(super) fn reading<'s>(
        &self,
        ledger: &'s Ledger,
        state: &'s State,
        now: Timestamp,
    ) -> Reading<'s> {
        let keeper = &self.exceptions;
        Reading {
            state,
            now,
            is_stale: keeper.is_stale(ledger, now),
            instance: keeper.is_shared.then(|| ledger.instance()),
        }
    }

    /// The votes of the ledger on a request that was filed just now.
    pub(super) fn adopt_votes(&self, request: &Request) {
        let Some(ledger) = &self.exceptions.ledger else {
            return;
        };
        let state = ledger.state();
        let reading = self.reading(ledger, &state, self.clock.now());
        let votes = reading.votes_of(request);
        if !votes.is_empty() {
            self.requests.set_votes(request.id, votes);
        }
    }

    fn announce_settled(&self, state: &State, request: &Request, exception: &Arc<str>) {
        let result = request.state.as_str();
        let by = state.settled.get(&request.id).map(|settled| {
            let revoked = settled.revoked.as_ref();
            revoked.map_or(&settled.by, |revoked| &revoked.by)
        });
        let how = request.state.settlement();
        let scope = how.and_then(|how| how.scope);
        let facts = ApprovalFacts {
            result: Some(result),
            scope: scope.map(|scope| scope.to_string().into()),
            until: how.filter(|_| scope.is_some()).map(|how| how.until),
            exception: (result == "allowed").then(|| exception.clone()),
            reviewers: how.map(|how| how.by.clone()).unwrap_or_default(),
            note: how.and_then(|how| how.note.clone()),
            asker: by.map(crate::gate::exceptions::asker),
            ..approval_facts(request)
        };
        self.recorder
            .event(&Event::ApprovalSettled(Box::new(facts)));
    }

    /// Appends a change to the ledger, if there is one.
    pub(super) async fn append(
        &self,
        principal: &str,
        door: &str,
        change: &Change,
    ) -> Result<(), LedgerError> {
        let Some(ledger) = &self.exceptions.ledger else {
            return Ok(());
        };
        let actor = ledger.actor(principal, door);
        ledger.append(&actor, |_| Ok(change.clone())).await?;
        Ok(())
    }

    /// Writes to the ledger that a flow uses up the approval for one flow that allows it. Returns
    /// whether the flow may pass: not if a flow of another gate was first, or if the ledger does
    /// not answer.
    pub async fn claim_approval(&self, approval: &str, flow: Uuid) -> bool {
        let Some(request) = self.requests.unclaimed(approval, flow) else {
            return true;
        };
        let change = Change::ApprovalUsed { request, flow };
        match self.append("gate", "gate", &change).await {
            Ok(()) => {
                self.requests.set_claim(approval, Some(flow));
                true
            }
            Err(error) => {
                tracing::warn!(%approval, "an approval for one flow is not used: {error}");
                // If the answer was lost, the entry may exist: then the approval stays used.
                if matches!(&error, LedgerError::Store(why) if !is_lost(why)) {
                    self.requests.set_claim(approval, None);
                }
                self.adopt_settlements();
                false
            }
        }
    }

    /// Whether the ledger has an approval of a request that is not revoked.
    pub(super) fn stands_on_ledger(&self, request: Uuid) -> bool {
        let Some(ledger) = &self.exceptions.ledger else {
            return false;
        };
        let (state, now) = (ledger.state(), self.clock.now());
        let settled = state.settled.get(&request);
        settled.is_some_and(|it| it.is_approval() && it.review.until > now)
    }
}

fn is_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Unknown(_))
}

impl Requests {
    /// Applies the settlements of the ledger.
    pub(super) fn adopt(&self, reading: &Reading<'_>) -> Adopted {
        let mut settled: Vec<&Settled> = reading.state.settled.values().map(Arc::as_ref).collect();
        settled.retain(|it| reading.is_for_this_gate(&it.review, &it.by));
        settled.sort_unstable_by_key(|it| it.revision);
        let mut table = self.lock();
        let mut adopted = Adopted::default();
        for settled in &settled {
            table.adopt(settled, reading, &mut adopted);
        }
        table.read = reading.state.revision;
        for request in table.requests.values_mut() {
            if request.state == RequestState::Pending {
                request.votes = reading.votes_of(request);
            }
        }
        let next = table.approvals_of(&settled, reading);
        let in_force: HashSet<&Arc<str>> = next.values().flatten().map(|it| &it.id).collect();
        let mut before = table.approvals.values().flatten();
        adopted.has_ended = before.any(|it| !in_force.contains(&it.id));
        table.approvals = next;
        drop(table);
        if !adopted.news.is_empty() {
            self.wake();
        }
        adopted
    }

    /// The request of an approval that this flow uses up, if the ledger does not have the claim
    /// yet.
    fn unclaimed(&self, approval: &str, flow: Uuid) -> Option<Uuid> {
        let table = self.lock();
        let mut all = table.approvals.values().flatten();
        let approval = all.find(|it| *it.id == *approval)?;
        let is_claimed = approval.is_claimed || approval.used_by != Some(flow);
        (approval.once && !is_claimed).then_some(approval.request)
    }

    /// Sets the flow that used up an approval, as in the ledger.
    fn set_claim(&self, approval: &str, flow: Option<Uuid>) {
        let mut table = self.lock();
        let mut all = table.approvals.values_mut().flatten();
        if let Some(approval) = all.find(|it| *it.id == *approval) {
            approval.used_by = flow;
            approval.is_claimed = flow.is_some();
        }
    }
}

impl Reading<'_> {
    /// Whether a decision applies here: one for an address applies only at the gate that made it.
    fn is_for_this_gate(&self, review: &Review, by: &Actor) -> bool {
        let is_address = matches!(review.caller, ReviewedCaller::Address(_));
        !is_address || self.instance.is_none_or(|own| by.instance == own)
    }

    /// The votes to allow a request: those on a request of another gate too, if the same rule of
    /// the same tier asked the same caller for the same operation.
    pub(super) fn votes_of(&self, request: &Request) -> Vec<Vote> {
        if self.is_stale {
            return Vec::new();
        }
        let in_force =
            self.state.votes.iter().filter(|it| {
                it.review.until > self.now && self.is_for_this_gate(&it.review, &it.by)
            });
        let alike = in_force.filter(|it| is_about(&it.review, request));
        let votes = alike.filter_map(|it| {
            Some(Vote {
                principal: Principal::of(&it.voter),
                scope: it.review.scope.as_deref()?.parse().ok()?,
            })
        });
        votes.collect()
    }
}

/// Whether a decision is about the attempts and the rule of a request.
fn is_about(review: &Review, request: &Request) -> bool {
    let is = |text: &Option<Arc<str>>, name: &str| text.as_deref().unwrap_or_default() == name;
    let facts = &request.facts;
    key_of(review) == request.key
        && is(&facts.tier, &review.tier)
        && is(&facts.rule, &review.rule)
        && facts.category.unwrap_or(Category::Unknown).as_str() == review.category
}

impl Table {
    fn adopt(&mut self, settled: &Settled, reading: &Reading<'_>, adopted: &mut Adopted) {
        let Some(state) = state_of(settled) else {
            return;
        };
        let id = settled.review.request;
        let is_news = if let Some(known) = self.requests.get_mut(&id) {
            take_over(known, &state)
        } else {
            self.learn(settled, &state, reading)
        };
        let Some(request) = self.requests.get(&id).filter(|_| is_news) else {
            return;
        };
        let approval = approval_id(id);
        adopted.news.push((request.clone(), approval.clone()));
        self.settle_the_same(id, &state, &approval, adopted);
    }

    /// Adds a request that was settled at another gate, or before this gate was started. Returns
    /// whether it was added: not if it was removed here before, or has ended.
    fn learn(&mut self, settled: &Settled, state: &RequestState, reading: &Reading<'_>) -> bool {
        let is_new = settled.revision > self.read;
        let is_over = settled.revoked.is_some() || settled.review.until <= reading.now;
        if is_over || !is_new {
            return false;
        }
        let id = settled.review.request;
        let request = request_of(settled, state.clone());
        let is_denied = settled.review.result == ReviewResult::Denied;
        if is_denied && !self.make_room(&request.key.caller) {
            return false;
        }
        self.newest.entry(request.key.clone()).or_insert(id);
        self.requests.insert(id, request);
        true
    }

    /// Settles open requests of the same caller for the same operation, which other gates filed.
    fn settle_the_same(
        &mut self,
        id: Uuid,
        state: &RequestState,
        approval: &Arc<str>,
        adopted: &mut Adopted,
    ) {
        let Some(settled) = self.requests.get(&id) else {
            return;
        };
        if matches!(state, RequestState::Revoked(_)) {
            return;
        }
        let (key, facts) = (settled.key.clone(), settled.facts.clone());
        let same = |it: &&mut Request| {
            it.state == RequestState::Pending
                && it.key == key
                && it.facts.tier == facts.tier
                && it.facts.rule == facts.rule
                && it.facts.category == facts.category
        };
        for request in self.requests.values_mut().filter(same) {
            request.state = state.clone();
            adopted.news.push((request.clone(), approval.clone()));
        }
    }

    /// The approvals in force.
    fn approvals_of(
        &self,
        settled: &[&Settled],
        reading: &Reading<'_>,
    ) -> HashMap<RequestKey, Vec<Approval>> {
        let before: HashMap<&Arc<str>, &Approval> = self
            .approvals
            .values()
            .flatten()
            .map(|it| (&it.id, it))
            .collect();
        let mut next: HashMap<RequestKey, Vec<Approval>> = HashMap::new();
        let in_force = settled
            .iter()
            .filter(|it| !reading.is_stale && it.is_approval() && it.review.until > reading.now);
        for settled in in_force {
            let request = self.requests.get(&settled.review.request);
            let is_allowed = request.is_some_and(|it| matches!(it.state, RequestState::Allowed(_)));
            let Some(mut approval) = approval_of(settled).filter(|_| is_allowed) else {
                continue;
            };
            if let (Some(before), None) = (before.get(&approval.id), approval.used_by) {
                approval.used_by = before.used_by;
            }
            next.entry(approval.key.clone()).or_default().push(approval);
        }
        next
    }
}

/// Updates a request of this gate. Returns whether its state changed.
fn take_over(request: &mut Request, state: &RequestState) -> bool {
    let is_new = match request.state {
        RequestState::Pending | RequestState::TimedOut => true,
        RequestState::Allowed(_) => matches!(state, RequestState::Revoked(_)),
        // The task that settles the request sets its state, or the request was settled here first.
        RequestState::Settling | RequestState::Denied(_) | RequestState::Revoked(_) => false,
    };
    if is_new {
        request.state = state.clone();
    }
    is_new
}

/// A settlement in the form of the ledger.
pub(super) fn review(request: &Request, result: ReviewResult, how: &Settlement) -> Review {
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    let (key, facts) = (&request.key, &request.facts);
    Review {
        request: request.id,
        result,
        caller: match &key.caller {
            CallerKey::Session(session) => ReviewedCaller::Session(session.to_string()),
            CallerKey::Subject(subject) => ReviewedCaller::Subject(subject.to_string()),
            CallerKey::Address(address) => ReviewedCaller::Address(*address),
        },
        host: key.host.to_string(),
        port: key.port,
        operation: key.operation.to_string(),
        tier: text(&facts.tier),
        rule: text(&facts.rule),
        category: facts
            .category
            .unwrap_or(Category::Unknown)
            .as_str()
            .to_owned(),
        policy_digest: text(&facts.policy_digest),
        reviewers: how.by.iter().map(ToString::to_string).collect(),
        until: how.until,
        scope: how.scope.map(|scope| scope.to_string()),
        note: how.note.as_deref().map(str::to_owned),
    }
}

fn key_of(review: &Review) -> RequestKey {
    RequestKey {
        caller: match &review.caller {
            ReviewedCaller::Session(session) => CallerKey::Session(session.as_str().into()),
            ReviewedCaller::Subject(subject) => CallerKey::Subject(subject.as_str().into()),
            ReviewedCaller::Address(address) => CallerKey::Address(*address),
        },
        host: review.host.as_str().into(),
        port: review.port,
        operation: review.operation.as_str().into(),
    }
}

/// The state of a request; `None` for an approval that this version cannot read.
fn state_of(settled: &Settled) -> Option<RequestState> {
    let review = &settled.review;
    if let Some(revoked) = &settled.revoked {
        return Some(RequestState::Revoked(Settlement {
            by: vec![revoked.by.principal.as_str().into()],
            at: revoked.at,
            until: revoked.at,
            scope: None,
            note: (!revoked.reason.is_empty()).then(|| revoked.reason.as_str().into()),
        }));
    }
    let how = Settlement {
        by: review
            .reviewers
            .iter()
            .map(|it| it.as_str().into())
            .collect(),
        at: settled.at,
        until: review.until,
        scope: review.scope.as_deref().and_then(|it| it.parse().ok()),
        note: review.note.as_deref().map(Into::into),
    };
    match review.result {
        ReviewResult::Denied => Some(RequestState::Denied(how)),
        ReviewResult::Allowed => approval_of(settled).map(|_| RequestState::Allowed(how)),
    }
}

/// The approval of an allowed request.
fn approval_of(settled: &Settled) -> Option<Approval> {
    let review = &settled.review;
    let scope: Scope = review.scope.as_deref()?.parse().ok()?;
    Some(Approval {
        id: approval_id(review.request),
        request: review.request,
        key: key_of(review),
        tier: review.tier.as_str().into(),
        rule: review.rule.as_str().into(),
        category: Category::from_word(&review.category)?,
        until: review.until,
        once: scope == Scope::Once,
        used_by: settled.used_by,
        is_claimed: settled.used_by.is_some(),
    })
}

/// A request that was settled at another gate, or before this gate was started.
fn request_of(settled: &Settled, state: RequestState) -> Request {
    let review = &settled.review;
    let key = key_of(review);
    let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    let facts = FlowFacts {
        rule: text(&review.rule),
        tier: text(&review.tier),
        category: Category::from_word(&review.category),
        policy_digest: text(&review.policy_digest),
        session: match &key.caller {
            CallerKey::Session(session) => Some(session.clone()),
            _ => None,
        },
        user: match &key.caller {
            CallerKey::Subject(subject) => Some(subject.clone()),
            _ => None,
        },
        client_address: match &key.caller {
            CallerKey::Address(address) => Some(*address),
            _ => None,
        },
        server_address: Some(review.host.as_str().into()),
        server_port: Some(review.port),
        ..FlowFacts::default()
    };
    Request {
        id: review.request,
        key,
        facts: Arc::new(facts),
        attempt: None,
        client: ClientUser::Unknown,
        command: None,
        reason: None,
        first: settled.at,
        last: settled.at,
        count: 0,
        expires: settled.at,
        state,
        votes: Vec::new(),
    }
}
