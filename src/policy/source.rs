//! What a policy says in TOML, spans kept; meaning is given by [`super::compile`].
//!
//! No `flatten` and no `untagged` here: both lose the spans that findings need.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Place, Source};

/// Something written in a file, with the file and its extent.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The text it stands in; inner spans point into it.
    pub source: Arc<Source>,
    /// The extent of the whole (a table's header line for a table).
    pub span: std::ops::Range<usize>,
    /// What was written.
    pub value: T,
}

impl<T> Placed<T> {
    /// The place of the whole.
    pub fn place(&self) -> Place {
        Place::new(&self.source, self.span.clone())
    }

    /// The place of a part.
    pub fn at<U>(&self, part: &Spanned<U>) -> Place {
        Place::new(&self.source, part.span())
    }
}

/// All that was written about policy, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `[tiers]`; at most one file may say it.
    pub tiers: Option<Placed<Tiers>>,
    /// `[tier.NAME]`.
    pub tier: Vec<(Spanned<String>, Placed<Tier>)>,
    /// `[[repository]]`.
    pub repositories: Vec<Placed<Repository>>,
    /// `[group.NAME]`.
    pub groups: Vec<(Spanned<String>, Placed<Group>)>,
    /// `[[rule]]`.
    pub rules: Vec<Placed<Rule>>,
    /// `[[trial]]`.
    pub trials: Vec<Placed<Trial>>,
    /// What `[inspect]` says of destinations.
    pub inspect: Option<Placed<Inspect>>,
    /// `[mcp.NAME]`.
    pub mcp: Vec<(Spanned<String>, Placed<Mcp>)>,
    /// What `[upstream.NAME]` says of destinations.
    pub upstreams: Vec<(Spanned<String>, Placed<Upstream>)>,
}

/// Which destinations are inspected, besides those that rules and tiers name: the part of
/// `[inspect]` that is policy.
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
    /// Its endpoint, exactly; https.
    pub url: Spanned<String>,
}

/// Which destinations an `[upstream.NAME]` is for, besides those of rules that name it.
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
    /// The tier of callers without a known repository; the strictest where it is not said.
    pub unattributed: Option<Spanned<String>>,
}

/// `[tier.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tier {
    /// `enforce` (default) or `observe`.
    pub mode: Option<Spanned<String>>,
    /// `deny` (default), `ask` or `allow`.
    pub default: Option<Spanned<String>>,
    /// `category` or `category:action`.
    #[serde(default)]
    pub allow: Vec<Spanned<String>>,
    /// As `allow`.
    #[serde(default)]
    pub ask: Vec<Spanned<String>>,
    /// As `allow`.
    #[serde(default)]
    pub deny: Vec<Spanned<String>>,
    /// Do allows that name an action match flows whose action cannot be seen? `allow` (default) or `deny`.
    pub opaque: Option<Spanned<String>>,
    /// May a tunnel begin with a `ClientHello` that has an encrypted client hello extension (RFC
    /// 9849)? `allow` (default) or `deny`.
    pub ech: Option<Spanned<String>>,
    /// Categories that are inspected; `all` for every one.
    #[serde(default)]
    pub inspect: Vec<Spanned<String>>,
}

/// `[[repository]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repository {
    /// The clone URL without scheme, user and `.git`; `*` within a segment, `**` across.
    pub r#match: Spanned<String>,
    /// The tier of what matches.
    pub tier: Spanned<String>,
}

