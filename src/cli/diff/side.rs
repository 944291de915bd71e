//! Loads the two policies of a comparison: from a file, a folder, or a commit.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::{self, LoadedPolicy};
use crate::diag::{self, Diagnostic, Severity};
use crate::policy::{self, Catalogue, Policy};
use crate::vcs::{Commit, Repository, RevisionError};

/// The name of the file in a folder.
const FILE: &str = "tidegate.toml";
/// The contents of a file of a commit that is not read. It is no TOML, so a policy that includes
/// the file does not load.
const NOT_READ: &str =
    "`tidegate diff` reads no links, and only files whose names end in .toml: rename this file\n";

/// One of the two policies.
#[derive(Debug)]
pub(super) struct Side {
    /// The argument: a path, or a revision and a path.
    pub(super) label: String,
    pub(super) digest: String,
    pub(super) policy: Policy,
    /// The sections of all files, each with its text.
    pub(super) sections: Vec<(String, String)>,
    /// The exceptions of the files.
    pub(super) exceptions: Vec<toml::Value>,
    /// The rules of the files.
    pub(super) rules: Vec<toml::Value>,
    /// The file of records of a gate with this policy; for a commit, in the working copy.
    pub(super) log: Option<PathBuf>,
    /// The file, if `--config` can name it.
    pub(super) file: Option<PathBuf>,
    /// The name for the folder of a commit in the locations of rules.
    renamed: Option<(String, String)>,
    /// The files of a commit; they are removed at the end.
    _folder: Option<TempDir>,
}

/// The reason why there is no policy.
#[derive(Debug)]
pub(super) enum SideError {
    /// The arguments are wrong; a message for people.
    Wrong(String),
    /// The policy does not load: its findings, as text.
    Findings(String),
    /// `git` failed.
    Git(RevisionError),
}

/// The location of a policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// A file, or a folder with one.
    File(PathBuf),
    /// A file in a commit: the revision, and the path from the top of the repository, if given.
    Revision(String, Option<String>),
}

impl From<RevisionError> for SideError {
    fn from(error: RevisionError) -> Self {
        Self::Git(error)
    }
}

/// Parses the arguments of a command: `A B`, or `A..B` with a path.
pub(super) fn places(words: &[String], path: Option<&str>) -> Result<[Place; 2], String> {
    let revision = |text: &str| Place::Revision(text.to_owned(), path.map(str::to_owned));
    match words {
        [range] if !Path::new(range).exists() => {
            let parts = range
                .split_once("...")
                .map(|(one, other)| (one, other, true));
            let parts = parts.or_else(|| range.split_once("..").map(|(a, b)| (a, b, false)));
            let Some((one, other, from_base)) = parts else {
                return Err(format!(
                    "`{range}` is neither two policies nor a range: write `A B`, or `main..HEAD`"
                ));
            };
            let head = |text: &str| if text.is_empty() { "HEAD" } else { text }.to_owned();
            let (one, other) = (head(one), head(other));
            if from_base {
                return Ok([revision(&format!("{one}...{other}")), revision(&other)]);
            }
            Ok([revision(&one), revision(&other)])
        }
        [one, other] => Ok([place(one, path), place(other, path)]),
        _ => Err("two policies are compared: write `A B`, or `main..HEAD`".to_owned()),
    }
}

fn place(text: &str, path: Option<&str>) -> Place {
    if Path::new(text).exists() || is_toml(text) && !text.contains(':') {
        return Place::File(PathBuf::from(text));
    }
    match text.split_once(':') {
        Some((revision, path)) => Place::Revision(revision.to_owned(), Some(path.to_owned())),
        None => Place::Revision(text.to_owned(), path.map(str::to_owned)),
    }
}

impl Side {
    /// Reads and compiles the policy at a location, with the `catalogue` of this program.
    pub(super) fn read(place: &Place, catalogue: &Catalogue) -> Result<Self, SideError> {
        match place {
            Place::File(path) => Self::of_file(path, catalogue),
            Place::Revision(revision, path) => {
                Self::of_revision(revision, path.as_deref(), catalogue)
            }
        }
    }

    fn of_file(path: &Path, catalogue: &Catalogue) -> Result<Self, SideError> {
        let file = if path.is_dir() {
            path.join(FILE)
        } else {
            path.to_owned()
        };
        let label = file.display().to_string();
        let side = Self::load(&file, label, None, catalogue)?;
        Ok(Self {
            file: Some(file),
            ..side
        })
    }

