//! Loads files with their includes in order, and reports all findings at once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use crate::clock::Clock;
use crate::diag::{Diagnostic, Place, Severity, Source};
use crate::policy::source::{self, Placed};

use super::files::{Files, Reading, read_text};
use super::names::Names;
use super::record::Record;
use super::written::{Written, includes_of, keys_by_section};
use super::{Config, Dial, Identity, Inspect, Limits, Listen, Workspaces};
use super::{
    dial, identity, inspect, issuer, ledger, limits, listen, notify, parent, record, refusal,
    repository_policy, session, shorthand, upstream, workspace,
};

/// Maximum number of reported syntax errors of a file.
const SYNTAX_ERRORS: usize = 100;
/// Maximum size of a file whose syntax errors are all reported: there could be millions.
const EXAMINED: usize = 1 << 20;

/// Loads a file and its includes. Errors mean no configuration; warnings come with one.
pub fn load(path: &Path) -> (Option<Config>, Vec<Diagnostic>) {
    match read_text(path) {
        Ok(text) => load_source(&Arc::new(Source::new(path, text)), Some(path.to_owned())),
        Err(why) => (
            None,
            vec![Diagnostic::unplaced(why.code(), why.to_string())],
        ),
    }
}

/// Like [`load`], from a text that need not exist as a file. Includes are relative to `path`.
///
/// [`Config::path`] is `None`: there is no file to reload.
pub fn load_text(path: &Path, text: &str) -> (Option<Config>, Vec<Diagnostic>) {
    load_source(&Arc::new(Source::new(path, text)), None)
}

/// Loads the policy sections of a file and its includes. Other sections are parsed but not
/// evaluated: their files need not exist. Errors mean no policy.
pub fn load_policy(path: &Path) -> (Option<LoadedPolicy>, Vec<Diagnostic>) {
    let source = match read_text(path) {
        Ok(text) => Arc::new(Source::new(path, text)),
        Err(why) => {
            let finding = Diagnostic::unplaced(why.code(), why.to_string());
            return (None, vec![finding]);
        }
    };
    let mut findings = Vec::new();
    let (mut written, files) = read_all(&source, &mut findings);
    let secrets = std::mem::take(&mut written.secrets);
    let mut policy = written.policy;
    policy.inspect = written.inspect.as_ref().map(inspect::policy);
    policy.upstreams = upstream::destinations(&written.upstreams);
    add_shorthand(&mut policy, &written.collectors, &mut findings);
    secrets.blot(&mut findings);
    let mut files = files.finish();
    let loaded = LoadedPolicy {
        policy,
        digest: files.digest(Vec::new()),
        sources: files.sources(),
        log: record::record(
            written.record.as_ref(),
            super::folder_of(path),
            &mut Vec::new(),
        )
        .file,
    };
    let broken = findings.iter().any(|it| it.severity == Severity::Error);
    ((!broken).then_some(loaded), findings)
}

/// The policy part of a configuration.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// The sections.
    pub policy: source::Policy,
    /// SHA-256 over the files, in hex.
    pub digest: Arc<str>,
    /// The texts of the files.
    pub sources: Vec<Arc<Source>>,
    /// Where a gate with this configuration writes its records; `None`: to standard output.
    pub log: Option<PathBuf>,
}

