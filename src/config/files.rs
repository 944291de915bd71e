//! The files of a configuration: includes in order, bounds, the digest.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use toml::Spanned;
use toml::de::DeTable;

use crate::diag::{Diagnostic, Place, Source};

use super::glob;
use super::written::includes_of;

/// Maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// Maximum number of files.
const MAX_FILES: usize = 1_000;

/// The files to read again for detecting a change.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The files in the order in which they were read.
    pub(super) read: Vec<FileRead>,
    /// Files with secrets, certificates and lists.
    pub(super) secrets: Vec<PathBuf>,
}

/// One file that was read.
#[derive(Clone, Debug)]
pub(super) struct FileRead {
    pub(super) source: Arc<Source>,
    /// The path without symbolic links, which identifies the file.
    real: PathBuf,
    /// The index of the file that includes this one.
    from: Option<usize>,
    /// The `include` patterns of the file.
    pub(super) includes: Vec<String>,
}

/// Reads a file; errors name the path.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads files"
)]
pub fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Reads a regular file of bounded size; a pipe or a device is an error, without waiting.
pub fn read_regular(path: &Path) -> io::Result<String> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = File::options();
    let file = options.read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!(
            "{}: no regular file",
            path.display()
        )));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Computes the digest of a configuration's files as they are now: expands the patterns again, and
/// parses only changed files. Equal to [`Config::digest`] if no file has changed; two equal digests
/// in a row mean that no file is being written.
///
/// [`Config::digest`]: super::Config::digest
pub fn digest_of_files(config: &super::Config) -> io::Result<Arc<str>> {
    let Some(first) = &config.path else {
        return Ok(config.digest.clone());
    };
    let mut digest = Digest::new();
    let mut waiting = vec![first.clone()];
    let mut seen = HashSet::new();
    while let Some(path) = waiting.pop() {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if seen.len() >= MAX_FILES || !seen.insert(real) {
            return Err(io::Error::other(format!(
                "{}: included twice",
                path.display()
            )));
        }
        let text = read_text(&path).map_err(io::Error::other)?;
        digest.add(&path, &text);
        for pattern in config.files.includes(&path, text).iter().rev() {
            let found = glob::expand(super::folder_of(&path), pattern).map_err(io::Error::other)?;
            waiting.extend(found.into_iter().rev());
        }
    }
    for path in &config.files.secrets {
        let text = match read_text(path) {
            // A removed file is a change like any other: the reload reports it.
            Err(why) if why.code() == "no-such-file" => String::new(),
            text => text.map_err(io::Error::other)?,
        };
        digest.add(path, &text);
    }
    Ok(with_narrowings(&digest.finish(), &config.narrowed_by))
}

/// Returns the digest of a configuration whose policy is narrowed by those of some repositories.
pub fn with_narrowings(digest: &Arc<str>, narrowed_by: &[String]) -> Arc<str> {
    narrowed_by.iter().fold(digest.clone(), |digest, one| {
        let mut whole = Digest::new();
        whole.add(Path::new("files"), &digest);
        whole.add(Path::new("repository"), one);
        whole.finish()
    })
}

impl Files {
    /// Returns the patterns that a file includes; parses its text only if it has changed.
    fn includes(&self, path: &Path, text: String) -> Vec<String> {
        let known = self.read.iter().find(|file| file.source.path == path);
        if let Some(known) = known.filter(|file| file.source.text == text) {
            return known.includes.clone();
        }
        let source = Arc::new(Source::new(path, text));
        let Ok(table) = DeTable::parse(&source.text) else {
            return Vec::new();
        };
        let patterns = includes_of(&source, table.get_ref(), &mut Vec::new());
        patterns.into_iter().map(Spanned::into_inner).collect()
    }

    /// Returns the texts of the configuration files that were read, with the included ones.
    pub fn sources(&self) -> Vec<Arc<Source>> {
        self.read.iter().map(|file| file.source.clone()).collect()
    }

    /// Returns the digest of all files, including the files with `secrets`.
    pub(super) fn digest(&mut self, secrets: Vec<(PathBuf, String)>) -> Arc<str> {
        let mut digest = Digest::new();
        for file in &self.read {
            digest.add(&file.source.path, &file.source.text);
        }
        for (path, text) in secrets {
            digest.add(&path, &text);
            self.secrets.push(path);
        }
        digest.finish()
    }
}

/// Files that are read in order; the files that one includes come right after it.
pub(super) struct Reading {
    files: Files,
    /// The files to read, in reverse order.
    waiting: Vec<Waiting>,
}

/// A file to read.
struct Waiting {
    path: PathBuf,
    from: usize,
    place: Place,
}

impl Reading {
    /// Starts with a text.
    pub(super) fn begin(source: Arc<Source>) -> Self {
        let real = real(&source.path);
        let first = FileRead {
            source,
            real,
            from: None,
            includes: Vec::new(),
        };
        let files = Files {
            read: vec![first],
            secrets: Vec::new(),
        };
        Self {
            files,
            waiting: Vec::new(),
        }
    }

