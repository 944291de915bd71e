//! The meaning of a policy, and the only place that decides.
//!
//! **Six stages in this order, and the first that matches decides: the floor, exceptions, deny, ask,
//! allow, and the lists of the tier (its ask list, its allow list, its default).** [`Policy::decide_with`]
//! is the only function in the program that decides; [`Policy::decide`] is the same without exceptions.
//! A flow with the verdict `ask` passes after a reviewer approved it, for a time (`gate::approvals`).
//!
//! The keys of a rule are in four groups: `from` (callers), `to` (destinations), `does` (requests) and,
//! in an allow, `grant`. A deny may have `unless`. An empty list matches everything.
//!
//! | term | meaning |
//! |---|---|
//! | flow | a tunnel (CONNECT), a plain request, or a request inside an inspected tunnel |
//! | tier | a set of defaults for callers; each caller has one |
//! | floor | the check that refuses addresses which no configuration opens, and private addresses without a grant |
//! | opaque | of a tunnel: not inspected, so that the gate does not see its requests |
//! | request facts | the action, operation, repository, package, ref and tool of one request, read by the data file of its service |
//!
//! An example. A caller of tier `restricted` sends `POST https://github.com/acme/app/git-receive-pack`
//! inside an inspected tunnel, a push of `main`. The floor does not refuse a public name. The
//! catalogue gives the host the category `source-control`, and the service `github` reads the facts: write,
//! `push`, `acme/app`, `refs/heads/main`. The rule that allows pushes has `does.refs = ["agent/**"]` and does
//! not match; no deny and no ask matches; the tier's `allow` list has `source-control:read`, another
//! action. So the tier's default decides: `deny`, with the reason `action_denied`, because an allow
//! matched everything but the action.
//!
//! | sentence | module |
//! |---|---|
//! | The most specific `[[destination]]` gives a host its category, else the catalogue (by path where the gate sees the path), else the category is `unknown`. Rules select by category and never change it. | `directory`, `label` |
//! | An entry of a tier's list is a rule with `from.tiers`, `to.categories` and `does.actions`. Entries of `deny` are denies like any other; entries of `ask` and `allow` come after all rules. | `compile`, `tiers` |
//! | Where several rules of the deciding stage match, the record names the one with the most specific host (an exact name or address, then the longer suffix or network, then rules without hosts); of equally specific rules, the first in the file. The named rule gives the grants. A path of a destination or catalogue entry with `upgrade` also grants that upgrade, e.g. the WebSocket of a model API. | `index`, `decide` |
//! | The conditions of an allow are compared with the request exactly as the gate forwards it. Those of a deny or ask are compared with each reading that some server is known to make of the request (letter case, a trailing slash, `;parameters`, doubled slashes, `%2F`). | `conditions`, [`Path::readings`](crate::name::Path::readings) |
//! | Where an allow matches the path as written but not as some server may read it, the gate refuses the request (`bad_path`). | `conditions` |
//! | An opaque tunnel does not match a deny or ask with `does`. It matches an allow with `does` if the tier has `opaque = "allow"`. It meets no condition of `unless`. | `conditions`, `rule` |
//! | Until the gate has read the body, conditions on the body count as met for an allow and as unmet for a deny or ask. Then the gate decides the request again. | `conditions` |
//! | An exception is an allow with an end. It comes before the denies, and after the floor and the limits of the session. It has no grants: a private address passes only where an allow for the caller and destination grants it, and denied networks stay denied. An exception with `does` never matches an opaque tunnel. | `exception`, `decide` |
//! | An exception that allows a flow against a `[[never]]` or `[[always]]` is not in force; a policy with such an exception in its files does not load. | `forbidden` |
//! | Only a deny refuses a flow that an allow matches; a condition of another allow never does. A deny does not match where its `unless.min-age` or `unless.credentials` holds; `min-age` does not hold for an unknown age. | `rule` |
//! | A private address, or a name of private networks, has the reason `address_denied` where no allow for this caller and destination grants the address. Otherwise the record and the refusal have the reason of the rules. A deny that matches is always named. | `floor`, `decide` |
//! | A deny of a network also refuses names that resolve to an address in it. | [`Policy::judge_address`] |
//! | A tier with `mode = "observe"` lets flows pass that rules refuse, and records the verdict in `would`. There the gate dials an address in a denied network only if all addresses of the name are denied. The floor and the limits of a session (`session.narrow`) still refuse. | `answer` |
//! | A request with several facts passes if each fact passes. Its grants are the intersection, and the record names the strictest decision. | [`Decision::and`] |
//! | An allow without ports holds for the ports of the destination; without those, for 443, and for plain HTTP also 80 where the rule names the host or the host has no category. A deny without ports holds for every port. | `rule` |
//! | A message to a listed MCP server passes by rules with the server's name in `does.servers`, or by lists with its category. A message to another host passes only if the host's category is `mcp`. | `rule` |
//! | Of the allow rules that match a tunnel and set `grant.inspect`, the one with the most specific host decides whether the gate terminates TLS; without one, `[inspect]` and the tier do. | `inspection` |
//!
//! The gate decides an IPv4 address that is embedded in an IPv6 address as the IPv4 address. Except for
//! the mapped form, with which the system dials the IPv4 address itself, a rule must also grant the IPv6
//! address.
//!
//! The modules, from the bottom up; none imports in a circle. `source` is the text of a policy as typed
//! values. `compile` makes the [`Policy`] of it (`compiled`), of `pattern`, `directory`, `facts`, `flow` and
//! `rule`. `decide` goes through the stages, over the rules that `index` finds, and `answer` makes the
//! [`Decision`]. `explain`, `trial_runner`, `redteam`, `lint` and `reach` report about the same rules.
//! `service` reads requests. `exception` holds the allows with an end, from files or from the ledger.

