//! One attempt of one caller, from its first byte to its record.
//!
//! A [`Flow`] collects facts during the stages. It takes its recording permit before any other
//! step, and writes its decision before it acts. It writes its end before the client is answered if
//! the gate refuses or ends the flow, otherwise when it is dropped. So no flow passes unrecorded,
//! and no flow ends without a line.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::{Builder, Uuid};

use crate::clock::Clock;
use crate::dial::{DialContext, DialError, Purpose, Route, Upstream};
use crate::gate::{Asked, Cut, Flows, Gate, Hold, OpenFlow, PassedBy, Place, Snapshot};
use crate::identity::{Caller, CallerKey, Evidence, IdentityError, Presented, Work};
use crate::metrics::{FlowKind, GenerationMetrics};
use crate::name::{Host, Target};
use crate::policy::{
    Attempt, Category, Decision, Query, Reason, RequestFacts, TierId, Verdict, explain,
};
use crate::proxy::accept::admission::{Busy, Seat};
use crate::proxy::dial_failure::{
    denied_detail, no_descriptors, no_route, not_dialled, past_parents,
};
use crate::proxy::refusal::{Code, Refusal};
use crate::record::{Blame, CloseFacts, End, FlowFacts, FlowRecord, Outcome, Permit};

/// The bytes reserved at once for read-ahead.
const HELD_AT_ONCE: usize = 256 * 1024;
/// How long a flow waits until the ledger reserves a part of a budget.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt of one caller to reach one target.
pub(super) struct Flow {
    /// The gate.
    pub(super) gate: Arc<Gate>,
    /// The generation of its start; released when a tunnel is idle.
    snapshot: Option<Arc<Snapshot>>,
    metrics: Arc<GenerationMetrics>,
    /// The facts known so far.
    pub(super) facts: FlowRecord,
    /// The facts that the close line adds.
    pub(super) close: CloseFacts,
    /// The target, once parsed.
    pub(super) target: Option<Target>,
    /// Earlier proxies of the requested tunnel, from `Via`.
    pub(super) via: Option<Box<str>>,
    /// Whether the flow is a tunnel without inspection.
    pub(super) opaque: bool,
    /// Set when the flow was allowed.
    pub(super) open: Option<Arc<OpenFlow>>,
    place: Option<Place>,
    /// The memory for read-ahead.
    hold: Option<Hold>,
    permit: Option<Permit>,
    pub(super) judged: Option<(TierId, Category)>,
    /// Whether it is a fetch of the gate itself for a caller.
    pub(super) is_own: bool,
    refused: Option<Code>,
    settled: bool,
    kind: FlowKind,
    began: Instant,
    /// The process of the flow, if the flow belongs to no call and a command may have left the
    /// process in the background.
    pub(super) left: Option<u32>,
    /// Keeps the client's connection from being ended to make room for another one.
    pub(super) busy: Option<Busy>,
    /// The connection, while it may be ended although its request has begun.
    waiting: Option<Arc<Seat>>,
}

/// An identified caller.
#[derive(Clone)]
pub(super) struct Known {
    /// The evidence of the caller.
    pub(super) presented: Presented,
    /// The caller in the flow's generation.
    pub(super) caller: Arc<Caller>,
    /// The number of revocations at its verification.
    pub(super) epoch: u64,
}

impl Flow {
    /// Begins a flow: takes the permit to record it. `Err` if no permit is free: such a flow does
    /// nothing and is only counted.
    pub(super) async fn begin(
        gate: &Arc<Gate>,
        kind: FlowKind,
        client: IpAddr,
    ) -> Result<Self, FlowRecord> {
        let snapshot = gate.snapshot.load_full();
        // The facts are large: made in their place, and not moved there.
        let mut facts = Box::<FlowFacts>::default();
        facts.flow = new_id(&gate.clock);
        facts.evidence = "none";
        facts.trust = "none";
        facts.policy_digest = Some(snapshot.digest.clone());
        facts.policy_generation = snapshot.generation;
        facts.config_file.clone_from(&snapshot.config_file);
        facts.client_address = Some(client);
        facts.protocol = Some(match kind {
            FlowKind::Connect => "connect",
            FlowKind::Http => "http",
            FlowKind::Captured => "captured",
            FlowKind::Dns => "dns",
        });
        let facts = FlowRecord::from(facts);
        let began = gate.clock.instant();
        let Ok(permit) = gate.recorder.permit().await else {
            gate.metrics.flow_unstarted();
            return Err(facts);
        };
        gate.metrics.flow_began(kind);
        Ok(Self {
            gate: gate.clone(),
            metrics: snapshot.metrics.clone(),
            snapshot: Some(snapshot),
            facts,
            close: CloseFacts::default(),
            target: None,
            via: None,
            opaque: false,
            open: None,
            place: None,
            hold: None,
            permit: Some(permit),
            judged: None,
            is_own: false,
            left: None,
            refused: None,
            settled: false,
            kind,
            began,
            busy: None,
            waiting: None,
        })
    }

