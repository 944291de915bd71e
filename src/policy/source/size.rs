//! A size in bytes, in text form.

use std::fmt::{self, Write as _};

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// Maximum number of characters of a text that a message shows.
const SHOWN: usize = 40;

/// A size in text form: a number of bytes, or a text with a unit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Size {
    /// A number of bytes.
    Bytes(i64),
    /// A number and a unit.
    Text(String),
}

impl Size {
    const UNITS: [(&str, u64); 7] = [
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];

    /// Returns the number of bytes; `None` if the text is not a size.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => u64::try_from(*bytes).ok(),
            Self::Text(text) => {
                let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
                let (number, unit) = text.split_at_checked(digits)?;
                let (_, factor) = Self::UNITS
                    .iter()
                    .find(|(name, _)| *name == unit.trim_start())?;
                number.parse::<u64>().ok()?.checked_mul(*factor)
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Text(text) => text
                .chars()
                .take(SHOWN)
                .try_for_each(|letter| f.write_char(letter)),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as `\"64 KiB\"`")
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
        Ok(Size::Bytes(bytes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        Ok(Size::Text(text.to_owned()))
    }
}
