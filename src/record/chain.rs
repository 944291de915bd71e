//! The hash chain of the log, and the signatures of its checkpoints.
//!
//! Each line ends with `tidegate.chain.seq`, `.prev` and `.hash`. The hash is the SHA-256, in hex, of
//! the line without its newline and without the field `tidegate.chain.hash`; since the line holds the
//! hash of the line before, each hash covers all lines before it. A `checkpoint` line also holds a
//! signature over the same bytes without the signature: Ed25519, with the key of this instance.

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::HEXLOWER;

use crate::decimal::{self, hex};

/// Prefix of the bytes that a signature covers: no signature of another use is valid here.
pub(super) const DOMAIN: &[u8] = b"tidegate-checkpoint-1\n";
/// The names of the chain fields, as bytes of a line.
pub(super) const SEQ: &[u8] = b",\"tidegate.chain.seq\":";
pub(super) const PREV: &[u8] = b",\"tidegate.chain.prev\":\"";
pub(super) const SIGNATURE: &[u8] = b",\"tidegate.checkpoint.signature\":\"";
pub(super) const HASH: &[u8] = b",\"tidegate.chain.hash\":\"";

/// A SHA-256 hash.
pub(super) type Hash = [u8; 32];

/// The head of a chain: its last line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Head {
    /// The number of the line; 0 before the first line.
    pub(super) seq: u64,
    /// The hash of the line; zeros before the first line.
    pub(super) hash: Hash,
}

impl Head {
    /// Ends a line that begins at `start` and lacks only its last brace: adds the chain fields, and
    /// the signature if `key` is given. Returns the new head.
    pub(super) fn seal(
        &self,
        bytes: &mut Vec<u8>,
        start: usize,
        key: Option<&Ed25519KeyPair>,
    ) -> Self {
        let seq = self.seq + 1;
        bytes.extend_from_slice(SEQ);
        decimal::put(bytes, seq);
        bytes.extend_from_slice(PREV);
        bytes.extend_from_slice(hex(&self.hash).as_flattened());
        if let Some(key) = key {
            bytes.push(b'"');
            let line = bytes.get(start..).unwrap_or_default();
            let signature = key.sign(&[DOMAIN, line, b"}"].concat());
            bytes.extend_from_slice(SIGNATURE);
            bytes.extend_from_slice(HEXLOWER.encode(signature.as_ref()).as_bytes());
        }
        // The brace is hashed and then removed: one call instead of a hash context on the heap.
        bytes.extend_from_slice(b"\"}");
        let hash = to_hash(&digest(&SHA256, bytes.get(start..).unwrap_or_default()));
        bytes.pop();
        bytes.extend_from_slice(HASH);
        bytes.extend_from_slice(hex(&hash).as_flattened());
        bytes.extend_from_slice(b"\"}\n");
        Self { seq, hash }
    }
}

/// Returns the hash of a line that lacks its last brace.
pub(super) fn hash(line: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(line);
    context.update(b"}");
    to_hash(&context.finish())
}

fn to_hash(digest: &Digest) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// Returns the public key of a key pair, in hex.
pub(super) fn public_hex(key: &Ed25519KeyPair) -> String {
    HEXLOWER.encode(key.public_key().as_ref())
}

/// Returns bytes from lower-case hex; `None` for any other text or length.
pub(super) fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    HEXLOWER.decode(text).ok()?.try_into().ok()
}
