//! The registry documents with the publication time of a package version.

use serde::Deserialize;

use crate::name::{Host, HostName, Path, Target};

use super::super::{Action, RequestFacts};
use super::names::PackageForm;
use super::{OTHER, Services};

/// How to get the age of the version that a request fetches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Published {
    /// The request fetches no version of a package: it lists, views or writes.
    NoVersion,
    /// The request may fetch a version, and no document has its age; the text is the reason.
    Untold(&'static str),
    /// This document has the time.
    At(Box<Listing>),
}

/// A registry document with the publication time of a version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listing {
    /// The host of the document.
    pub target: Target,
    /// The path of the document.
    pub path: Path,
    /// The media type to request.
    pub accept: Box<str>,
    /// The place of the time in the document.
    pub place: Place,
}

/// A place in a JSON document.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Place {
    /// The keys that lead to the time, or to a list.
    pub keys: Box<[Box<str>]>,
    /// The matching elements of the list.
    pub element: Option<Element>,
}

/// Matches elements of a list.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Element {
    /// The key that identifies an element.
    pub key: Box<str>,
    /// The value of that key.
    pub value: Box<str>,
    /// The key of the time.
    pub time: Box<str>,
}

/// `[published]` of a service file. In texts, `{package}`, `{version}` and `{file}` stand for the
/// names in the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Source {
    /// The operations that fetch a version.
    operations: Vec<String>,
    /// The path of the document.
    path: String,
    accept: String,
    /// A JSON pointer to the time; with `list`, a key of its elements.
    time: String,
    /// A JSON pointer to a list with the matching element; empty: the document is the list.
    list: Option<String>,
    /// The key that identifies an element.
    key: Option<String>,
    /// The value of that key.
    value: Option<String>,
    /// Hosts of files whose documents are on another host.
    #[serde(default)]
    elsewhere: Vec<Elsewhere>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Elsewhere {
    /// A host is a domain with a prefix; `@`: no prefix.
    domain: String,
    host: String,
    index_domain: String,
    index_host: String,
}

/// The names in a request.
struct Version<'a> {
    package: String,
    number: &'a str,
    file: &'a str,
}

impl Services {
    /// Returns the document with the age of the version that a request to `target` fetches.
    pub(in super::super) fn published(
        &self,
        request_facts: &RequestFacts,
        target: &Target,
        path: &Path,
    ) -> Published {
        if matches!(request_facts.action, Some(Action::Write | Action::Call)) {
            return Published::NoVersion;
        }
        let service = request_facts
            .service
            .as_deref()
            .and_then(|name| self.find(name));
        let known = service.and_then(|it| Some((it, it.published.as_ref()?)));
        let Some((service, source)) = known else {
            return Published::Untold("no document of this registry with the time is known");
        };
        let operation = request_facts.operation.as_deref().unwrap_or(OTHER);
        if operation != OTHER && !source.operations.iter().any(|it| it == operation) {
            return Published::NoVersion;
        }
        let (Some(package), Some(version)) = (&request_facts.package, &request_facts.version)
        else {
            return Published::Untold("the request does not say which version it is for");
        };
        let asked = Version {
            package: service.packages.as_asked(package),
            number: version,
            file: file(path),
        };
        let listing = source.listing(&asked, target);
        listing.map_or(
            Published::Untold("the registry cannot be asked for a package of that name"),
            |listing| Published::At(Box::new(listing)),
        )
    }
}

impl Source {
    fn listing(&self, asked: &Version<'_>, target: &Target) -> Option<Listing> {
        let named = self.elsewhere.iter().find(|it| it.is_for(&target.host));
        let host = match named {
            Some(elsewhere) => elsewhere.index()?,
            None => target.host.clone(),
        };
        let element = match (&self.list, &self.key, &self.value) {
            (Some(_), Some(key), Some(value)) => Some(Element {
                key: key.as_str().into(),
                value: asked.fill(value).into(),
                time: self.time.as_str().into(),
            }),
            _ => None,
        };
        let pointer = self.list.as_ref().unwrap_or(&self.time);
        // Filled in after the split, because a version may contain a slash.
        let keys = pointer.split('/').skip(1).map(|key| asked.fill(key).into());
        Some(Listing {
            target: Target {
                host,
                port: target.port,
            },
            path: Path::parse(asked.fill(&self.path).as_bytes()).ok()?,
            accept: self.accept.as_str().into(),
            place: Place {
                keys: keys.collect(),
                element,
            },
        })
    }
}

impl Elsewhere {
    fn is_for(&self, host: &Host) -> bool {
        named(&self.host, &self.domain).is_some_and(|name| Host::Name(name) == *host)
    }

    fn index(&self) -> Option<Host> {
        named(&self.index_host, &self.index_domain).map(Host::Name)
    }
}

impl Version<'_> {
    /// Replaces the braces in a text, each once: a name may contain braces too.
    fn fill(&self, text: &str) -> String {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (word, behind) = after.split_once('}').unwrap_or((after, ""));
            filled.push_str(before);
            filled.push_str(match word {
                "package" => &self.package,
                "version" => self.number,
                "file" => self.file,
                _ => "",
            });
            rest = behind;
        }
        filled + rest
    }
}

