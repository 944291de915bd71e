//! Handles a target that cannot be resolved or dialled: the refusal of the flow, or a route without
//! parents.

use std::net::IpAddr;

use crate::dial::{DialError, NoDescriptor, NoRoute, ParentError, Route};
use crate::name::Target;
use crate::policy::{Decision, Named};

use super::flow::Flow;
use super::refusal::{Code, Refusal};

/// Finds a route to the target without parents, and records its addresses.
pub(super) async fn past_parents(
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
    flow.observe_denied(&route, decision);
    Ok(route)
}

/// Sets the rule that denies an address, and returns the detail of the refusal.
pub(super) fn denied_detail(flow: &mut Flow, address: IpAddr, rule: &Named) -> String {
    flow.facts.rule = Some(rule.name.clone());
    flow.facts.rule_location = Some(rule.location.clone());
    format!("resolves to {address}, which rule {} denies", rule.name)
}

/// The refusal of a caller that used up its share of the descriptors.
pub(super) fn no_descriptors() -> Refusal {
    let detail = "this caller has used up its share of the upstream connections";
    Refusal::because(Code::TooManyFlows, detail)
}

/// The refusal of a flow whose dial failed.
pub(super) fn not_dialled(error: DialError) -> Refusal {
    match error {
        DialError::Parent(ParentError::NoDescriptor) => no_descriptors(),
        DialError::Parent(error) => Refusal::because(Code::ParentFailed, error.to_string()),
        DialError::Failed(error) if NoDescriptor::is_in(&error) => no_descriptors(),
        DialError::Failed(error) => Refusal::because(Code::ConnectFailed, super::io_reason(&error)),
        DialError::TimedOut => Code::ConnectTimeout.into(),
    }
}

/// The refusal of a flow whose target has no address that may be dialled; records the addresses.
pub(super) fn no_route(flow: &mut Flow, decision: &Decision, error: NoRoute) -> Refusal {
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
