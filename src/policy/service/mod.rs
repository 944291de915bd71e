//! Reads request facts from the head of a request, by service: from the files in
//! `config/services/*.toml`, one per protocol.
//!
//! A file lists operations; the first one that matches method, path and query describes the
//! request. A request that matches none is a read if its method reads, otherwise a write: so a
//! spelling that the file does not list is a write.

mod example;
mod fields;
mod names;
mod operation;
mod pattern;
mod published;
mod query;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::name::Path;

use super::words::Words;
use super::{Action, Category, RequestFacts, Seen};
pub(super) use example::Head;
use fields::Fields;
use names::{FileForm, PackageForm};
use operation::{Operation, Request};
pub use published::{Element, Listing, Place, Published};

/// The operation of a request that no operation of its service matches.
const OTHER: &str = "other";

/// The default service of a host in the category `source-control`.
const FORGE: &str = "git";

/// The services of the files.
#[derive(Clone, Debug, Default)]
pub struct Services {
    services: Arc<[Service]>,
}

/// One file, compiled.
#[derive(Debug)]
struct Service {
    name: Arc<str>,
    about: Box<str>,
    operations: Box<[Operation]>,
    /// Services whose operations come before its own, e.g. git at a forge.
    includes: Box<[Box<str>]>,
    /// The inclusions among its words, with the words of included services.
    words: Arc<Words>,
    packages: PackageForm,
    files: FileForm,
    /// Where the service publishes the release time of versions.
    published: Option<published::Source>,
    /// [`OTHER`], made once.
    other: Arc<str>,
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../config/services/", $name, ".toml")))),+]
    };
}

/// The files, each with the name of its service.
const FILES: &[(&str, &str)] = files![
    "anthropic",
    "azure-blob",
    "bedrock",
    "cargo",
    "gcs",
    "git",
    "github",
    "gitlab",
    "go",
    "hex",
    "huggingface",
    "maven",
    "npm",
    "nuget",
    "oci",
    "openai",
    "pypi",
    "rubygems",
    "s3",
    "vertex",
];

/// Whether the program contains a service of that name.
pub(super) fn is_built_in(name: &str) -> bool {
    FILES.iter().any(|(known, _)| *known == name)
}

/// Returns the names of all services.
pub(super) fn known() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

/// Whether the query of a request names a method that servers and frameworks may use instead of the
/// method of the request.
pub fn names_method(path: &Path) -> bool {
    query::overrides_method(path.query())
}

impl Services {
    /// Returns the services of the program.
    ///
    /// Parses all of them: call once and keep the result. A test checks that all parse.
    pub fn built_in() -> Self {
        Self::parse(FILES).0
    }

    /// Reads files, each the name of a service and a text; leaves out invalid entries and reports
    /// them.
    fn parse(files: &[(&str, &str)]) -> (Self, Vec<Diagnostic>) {
        let mut findings = Vec::new();
        let mut services: Vec<_> = files
            .iter()
            .filter_map(|(name, text)| source::parse(name, text, &mut findings))
            .collect();
        let own: Vec<_> = services
            .iter()
            .map(|service| (service.name.clone(), service.words.clone()))
            .collect();
        for service in services.iter_mut().filter(|it| !it.includes.is_empty()) {
            let mut words = Words::clone(&service.words);
            let included = own
                .iter()
                .filter(|(name, _)| service.includes.contains(&(**name).into()));
            included.for_each(|(_, of)| words.add(of));
            service.words = words.into();
        }
        let services = services.into();
        (Self { services }, findings)
    }

    /// Whether there is a service of that name.
    pub fn knows(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Returns the names, in order, each with a description.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.services
            .iter()
            .map(|service| (&*service.name, &*service.about))
    }

