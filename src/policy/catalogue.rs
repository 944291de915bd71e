//! The built-in catalogue: what destinations are for, as dated data.

use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::diag::{Diagnostic, Place, Source};
use crate::name::{Host, HostName};

use super::Category;
use super::paths::PathPattern;
use super::pattern::HostPattern;
use super::source::{CatalogueFile, Destination, Placed};

/// Destinations by category. Made once, shared by every policy that is compiled over it.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The files, in the order of their names.
    pub files: Vec<(&'static str, CatalogueFile)>,
    index: Arc<Index>,
}

/// What the catalogue says of one destination.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) category: Category,
    pub(super) ports: Box<[u16]>,
    /// `model-api.toml:14`.
    pub(super) location: Box<str>,
    paths: Box<[(Category, PathPattern)]>,
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

const FILES: [(&str, &str); 0] = [];

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
            },
            findings,
        )
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
        let mut splits = self.paths.iter();
        splits
            .find(|(_, pattern)| pattern.matches(path))
            .map(|(category, _)| *category)
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
        .map(|split| (category(&split.category), &split.r#match))
        .collect();
    let mut paths = Vec::new();
    for (category, pattern) in splits {
        match PathPattern::parse(pattern.get_ref()) {
            Ok(parsed) => paths.extend(category.map(|category| (category, parsed))),
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
    let line = placed.place().line_column().0;
    Some(Entry {
        category: whole?,
        ports: ports.collect(),
        location: format!("{file}:{line}").into(),
        paths: paths.into(),
    })
}
