//! Verifies the chain of a log: that no line was changed, removed, added, moved or cut off.
//!
//! The flaws that a [`Verifier`] reports on a line depend only on the lines before, so that files
//! of any length are verified in one pass.

use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::Deserialize;

use super::chain::{DOMAIN, HASH, Hash, Head, SIGNATURE, from_hex, hash};

/// A gate signs each minute in which it writes: a longer time without a signature means that lines
/// are missing or forged.
const MAX_UNSIGNED: Duration = Duration::from_mins(2);

/// A flaw of a line, or a gap before the line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// The bytes of the line do not match the hash of the line.
    #[error("line {0} was changed: it does not match its own hash")]
    Changed(u64),
    /// The bytes are no line of the log.
    #[error("this is no whole line of a decision log")]
    Foreign,
    /// The line before was changed or replaced together with its hash.
    #[error("line {0} does not follow the line before it: one of both was changed")]
    Unlinked(u64),
    /// Lines before this line are missing.
    #[error("lines {0} to {1} are missing before this line")]
    Missing(u64, u64),
    /// The line is a duplicate, or belongs earlier.
    #[error("line {0} is here again, or at the wrong place: line {1} was expected")]
    Misplaced(u64, u64),
    /// The first line of all files does not begin a file.
    #[error(
        "the log begins with line {0}, which does not begin a file: lines before it are missing"
    )]
    Beheaded(u64),
    /// A checkpoint has no signature, or none by this key.
    #[error("the signature of checkpoint {0} is not by the key {1}")]
    Unsigned(u64, String),
    /// A checkpoint is missing.
    #[error("no checkpoint for more than two minutes at line {0}: a gate signs each minute")]
    Unfastened(u64),
    /// The log has no checkpoint.
    #[error(
        "no line is signed by the key {0}: this is no log of that gate, or it began less than a \
         minute ago (then verify again in a minute)"
    )]
    NeverSigned(String),
    /// The last checkpoint is too old for a running gate.
    #[error(
        "the log ends with a checkpoint of {0:.0}: a gate that runs signs each minute, so lines \
         after line {1} are missing, or the gate does not run (then leave out --running)"
    )]
    Stale(Timestamp, u64),
    /// The end is missing, or the gate still runs, or was killed.
    #[error(
        "the log does not end with the checkpoint of a gate that stopped: lines after line {0} \
         may be missing. The gate still runs (then add --running), was killed, or the end was cut off"
    )]
    Unended(u64),
    /// The log ends too early.
    #[error("the log ends with line {0}, and not with line {1} or later")]
    Short(u64, u64),
}

/// The expected end of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending {
    /// The current time, if a gate still writes the log: then the lines of the last two minutes
    /// need no signature yet.
    pub running: Option<Timestamp>,
    /// The number of the line that the log must contain at least.
    pub through: Option<u64>,
}

/// The state of verification after the lines so far.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    key: Option<[u8; 32]>,
    /// Whether the caller gave the key, instead of the first checkpoint.
    given: bool,
    head: Option<Head>,
    first: u64,
    lines: u64,
    checkpoints: u64,
    /// The last line that a checkpoint signs, and the time of the signature.
    signed: Option<(u64, Timestamp)>,
    /// Since when lines are unsigned: the time of the last checkpoint, or of the first line.
    unsigned_since: Option<Timestamp>,
    stopped: bool,
    checkpoint_is_last: bool,
    /// The number of lines of an older version without a chain.
    unchained: u64,
}

/// The fields that verification needs.
#[derive(Deserialize)]
struct Line<'a> {
    timestamp: Timestamp,
    #[serde(borrow, rename = "event.name")]
    name: &'a str,
    #[serde(rename = "tidegate.chain.seq")]
    seq: u64,
    #[serde(borrow, rename = "tidegate.chain.prev")]
    prev: &'a str,
    #[serde(borrow, rename = "tidegate.checkpoint.cause")]
    cause: Option<&'a str>,
    #[serde(borrow, rename = "tidegate.checkpoint.key")]
    key: Option<&'a str>,
    #[serde(borrow, rename = "tidegate.checkpoint.signature")]
    signature: Option<&'a str>,
}

impl Verifier {
    /// Verifies signatures by this key, or, if `None`, by the key in the first checkpoint.
    pub fn new(key: Option<[u8; 32]>) -> Self {
        Self {
            key,
            given: key.is_some(),
            ..Self::default()
        }
    }

