//! The home of the account, and the notes to the user about files that the view leaves out.

use std::path::{Path, PathBuf};

use crate::config;

use super::{Content, View, settings};

/// Returns the home of this user in the user database; ignores `HOME`.
pub(super) fn of_account() -> Option<PathBuf> {
    let table = config::read(Path::new("/etc/passwd")).ok()?;
    let home = home_in(&table, rustix::process::geteuid().as_raw())?;
    let home = home.canonicalize().ok()?;
    (home.is_dir() && home.parent().is_some()).then_some(home)
}

fn home_in(table: &str, user: u32) -> Option<PathBuf> {
    let user = user.to_string();
    let mut lines = table.lines().map(|line| line.split(':'));
    let mut found = lines.find(|fields| fields.clone().nth(2) == Some(&user))?;
    found.nth(5).map(PathBuf::from)
}

/// Adds notes about left-out files, with the option that shows each.
pub(super) fn note(view: &mut View, copy: &Path) {
    let mut notes = Vec::new();
    for (path, content) in &view.places {
        let text = match content {
            Content::Settings => config::read(path).unwrap_or_default(),
            _ => continue,
        };
        if let Some(line) = settings::credential(text.as_bytes()) {
            let path = path.display();
            notes.push(format!(
                "{path} is left out: line {line} looks like a credential. To show all of it, add \
                 --share {path}:ro"
            ));
        }
    }
    if let Some(git) = git_folder(copy).filter(|git| !view.shows(git)) {
        let git = git.display();
        notes.push(format!(
            "git does not work inside: {}/.git names {git}, which is left out. Start in the \
             repository above, or add --share {git} (programs outside run its hooks)",
            copy.display()
        ));
    }
    view.notes.extend(notes);
}

/// Returns the git folder of a submodule, or one made by `git init --separate-git-dir`.
fn git_folder(copy: &Path) -> Option<PathBuf> {
    let file = copy.join(".git");
    if !file.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let text = config::read(&file).ok()?;
    let named = copy.join(text.trim().strip_prefix("gitdir:")?.trim());
    let folder = named.canonicalize().ok()?;
    let is_git = folder.join("HEAD").is_file() && folder.join("refs").is_dir();
    (is_git && !folder.starts_with(copy)).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_an_account_is_its_own() {
        let table = "root:x:0:0:root:/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\n";
        assert_eq!(home_in(table, 1000), Some("/home/ana".into()));
        assert_eq!(home_in(table, 100), None);
    }
}
