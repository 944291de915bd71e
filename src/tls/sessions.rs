//! TLS sessions with origins that a later handshake may resume (RFC 8446 section 2.2).
//!
//! A session belongs to one caller, one target and one offer of protocols: an origin can recognise
//! a client by its session, and a resumed session is not verified again. So a session is never used
//! for another caller or port, and never longer than [`SESSION_LIFETIME`] after the store of its
//! origin was made. Early data (0-RTT) is never sent: an attacker could replay it.

use std::convert::Infallible;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::ClientConfig;
use rustls::client::{ClientSessionMemoryCache, Resumption};

use crate::clock::Clock;
use crate::name::Target;
use crate::policy::CallerKey;

use super::Alpn;
use super::cache::Cache;

/// Session stores in one half of the cache; each holds the sessions of one origin for one caller.
const MAX_STORES: usize = 256;
/// Maximum number of tickets in one store.
const MAX_TICKETS: usize = 8;
/// How long resumed handshakes may rely on a certificate that was verified once.
pub(super) const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// The session stores of one upstream.
pub(super) struct Sessions {
    stores: Cache<SessionKey, Store>,
    clock: Clock,
}

/// The caller and the origin of sessions.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct SessionKey {
    caller: CallerKey,
    target: Target,
    alpn: Alpn,
}

/// A configuration that resumes the sessions of one store.
#[derive(Clone)]
struct Store {
    config: Arc<ClientConfig>,
    made: Timestamp,
}

impl Sessions {
    pub(super) fn new(clock: &Clock) -> Self {
        Self {
            stores: Cache::new(MAX_STORES),
            clock: clock.clone(),
        }
    }

    /// Returns `config` with the sessions that this caller has with this target.
    pub(super) fn resuming(
        &self,
        (caller, target): (&CallerKey, &Target),
        alpn: Alpn,
        config: &Arc<ClientConfig>,
    ) -> Arc<ClientConfig> {
        let key = SessionKey {
            caller: caller.clone(),
            target: target.clone(),
            alpn,
        };
        let now = self.clock.now();
        let until = now.saturating_sub(SESSION_LIFETIME).unwrap_or(now);
        let good = |store: &Store| (until..=now).contains(&store.made);
        let make = || {
            let mut config = ClientConfig::clone(config);
            let tickets = ClientSessionMemoryCache::new(MAX_TICKETS);
            config.resumption = Resumption::store(Arc::new(tickets));
            Ok::<_, Infallible>(Store {
                config: Arc::new(config),
                made: now,
            })
        };
        match self.stores.get(&key, good, make) {
            Ok(store) => store.config,
        }
    }
}
