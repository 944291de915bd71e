//! `[[workspace]]`: the folders that are working copies of a repository.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::policy::source::Placed;
use crate::policy::{Pattern, PatternKind};

use super::names::Names;
use super::value::shortened;

/// The folders that are working copies, with their repositories; at most one for each folder.
#[derive(Clone, Debug, Default)]
pub struct Workspaces(Arc<[Workspace]>);

/// Folders that are working copies of one repository, with all that is below them.
#[derive(Debug)]
struct Workspace {
    /// The names of the folders from the root on; `*` in a name matches any characters.
    path: Vec<Pattern>,
    repository: Arc<str>,
}

/// The text of `[[workspace]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    path: Option<Spanned<String>>,
    repository: Option<Spanned<String>>,
}

impl Workspaces {
    /// Returns the repository of a folder, whose path has no symbolic links.
    pub fn repository_of(&self, folder: &Path) -> Option<&Arc<str>> {
        let found = self.0.iter().find(|workspace| workspace.holds(folder));
        found.map(|workspace| &workspace.repository)
    }
}

impl Workspace {
    /// Whether a folder matches the path, or is below a match.
    fn holds(&self, folder: &Path) -> bool {
        let mut names = folder.iter().skip(1);
        folder.is_absolute()
            && self.path.iter().all(|pattern| {
                let name = names.next().and_then(|name| name.to_str());
                name.is_some_and(|name| pattern.matches(name))
            })
    }

    /// Whether a folder could match both.
    fn overlaps(&self, other: &Self) -> bool {
        let mut both = self.path.iter().zip(&other.path);
        both.all(|(one, other)| one.intersects(other))
    }
}

