//! Settings files: reads them within bounds, replaces them atomically, and keeps backups beside
//! them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config;

/// Maximum size of a settings file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Maximum number of backups.
const MAX_BACKUPS: usize = 100;

/// Returns the text of the file; `None` if there is none.
pub(in crate::cli) fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
        Ok(meta) if !meta.is_file() || meta.len() > MAX_FILE_BYTES => {
            return Err(format!("{}: this is no file of settings", path.display()));
        }
        Ok(_) => {}
    }
    let text = config::read(path).map_err(|error| error.to_string())?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

/// Replaces the file atomically; returns the path of the backup.
pub(in crate::cli) fn write(
    path: &Path,
    before: Option<&str>,
    after: &str,
) -> io::Result<Option<PathBuf>> {
    // A link stays a link: its target is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mode = fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
    let backup = match before {
        Some(before) => Some(keep(path, before, mode)?),
        None => None,
    };
    let mut next = path.clone().into_os_string();
    next.push(".tidegate-new");
    let next = PathBuf::from(next);
    let _ = fs::remove_file(&next);
    create(&next, after, mode)?;
    fs::rename(&next, path)?;
    Ok(backup)
}

fn keep(path: &Path, before: &str, mode: u32) -> io::Result<PathBuf> {
    for at in 0..MAX_BACKUPS {
        let mut name = path.to_owned().into_os_string();
        name.push(format!(".before-tidegate-{at}"));
        let name = PathBuf::from(name);
        match create(&name, before, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done.map(|()| name),
        }
    }
    Err(io::Error::other(
        "too many earlier files are kept beside it",
    ))
}

fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
