//! The flows that one or two policies can tell apart, as parts.
//!
//! A [`Part`] is a set of flows (caller × host × port × request) that each of the policies decides
//! alike. It has a witness, one of its flows. The parts cover every flow, except flows of sessions
//! that are narrowed, of callers that only claim a repository, and requests whose body was not read
//! yet: the policy decides none of those more loosely than the same flow without them.
//!
//! Two policies name their tiers and groups on their own, so a part has the tier and the groups of
//! its caller in each policy. Only callers that evidence can make are in a part: a repository that
//! `[[repository]]` puts in a tier is never in a looser one, nor is a member of a group with a floor.
//!
//! Parts are the leaves of a tree, as regions are: each level splits by one dimension, and only by
//! the rules that can still decide. The reader of the parts leaves out branches that cannot matter.

mod callers;
mod classes;
mod hosts;
mod outcome;
mod same;
mod space;
#[cfg(test)]
mod tests;

pub(super) use outcome::Outcome;
pub use space::Kind;
pub(super) use space::{Part, Selectors, Space};
