//! Collects the sections of all files, and finds misplaced ones.

use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diag::{Diagnostic, Place, Source, did_you_mean};
use crate::policy::source::{self, Placed};

use super::blot::Secrets;
use super::schema::{Shape, shape_of};
use super::section::{Value, keys_of, unknown_key};
use super::{
    admin_tls, dial, identity, inspect, issuer, ledger, limits, listen, notify, old_spelling,
    parent, record, refusal, repository_policy, session, shorthand, tls, upstream, workspace,
};

/// The top-level keys of a file.
const SECTIONS: [&str; 29] = [
    "always",
    "catalogue",
    "collector",
    "destination",
    "dial",
    "exception",
    "exceptions",
    "group",
    "identity",
    "include",
    "inspect",
    "ledger",
    "limits",
    "listen",
    "listener",
    "mcp",
    "never",
    "notify",
    "record",
    "refusal",
    "repository",
    "repository-policy",
    "rule",
    "shadow",
    "tier",
    "tiers",
    "trial",
    "upstream",
    "workspace",
];

/// The sections of all files.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) collectors: Vec<(Spanned<String>, Placed<shorthand::Collector>)>,
    pub(super) dial: Option<Placed<dial::Section>>,
    pub(super) exceptions: Option<Placed<ledger::ExceptionsSection>>,
    pub(super) ledger: Option<Placed<ledger::Section>>,
    pub(super) inspect: Option<Placed<inspect::Section>>,
    pub(super) issuers: Vec<Placed<issuer::Section>>,
    pub(super) limits: Option<Placed<limits::Section>>,
    pub(super) listen: Option<Placed<listen::Section>>,
    pub(super) listeners: Vec<Placed<listen::ListenerSection>>,
    pub(super) notifiers: Vec<(Spanned<String>, Placed<notify::Section>)>,
    pub(super) parents: Vec<Placed<parent::Section>>,
    pub(super) policy: source::Policy,
    pub(super) record: Option<Placed<record::Section>>,
    pub(super) refusal: Option<Placed<refusal::Section>>,
    pub(super) repository_policies: Vec<Placed<repository_policy::Section>>,
    /// The locations of secrets, or of values that may be secrets.
    pub(super) secrets: Secrets,
    pub(super) session: Option<Placed<session::Section>>,
    /// The file of the shadow policy.
    pub(super) shadow: Option<PathBuf>,
    pub(super) upstreams: Vec<(Spanned<String>, Placed<upstream::Section>)>,
    pub(super) users: Vec<Placed<identity::UserSection>>,
    pub(super) workspaces: Vec<Placed<workspace::Section>>,
}

