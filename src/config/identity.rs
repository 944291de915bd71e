//! `[identity]`: the credentials and tokens by which callers identify themselves.

use std::path::PathBuf;
use std::sync::Arc;

use argon2::{ARGON2ID_IDENT, Params, PasswordHash};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::policy::source::Placed;

use super::files::read_text;
use super::issuer::Issuer;
use super::names::Names;
use super::session::Session;

/// The credentials and tokens by which callers identify themselves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// `[[identity.user]]`.
    pub users: Vec<User>,
    /// `[[identity.issuer]]`.
    pub issuers: Vec<Issuer>,
    /// `[identity.session]`.
    pub session: Session,
}

/// `[[identity.user]]`: a static credential.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The user part of `Proxy-Authorization: Basic`; no `:`.
    pub name: Arc<str>,
    /// The hashed secret.
    pub secret: SecretHash,
    /// Groups besides those that name the user as a member.
    pub groups: Vec<Arc<str>>,
    /// The repository this credential was issued for.
    pub repository: Option<Arc<str>>,
}

/// A hashed secret: `secret = "sha256:HEX"` for random tokens of 128 bits and more, or
/// `secret = "$argon2id$…"` for passwords.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretHash {
    /// PHC string of argon2id.
    Argon2(Arc<str>),
    /// SHA-256 of the secret.
    Sha256([u8; 32]),
}

/// The text of `[[identity.user]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct UserSection {
    name: Spanned<String>,
    secret: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    repository: Option<Spanned<String>>,
}

/// Maximum memory of a hash, in KiB: more would stop the proxy with one request.
const MAX_MEMORY_KIB: u32 = 1 << 20;

/// Reads the users; `secrets` collects the files with their hashes, and the content.
pub(super) fn users(
    sections: &[Placed<UserSection>],
    names: &Names<'_>,
    secrets: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    for section in sections {
        let UserSection {
            name,
            groups,
            repository,
            ..
        } = &section.value;
        let place = section.at(name);
        let secret = secret(section, secrets, findings);
        let groups = names.groups(section, groups, findings);
        let repository = repository
            .as_ref()
            .and_then(|written| names.repository(section, written, findings));
        let Some(name) = names.user(section, name, findings) else {
            continue;
        };
        if let Some(first) = users.iter().position(|user| user.name == name) {
            findings.push(user_twice(&name, place, places.get(first)));
        } else if let Some(secret) = secret {
            users.push(User {
                name,
                secret,
                groups,
                repository,
            });
            places.push(place);
        }
    }
    users
}

fn user_twice(name: &str, second: Place, first: Option<&Place>) -> Diagnostic {
    let finding = Diagnostic::error(
        "user-twice",
        second,
        format!("user `{name}` is written twice"),
    )
    .label("here again")
    .help("give each credential a name of its own");
    match first {
        Some(first) => finding.related(first.clone(), "first written here"),
        None => finding,
    }
}

fn secret(
    section: &Placed<UserSection>,
    secrets: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<SecretHash> {
    match (&section.value.secret, &section.value.secret_file) {
        (Some(written), None) => checked(written.get_ref(), section.at(written), findings),
        (None, Some(file)) => {
            let path = super::folder_of(&section.source.path).join(file.get_ref());
            match read_text(&path) {
                Ok(text) => {
                    let hash = checked(text.trim(), section.at(file), findings);
                    secrets.push((path, text));
                    hash
                }
                Err(unreadable) => {
                    let (code, message) = (unreadable.code(), unreadable.to_string());
                    findings.push(Diagnostic::error(code, section.at(file), message));
                    None
                }
            }
        }
        (Some(_), Some(file)) => {
            let message = "a user has a `secret` or a `secret-file`, not both";
            findings.push(Diagnostic::error("secret-twice", section.at(file), message));
            None
        }
        (None, None) => {
            let message = "`[[identity.user]]` needs a `secret` or a `secret-file`";
            let finding = Diagnostic::error("missing-key", section.place(), message)
                .label("`secret` is missing")
                .help(HASH_IT);
            findings.push(finding);
            None
        }
    }
}

const HASH_IT: &str = "write `secret = \"sha256:HEX\"` with what \
    `printf %s SECRET | sha256sum` prints for a random secret, or the `$argon2id$…` of a password";

fn checked(text: &str, place: Place, findings: &mut Vec<Diagnostic>) -> Option<SecretHash> {
    let (code, message) = match parse(text) {
        Ok(hash) => return Some(hash),
        Err(HashError::Argon2(why)) => ("bad-secret", format!("this is no argon2id hash: {why}")),
        Err(HashError::Plain) => ("plaintext-secret", "this secret is not hashed".to_owned()),
        Err(HashError::Sha256) => (
            "bad-secret",
            "`sha256:` is followed by 64 hexadecimal digits".to_owned(),
        ),
    };
    findings.push(Diagnostic::error(code, place, message).help(HASH_IT));
    None
}

/// Why a text is not a valid hash of a secret.
enum HashError {
    Argon2(String),
    Plain,
    Sha256,
}

fn parse(text: &str) -> Result<SecretHash, HashError> {
    if let Some(hex) = text.strip_prefix("sha256:") {
        return sha256(hex).map(SecretHash::Sha256).ok_or(HashError::Sha256);
    }
    if !text.starts_with("$argon2") {
        return Err(HashError::Plain);
    }
    let wrong = |why: &str| HashError::Argon2(why.to_owned());
    let hash = PasswordHash::new(text).map_err(|why| HashError::Argon2(why.to_string()))?;
    let params = Params::try_from(&hash).map_err(|why| HashError::Argon2(why.to_string()))?;
    if hash.algorithm != ARGON2ID_IDENT {
        return Err(wrong("it is another variant of argon2"));
    }
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(wrong("its salt or its output is missing"));
    }
    if params.m_cost() > MAX_MEMORY_KIB {
        return Err(wrong("it takes more than 1 GiB of memory"));
    }
    Ok(SecretHash::Argon2(text.into()))
}

/// Parses 64 hexadecimal digits.
fn sha256(hex: &str) -> Option<[u8; 32]> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGON2ID: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
        LyqnPpVMfGmVYHKlQQzmYNlxnKmbJPDTcAGZgcVfhVs";

    #[test]
    fn hashes_are_taken_and_nothing_else() {
        let hex = "Ab".repeat(32);
        assert!(
            matches!(parse(&format!("sha256:{hex}")), Ok(SecretHash::Sha256(it)) if it == [0xab; 32])
        );
        assert!(matches!(parse(ARGON2ID), Ok(SecretHash::Argon2(_))));
        for wrong in ["sha256:", "sha256:abc", "sha256:é"] {
            assert!(matches!(parse(wrong), Err(HashError::Sha256)), "{wrong}");
        }
        for wrong in ["", "hunter2", "sha512:00", &hex] {
            assert!(matches!(parse(wrong), Err(HashError::Plain)), "{wrong}");
        }
        let other = ARGON2ID.replace("argon2id", "argon2i");
        let huge = ARGON2ID.replace("m=19456", "m=4194304");
        for wrong in [
            "$argon2id$",
            "$argon2id$v=19$m=19456,t=2,p=1",
            &other,
            &huge,
        ] {
            assert!(matches!(parse(wrong), Err(HashError::Argon2(_))), "{wrong}");
        }
    }
}
