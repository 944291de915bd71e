//! The text of the policy in TOML, with spans, before it is compiled.
//!
//! This module uses no `flatten` and no `untagged`: both lose the spans that findings need.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::diag::{Place, Source};

mod size;

pub use size::Size;

/// A part of a file, with the file and its position.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The text of the file; inner spans refer to it.
    pub source: Arc<Source>,
    /// The position of the whole (a table's header line for a table).
    pub span: std::ops::Range<usize>,
    /// The value.
    pub value: T,
}

impl<T> Placed<T> {
    /// Returns the position of the whole.
    pub fn place(&self) -> Place {
        Place::new(&self.source, self.span.clone())
    }

    /// Returns the position of a part.
    pub fn at<U>(&self, part: &Spanned<U>) -> Place {
        Place::new(&self.source, part.span())
    }
}

/// All policy sections, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `[tiers]`; at most one file may have it.
    pub tiers: Option<Placed<Tiers>>,
    /// `[tier.NAME]`.
    pub tier: Vec<(Spanned<String>, Placed<Tier>)>,
    /// `[[repository]]`.
    pub repositories: Vec<Placed<Repository>>,
    /// `[group.NAME]`.
    pub groups: Vec<(Spanned<String>, Placed<Group>)>,
    /// `[[destination]]`.
    pub destinations: Vec<Placed<Destination>>,
    /// `[[rule]]`.
    pub rules: Vec<Placed<Rule>>,
    /// `[[exception]]`.
    pub exceptions: Vec<Placed<Exception>>,
    /// `[[trial]]`.
    pub trials: Vec<Placed<Trial>>,
    /// `[[never]]`.
    pub never: Vec<Placed<Invariant>>,
    /// `[[always]]`.
    pub always: Vec<Placed<Invariant>>,
    /// The destinations of `[inspect]`.
    pub inspect: Option<Placed<Inspect>>,
    /// `[catalogue]`.
    pub catalogue: Option<Placed<CatalogueUse>>,
    /// `[mcp.NAME]`.
    pub mcp: Vec<(Spanned<String>, Placed<Mcp>)>,
    /// The destinations of `[upstream.NAME]`.
    pub upstreams: Vec<(Spanned<String>, Placed<Upstream>)>,
}

/// The inspected destinations, besides those of rules and tiers: the part of `[inspect]` that
/// belongs to the policy.
#[derive(Clone, Debug, Default)]
pub struct Inspect {
    /// Host patterns, as in a rule.
    pub hosts: Vec<Spanned<String>>,
    /// Categories.
    pub categories: Vec<Spanned<String>>,
}

/// `[mcp.NAME]`: an MCP server that rules may name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mcp {
    /// Its endpoint, exactly; https, or http on a loopback address.
    pub url: Spanned<String>,
    /// Tools that every caller may call; `*` any run of characters. `None`: only rules decide.
    pub allow: Option<Vec<Spanned<String>>>,
}

/// The destinations of an `[upstream.NAME]`, besides those of rules that name it.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// Host patterns, as in a rule.
    pub hosts: Vec<Spanned<String>>,
    /// Categories.
    pub categories: Vec<Spanned<String>>,
}

/// `[tiers]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tiers {
    /// From loosest to strictest.
    pub order: Vec<Spanned<String>>,
    /// The tier of callers without a known repository; by default the strictest.
    pub unattributed: Option<Spanned<String>>,
}

/// `[tier.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tier {
    /// The tier that provides every key which is missing here.
    pub extend: Option<Spanned<String>>,
    /// `enforce` (default) or `observe`.
    pub mode: Option<Spanned<String>>,
    /// `deny` (default), `ask` or `allow`.
    pub default: Option<Spanned<String>>,
    /// `category` or `category:action`.
    pub allow: Option<Vec<Spanned<String>>>,
    /// Like `allow`.
    pub ask: Option<Vec<Spanned<String>>>,
    /// Like `allow`.
    pub deny: Option<Vec<Spanned<String>>>,
    /// Whether allows that name an action match flows whose action cannot be seen: `allow`
    /// (default) or `deny`.
    pub opaque: Option<Spanned<String>>,
    /// Whether a tunnel may begin with a `ClientHello` that has an encrypted client hello extension
    /// (RFC 9849): `allow` (default) or `deny`.
    pub ech: Option<Spanned<String>>,
    /// Categories that are inspected; `all` for every one.
    pub inspect: Option<Vec<Spanned<String>>>,
    /// Principals that settle the asks of the tier: `uid:0`, `subject:NAME`, `group:NAME`.
    pub reviewers: Option<Vec<Spanned<String>>>,
    /// The number of reviewers who have to allow: 1 (default) or 2.
    pub approvals: Option<Spanned<i64>>,
    /// Whether a reviewer may not settle a request of its own user (default).
    pub not_oneself: Option<Spanned<bool>>,
    /// The maximum duration of an approval; `8h` by default.
    pub longest_approval: Option<Spanned<String>>,
    /// How long a flow waits for an answer before it is refused; zero by default.
    pub hold: Option<Spanned<String>>,
    /// The program of the operator that reads each request before a person, and its arguments.
    pub first_reader: Option<Vec<Spanned<String>>>,
}