impl Written {
    /// Adds the sections of a file.
    pub(super) fn add(
        &mut self,
        source: &Arc<Source>,
        table: DeTable<'_>,
        findings: &mut Vec<Diagnostic>,
    ) {
        for (key, value) in table {
            let place = Place::new(source, key.span());
            if key.get_ref() == "inspect" {
                note_keys::<inspect::Section>(&mut self.secrets, source, &value);
            }
            if key.get_ref() == "ledger" {
                note_keys::<ledger::Section>(&mut self.secrets, source, &value);
            }
            if key.get_ref() == "notify" {
                self.note_webhooks(source, &value);
            }
            if key.get_ref() == "upstream" {
                self.note_passphrases(source, &value);
            }
            let of = |what| Value {
                source,
                what,
                content: value,
            };
            let policy = &mut self.policy;
            match key.get_ref().as_ref() {
                "always" => many(&mut policy.always, of("[[always]]"), findings),
                "catalogue" => once(&mut policy.catalogue, of("[catalogue]"), findings),
                "collector" => {
                    let value = of("[collector.NAME]");
                    named(&mut self.collectors, "collector", value, findings);
                }
                "destination" => {
                    many(&mut policy.destinations, of("[[destination]]"), findings);
                }
                "dial" => self.add_dial(of("[dial]"), findings),
                "exception" => many(&mut policy.exceptions, of("[[exception]]"), findings),
                "exceptions" => once(&mut self.exceptions, of("[exceptions]"), findings),
                "group" => named(&mut policy.groups, "group", of("[group.NAME]"), findings),
                "identity" => self.add_identity(of("[identity]"), findings),
                // Includes were followed before: see `includes_of`.
                "include" => {}
                "inspect" => once(&mut self.inspect, of("[inspect]"), findings),
                "ledger" => once(&mut self.ledger, of("[ledger]"), findings),
                "limits" => once(&mut self.limits, of("[limits]"), findings),
                "listen" => once(&mut self.listen, of("[listen]"), findings),
                "listener" => many(&mut self.listeners, of("[[listener]]"), findings),
                "mcp" => named(&mut policy.mcp, "mcp", of("[mcp.NAME]"), findings),
                "never" => many(&mut policy.never, of("[[never]]"), findings),
                "notify" => {
                    let value = of("[notify.NAME]");
                    named(&mut self.notifiers, "notify", value, findings);
                }
                "record" => once(&mut self.record, of("[record]"), findings),
                "refusal" => once(&mut self.refusal, of("[refusal]"), findings),
                "repository" => many(&mut policy.repositories, of("[[repository]]"), findings),
                "repository-policy" => {
                    let value = of("[[repository-policy]]");
                    many(&mut self.repository_policies, value, findings);
                }
                "rule" => many(&mut policy.rules, of("[[rule]]"), findings),
                "shadow" => self.add_shadow(of("shadow"), findings),
                "tier" => named(&mut policy.tier, "tier", of("[tier.NAME]"), findings),
                "tiers" => once(&mut policy.tiers, of("[tiers]"), findings),
                "trial" => many(&mut policy.trials, of("[[trial]]"), findings),
                "upstream" => {
                    let value = of("[upstream.NAME]");
                    named(&mut self.upstreams, "upstream", value, findings);
                }
                "workspace" => many(&mut self.workspaces, of("[[workspace]]"), findings),
                unknown => findings.push(unknown_section(place, unknown)),
            }
        }
    }

    /// Reads `shadow`: one file, relative to the file with the key.
    fn add_shadow(&mut self, value: Value<'_, '_>, findings: &mut Vec<Diagnostic>) {
        let place = Place::new(value.source, value.content.span());
        match value.content.into_inner() {
            DeValue::String(file) if !file.is_empty() && self.shadow.is_none() => {
                let folder = super::folder_of(&value.source.path);
                self.shadow = Some(folder.join(&*file));
            }
            _ => {
                let message = "`shadow` has to be the name of one file, written once";
                let finding = Diagnostic::error("wrong-type", place, message);
                findings.push(finding.help("write e.g. `shadow = \"next.toml\"`"));
            }
        }
    }

    /// Finds secrets in `parent` of `[dial]`, which is one table or a list of tables.
    fn add_dial(&mut self, value: Value<'_, '_>, findings: &mut Vec<Diagnostic>) {
        let (source, what, span) = (value.source, value.what, value.content.span());
        let Some(mut table) = value.table(findings) else {
            return;
        };
        if let Some(parents) = table.remove(parent::KEY) {
            self.note_credentials(source, &parents);
            self.add_parents(source, parents, findings);
        }
        let content = Spanned::new(span, DeValue::Table(table));
        let rest = Value {
            source,
            what,
            content,
        };
        once(&mut self.dial, rest, findings);
    }

    fn add_parents(
        &mut self,
        source: &Arc<Source>,
        content: Spanned<DeValue<'_>>,
        findings: &mut Vec<Diagnostic>,
    ) {
        let what = parent::WHAT;
        let list = matches!(content.get_ref(), DeValue::Array(_));
        let value = Value {
            source,
            what,
            content,
        };
        if list {
            many(&mut self.parents, value, findings);
        } else {
            self.parents.extend(value.read(findings));
        }
    }

