//! `Proxy-Authorization: Basic` (RFC 7617) against hashed secrets.

use std::collections::HashMap;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use crate::config::{self, SecretHash, User};

use super::cache::Verified;

/// Bytes of a credential, at most: a token and its session, in base64.
const MAX_CREDENTIALS_BYTES: usize = 12 * 1024;
/// Verified passwords that are cached, so that argon2 runs once and not for each request.
const REMEMBERED: usize = 1024;
/// Passwords verified at once: each costs 19 MiB and milliseconds.
const AT_ONCE: usize = 2;

/// The users and their hashed secrets.
pub struct Credentials {
    users: HashMap<Arc<str>, User>,
    verified: Verified<()>,
    turns: Semaphore,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the users of `[identity]`.
    pub fn new(config: &config::Identity) -> Self {
        Self {
            users: config
                .users
                .iter()
                .map(|user| (user.name.clone(), user.clone()))
                .collect(),
            verified: Verified::new(REMEMBERED),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Whether `config` has the same users, so that the cache stays valid.
    pub(super) fn same_users(&self, config: &config::Identity) -> bool {
        self.users.len() == config.users.len()
            && config
                .users
                .iter()
                .all(|user| self.users.get(&user.name) == Some(user))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Returns the user's name and the matched hash if the secret is right.
    pub(super) async fn verify(
        &self,
        name: &str,
        secret: Vec<u8>,
    ) -> Option<(Arc<str>, SecretHash)> {
        let user = self.users.get(name)?;
        let right = match &user.secret {
            SecretHash::Sha256(expected) => {
                let hash = digest::digest(&digest::SHA256, &secret);
                verify_slices_are_equal(hash.as_ref(), expected).is_ok()
            }
            SecretHash::Argon2(phc) => self.password(&user.name, phc, secret).await,
        };
        right.then(|| (user.name.clone(), user.secret.clone()))
    }

    async fn password(&self, name: &Arc<str>, phc: &Arc<str>, secret: Vec<u8>) -> bool {
        let mark = self.verified.mark(&[name.as_bytes(), &secret]);
        if self.verified.get(mark).is_some() {
            return true;
        }
        let Ok(_turn) = self.turns.acquire().await else {
            return false;
        };
        let phc = phc.clone();
        let right = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&phc)
                .is_ok_and(|hash| Argon2::default().verify_password(&secret, &hash).is_ok())
        })
        .await
        .unwrap_or(false);
        if right {
            self.verified.put(mark, ());
        }
        right
    }
}

/// The credential in `Proxy-Authorization`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Credential {
    /// The part before the colon of `Basic`; empty for `Bearer`.
    pub(super) username: String,
    /// The part after the colon.
    pub(super) secret: Vec<u8>,
    bearer: bool,
}

impl Credential {
    /// Whether the secret is a token, not the password of a user.
    pub(super) fn is_token(&self) -> bool {
        // The start of every JWT: `{"` in base64url.
        let header = |text: &str| {
            let jwt = text.strip_prefix("sk-ant-cc-").unwrap_or(text);
            jwt.starts_with("eyJ") && jwt.split('.').count() == 3
        };
        self.bearer || self.token().is_some_and(header)
    }

    /// The token.
    pub(super) fn token(&self) -> Option<&str> {
        std::str::from_utf8(&self.secret).ok()
    }
}

/// Parses a `Basic` (RFC 7617) or `Bearer` (RFC 6750) credential; `None` for any other.
pub(super) fn read(value: &[u8]) -> Option<Credential> {
    if value.len() > MAX_CREDENTIALS_BYTES {
        return None;
    }
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at_checked(space)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"basic") {
        basic(rest)
    } else if scheme.eq_ignore_ascii_case(b"bearer") {
        bearer(rest)
    } else {
        None
    }
}

fn basic(encoded: &[u8]) -> Option<Credential> {
    let decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, secret) = decoded.split_at_checked(colon)?;
    let name = std::str::from_utf8(name).ok()?;
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic()) && name.len() <= 512;
    printable.then(|| Credential {
        username: name.to_owned(),
        secret: secret.get(1..).unwrap_or_default().to_vec(),
        bearer: false,
    })
}

fn bearer(token: &[u8]) -> Option<Credential> {
    let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    (!token.is_empty() && token.iter().all(sound)).then(|| Credential {
        username: String::new(),
        secret: token.to_vec(),
        bearer: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    fn one(name: &str, secret: SecretHash) -> Credentials {
        let user = User {
            name: name.into(),
            secret,
            groups: vec![],
            repository: None,
        };
        Credentials::new(&config::Identity {
            users: vec![user],
            ..config::Identity::default()
        })
    }

    fn sha256(text: &str) -> SecretHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        SecretHash::Sha256(hash)
    }

    #[test]
    fn only_well_formed_basic_credentials_decode() {
        let decoded = |text: &str| {
            let credential = read(&basic(text))?;
            Some((credential.username, credential.secret))
        };
        assert_eq!(decoded("ana:s:3"), Some(("ana".into(), b"s:3".to_vec())));
        assert_eq!(decoded(":x"), Some((String::new(), b"x".to_vec())));
        for bad in [
            &b"Basic"[..],
            b"Basic !!!",
            b"Bearer ",
            b"Bearer a b",
            b"Digest YTpi",
            b"BasicYTpi",
            b"",
        ] {
            assert_eq!(read(bad), None);
        }
        assert_eq!(read(&basic("no-colon")), None);
        assert_eq!(read(&basic("a\nb:c")), None);
        assert_eq!(read(&vec![b'B'; MAX_CREDENTIALS_BYTES + 1]), None);
    }

    #[test]
    fn a_token_is_known_by_its_form_or_its_scheme() {
        let is_token = |value: &[u8]| read(value).unwrap().is_token();
        assert!(is_token(&basic("0195.bash:eyJhbGciOiJ9.eyJ9.c2ln")));
        assert!(is_token(b"Bearer eyJhbGciOiJ9.eyJ9.c2ln"));
        assert!(is_token(b"bearer anything"));
        assert!(!is_token(&basic("ana:eyJ-but-no-token")));
        assert!(!is_token(&basic("ana:a.b.c")));
    }

    #[tokio::test]
    async fn a_token_is_compared_by_its_hash() {
        let credentials = one("ana", sha256("right"));
        assert_eq!(
            credentials
                .verify("ana", b"right".to_vec())
                .await
                .map(|(name, _)| name)
                .as_deref(),
            Some("ana")
        );
        assert_eq!(credentials.verify("ana", b"wrong".to_vec()).await, None);
        assert_eq!(credentials.verify("bob", b"right".to_vec()).await, None);
    }

    #[tokio::test]
    async fn a_verified_password_is_remembered_and_a_wrong_one_is_not() {
        use argon2::password_hash::PasswordHasher;
        let cheap = argon2::Params::new(8, 1, 1, None).unwrap();
        let phc = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap)
            .hash_password_with_salt(b"right", b"0123456789abcdef")
            .unwrap()
            .to_string();
        let credentials = one("ana", SecretHash::Argon2(phc.into()));
        assert!(credentials.verify("ana", b"wrong".to_vec()).await.is_none());
        assert!(credentials.verified.len() == 0);
        assert!(credentials.verify("ana", b"right".to_vec()).await.is_some());
        assert_eq!(credentials.verified.len(), 1);
        assert!(credentials.verify("ana", b"right".to_vec()).await.is_some());
        assert!(credentials.verify("ana", b"wrong".to_vec()).await.is_none());
    }
}
