//! Copies of the policies that were in force, beside the records.
//!
//! Each copy is named by the SHA-256 of its text, and `policy_loaded` records that name: a changed
//! text no longer matches its name. A process with the uid of the gate can remove copies; the
//! records still name them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::config::{self, Config, Record};
use crate::policy::{self, Catalogue, Policy};

/// The folder beside the records.
const FOLDER: &str = "policies";
/// The number of copies kept: the newest.
const MAX_COPIES: usize = 50;
/// The size limit of a copied policy, in bytes.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of the description of a change, at most.
const MAX_WORDS: usize = 900;

/// The copies of one gate.
#[derive(Clone, Debug)]
pub struct PolicyCopies {
    folder: PathBuf,
}

/// One copy of a policy.
#[derive(Clone, Debug)]
pub struct PolicyCopy {
    /// The SHA-256 of the copied text, in hex.
    pub digest: String,
    /// The file of the copy.
    pub file: PathBuf,
    /// The last time the policy was put in force.
    pub loaded: SystemTime,
}

/// Why a copy cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// No copy, or several copies, have a digest with this prefix.
    #[error("{1} copies have a digest that begins with {0}: see `tidegate policy list`")]
    Name(String, usize),
    /// The text does not match the digest in the file name.
    #[error("{0} was changed: its text does not have the digest that it is named after")]
    Changed(PathBuf),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl PolicyCopies {
    /// The copies beside the records; `None` where records go to standard output.
    pub fn beside(record: &Record) -> Option<Self> {
        let folder = record.file.as_deref()?.parent()?.join(FOLDER);
        Some(Self { folder })
    }

    /// Lists every copy, the newest first.
    pub fn list(&self) -> io::Result<Vec<PolicyCopy>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut copies = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(digest) = name.strip_suffix(".toml").filter(|it| is_digest(it)) else {
                continue;
            };
            copies.push(PolicyCopy {
                digest: digest.to_owned(),
                loaded: entry.metadata()?.modified()?,
                file: entry.path(),
            });
        }
        copies.sort_by(|a, b| (b.loaded, &a.digest).cmp(&(a.loaded, &b.digest)));
        Ok(copies)
    }

    /// Returns the copy whose digest begins with `digest`, and its text.
    pub fn find(&self, digest: &str) -> Result<(PolicyCopy, String), CopyError> {
        let mut found = self.list()?;
        found.retain(|copy| copy.digest.starts_with(digest));
        let [copy] = found.as_slice() else {
            return Err(CopyError::Name(digest.to_owned(), found.len()));
        };
        let text = config::read_regular(&copy.file)?;
        if hex(&text) != copy.digest {
            return Err(CopyError::Changed(copy.file.clone()));
        }
        Ok((copy.clone(), text))
    }

    /// Stores a policy text, and removes the oldest copies beyond [`MAX_COPIES`].
    fn keep(&self, text: &str) -> io::Result<String> {
        if text.len() > MAX_BYTES {
            return Err(io::Error::other("the policy is too large to keep a copy"));
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let digest = hex(text);
        let file = self.folder.join(format!("{digest}.toml"));
        let new = self
            .folder
            .join(format!(".{digest}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all(text.as_bytes())?;
        fs::rename(&new, &file)?;
        for copy in self.list()?.iter().skip(MAX_COPIES) {
            fs::remove_file(&copy.file)?;
        }
        Ok(digest)
    }
}

/// The record of a policy that is put in force.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadedChange {
    /// The digest of its copy; `None` if no copy is kept.
    pub(super) copy: Option<Box<str>>,
    /// A description of the changes.
    pub(super) words: Box<str>,
}

/// Keeps a copy of a policy, and describes its changes from the policy before.
pub(super) fn keep_and_compare(
    config: &Config,
    before: Option<&Policy>,
    after: &Policy,
) -> LoadedChange {
    let words = match before {
        Some(before) => policy::difference_within(before, after, policy::QUICK).in_words(MAX_WORDS),
        None => "the first policy of this gate".to_owned(),
    };
    let kept = PolicyCopies::beside(&config.record).map(|copies| {
        let text = config::policy_copy(&config.sources);
        copies.keep(&text)
    });
    let copy = match kept {
        Some(Err(error)) => {
            tracing::warn!(%error, "no copy of the policy is kept");
            None
        }
        Some(Ok(digest)) => Some(digest.into()),
        None => None,
    };
    LoadedChange {
        copy,
        words: words.into(),
    }
}

/// Loads the policy that was last in force from its copy.
pub(super) fn last(record: &Record, catalogue: &Catalogue) -> Option<Policy> {
    let copies = PolicyCopies::beside(record)?;
    let newest = copies.list().ok()?.into_iter().next()?;
    let (copy, _) = copies.find(&newest.digest).ok()?;
    let loaded = config::load_policy(&copy.file).0?;
    policy::compile(&loaded.policy, catalogue).0
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hex(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}