/// `[group.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// `subject:…`, `claim:NAME=VALUE`, `san:…`; `*` at the end matches any rest.
    #[serde(default)]
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
    /// With `hosts`: assigns the category to them. Without: selects the flows of that category.
    pub category: Option<Spanned<String>>,
    /// None: all.
    #[serde(default)]
    pub tiers: Vec<Spanned<String>>,
    /// None: all.
    #[serde(default)]
    pub groups: Vec<Spanned<String>>,
    /// Exact names or addresses, or `*.suffix` = the names below it.
    #[serde(default)]
    pub hosts: Vec<Spanned<String>>,
    /// None: 443 for CONNECT and https, 80 for http.
    #[serde(default)]
    pub ports: Vec<Spanned<i64>>,
    /// Seen only in plain HTTP or where inspected; `GET` implies `HEAD`.
    #[serde(default)]
    pub methods: Vec<Spanned<String>>,
    /// As `methods`; segments, `*` one, a trailing `**` the rest.
    #[serde(default)]
    pub paths: Vec<Spanned<String>>,
    /// Networks of private addresses that this rule may reach.
    #[serde(default)]
    pub addresses: Vec<Spanned<String>>,
    /// Whether bytes that are not TLS may pass in a CONNECT.
    pub raw: Option<Spanned<bool>>,
    /// Whether a request may become another protocol (`Upgrade`, e.g. WebSocket).
    pub upgrade: Option<Spanned<bool>>,
    /// Whether TLS is ended here, so that each request is judged.
    pub inspect: Option<Spanned<bool>>,
    /// The `[upstream.NAME]` that says how to speak TLS onward.
    pub upstream: Option<Spanned<String>>,
    /// With `hosts`: the service that they speak, e.g. `npm`.
    pub service: Option<Spanned<String>>,
    /// `read`, `write`, `call`.
    #[serde(default)]
    pub actions: Vec<Spanned<String>>,
    /// What is done in the words of services, e.g. `publish`; `*` any run of characters.
    #[serde(default)]
    pub operations: Vec<Spanned<String>>,
    /// Repositories at the destination; `*` within a segment, `**` across.
    #[serde(default)]
    pub repositories: Vec<Spanned<String>>,
    /// Packages at the destination; `*` any run without `/`.
    #[serde(default)]
    pub packages: Vec<Spanned<String>>,
    /// Refs that are pushed; below `refs/heads/` where they do not begin with `refs/`.
    #[serde(default)]
    pub refs: Vec<Spanned<String>>,
    /// MCP servers, by the names of their `[mcp.NAME]`.
    #[serde(default)]
    pub servers: Vec<Spanned<String>>,
    /// Tools of those servers.
    pub tools: Option<Spanned<Tools>>,
    /// Methods of MCP, e.g. `tools/*`.
    #[serde(default)]
    pub mcp_methods: Vec<Spanned<String>>,
    /// The only credentials that may be used there, as keyed hashes.
    #[serde(default)]
    pub credentials: Vec<Spanned<String>>,
    /// How old a version of a package has to be, e.g. `7 d`.
    pub min_age: Option<Spanned<String>>,
    /// Why, for the reviewer and the record.
    pub reason: Option<Spanned<String>>,
    /// Examples that must be allowed.
    #[serde(default)]
    pub allows: Vec<Spanned<String>>,
    /// Examples that must not be allowed.
    #[serde(default)]
    pub denies: Vec<Spanned<String>>,
}

/// `tools` of a rule: names, `*` any run of characters.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tools {
    /// The tools that may be called; none: all that are not denied.
    #[serde(default)]
    pub allow: Vec<Spanned<String>>,
    /// The tools that are denied.
    #[serde(default)]
    pub deny: Vec<Spanned<String>>,
}

/// `[[trial]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Trial {
    /// What it shows.
    pub name: Spanned<String>,
    /// The repository of the caller.
    pub repository: Option<Spanned<String>>,
    /// The tier of the caller, where no repository says it.
    pub tier: Option<Spanned<String>>,
    /// The groups of the caller.
    #[serde(default)]
    pub groups: Vec<Spanned<String>>,
    /// `host:port` (a CONNECT), `[METHOD ]URL`, `PUSH URL REF`, `CLONE URL`, `TOOL URL NAME`.
    #[serde(default)]
    pub allows: Vec<Spanned<String>>,
    /// As `allows`.
    #[serde(default)]
    pub asks: Vec<Spanned<String>>,
    /// As `allows`.
    #[serde(default)]
    pub denies: Vec<Spanned<String>>,
    /// The rule that must decide each of them, e.g. `docs` or `tier.restricted.default`.
    pub rule: Option<Spanned<String>>,
}

/// One file of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CatalogueFile {
    /// The day on which its facts were last checked.
    pub dated: String,
    /// Destinations, grouped by the domain whose owner is trusted.
    #[serde(default)]
    pub destination: Vec<Destination>,
}

/// `[[destination]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Destination {
    /// What it is for.
    pub category: Spanned<String>,
    /// The domain whose owner is trusted.
    pub domain: Spanned<String>,
    /// Labels below `domain`; `@` the domain itself, `*` the names below it.
    pub hosts: Vec<Spanned<String>>,
    /// Splits by path, for requests that are seen.
    #[serde(default)]
    pub paths: Vec<PathSplit>,
    /// None: 443 for CONNECT and https, 80 for http.
    #[serde(default)]
    pub ports: Vec<Spanned<i64>>,
    /// Whose protocol is spoken there, e.g. `npm`.
    pub service: Option<Spanned<String>>,
    /// Which agents use it.
    #[serde(default)]
    pub agents: Vec<String>,
    /// Which package ecosystem it belongs to.
    pub ecosystem: Option<String>,
    /// Whether an agent is stranded without it.
    #[serde(default)]
    pub needed: bool,
    /// A second hop, a trap.
    pub note: Option<String>,
    /// Where we know it from.
    pub source: String,
}

/// One split of a destination by path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PathSplit {
    /// What these paths are for.
    pub category: Spanned<String>,
    /// Segments, `*` one, a trailing `**` the rest.
    pub r#match: Spanned<String>,
    /// Whether a request there may ask for another protocol (a WebSocket of a model API).
    #[serde(default)]
    pub upgrade: bool,
}

/// The sections of [`Policy`], as keys of a file.
pub const SECTIONS: [&str; 7] = [
    "tiers",
    "tier",
    "repository",
    "group",
    "rule",
    "trial",
    "mcp",
];

/// Tables by name, in the order in which they were written.
pub type ByName<T> = BTreeMap<String, T>;
