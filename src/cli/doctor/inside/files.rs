//! Whether the gate's folders and the user's secrets are absent, and the system cannot be written.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use super::{Inside, Tried};

/// Where people keep secrets, below their home.
const SECRETS: [&str; 10] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/gh",
    ".docker/config.json",
    ".git-credentials",
    ".kube",
    ".netrc",
];
/// Folders of the system that no command in a jail writes.
const SYSTEM: [&str; 4] = ["/usr", "/etc", "/bin", "/usr/bin"];

pub(super) fn are_absent(inside: &Inside<'_>) -> Tried {
    for folder in &inside.absent {
        if !is_empty(folder) {
            return Err(format!("the gate's folder {} is here", folder.display()));
        }
    }
    let home = inside.around.get("HOME").map(PathBuf::from);
    for secret in home
        .iter()
        .flat_map(|home| SECRETS.map(|name| home.join(name)))
    {
        if !is_empty(&secret) {
            return Err(format!("{} is here", secret.display()));
        }
    }
    Ok("the gate's folders and the usual secrets of the home are not here".to_owned())
}

/// Whether nothing is there, or a folder without entries.
fn is_empty(path: &Path) -> bool {
    match path.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        // A file that cannot be opened is not readable either.
        Err(_) => std::fs::File::open(path).is_err() || path.is_dir(),
    }
}

pub(super) fn are_read_only() -> Tried {
    let name = format!(".tidegate-doctor-{}", std::process::id());
    for folder in SYSTEM {
        let path = Path::new(folder).join(&name);
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        if made.is_ok() {
            let _ = std::fs::remove_file(&path);
            return Err(format!("{folder} can be written"));
        }
    }
    Ok("no file can be made in the folders of the system".to_owned())
}
