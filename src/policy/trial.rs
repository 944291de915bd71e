//! Tests that travel with the policy.

use super::compile::Policy;

/// A trial or example that did not hold.
#[derive(Clone, Debug)]
pub struct TrialFailure {}

/// Runs every trial and example.
pub fn run_trials(_policy: &Policy) -> Vec<TrialFailure> {
    todo!()
}