    /// Allows the connection to be ended to make room for another one, until [`Flow::resume`]: the
    /// gate waits for a part of a body that the policy needs.
    pub(super) fn wait_for_client(&mut self) {
        self.waiting = self.busy.take().map(Busy::into_seat);
    }

    /// Protects the connection again after the client sent bytes. Returns `Err` if the connection
    /// was ended.
    pub(super) fn resume(&mut self) -> Result<(), Refusal> {
        let Some(seat) = &self.waiting else {
            return Ok(());
        };
        self.busy = Some(seat.begin_request().ok_or_else(evicted)?);
        self.waiting = None;
        Ok(())
    }

    /// The generation of its start; the present one after [`Flow::rest`].
    pub(super) fn snapshot(&self) -> SnapshotRef<'_> {
        match &self.snapshot {
            Some(own) => SnapshotRef::Own(own),
            None => SnapshotRef::Present(self.gate.snapshot.load_full()),
        }
    }

    /// Releases the generation: a tunnel that is idle for days must not keep an old policy in
    /// memory.
    pub(super) fn rest(&mut self) {
        self.snapshot = None;
        self.facts.discard_text();
        if let Some(busy) = &self.busy {
            busy.release_place();
        }
    }

    /// Sets the target.
    pub(super) fn aim(&mut self, target: Target) {
        self.facts.server_address = Some(target.host.text());
        self.facts.server_port = Some(target.port);
        self.target = Some(target);
    }

    /// Sets the caller.
    pub(super) fn identified(&mut self, caller: &Caller) {
        let facts = &mut self.facts;
        facts.user.clone_from(&caller.subject);
        facts.groups = (!caller.groups.is_empty()).then(|| caller.groups.clone());
        facts.repository.clone_from(&caller.repository);
        facts.tier = Some(caller.tier.clone());
        facts.tier_basis = Some(caller.who.tier_basis);
        facts.channel.clone_from(&caller.channel);
        facts.trace_id.clone_from(&caller.labels.trace_id);
        facts.span_id.clone_from(&caller.labels.span_id);
        facts.evidence = caller.evidence.as_str();
        facts.work = Some(caller.work.clone());
        facts.process.clone_from(&caller.process);
        if caller.who.enforced || caller.who.within.is_some() || caller.grounds.is_some() {
            let again = facts.again();
            again.enforced = caller.who.enforced;
            again.within.clone_from(&caller.who.within);
            again.grounds.clone_from(&caller.grounds);
        }
        self.attribute(caller);
        let facts = &self.facts;
        self.gate.metrics.attributed(facts.evidence, facts.trust);
    }

    /// Sets the checked-out branch and commit of the caller's working copy, if the gate can read
    /// them.
    pub(super) async fn note_checkout(&mut self, caller: &Caller) {
        let Some(head) = &caller.head else { return };
        let Some((branch, commit)) = head.now(self.gate.clock.instant()).await else {
            return;
        };
        let work = &caller.work;
        if work.ref_name == branch && work.revision == commit {
            return;
        }
        self.facts.work = Some(Arc::new(Work {
            ref_name: branch,
            revision: commit,
            issued_ref: false,
            ..Work::clone(work)
        }));
    }

    /// Sets the session of a rejected token.
    pub(super) fn not_identified(&mut self, error: &IdentityError) {
        if let IdentityError::Token { session, .. } = error {
            self.facts.session.clone_from(session);
            self.facts.evidence = Evidence::Token.as_str();
        }
    }

    /// Decides the flow, and takes a slot among the open flows if it may pass.
    pub(super) fn judge(
        &mut self,
        known: &Known,
        target: &Target,
        asked: &Asked,
    ) -> Result<Decision, Refusal> {
        self.judge_attempt(known, target, asked.attempt())
    }

    /// Like [`Flow::judge`]; called once for each fact of a flow.
    pub(super) fn judge_attempt(
        &mut self,
        known: &Known,
        target: &Target,
        attempt: Attempt<'_>,
    ) -> Result<Decision, Refusal> {
        let caller = &known.caller;
        let query = Query {
            who: &caller.who,
            target,
            attempt,
        };
        let snapshot = self.snapshot().to_shared();
        let began = self.gate.clock.instant();
        let caller_key = self.caller_key(known);
        let asks = self.asks(&caller_key, true);
        let (decision, approval) = self.gate.decide(&snapshot, &query, &asks);
        let took = began.elapsed();
        self.judged = Some((caller.who.tier, decision.category));
        self.facts.ms.decide = Some(millis(took));
        self.decided(&decision);
        self.facts.exception = approval;
        if let (Some(shadow), Some(who)) = (&snapshot.shadow, &caller.beside) {
            self.note_shadow(&shadow.policy.decide(&Query { who, ..query }));
        }
        self.attribute_judged(caller, &query.attempt);
        let refused = refused(&snapshot, &query, &decision);
        if decision.verdict == Verdict::Ask {
            return refused
                .and(Ok(decision))
                .map_err(|refusal| self.ask(known, &query, refusal));
        }
        refused?;
        if self.place.is_none() {
            self.enter(caller_key)?;
        }
        Ok(decision)
    }

    /// Sets the verdict of the shadow policy: of several facts, the strictest.
    fn note_shadow(&mut self, decision: &Decision) {
        let verdict = decision.would.unwrap_or(decision.verdict);
        let before = self.facts.shadow.as_ref().map(|(before, _)| *before);
        if before.is_none_or(|before| before <= verdict) {
            self.facts.shadow = Some((verdict, decision.rule.name.clone()));
        }
    }

    /// Whether an attempt would pass; records nothing.
    pub(super) fn would_pass(&self, known: &Known, target: &Target, attempt: Attempt<'_>) -> bool {
        let query = Query {
            who: &known.caller.who,
            target,
            attempt,
        };
        let caller = self.caller_key(known);
        let asks = self.asks(&caller, false);
        let (decision, _) = self.gate.decide(&self.snapshot(), &query, &asks);
        decision.verdict == Verdict::Allow
    }

    /// The caller, once the flow has a slot among the open flows.
    pub(super) fn caller(&self) -> Option<&CallerKey> {
        self.place.as_ref().map(Place::caller)
    }

    /// The key by which the caller is counted.
    pub(super) fn caller_key(&self, known: &Known) -> CallerKey {
        let unknown = Ipv4Addr::UNSPECIFIED.into();
        known
            .caller
            .key(self.facts.client_address.unwrap_or(unknown))
    }

    /// Reserves memory for this many read-ahead bytes; `false` if the caller, or all callers
    /// together, hold too much already.
    pub(super) fn holds(&mut self, known: &Known, bytes: usize) -> bool {
        let Some(client) = self.facts.client_address else {
            return false;
        };
        let (all, key) = (&self.gate.held, known.caller.key(client));
        let own = self.hold.get_or_insert_with(|| Hold::new(all, key));
        let missing = bytes.saturating_sub(own.bytes());
        missing == 0 || own.grow(missing.next_multiple_of(HELD_AT_ONCE))
    }

    /// Sets the decision and the facts for the record.
    pub(super) fn note(&mut self, decision: &Decision, request_facts: &Arc<RequestFacts>) {
        self.note_facts(request_facts);
        self.decided(decision);
    }

    /// Sets the facts for the record, without the hashes of credentials.
    pub(super) fn note_facts(&mut self, request_facts: &Arc<RequestFacts>) {
        let noted = if request_facts.credentials.is_empty() {
            request_facts.clone()
        } else {
            Arc::new(RequestFacts {
                credentials: Vec::new(),
                ..RequestFacts::clone(request_facts)
            })
        };
        self.facts.request_facts = Some(noted);
    }

    fn decided(&mut self, decision: &Decision) {
        let facts = &mut self.facts;
        facts.outcome = outcome(decision.verdict);
        facts.mode = Some(decision.mode);
        facts.would = decision.would;
        facts.reason = decision.reason.code();
        facts.rule = Some(decision.rule.name.clone());
        facts.rule_location =
            (!decision.rule.location.is_empty()).then(|| decision.rule.location.clone());
        let exceptions = decision.exceptions.iter();
        facts.exceptions = exceptions.map(|it| it.named.name.clone()).collect();
        facts.category = Some(decision.category);
        facts.category_basis = Some(decision.basis);
        facts.action = decision.action;
        facts.action_any = decision.action.is_none() && decision.verdict == Verdict::Allow;
    }

    fn enter(&mut self, caller: CallerKey) -> Result<(), Refusal> {
        let snapshot = self.snapshot();
        let limits = &snapshot.limits;
        match Flows::enter(&self.gate, caller, limits.flows, limits.flows_per_caller) {
            Ok(place) => {
                self.place = Some(place);
                Ok(())
            }
            Err(_) => Err(Code::TooManyFlows.into()),
        }
    }

    /// Writes the decision; the flow may act only after its decision is in the log. From here on it
    /// is an open flow, decided again when the policy changes.
    pub(super) async fn settle(
        &mut self,
        known: &Known,
        target: &Target,
        asked: Asked,
        decision: &Decision,
    ) -> Result<(), Refusal> {
        self.charge(&asked, decision).await?;
        self.claim_approval().await?;
        if let Some(permit) = &mut self.permit {
            permit
                .decided(&mut self.facts)
                .await
                .map_err(|_| Code::RecordUnavailable)?;
        }
        self.settled = true;
        self.count(0);
        let open = Arc::new(OpenFlow::new(
            self.facts.flow,
            known.presented.clone(),
            target.clone(),
            asked,
            PassedBy {
                approval: self.facts.exception.clone(),
                exceptions: decision.exceptions.clone(),
            },
            decision.category,
            (known.caller.who.tier, self.metrics.clone()),
        ));
        self.gate.exceptions.count_use(&decision.exceptions);
        open.opaque.store(self.opaque, Ordering::Release);
        self.gate
            .flows
            .add(&open, self.facts.policy_generation, &self.gate);
        self.open = Some(open);
        Ok(())
    }

    /// Takes one request from the budget of each exception that allows the flow. An inspected
    /// tunnel takes none: its requests do.
    async fn charge(&self, asked: &Asked, decision: &Decision) -> Result<(), Refusal> {
        if matches!(asked, Asked::Connect) && !self.opaque {
            return Ok(());
        }
        let budgets = decision
            .exceptions
            .iter()
            .filter_map(|it| it.allowance.as_ref());
        for budget in budgets {
            let taken = tokio::time::timeout(BUDGET_TIMEOUT, budget.take_request());
            if !taken.await.unwrap_or(false) {
                let detail = "no request is left of the limit, or the ledger does not answer";
                return Err(Refusal::because(Code::ExceptionSpent, detail));
            }
        }
        Ok(())
    }

    /// Claims an approval for one flow in the ledger, so that no flow of another gate uses it. If it
    /// cannot be claimed, the flow is refused as the policy asks.
    async fn claim_approval(&mut self) -> Result<(), Refusal> {
        let Some(approval) = self.facts.exception.clone() else {
            return Ok(());
        };
        if self.gate.claim_approval(&approval, self.facts.flow).await {
            return Ok(());
        }
        self.facts.exception = None;
        self.facts.outcome = Outcome::Ask;
        let detail = "a flow of another gate used the approval up, or the ledger does not answer";
        Err(Refusal::because(Code::NeedsApproval, detail))
    }

    /// Like [`Flow::settle`], for an answer of the gate itself: there is no open flow that a later
    /// policy could end.
    pub(super) async fn settle_alone(&mut self, known: &Known) -> Result<(), Refusal> {
        self.judged = Some((known.caller.who.tier, Category::Unknown));
        if let Some(permit) = &mut self.permit {
            permit
                .decided(&mut self.facts)
                .await
                .map_err(|_| Code::RecordUnavailable)?;
        }
        self.settled = true;
        self.count(0);
        Ok(())
    }

    /// Marks the flow as refused. [`Flow::recorded`] writes its last line before the client is
    /// answered.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let code = refusal.code;
        self.refused = Some(code);
        if code.blame() == Blame::Policy {
            self.tell_agent(code);
        }
        if !refusal.detail.is_empty() {
            self.facts.detail = Some(refusal.detail.clone());
        }
        if refusal.status() != 0 {
            self.facts.set_status(refusal.status());
        }
        if code.blame() == Blame::Upstream {
            let category = self
                .judged
                .map_or(Category::Unknown, |(_, category)| category);
            self.gate.metrics.upstream_error(code.as_str(), category);
        }
        if self.settled {
            self.close.end = match code.blame() {
                Blame::Upstream => End::Failed,
                Blame::Proxy if code == Code::Idle => End::Closed,
                _ => End::Refused,
            };
            self.close.blame = Some(code.blame());
            self.close.error = Some(refusal.exact.unwrap_or(code.as_str()));
            if refusal.exact.is_some() {
                self.facts.reason = code.as_str();
            }
            return;
        }
        self.facts.reason = code.as_str();
        // A verdict of the policy stays; any other refusal is an error, not a verdict.
        self.facts.outcome = match (code.blame(), self.facts.outcome) {
            (Blame::Policy, Outcome::Ask) => Outcome::Ask,
            (Blame::Policy, _) => Outcome::Deny,
            _ => Outcome::Error,
        };
    }

    /// Writes the last line of a refused flow: its `decision`, or its `close` if the decision
    /// allowed the flow. Called before the client is answered. If the line cannot be written,
    /// returns the refusal for an unavailable log, to be sent instead.
    pub(super) async fn recorded(&mut self, refusal: &Refusal) -> Option<Refusal> {
        self.refused?;
        let permit = self.permit.take()?;
        let recorded = if self.settled {
            self.finish_passed();
            permit.closed_first(&self.facts, &self.close).await
        } else {
            self.finish_refused();
            permit.refused(&self.facts).await
        };
        (recorded.is_err() && refusal.code != Code::RecordUnavailable)
            .then(|| Code::RecordUnavailable.into())
    }

    /// Writes the `close` line of a flow that the gate itself ends. Called before the client's
    /// connection closes. The line of a flow that a client or an origin ended is written when the
    /// flow is dropped.
    pub(super) async fn record_end(&mut self) {
        if !self.settled || !matches!(self.close.blame, Some(Blame::Policy | Blame::Proxy)) {
            return;
        }
        if let Some(permit) = self.permit.take() {
            self.finish_passed();
            // Boxed: most flows are ended by a client or an origin.
            let _ = Box::pin(permit.closed_first(&self.facts, &self.close)).await;
        }
    }

    fn finish_refused(&mut self) {
        self.facts.timings_mut().total = Some(millis(self.began.elapsed()));
        self.count(self.refused.map_or(0, Code::index));
    }

    /// Sets the end of an allowed flow.
    pub(super) fn ended(&mut self, end: End, blame: Option<Blame>, error: Option<&'static str>) {
        self.close.end = end;
        self.close.blame = blame;
        self.close.error = error;
    }

    /// Sets the end of a cut flow.
    pub(super) fn was_cut(&mut self, cut: Cut) {
        let code = match cut {
            Cut::Drain => {
                return self.ended(End::Cancelled, Some(Blame::Proxy), Some("draining"));
            }
            Cut::ExceptionEnded => Code::ExceptionEnded,
            Cut::ExceptionSpent => Code::ExceptionSpent,
            Cut::Revoke => Code::Revoked,
        };
        self.ended(End::Cancelled, Some(Blame::Policy), Some(code.as_str()));
    }

    /// Time since the flow began.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    fn count(&self, reason: usize) {
        let facts = &self.facts;
        if let (Some((shadow, _)), Some(verdict)) = (&facts.shadow, facts.enforced()) {
            self.gate.metrics.shadow_decided(verdict, *shadow);
        }
        let reason = match facts.would {
            Some(_) if reason == 0 => Code::ALL
                .iter()
                .find(|code| code.as_str() == facts.reason)
                .map_or(0, |code| code.index()),
            _ => reason,
        };
        self.metrics.decision(
            facts.outcome,
            facts.mode.unwrap_or_default(),
            facts.category.unwrap_or(Category::Unknown),
            self.judged.map(|(tier, _)| tier),
            reason,
            Duration::from_secs_f64(facts.ms.decide.unwrap_or_default() / 1e3),
        );
    }

    fn finish_passed(&mut self) {
        let age = self.age();
        self.facts.timings_mut().total = Some(millis(age));
        let (mut out, mut back) = (0, 0);
        if let Some(open) = &self.open {
            self.gate.flows.remove(open.id);
            self.close.bytes_out = open.bytes.out.load(Ordering::Relaxed);
            self.close.bytes_in = open.bytes.back.load(Ordering::Relaxed);
            (out, back) = open.unreported();
        }
        if let Some((tier, category)) = self.judged {
            self.metrics.bytes(category, tier, out, back);
            self.metrics.flow_duration(category, age);
        }
        // The error may be more precise than a label of the metric.
        let reason = self.refused.map(Code::as_str).or(self.close.error);
        self.gate.metrics.flow_end(self.close.end, reason);
    }
}

