//! Loads a configuration for commands that only read one.

use std::path::Path;

use crate::app::{Discovered, Loaded, discover};
use crate::config::{Config, Owners};
use crate::diag::{self, Severity};
use crate::policy::{self, Policy};

use super::print;

impl Loaded {
    /// Loads the discovered configuration. Files that other users could change give a warning: only
    /// a gate refuses them.
    pub(super) fn discovered(discovered: &Discovered) -> Self {
        let owners = Owners::of_this_process().and_services();
        Self::new(discovered.path(), &policy::built_in()).with_exposures(&owners, Severity::Warning)
    }

    /// Like [`Loaded::discovered`]; shows the findings and returns `None` if the configuration does
    /// not load. Warnings of a valid configuration are left to `tidegate check`. A configuration
    /// that only breaks an invariant is accepted, because its flows need an explanation.
    pub(super) fn whole(discovered: &Discovered) -> Option<(Config, Policy)> {
        let loaded = Self::discovered(discovered);
        if loaded.errors().next().is_some() {
            loaded.show();
        }
        Some((loaded.config?, loaded.policy.or(loaded.unproved)?))
    }

    /// Prints the findings on standard error.
    pub(super) fn show(&self) {
        if !self.findings.is_empty() {
            print::err(&diag::render(&self.findings, print::colour()));
        }
    }
}

/// Finds the configuration of a command and prints its path, unless the output is JSON.
pub(super) fn find(named: Option<&Path>, json: bool) -> Discovered {
    let discovered = discover(named);
    if let Some(line) = discovered.line().filter(|_| !json) {
        print::err(&format!("{line}\n"));
    }
    discovered
}
