//! `[identity]`: who may say who they are.

use std::sync::Arc;

/// Who may say who they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// `[[identity.user]]`.
    pub users: Vec<User>,
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
