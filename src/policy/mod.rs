//! The meaning of a policy, and the only place that decides.
//!
//! **The floor, then an exception, then deny, then ask, then allow, then the tier's own word (its ask
//! list, its allow list, its default): the first that matches decides.** [`Policy::decide_with`] is
//! the only function in the program that decides; [`Policy::decide`] is the same without exceptions.
//! What it asks, a reviewer's approval may let pass for a time (`gate::approvals`).
//!
//! A rule answers four questions: `from` whom, `to` where, `does` what, and what an allow `grant`s
//! besides. A deny may say `unless`. Of each key, an empty list means all.
//!
//! | word | meaning |
//! |---|---|
//! | flow | a tunnel (CONNECT), a plain request, or a request inside an inspected tunnel |
//! | tier | a set of defaults for callers; each caller has one |
//! | floor | the addresses that no configuration opens, and private addresses without a grant |
//! | opaque | a tunnel that is not inspected: its requests are not seen |
//! | request facts | what one request does, as the data file of its service reads it: action, operation, repository, package, ref, tool |
//!
//! An example. A caller of tier `restricted` sends `POST https://github.com/acme/app/git-receive-pack`
//! inside an inspected tunnel, a push of `main`. The floor has nothing against a public name. The
//! catalogue labels the host `source-control`, the service `github` reads the facts: write, `push`,
//! `acme/app`, `refs/heads/main`. The rule that allows pushes has `does.refs = ["agent/**"]` and misses;
//! no deny and no ask matches; the tier's `allow` list has `source-control:read`, which is another
//! action. So the tier's default decides, `deny`, with the reason `action_denied`: an allow came near.
//!
//! | sentence | where |
//! |---|---|
//! | What a host is for comes from the most specific `[[destination]]`, else the catalogue (by path where the path is seen), else it is `unknown`. Rules select by these labels and never change them. | `directory`, `label` |
//! | An entry of a tier's list is a rule with `from.tiers`, `to.categories` and `does.actions`. Entries of `deny` are denies like any other; entries of `ask` and `allow` come after all rules. | `compile`, `tiers` |
//! | Among the rules of the winning kind, a record names the one with the most specific host (an exact name or address, the longer suffix or network, then rules without hosts); at a tie the first written. Grants come from the named rule. An upgrade is also granted where the destination's entry expects it (`upgrade` of a path): the WebSocket of a model API. | `index`, `decide` |
//! | An allow reads narrowly: its conditions hold of the request exactly as it is forwarded. A deny and an ask read widely: they hold of any reading that some server is known to make (letter case, a trailing slash, `;parameters`, doubled slashes, `%2F`). | `conditions`, [`Path::readings`](crate::name::Path::readings) |
//! | Where an allow covers the path as written but not as some server reads it, the path is refused (`bad_path`). | `conditions` |
//! | Inside a tunnel that is not inspected no request is seen: a deny or ask with `does` does not match, an allow with `does` matches where the tier says `opaque = "allow"`, and nothing of `unless` holds. | `conditions`, `rule` |
//! | Until a body is read, its conditions count as met for an allow and as unmet for a deny or an ask. Then the request is decided again. | `conditions` |
//! | An exception is an allow with an end. It stands before the denies, behind the floor and the limits of the session. It grants nothing besides: private addresses pass where an allow for the caller and destination grants them, and denied networks stay denied. One with `does` never opens a tunnel that is not inspected. | `exception`, `decide` |
//! | An exception that lets pass what a `[[never]]` or `[[always]]` forbids does not count: a policy with one in its files does not load. | `forbidden` |
//! | Only a deny forbids. `unless.min-age` and `unless.credentials` say where it does not match; an unknown age does not hold. | `rule` |
//! | A private address, or a name of private networks, is `address_denied` where no allow for this caller and destination grants it. Else the record and the refusal have the rules' own reason. A matching deny is always named. | `floor`, `decide` |
//! | A denied network denies the names that resolve into it. | [`Policy::judge_address`] |
//! | `observe` passes what rules refuse, and records it in `would`; an address in a denied network is dialled there only if each address of the name is denied. It passes neither the floor nor the limits of a session (`session.narrow`). | `answer` |
//! | Several facts of one request must each pass; the grants are the intersection, and the record names the strictest. | [`Decision::and`] |
//! | An allow without ports is for those of the destination; else 443, and 80 for plain HTTP where the rule names the host or nothing labels it. A deny without ports is for every port. | `rule` |
//! | A message to a listed MCP server passes by rules with its name in `does.servers` or lists of its category; a message to another host only where the host's category is `mcp`. | `rule` |
//! | Whether TLS is ended: the rule that reaches the tunnel, says `grant.inspect` and has the most specific host; else `[inspect]` and the tier. | `inspection` |
//!
//! An IPv4 address in an IPv6 wrapping is judged as the address it wraps. Unless the wrapping is the
//! mapped form, which dials the IPv4 address itself, the wrapping must be granted as well.
//!
//! The modules, from the bottom up; none uses another in a circle. `source` holds what was written.
//! `pattern`, `directory`, `facts`, `flow` and `rule` hold what it means, and `compiled` all of it
//! together: the [`Policy`]. `compile` makes one of the other. `decide` takes the order over the rules
//! that the `index` finds, and `answer` makes the [`Decision`]. `explain`, `trial_runner`, `redteam`, `lint` and
//! `reach` report over the same rules. `service` reads requests.
//! `exception` holds the allows with an end, which stand in files or in the ledger.

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
mod repository;
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