/// `[[repository]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repository {
    /// Clone URLs without scheme, user and `.git`; `*` within a segment, `**` across.
    pub r#match: Words,
    /// The tier of the matching repositories.
    pub tier: Spanned<String>,
}

/// One text, or a list of them.
#[derive(Clone, Debug, Default)]
pub struct Words(pub Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Spanned::<OneOrMany>::deserialize(deserializer)?;
        let span = written.span();
        Ok(Self(match written.into_inner() {
            OneOrMany::One(text) => vec![Spanned::new(span, text)],
            OneOrMany::Many(texts) => texts,
        }))
    }
}

enum OneOrMany {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(OneOrMany::Many(texts))
    }
}

/// `[group.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// `subject:…`, `claim:NAME=VALUE`, `san:…`; `*` at either end matches any run of characters.
    pub members: Vec<Spanned<String>>,
    /// The loosest tier its members may have.
    pub floor: Option<Spanned<String>>,
}

/// `[[rule]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// The name in records, metrics and refusals; unique.
    pub id: Spanned<String>,
    /// `allow`, `ask` or `deny`.
    pub verdict: Spanned<String>,
    /// The callers; empty: all.
    #[serde(default)]
    pub from: From,
    /// The destinations; empty: all.
    #[serde(default)]
    pub to: To,
    /// The requests; empty: all.
    #[serde(default)]
    pub does: Does,
    /// The conditions under which a deny does not match.
    #[serde(default)]
    pub unless: Unless,
    /// What a flow may do besides passing.
    #[serde(default)]
    pub grant: Grant,
    /// The reason, for the reviewer, the record and the refusal.
    pub reason: Option<Spanned<String>>,
    /// Examples that must be allowed.
    #[serde(default)]
    pub allows: Vec<Spanned<String>>,
    /// Examples that must not be allowed.
    #[serde(default)]
    pub denies: Vec<Spanned<String>>,
}

/// `from` of a rule, an exception, a trial or an invariant: the callers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct From {
    /// Empty: all.
    pub tiers: Vec<Spanned<String>>,
    /// Empty: all.
    pub groups: Vec<Spanned<String>>,
    /// The caller's own repository: `github.com/acme/ledger*`; empty: any.
    pub repositories: Vec<Spanned<String>>,
    /// The verified user: `*@acme.example`; empty: any.
    pub subjects: Vec<Spanned<String>>,
}

/// `to`: the destinations.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct To {
    /// Exact names or addresses, networks, or `*.suffix` = the names below it.
    pub hosts: Vec<Spanned<String>>,
    /// The category of the destination.
    pub categories: Vec<Spanned<String>>,
    /// Empty: in a deny every port; otherwise those of the destination, or 443 (80 for plain HTTP).
    pub ports: Vec<Spanned<i64>>,
}

/// `does`: the requests; seen in plain HTTP and in inspected TLS.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Does {
    /// `read`, `write`, `call`.
    pub actions: Vec<Spanned<String>>,
    /// The operations of the service's data file, e.g. `publish`; `*` any run of characters.
    pub operations: Vec<Spanned<String>>,
    /// Repositories at the destination; `*` within a segment, `**` across.
    pub repositories: Vec<Spanned<String>>,
    /// Refs that are pushed; below `refs/heads/` unless they begin with `refs/`.
    pub refs: Vec<Spanned<String>>,
    /// `GET` implies `HEAD`.
    pub methods: Vec<Spanned<String>>,
    /// Segments, `*` one, a trailing `**` the rest.
    pub paths: Vec<Spanned<String>>,
    /// MCP servers, by the names of their `[mcp.NAME]`.
    pub servers: Vec<Spanned<String>>,
    /// Tools of those servers; `*` any run of characters.
    pub tools: Vec<Spanned<String>>,
    /// Methods of MCP, e.g. `tools/*`.
    pub mcp_methods: Vec<Spanned<String>>,
    /// Packages at the destination; `*` any run without `/`.
    pub packages: Vec<Spanned<String>>,
}

/// `unless` of a deny: the deny does not match if all of this holds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Unless {
    /// The version of the package has at least this age, e.g. `7 days`.
    pub min_age: Option<Spanned<String>>,
    /// Every credential of the request is one of these keyed hashes.
    pub credentials: Vec<Spanned<String>>,
}

/// `grant`: what a flow may do besides passing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grant {
    /// Networks of private addresses that may be reached.
    pub addresses: Vec<Spanned<String>>,
    /// Whether bytes that are not TLS may pass in a CONNECT.
    pub raw: Option<Spanned<bool>>,
    /// Whether a request may become another protocol (`Upgrade`, e.g. WebSocket).
    pub upgrade: Option<Spanned<bool>>,
    /// Whether TLS is intercepted, so that each request is judged.
    pub inspect: Option<Spanned<bool>>,
    /// The `[upstream.NAME]` with the settings of TLS with the upstream.
    pub upstream: Option<Spanned<String>>,
}