    /// Finds credentials in the URL of a parent, or under an unknown key.
    fn note_credentials(&mut self, source: &Arc<Source>, parents: &Spanned<DeValue<'_>>) {
        let known = keys_of::<parent::Section>();
        let tables: Vec<_> = match parents.get_ref() {
            DeValue::Array(list) => list.iter().map(Spanned::get_ref).collect(),
            one => vec![one],
        };
        for table in tables {
            let DeValue::Table(table) = table else {
                continue;
            };
            for (key, value) in table {
                let (key, text) = (key.get_ref().as_ref(), source.text.get(value.span()));
                let is_file = key == "credential-file" && text.is_some_and(|it| it.contains(':'));
                let in_url = key == "url" && text.is_some_and(|it| it.contains('@'));
                if is_file || in_url || !known.contains(&key) {
                    self.secrets.add(source, value.span());
                }
            }
        }
    }

    /// Adds an `[identity]`: the users of several files are joined.
    fn add_identity(&mut self, value: Value<'_, '_>, findings: &mut Vec<Diagnostic>) {
        let (source, what) = (value.source, value.what);
        let Some(table) = value.table(findings) else {
            return;
        };
        for (key, value) in table {
            let place = Place::new(source, key.span());
            let of = |what, content| Value {
                source,
                what,
                content,
            };
            match key.get_ref().as_ref() {
                "issuer" => many(
                    &mut self.issuers,
                    of("[[identity.issuer]]", value),
                    findings,
                ),
                "session" => {
                    note_keys::<session::Section>(&mut self.secrets, source, &value);
                    once(&mut self.session, of("[identity.session]", value), findings);
                }
                "user" => {
                    self.note_secrets(source, &value);
                    many(&mut self.users, of("[[identity.user]]", value), findings);
                }
                unknown => findings.push(unknown_key(
                    place,
                    unknown,
                    what,
                    &["issuer", "session", "user"],
                )),
            }
        }
    }

    /// Finds a key or passphrase in place of the path of its file, or under another name.
    fn note_passphrases(&mut self, source: &Arc<Source>, upstreams: &Spanned<DeValue<'_>>) {
        let DeValue::Table(upstreams) = upstreams.get_ref() else {
            return;
        };
        let known = keys_of::<upstream::Section>();
        let tables = upstreams
            .values()
            .filter_map(|upstream| upstream.get_ref().as_table());
        for (key, value) in tables.flatten() {
            let (key, text) = (
                key.get_ref().as_ref(),
                source.text.get(value.span()).unwrap_or_default(),
            );
            let secret = key == "client-key-passphrase" || session::is_key(text);
            if secret || !known.contains(&key) {
                self.secrets.add(source, value.span());
            }
        }
    }

    /// Finds the secrets in `[notify.NAME]`: URLs of webhooks, whose paths may be secrets, and keys that
    /// are written in place of the path of their file or under another name.
    fn note_webhooks(&mut self, source: &Arc<Source>, notifiers: &Spanned<DeValue<'_>>) {
        const SHOWN: [&str; 10] = [
            "addresses",
            "command",
            "every",
            "format",
            "key-file",
            "link",
            "notify-send",
            "roots",
            "tiers",
            "url-file",
        ];
        let DeValue::Table(notifiers) = notifiers.get_ref() else {
            return;
        };
        let tables = notifiers
            .values()
            .filter_map(|notifier| notifier.get_ref().as_table());
        for (key, value) in tables.flatten() {
            let text = source.text.get(value.span()).unwrap_or_default();
            let (key, is_key) = (key.get_ref(), text.contains("whsec_"));
            let is_url = text.contains("://") && key != "link";
            if is_key || is_url || !SHOWN.contains(&key.as_ref()) {
                self.secrets.add(source, value.span());
            }
        }
    }

    /// Stores each value of a user that may be a secret: a misspelt key may have one, too.
    fn note_secrets(&mut self, source: &Arc<Source>, users: &Spanned<DeValue<'_>>) {
        const SHOWN: [&str; 4] = ["groups", "name", "repository", "secret-file"];
        let DeValue::Array(users) = users.get_ref() else {
            return;
        };
        let tables = users.iter().filter_map(|user| match user.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        });
        for (key, value) in tables.flatten() {
            if !SHOWN.contains(&key.get_ref().as_ref()) {
                self.secrets.add(source, value.span());
            }
        }
    }
}

