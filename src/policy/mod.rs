//! The policy language: what people write, compiled to one pure decision.
//!
//! **The floor, then an exception, then deny, then ask, then allow, then the tier's default: the
//! first that matches decides.** Nothing else in the program says yes or no.

mod action;
mod catalogue;
mod category;
mod compile;
mod decide;
mod explain;
mod hosts;
mod lint;
mod paths;
pub mod source;
mod trial;
mod verdict;

pub use action::Action;
pub use catalogue::{Catalogue, built_in};
pub use category::Category;
pub use compile::{Facts, Policy, compile};
pub use decide::{Attempt, GroupId, GroupSet, Guard, Query, TierId, Who};
pub use explain::{Explanation, explain};
pub use trial::{TrialFailure, run_trials};
pub use verdict::{Basis, Decision, Mode, Named, Reason, TierBasis, Verdict};
