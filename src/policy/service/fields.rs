//! What a path names: the parts that a pattern captures.

use std::borrow::Cow;

/// Something that a pattern can capture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Field {
    Repository,
    Package,
    Version,
    /// A file name that has a package and a version in it.
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

/// The captures of one path, still as they are written in it.
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

    /// As written, where it was captured.
    pub(super) fn get(&self, field: Field) -> Option<&str> {
        match field {
            Field::Repository => self.repository.as_deref(),
            Field::Package => self.package.as_deref(),
            Field::Version => self.version.as_deref(),
            Field::File => self.file.as_deref(),
        }
    }

    /// Takes over what was captured elsewhere, where all of it is sound.
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

/// Takes percent-encoding away, as the server will: `%40acme` is a spelling of `@acme` that must
/// not pass by a rule for it. What does not decode is left as it is.
pub(in crate::policy) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let triplet = match rest {
            [b'%', high, low, after @ ..] => hex(*high).zip(hex(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        let (byte, after) = match triplet {
            Some(((high, low), after)) => (high << 4 | low, after),
            None => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn hex(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}