impl Flow {
    /// Resolves the host of a target and checks its addresses, or returns the parents to ask.
    pub(super) async fn find_route(
        &mut self,
        target: &Target,
        decision: &Decision,
    ) -> Result<Route, Refusal> {
        let snapshot = self.snapshot();
        // A look-up queries addresses of both families at once.
        let room = match &target.host {
            Host::Name(_) => snapshot.dialer.descriptors_for(self.caller(), 2),
            Host::Address(_) => snapshot.dialer.descriptors_for(self.caller(), 1),
        };
        let _room = room.ok_or_else(no_descriptors)?;
        let began = self.gate.clock.instant();
        let found = snapshot
            .dialer
            .route(target, decision, &snapshot.policy, &snapshot.guard)
            .await;
        let looked_up = !matches!(&found, Ok(route) if route.addresses.is_empty());
        let named = looked_up && matches!(target.host, Host::Name(_));
        if named {
            let took = began.elapsed();
            self.facts.timings_mut().dns = Some(millis(took));
            self.gate.metrics.dns(took);
        }
        let route = found.map_err(|error| no_route(self, decision, error))?;
        if named {
            self.facts.dns_answers = Some(route.answers.clone());
        }
        self.observe_denied(&route, decision);
        self.facts.parent_proxy = route.parents.first().map(|parent| parent.name().clone());
        Ok(route)
    }

