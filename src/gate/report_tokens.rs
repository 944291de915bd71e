//! Tokens for a doctor's reports on the containment of its environment.
//!
//! The operator makes them at the control socket. Each allows a number of reports until it expires,
//! and nothing else. The tokens are kept in memory: a restart invalidates them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

/// Tokens at once, at most; the token that expires first makes room.
const MAX_TOKENS: usize = 256;
/// Random bytes of a token.
const TOKEN_SIZE: usize = 24;
/// The prefix of a token.
const PREFIX: &str = "tgreport_";

/// Valid tokens.
#[derive(Debug, Default)]
pub struct ReportTokens(Mutex<HashMap<[u8; 32], Allowed>>);

#[derive(Debug)]
struct Allowed {
    expires: Timestamp,
    reports: u32,
}

impl ReportTokens {
    /// Makes a token for `reports` reports. `None` if the system has no random bytes.
    pub fn make(&self, lifetime: SignedDuration, reports: u32, now: Timestamp) -> Option<String> {
        let mut bytes = [0; TOKEN_SIZE];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let expires = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, allowed| allowed.expires > now);
        if tokens.len() >= MAX_TOKENS {
            let first = tokens.iter().min_by_key(|(_, allowed)| allowed.expires);
            if let Some(first) = first.map(|(hash, _)| *hash) {
                tokens.remove(&first);
            }
        }
        tokens.insert(hash(&token), Allowed { expires, reports });
        Some(token)
    }

    /// Returns the hash of a token that allows a report, without counting one; `None` if it allows
    /// none.
    pub fn is_good(&self, token: &str, now: Timestamp) -> Option<[u8; 32]> {
        let hash = hash(token);
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = tokens.get(&hash)?;
        (allowed.expires > now && allowed.reports > 0).then_some(hash)
    }

    /// Counts one report of a token; returns whether the token allowed it.
    pub fn take(&self, token: &str, now: Timestamp) -> bool {
        let hash = hash(token);
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(allowed) = tokens.get_mut(&hash) else {
            return false;
        };
        let is_good = allowed.expires > now && allowed.reports > 0;
        allowed.reports = allowed.reports.saturating_sub(1);
        if !is_good || allowed.reports == 0 {
            tokens.remove(&hash);
        }
        is_good
    }
}

/// Tokens are looked up by their hash: the duration of a look-up reveals nothing about a token.
fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    #[test]
    fn a_token_is_good_for_its_reports_and_its_time() {
        let (tokens, now) = (ReportTokens::default(), Timestamp::UNIX_EPOCH);
        let token = tokens.make(HOUR, 2, now).unwrap();
        assert!(tokens.take(&token, now));
        assert!(!tokens.take("tgreport_x", now));
        assert!(tokens.is_good(&token, now).is_some());
        assert_eq!(tokens.is_good("tgreport_x", now), None);
        assert_eq!(tokens.is_good(&token, now + HOUR), None);
        assert!(tokens.take(&token, now));
        assert!(!tokens.take(&token, now), "used up");
        let token = tokens.make(HOUR, 2, now).unwrap();
        assert!(!tokens.take(&token, now + HOUR), "expired");
    }

    #[test]
    fn tokens_are_bounded() {
        let (tokens, now) = (ReportTokens::default(), Timestamp::UNIX_EPOCH);
        let first = tokens.make(HOUR, 1, now).unwrap();
        for _ in 0..MAX_TOKENS {
            tokens.make(HOUR * 2, 1, now).unwrap();
        }
        assert!(!tokens.take(&first, now));
        assert_eq!(tokens.0.lock().unwrap().len(), MAX_TOKENS);
    }
}
