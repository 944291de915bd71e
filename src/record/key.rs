//! The key that signs checkpoints, and the memory file with the last checkpoint beside the key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::HEXLOWER;
use rustix::fs::OFlags;
use uuid::Uuid;

use super::chain::{self, Head};

/// Maximum size of a key file, in bytes.
const MAX_KEY: u64 = 4096;
/// Size of the memory file, in bytes: a number, a blank, a hash, a newline.
const MEMORY: usize = 20 + 1 + 64 + 1;

/// The key of an instance, with the last checkpoint that the key signed.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) key: Ed25519KeyPair,
    memory: File,
    /// The line of the log that was the last at that checkpoint.
    pub(super) head: Head,
}

impl Signer {
    /// Reads or makes the key, and reads the last checkpoint of this log from the memory file.
    pub(super) fn open(path: &Path, log: &Path) -> io::Result<Self> {
        let key = key(path)?;
        let memory_path = memory_path(path, log);
        let memory = owner_only()
            .create(true)
            .truncate(false)
            .open(&memory_path)
            .map_err(|error| annotate(&error, &memory_path))?;
        let head = recall(&memory);
        Ok(Self { key, memory, head })
    }

    /// Writes a checkpoint that is in the log to the memory file.
    pub(super) fn remember(&mut self, head: Head) {
        self.head = head;
        let text = format!("{:020} {}\n", head.seq, HEXLOWER.encode(&head.hash));
        if let Err(error) = self.memory.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(%error, "the last checkpoint of the decision log cannot be remembered");
        }
    }
}

/// Returns the public key of the instance with the key file `path`.
pub fn public_key(path: &Path) -> io::Result<String> {
    let file = owner_only()
        .open(path)
        .map_err(|error| annotate(&error, path))?;
    Ok(chain::public_hex(&read(&file, path)?))
}

fn key(path: &Path) -> io::Result<Ed25519KeyPair> {
    match owner_only().open(path) {
        Ok(file) => read(&file, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|error| annotate(&error, path))?;
            let file = owner_only()
                .open(path)
                .map_err(|error| annotate(&error, path))?;
            read(&file, path)
        }
        Err(error) => Err(annotate(&error, path)),
    }
}

fn read(file: &File, path: &Path) -> io::Result<Ed25519KeyPair> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        let message = format!(
            "{}: the key that signs checkpoints can be read by others than its owner (mode {:o}); \
             `chmod 600` it, or remove it and a new one is made",
            path.display(),
            metadata.mode() & 0o777
        );
        return Err(io::Error::other(message));
    }
    let mut der = Vec::new();
    file.take(MAX_KEY).read_to_end(&mut der)?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| {
        let message = format!(
            "{}: this file holds no Ed25519 key; name another file in `[record] key`, or move \
             this one away and a new one is made",
            path.display()
        );
        io::Error::other(message)
    })
}

/// Makes a key file. If another process makes the file at the same time, one of both stays.
fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let failed = |_| io::Error::other("no key can be made");
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let der = pair.to_pkcs8v1().map_err(failed)?;
    let mut fresh_path = path.as_os_str().to_owned();
    fresh_path.push(format!(".{}", Uuid::now_v7()));
    let fresh_path = PathBuf::from(fresh_path);
    let mut fresh = owner_only().create_new(true).open(&fresh_path)?;
    let linked = fresh
        .write_all(der.as_ref())
        .and_then(|()| fresh.sync_all())
        .and_then(|()| match fs::hard_link(&fresh_path, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let _ = fs::remove_file(&fresh_path);
    linked
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(flags);
    options
}

/// Returns the path of the memory file of a log, which is beside the key.
fn memory_path(key: &Path, log: &Path) -> PathBuf {
    let mut name = log.file_name().unwrap_or_default().to_owned();
    name.push(".chain");
    key.with_file_name(name)
}

fn recall(memory: &File) -> Head {
    let mut text = [0; MEMORY];
    if memory.read_exact_at(&mut text, 0).is_err() {
        return Head::default();
    }
    let parse = || {
        let (seq, rest) = text.split_at_checked(20)?;
        let seq = str::from_utf8(seq).ok()?.parse().ok()?;
        let hash = chain::from_hex(rest.get(1..65)?)?;
        Some(Head { seq, hash })
    };
    parse().unwrap_or_default()
}

fn annotate(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
