//! Detects that the policy is only advice to some callers: a process of the gate's own user can
//! change the policy's files, end the gate and read its memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use crate::identity::client_user;
use crate::record::Event;

use super::Gate;

/// The minimum time between two looks: the system lists all connections for each look.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the search for callers with the gate's own user.
#[derive(Debug, Default)]
pub struct Advisory {
    /// Whether to look at callers: a gate with a fixed policy does not look.
    watched: AtomicBool,
    /// Whether the advice was reported.
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
    /// Reports once, in record, metrics and log, that the policy is advice to some callers, and
    /// why.
    pub fn policy_is_advisory(&self, why: &str) {
        if self.advisory.told.swap(true, Ordering::AcqRel) {
            return;
        }
        self.metrics.policy_advisory();
        self.recorder
            .event(&Event::PolicyAdvisory { detail: why.into() });
        tracing::warn!("the policy is advice only: {why}");
    }

    /// Whether to look at a client: it is on this host, and the last look was at least a second
    /// ago. No look is due after a caller with the gate's own user was found.
    pub fn is_look_due(&self, client: SocketAddr, local: SocketAddr) -> bool {
        let here = client.ip().is_loopback() || client.ip() == local.ip();
        here && self.advisory.is_due(self.clock.instant())
    }

    /// Checks whether a client on this host is the gate's own user. Reads `/proc`.
    pub fn look_at_caller(&self, client: SocketAddr, local: SocketAddr) {
        let own = geteuid().as_raw();
        if client_user(client, local) == Some(own) {
            self.policy_is_advisory(&format!(
                "a caller on this host is user {own}, as the gate is: it can change the policy"
            ));
        }
    }
}