    /// Dials a route for a flow whose decision is written to the log. If the parents cannot be reached
    /// and may be left out, dials the target directly.
    pub(super) async fn dial(
        &mut self,
        mut route: Route,
        decision: &Decision,
    ) -> Result<Upstream, Refusal> {
        let Some(open) = self.open.clone() else {
            return Err(Code::RecordUnavailable.into());
        };
        loop {
            match self.dial_once(&open, &route, decision).await? {
                Ok(upstream) => {
                    self.dialled(&upstream, decision);
                    return Ok(upstream);
                }
                Err(DialError::Parent(error)) if error.leaves_out() && route.falls_back() => {
                    // The new route has no parents, so the loop ends.
                    route = Box::pin(past_parents(self, &route.target, decision)).await?;
                }
                Err(error) => return Err(not_dialled(error)),
            }
        }
    }

    async fn dial_once(
        &self,
        open: &OpenFlow,
        route: &Route,
        decision: &Decision,
    ) -> Result<Result<Upstream, DialError>, Refusal> {
        let snapshot = self.snapshot();
        let via = match &self.via {
            // Only a parent reads the `Via` field of the CONNECT.
            _ if route.parents.is_empty() => String::new(),
            Some(before) => format!("{before}, 1.1 {}", self.gate.pseudonym),
            None => format!("1.1 {}", self.gate.pseudonym),
        };
        let context = DialContext {
            purpose: match open.attempt() {
                Attempt::Request { tls: false, .. }
                    if decision.upstream.is_none() && !self.is_own =>
                {
                    Purpose::Request
                }
                _ => Purpose::Tunnel { via: &via },
            },
            guard: &snapshot.guard,
            metrics: &self.gate.metrics,
            caller: self.caller(),
        };
        // The policy may have changed while the name was resolved or the decision was written.
        tokio::select! {
            biased;
            cut = open.cut() => Err(Refusal::cut(cut)),
            dialled = snapshot.dialer.reach(route, context) => Ok(dialled),
        }
    }

