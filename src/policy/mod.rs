//! The policy language: what people write, compiled to one pure decision.
//!
//! **The floor, then an exception, then deny, then ask, then allow, then the tier's default: the
//! first that matches decides.** Nothing else in the program says yes or no.
//!
//! # What a policy means, where its words alone do not say
//!
//! *Tiers.* `tiers.order` and the `[tier.NAME]` tables name the same tiers. A policy that writes
//! neither has the tiers of the embedded `config/default.toml`; one that writes either has only its
//! own. A repository that several patterns match has the strictest of their tiers; a caller whose
//! repository is not known, or that no pattern matches, starts from `tiers.unattributed`.
//!
//! *Which rule is named.* The verdict comes from the kind alone: deny over ask over allow. Among the
//! matching rules of that kind the one with the most specific host is named: an exact name or
//! address, then the longer suffix or network, then rules without hosts, then the tier's own lists
//! (`tier.NAME.deny`); at a tie the one that was written first. Grants (`addresses`, `raw`,
//! `upgrade`) come from the named rule only; a tier's list grants none. An upgrade is also granted where
//! the catalogue expects it: the WebSocket of a model API.
//!
//! *Category.* A rule with `category` and `hosts` says what those hosts are for, whatever else it
//! says (most specific host first, then first written); else the catalogue, by path where the path
//! is seen, by host where it is not; else `unknown`. A rule with `category` alone selects the flows
//! of that category.
//!
//! *Ports.* An allow or ask that names none means 443 for CONNECT and `https`, 80 for `http`; a list
//! of a tier means the ports of the catalogue's entry, or of the rule that gave the category. A
//! deny that names no port means every port: what is denied is denied there too.
//!
//! *What is not seen.* Inside a tunnel that is not inspected nothing of a request is seen. A deny or
//! ask that asks for it never matches there; an allow that does matches only where the tier says
//! `opaque = "allow"`. A tunnel that is inspected is let in by such an allow and by no such deny or
//! ask: each request is judged. Of a request whose body was not read yet, what only that tells is
//! waited for in the same way; of one that was read whole, what is not known meets no condition.
//!
//! *Inspection.* Among the rules that reach a tunnel, whatever they ask of requests, the one with the
//! most specific host that writes `inspect` decides (`raw = true` writes `false`); then `[inspect]`
//! and the tier.
//!
//! *What an allow forbids.* A tool in `tools.deny` of an allow that matches otherwise is denied by
//! that rule. So is a credential that is not among its `credentials`, unless another allow that
//! matches names it.
//!
//! *MCP.* Messages to a listed server are allowed by rules that name it in `servers` and by lists of
//! their category; messages to any other place only where a rule or the catalogue says that its host
//! is for MCP, by a rule that says so or by lists.
//!
//! *The floor.* Metadata and other never-addresses, and names that mean none, are denied whatever is
//! written. A private address, or a name that only private networks know, needs a matching allow
//! rule with `addresses`; for an address, with that address in them. An IPv4 address in an IPv6
//! wrapping is judged as what it wraps; unless the wrapping is the mapped form (which dials the IPv4
//! address itself), the address as written must be named as well.
//!
//! *Observe.* Would-be refusals pass and say so in `would`, with their reason. They pass without
//! grants, and the floor holds.
//!
//! *Narrowing.* A session may carry less than its repository has: a stricter tier, and the categories
//! and actions it may reach at most. What lies outside is denied behind the floor by
//! `session.narrow`, in observe mode and under an exception too.
//!
//! An exception, when there is one, stands between the floor and deny in [`Policy::decide`].

mod action;
mod addresses;
mod bearing;
mod caller;
mod catalogue;
mod category;
mod clause;
mod compile;
mod conditions;
mod decide;
mod deed;
mod example;
mod explain;
mod glob;
mod host_list;
mod hosts;
mod inspected;
mod lint;
mod passage;
mod paths;
mod pattern;
mod repository;
mod requests;
mod rules;
mod servers;
mod service;
pub mod source;
mod survey;
mod tiers;
mod trial;
mod unseen;
mod verdict;
mod within;

pub use crate::diag::closest as suggest;
pub use action::Action;
pub use caller::{CallerKey, Facts};
pub use catalogue::{Catalogue, built_in};
pub use category::Category;
pub use compile::{Policy, compile, default_source};
pub use decide::{Attempt, GroupId, GroupSet, Guard, Query, TierId, Who};
pub use deed::{Body, Deed, Inspect, McpCall, Seen};
pub use explain::{Explanation, Looked, Stage, explain};
pub use host_list::{BadHost, HostList};
pub use inspected::Names;
pub use repository::canonical_repository;
pub use service::{Element, Listing, Place, Published, Services, names_method};
pub use trial::{Expected, TrialResult, run_trials};
pub use verdict::{Basis, Decision, Mode, Named, Reason, TierBasis, Verdict};
pub use within::Within;

#[cfg(test)]
mod tests;
