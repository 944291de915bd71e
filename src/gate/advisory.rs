//! Whether the policy is a wall or advice to its callers: a process of the gate's own user can
//! change the policy's files, end the gate and read its memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use crate::identity::client_user;
use crate::record::Event;

use super::Gate;

/// The least time between two looks: the system lists all connections for each.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of callers that are the gate's own user.
#[derive(Debug, Default)]
pub struct Advisory {
    /// Whether callers are looked at: a policy that is fixed is no advice.
    watched: AtomicBool,
    /// Whether it was said that the policy is advice.
    told: AtomicBool,
    looked: Mutex<Option<Instant>>,
}

impl Advisory {
    /// Looks at callers from now on.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Release);
    }

    /// Whether it is time for a look.
    fn is_due(&self, now: Instant) -> bool {
        if !self.watched.load(Ordering::Acquire) || self.told.load(Ordering::Acquire) {
            return false;
        }
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.is_none_or(|last| now.saturating_duration_since(last) >= LOOK_INTERVAL);
        if due {
            *looked = Some(now);
        }
        due
    }
}

impl Gate {
    /// Says that the policy is advice to some of its callers, and why: once, in the record, in the
    /// metrics and in the log.
    pub fn policy_is_advisory(&self, why: &str) {
        if self.advisory.told.swap(true, Ordering::AcqRel) {
            return;
        }
        self.metrics.policy_advisory();
        self.recorder
            .event(&Event::PolicyAdvisory { detail: why.into() });
        tracing::warn!("the policy is advice only: {why}");
    }

    /// Whether to look at a client: it is on this host, and the last look was a second ago. At most
    /// one look a second is due, until there was a caller who is the gate's own user.
    pub fn is_look_due(&self, client: SocketAddr, local: SocketAddr) -> bool {
        let here = client.ip().is_loopback() || client.ip() == local.ip();
        here && self.advisory.is_due(self.clock.instant())
    }

    /// Looks whether a client on this host is the gate's own user. Reads `/proc`.
    pub fn look_at_caller(&self, client: SocketAddr, local: SocketAddr) {
        let own = geteuid().as_raw();
        if client_user(client, local) == Some(own) {
            self.policy_is_advisory(&format!(
                "a caller on this host is user {own}, as the gate is: it can change the policy"
            ));
        }
    }
}
