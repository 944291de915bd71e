//! The part of a line that tells the decision. Its text is kept: most flows share it with an
//! earlier flow.

use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::policy::{Action, Basis, Category, Mode, TierBasis, Verdict};

use super::json::Object;
use super::line::{FlowFacts, Outcome};

/// The number of kept texts.
const SLOTS: usize = 32;

/// The facts that this part is made from, and no others.
#[derive(PartialEq)]
pub(super) struct Decided<'a> {
    pub(super) outcome: Outcome,
    pub(super) mode: Option<Mode>,
    pub(super) would: Option<Verdict>,
    pub(super) reason: &'static str,
    pub(super) detail: Option<&'a str>,
    pub(super) rule: Option<&'a Arc<str>>,
    pub(super) rule_location: Option<&'a Arc<str>>,
    pub(super) policy_digest: Option<&'a Arc<str>>,
    pub(super) policy_generation: u64,
    pub(super) exceptions: &'a [Arc<str>],
    pub(super) exception: Option<&'a Arc<str>>,
    pub(super) request: Option<Uuid>,
    pub(super) category: Option<Category>,
    pub(super) category_basis: Option<Basis>,
    pub(super) action: Option<Action>,
    pub(super) action_any: bool,
    pub(super) tier: Option<&'a Arc<str>>,
    pub(super) tier_basis: Option<TierBasis>,
}

impl<'a> Decided<'a> {
    /// Returns those facts of a flow.
    pub(super) fn of(facts: &'a FlowFacts) -> Self {
        Self {
            outcome: facts.outcome,
            mode: facts.mode,
            would: facts.would,
            reason: facts.reason,
            detail: facts.detail.as_deref(),
            rule: facts.rule.as_ref(),
            rule_location: facts.rule_location.as_ref(),
            policy_digest: facts.policy_digest.as_ref(),
            policy_generation: facts.policy_generation,
            exceptions: &facts.exceptions,
            exception: facts.exception.as_ref(),
            request: facts.request,
            category: facts.category,
            category_basis: facts.category_basis,
            action: facts.action,
            action_any: facts.action_any,
            tier: facts.tier.as_ref(),
            tier_basis: facts.tier_basis,
        }
    }

    /// Whether other flows are likely to have the same facts.
    fn recurs(&self) -> bool {
        self.detail.is_none() && self.request.is_none()
    }

    /// The slot for the text, by the rule, the tier, the category and the action.
    fn slot(&self) -> usize {
        // The address is enough to spread names over the slots: the facts are compared as well.
        let place = |name: Option<&Arc<str>>| {
            name.map_or(0, |name| Arc::as_ptr(name).cast::<u8>().addr() / 32)
        };
        let category = self.category.map_or(0, |category| 1 + category as usize);
        let action = self.action.map_or(0, |action| 1 + action as usize);
        (place(self.rule) + 7 * place(self.tier) + 3 * category + action) % SLOTS
    }
}

/// The last text of each slot.
#[derive(Debug, Default)]
pub(super) struct DecisionTexts([Mutex<Option<Kept>>; SLOTS]);

/// A text, with a flow that has it.
#[derive(Debug)]
struct Kept {
    flow: Box<FlowFacts>,
    text: Box<[u8]>,
}

impl DecisionTexts {
    /// Adds the part of a flow: a copy of the kept text if that was made from the same facts,
    /// otherwise as `write` makes it.
    pub(super) fn add(
        &self,
        object: &mut Object,
        facts: &FlowFacts,
        write: impl FnOnce(&mut Object, &Decided<'_>),
    ) {
        let decided = Decided::of(facts);
        // No wait for another thread that uses the slot.
        let slot = self.0.get(decided.slot()).filter(|_| decided.recurs());
        let Some(mut slot) = slot.and_then(|slot| slot.try_lock().ok()) else {
            return write(object, &decided);
        };
        match &*slot {
            Some(kept) if Decided::of(&kept.flow) == decided => object.raw(&kept.text),
            _ => {
                let start = object.len();
                write(object, &decided);
                *slot = Some(Kept {
                    flow: Box::new(facts.clone()),
                    text: object.since(start).into(),
                });
            }
        }
    }
}
