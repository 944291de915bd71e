//! Tests that the gate's folders and the user's secrets are absent, and the system is read-only.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use super::{Inside, Tried};

/// Usual places of secrets, relative to the home.
const SECRETS: [&str; 18] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".npm-global/etc/npmrc",
    ".dotnet/corefx",
    ".local/share/keyrings",
    ".local/share/opencode/auth.json",
    ".local/share/uv/credentials",
    ".m2/settings.xml",
    ".pypirc",
    ".cargo/credentials.toml",
    ".azure",
    ".config/gcloud",
    ".config/gh",
    ".docker/config.json",
    ".git-credentials",
    ".kube",
    ".netrc",
];
/// Maximum depth below a folder of the gate, and maximum number of entries, of the search for
/// files.
const MAX_DEPTH: usize = 3;
const MAX_ENTRIES: usize = 10_000;
/// System folders that no command in a jail can write.
const SYSTEM: [&str; 4] = ["/usr", "/etc", "/bin", "/usr/bin"];

pub(super) fn are_absent(inside: &Inside<'_>) -> Tried {
    for folder in &inside.absent {
        let mut room = MAX_ENTRIES;
        if let Some(file) = file_of_the_gate(folder, MAX_DEPTH, &mut room) {
            return Err(format!("a file of the gate is here: {}", file.display()));
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

/// Returns a file in a folder of the gate, except the certificates that it publishes for clients.
fn file_of_the_gate(folder: &Path, depth: usize, room: &mut usize) -> Option<PathBuf> {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let published = entry.file_name().to_string_lossy().starts_with("trust-");
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        *room = room.saturating_sub(1);
        if *room == 0 || is_folder && depth == 0 || !is_folder && !published {
            return Some(entry.path());
        }
        if is_folder && let Some(file) = file_of_the_gate(&entry.path(), depth - 1, room) {
            return Some(file);
        }
    }
    None
}

/// Whether a path is absent, or a folder without entries.
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