/// Returns the configuration of a gate without files: all defaults, and the built-in policy.
/// Records go to the user's state folder (XDG base directories).
#[expect(
    clippy::disallowed_methods,
    reason = "nothing was configured: where else could it say?"
)]
pub fn embedded() -> Config {
    let absolute = |name: &str| {
        std::env::var(name)
            .ok()
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_default();
    embedded_with(state)
}

/// Like [`embedded`], with records in `STATE_FOLDER/tidegate`.
pub fn embedded_with(state_folder: PathBuf) -> Config {
    let mut files = Reading::begin(Arc::new(Source::new("(built in)", ""))).finish();
    let mut folder = state_folder;
    folder.push("tidegate");
    let record = Record::in_folder(&folder);
    let mut listen = Listen::on_loopback();
    listen.control_beside(record.file.as_deref());
    Config {
        path: None,
        sources: files.sources(),
        digest: files.digest(Vec::new()),
        files,
        listen,
        record,
        dial: Dial::default(),
        limits: Limits::default(),
        identity: Identity::default(),
        inspect: Inspect::default(),
        workspaces: Workspaces::default(),
        repository_policies: Vec::new(),
        narrowed_by: Vec::new(),
        upstreams: Vec::new(),
        shadow: None,
        ledger: None,
        notifiers: Vec::new(),
        max_exception: ledger::DEFAULT_MAX_EXCEPTION,
        contact: None,
        policy: source::Policy::default(),
    }
}

/// Returns all keys of a file by section, for the reference and the manual.
pub fn keys() -> Vec<(&'static str, &'static [&'static str])> {
    keys_by_section()
}

fn load_source(first: &Arc<Source>, path: Option<PathBuf>) -> (Option<Config>, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let (mut written, reading) = read_all(first, &mut findings);
    let secrets = std::mem::take(&mut written.secrets);
    let config = check(written, reading.finish(), &first.path, path, &mut findings);
    secrets.blot(&mut findings);
    let broken = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    ((!broken).then_some(config), findings)
}

/// Reads a file and what it includes.
/// Adds the rules that are written in one line.
fn add_shorthand(
    policy: &mut source::Policy,
    collectors: &[(Spanned<String>, Placed<shorthand::Collector>)],
    findings: &mut Vec<Diagnostic>,
) {
    let of_servers = shorthand::of_servers(&policy.mcp);
    let of_collectors = shorthand::of_collectors(collectors, findings);
    policy.rules.extend(of_servers);
    policy.rules.extend(of_collectors);
}

fn read_all(first: &Arc<Source>, findings: &mut Vec<Diagnostic>) -> (Written, Reading) {
    let mut written = Written::default();
    let mut reading = Reading::begin(first.clone());
    let mut next = Some(first.clone());
    while let Some(source) = next {
        if let Some(table) = parse(&source, findings) {
            reading.include(includes_of(&source, &table, findings), findings);
            written.add(&source, table, findings);
        } else {
            written.secrets.add_unparsed(&source);
        }
        next = reading.next(findings);
    }
    (written, reading)
}

/// Returns the table of a file; `None` if its syntax is wrong. The text after a mistake could only
/// be guessed, and findings about guesses mislead.
fn parse<'s>(source: &'s Arc<Source>, findings: &mut Vec<Diagnostic>) -> Option<DeTable<'s>> {
    let errors = match DeTable::parse(&source.text) {
        Ok(table) => return Some(table.into_inner()),
        Err(_) if source.text.len() <= EXAMINED => DeTable::parse_recoverable(&source.text).1,
        Err(first) => vec![first],
    };
    let mut lines = HashSet::new();
    let mut left_out = 0;
    for error in errors {
        let place = Place::new(source, error.span().unwrap_or(0..0));
        // Further mistakes in a line mostly result from the first.
        if lines.len() >= SYNTAX_ERRORS {
            left_out += 1;
        } else if lines.insert(place.line_column().0) {
            findings.push(syntax_error(place, error.message()));
        }
    }
    if left_out > 0 {
        let end = source.text.len();
        let message = format!("{left_out} more mistakes of syntax are not shown");
        findings.push(Diagnostic::error(
            "syntax",
            Place::new(source, end..end),
            message,
        ));
    }
    None
}

fn syntax_error(place: Place, message: &str) -> Diagnostic {
    let finding = Diagnostic::error("syntax", place, message);
    match message {
        "duplicate key" => finding
            .label("it stands in this file already")
            .help("keep one of them; tables that add up have two brackets on each side"),
        _ => finding,
    }
}

/// Evaluates the written sections.
fn check(
    written: Written,
    mut files: Files,
    first: &Path,
    path: Option<PathBuf>,
    findings: &mut Vec<Diagnostic>,
) -> Config {
    let names = Names::of(&written);
    let mut secrets = Vec::new();
    let mut listen = listen::listen(
        written.listen.as_ref(),
        &written.listeners,
        &names,
        &mut secrets,
        findings,
    );
    let session = session::session(written.session.as_ref(), &mut secrets, findings);
    let identity = Identity {
        users: identity::users(&written.users, &names, &mut secrets, findings),
        issuers: issuer::issuers(&written.issuers, &mut secrets, findings),
        session,
    };
    let dial = Dial {
        parents: parent::parents(&written.parents, &mut secrets, findings),
        ..dial::dial(written.dial.as_ref(), findings)
    };
    let workspaces = workspace::workspaces(&written.workspaces, &names, findings);
    let repository_policies =
        repository_policy::repository_policies(&written.repository_policies, &names, findings);
    let inspect = inspect::inspect(written.inspect.as_ref(), &mut secrets, findings);
    let upstreams = upstream::upstreams(&written.upstreams, &mut secrets, findings);
    let notifiers = notify::notifiers(&written.notifiers, &names, &mut secrets, findings);
    let mut policy = written.policy;
    inspect::demand_credential_key(written.inspect.as_ref(), &policy.rules, findings);
    policy.inspect = written.inspect.as_ref().map(inspect::policy);
    add_shorthand(&mut policy, &written.collectors, findings);
    policy.upstreams = upstream::destinations(&written.upstreams);
    let folder = super::folder_of(first);
    let record = record::record(written.record.as_ref(), folder, findings);
    listen.control_beside(record.file.as_deref());
    let max_exception = ledger::max_exception(written.exceptions.as_ref(), findings);
    let ledger = ledger::ledger(
        written.ledger.as_ref(),
        record.file.as_deref(),
        &mut secrets,
        findings,
    );
    let now = Clock::system().now();
    ledger::check_exceptions(
        &policy.exceptions,
        max_exception,
        written.ledger.is_some(),
        now,
        findings,
    );
    Config {
        path,
        sources: files.sources(),
        digest: files.digest(secrets),
        files,
        listen,
        record,
        dial,
        limits: limits::limits(written.limits.as_ref(), findings),
        identity,
        inspect,
        workspaces,
        repository_policies,
        narrowed_by: Vec::new(),
        upstreams,
        shadow: written.shadow,
        ledger,
        notifiers,
        max_exception,
        contact: refusal::contact(written.refusal.as_ref(), findings),
        policy,
    }
}
