//! What the files say: all sections as plain data, every finding at once.

mod admin_tls;
mod blot;
mod claim;
mod dial;
mod files;
mod glob;
mod identity;
mod inspect;
mod issuer;
mod ledger;
mod limits;
mod listen;
mod load;
mod names;
mod old_spelling;
mod parent;
mod plain_program;
mod policy_copy;
mod preset;
mod record;
mod refusal;
mod schema;
mod section;
mod session;
mod shorthand;
mod strict_modes;
mod tls;
mod upstream;
mod value;
mod workspace;
mod written;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diag::Source;
use crate::policy::source;

pub use admin_tls::AdminTls;
pub use claim::{Piece, Template, Wanted};
pub use dial::Dial;
pub use files::{Files, digest_of_files, read, read_regular};
pub use identity::{Identity, SecretHash, User};
pub use inspect::{Authority, CredentialKey, Inspect};
pub use issuer::Issuer;
pub(crate) use ledger::time_in_words;
pub use ledger::{Database, DatabaseServer, Ledger, LedgerStore};
pub use limits::Limits;
pub use listen::{AdminAddress, Control, IdentityDemand, Listen, Listener};
pub use load::{LoadedPolicy, embedded, embedded_with, keys, load, load_policy, load_text};
pub use parent::{Authorization, Credential, FallBack, Parent, Resolve};
pub use policy_copy::policy_copy;
pub use record::{OnFailure, Record};
pub use schema::schema;
pub use session::{HeaderMismatch, Local, PrivateKey, Session, private_key};
pub use strict_modes::{
    Exposure, LAST_SYSTEM_UID, Owners, exposed_file, exposed_program, exposures,
};
pub use tls::{ClientCertificates, ListenerTls, NameKind, PemFile};
pub use upstream::{OwnCertificate, Pin, TlsVersion, Upstream};
pub use value::parse_duration;
pub use workspace::Workspaces;

/// Everything that was written, checked for form; mechanisms are built from its sections.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was named, where one was.
    pub path: Option<PathBuf>,
    /// Every text read, in order: the file, then its includes.
    pub sources: Vec<Arc<Source>>,
    /// SHA-256 over all texts, in hex: what `tidegate.policy.digest` says.
    pub digest: Arc<str>,
    /// What to read again to learn whether anything changed.
    pub files: Files,
    /// `[listen]` and `[[listener]]`.
    pub listen: Listen,
    /// `[record]`.
    pub record: Record,
    /// `[dial]`.
    pub dial: Dial,
    /// `[limits]`.
    pub limits: Limits,
    /// `[identity]`.
    pub identity: Identity,
    /// What `[inspect]` says besides policy.
    pub inspect: Inspect,
    /// `[[workspace]]`: which folders are working copies of which repository.
    pub workspaces: Workspaces,
    /// `[upstream.*]`: how to speak TLS with some destinations.
    pub upstreams: Vec<Upstream>,
    /// `shadow`: the configuration whose policy decides beside this one, without effect.
    pub shadow: Option<PathBuf>,
    /// `[ledger]`; `None`: there is none.
    pub ledger: Option<Ledger>,
    /// `[exceptions] longest`: how long an exception may last.
    pub max_exception: std::time::Duration,
    /// `[refusal]`: the contact text of refusals by the policy.
    pub contact: Option<Arc<str>>,
    /// `[tiers]`, `[tier.*]`, `[[repository]]`, `[group.*]`, `[[destination]]`, `[[rule]]`,
    /// `[[trial]]` and the like.
    pub policy: source::Policy,
}

/// The folder that relative paths in a file are relative to.
fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