    /// Records the refusal of a route whose addresses are all in a denied network. Such a route exists
    /// only in `observe` mode.
    pub(super) fn observe_denied(&mut self, route: &Route, decision: &Decision) {
        let denied = route.addresses.iter().find_map(|address| {
            let rule = decision.denies(address.ip())?.clone();
            Some((address.ip(), rule))
        });
        if let Some((address, rule)) = denied {
            self.facts.would = Some(Verdict::Deny);
            self.facts.reason = Code::Denied.as_str();
            self.facts.detail = Some(denied_detail(self, address, &rule).into());
        }
    }

    /// Records the dialled address.
    fn dialled(&mut self, upstream: &Upstream, decision: &Decision) {
        let parent = upstream.parent.as_ref();
        let parent = parent.map(|through| through.name().clone());
        self.facts.set_dialled(upstream.address.ip(), parent);
        self.facts.timings_mut().connect = Some(millis(upstream.took));
        self.gate
            .metrics
            .connected(decision.category, upstream.took);
        if let (Some(open), Some(judged)) = (&self.open, upstream.judged()) {
            open.dialled(judged);
        }
    }
}

/// The snapshot of a flow: borrowed if the flow still has it, else the present one.
pub(super) enum SnapshotRef<'f> {
    /// The snapshot of the flow's start.
    Own(&'f Arc<Snapshot>),
    /// The present one.
    Present(Arc<Snapshot>),
}