    /// Returns the number in a line; `None` if the bytes are no line of a chain.
    pub fn number(line: &[u8]) -> Option<u64> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        Some(line.seq)
    }

    /// Verifies the next line, without its newline.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        let Some((prefix, said)) = split(bytes) else {
            return self.unchained(bytes);
        };
        let line: Line<'_> = serde_json::from_slice(bytes).map_err(|_| Flaw::Foreign)?;
        let found = hash(prefix);
        let linked = self.follows(&line, found == said);
        let before = self.head.replace(Head {
            seq: line.seq,
            hash: said,
        });
        self.lines += 1;
        self.stopped = false;
        self.checkpoint_is_last = line.name == "checkpoint";
        if before.is_none() {
            self.first = line.seq;
        }
        linked?;
        if line.name == "checkpoint" {
            self.checkpoint(&line, prefix)
        } else {
            self.unsigned(&line)
        }
    }

    /// Verifies the end of the log, after the last line.
    pub fn end(&self, ending: Ending) -> Result<(), Flaw> {
        let last = self.last();
        if let Some(through) = ending.through.filter(|through| *through > last) {
            return Err(Flaw::Short(last, through));
        }
        if let (None, true, Some((key, true))) = (self.signed, self.lines > 0, self.key()) {
            return Err(Flaw::NeverSigned(key));
        }
        let Some(now) = ending.running else {
            return if self.stopped || self.lines == 0 {
                Ok(())
            } else {
                Err(Flaw::Unended(last))
            };
        };
        let age = self.unsigned_since.map(|since| now.duration_since(since));
        let age = age.and_then(|age| Duration::try_from(age).ok());
        match (age, self.signed) {
            (Some(age), Some((line, at))) if age > MAX_UNSIGNED && line == last => {
                Err(Flaw::Stale(at, last))
            }
            // Without a key, an idle gate writes nothing.
            (Some(age), _) if age > MAX_UNSIGNED && !self.checkpoint_is_last => {
                Err(Flaw::Unfastened(last))
            }
            _ => Ok(()),
        }
    }

    /// Returns the number of the first line.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Returns the number of the last line.
    pub fn last(&self) -> u64 {
        self.head.map_or(0, |head| head.seq)
    }

    /// Returns the number of lines after the last checkpoint.
    pub fn unsigned_lines(&self) -> u64 {
        self.last()
            .saturating_sub(self.signed.map_or(0, |(line, _)| line))
    }

    /// Returns the last line that a checkpoint signs, and the time of the signature.
    pub fn signed(&self) -> Option<(u64, Timestamp)> {
        self.signed
    }

    /// Returns the number of verified lines, and of checkpoints among them.
    pub fn counts(&self) -> (u64, u64) {
        (self.lines, self.checkpoints)
    }

    /// Returns the number of lines of a version without a chain, which cannot be verified.
    pub fn unchained_lines(&self) -> u64 {
        self.unchained
    }

    /// Returns the key of the signatures in hex, and whether the caller gave the key.
    pub fn key(&self) -> Option<(String, bool)> {
        self.key.map(|key| (HEXLOWER.encode(&key), self.given))
    }

    fn unchained(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        let is_object = serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(bytes);
        let older = is_object.is_ok_and(|line| {
            line.contains_key("event.name") && !line.keys().any(|key| key.contains(".chain."))
        });
        if self.head.is_some() || !older {
            return Err(Flaw::Foreign);
        }
        self.unchained += 1;
        Ok(())
    }

    fn follows(&self, line: &Line<'_>, whole: bool) -> Result<(), Flaw> {
        let Some(head) = self.head else {
            let begins = line.seq == 1 || line.cause == Some("opened") && self.unchained == 0;
            return match (whole, begins) {
                (false, _) => Err(Flaw::Changed(line.seq)),
                (true, false) => Err(Flaw::Beheaded(line.seq)),
                (true, true) => Ok(()),
            };
        };
        let expected = head.seq + 1;
        if line.seq > expected {
            return Err(Flaw::Missing(expected, line.seq - 1));
        }
        if line.seq < expected {
            return Err(Flaw::Misplaced(line.seq, expected));
        }
        if !whole {
            return Err(Flaw::Changed(line.seq));
        }
        if from_hex(line.prev.as_bytes()) != Some(head.hash) {
            return Err(Flaw::Unlinked(line.seq));
        }
        Ok(())
    }

    fn checkpoint(&mut self, line: &Line<'_>, prefix: &[u8]) -> Result<(), Flaw> {
        self.checkpoints += 1;
        self.stopped = line.cause == Some("stopped");
        self.unsigned_since = Some(line.timestamp);
        let said: Option<[u8; 32]> = line.key.and_then(|key| from_hex(key.as_bytes()));
        let Some(key) = self.key.or(said) else {
            // A log without a key has no signatures.
            return Ok(());
        };
        self.key = Some(key);
        let refused = || Flaw::Unsigned(line.seq, HEXLOWER.encode(&key));
        let signature = line.signature.ok_or_else(refused)?;
        let signature: [u8; 64] = from_hex(signature.as_bytes()).ok_or_else(refused)?;
        let end = prefix.len().saturating_sub(SIGNATURE.len() + 128 + 1);
        let (message, field) = prefix.split_at_checked(end).ok_or_else(refused)?;
        if said != Some(key) || !field.starts_with(SIGNATURE) {
            return Err(refused());
        }
        let message = [DOMAIN, message, b"}"].concat();
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message, &signature)
            .map_err(|_| refused())?;
        self.signed = Some((line.seq, line.timestamp));
        Ok(())
    }

    fn unsigned(&mut self, line: &Line<'_>) -> Result<(), Flaw> {
        let since = *self.unsigned_since.get_or_insert(line.timestamp);
        let took = Duration::try_from(line.timestamp.duration_since(since)).unwrap_or_default();
        // A gate that could not write for a while, or was idle, signs first; only the `record_gap`
        // line for that time precedes the checkpoint.
        if took > MAX_UNSIGNED && line.name != "record_gap" {
            self.unsigned_since = Some(line.timestamp);
            return Err(Flaw::Unfastened(line.seq));
        }
        Ok(())
    }
}

/// Parses a public key in hex, as checkpoints contain it and `tidegate log key` prints it.
pub fn parse_public_key(text: &str) -> Option<[u8; 32]> {
    from_hex(text.trim().as_bytes())
}

/// Splits a line into the line without its hash and last brace, and the hash that the line
/// contains.
fn split(bytes: &[u8]) -> Option<(&[u8], Hash)> {
    let at = bytes.len().checked_sub(HASH.len() + 64 + 2)?;
    let (prefix, field) = bytes.split_at_checked(at)?;
    let said = field.strip_prefix(HASH)?.strip_suffix(b"\"}")?;
    Some((prefix, from_hex(said)?))
}