/// A key may stand where the path of its file belongs, or under another name; a password in a URL.
fn note_keys<T: DeserializeOwned>(
    secrets: &mut Secrets,
    source: &Arc<Source>,
    section: &Spanned<DeValue<'_>>,
) {
    let DeValue::Table(section) = section.get_ref() else {
        return;
    };
    let known = keys_of::<T>();
    for (key, value) in section {
        let (key, text) = (key.get_ref(), source.text.get(value.span()));
        let text = text.unwrap_or_default();
        let in_url = key == "url" && ledger::has_password(text);
        if session::is_key(text) || in_url || !known.contains(&key.as_ref()) {
            secrets.add(source, value.span());
        }
    }
}

/// Returns the patterns in `include` of a file.
pub(super) fn includes_of(
    source: &Arc<Source>,
    table: &DeTable<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Spanned<String>> {
    let Some(value) = table.get("include") else {
        return Vec::new();
    };
    let mut wrong = |span| {
        let place = Place::new(source, span);
        let finding = Diagnostic::error("wrong-type", place, "`include` has to be a list of texts");
        findings.push(finding.help("write e.g. `include = [\"policy/*.toml\"]`"));
    };
    let DeValue::Array(list) = value.get_ref() else {
        wrong(value.span());
        return Vec::new();
    };
    let mut patterns = Vec::new();
    for item in list {
        match item.get_ref() {
            DeValue::String(text) => patterns.push(Spanned::new(item.span(), text.to_string())),
            _ => wrong(item.span()),
        }
    }
    patterns
}

/// Sets a section that occurs once in all files.
fn once<T: DeserializeOwned>(
    slot: &mut Option<Placed<T>>,
    value: Value<'_, '_>,
    findings: &mut Vec<Diagnostic>,
) {
    let what = value.what;
    let place = Place::new(value.source, value.content.span());
    let read = value.read(findings);
    match slot {
        Some(first) => findings.push(twice(what, place, first.place())),
        None => *slot = read,
    }
}

/// Adds a list of tables, joined over the files.
fn many<T: DeserializeOwned>(
    list: &mut Vec<Placed<T>>,
    value: Value<'_, '_>,
    findings: &mut Vec<Diagnostic>,
) {
    let (source, what) = (value.source, value.what);
    let span = value.content.span();
    let DeValue::Array(items) = value.content.into_inner() else {
        let message = format!("`{what}` is a list of tables, not one");
        let finding = Diagnostic::error("wrong-type", Place::new(source, span), message);
        findings.push(finding.help(format!("write `{what}`, with two brackets on each side")));
        return;
    };
    for value in items {
        if let DeValue::Table(table) = value.get_ref()
            && let Some(finding) = old_spelling::finding(source, what, table)
        {
            findings.push(finding);
            continue;
        }
        list.extend(
            Value {
                source,
                what,
                content: value,
            }
            .read(findings),
        );
    }
}

/// Adds tables by name, joined over the files.
fn named<T: DeserializeOwned>(
    list: &mut Vec<(Spanned<String>, Placed<T>)>,
    section: &str,
    value: Value<'_, '_>,
    findings: &mut Vec<Diagnostic>,
) {
    let source = value.source;
    let Some(table) = value.table(findings) else {
        return;
    };
    let mut written: Vec<_> = table.into_iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in written {
        let name = Spanned::new(name.span(), name.into_inner().into_owned());
        let what = format!("[{section}.{}]", name.get_ref());
        let Some(read) = Value {
            source,
            what: &what,
            content: value,
        }
        .read(findings) else {
            continue;
        };
        match list.iter().find(|(other, _)| *other == name) {
            Some((_, first)) => findings.push(twice(&what, read.place(), first.place())),
            None => list.push((name, read)),
        }
    }
}

fn twice(what: &str, second: Place, first: Place) -> Diagnostic {
    Diagnostic::error(
        "section-twice",
        second,
        format!("`{what}` is written twice"),
    )
    .label("here again")
    .related(first, "first written here")
    .help("keep one of them: they are not merged")
}

fn unknown_section(place: Place, key: &str) -> Diagnostic {
    let homes = ["issuer", "session", "user"];
    let home = keys_by_section()
        .into_iter()
        .find(|(_, keys)| keys.contains(&key));
    let help = match home {
        _ if homes.contains(&key) => format!("write `identity.{key}` within its brackets"),
        Some((section, _)) => format!("`{key}` belongs below `{section}`"),
        None => did_you_mean(key, &SECTIONS),
    };
    Diagnostic::error(
        "unknown-section",
        place,
        format!("there is no section `{key}`"),
    )
    .label("not known here")
    .help(help)
}

/// A section that a file may have, or a table that several sections have.
pub(super) struct KnownSection {
    /// Its heading, e.g. `[[rule]]`; of a table in sections its name, e.g. `from`.
    pub(super) what: &'static str,
    /// Its keys.
    keys: &'static [&'static str],
    /// The form of its table.
    pub(super) shape: fn() -> Result<Shape, serde::de::value::Error>,
}

