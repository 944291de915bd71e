//! Why a verdict: the stages, the rules looked at, the nearest allow.

use super::compile::Policy;
use super::decide::Query;
use super::verdict::Decision;

/// The stages of one decision, for a person.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The answer.
    pub decision: Decision,
    /// `nearest rule docs: host docs.rs`; at most 160 characters; empty where nothing is near.
    pub nearest: String,
}

/// Explains a decision; slower than deciding, and equal to it in its answer.
pub fn explain(_policy: &Policy, _query: &Query<'_>) -> Explanation {
    todo!()
}
