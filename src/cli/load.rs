//! A configuration for the commands that only look at one.

use std::path::Path;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::diag::{self, Diagnostic, Severity};
use crate::policy::{self, Policy};
use crate::tls::{self, Upstreams};

use super::print;

/// What became of a configuration.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Everything that was written, where it has the form of a configuration.
    pub(super) config: Option<Config>,
    /// The compiled rules, where nothing is wrong.
    pub(super) policy: Option<Policy>,
    /// How upstreams are spoken TLS with, where nothing is wrong with that.
    pub(super) upstreams: Option<Upstreams>,
    /// All that was found.
    pub(super) findings: Vec<Diagnostic>,
}

impl Loaded {
    /// Loads and compiles a file, or the built-in policy.
    pub(super) fn new(path: Option<&Path>) -> Self {
        let (config, mut findings) = match path {
            Some(path) => config::load(path),
            None => (Some(config::embedded()), Vec::new()),
        };
        let (mut policy, mut upstreams) = (None, None);
        if let Some(config) = &config {
            let (compiled, more) = policy::compile(&config.policy, &policy::built_in());
            findings.extend(more);
            let clock = Clock::system();
            findings.extend(tls::Servers::new(&config.listen, &clock).1);
            let names = compiled.as_ref().map(Policy::inspected_names);
            let names = names.unwrap_or_default();
            findings.extend(tls::Authority::new(&config.inspect, &names, &clock).1);
            policy = compiled;
            findings.extend(tls::Servers::new(&config.listen, &Clock::system()).1);
            let (built, more) = Upstreams::new(&config.upstreams, &Clock::system());
            findings.extend(more);
            upstreams = built;
            findings.extend(tls::Client::wrong_with(&config.dial.parents));
        }
        let wrong = findings.iter().any(is_error);
        Self {
            config,
            policy: policy.filter(|_| !wrong),
            upstreams,
            findings,
        }
    }

    /// As [`Loaded::new`], where anything else is no use: shows what was found.
    pub(super) fn whole(path: Option<&Path>) -> Option<(Config, Policy)> {
        let loaded = Self::new(path);
        loaded.show();
        Some((loaded.config?, loaded.policy?))
    }

    /// Draws the findings on standard error.
    pub(super) fn show(&self) {
        if !self.findings.is_empty() {
            print::err(&diag::render(&self.findings, print::colour()));
        }
    }

    /// The findings that keep it from loading.
    pub(super) fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.findings.iter().filter(|finding| is_error(finding))
    }
}

fn is_error(finding: &Diagnostic) -> bool {
    finding.severity == Severity::Error
}
