//! Reads the configuration files: all sections as plain data, all findings at once.

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
mod notify;
mod old_spelling;
mod parent;
mod plain_program;
mod policy_copy;
mod preset;
mod record;
mod refusal;
mod repository_policy;
mod schema;
mod section;
mod session;
mod shorthand;
mod stamp;
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
pub use files::{Files, digest_of_files, read, read_regular, with_narrowings};
pub use identity::{Identity, SecretHash, User};
pub use inspect::{Authority, CredentialKey, Inspect};
pub use issuer::Issuer;
pub(crate) use ledger::time_in_words;
pub use ledger::{Database, DatabaseServer, Ledger, LedgerStore};
pub use limits::Limits;
pub use listen::{AdminAddress, Control, IdentityDemand, Listen, Listener};
pub use load::{LoadedPolicy, embedded, embedded_with, keys, load, load_policy, load_text};
pub use notify::{Delivery, Notifier, REQUEST, Webhook, WebhookError, WebhookFormat, WebhookUrl};
pub use parent::{Authorization, Credential, FallBack, Parent, Resolve};
pub use policy_copy::policy_copy;
pub use record::{OnFailure, Record};
pub use repository_policy::{
    MAX_REPOSITORY_FILE, Narrowing, REPOSITORY_FILE, RepositoryPolicy, narrowing_as_policy,
    read_narrowing,
};
pub use schema::schema;
pub use session::{HeaderMismatch, Local, PrivateKey, Session, private_key};
pub use stamp::Stamp;
pub use strict_modes::{
    Exposure, LAST_SYSTEM_UID, Owners, exposed_file, exposed_files, exposed_program, exposures,
};
pub use tls::{ClientCertificates, ListenerTls, NameKind, PemFile};
pub use upstream::{OwnCertificate, Pin, TlsVersion, Upstream};
pub use value::parse_duration;
pub use workspace::Workspaces;

/// The configuration as written, checked for form. Mechanisms are built from its sections.
#[derive(Clone, Debug)]
pub struct Config {
    /// The named file, if any.
    pub path: Option<PathBuf>,
    /// All texts, in order: the file, then its includes.
    pub sources: Vec<Arc<Source>>,
    /// SHA-256 over all texts, in hex: the value of `tidegate.policy.digest`.
    pub digest: Arc<str>,
    /// The files and patterns to check for changes.
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
    /// The part of `[inspect]` that is not policy.
    pub inspect: Inspect,
    /// `[[workspace]]`: folders that are working copies of a repository.
    pub workspaces: Workspaces,
    /// `[[repository-policy]]`: repositories whose own policy narrows this one.
    pub repository_policies: Vec<RepositoryPolicy>,
    /// The names and digests of the policies of repositories that are part of this policy. `digest`
    /// covers them.
    pub narrowed_by: Vec<String>,
    /// `[upstream.*]`: settings for TLS to some destinations.
    pub upstreams: Vec<Upstream>,
    /// `shadow`: the configuration whose policy decides beside this one, without effect.
    pub shadow: Option<PathBuf>,
    /// `[ledger]`, if there is one.
    pub ledger: Option<Ledger>,
    /// `[notify.NAME]`: the receivers of notifications about new requests.
    pub notifiers: Vec<Notifier>,
    /// `[exceptions] longest`: the maximum duration of an exception.
    pub max_exception: std::time::Duration,
    /// `[refusal]`: the contact text of refusals by the policy.
    pub contact: Option<Arc<str>>,
    /// `[tiers]`, `[tier.*]`, `[[repository]]`, `[group.*]`, `[[destination]]`, `[[rule]]`,
    /// `[[trial]]` and the like.
    pub policy: source::Policy,
}

/// Returns the base folder of relative paths in a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