/// Reads the workspaces.
pub(super) fn workspaces(
    sections: &[Placed<Section>],
    names: &Names<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Workspaces {
    let mut workspaces: Vec<Workspace> = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    for section in sections {
        let Section { path, repository } = &section.value;
        let (Some(path), Some(repository)) = (path, repository) else {
            findings.push(missing(section));
            continue;
        };
        let repository = names.repository(section, repository, findings);
        let place = section.at(path);
        let parsed = parse(path.get_ref()).map_err(|why| {
            let message = format!("`{}` names no folder: {why}", shortened(path.get_ref()));
            let finding = Diagnostic::error("bad-path", place.clone(), message);
            findings.push(finding.help("write e.g. `path = \"/srv/src/payments/**\"`"));
        });
        let (Ok(parsed), Some(repository)) = (parsed, repository) else {
            continue;
        };
        let workspace = Workspace {
            path: parsed,
            repository,
        };
        findings.extend(replaceable(&workspace, &place));
        let mut before = workspaces.iter().zip(&places);
        let clash = before.find(|(other, _)| {
            other.repository != workspace.repository && other.overlaps(&workspace)
        });
        if let Some((other, first)) = clash {
            let message = format!(
                "a folder would be a working copy of both `{}` and `{}`",
                other.repository, workspace.repository
            );
            let finding = Diagnostic::error("workspace-overlap", place.clone(), message);
            let finding = finding
                .label("a folder may fit this")
                .related(first.clone(), "and this");
            findings.push(finding.help("write paths of which none is inside another one"));
        }
        workspaces.push(workspace);
        places.push(place);
    }
    Workspaces(workspaces.into())
}

fn missing(section: &Placed<Section>) -> Diagnostic {
    let key = match section.value.path {
        None => "path",
        Some(_) => "repository",
    };
    let message = "`[[workspace]]` needs a `path` and a `repository`";
    Diagnostic::error("missing-key", section.place(), message)
        .label(format!("`{key}` is missing"))
        .help("write e.g. `path = \"/srv/src/web/**\"` and `repository = \"github.com/acme/web\"`")
}

/// Returns the names of an absolute path, without a `/**` at its end.
fn parse(text: &str) -> Result<Vec<Pattern>, String> {
    let path = text.strip_suffix("/**").unwrap_or(text);
    if matches!(path, "" | "/") && text.starts_with('/') {
        return Err("the whole file system is no working copy".into());
    }
    let rest = path.strip_prefix('/').ok_or("it has to begin with `/`")?;
    rest.split('/').map(folder).collect()
}

fn folder(name: &str) -> Result<Pattern, String> {
    match name {
        "" => Err("a name in it is empty".into()),
        "." | ".." => Err("`.` and `..` are no names of folders here".into()),
        name if name.contains("**") => Err("`**` may only be its end, behind a `/`".into()),
        name => Pattern::parse(name, PatternKind::Text).map_err(|error| error.to_string()),
    }
}

/// Returns a warning if a user other than root can replace a mapped folder by another folder or a
/// symbolic link.
fn replaceable(workspace: &Workspace, place: &Place) -> Option<Diagnostic> {
    let mut at = PathBuf::from("/");
    let names = workspace.path.iter().map(Pattern::as_str);
    for name in names.take_while(|name| !name.contains('*')) {
        let folder = std::fs::metadata(&at).ok()?;
        let mode = folder.permissions().mode();
        let why = if folder.uid() != 0 {
            format!("{} belongs to user {}", at.display(), folder.uid())
        } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            format!("{} has the mode {:o}", at.display(), mode & 0o7777)
        } else {
            at.push(name);
            continue;
        };
        let message = format!("a user can put another folder in the place of this one: {why}");
        let finding = Diagnostic::warning("workspace-writable", place.clone(), message);
        return Some(finding.help(
            "that folder would count as this repository: keep working copies below folders of root",
        ));
    }
    let is_link = at.symlink_metadata().is_ok_and(|it| it.is_symlink());
    is_link.then(|| {
        let message = format!(
            "{} is a symbolic link: no folder has this path",
            at.display()
        );
        let finding = Diagnostic::warning("workspace-link", place.clone(), message);
        match at.canonicalize() {
            Ok(real) => finding.help(format!("write `{}`", real.display())),
            Err(_) => finding,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(path: &str) -> Workspace {
        Workspace {
            path: parse(path).unwrap(),
            repository: "github.com/acme/web".into(),
        }
    }

    #[test]
    fn a_folder_and_what_is_below_it_belong_to_it() {
        for path in ["/srv/src/payments/**", "/srv/src/payments"] {
            let payments = workspace(path);
            for inside in ["/srv/src/payments", "/srv/src/payments/a/b"] {
                assert!(payments.holds(Path::new(inside)), "{inside}");
            }
            for outside in [
                "/srv/src",
                "/srv/src/payments-api",
                "/srv/src/Payments",
                "srv/src/payments",
                "/x/srv/src/payments",
            ] {
                assert!(!payments.holds(Path::new(outside)), "{outside}");
            }
        }
        let all = workspace("/home/*/src/web-*/**");
        assert!(all.holds(Path::new("/home/ana/src/web-1/x")));
        assert!(!all.holds(Path::new("/home/ana/x/src/web-1")));
    }

    #[test]
    fn folders_that_may_be_the_same_overlap() {
        for (one, other, overlap) in [
            ("/srv/a", "/srv/a/b", true),
            ("/srv/a/**", "/srv/b/**", false),
            ("/srv/a*/x", "/srv/ab/x/y", true),
            ("/srv/a*/x", "/srv/*b/x", true),
            ("/srv/a*", "/srv/b*", false),
            ("/srv/*-a", "/srv/*-b", false),
        ] {
            let (one, other) = (workspace(one), workspace(other));
            assert_eq!(one.overlaps(&other), overlap, "{one:?} {other:?}");
            assert_eq!(other.overlaps(&one), overlap, "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_names_no_folder_is_refused() {
        for text in [
            "", "/", "/**", "srv/a", "./a", "/a/../b", "/a//b", "/a/**/b", "/a**",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
