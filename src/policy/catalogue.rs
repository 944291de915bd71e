//! The built-in catalogue: what destinations are for, as dated data.

use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::diag::{Diagnostic, Place, Source, did_you_mean};
use crate::name::{Host, HostName};

use super::paths::PathPattern;
use super::pattern::HostPattern;
use super::source::{CatalogueFile, Destination, Placed};
use super::{Category, Services, service};

/// Destinations by category. Made once, shared by every policy that is compiled over it.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The files, in the order of their names.
    pub files: Vec<(&'static str, CatalogueFile)>,
    index: Arc<Index>,
    /// What is known of the protocols that are spoken there.
    pub(super) services: Services,
}

/// What the catalogue says of one destination.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) category: Category,
    pub(super) ports: Box<[u16]>,
    /// Whose protocol is spoken there: a name of [`super::Services`].
    pub(super) service: Option<Arc<str>>,
    /// `model-api.toml:14`.
    pub(super) location: Box<str>,
    paths: Box<[Split]>,
}

/// What some paths of a destination are for.
#[derive(Debug)]
struct Split {
    category: Category,
    pattern: PathPattern,
    /// Whether a request there may ask for another protocol.
    upgrade: bool,
}

/// Entries by host: for the name itself, and for the names below it.
#[derive(Debug, Default)]
struct Index {
    entries: Vec<Entry>,
    names: HashMap<Box<str>, Site, FixedState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Site {
    exact: Option<u32>,
    below: Option<u32>,
}

/// The catalogue that is compiled into the binary (`config/catalogue/*.toml`).
///
/// Parses all of it: make one and keep it. A file that does not parse would leave its hosts
/// `unknown`, which denies; a test sees to it that all parse.
pub fn built_in() -> Catalogue {
    Catalogue::parse(&FILES).0
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$((concat!($name, ".toml"), include_str!(concat!("../../config/catalogue/", $name, ".toml")))),+]
    };
}

const FILES: [(&str, &str); 9] = files![
    "auth",
    "mcp",
    "model-api",
    "package-registry",
    "plugin",
    "source-control",
    "telemetry",
    "update",
    "webfetch",
];

