//! The upstream side of a flow: finds and checks its addresses, then dials one of them.
//!
//! Between these steps the flow writes its decision ([`Flow::settle`]).

use std::net::IpAddr;

use crate::dial::{
    DialContext, DialError, NoDescriptor, NoRoute, ParentError, Purpose, Route, Upstream,
};
use crate::gate::{Asked, OpenFlow};
use crate::name::{Host, Target};
use crate::policy::{Decision, Named, Verdict};

use super::flow::{Flow, millis};
use super::refusal::{Code, Refusal};

/// Resolves the host of a target and checks its addresses, or returns the parents to ask.
pub(super) async fn find(
    flow: &mut Flow,
    target: &Target,
    decision: &Decision,
) -> Result<Route, Refusal> {
    let snapshot = flow.snapshot();
    // A look-up queries addresses of both families at once.
    let room = match &target.host {
        Host::Name(_) => snapshot.dialer.descriptors_for(flow.caller(), 2),
        Host::Address(_) => snapshot.dialer.descriptors_for(flow.caller(), 1),
    };
    let _room = room.ok_or_else(no_descriptors)?;
    let began = flow.gate.clock.instant();
    let found = snapshot
        .dialer
        .route(target, decision, &snapshot.policy, &snapshot.guard)
        .await;
    let looked_up = !matches!(&found, Ok(route) if route.addresses.is_empty());
    let named = looked_up && matches!(target.host, Host::Name(_));
    if named {
        let took = began.elapsed();
        flow.facts.ms.dns = Some(millis(took));
        flow.gate.metrics.dns(took);
    }
    let route = found.map_err(|error| no_route(flow, decision, error))?;
    if named {
        flow.facts.dns_answers = Some(route.answers.clone());
    }
    observe_denied(flow, &route, decision);
    flow.facts.parent_proxy = route.parents.first().map(|parent| parent.name().clone());
    Ok(route)
}

/// Dials a route for a flow whose decision is written to the log. If the parents cannot be reached
/// and may be left out, dials the target directly.
pub(super) async fn connect(
    flow: &mut Flow,
    mut route: Route,
    decision: &Decision,
) -> Result<Upstream, Refusal> {
    let Some(open) = flow.open.clone() else {
        return Err(Code::RecordUnavailable.into());
    };
    loop {
        match try_once(flow, &open, &route, decision).await? {
            Ok(upstream) => {
                flow.dialled(&upstream, decision);
                return Ok(upstream);
            }
            Err(DialError::Parent(error)) if error.leaves_out() && route.falls_back() => {
                // The new route has no parents, so this recursion ends.
                route = Box::pin(past_parents(flow, &route.target, decision)).await?;
            }
            Err(error) => return Err(not_dialled(error)),
        }
    }
}

async fn try_once(
    flow: &Flow,
    open: &OpenFlow,
    route: &Route,
    decision: &Decision,
) -> Result<Result<Upstream, DialError>, Refusal> {
    let snapshot = flow.snapshot();
    let via = match &flow.via {
        Some(before) => format!("{before}, 1.1 {}", flow.gate.pseudonym),
        None => format!("1.1 {}", flow.gate.pseudonym),
    };
    let context = DialContext {
        purpose: match open.asked {
            Asked::Request { tls: false, .. } if decision.upstream.is_none() && !flow.is_own => {
                Purpose::Request
            }
            _ => Purpose::Tunnel { via: &via },
        },
        guard: &snapshot.guard,
        metrics: &flow.gate.metrics,
        caller: flow.caller(),
    };
    // The policy may have changed while the name was resolved or the decision was written.
    tokio::select! {
        biased;
        cut = open.cut() => Err(Refusal::cut(cut)),
        dialled = snapshot.dialer.reach(route, context) => Ok(dialled),
    }
}

/// The route of a target without its parents.
async fn past_parents(
    flow: &mut Flow,
    target: &Target,
    decision: &Decision,
) -> Result<Route, Refusal> {
    let snapshot = flow.snapshot();
    let found = snapshot
        .dialer
        .route_direct(target, decision, &snapshot.policy, &snapshot.guard)
        .await;
    let route = found.map_err(|error| no_route(flow, decision, error))?;
    flow.facts.parent_proxy = None;
    flow.facts.dns_answers = Some(route.answers.clone());
    observe_denied(flow, &route, decision);
    Ok(route)
}

/// Records the refusal of a route whose addresses are all in a denied network. Such a route exists
/// only in `observe` mode.
fn observe_denied(flow: &mut Flow, route: &Route, decision: &Decision) {
    let denied = route.addresses.iter().find_map(|address| {
        let rule = decision.denies(address.ip())?.clone();
        Some((address.ip(), rule))
    });
    if let Some((address, rule)) = denied {
        flow.facts.would = Some(Verdict::Deny);
        flow.facts.reason = Code::Denied.as_str();
        flow.facts.detail = Some(denied_detail(flow, address, &rule).into());
    }
}

/// Sets the rule that denies an address, and returns the detail of the refusal.
fn denied_detail(flow: &mut Flow, address: IpAddr, rule: &Named) -> String {
    flow.facts.rule = Some(rule.name.clone());
    flow.facts.rule_location = Some(rule.location.clone());
    format!("resolves to {address}, which rule {} denies", rule.name)
}

/// The refusal of a caller that used up its share of the descriptors.
fn no_descriptors() -> Refusal {
    let detail = "this caller has used up its share of the upstream connections";
    Refusal::because(Code::TooManyFlows, detail)
}

fn not_dialled(error: DialError) -> Refusal {
    match error {
        DialError::Parent(ParentError::NoDescriptor) => no_descriptors(),
        DialError::Parent(error) => Refusal::because(Code::ParentFailed, error.to_string()),
        DialError::Failed(error) if NoDescriptor::is_in(&error) => no_descriptors(),
        DialError::Failed(error) => Refusal::because(Code::ConnectFailed, super::io_reason(&error)),
        DialError::TimedOut => Code::ConnectTimeout.into(),
    }
}

fn no_route(flow: &mut Flow, decision: &Decision, error: NoRoute) -> Refusal {
    match error {
        NoRoute::Denied(answers) => {
            let denied = answers
                .iter()
                .find_map(|it| Some((*it, decision.denies(*it)?.clone())));
            if let Some((address, rule)) = denied {
                flow.facts.dns_answers = Some(answers);
                let detail = denied_detail(flow, address, &rule);
                return Refusal::because(Code::Denied, detail);
            }
            let detail = match answers.first() {
                Some(first) => format!(
                    "resolves to {first}, which no `grant.addresses` of rule {} names",
                    flow.facts.rule.as_deref().unwrap_or("-")
                ),
                None => String::new(),
            };
            flow.facts.dns_answers = Some(answers);
            Refusal::because(
                Code::AddressDenied,
                detail.chars().take(160).collect::<String>(),
            )
        }
        NoRoute::Unresolved(error) => Refusal::because(Code::DnsFailed, error.to_string()),
    }
}

impl Flow {
    /// Records the dialled address.
    fn dialled(&mut self, upstream: &Upstream, decision: &Decision) {
        self.facts.peer_address = Some(upstream.address.ip());
        self.facts.ms.connect = Some(millis(upstream.took));
        self.gate
            .metrics
            .connected(decision.category, upstream.took);
        let parent = upstream.parent.as_ref();
        self.facts.parent_proxy = parent.map(|through| through.name().clone());
        if let (Some(open), Some(judged)) = (&self.open, upstream.judged()) {
            open.dialled(judged);
        }
    }
}