impl KnownSection {
    /// Whether it is a table that several sections have.
    pub(super) fn is_shared(&self) -> bool {
        !self.what.starts_with('[')
    }
}

fn known<T: DeserializeOwned>(what: &'static str) -> KnownSection {
    KnownSection {
        what,
        keys: keys_of::<T>(),
        shape: shape_of::<T>,
    }
}

/// All keys of a file, by section.
pub(super) fn keys_by_section() -> Vec<(&'static str, &'static [&'static str])> {
    let all = known_sections().into_iter();
    all.map(|section| (section.what, section.keys)).collect()
}

/// Every section that a file may have.
pub(super) fn known_sections() -> Vec<KnownSection> {
    vec![
        known::<listen::Section>("[listen]"),
        known::<tls::ProxyTlsSection>("[listen.proxy-tls]"),
        known::<admin_tls::AdminTlsSection>("[listen.admin-tls]"),
        known::<listen::ListenerSection>("[[listener]]"),
        known::<record::Section>("[record]"),
        known::<refusal::Section>("[refusal]"),
        known::<ledger::Section>("[ledger]"),
        known::<ledger::ExceptionsSection>("[exceptions]"),
        known::<notify::Section>("[notify.NAME]"),
        known::<dial::Section>("[dial]"),
        known::<parent::Section>(parent::WHAT),
        known::<inspect::Section>("[inspect]"),
        known::<limits::Section>("[limits]"),
        known::<issuer::Section>("[[identity.issuer]]"),
        known::<session::Section>("[identity.session]"),
        known::<identity::UserSection>("[[identity.user]]"),
        known::<source::Tiers>("[tiers]"),
        known::<source::Tier>("[tier.NAME]"),
        known::<source::Repository>("[[repository]]"),
        known::<source::Group>("[group.NAME]"),
        known::<source::CatalogueUse>("[catalogue]"),
        known::<source::Destination>("[[destination]]"),
        known::<source::Rule>("[[rule]]"),
        known::<source::Exception>("[[exception]]"),
        known::<source::Limit>("limit"),
        known::<source::From>("from"),
        known::<source::To>("to"),
        known::<source::Does>("does"),
        known::<source::Unless>("unless"),
        known::<source::Grant>("grant"),
        known::<source::Mcp>("[mcp.NAME]"),
        known::<shorthand::Collector>("[collector.NAME]"),
        known::<source::Trial>("[[trial]]"),
        known::<source::Invariant>("[[never]]"),
        known::<source::Invariant>("[[always]]"),
        known::<upstream::Section>("[upstream.NAME]"),
        known::<workspace::Section>("[[workspace]]"),
        known::<repository_policy::Section>("[[repository-policy]]"),
    ]
}
