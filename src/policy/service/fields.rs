//! The parts of a path that a pattern captures: repository, package, version and file.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A part that a pattern can capture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Field {
    Repository,
    Package,
    Version,
    /// A file name that contains a package and a version.
    File,
}

impl Field {
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("repository", Self::Repository),
        ("package", Self::Package),
        ("version", Self::Version),
        ("file", Self::File),
    ];

    pub(super) fn from_word(word: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(name, _)| *name == word).map(|(_, field)| field)
    }
}

/// The captures of one path, without decoding.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields<'a> {
    repository: Option<Cow<'a, str>>,
    package: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
    file: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    pub(super) fn set(&mut self, field: Field, text: Cow<'a, str>) {
        *match field {
            Field::Repository => &mut self.repository,
            Field::Package => &mut self.package,
            Field::Version => &mut self.version,
            Field::File => &mut self.file,
        } = Some(text);
    }

    /// Returns the capture as the path has it; `None` if the pattern has no such field.
    pub(super) fn get(&self, field: Field) -> Option<&str> {
        match field {
            Field::Repository => self.repository.as_deref(),
            Field::Package => self.package.as_deref(),
            Field::Version => self.version.as_deref(),
            Field::File => self.file.as_deref(),
        }
    }

    /// Copies the captures of `other`; `None` if one of them is not `sound`.
    pub(super) fn adopt(&mut self, other: &Fields<'_>, sound: fn(&str) -> bool) -> Option<()> {
        for (_, field) in Field::ALL {
            if let Some(text) = other.get(field) {
                if !sound(text) {
                    return None;
                }
                self.set(field, Cow::Owned(text.to_owned()));
            }
        }
        Some(())
    }

    pub(super) fn repository(&self) -> Option<Cow<'_, str>> {
        self.get(Field::Repository).map(decode)
    }

    pub(super) fn package(&self) -> Option<Cow<'_, str>> {
        self.get(Field::Package).map(decode)
    }

    pub(super) fn version(&self) -> Option<Cow<'_, str>> {
        self.get(Field::Version).map(decode)
    }

    pub(super) fn file(&self) -> Option<Cow<'_, str>> {
        self.get(Field::File).map(decode)
    }
}

/// Decodes the escapes of a name: `%40acme` is a spelling of `@acme`, which a rule for `@acme` has
/// to match. A text that does not decode to UTF-8 is returned unchanged.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text)
        .decode_utf8()
        .unwrap_or(Cow::Borrowed(text))
}