    fn of_revision(
        revision: &str,
        path: Option<&str>,
        catalogue: &Catalogue,
    ) -> Result<Self, SideError> {
        let repository = Repository::around(Path::new("."))?;
        let commit = commit(&repository, revision)?;
        let path = path.unwrap_or(FILE);
        let folder = TempDir::new().map_err(RevisionError::from)?;
        let wanted = |name: &str| name == path || is_toml(name);
        let others = repository.write_files(&commit, wanted, folder.path())?;
        mark_not_read(&others, folder.path()).map_err(RevisionError::from)?;
        let top = folder.path().canonicalize().map_err(RevisionError::from)?;
        let mut file = top.join(path);
        if file.is_dir() {
            file = file.join(FILE);
        }
        let short = revision.split("...").next().unwrap_or(revision);
        let label = format!("{short}:{path}");
        if !file.is_file() {
            let message = format!("{label}: the commit has no such file; write `REV:PATH`");
            return Err(SideError::Wrong(message));
        }
        let renamed = (format!("{}/", top.display()), format!("{short}:"));
        let side = Self::load(&file, label, Some(renamed), catalogue)?;
        let log = side.log.as_deref().map(|log| {
            let inside = log.strip_prefix(&top).ok();
            inside.map_or_else(|| log.to_owned(), |inside| repository.top().join(inside))
        });
        Ok(Self {
            log,
            _folder: Some(folder),
            ..side
        })
    }

    fn load(
        file: &Path,
        label: String,
        renamed: Option<(String, String)>,
        catalogue: &Catalogue,
    ) -> Result<Self, SideError> {
        let (loaded, mut findings) = config::load_policy(file);
        let compiled = loaded.as_ref().and_then(|loaded| {
            let (policy, more) = policy::compile(&loaded.policy, catalogue);
            findings.extend(more);
            policy
        });
        let (Some(loaded), Some(policy)) = (loaded, compiled) else {
            findings.retain(|finding| finding.severity == Severity::Error);
            return Err(SideError::Findings(drawn(&findings, renamed.as_ref())));
        };
        if let Some(missing) = findings.iter().find(|it| it.code == "include-empty") {
            return Err(SideError::Findings(drawn(
                std::slice::from_ref(missing),
                renamed.as_ref(),
            )));
        }
        Ok(Self {
            digest: loaded.digest.to_string(),
            exceptions: tables(&loaded, "exception"),
            rules: tables(&loaded, "rule"),
            sections: sections(&loaded)
                .map(|(name, value)| (name, value.to_string()))
                .collect(),
            log: loaded.log,
            label,
            policy,
            file: None,
            renamed,
            _folder: None,
        })
    }

    /// Returns a location in the reader's words: `main:policy/web.toml:31`.
    pub(super) fn rename(&self, location: &str) -> String {
        match &self.renamed {
            Some((folder, name)) => location.replace(folder, name),
            None => location.to_owned(),
        }
    }
}

/// Marks the unread entries of a commit that a pattern of `include` could name. Patterns name files
/// of one folder: folders without a read file do not exist.
fn mark_not_read(names: &[String], folder: &Path) -> io::Result<()> {
    for name in names {
        let file = folder.join(name);
        if file.parent().is_some_and(Path::is_dir) && !file.is_dir() {
            std::fs::write(file, NOT_READ)?;
        }
    }
    Ok(())
}

fn is_toml(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|end| end == "toml")
}

fn drawn(findings: &[Diagnostic], renamed: Option<&(String, String)>) -> String {
    let text = diag::render(findings, false);
    match renamed {
        Some((folder, name)) => text.replace(folder, name),
        None => text,
    }
}

/// In `A...B`, the first side is the best common ancestor of both.
fn commit(repository: &Repository, revision: &str) -> Result<Commit, RevisionError> {
    match revision.split_once("...") {
        Some((one, other)) => {
            let (one, other) = (repository.commit(one)?, repository.commit(other)?);
            repository.merge_base(&one, &other)
        }
        None => repository.commit(revision),
    }
}

/// Returns the tables of a section that may occur several times.
fn tables(loaded: &LoadedPolicy, section: &str) -> Vec<toml::Value> {
    let written = sections(loaded).filter(|(name, _)| name == section);
    let all = written.flat_map(|(_, value)| match value {
        toml::Value::Array(all) => all,
        other => vec![other],
    });
    all.collect()
}

/// Returns the sections of all files.
fn sections(loaded: &LoadedPolicy) -> impl Iterator<Item = (String, toml::Value)> {
    loaded.sources.iter().flat_map(|source| {
        let table: toml::Table = toml::from_str(&source.text).unwrap_or_default();
        table
    })
}
