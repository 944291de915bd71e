//! The rules that apply to a flow, collected in one pass.

use super::exception::Excepted;
use super::floor::AddressFloor;
use super::flow::Flow;
use super::rule::{Fit, Miss, Rule};
use super::verdict::Verdict;

/// The first rule of each kind that matches, and the nearest miss of an allow.
#[derive(Debug, Default)]
pub(super) struct Found<'p> {
    pub(super) floor: AddressFloor,
    pub(super) deny: Option<&'p Rule>,
    /// The deny that matches unless the package is old enough: the one that requires the highest
    /// age.
    pub(super) unless_old: Option<&'p Rule>,
    pub(super) ask: Option<&'p Rule>,
    pub(super) allow: Option<&'p Rule>,
    pub(super) listed_ask: Option<&'p Rule>,
    pub(super) listed_allow: Option<&'p Rule>,
    /// An allow for this caller and destination whose grant satisfies the floor.
    pub(super) lifts: Option<&'p Rule>,
    pub(super) near: Option<Miss>,
    pub(super) excepted: Excepted<'p>,
}

impl<'p> Found<'p> {
    /// Adds a rule; rules with the most specific host come first.
    pub(super) fn consider(&mut self, rule: &'p Rule, flow: &Flow<'_>) {
        let lifts = rule.is_allow() && self.floor.is_lifted_by(&rule.grant.addresses);
        if lifts && self.lifts.is_none() && rule.reaches(flow) {
            self.lifts = Some(rule);
        }
        let slot = match (rule.verdict, rule.is_list) {
            (Verdict::Deny, _) => &mut self.deny,
            (Verdict::Ask, false) => &mut self.ask,
            (Verdict::Ask, true) => &mut self.listed_ask,
            (Verdict::Allow, false) => &mut self.allow,
            (Verdict::Allow, true) => &mut self.listed_allow,
        };
        if slot.is_some() {
            return;
        }
        match rule.fit(flow) {
            Fit::Matches if lifts || !rule.is_allow() => *slot = Some(rule),
            Fit::UnlessOld(age) if self.unless_old.is_none_or(|it| it.min_age() < Some(age)) => {
                self.unless_old = Some(rule);
            }
            Fit::Misses(miss) if rule.is_allow() && miss <= Miss::Request => {
                self.near = Some(self.near.map_or(miss, |near| near.min(miss)));
            }
            Fit::Matches | Fit::UnlessOld(_) | Fit::Misses(_) => {}
        }
    }
}