/// `[[trial]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Trial {
    /// The property that the trial tests.
    pub name: Spanned<String>,
    /// The callers: each tier, with each repository, as each user, in each group alone.
    #[serde(default)]
    pub from: From,
    /// `host:port` (a CONNECT), `[METHOD ]URL`, `PUSH URL REF`, `CLONE URL`, `TOOL URL NAME`.
    #[serde(default)]
    pub allows: Vec<Spanned<String>>,
    /// Like `allows`.
    #[serde(default)]
    pub asks: Vec<Spanned<String>>,
    /// Like `allows`.
    #[serde(default)]
    pub denies: Vec<Spanned<String>>,
    /// The rule that must decide each of them, e.g. `docs` or `tier.restricted.default`.
    pub rule: Option<Spanned<String>>,
}

/// `[[exception]]`: an allow with an owner and an end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Exception {
    /// The name in records.
    pub id: Spanned<String>,
    /// The callers.
    #[serde(default)]
    pub from: From,
    /// The destinations.
    #[serde(default)]
    pub to: To,
    /// The requests.
    #[serde(default)]
    pub does: Does,
    /// The command, for the reviewer.
    pub tool: Option<Spanned<String>>,
    /// The reason.
    pub reason: Spanned<String>,
    /// The principals who take responsibility: one name, or several.
    pub reviewer: Words,
    /// The compensating control.
    pub control: Option<Spanned<String>>,
    /// Bounds that are enforced.
    #[serde(default)]
    pub limit: Limit,
    /// The end.
    pub expires: Spanned<toml::value::Datetime>,
}

/// `limit` of an exception.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limit {
    /// Bytes from clients to the destination, e.g. `50 MiB`.
    pub bytes_out: Option<Spanned<Size>>,
    /// Flows: each uninspected tunnel, and each request that is seen.
    pub requests: Option<Spanned<i64>>,
}

/// `[[never]]` and `[[always]]`: the verdict of the rules on some flows, for any set of rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Invariant {
    /// The name, for the finding if the invariant is broken.
    pub name: Option<Spanned<String>>,
    /// The callers.
    #[serde(default)]
    pub from: From,
    /// The destinations.
    #[serde(default)]
    pub to: To,
    /// The requests.
    #[serde(default)]
    pub does: Does,
    /// The verdict that no flow (`[[never]]`) or each flow (`[[always]]`) has: `allow`, `ask` or
    /// `deny`.
    pub verdict: Spanned<String>,
}

/// `[catalogue]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CatalogueUse {
    /// The agents in use. Destinations that only other agents need have no category.
    pub agents: Vec<Spanned<String>>,
}

/// One file of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CatalogueFile {
    /// The date of the last check of its facts.
    pub dated: String,
    /// Destinations, grouped by the domain whose owner is trusted.
    #[serde(default)]
    pub destination: Vec<Destination>,
}

/// `[[destination]]`: the category of hosts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Destination {
    /// The category.
    pub category: Spanned<String>,
    /// The domain whose owner is trusted; without it, `hosts` are whole names.
    pub domain: Option<Spanned<String>>,
    /// Labels below `domain` (`@` the domain itself, `*` the names below it), or whole names.
    pub hosts: Vec<Spanned<String>>,
    /// Splits by path, for requests that are seen.
    #[serde(default)]
    pub paths: Vec<PathSplit>,
    /// Empty: 443.
    #[serde(default)]
    pub ports: Vec<Spanned<i64>>,
    /// The data file that reads requests there, e.g. `npm`.
    pub service: Option<Spanned<String>>,
    /// The agents that use it; empty: any.
    #[serde(default)]
    pub agents: Vec<String>,
    /// The package ecosystem that it belongs to.
    pub ecosystem: Option<String>,
    /// Whether an agent cannot work without it.
    #[serde(default)]
    pub needed: bool,
    /// A second hop, or a pitfall.
    pub note: Option<String>,
    /// The source of the entry.
    pub source: Option<String>,
    /// The reason, for the reviewer.
    pub reason: Option<String>,
}

impl Destination {
    /// Returns the hosts as rules name them: whole names, and `*.` before names below a domain.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.hosts.iter().map(|host| {
            let host = host.get_ref();
            match (&self.domain, &**host) {
                (None, _) => host.clone(),
                (Some(domain), "@") => domain.get_ref().clone(),
                (Some(domain), label) => format!("{label}.{}", domain.get_ref()),
            }
        })
    }
}

/// One split of a destination by path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PathSplit {
    /// The category of these paths.
    pub category: Spanned<String>,
    /// Segments, `*` one, a trailing `**` the rest.
    pub r#match: Spanned<String>,
    /// Whether a request there may ask for another protocol (a WebSocket of a model API).
    #[serde(default)]
    pub upgrade: bool,
}
