//! `Proxy-Authorization: Basic` (RFC 7617) against hashed secrets.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use crate::config::{self, SecretHash, User};

/// Longest credential that is looked at, in bytes of base64.
const LONGEST: usize = 4096;
/// Verified passwords that are remembered, so that argon2 is paid once and not per request.
const REMEMBERED: usize = 1024;
/// Passwords that are verified at once: each costs 19 MiB and milliseconds.
const AT_ONCE: usize = 2;

/// The users and their hashed secrets.
pub struct Credentials {
    users: HashMap<Arc<str>, User>,
    /// `None` where the machine has no randomness: nothing is remembered then.
    key: Option<hmac::Key>,
    verified: Mutex<HashSet<[u8; 32]>>,
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
    /// Takes the users of `[identity]`.
    pub fn new(config: &config::Identity) -> Self {
        Self {
            users: config
                .users
                .iter()
                .map(|user| (user.name.clone(), user.clone()))
                .collect(),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok(),
            verified: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Whether these are the users of `config`, so that the cache may live on.
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

    /// The user's name where the secret is right, and the hash that it was held against.
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
        let mark = self.mark(name, &secret);
        if mark.is_some_and(|mark| self.lock().contains(&mark)) {
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
        if let Some(mark) = mark.filter(|_| right) {
            self.remember(mark);
        }
        right
    }

    fn mark(&self, name: &str, secret: &[u8]) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(secret);
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        Some(mark)
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut verified = self.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(mark);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The username and the secret of a `Basic` credential; `None` where it is anything else.
pub(super) fn decode(value: &[u8]) -> Option<(String, Vec<u8>)> {
    if value.len() > LONGEST {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case(b"basic") || !rest.starts_with(b" ") {
        return None;
    }
    let decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, secret) = decoded.split_at_checked(colon)?;
    let name = std::str::from_utf8(name).ok()?;
    let printable = name.bytes().all(|byte| (0x21..0x7f).contains(&byte)) && name.len() <= 512;
    printable.then(|| {
        (
            name.to_owned(),
            secret.get(1..).unwrap_or_default().to_vec(),
        )
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
        Credentials::new(&config::Identity { users: vec![user] })
    }

    fn sha256(text: &str) -> SecretHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        SecretHash::Sha256(hash)
    }

    #[test]
    fn only_well_formed_basic_credentials_decode() {
        assert_eq!(
            decode(&basic("ana:s:3")),
            Some(("ana".into(), b"s:3".to_vec()))
        );
        assert_eq!(decode(&basic(":x")), Some((String::new(), b"x".to_vec())));
        for bad in [
            &b"Basic"[..],
            b"Basic !!!",
            b"Bearer YTpi",
            b"BasicYTpi",
            b"",
        ] {
            assert_eq!(decode(bad), None);
        }
        assert_eq!(decode(&basic("no-colon")), None);
        assert_eq!(decode(&basic("a\nb:c")), None);
        assert_eq!(decode(&vec![b'B'; LONGEST + 1]), None);
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
        assert!(credentials.lock().is_empty());
        assert!(credentials.verify("ana", b"right".to_vec()).await.is_some());
        assert_eq!(credentials.lock().len(), 1);
        assert!(credentials.verify("ana", b"right".to_vec()).await.is_some());
        assert!(credentials.verify("ana", b"wrong".to_vec()).await.is_none());
    }
}