mod action;
mod answer;
mod asking;
mod caller;
mod catalogue;
mod category;
mod compare;
mod compile;
mod compiled;
mod conditions;
mod decide;
mod difference;
mod directory;
mod example;
mod exception;
mod exception_index;
mod explain;
mod facts;
mod findings;
mod floor;
mod flow;
mod forbidden;
mod found;
mod host_list;
mod index;
mod inspection;
mod invariant;
mod invariant_rule;
mod label;
mod lint;
mod paths;
mod pattern;
mod query;
mod reach;
pub mod redteam;
mod regions;
mod relays;
mod repository;
mod request_example;
mod retest;
mod reviewer;
mod routing;
mod rule;
mod servers;
mod service;
pub mod source;
mod tiers;
mod trial;
mod trial_runner;
mod unlabelled;
mod unseen;
mod verdict;
mod who;
mod within;
mod witness;
mod words;

pub use crate::diag::closest as suggest;
pub use action::Action;
pub use asking::{Asking, LAST_SYSTEM_UID, is_service_user};
pub use caller::{CallerKey, Facts};
pub use catalogue::Catalogue;
pub use category::Category;
pub use compare::Kind as FlowKind;
pub(crate) use compile::choices::choices;
pub use compile::{built_in, compile, default_source};
pub use compiled::Policy;
pub use difference::{
    Change, Difference, MAX_NAMED, QUICK, Relation, Ruling, difference, difference_within,
};
pub use exception::{Exception, Exceptions, InForce};
pub use explain::{Explanation, Looked, Stage, explain, explain_with};
pub use facts::{Body, Inspect, McpCall, RequestFacts, Seen, UnseenPath};
pub use floor::Guard;
pub use forbidden::Forbidden;
pub use host_list::{BadHost, HostList};
pub use inspection::Names;
pub use invariant::invariant_findings;
pub use pattern::{Kind as PatternKind, Pattern, PatternError, TooComplex};
pub use query::{Attempt, GroupId, GroupSet, Query, SessionEvidence, TierId, Who};
pub use reach::{Unenforced, reach_findings};
pub use relays::relay_findings;
pub use repository::canonical_repository;
pub use retest::Retested;
pub use service::{Element, Listing, Place, Published, Services, names_method};
pub use trial::{Expected, TrialResult};
pub use trial_runner::{decide_written, run_trials};
pub use unlabelled::Unlabelled;
pub use verdict::{
    AddressRefusal, Basis, ByException, Decision, DeniedNetwork, MinAge, Mode, Named, Reason,
    TierBasis, Verdict,
};
pub use within::Within;
pub use witness::Witness;
pub use words::Words;

#[cfg(test)]
mod tests;
