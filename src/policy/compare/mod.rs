//! The flows that one or two policies can distinguish, as parts.
//!
//! A [`Part`] is a set of flows (caller × host × port × request) that each of the policies decides
//! in the same way. It has a witness, one of its flows. The parts cover every flow, except flows of
//! narrowed sessions, of callers that only claim a repository, and requests whose body was not read
//! yet: the policy decides none of those more loosely than the same flow without these properties.
//!
//! Two policies have separate names for tiers and groups, so a part has the tier and the groups of
//! its caller in each policy. A part contains only callers that evidence can make: a repository
//! that `[[repository]]` puts in a tier is never in a looser one, nor is a member of a group with a
//! floor.
//!
//! Parts are the leaves of a tree, as regions are: each level splits by one dimension, and only by
//! the rules that can still decide. The visitor of the parts skips branches that cannot matter.

mod callers;
mod classes;
mod hosts;
mod outcome;
mod same;
mod selectors;
mod space;
#[cfg(test)]
mod tests;

pub(super) use outcome::Outcome;
pub(super) use selectors::Selectors;
pub use space::Kind;
pub(super) use space::{Incomplete, Part, Space};
