//! The dimensions of requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cell::{Cell, Name, Operation, Text, distinct, names_operation};
use super::{Point, message};
use crate::name::{Path, Target};
use crate::policy::Action;
use crate::policy::category::Category;
use crate::policy::compiled::Policy;
use crate::policy::conditions::NamedConditions;
use crate::policy::facts::{McpCall, RequestFacts};
use crate::policy::pattern::{Kind, Pattern, TooComplex};
use crate::policy::rule::Rule;

/// The dimensions by which requests are split, in this order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::policy) enum RequestDimension {
    Path,
    Method,
    Action,
    Operation,
    Names(Name),
    Credentials,
}

impl RequestDimension {
    const ALL: [Self; 10] = [
        Self::Path,
        Self::Method,
        Self::Action,
        Self::Operation,
        Self::Names(Name::Repository),
        Self::Names(Name::Package),
        Self::Names(Name::Reference),
        Self::Names(Name::McpMethod),
        Self::Names(Name::Tool),
        Self::Credentials,
    ];

    /// Returns the dimension after this one.
    pub(in crate::policy) fn next(self) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|it| *it == self);
        all.next()
    }

    /// Whether a rule has a condition by which this dimension is split.
    pub(in crate::policy) fn is_in(self, rule: &Rule) -> bool {
        let does = &rule.does;
        let named = |of: fn(&NamedConditions) -> &[Pattern]| {
            let named = does.named.as_deref();
            named.is_some_and(|named| !of(named).is_empty())
        };
        match self {
            Self::Path => !does.paths.is_empty(),
            Self::Method => !does.methods.is_empty(),
            Self::Action => !does.actions.is_empty(),
            Self::Operation => named(|it| &it.operations),
            Self::Names(Name::Repository) => named(|it| &it.repositories),
            Self::Names(Name::Package) => named(|it| &it.packages),
            Self::Names(Name::Reference) => named(|it| &it.refs),
            Self::Names(Name::McpMethod) => named(|it| &it.mcp_methods) || named(|it| &it.tools),
            Self::Names(Name::Tool) => named(|it| &it.tools),
            Self::Credentials => {
                let unless = rule.unless.as_deref();
                unless.is_some_and(|unless| !unless.credentials.is_empty())
            }
        }
    }

    /// Returns the parts of the flows like a witness, as far as some rules of some policies
    /// distinguish them.
    pub(in crate::policy) fn cells(
        self,
        policies: &[&Policy],
        witness: &Point,
        rules: &[&Rule],
    ) -> Result<Vec<Cell>, TooComplex> {
        Ok(match self {
            Self::Path => paths(policies, witness, rules)?,
            Self::Method => methods(rules)?,
            Self::Action => actions(rules),
            Self::Operation => operations(policies, witness, rules)?,
            Self::Names(name) => names(name, witness, rules)?,
            Self::Credentials => credentials(rules),
        })
    }
}

/// Returns no message, one to an unlisted server, and one to each listed server at the destination.
pub(in crate::policy) fn messages(policy: &Policy, target: &Target) -> Vec<Cell> {
    let listed = policy
        .servers
        .all()
        .filter(|server| server.target == *target);
    let listed = listed.filter_map(|server| policy.servers.find(&server.name));
    let calls = [None, Some(McpCall::default())].into_iter();
    let all = calls.chain(listed.map(|id| Some(message(policy, Some(id)))));
    all.map(Cell::Message).collect()
}

/// Returns the parts by the paths of rules, by the splits of the destination, and by the endpoints
/// there. With a single policy, a part has its categories.
fn paths(policies: &[&Policy], witness: &Point, rules: &[&Rule]) -> Result<Vec<Cell>, TooComplex> {
    let target = &witness.target;
    let mut patterns: Vec<Pattern> = Vec::new();
    for policy in policies {
        let splits = policy
            .label(target)
            .entry
            .map_or(&[][..], |entry| &entry.splits);
        let splits = splits.iter();
        patterns.extend(splits.flat_map(|split| split.pattern.patterns().cloned()));
    }
    for rule in rules {
        // A deny does not distinguish the spelling from its readings.
        let skipped = usize::from(!rule.is_allow());
        let paths = rule.does.paths.iter();
        patterns.extend(paths.flat_map(|path| path.patterns().skip(skipped).cloned()));
    }
    let servers = policies.iter().flat_map(|policy| policy.servers.all());
    let servers = servers.filter(|server| server.target == *target);
    patterns.extend(servers.filter_map(|it| Pattern::parse(it.path.path(), Kind::Path).ok()));
    let is_message = is_message(witness);
    let categories = |text: &Text| {
        let [policy] = policies else {
            return None;
        };
        let path = text.witness().unwrap_or("/");
        let path = Path::parse(path.as_bytes()).ok()?;
        let mut categories = policy.path_categories(target, &path);
        if is_message {
            categories.insert(Category::Mcp);
        }
        Some(categories)
    };
    let parts = Text::split(distinct(patterns.into_iter()), false)?.into_iter();
    Ok(parts
        .map(|text| Cell::Path {
            categories: categories(&text),
            text,
        })
        .collect())
}

fn is_message(witness: &Point) -> bool {
    let request = witness.request.as_ref();
    request.is_some_and(|it| it.facts.mcp.is_some())
}

