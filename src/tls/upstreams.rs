//! The TLS configurations of upstreams, by the name of the `[upstream.NAME]`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::clock::Clock;
use crate::config;
use crate::diag::{Diagnostic, Severity};

use super::client::system_roots;
use super::roots::Roots;
use super::upstream::{Shown, Upstream};

/// All TLS configurations of upstreams, in one generation.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    pub(super) system: Option<System>,
    pub(super) named: HashMap<Arc<str>, Arc<Upstream>>,
}

/// The configuration with the system's roots. Made at its first use: reading the roots takes
/// milliseconds, and a gate that does not inspect may never need them.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) clock: Clock,
    pub(super) made: Arc<OnceLock<Option<Arc<Upstream>>>>,
}

impl System {
    fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            made: Arc::default(),
        }
    }

    /// Returns the configuration; `None` if the system has no roots.
    fn get(&self) -> Option<&Arc<Upstream>> {
        let make = || Upstream::system(&Roots::new(system_roots()), &self.clock).map(Arc::new);
        self.made.get_or_init(make).as_ref()
    }

    /// Returns the same configuration with the sessions of `before`, if that was used.
    fn after(&self, before: &Self) -> Self {
        let Some(Some(then)) = before.made.get() else {
            return self.clone();
        };
        let made = self.get().map(|now| Arc::new(now.after(then)));
        Self {
            clock: self.clock.clone(),
            made: Arc::new(OnceLock::from(made)),
        }
    }
}

impl Upstreams {
    /// Builds the configured upstreams; `None` if one of them has an error. Reads the system's
    /// roots if an upstream is configured, otherwise at the first use of [`Upstreams::of`] without
    /// a name.
    pub fn new(written: &[config::Upstream], clock: &Clock) -> (Option<Self>, Vec<Diagnostic>) {
        let roots = match written {
            [] => Roots::new(Vec::new()),
            [..] => Roots::new(system_roots()),
        };
        let mut findings = Vec::new();
        let mut named = HashMap::new();
        for one in written {
            match Upstream::new(one, &roots, clock, &mut findings) {
                Ok(upstream) => {
                    named.insert(one.name.clone(), Arc::new(upstream));
                }
                Err(finding) => findings.push(*finding),
            }
        }
        let system = Some(System::new(clock));
        let mut severities = findings.iter().map(|finding| finding.severity);
        let good = severities.all(|severity| severity != Severity::Error);
        (good.then_some(Self { system, named }), findings)
    }

    /// Only the configuration with the system's roots.
    pub fn system() -> Self {
        Self::new(&[], &Clock::system()).0.unwrap_or_default()
    }

    /// Returns the configurations with the sessions of unchanged upstreams in `before`.
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        let after = |now: &Arc<Upstream>, then: Option<&Arc<Upstream>>| match then {
            Some(then) => Arc::new(now.after(then)),
            None => now.clone(),
        };
        let system = self.system.as_ref();
        let named = self.named.iter();
        Self {
            system: system.map(|now| match &before.system {
                Some(then) => now.after(then),
                None => now.clone(),
            }),
            named: named
                .map(|(name, one)| (name.clone(), after(one, before.named.get(name))))
                .collect(),
        }
    }

    /// Returns the configuration of that name, or without a name that of the system; `None` if
    /// there is none.
    pub fn of(&self, name: Option<&str>) -> Option<&Arc<Upstream>> {
        match name {
            None => self.system.as_ref()?.get(),
            Some(name) => self.named.get(name),
        }
    }

    /// Returns the client certificates and roots of all upstreams, by name.
    pub fn shown(&self) -> Vec<&Shown> {
        let mut shown: Vec<_> = self.named.values().flat_map(|it| it.shown()).collect();
        shown.sort_by_key(|it| (&it.upstream, it.kind));
        shown
    }

    /// Returns the first expiry of certificates and lists, by kind.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, Timestamp)> {
        let all = self.named.values().flat_map(|it| it.shown());
        all.map(|it| (it.kind, it.end))
    }
}
