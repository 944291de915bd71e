//! The service files, and their compilation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place, Source, did_you_mean};

use super::super::{Action, Body};
use super::names::{FileForm, PackageForm};
use super::operation::Operation;
use super::pattern::{Pattern, Segment};
use super::query::Conditions;
use super::{OTHER, Service, Words, published};

/// One file: a service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ServiceFile {
    /// The date of the last check of its facts.
    #[expect(dead_code, reason = "for the reader of the file")]
    dated: String,
    /// The word in rules and records; the name of the file.
    name: Spanned<String>,
    /// A short description.
    about: String,
    /// Services whose operations come before its own.
    #[serde(default)]
    includes: Vec<String>,
    /// Words that include other words, as `push` includes `delete`.
    #[serde(default)]
    words: BTreeMap<String, Vec<String>>,
    /// How package names are compared.
    packages: Option<Spanned<String>>,
    /// How `{file}` contains a package and a version.
    files: Option<Spanned<String>>,
    /// The document with the time at which a version was published.
    published: Option<published::Source>,
    /// The operations; the first match decides.
    operation: Vec<OperationEntry>,
}

/// `[[operation]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct OperationEntry {
    /// The word in rules and records.
    name: Spanned<String>,
    /// May be omitted if `body` is given.
    action: Option<Spanned<String>>,
    /// As sent; `GET` stands for `HEAD` as well.
    methods: Vec<Spanned<String>>,
    /// Patterns over the path.
    paths: Vec<Spanned<String>>,
    /// Parameters that must occur exactly once.
    #[serde(default)]
    query: BTreeMap<String, Spanned<String>>,
    /// Parameters that must occur at least once, each with such a value.
    #[serde(default)]
    each: BTreeMap<String, Spanned<String>>,
    /// Parameters that must not occur.
    #[serde(default)]
    absent: Vec<String>,
    /// The kind of body to read.
    body: Option<Spanned<String>>,
}

const BODIES: [(&str, Body); 8] = [
    ("git-fetch", Body::GitFetch),
    ("git-push", Body::GitPush),
    ("graphql", Body::GraphQl),
    ("lfs-batch", Body::LfsBatch),
    ("lfs-verify", Body::LfsVerify),
    ("mcp", Body::Mcp),
    ("model", Body::Model),
    ("oci-token", Body::OciToken),
];

/// Reads one file. An invalid part is left out, with a finding.
pub(super) fn parse(name: &str, text: &str, findings: &mut Vec<Diagnostic>) -> Option<Service> {
    let path = PathBuf::from(format!("config/services/{name}.toml"));
    let source = Arc::new(Source::new(path, text));
    let mut reader = Reader {
        source: &source,
        findings,
    };
    let file: ServiceFile = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            reader.say(error.span().unwrap_or_default(), error.message());
            return None;
        }
    };
    if file.name.get_ref() != name {
        reader.say(file.name.span(), "a service has the name of its file");
    }
    let packages = file.packages.as_ref();
    let files = file.files.as_ref();
    Some(Service {
        name: name.into(),
        about: file.about.into(),
        packages: packages
            .and_then(|word| reader.word(word, &PackageForm::ALL))
            .unwrap_or_default(),
        files: files
            .and_then(|word| reader.word(word, &FileForm::ALL))
            .unwrap_or_default(),
        operations: file
            .operation
            .iter()
            .filter_map(|entry| reader.operation(entry))
            .collect(),
        published: file.published,
        words: Words::new(&file.words).into(),
        includes: file.includes.into_iter().map(Into::into).collect(),
        other: OTHER.into(),
    })
}

/// Compiles parts of a file, and collects the findings.
struct Reader<'a> {
    source: &'a Arc<Source>,
    findings: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn say(&mut self, span: std::ops::Range<usize>, message: impl Into<String>) {
        let place = Place::new(self.source, span);
        self.findings
            .push(Diagnostic::error("bad-service", place, message));
    }

    /// Reads one of a few words.
    fn word<T: Copy>(&mut self, word: &Spanned<String>, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(name, _)| name == word.get_ref());
        if found.is_none() {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            let help = did_you_mean(word.get_ref(), &names);
            self.say(word.span(), format!("no such word; {help}"));
        }
        found.map(|(_, value)| *value)
    }

    /// Compiles an operation; `None` if a part is invalid, so that an incomplete one never decides.
    fn operation(&mut self, entry: &OperationEntry) -> Option<Operation> {
        let before = self.findings.len();
        let actions = Action::ALL.map(|action| (action.as_str(), action));
        let action = entry.action.as_ref();
        let body = entry.body.as_ref();
        let operation = Operation {
            name: entry.name.get_ref().as_str().into(),
            action: action.and_then(|word| self.word(word, &actions)),
            methods: entry
                .methods
                .iter()
                .map(|method| self.method(method))
                .collect(),
            paths: entry
                .paths
                .iter()
                .filter_map(|text| self.part(text, Pattern::parse))
                .collect(),
            query: self.conditions(entry),
            body: body.and_then(|word| self.word(word, &BODIES)),
        };
        if action.is_none() && body.is_none() {
            self.say(
                entry.name.span(),
                "neither an action nor a body that tells it",
            );
        }
        if entry.methods.is_empty() || entry.paths.is_empty() {
            self.say(entry.name.span(), "an operation has methods and paths");
        }
        if entry.name.get_ref() == OTHER {
            self.say(entry.name.span(), "`other` is what no operation describes");
        }
        (self.findings.len() == before).then_some(operation)
    }

    fn method(&mut self, method: &Spanned<String>) -> Box<str> {
        let text = method.get_ref().as_str();
        if text == "HEAD" || !text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            self.say(
                method.span(),
                "a method in capitals; `GET` stands for `HEAD`",
            );
        }
        text.into()
    }

    fn conditions(&mut self, entry: &OperationEntry) -> Conditions {
        Conditions {
            present: self.parameters(&entry.query),
            each: self.parameters(&entry.each),
            absent: entry.absent.iter().map(|key| key.as_str().into()).collect(),
        }
    }

    fn parameters(&mut self, of: &BTreeMap<String, Spanned<String>>) -> Box<[(Box<str>, Segment)]> {
        let parsed = of.iter().filter_map(|(key, value)| {
            let value = self.part(value, Segment::parse)?;
            Some((Box::from(key.as_str()), value))
        });
        parsed.collect()
    }

    fn part<T>(
        &mut self,
        text: &Spanned<String>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = parse(text.get_ref());
        match parsed {
            Ok(part) => Some(part),
            Err(message) => {
                self.say(text.span(), message);
                None
            }
        }
    }
}