    /// Returns the operations of a service, each once: of the services that it includes, its own,
    /// then `other`. The list contains operations that only a body shows; `mutation:*` stands for
    /// each field of a GraphQL mutation. Empty if there is no such service.
    pub fn operations(&self, name: &str) -> impl Iterator<Item = &str> {
        let mut words: Vec<&str> = Vec::new();
        for service in self.with_included(name) {
            let of_heads = service.operations.iter().map(|operation| &*operation.name);
            for word in of_heads.chain(service.words.listed()) {
                if !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        if !words.is_empty() {
            words.push(OTHER);
        }
        words.into_iter()
    }

    /// Whether some service has that operation. A field of a GraphQL mutation is one in every
    /// service with GraphQL.
    pub fn has_operation(&self, word: &str) -> bool {
        let is_field = |known: &str| {
            known
                .strip_suffix('*')
                .is_some_and(|it| word.starts_with(it))
        };
        let mut known = self.names().flat_map(|(name, _)| self.operations(name));
        known.any(|known| known == word || is_field(known))
    }

    /// Returns the inclusions among the words of a service; `None` if there is no such service.
    pub fn words(&self, service: &str) -> Option<&Words> {
        self.find(service).map(|service| &*service.words)
    }

    /// Returns the service that reads requests to a host: the named one, otherwise git for
    /// `source-control`.
    pub(super) fn reader(&self, service: Option<&str>, category: Category) -> Option<&str> {
        let forge = (category == Category::SourceControl).then_some(FORGE);
        let known = service.and_then(|name| self.find(name));
        let known = known.or_else(|| self.find(forge?));
        known.map(|service| &*service.name)
    }

    /// Whether some request to a service may have an operation with an action that `acts` accepts.
    /// An operation that only a body shows may have any action; an operation of another service has
    /// none.
    pub(super) fn may_do(
        &self,
        service: &str,
        operation: &str,
        acts: impl Fn(Action) -> bool,
    ) -> bool {
        let all = self.with_included(service).flat_map(|of| &of.operations);
        let mut heads = all.filter(|it| *it.name == *operation).peekable();
        if heads.peek().is_some() {
            return heads.any(|it| it.action.is_none_or(&acts));
        }
        let is_field = |known: &str| {
            let front = known.strip_suffix('*');
            front.is_some_and(|front| operation.starts_with(front))
        };
        let mut words = self.operations(service);
        words.any(|known| known == operation || is_field(known))
    }

    /// Like [`Services::words`], for request facts.
    pub fn shared_words(&self, service: &str) -> Option<Arc<Words>> {
        self.find(service).map(|service| service.words.clone())
    }

    /// Reads the facts of a request from its head: by the service of its host, if one is named (git
    /// for `source-control` if none is), else by method.
    ///
    /// The path is also read as other servers would read it ([`Path::readings`]). If a request with
    /// a reading method writes in one reading, it counts as that write. Readings with other facts
    /// are kept for denies ([`RequestFacts::other_readings`]).
    ///
    /// Other hosts are not read as git: `POST /x/git-upload-pack` is a read at a forge, but may
    /// carry any data to another host.
    pub fn read(
        &self,
        service: Option<&str>,
        category: Category,
        method: &str,
        path: &Path,
    ) -> RequestFacts {
        let forge = (category == Category::SourceControl).then_some(FORGE);
        let known = service.and_then(|name| self.find(name));
        let known = known.or_else(|| self.find(forge?));
        if query::overrides_method(path.query()) {
            return Self::unknown(known, Action::Write);
        }
        let Some(service) = known else {
            return Self::unknown(None, Action::of(category, method, path));
        };
        let read = |text: &str| {
            let request = Request::new(method, text, path.query());
            let mut services = self.with_included(&service.name);
            services.find_map(|of| of.read(&request, &service.words))
        };
        let by_default = by_method(method);
        let mut found = read(path.path()).unwrap_or_else(|| Self::unknown(known, by_default));
        let readings = path.readings();
        let spelled = readings.iter().filter(|text| ***text != *path.path());
        let mut others: Vec<RequestFacts> = spelled.filter_map(|text| read(text)).collect();
        let reads = |facts: &RequestFacts| facts.action == Some(Action::Read);
        if by_default == Action::Read
            && reads(&found)
            && let Some(writing) = others.iter_mut().find(|it| !reads(it))
        {
            std::mem::swap(&mut found, writing);
        }
        others.retain(|other| !other.names_the_same(&found));
        found.other_readings = others.into();
        found
    }

    /// Returns the facts of a request that no operation matches.
    fn unknown(service: Option<&Service>, action: Action) -> RequestFacts {
        RequestFacts {
            service: service.map(|service| service.name.clone()),
            operation: service.map(|service| service.other.clone()),
            action: Some(action),
            words: service.map(|service| service.words.clone()),
            ..RequestFacts::default()
        }
    }

    fn find(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| *service.name == *name)
    }

    /// Returns the services that a service includes, then itself.
    fn with_included(&self, name: &str) -> impl Iterator<Item = &Service> {
        self.find(name).into_iter().flat_map(|service| {
            let included = service.includes.iter().filter_map(|name| self.find(name));
            included.chain(std::iter::once(service))
        })
    }
}

impl Service {
    /// Returns the facts of a request, if an operation matches it.
    fn read(&self, request: &Request<'_>, words: &Arc<Words>) -> Option<RequestFacts> {
        let (operation, fields) = self
            .operations
            .iter()
            .find_map(|operation| Some((operation, operation.matches(request)?)))?;
        let [repository, package, version] = self.name_things(&fields);
        Some(RequestFacts {
            seen: match operation.body {
                Some(_) => Seen::Head,
                None => Seen::Whole,
            },
            service: Some(self.name.clone()),
            operation: Some(operation.name.clone()),
            action: operation.action,
            repository,
            package,
            version,
            body: operation.body,
            words: Some(words.clone()),
            ..RequestFacts::default()
        })
    }

    /// Returns the repository, package and version, in the canonical spelling of rules.
    fn name_things(&self, fields: &Fields<'_>) -> [Option<Box<str>>; 3] {
        let repository = fields.repository().map(|text| names::repository(&text));
        let package = fields.package().map(|text| self.packages.canonical(&text));
        let version = fields.version().map(|text| text.into_owned().into());
        if package.is_some() && version.is_some() {
            return [repository, package, version];
        }
        let split = fields.file().and_then(|file| self.files.split(&file));
        match split {
            Some((name, found)) => {
                let name = self.packages.canonical(&name);
                [repository, package.or(Some(name)), version.or(Some(found))]
            }
            None => [repository, package, version],
        }
    }
}

/// Returns the action of a method without a service. Methods are case-sensitive: `get` is not
/// `GET`.
fn by_method(method: &str) -> Action {
    match method {
        "GET" | "HEAD" | "OPTIONS" => Action::Read,
        _ => Action::Write,
    }
}
