//! Every way to speak TLS onward, by the name of its `[upstream.NAME]`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::clock::Clock;
use crate::config;
use crate::diag::{Diagnostic, Severity};

use super::client::system_roots;
use super::roots::Roots;
use super::upstream::{Shown, Upstream};

/// Every way to speak TLS onward, in one generation.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    system: Option<System>,
    named: HashMap<Arc<str>, Arc<Upstream>>,
}

/// The way with the system's roots. It is made when it is first used: reading the roots takes
/// milliseconds, and a gate that does not inspect may never need them.
#[derive(Clone, Debug)]
struct System {
    clock: Clock,
    made: Arc<OnceLock<Option<Arc<Upstream>>>>,
}

impl System {
    fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            made: Arc::default(),
        }
    }

    /// The way; `None` where the system has no roots.
    fn get(&self) -> Option<&Arc<Upstream>> {
        let make = || Upstream::system(&Roots::new(system_roots()), &self.clock).map(Arc::new);
        self.made.get_or_init(make).as_ref()
    }

    /// The same way, going on with the sessions of `before` where that was used.
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
    /// Builds those that are written; nothing where one of them is wrong. The system's roots are
    /// read where one is written, else at the first use of [`Upstreams::of`] without a name.
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

    /// The system's way only.
    pub fn system() -> Self {
        Self::new(&[], &Clock::system()).0.unwrap_or_default()
    }

    /// As they are, going on with the sessions of `before`: those of ways that did not change.
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

    /// The one of that name; without a name, the system's way. `None` where there is none.
    pub fn of(&self, name: Option<&str>) -> Option<&Arc<Upstream>> {
        match name {
            None => self.system.as_ref()?.get(),
            Some(name) => self.named.get(name),
        }
    }

    /// Their own certificates and roots, by name.
    pub fn shown(&self) -> Vec<&Shown> {
        let mut shown: Vec<_> = self.named.values().flat_map(|it| it.shown()).collect();
        shown.sort_by_key(|it| (&it.upstream, it.kind));
        shown
    }

    /// When what they are made of ends first, by kind.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, Timestamp)> {
        let all = self.named.values().flat_map(|it| it.shown());
        all.map(|it| (it.kind, it.end))
    }
}