impl Catalogue {
    /// Reads files, each a name and a text; what cannot be used is left out and said.
    pub fn parse(files: &[(&'static str, &str)]) -> (Self, Vec<Diagnostic>) {
        let mut findings = Vec::new();
        let mut index = Index::default();
        let mut parsed = Vec::new();
        for (name, text) in files {
            let source = Arc::new(Source::new(
                PathBuf::from("config/catalogue").join(name),
                (*text).to_owned(),
            ));
            match toml::from_str::<CatalogueFile>(text) {
                Ok(file) => {
                    for destination in &file.destination {
                        index.add(name, &source, destination, &mut findings);
                    }
                    parsed.push((*name, file));
                }
                Err(error) => findings.push(Diagnostic::error(
                    "bad-catalogue",
                    Place::new(&source, error.span().unwrap_or_default()),
                    error.message(),
                )),
            }
        }
        (
            Self {
                files: parsed,
                index: Arc::new(index),
                services: Services::built_in(),
            },
            findings,
        )
    }

    /// Every host of a category, or of one of its paths.
    pub(super) fn hosts_of(&self, category: Category) -> impl Iterator<Item = HostPattern> {
        let is_of = move |id: Option<u32>| {
            let entry = self.index.entries.get(id? as usize)?;
            let splits = || entry.paths.iter().any(|split| split.category == category);
            (entry.category == category || splits()).then_some(())
        };
        self.index.names.iter().flat_map(move |(name, site)| {
            let host = HostName::parse(name.as_bytes()).ok();
            let exact = is_of(site.exact).and(host.clone()).map(HostPattern::Exact);
            let below = is_of(site.below).and(host).map(HostPattern::Below);
            exact.into_iter().chain(below)
        })
    }

    /// The service whose protocol is spoken at a host, where it is known.
    pub fn service(&self, host: &Host) -> Option<&str> {
        self.find(host)?.service.as_deref()
    }

    /// Whether a request for that path may ask for another protocol.
    pub(super) fn upgrades(&self, host: &Host, path: &str) -> bool {
        let split = self.find(host).and_then(|entry| entry.split_of(path));
        split.is_some_and(|split| split.upgrade)
    }

    /// The entry for a host: its own, else that of the longest suffix.
    pub(super) fn find(&self, host: &Host) -> Option<&Entry> {
        let Host::Name(name) = host else { return None };
        let mut sites = name.suffixes().enumerate().filter_map(|(depth, suffix)| {
            let site = self.index.names.get(suffix)?;
            if depth == 0 { site.exact } else { site.below }
        });
        self.index.entries.get(sites.next()? as usize)
    }
}

impl Entry {
    /// The category of a path that was seen, where a split says one.
    pub(super) fn split(&self, path: &str) -> Option<Category> {
        self.split_of(path).map(|split| split.category)
    }

    fn split_of(&self, path: &str) -> Option<&Split> {
        let mut splits = self.paths.iter();
        splits.find(|split| split.pattern.matches(path))
    }
}

impl Index {
    fn add(
        &mut self,
        file: &str,
        source: &Arc<Source>,
        destination: &Destination,
        findings: &mut Vec<Diagnostic>,
    ) {
        let placed = Placed {
            source: source.clone(),
            span: destination.domain.span(),
            value: (),
        };
        let Some(entry) = entry(file, &placed, destination, findings) else {
            return;
        };
        let Ok(id) = u32::try_from(self.entries.len()) else {
            return;
        };
        self.entries.push(entry);
        for label in &destination.hosts {
            let text = expand(label.get_ref(), destination.domain.get_ref());
            let (below, name) = match HostPattern::parse(&text) {
                Ok(HostPattern::Below(name)) => (true, name),
                Ok(HostPattern::Exact(name)) => (false, name),
                Ok(HostPattern::Network(_)) => continue,
                Err(bad) => {
                    findings.push(
                        Diagnostic::error("bad-catalogue", placed.at(label), format!("`{text}`"))
                            .label(bad.label)
                            .help(bad.help),
                    );
                    continue;
                }
            };
            self.claim(below, &name, id, placed.at(label), findings);
        }
    }

    fn claim(
        &mut self,
        below: bool,
        name: &HostName,
        id: u32,
        place: Place,
        findings: &mut Vec<Diagnostic>,
    ) {
        let site = self.names.entry(name.as_str().into()).or_default();
        let slot = if below {
            &mut site.below
        } else {
            &mut site.exact
        };
        match *slot {
            None => *slot = Some(id),
            Some(other) => {
                let other = self
                    .entries
                    .get(other as usize)
                    .map_or("", |entry| &entry.location);
                findings.push(
                    Diagnostic::error(
                        "host-twice",
                        place,
                        format!("`{name}` belongs to two destinations"),
                    )
                    .label(format!("the first is at {other}")),
                );
            }
        }
    }
}

/// A label of `hosts` with its domain: `@` is the domain itself.
fn expand(label: &str, domain: &str) -> String {
    match label {
        "@" => domain.to_owned(),
        _ => format!("{label}.{domain}"),
    }
}

fn entry(
    file: &str,
    placed: &Placed<()>,
    destination: &Destination,
    findings: &mut Vec<Diagnostic>,
) -> Option<Entry> {
    let mut category = |word: &toml::Spanned<String>| {
        let found = Category::from_word(word.get_ref()).filter(|found| *found != Category::Unknown);
        if found.is_none() {
            let message = format!("`{}` is no category", word.get_ref());
            findings.push(Diagnostic::error("bad-catalogue", placed.at(word), message));
        }
        found
    };
    let whole = category(&destination.category);
    let splits: Vec<_> = destination
        .paths
        .iter()
        .map(|split| (category(&split.category), split))
        .collect();
    let mut paths = Vec::new();
    for (category, split) in splits {
        let pattern = &split.r#match;
        match PathPattern::parse(pattern.get_ref()) {
            Ok(pattern) => paths.extend(category.map(|category| Split {
                category,
                pattern,
                upgrade: split.upgrade,
            })),
            Err(label) => findings.push(
                Diagnostic::error("bad-catalogue", placed.at(pattern), "not a path pattern")
                    .label(label),
            ),
        }
    }
    let ports = destination
        .ports
        .iter()
        .filter_map(|port| u16::try_from(*port.get_ref()).ok());
    let service = destination.service.as_ref();
    if let Some(word) = service.filter(|word| !service::is_built_in(word.get_ref())) {
        let message = format!("`{}` is no service", word.get_ref());
        let help = did_you_mean(word.get_ref(), &service::known());
        findings.push(Diagnostic::error("bad-catalogue", placed.at(word), message).help(help));
    }
    let line = placed.place().line_column().0;
    Some(Entry {
        service: service.map(|word| word.get_ref().as_str().into()),
        category: whole?,
        ports: ports.collect(),
        location: format!("{file}:{line}").into(),
        paths: paths.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry<'a>(catalogue: &'a Catalogue, host: &str) -> Option<&'a Entry> {
        catalogue.find(&Host::parse(host.as_bytes()).unwrap())
    }

    fn parse(text: &str) -> (Catalogue, Vec<Diagnostic>) {
        Catalogue::parse(&[("test.toml", text)])
    }

    #[test]
    fn a_web_socket_is_expected_at_a_path_and_at_no_other() {
        let catalogue = built_in();
        let host = Host::parse(b"api.openai.com").unwrap();
        assert!(catalogue.upgrades(&host, "/v1/responses"));
        assert!(!catalogue.upgrades(&host, "/v1/responses/compact"));
        assert!(!catalogue.upgrades(&host, "/v1/files"));
    }

    #[test]
    fn labels_are_expanded_below_their_domain() {
        let (catalogue, findings) = parse(
            r#"
            dated = "2026-11-22"
            [[destination]]
            category = "update"
            domain = "example.com"
            hosts = ["@", "dl", "*.cdn"]
            source = "test"
            [[destination]]
            category = "plugin"
            domain = "example.net"
            hosts = ["*", "special"]
            ports = [8443]
            source = "test"
            "#,
        );
        assert!(findings.is_empty(), "{findings:?}");
        let category = |host| entry(&catalogue, host).map(|entry| entry.category);
        assert_eq!(category("example.com"), Some(Category::Update));
        assert_eq!(category("dl.example.com"), Some(Category::Update));
        assert_eq!(category("x.y.cdn.example.com"), Some(Category::Update));
        assert_eq!(category("cdn.example.com"), None);
        assert_eq!(category("other.example.com"), None);
        assert_eq!(category("a.example.net"), Some(Category::Plugin));
        assert_eq!(category("example.net"), None);
        assert_eq!(category("192.0.2.1"), None);
        assert_eq!(
            &*entry(&catalogue, "special.example.net").unwrap().ports,
            [8443]
        );
        assert_eq!(
            &*entry(&catalogue, "dl.example.com").unwrap().location,
            "test.toml:5"
        );
    }

    #[test]
    fn the_first_split_that_matches_says_the_category() {
        let (catalogue, findings) = parse(
            r#"
            dated = "2026-11-22"
            [[destination]]
            category = "model-api"
            domain = "example.com"
            hosts = ["api"]
            paths = [
                { category = "model-api", match = "/oauth/upload" },
                { category = "auth", match = "/oauth/**" },
            ]
            source = "test"
            "#,
        );
        assert!(findings.is_empty(), "{findings:?}");
        let entry = entry(&catalogue, "api.example.com").unwrap();
        assert_eq!(entry.split("/oauth/token"), Some(Category::Auth));
        assert_eq!(entry.split("/oauth/upload"), Some(Category::ModelApi));
        assert_eq!(entry.split("/v1/messages"), None);
    }

    #[test]
    fn a_destination_says_its_service() {
        let text = |service: &str| {
            format!(
                r#"
                dated = "2026-11-26"
                [[destination]]
                category = "package-registry"
                domain = "example.com"
                hosts = ["npm"]
                service = "{service}"
                source = "test"
                "#
            )
        };
        let (catalogue, findings) = parse(&text("npm"));
        assert!(findings.is_empty(), "{findings:?}");
        let found = entry(&catalogue, "npm.example.com").unwrap();
        assert_eq!(found.service.as_deref(), Some("npm"));
        let host = Host::parse(b"npm.example.com").unwrap();
        assert_eq!(catalogue.service(&host), Some("npm"));
        let (_, findings) = parse(&text("nmp"));
        assert_eq!(findings[0].message, "`nmp` is no service");
        assert_eq!(findings[0].help.as_deref(), Some("did you mean `npm`?"));
    }

    #[test]
    fn well_known_destinations_have_their_service() {
        let catalogue = built_in();
        for (host, service) in [
            ("api.anthropic.com", Some("anthropic")),
            ("api.github.com", Some("github")),
            ("bedrock-runtime.us-east-1.amazonaws.com", Some("bedrock")),
            ("ghcr.io", Some("oci")),
            ("github.com", Some("github")),
            ("gitlab.com", Some("gitlab")),
            ("huggingface.co", Some("huggingface")),
            ("maven.pkg.github.com", Some("maven")),
            ("npm.pkg.github.com", Some("npm")),
            (
                "productionresultssa3.blob.core.windows.net",
                Some("azure-blob"),
            ),
            ("proxy.golang.org", Some("go")),
            ("rubygems.org", Some("rubygems")),
            ("us-east5-aiplatform.googleapis.com", Some("vertex")),
            ("bitbucket.org", None),
            ("docs.rs", None),
        ] {
            let host = Host::parse(host.as_bytes()).unwrap();
            assert_eq!(catalogue.service(&host), service, "{host:?}");
        }
    }

    #[test]
    fn a_host_of_two_destinations_is_found() {
        let (_, findings) = parse(
            r#"
            dated = "2026-11-22"
            [[destination]]
            category = "auth"
            domain = "example.com"
            hosts = ["a"]
            source = "test"
            [[destination]]
            category = "update"
            domain = "a.example.com"
            hosts = ["@"]
            source = "test"
            "#,
        );
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert_eq!(
            finding.message,
            "`a.example.com` belongs to two destinations"
        );
        assert_eq!(finding.label, "the first is at test.toml:5");
    }

    #[test]
    fn the_built_in_catalogue_is_sound() {
        let (catalogue, findings) = Catalogue::parse(&FILES);
        let said: Vec<String> = findings
            .iter()
            .map(|found| format!("{:?}: {} {}", found.place, found.message, found.label))
            .collect();
        assert!(said.is_empty(), "{said:#?}");
        assert_eq!(catalogue.files.len(), FILES.len());
    }

    #[test]
    fn no_entry_of_the_built_in_catalogue_is_open_to_strangers() {
        let mut wide = Vec::new();
        for (file, destination) in destinations(&built_in()) {
            for label in &destination.hosts {
                let text = expand(label.get_ref(), destination.domain.get_ref());
                let pattern = HostPattern::parse(&text).unwrap();
                let above = ABOVE.contains(&text.trim_start_matches("*."));
                if pattern.width().is_some() || (above && matches!(pattern, HostPattern::Below(_)))
                {
                    wide.push(format!("{file}: {text}"));
                }
            }
        }
        assert!(wide.is_empty(), "{wide:#?}");
    }

    /// Domains that have public suffixes of their owner's customers below them.
    const ABOVE: [&str; 8] = [
        "amazonaws.com",
        "azure.com",
        "cloudflare.com",
        "github.com",
        "gitlab.com",
        "googleapis.com",
        "google.com",
        "windows.net",
    ];

    #[test]
    fn every_entry_of_the_built_in_catalogue_says_its_source() {
        for (file, destination) in destinations(&built_in()) {
            let domain = destination.domain.get_ref();
            assert!(!destination.source.trim().is_empty(), "{file}: {domain}");
            assert!(!destination.hosts.is_empty(), "{file}: {domain}");
            assert!(
                destination
                    .ports
                    .iter()
                    .all(|port| (1..65536).contains(port.get_ref()))
            );
        }
    }

    #[test]
    fn the_built_in_catalogue_covers_every_category() {
        let mut counts: BTreeMap<Category, usize> = BTreeMap::new();
        for (_, destination) in destinations(&built_in()) {
            let category = Category::from_word(destination.category.get_ref()).unwrap();
            *counts.entry(category).or_default() += destination.hosts.len();
        }
        for category in Category::ALL
            .into_iter()
            .filter(|known| *known != Category::Unknown)
        {
            assert!(counts.contains_key(&category), "{category}");
        }
    }

    fn destinations(catalogue: &Catalogue) -> Vec<(&'static str, Destination)> {
        let files = catalogue.files.iter();
        files
            .flat_map(|(name, file)| file.destination.iter().map(|found| (*name, found.clone())))
            .collect()
    }
}
