//! Reads the files of the catalogue.

use std::sync::Arc;

use crate::diag::{Diagnostic, Place, Source};
use crate::policy::Services;
use crate::policy::catalogue::Catalogue;
use crate::policy::directory::Directory;
use crate::policy::findings::Findings;
use crate::policy::source::{CatalogueFile, Placed};

use super::destinations;

/// Returns the catalogue that is compiled into the binary (`config/catalogue/*.toml`).
///
/// Parses all of it: call once and keep the result. The hosts of a file that does not parse would
/// be `unknown`, which denies; a test checks that all files parse.
pub fn built_in() -> Catalogue {
    Catalogue::parse(&FILES).0
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$((concat!($name, ".toml"), include_str!(concat!("../../../config/catalogue/", $name, ".toml")))),+]
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
    /// Reads files, each a name and a text; leaves out invalid entries and reports them.
    pub fn parse(files: &[(&'static str, &str)]) -> (Self, Vec<Diagnostic>) {
        let mut findings = Findings::default();
        let mut parsed = Vec::new();
        let mut placed = Vec::new();
        for (name, text) in files {
            let source = Arc::new(Source::new(*name, (*text).to_owned()));
            match toml::from_str::<CatalogueFile>(text) {
                Ok(file) => {
                    placed.extend(file.destination.iter().map(|destination| Placed {
                        source: source.clone(),
                        span: destination.category.span(),
                        value: destination.clone(),
                    }));
                    parsed.push((*name, file));
                }
                Err(error) => findings.push(Diagnostic::error(
                    "bad-catalogue",
                    Place::new(&source, error.span().unwrap_or_default()),
                    error.message(),
                )),
            }
        }
        let catalogue = Self {
            files: parsed,
            directory: Arc::new(Directory::new(destinations::read_all(
                &placed,
                &mut findings,
            ))),
            services: Services::built_in(),
        };
        (catalogue, findings.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::name::{Host, Path};
    use crate::policy::Category;
    use crate::policy::directory;
    use crate::policy::source::Destination;

    fn entry<'a>(catalogue: &'a Catalogue, host: &str) -> Option<&'a directory::Destination> {
        catalogue
            .directory
            .find(&Host::parse(host.as_bytes()).unwrap())
    }

    fn parse(text: &str) -> (Catalogue, Vec<Diagnostic>) {
        Catalogue::parse(&[("test.toml", text)])
    }

    #[test]
    fn a_web_socket_is_expected_at_a_path_and_at_no_other() {
        let catalogue = built_in();
        let openai = entry(&catalogue, "api.openai.com").unwrap();
        assert!(openai.expects_upgrade("/v1/responses"));
        assert!(!openai.expects_upgrade("/v1/responses/compact"));
        assert!(!openai.expects_upgrade("/v1/files"));
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
        assert_eq!(findings[0].message, "unknown service `nmp`");
        assert_eq!(findings[0].help.as_deref(), Some("did you mean `npm`?"));
    }

    #[test]
    fn only_the_bucket_of_chrome_for_testing_is_a_registry() {
        let catalogue = built_in();
        let store = entry(&catalogue, "storage.googleapis.com").unwrap();
        assert_eq!(store.category, Category::Unknown);
        let bucket = "/chrome-for-testing-public/131.0.6778.85/linux64/chrome-linux64.zip";
        assert_eq!(store.split(bucket), Some(Category::PackageRegistry));
        assert_eq!(store.split("/chrome-for-testing-public-2/x"), None);
        assert_eq!(store.split("/other/x"), None);
        // No path leads out of the bucket by `..`, in any spelling.
        let other = Path::parse(b"/chrome-for-testing-public/x%2F..%2F..%2Fother/x");
        assert!(other.is_err());
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
        assert_eq!(finding.label, "again here");
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
    fn no_entry_of_the_built_in_catalogue_matches_hosts_of_other_owners() {
        let mut wide = Vec::new();
        for (file, destination) in all(&built_in()) {
            for label in &destination.hosts {
                let pattern = destinations::pattern(&destination, label.get_ref()).unwrap();
                let text = pattern.to_string();
                if pattern.width().is_some() {
                    wide.push(format!("{file}: {text}"));
                }
            }
        }
        assert!(wide.is_empty(), "{wide:#?}");
    }

    #[test]
    fn every_entry_of_the_built_in_catalogue_says_its_source() {
        for (file, destination) in all(&built_in()) {
            let domain = destination.domain.as_ref().expect(file).get_ref();
            let source = destination.source.as_deref().unwrap_or_default();
            assert!(!source.trim().is_empty(), "{file}: {domain}");
            assert!(!destination.hosts.is_empty(), "{file}: {domain}");
            assert!(
                destination
                    .ports
                    .iter()
                    .all(|port| (1..65536).contains(port.get_ref()))
            );
        }
    }

    /// Otherwise `[catalogue] agents` could not leave out the vendors of other agents.
    #[test]
    fn every_model_api_of_the_built_in_catalogue_names_its_agents() {
        for (file, destination) in all(&built_in()) {
            let domain = destination.domain.as_ref().expect(file).get_ref();
            let is_model = destination.category.get_ref() == "model-api";
            assert!(
                !is_model || !destination.agents.is_empty(),
                "{file}: {domain}"
            );
        }
    }

    #[test]
    fn the_built_in_catalogue_covers_every_category() {
        let mut counts: BTreeMap<Category, usize> = BTreeMap::new();
        for (_, destination) in all(&built_in()) {
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

    fn all(catalogue: &Catalogue) -> Vec<(&'static str, Destination)> {
        let files = catalogue.files.iter();
        files
            .flat_map(|(name, file)| file.destination.iter().map(|found| (*name, found.clone())))
            .collect()
    }
}