impl PackageForm {
    /// Returns a name in the form of the registry's paths.
    fn as_asked(self, name: &str) -> String {
        match self {
            Self::Go => {
                let mut asked = String::with_capacity(name.len());
                for letter in name.chars() {
                    if letter.is_ascii_uppercase() {
                        asked.push('!');
                    }
                    asked.push(letter.to_ascii_lowercase());
                }
                asked
            }
            // `@acme/ui` is one segment.
            _ if name.starts_with('@') => name.replacen('/', "%2f", 1),
            _ => name.to_owned(),
        }
    }
}

fn named(host: &str, domain: &str) -> Option<HostName> {
    let name = match host {
        "@" => domain.to_owned(),
        host => format!("{host}.{domain}"),
    };
    HostName::parse(name.as_bytes()).ok()
}

/// Returns the file name at the end of a path. A description or signature of a file has the age of
/// the file.
fn file(path: &Path) -> &str {
    let file = path.path().rsplit('/').next().unwrap_or_default();
    let plain = [".metadata", ".asc", ".provenance"]
        .iter()
        .find_map(|end| file.strip_suffix(end));
    plain.unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::super::super::Category;
    use super::*;

    fn published(service: &str, host: &str, path: &str) -> Published {
        let services = Services::built_in();
        let path = Path::parse(path.as_bytes()).unwrap();
        let request_facts = services.read(Some(service), Category::PackageRegistry, "GET", &path);
        let target = Target::from_authority(host.as_bytes(), 443).unwrap();
        services.published(&request_facts, &target, &path)
    }

    /// Returns host, path and place of the document.
    fn at(service: &str, host: &str, path: &str) -> (String, String, String) {
        let Published::At(listing) = published(service, host, path) else {
            panic!("no document: {path}");
        };
        let place = match &listing.place.element {
            Some(it) => format!("{}={} {}", it.key, it.value, it.time),
            None => listing.place.keys.join(" "),
        };
        (
            listing.target.host.to_string(),
            listing.path.as_str().into(),
            place,
        )
    }

    #[track_caller]
    fn tells(service: &str, path: &str, document: &str, place: &str) {
        let (host, found, pointed) = at(service, "r.example.com", path);
        assert_eq!(
            (host.as_str(), &*found, &*pointed),
            ("r.example.com", document, place)
        );
    }

    #[test]
    fn each_registry_has_a_place_where_it_tells() {
        tells("npm", "/demo/-/demo-1.0.0.tgz", "/demo", "time 1.0.0");
        tells(
            "npm",
            "/@acme%2fui/-/ui-2.0.0.tgz",
            "/@acme%2fui",
            "time 2.0.0",
        );
        tells(
            "pypi",
            "/packages/ab/cd/Demo_Package-1.0-py3-none-any.whl.metadata",
            "/simple/demo-package/",
            "filename=Demo_Package-1.0-py3-none-any.whl upload-time",
        );
        tells(
            "cargo",
            "/crates/demo/demo-0.1.0.crate",
            "/api/v1/crates/demo/0.1.0",
            "version created_at",
        );
        tells(
            "rubygems",
            "/gems/rails-7.1.0.gem",
            "/api/v1/versions/rails.json",
            "number=7.1.0 created_at",
        );
        tells(
            "go",
            "/github.com/!burnt!sushi/toml/@v/v1.0.0.zip",
            "/github.com/!burnt!sushi/toml/@v/v1.0.0.info",
            "Time",
        );
    }

    #[test]
    fn files_may_be_elsewhere_than_their_index() {
        let files = ["files", "pythonhosted.org"].join(".");
        let (host, ..) = at("pypi", &files, "/packages/ab/cd/demo-1.0.tar.gz");
        assert_eq!(host, ["pypi", "org"].join("."));
        let archive = ["static", "crates.io"].join(".");
        let (host, ..) = at("cargo", &archive, "/crates/demo/0.1.0/download");
        assert_eq!(host, ["crates", "io"].join("."));
    }

    #[test]
    fn who_only_looks_around_is_not_asked_for_an_age() {
        for (service, path) in [
            ("npm", "/demo"),
            ("npm", "/-/whoami"),
            ("pypi", "/simple/demo/"),
            ("go", "/github.com/a/b/@v/list"),
        ] {
            assert_eq!(
                published(service, "r.example.com", path),
                Published::NoVersion,
                "{path}"
            );
        }
    }

    #[test]
    fn what_may_be_a_version_and_does_not_say_which_is_of_no_known_age() {
        for (service, path) in [
            ("npm", "/demo/-/other-1.0.0.tgz"),
            ("npm", "/prefix/npm/demo/-/demo-1.0.0.tgz"),
            ("pypi", "/files/demo-1.0.tar.gz"),
            ("rubygems", "/gems/good-2evil-1.0.gem"),
            ("oci", "/v2/acme/app/manifests/1"),
        ] {
            let found = published(service, "r.example.com", path);
            assert!(matches!(found, Published::Untold(_)), "{path}: {found:?}");
        }
    }
}
