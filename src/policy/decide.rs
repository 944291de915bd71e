//! The decision: total, pure, and without allocation except for its answer.

use std::sync::Arc;

use super::compiled::Policy;
use super::exception::{Exception, InForce};
use super::facts::RequestFacts;
use super::floor::AddressFloor;
use super::flow::Flow;
use super::found::Found;
use super::inspection::Inspection;
use super::label::Label;
use super::query::Query;
use super::rule::Rule;
use super::tiers::Tier;
use super::verdict::Verdict;

/// All facts that decide a flow.
#[derive(Debug)]
pub(super) struct Judgement<'p> {
    pub(super) query: Query<'p>,
    pub(super) tier: &'p Tier,
    pub(super) flow: Flow<'p>,
    pub(super) label: Label<'p>,
    pub(super) inspection: Inspection<'p>,
    pub(super) found: Found<'p>,
}

/// The stage that decides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage<'p> {
    Exception(&'p Arc<Exception>),
    Rule(&'p Rule),
    Default,
    Floor,
    /// The limits of the caller's session.
    Narrowed,
}

impl Policy {
    /// Collects the facts that decide a flow: 1. the category of its destination; 2. whether it is
    /// inspected; 3. every rule that applies to it, in one pass. [`Judgement::stage`] then applies
    /// the order.
    pub(super) fn judge<'p>(
        &'p self,
        query: &Query<'p>,
        request_facts: Option<&'p RequestFacts>,
        live: Option<InForce<'p>>,
    ) -> Judgement<'p> {
        let tier = self.tiers.tier(query.who.tier);
        let (mut flow, label) = self.flow(query, request_facts, tier);
        let inspection = self.inspection(&flow, query);
        flow.inspected = matches!(inspection, Inspection::Yes);
        let mut found = Found {
            floor: AddressFloor::of(&query.target.host),
            ..Found::default()
        };
        self.each_rule(&query.target.host, &flow, |rule| {
            found.consider(rule, &flow);
        });
        if let Some(live) = live {
            found.excepted = live.of(&query.target.host, &flow);
        }
        Judgement {
            query: *query,
            tier,
            flow,
            label,
            inspection,
            found,
        }
    }
}

impl<'p> Judgement<'p> {
    /// Returns the first stage that matches, in the order of a decision.
    pub(super) fn stage(&self) -> Stage<'p> {
        let found = &self.found;
        if let Some(exception) = found.excepted.holds
            && !self.is_floored()
            && !self.is_outside_of_session()
        {
            return Stage::Exception(exception);
        }
        if let Some(deny) = found.deny {
            return Stage::Rule(deny);
        }
        if self.is_floored() {
            return Stage::Floor;
        }
        if self.is_outside_of_session() {
            return Stage::Narrowed;
        }
        let rule = found
            .ask
            .or(found.allow)
            .or(found.listed_ask)
            .or(found.listed_allow);
        match (rule, self.tier.default, found.floor) {
            (Some(rule), ..) => Stage::Rule(rule),
            (None, Verdict::Allow, floor) if !matches!(floor, AddressFloor::Open) => Stage::Floor,
            (None, ..) => Stage::Default,
        }
    }

    /// Whether nothing, not even `observe`, lets the flow pass.
    pub(super) fn is_final(&self) -> bool {
        let outside = self.is_outside_of_session();
        self.is_floored() || outside || matches!(self.stage(), Stage::Floor)
    }

    fn is_floored(&self) -> bool {
        self.found.lifts.is_none() && !matches!(self.found.floor, AddressFloor::Open)
    }

    fn is_outside_of_session(&self) -> bool {
        let within = self.flow.who.within.as_deref();
        within.is_some_and(|within| !self.flow.is_within(within))
    }
}