fn methods(rules: &[&Rule]) -> Result<Vec<Cell>, TooComplex> {
    let mut patterns = Vec::new();
    for rule in rules {
        let get = rule
            .does
            .methods
            .iter()
            .any(|it| it.eq_ignore_ascii_case("GET"));
        let named = rule.does.methods.iter().map(|method| &**method);
        for method in named.chain(get.then_some("HEAD")) {
            let Ok(pattern) = Pattern::parse(method, Kind::Word) else {
                continue;
            };
            // `GET` stands for `HEAD` only in this spelling.
            let exact = rule.is_allow() || method == "HEAD";
            patterns.push(if exact { pattern } else { pattern.widened() });
        }
    }
    let parts = Text::split(distinct(patterns.into_iter()), false)?;
    Ok(parts.into_iter().map(Cell::Method).collect())
}

fn actions(rules: &[&Rule]) -> Vec<Cell> {
    if rules.iter().all(|rule| rule.does.actions.is_empty()) {
        return vec![Cell::Any];
    }
    let known = Action::ALL.into_iter().map(Some);
    known.chain([None]).map(Cell::Action).collect()
}

/// Returns one part for each set of rules that match an operation, among those of the service and
/// others.
fn operations(
    policies: &[&Policy],
    witness: &Point,
    rules: &[&Rule],
) -> Result<Vec<Cell>, TooComplex> {
    let named = rules.iter().filter_map(|rule| rule.does.named.as_deref());
    let patterns = distinct(named.flat_map(|named| &named.operations).cloned());
    if patterns.is_empty() {
        return Ok(vec![Cell::Any]);
    }
    let fact = |operation: &str, words: &Option<Arc<_>>| RequestFacts {
        operation: Some(operation.into()),
        words: words.clone(),
        ..RequestFacts::default()
    };
    let mut facts: Vec<RequestFacts> = Vec::new();
    for policy in policies {
        let services = &policy.catalogue.services;
        let path = witness.request.as_ref().map(|request| &request.path);
        let service = path.and_then(|path| policy.reader_of(&witness.target, path));
        let Some(service) = service else {
            continue;
        };
        let words = services.words(service).cloned().map(Arc::new);
        facts.extend(services.operations(service).map(|word| fact(word, &words)));
    }
    facts.push(RequestFacts::default());
    let other = Text::split(patterns.clone(), false)?;
    facts.extend(
        other
            .iter()
            .filter_map(Text::witness)
            .map(|it| fact(it, &None)),
    );
    let patterns: Arc<[Pattern]> = patterns.into();
    let mut parts: BTreeMap<Box<[(bool, bool)]>, RequestFacts> = BTreeMap::new();
    for fact in facts {
        let found = patterns
            .iter()
            .map(|pattern| names_operation(pattern, &fact));
        parts.entry(found.collect()).or_insert(fact);
    }
    let cell = |(found, witness)| {
        Cell::Operation(Operation {
            patterns: patterns.clone(),
            found,
            witness,
        })
    };
    Ok(parts.into_iter().map(cell).collect())
}

/// Returns the parts by the conditions of the rules on one name.
fn names(name: Name, witness: &Point, rules: &[&Rule]) -> Result<Vec<Cell>, TooComplex> {
    let named = rules.iter().filter_map(|rule| rule.does.named.as_deref());
    let patterns = named.flat_map(|named| match name {
        Name::Repository => named.repositories.to_vec(),
        Name::Package => named.packages.to_vec(),
        Name::Reference => named.refs.to_vec(),
        Name::McpMethod if named.tools.is_empty() => named.mcp_methods.to_vec(),
        Name::McpMethod => {
            let call = Pattern::parse("tools/call", Kind::Word).into_iter();
            named.mcp_methods.iter().cloned().chain(call).collect()
        }
        Name::Tool => named.tools.to_vec(),
    });
    let patterns = distinct(patterns);
    let exists = is_message(witness) || !matches!(name, Name::McpMethod | Name::Tool);
    if patterns.is_empty() || !exists {
        return Ok(vec![Cell::Any]);
    }
    let parts = Text::split(patterns, true)?;
    Ok(parts
        .into_iter()
        .map(|text| Cell::Name(name, text))
        .collect())
}

/// Returns the parts by the rules with `unless.credentials` whose list lacks some credential of the
/// request.
fn credentials(rules: &[&Rule]) -> Vec<Cell> {
    let unless = rules.iter().filter_map(|rule| rule.unless.as_deref());
    let named = unless.map(|unless| unless.credentials.clone());
    let named: Arc<[Box<[Box<str>]>]> = named.filter(|named| !named.is_empty()).collect();
    if named.is_empty() {
        return vec![Cell::Any];
    }
    let foreign = |shown: &[Box<str>]| -> Box<[bool]> {
        let is_foreign = |named: &[Box<str>]| shown.iter().any(|it| !named.contains(it));
        named.iter().map(|named| is_foreign(named)).collect()
    };
    let other: Box<str> = "hmac-sha256:".into();
    let mut single: Vec<Box<str>> = named.iter().flatten().cloned().chain([other]).collect();
    single.sort_unstable();
    single.dedup();
    let mut parts: BTreeMap<Box<[bool]>, Vec<Box<str>>> = BTreeMap::new();
    parts.insert(foreign(&[]), Vec::new());
    for credential in single {
        let shown: Vec<_> = parts.values().cloned().collect();
        for mut shown in shown {
            shown.push(credential.clone());
            parts.entry(foreign(&shown)).or_insert(shown);
        }
    }
    let cell = |(foreign, witness)| Cell::Credentials {
        named: named.clone(),
        foreign,
        witness,
    };
    parts.into_iter().map(cell).collect()
}