    /// Adds the files that the last file includes.
    pub(super) fn include(
        &mut self,
        patterns: Vec<Spanned<String>>,
        findings: &mut Vec<Diagnostic>,
    ) {
        let from = self.files.read.len() - 1;
        let Some(file) = self.files.read.get_mut(from) else {
            return;
        };
        let mut waiting = Vec::new();
        for pattern in patterns {
            let place = Place::new(&file.source, pattern.span());
            let text = pattern.into_inner();
            match glob::expand(super::folder_of(&file.source.path), &text) {
                Ok(found) if found.is_empty() => findings.push(
                    Diagnostic::warning("include-empty", place, "no file is included here")
                        .label("this matches nothing")
                        .help("`*` matches files of one folder, relative to this file"),
                ),
                Ok(found) => waiting.extend(found.into_iter().map(|path| Waiting {
                    path,
                    from,
                    place: place.clone(),
                })),
                Err(why) => findings.push(
                    Diagnostic::error("include-pattern", place, "this pattern names no files")
                        .label(why.to_string()),
                ),
            }
            file.includes.push(text);
        }
        self.waiting.extend(waiting.into_iter().rev());
    }

    /// Reads the next file, if there is one.
    pub(super) fn next(&mut self, findings: &mut Vec<Diagnostic>) -> Option<Arc<Source>> {
        while let Some(waiting) = self.waiting.pop() {
            if self.files.read.len() >= MAX_FILES {
                self.waiting.clear();
                let message = format!("more than {MAX_FILES} files are included");
                findings.push(Diagnostic::error("include-many", waiting.place, message));
                break;
            }
            match self.read(waiting) {
                Ok(source) => return Some(source),
                Err(finding) => findings.push(*finding),
            }
        }
        None
    }

    fn read(&mut self, waiting: Waiting) -> Result<Arc<Source>, Box<Diagnostic>> {
        let Waiting { path, from, place } = waiting;
        let real = real(&path);
        if let Some(index) = self.files.read.iter().position(|file| file.real == real) {
            return Err(self.again(index, from, place).into());
        }
        let text = read_text(&path)
            .map_err(|why| Box::new(Diagnostic::error(why.code(), place, why.to_string())))?;
        let source = Arc::new(Source::new(path, text));
        let file = FileRead {
            source: source.clone(),
            real,
            from: Some(from),
            includes: Vec::new(),
        };
        self.files.read.push(file);
        Ok(source)
    }

    /// The finding for a file that was read before, as number `index`.
    fn again(&self, index: usize, from: usize, place: Place) -> Diagnostic {
        let mut above = Some(from);
        while let Some(at) = above {
            if at == index {
                return Diagnostic::error("include-cycle", place, "these includes go in a circle")
                    .label("it is being read already")
                    .help("name the other files, or keep them in a folder of their own");
            }
            above = self.files.read.get(at).and_then(|file| file.from);
        }
        Diagnostic::error("include-twice", place, "this file is included twice")
            .label("it was read before")
            .help("include each file once: its rules would count twice")
    }

    /// Returns the files.
    pub(super) fn finish(self) -> Files {
        self.files
    }
}

/// Returns the path without symbolic links; unchanged if there is no such file.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The file could not be read.
    #[error("{}: {}", .0.display(), spoken(.1))]
    Io(PathBuf, io::Error),
    /// The file is too large.
    #[error("{}: larger than 8 MiB", .0.display())]
    TooLarge(PathBuf),
    /// The file is not UTF-8.
    #[error("{}: not UTF-8 from line {} on", .0.display(), .1)]
    Utf8(PathBuf, usize),
}

impl ReadError {
    /// The code of the finding.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Io(_, error) if error.kind() == io::ErrorKind::NotFound => "no-such-file",
            Self::Io(..) => "unreadable",
            Self::TooLarge(_) => "too-large",
            Self::Utf8(..) => "not-utf8",
        }
    }
}

/// Formats an error without the number that the system adds.
fn spoken(error: &io::Error) -> String {
    let said = error.to_string();
    said.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

/// Reads a file of bounded size.
pub(super) fn read_text(path: &Path) -> Result<String, ReadError> {
    let failed = |error| ReadError::Io(path.to_owned(), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = valid.split(|byte| *byte == b'\n').count();
        ReadError::Utf8(path.to_owned(), line)
    })
}

/// SHA-256 over names and texts, each with its length, so that no byte can move between them
/// unnoticed.
struct Digest(Context);

impl Digest {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn add(&mut self, path: &Path, text: &str) {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        for part in [name, text.as_bytes()] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    fn finish(self) -> Arc<str> {
        let digits = |byte: &u8| [byte >> 4, byte & 15];
        let digits = self
            .0
            .finish()
            .as_ref()
            .iter()
            .flat_map(digits)
            .collect::<Vec<_>>();
        let hex = |digit| char::from_digit(u32::from(digit), 16).unwrap_or_default();
        digits.into_iter().map(hex).collect::<String>().into()
    }
}