impl SnapshotRef<'_> {
    /// The snapshot, to keep while the flow changes.
    pub(super) fn to_shared(&self) -> Arc<Snapshot> {
        Arc::clone(self)
    }
}

impl Deref for SnapshotRef<'_> {
    type Target = Arc<Snapshot>;

    fn deref(&self) -> &Arc<Snapshot> {
        match self {
            Self::Own(own) => own,
            Self::Present(present) => present,
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.gate.metrics.flow_ended(self.kind);
        let Some(permit) = self.permit.take() else {
            return;
        };
        if self.settled {
            self.finish_passed();
            permit.closed(&self.facts, &self.close);
            return;
        }
        if self.refused.is_none() {
            self.refuse(&match self.waiting {
                Some(_) => evicted(),
                None => Refusal::because(Code::Draining, "the flow was abandoned"),
            });
        }
        self.finish_refused();
        permit.abandoned(&self.facts);
    }
}

/// The refusal of a flow whose connection made room for another one.
fn evicted() -> Refusal {
    let detail = "its body was waited for, and all connections were taken: ended for a new client";
    Refusal::because(Code::TooManyFlows, detail)
}

/// The refusal of a decision that does not allow the flow, with the operator's reason; without one,
/// with the nearest rule.
fn refused(snapshot: &Snapshot, query: &Query<'_>, decision: &Decision) -> Result<(), Refusal> {
    if decision.verdict == Verdict::Allow {
        return Ok(());
    }
    let unseen = match (decision.reason, query.attempt) {
        (Reason::PackageTooNew, Attempt::Connect) => Some("the age of packages"),
        (Reason::CredentialDenied, Attempt::Connect) => Some("credentials"),
        _ => None,
    };
    let detail = match (&decision.why, unseen) {
        (Some(why), None) => why.to_string(),
        (why, Some(what)) => {
            let why = why
                .as_ref()
                .map(|why| format!("{why}: "))
                .unwrap_or_default();
            format!("{why}{what} cannot be seen in a tunnel that is not inspected")
        }
        (None, None) if decision.reason == Reason::AddressDenied && is_loopback(query.target) => {
            "a loopback address; clients reach it directly with NO_PROXY=127.0.0.1,localhost".into()
        }
        (None, None) => explain(&snapshot.policy, query).nearest,
    };
    let refusal = Refusal::because(decision.reason.into(), detail);
    let Some(contact) = &snapshot.contact else {
        return Err(refusal);
    };
    let tier = snapshot.policy.tier_name(query.who.tier);
    let contact = contact
        .replace("{host}", &query.target.host.to_string())
        .replace("{rule}", &decision.rule.name)
        .replace("{tier}", tier);
    Err(refusal.with_contact(contact))
}

fn is_loopback(target: &Target) -> bool {
    match &target.host {
        Host::Address(address) => address.to_canonical().is_loopback(),
        Host::Name(name) => name.as_str() == "localhost" || name.as_str().ends_with(".localhost"),
    }
}

fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Allow => Outcome::Allow,
        Verdict::Ask => Outcome::Ask,
        Verdict::Deny => Outcome::Deny,
    }
}

/// Returns a new id of version 7: the time of day, then random bits. Unlike [`Uuid::now_v7`] it does
/// not share a counter with other threads, so ids of the same millisecond have no order.
fn new_id(clock: &Clock) -> Uuid {
    let millis = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
    let [_, _, _, _, _, _, random @ ..] = Uuid::new_v4().into_bytes();
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Milliseconds with fractions, for records.
pub(super) fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
